//! `rcbot init`: from a bare folder to a configuration and a registration with which the bot runs.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::support::{
    checkup::Checker,
    homeserver::SERVER_NAME,
    prelude::*,
    program::{isolate, rcbot},
    run_to_end, start_homeserver,
};

/// Runs a program at a terminal, with what is typed there on its standard input.
const AT_A_TERMINAL: &str =
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";

/// An empty folder, beside a directory for a project.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(TempDir::with_prefix("rcbot-test-").unwrap());
        for name in ["bot", "website"] {
            fs::create_dir(folder.path(name)).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Without a terminal, in the folder of the bot.
    fn init(&self, arguments: &[&str]) -> Output {
        run_to_end(
            rcbot(self.0.path())
                .arg("init")
                .args(arguments)
                .current_dir(self.path("bot")),
        )
    }

    /// With all flags, whose shortest is `--project`.
    fn init_with_all(&self, more: &[&str]) -> Output {
        let directory = self.path("website");
        let all = [
            "--homeserver=http://127.0.0.1:9",
            "--server-name=example.org",
            "--admin-room=#admins:example.org",
            "--directory",
            directory.to_str().unwrap(),
            "--project=website",
        ];
        self.init(&[&all[..], more].concat())
    }

    /// Types these lines.
    fn init_at_a_terminal(&self, arguments: &[&str], lines: &str) -> (String, Option<i32>) {
        let mut python = Command::new("python3");
        isolate(&mut python, self.0.path());
        let mut python = python
            .args(["-c", AT_A_TERMINAL, env!("CARGO_BIN_EXE_rcbot"), "init"])
            .args(arguments)
            .current_dir(self.path("bot"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut keyboard = python.stdin.take().unwrap();
        keyboard.write_all(lines.as_bytes()).unwrap();
        // The last line is a question without an answer where it is not answered: Ctrl-D.
        keyboard.write_all(b"\x04").unwrap();
        drop(keyboard);
        let output = python.wait_with_output().unwrap();
        (
            String::from_utf8(output.stdout).unwrap(),
            output.status.code(),
        )
    }

    /// Asserts that it wrote nothing.
    #[track_caller]
    fn assert_bare(&self) {
        let mut left = fs::read_dir(self.path("bot")).unwrap();
        assert!(left.next().is_none());
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn flags_make_both_files_private_and_the_next_steps_are_told_without_a_secret() {
    let folder = Folder::new();
    let output = folder.init_with_all(&["--config", "new/folder/config.yaml"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let place = folder.path("bot/new/folder");
    assert_eq!(mode(&place), 0o700);
    for name in ["config.yaml", "registration.yaml"] {
        assert_eq!(mode(&place.join(name)), 0o600, "{name}");
    }
    let registration = fs::read_to_string(place.join("registration.yaml")).unwrap();
    registration.says(r"@rcbot:example\.org");
    let said = stdout(&output);
    let config = place.join("config.yaml");
    for part in [
        "app_service_config_files:",
        "!admin appservices register",
        &format!("rcbot check --config {}", config.display()),
        &format!("rcbot run --config {}", config.display()),
        "@rcbot:example.org to #admins:example.org",
    ] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    let registration: serde_json::Value = serde_yaml::from_str(&registration).unwrap();
    for token in ["as_token", "hs_token"] {
        assert!(!said.contains(registration[token].as_str().unwrap()));
    }
    let checkup = Checker::new(&config).run();
    checkup.passed("configuration", "1 project");
    checkup.passed("registration", "for @rcbot:example.org");
    assert_eq!(users(&config), json!([]), "nobody was named");
    checkup.failed("homeserver", "http://127.0.0.1:9/");
}

/// Who may command, as a configuration says it.
fn users(config: &Path) -> Value {
    let config: Value = serde_yaml::from_str(&fs::read_to_string(config).unwrap()).unwrap();
    config["authorization"]["users"].clone()
}

#[test]
fn the_administrators_that_are_named_are_those_who_may_command() {
    let folder = Folder::new();
    let named = ["--admin=@alice:example.org", "--admin", "@bob:x.y"];
    assert!(folder.init_with_all(&named).status.success());
    let config = folder.path("bot/config.yaml");
    assert_eq!(users(&config), json!(["@alice:example.org", "@bob:x.y"]));

    let folder = Folder::new();
    let output = folder.init_with_all(&["--admin=alice"]);
    assert_eq!(output.status.code(), Some(2));
    let told = stderr(&output);
    told.says("'--admin <USER>': found \"alice\", wanted a user id");
    folder.assert_bare();
}

#[test]
fn a_further_host_gets_a_bot_and_a_name_of_its_own() {
    let folder = Folder::new();
    let output = folder.init_with_all(&["--localpart=rcbot-build1", "--host=build1"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stdout(&output);
    for part in [
        "/etc/matrix-synapse/rcbot-build1.yaml",
        "@rcbot-build1:example.org to #admins:example.org",
    ] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    let read = |name| fs::read_to_string(folder.path("bot").join(name)).unwrap();
    let registration: serde_json::Value = serde_yaml::from_str(&read("registration.yaml")).unwrap();
    // Synapse takes each id once.
    assert_eq!(registration["id"], "rcbot-build1");
    let config: serde_json::Value = serde_yaml::from_str(&read("config.yaml")).unwrap();
    assert_eq!(config["host"], "build1");
    let checkup = Checker::new(&folder.path("bot").join("config.yaml")).run();
    checkup.passed("registration", "for @rcbot-build1:example.org");
}

#[test]
fn a_registration_without_log_in_can_be_wanted() {
    let folder = Folder::new();
    assert!(folder.init_with_all(&["--msc4190"]).status.success());
    let text = fs::read_to_string(folder.path("bot/registration.yaml")).unwrap();
    text.says("io.element.msc4190: true\n");
}

#[test]
fn without_a_terminal_the_flags_that_are_missing_are_named() {
    let folder = Folder::new();
    let output = folder.init(&["--homeserver=http://127.0.0.1:9", "--project=website"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("give --server-name, --admin-room, --directory as well"),
        "{}",
        stderr(&output)
    );
    let output = folder.init_with_all(&["--msc4190", "--config=registration.yaml"]);
    assert!(stderr(&output).contains("--config"), "{}", stderr(&output));
    folder.assert_bare();
}

#[test]
fn a_flag_that_will_not_do_is_told_with_what_is_wanted() {
    let folder = Folder::new();
    for (flag, told) in [
        (
            "--homeserver=localhost:8008",
            "'--homeserver <URL>': found \"localhost:8008\", wanted an http or https URL",
        ),
        (
            "--admin-room=admins",
            "'--admin-room <ROOM>': found \"admins\", wanted a room's alias or id",
        ),
        ("--directory=nowhere", "no directory at /"),
        ("--project=../x", "'--project <NAME>': found \"../x\""),
        ("--localpart=RC Bot", "found \"RC Bot\", wanted a user name"),
        ("--host=a b", "found \"a b\", wanted a host's name"),
    ] {
        let output = folder.init(&[flag]);
        assert_eq!(output.status.code(), Some(2));
        let said = stderr(&output);
        assert!(said.contains(told), "{told:?} is not in: {said}");
    }
    folder.assert_bare();
}

#[test]
fn nothing_is_overwritten_and_nothing_is_asked_in_vain() {
    for name in ["config.yaml", "registration.yaml"] {
        let folder = Folder::new();
        let (there, other) = match name {
            "config.yaml" => (
                folder.path("bot/config.yaml"),
                folder.path("bot/registration.yaml"),
            ),
            _ => (
                folder.path("bot/registration.yaml"),
                folder.path("bot/config.yaml"),
            ),
        };
        fs::write(&there, "mine").unwrap();
        let output = folder.init_with_all(&[]);
        assert_eq!(output.status.code(), Some(1));
        let refusal = format!("{} exists already, so nothing was written", there.display());
        assert!(stderr(&output).contains(&refusal), "{}", stderr(&output));
        let (screen, code) = folder.init_at_a_terminal(&[], "");
        assert_eq!(code, Some(1));
        screen.says("exists already");
        screen.lacks("Homeserver");
        assert_eq!(fs::read_to_string(&there).unwrap(), "mine");
        assert!(!other.exists());

        fs::remove_file(&there).unwrap();
        symlink("nowhere", &there).unwrap();
        assert_eq!(folder.init_with_all(&[]).status.code(), Some(1));
        assert!(!other.exists());
    }
}

#[test]
fn an_answer_that_does_not_come_leaves_nothing_behind() {
    let folder = Folder::new();
    let (screen, code) =
        folder.init_at_a_terminal(&["--homeserver=http://127.0.0.1:9"], "example.org\n");
    assert_eq!(code, Some(1), "{screen}");
    screen.says("no answer came, so nothing was written");
    folder.assert_bare();
}

#[test]
fn the_answers_and_what_is_told_then_make_a_bot_that_the_homeserver_knows() {
    let folder = Folder::new();
    let mut homeserver = start_homeserver(&folder.path("homeserver")).unwrap();
    let lines = format!(
        "localhost\n{}\n\nadmins\n\"#admins:{SERVER_NAME}\"\nalice\n@alice:{SERVER_NAME}\n../nowhere\n../website\n\n",
        homeserver.url()
    );
    let (screen, code) = folder.init_at_a_terminal(&[], &lines);
    assert_eq!(code, Some(0), "{screen}");
    for part in [
        "found \"localhost\", wanted an http or https URL",
        &format!("(such as example.org) [{SERVER_NAME}]: "),
        "found \"admins\", wanted a room's alias or id",
        "found \"alice\", wanted a user id",
        "no directory at /",
        "as people type it [website]: ",
        "Wrote /",
    ] {
        assert!(screen.contains(part), "{part:?} is not in: {screen}");
    }
    let config = folder.path("bot/config.yaml");
    assert_eq!(users(&config), json!([format!("@alice:{SERVER_NAME}")]));
    let checker = Checker::new(&config);
    let checkup = checker.run();
    for name in ["configuration", "registration", "homeserver"] {
        checkup.passed(name, "");
    }
    checkup.failed("account", "does not know the appservice's token");

    // The first of the steps that are told.
    let copy = homeserver.registrations()[0].clone();
    fs::copy(folder.path("bot/registration.yaml"), copy).unwrap();
    homeserver.start_again().unwrap();
    let checkup = checker.run();
    for name in ["registration", "server_name", "account"] {
        checkup.passed(name, "");
    }
}

#[test]
fn an_address_at_which_no_homeserver_answers_is_taken_with_a_warning() {
    let folder = Folder::new();
    let lines = "http://127.0.0.1:9\nexample.org\n#admins:example.org\nnone\n../website\n\n";
    let (screen, code) = folder.init_at_a_terminal(&[], lines);
    assert_eq!(code, Some(0), "{screen}");
    screen.says("No homeserver answers at http://127.0.0.1:9/ now");
}
