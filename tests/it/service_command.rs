//! `rcbot service` with a fake systemd that logs its calls; and what the binary prints about itself to a pipe.

use std::{
    fs,
    ops::Deref,
    path::Path,
    process::{Command, Output, Stdio},
};

use nix::unistd::geteuid;

use crate::support::{
    host::set_mode,
    prelude::*,
    program::{Ended as _, Folder, rcbot},
    run_to_end,
};

/// The user unit, below the home directory.
const UNIT: &str = ".config/systemd/user/rcbot.service";

/// A home directory with a configuration, and a fake systemd and `claude`.
struct Home(Folder);

impl Deref for Home {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.0
    }
}

impl Home {
    /// `state`: the answer to `systemctl is-system-running`.
    fn new(state: &str) -> Self {
        let home = Self(Folder::new());
        fs::create_dir_all(home.path("website")).unwrap();
        let config = "homeserver: { url: http://127.0.0.1:9, server_name: example.org }\n\
                      admin_room: \"#admins:example.org\"\n\
                      authorization: { users: [\"@alice:example.org\"] }\n\
                      projects: { website: { directory: website } }\n";
        home.write("config.yaml", config);
        let systemctl = format!(
            "case \"$*\" in *is-system-running) echo {state} ;; *) echo \"systemctl $*\" >> \"$HOME/calls\" ;; esac"
        );
        home.program("systemctl", &systemctl);
        home.program("loginctl", "echo \"loginctl $*\" >> \"$HOME/calls\"");
        home.program("claude", "");
        home
    }

    fn program(&self, name: &str, script: &str) {
        fs::create_dir_all(self.path("bin")).unwrap();
        let name = format!("bin/{name}");
        self.write(&name, &format!("#!/bin/sh\n{script}\n"));
        set_mode(&self.path(&name), 0o755);
    }

    fn service(&self, arguments: &[&str]) -> Output {
        let mut command = rcbot(&self.path(""));
        let others = std::env::var("PATH").unwrap();
        let path = format!("{}:{others}", self.path("bin").display());
        let command = command.env("PATH", path).arg("service").args(arguments);
        run_to_end(command.current_dir(self.path("")))
    }

