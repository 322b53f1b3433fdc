//! The binary without a homeserver: what it says of a bad configuration, and how it writes a registration.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
};

use tempfile::TempDir;

use crate::support::{prelude::*, program::rcbot, run_to_end};

/// A configuration in which everything is right, once a registration is there.
const CONFIG: &str = r##"homeserver:
  url: http://127.0.0.1:9
  server_name: example.org
admin_room: "#admins:example.org"
projects:
  website:
    directory: website
"##;

/// A folder with files for the binary.
struct Folder(TempDir);

impl Folder {
    /// With a good configuration, its project's directory, and a registration as the binary writes it.
    fn new() -> Self {
        let folder = Self::without_registration();
        let output = folder.rcbot(&["registration"]);
        assert!(output.status.success(), "{}", said(&output));
        folder
    }

    fn without_registration() -> Self {
        let folder = Self(TempDir::with_prefix("rcbot-test-").unwrap());
        folder.write("config.yaml", CONFIG);
        fs::create_dir(folder.path("website")).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Changes one part of a file.
    fn replace(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{from:?} is not in {name}:\n{text}");
        self.write(name, &text.replacen(from, to, 1));
    }

    /// Runs the binary until it exits, in this folder.
    fn rcbot(&self, arguments: &[&str]) -> Output {
        run_to_end(
            rcbot(self.0.path())
                .args(arguments)
                .current_dir(self.0.path()),
        )
    }

    /// Asserts that the bot refuses to run, with exit code 2 and all these words.
    #[track_caller]
    fn assert_refused(&self, words: &[&str]) {
        let output = self.rcbot(&["run"]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in:\n{said}");
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr[..]].concat()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// What else is refused, and in which words, the library's own tests show.
#[test]
fn a_bad_configuration_is_refused_with_file_key_and_remedy() {
    for (from, to, words) in [
        (
            "homeserver:",
            "homeserver: [",
            &["config.yaml:", "not YAML"][..],
        ),
        (
            "admin_room:",
            "admin_rom:",
            &["config.yaml:4: admin_rom: unknown key; did you mean `admin_room`?"],
        ),
        // The sender's name for the bot, which two files give together.
        (
            "admin_room:",
            "bot: { localpart: rcbot-appservice }\nadmin_room:",
            &["registration.yaml", "sender_localpart", "bot.localpart"],
        ),
    ] {
        let folder = Folder::new();
        folder.replace("config.yaml", from, to);
        folder.assert_refused(words);
        assert!(!folder.path("data").exists(), "nothing was begun");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let folder = Folder::new();
    folder.replace("config.yaml", "http://127.0.0.1:9", "nowhere");
    folder.replace("config.yaml", "\"#admins:example.org\"", "admins");
    folder.replace("config.yaml", "directory: website", "directory: ~/gone");
    folder.assert_refused(&[
        "config.yaml has 3 problems",
        "homeserver.url:",
        "admin_room:",
        "projects.website.directory:",
    ]);
}

#[test]
fn a_missing_configuration_is_named_with_the_remedy() {
    let folder = Folder::new();
    fs::remove_file(folder.path("config.yaml")).unwrap();
    folder.assert_refused(&["config.yaml", "config.example.yaml", "--config"]);
}

#[test]
fn a_missing_registration_is_named_with_the_command_that_writes_one() {
    let folder = Folder::without_registration();
    folder.assert_refused(&["registration.yaml", "rcbot registration --config"]);
}

#[test]
fn the_placeholders_of_the_template_are_refused_by_name() {
    let folder = Folder::without_registration();
    let template = include_str!("../../registration.yaml");
    folder.write("registration.yaml", template);
    fs::set_permissions(
        folder.path("registration.yaml"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    folder.assert_refused(&[
        "registration.yaml:",
        "as_token:",
        "hs_token:",
        "rcbot registration",
    ]);
}

#[test]
fn a_registration_is_written_once_with_fresh_tokens_and_readable_by_nobody_else() {
    let folder = Folder::without_registration();
    let output = folder.rcbot(&["registration", "--config", "config.yaml"]);
    assert!(output.status.success(), "{}", said(&output));
    let path = folder.path("registration.yaml");
    assert_eq!(mode(&path), 0o600);
    let text = fs::read_to_string(&path).unwrap();
    for line in [
        "url: null",
        "rate_limited: false",
        "exclusive: true",
        r"@rcbot:example\.org",
    ] {
        assert!(text.contains(line), "{line:?} is not in:\n{text}");
    }
    let registration: serde_json::Value = serde_yaml::from_str(&text).unwrap();
    let token = |name: &str| registration[name].as_str().unwrap().to_owned();
    for name in ["as_token", "hs_token"] {
        assert!(!said(&output).contains(&token(name)), "the {name} is shown");
    }
    assert_ne!(token("as_token"), token("hs_token"));
    assert_ne!(token("sender_localpart"), "rcbot");

    let again = folder.rcbot(&["registration"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        said(&again).contains("registration.yaml"),
        "{}",
        said(&again)
    );
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        text,
        "nothing is overwritten"
    );

    let elsewhere = folder.rcbot(&["registration", "--output", "other.yaml"]);
    assert!(elsewhere.status.success(), "{}", said(&elsewhere));
    assert_eq!(mode(&folder.path("other.yaml")), 0o600);
    let other = fs::read_to_string(folder.path("other.yaml")).unwrap();
    assert!(!other.contains(&token("as_token")) && !other.contains(&token("hs_token")));
}

#[test]
fn a_registration_can_say_that_the_homeserver_logs_in_no_appservice() {
    let folder = Folder::without_registration();
    let output = folder.rcbot(&["registration", "--msc4190"]);
    assert!(output.status.success(), "{}", said(&output));
    let text = fs::read_to_string(folder.path("registration.yaml")).unwrap();
    text.says("io.element.msc4190: true\n");
}

#[test]
fn a_bot_with_a_password_needs_no_registration() {
    let folder = Folder::without_registration();
    folder.write(
        "config.yaml",
        &format!("{CONFIG}bot:\n  password: hunter2\n"),
    );
    let output = folder.rcbot(&["registration"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("a registration is for an appservice"),
        "{}",
        said(&output)
    );
    assert!(!said(&output).contains("hunter2"));
    assert!(!folder.path("registration.yaml").exists());
}

#[test]
fn a_stop_names_the_projects_if_there_is_none_of_that_name_and_makes_nothing() {
    let folder = Folder::new();
    let typo = folder.rcbot(&["stop", "websiet"]);
    assert_eq!(typo.status.code(), Some(2), "{}", said(&typo));
    assert!(
        said(&typo).contains("there is no project websiet; projects: website"),
        "{}",
        said(&typo)
    );
    for arguments in [&["stop", "website"][..], &["stop"]] {
        let output = folder.rcbot(arguments);
        assert!(output.status.success(), "{}", said(&output));
        assert!(
            ["website is not running.\n", "No session is running.\n"].contains(&&*said(&output)),
            "{}",
            said(&output)
        );
    }
    assert!(!folder.path("data").exists(), "a data directory was made");
}

#[test]
fn sessions_are_seen_and_stopped_with_a_configuration_that_is_wrong_elsewhere() {
    let folder = Folder::new();
    fs::remove_dir(folder.path("website")).unwrap();
    folder.replace("config.yaml", "admin_room", "admin_rom");
    folder.assert_refused(&["admin_rom: unknown key"]);
    for (arguments, wanted) in [
        (&["status"][..], "website: no session\n"),
        (&["stop"], "No session is running.\n"),
        (&["stop", "website"], "website is not running.\n"),
    ] {
        let output = folder.rcbot(arguments);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), wanted);
        assert!(
            said(&output).contains("admin_rom: unknown key"),
            "a warning"
        );
    }
}

#[test]
fn a_session_of_a_project_that_left_the_configuration_can_be_stopped_by_name() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path("data/sessions/former")).unwrap();
    folder.write("data/sessions/former/session.json", "{}");
    let typo = folder.rcbot(&["stop", "formr"]);
    assert_eq!(typo.status.code(), Some(2), "{}", said(&typo));
    assert!(
        said(&typo).contains("projects: former, website"),
        "{}",
        said(&typo)
    );
    let output = folder.rcbot(&["stop", "former"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).starts_with("former is not running.\n"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_file_in_the_data_directory_that_is_closed_to_the_bot_is_named() {
    let folder = Folder::new();
    // A folder in its place cannot be opened as a lock, by root neither.
    fs::create_dir_all(folder.path("data/lock")).unwrap();
    let output = folder.rcbot(&["stop", "website"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let part = format!("cannot use {}", folder.path("data/lock").display());
    assert!(said(&output).contains(&part), "{}", said(&output));
}

#[test]
fn wrong_arguments_are_told_with_exit_code_2() {
    let folder = Folder::new();
    for arguments in [
        &[][..],
        &["dance"],
        &["run", "--confg", "x"],
        &["run", "more"],
    ] {
        let output = folder.rcbot(arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            said(&output)
        );
        assert!(
            said(&output).contains("Usage: rcbot"),
            "{arguments:?}: {}",
            said(&output)
        );
    }
    let help = folder.rcbot(&["--help"]);
    assert!(
        help.status.success() && said(&help).contains("registration"),
        "{}",
        said(&help)
    );
}
