//! `rcbot check` on the host: for each fault the failed line, and that its remedy mends it. Needs no homeserver.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    checkup::{Checker, Checkup, commands},
    run_to_end,
};

/// A `claude` that knows its version, and keeps in its files what the real one does when people log in and trust.
const CLAUDE: &str = r#"#!/bin/sh
case "$*" in
--version) echo "2.1.250 (Claude Code)" ;;
"auth login") mkdir -p "$HOME/.claude"
    echo '{"claudeAiOauth":{"accessToken":"a","refreshToken":"r","expiresAt":1,"scopes":["user:inference","user:profile"]}}' \
        > "$HOME/.claude/.credentials.json" ;;
"") echo "{\"remoteDialogSeen\":true,\"oauthAccount\":{\"emailAddress\":\"alice@example.org\"},\
\"projects\":{\"$(pwd -P)\":{\"hasTrustDialogAccepted\":true}}}" > "$HOME/.claude.json" ;;
*) exit 1 ;;
esac
"#;

/// A host on which everything is right, but for the homeserver, which is not there.
struct Host {
    folder: TempDir,
    checker: Checker,
}

impl Host {
    fn new() -> Self {
        let folder = TempDir::with_prefix("rcbot-test-").unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["home", "website", "bin"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::write(path("bin/claude"), CLAUDE).unwrap();
        set_mode(&path("bin/claude"), 0o755);
        let search = format!("{}:/usr/bin:/bin", path("bin").display());
        let checker = Checker::new(&path("config.yaml"))
            .environment("HOME", path("home"))
            .environment("PATH", search);
        let host = Self { folder, checker };
        host.configure(|_| {});
        set_mode(&host.path("config.yaml"), 0o600);
        host.rcbot("registration");
        host.shell("claude auth login && claude");
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, change: impl FnOnce(&mut Value)) {
        let mut config = json!({
            "homeserver": { "url": "http://127.0.0.1:9", "server_name": "example.org" },
            "admin_room": "#admins:example.org",
            "projects": { "website": { "directory": "website" } },
        });
        change(&mut config);
        fs::write(
            self.path("config.yaml"),
            serde_yaml::to_string(&config).unwrap(),
        )
        .unwrap();
    }

    fn configure_project(&self, key: &str, value: Value) {
        self.configure(|config| config["projects"]["website"][key] = value);
    }

    fn rcbot(&self, command: &str) {
        let mut rcbot = Command::new(env!("CARGO_BIN_EXE_rcbot"));
        let output = run_to_end(rcbot.arg(command).current_dir(self.folder.path()));
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Runs a command in the project's directory.
    #[track_caller]
    fn shell(&self, command: &str) {
        self.checker.shell(command, &self.path("website"));
    }

    #[track_caller]
    fn check(&self) -> Checkup {
        self.checker.run()
    }

    /// Asserts the fault, and that the commands in its remedy mend it.
    #[track_caller]
    fn mend(&self, name: &str, outcome: &str, part: &str) {
        let remedy = self.check().expect(name, outcome, part);
        for command in commands(&remedy) {
            self.shell(command);
        }
        assert_eq!(self.check().outcome(name), "passed", "{remedy}");
    }
}

fn set_mode(path: &PathBuf, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_host_without_a_fault_lacks_the_homeserver_alone() {
    let host = Host::new();
    let checkup = host.check();
    assert_eq!(checkup.all("failed"), ["homeserver"]);
    assert_eq!(checkup.all("warning"), [""; 0]);
    assert_eq!(checkup.code, Some(1));
    checkup.expect(
        "website: command",
        "passed",
        "bin/claude, 2.1.250 (Claude Code)",
    );
    checkup.expect("website: log-in", "passed", "alice@example.org");
    assert!(!host.path("data").exists(), "nothing is made");
}

#[test]
fn each_check_is_one_line_for_people() {
    let host = Host::new();
    let mut rcbot = Command::new(env!("CARGO_BIN_EXE_rcbot"));
    let output = run_to_end(
        rcbot
            .arg("check")
            .current_dir(host.folder.path())
            .env("HOME", host.path("home")),
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!(
        line("✘ homeserver: http://127.0.0.1:9/ does not answer ("),
        1,
        "{text}"
    );
    assert_eq!(line("✔ website: workspace trust: given"), 1, "{text}");
    assert_eq!(
        line("– sync: not tried: the homeserver does not answer"),
        1,
        "{text}"
    );
    assert!(
        text.contains(". To fix it: start the homeserver, or correct `homeserver.url`"),
        "{text}"
    );
}

#[test]
fn a_configuration_by_which_nothing_can_be_tried_is_told_with_all_its_problems() {
    let host = Host::new();
    host.configure(|config| {
        config["homeserver"]["url"] = json!("nowhere");
        config["projects"]["website"]["directory"] = json!("gone");
    });
    let checkup = host.check();
    assert_eq!(checkup.code, Some(2));
    checkup.expect("configuration", "failed", "homeserver.url");
    checkup.expect("configuration", "failed", "projects.website.directory");
}

#[test]
fn files_that_others_can_read_fail_until_they_are_closed() {
    let host = Host::new();
    for (name, file) in [
        ("configuration", "config.yaml"),
        ("registration", "registration.yaml"),
    ] {
        set_mode(&host.path(file), 0o644);
        host.mend(name, "failed", "every user of this host can read");
    }
}

#[test]
fn a_missing_registration_is_written_by_the_remedy() {
    let host = Host::new();
    fs::remove_file(host.path("registration.yaml")).unwrap();
    let remedy = host.check().expect("registration", "failed", "there is no");
    assert!(
        commands(&remedy)[0].starts_with("rcbot registration --config /"),
        "{remedy}"
    );
    host.shell(&commands(&remedy)[0].replacen("rcbot", env!("CARGO_BIN_EXE_rcbot"), 1));
    assert_eq!(host.check().outcome("registration"), "passed");
}

#[test]
fn a_registration_that_does_not_fit_is_told_with_what_is_wanted() {
    let host = Host::new();
    host.configure(|config| config["bot"] = json!({ "localpart": "other" }));
    let checkup = host.check();
    checkup.expect("registration", "failed", r"regex: '@other:example\.org$'");
    checkup.expect("token", "skipped", "there is no valid registration");
    let text = fs::read_to_string(host.path("registration.yaml")).unwrap();
    let text = text.replace(r"@rcbot:example\.org$", r"@other:example\.org$");
    fs::write(host.path("registration.yaml"), text).unwrap();
    assert_eq!(host.check().outcome("registration"), "passed");
}

#[test]
fn a_data_directory_that_cannot_be_one_is_told() {
    let host = Host::new();
    fs::write(host.path("data"), "").unwrap();
    host.check()
        .expect("data directory", "failed", "is no directory");
    host.configure(|config| config["data_dir"] = json!("data/below"));
    host.check().expect("data directory", "failed", "cannot be");
    host.configure(|config| config["data_dir"] = json!("data-2"));
    host.check()
        .expect("data directory", "passed", "the bot makes it");
    fs::create_dir(host.path("data-2")).unwrap();
    set_mode(&host.path("data-2"), 0o755);
    host.mend(
        "data directory",
        "warning",
        "other users of this host get into",
    );
}

#[test]
fn a_disk_with_little_room_is_warned_of() {
    let host = Host::new();
    fs::create_dir(host.path("data")).unwrap();
    let on_a_disk_of = |size: &str| {
        let data = host.path("data");
        let script = format!(
            "mount -t tmpfs -o mode=700,size={size} tmpfs {} && exec \"$@\"",
            data.display()
        );
        let unshare = [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            &script,
            "sh",
        ];
        host.checker.clone().wrapped(&unshare).run()
    };
    let remedy = on_a_disk_of("50m").expect("room on disk", "warning", "50 MiB left");
    assert!(remedy.contains("100 MiB"), "{remedy}");
    assert_eq!(on_a_disk_of("101m").outcome("room on disk"), "passed");
}

#[test]
fn a_program_that_cannot_be_run_is_told() {
    let host = Host::new();
    set_mode(&host.path("bin/claude"), 0o644);
    host.mend("website: command", "failed", "may not be run");
    fs::rename(host.path("bin/claude"), host.path("website/claude")).unwrap();
    let remedy = host
        .check()
        .expect("website: command", "failed", "there is no claude in PATH (");
    assert!(
        remedy.contains("give its full path in `command`"),
        "{remedy}"
    );
    let command = json!([host.path("website/claude"), "remote-control"]);
    host.configure_project("command", command);
    assert_eq!(host.check().outcome("website: command"), "passed");
}

#[test]
fn a_program_that_knows_no_version_is_no_failure() {
    let host = Host::new();
    for script in ["#!/bin/sh\nexit 1\n", "not a program"] {
        fs::write(host.path("bin/claude"), script).unwrap();
        host.check()
            .expect("website: command", "passed", "version unknown");
    }
}

#[test]
fn a_claude_that_cannot_resume_is_warned_of() {
    let host = Host::new();
    fs::write(
        host.path("bin/claude"),
        CLAUDE.replace("2.1.250", "2.1.199"),
    )
    .unwrap();
    let remedy = host
        .check()
        .expect("website: command", "warning", "`resume` takes 2.1.200");
    assert_eq!(commands(&remedy), ["claude update"]);
    fs::write(
        host.path("bin/claude"),
        CLAUDE.replace("2.1.250", "2.1.200"),
    )
    .unwrap();
    assert_eq!(host.check().outcome("website: command"), "passed");
}

#[test]
fn a_claude_without_a_login_fails_until_somebody_logs_in() {
    let host = Host::new();
    fs::remove_dir_all(host.path("home/.claude")).unwrap();
    host.mend("website: log-in", "failed", "claude is not logged in");
}

#[test]
fn a_directory_that_claude_does_not_trust_fails_until_it_does() {
    let host = Host::new();
    fs::write(
        host.path("home/.claude.json"),
        "{\"remoteDialogSeen\":true}",
    )
    .unwrap();
    host.mend(
        "website: workspace trust",
        "failed",
        "does not trust the project's directory",
    );
}

#[test]
fn a_home_directory_is_told_to_be_the_wrong_place() {
    let host = Host::new();
    host.configure_project("directory", json!("home"));
    let remedy = host
        .check()
        .expect("website: workspace trust", "failed", "home directory");
    assert!(remedy.contains("`projects.website.directory`"), "{remedy}");
    host.configure_project("directory", json!("website"));
    assert_eq!(host.check().outcome("website: workspace trust"), "passed");
}

#[test]
fn a_consent_that_nobody_gives_fails() {
    let host = Host::new();
    let state = fs::read_to_string(host.path("home/.claude.json")).unwrap();
    fs::write(
        host.path("home/.claude.json"),
        state.replace("remoteDialogSeen", "other"),
    )
    .unwrap();
    host.configure_project("stdin", json!(""));
    let remedy = host
        .check()
        .expect("website: consent", "failed", "asks once");
    assert_eq!(commands(&remedy), ["stdin: \"y\\n\""]);
    host.configure_project("stdin", json!("y\n"));
    host.check()
        .expect("website: consent", "passed", "`stdin` answers");
}

#[test]
fn variables_that_switch_remote_control_off_are_named_with_their_place() {
    let host = Host::new();
    host.configure_project(
        "environment",
        json!({ "ANTHROPIC_API_KEY": "sk-secret", "EDITOR": "vi" }),
    );
    let settings = host.path("home/.claude/settings.json");
    fs::write(&settings, r#"{"env":{"DISABLE_TELEMETRY":"1"}}"#).unwrap();
    let checkup = host.check();
    checkup.expect(
        "website: variables",
        "failed",
        "ANTHROPIC_API_KEY in `environment` in config.yaml",
    );
    checkup.expect(
        "website: variables",
        "failed",
        "DISABLE_TELEMETRY in `env` in /",
    );
    host.configure(|_| {});
    host.check()
        .expect("website: variables", "failed", "DISABLE_TELEMETRY");
    fs::remove_file(settings).unwrap();
    // What the bot has in its own environment does not reach a session.
    let checker = host
        .checker
        .clone()
        .environment("ANTHROPIC_API_KEY", "sk-secret");
    assert_eq!(checker.run().outcome("website: variables"), "passed");
}

#[test]
fn a_project_that_runs_something_else_is_not_asked_for_what_claude_needs() {
    let host = Host::new();
    host.configure_project("command", json!(["sleep", "60"]));
    let checkup = host.check();
    checkup.expect(
        "website: claude",
        "skipped",
        "does not name `remote-control`",
    );
    assert!(!checkup.all("passed").contains(&"website: log-in"));
}