    /// The calls of systemd since this was last called.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        drop(fs::remove_file(self.path("calls")));
        calls.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_service_of_a_user_is_written_started_and_removed() {
    let home = Home::new("running");
    let said = home.service(&["--user"]).succeeded();
    said.says(&format!("Wrote {}", home.path(UNIT).display()));
    assert_eq!(
        home.calls(),
        [
            "systemctl --user daemon-reload",
            "systemctl --user enable rcbot.service",
            "systemctl --user restart rcbot.service",
            "loginctl enable-linger",
        ]
    );
    let unit = home.read(UNIT);
    let config = home.path("config.yaml");
    let start = format!("rcbot run --config {}", config.display());
    let path = format!("Environment=PATH={}:", home.path("bin").display());
    let lines = |part: &str| unit.lines().filter(|line| line.contains(part)).count();
    assert_eq!((lines(&start), lines(&path)), (1, 1), "{unit}");

    let said = home.service(&["--user", "--remove"]).succeeded();
    assert_eq!(
        home.calls(),
        [
            "systemctl --user disable --now rcbot.service",
            "systemctl --user daemon-reload"
        ]
    );
    assert!(!home.path(UNIT).exists());
    let stop = format!("rcbot stop --config {}` ends them", config.display());
    said.says("Sessions keep running");
    said.says(&stop);
    let again = home.service(&["--user", "--remove"]).succeeded();
    again.says("nothing to remove");
    assert!(home.calls().is_empty());
}

#[test]
fn a_unit_that_somebody_changed_is_replaced_only_if_asked() {
    let home = Home::new("running");
    home.service(&["--user"]).succeeded();
    let unit = home.read(UNIT);
    let same = home.service(&["--user"]).succeeded();
    same.says("is there already, and the same");

    home.write(UNIT, "mine");
    home.calls();
    let said = home.service(&["--user"]).failed(1);
    said.says("exists already and differs");
    said.says("--replace");
    home.read(UNIT).is("mine");
    assert!(home.calls().is_empty());

    let said = home.service(&["--user", "--replace"]).succeeded();
    said.says("Replaced");
    home.read(UNIT).is(&unit);
}

#[test]
fn without_a_running_systemd_the_commands_are_printed() {
    let home = Home::new("offline");
    let said = home.service(&["--user", "--name=rcbot-2"]).succeeded();
    assert!(home.calls().is_empty());
    assert!(home.path(".config/systemd/user/rcbot-2.service").exists());
    for step in [
        "  systemctl --user enable rcbot-2.service\n",
        "  loginctl enable-linger\n",
    ] {
        said.says(step);
    }
}

#[test]
fn a_service_that_would_end_at_the_log_out_says_so() {
    let home = Home::new("running");
    home.program("loginctl", "exit 1");
    let said = home.service(&["--user"]).failed(1);
    said.says("the service runs, but it ends when you log out");
    said.says("`sudo loginctl enable-linger \"$USER\"`");
    said.lacks("end it there");
    assert!(
        home.calls()
            .contains(&"systemctl --user restart rcbot.service".to_owned())
    );
}

#[test]
fn a_service_that_does_not_start_is_reported_with_where_to_look() {
    let home = Home::new("running");
    home.program(
        "systemctl",
        "case \"$*\" in *is-system-running) echo degraded ;; *restart*) exit 1 ;; esac",
    );
    let said = home.service(&["--user"]).failed(1);
    for part in [
        "`systemctl --user restart rcbot.service` failed",
        "end it there",
        "`systemctl --user status rcbot.service`",
    ] {
        said.says(part);
    }
}

#[test]
fn a_preview_writes_nothing_and_invalid_input_is_refused_before_anything_is_written() {
    let home = Home::new("running");
    let unit = home.service(&["--print", "--run-as=nobody"]).succeeded();
    unit.says("\nUser=nobody\n");
    unit.says("WantedBy=multi-user.target");
    let said = home
        .service(&["--print", "--run-as=nobody-of-this-name"])
        .failed(2);
    said.says("there is no user nobody-of-this-name");
    let said = home.service(&["--user", "--name=../x"]).failed(2);
    said.says("wanted letters, digits");
    if geteuid().is_root() {
        // The configuration belongs to root here.
        let said = home.service(&[]).failed(2);
        said.says("every session would run as root");
        said.says("--run-as");
    } else {
        let said = home.service(&[]).failed(2);
        said.says("put `sudo` before the command");
    }
    fs::write(home.path("config.yaml"), "nonsense").unwrap();
    home.service(&["--user"]).failed(2);
    assert!(!home.path(".config").exists() && home.calls().is_empty());
}

/// All that a command prints to a pipe.
fn printed(arguments: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    run_to_end(rcbot(home.path()).args(arguments)).succeeded()
}

#[test]
fn the_example_configuration_is_printed_as_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = fs::read_to_string(root.join("config.example.yaml")).unwrap();
    assert_eq!(printed(&["config"]), example);
}

#[test]
fn completions_know_every_command_and_are_valid() {
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&["completions", shell]);
        for word in ["reset-identity", "service", "--run-as"] {
            let word = if shell == "fish" {
                word.trim_start_matches("--")
            } else {
                word
            };
            assert!(script.contains(word), "{word} is not in {shell}'s");
        }
    }
    let mut bash = Command::new("bash");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rcbot.bash");
    fs::write(&file, printed(&["completions", "bash"])).unwrap();
    assert!(bash.arg("-n").arg(&file).status().unwrap().success());
}

#[test]
fn the_manual_page_has_a_section_for_each_command() {
    let page = printed(&["man"]);
    page.says(".TH rcbot 1");
    for command in ["init", "run", "reset\\-identity", "service", "completions"] {
        let section = page.split("\n.SS ").find_map(|section| {
            let (name, section) = section.split_once('\n')?;
            (name == format!("rcbot {}", command.replace("\\-", "-"))).then_some(section)
        });
        let section = section.unwrap_or_else(|| panic!("{command} is not in {page}"));
        let usage = format!("rcbot {command}");
        section.says(&usage);
    }
    page.says("run\\-as");
}

#[test]
fn a_pipe_that_the_reader_closes_is_no_failure() {
    let home = tempfile::tempdir().unwrap();
    let mut reader = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
    let pipe = reader.stdin.take().unwrap();
    reader.wait().unwrap();
    let mut command = rcbot(home.path());
    let output = command
        .arg("man")
        .stdout(pipe)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
