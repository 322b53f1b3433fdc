//! `rcbot init`: from a bare folder to a configuration and a registration with which the bot runs.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::support::{
    checkup::Checker,
    homeserver::SERVER_NAME,
    prelude::*,
    program::{Ended as _, Folder, isolate, rcbot},
    run_to_end,
};

/// Runs a program at a terminal, with what is typed there on its standard input.
const AT_A_TERMINAL: &str =
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";

/// An empty folder `bot`, beside a directory for a project.
fn empty_site() -> Folder {
    let site = Folder::new();
    for name in ["bot", "website"] {
        fs::create_dir(site.path(name)).unwrap();
    }
    site
}

/// Runs it without a terminal, in the folder of the bot.
fn init(site: &Folder, arguments: &[&str]) -> Output {
    let mut init = rcbot(&site.path(""));
    init.arg("init")
        .args(arguments)
        .current_dir(site.path("bot"));
    run_to_end(&mut init)
}

/// Runs it with all required flags.
fn init_with_all(site: &Folder, more: &[&str]) -> Output {
    let directory = site.path("website");
    let all = [
        "--homeserver=http://127.0.0.1:9",
        "--server-name=example.org",
        "--admin-room=#admins:example.org",
        "--directory",
        directory.to_str().unwrap(),
        "--project=website",
    ];
    init(site, &[&all[..], more].concat())
}

/// Runs it at a terminal with these lines as input.
fn init_at_a_terminal(site: &Folder, arguments: &[&str], lines: &str) -> (String, Option<i32>) {
    let mut python = Command::new("python3");
    isolate(&mut python, &site.path(""));
    let mut python = python
        .args(["-c", AT_A_TERMINAL, env!("CARGO_BIN_EXE_rcbot"), "init"])
        .args(arguments)
        .current_dir(site.path("bot"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keyboard = python.stdin.take().unwrap();
    keyboard.write_all(lines.as_bytes()).unwrap();
    // Ctrl-D: end of input for a question without an answer.
    keyboard.write_all(b"\x04").unwrap();
    drop(keyboard);
    let output = python.wait_with_output().unwrap();
    let screen = String::from_utf8(output.stdout).unwrap();
    (screen, output.status.code())
}

/// Asserts that it wrote nothing.
#[track_caller]
fn assert_bare(site: &Folder) {
    let mut left = fs::read_dir(site.path("bot")).unwrap();
    assert!(left.next().is_none());
}

#[test]
fn flags_make_both_files_private_and_the_next_steps_are_shown_without_a_secret() {
    let site = empty_site();
    let said = init_with_all(&site, &["--config", "new/folder/config.yaml"]);
    let said = said.succeeded();
    assert_eq!(site.mode("bot/new/folder"), 0o700);
    for name in ["config.yaml", "registration.yaml"] {
        let file = format!("bot/new/folder/{name}");
        assert_eq!(site.mode(&file), 0o600, "{name}");
    }
    let registration = site.read("bot/new/folder/registration.yaml");
    registration.says(r"@rcbot:example\.org");
    let config = site.path("bot/new/folder/config.yaml");
    for part in [
        "app_service_config_files",
        "!admin appservices register",
        &format!("rcbot check --config {}", config.display()),
        &format!("rcbot run --config {}", config.display()),
        "@rcbot:example.org to #admins:example.org",
    ] {
        said.says(part);
    }
    let registration: Value = serde_yaml::from_str(&registration).unwrap();
    for token in ["as_token", "hs_token"] {
        said.lacks(registration[token].as_str().unwrap());
    }
    let checkup = Checker::new(&config).run();
    checkup.passed("configuration", "1 project");
    checkup.passed("registration", "for @rcbot:example.org");
    assert_eq!(users(&config), json!([]), "nobody was named");
    checkup.failed("homeserver", "http://127.0.0.1:9/");
}

/// `authorization.users` of a configuration.
fn users(config: &Path) -> Value {
    let config: Value = serde_yaml::from_str(&fs::read_to_string(config).unwrap()).unwrap();
    config["authorization"]["users"].clone()
}

#[test]
fn a_further_host_gets_its_own_bot_and_name_and_only_the_named_administrators_may_command() {
    let site = empty_site();
    let flags = [
        "--localpart=rcbot-build1",
        "--host=build1",
        "--msc4190",
        "--admin=@alice:example.org",
        "--admin",
        "@bob:x.y",
    ];
    let said = init_with_all(&site, &flags).succeeded();
    for part in [
        "/etc/matrix-synapse/rcbot-build1.yaml",
        "@rcbot-build1:example.org to #admins:example.org",
    ] {
        said.says(part);
    }
    let read = |name| -> Value { serde_yaml::from_str(&site.read(name)).unwrap() };
    let registration = read("bot/registration.yaml");
    // Synapse accepts each id only once.
    assert_eq!(registration["id"], "rcbot-build1");
    assert_eq!(registration["io.element.msc4190"], true);
    let config = read("bot/config.yaml");
    assert_eq!(config["host"], "build1");
    let administrators = json!(["@alice:example.org", "@bob:x.y"]);
    assert_eq!(config["authorization"]["users"], administrators);
    let checkup = Checker::new(&site.path("bot/config.yaml")).run();
    checkup.passed("registration", "for @rcbot-build1:example.org");
}

#[test]
fn without_a_terminal_the_flags_that_are_missing_are_named() {
    let site = empty_site();
    let refusal = init(
        &site,
        &["--homeserver=http://127.0.0.1:9", "--project=website"],
    );
    let missing = "give --server-name, --admin-room, --directory as well";
    refusal.failed(2).says(missing);
    let refusal = init_with_all(&site, &["--msc4190", "--config=registration.yaml"]);
    refusal.says("--config");
    assert_bare(&site);
}

#[test]
fn an_invalid_flag_is_reported_with_what_is_wanted() {
    let site = empty_site();
    for (flag, refusal) in [
        (
            "--homeserver=localhost:8008",
            "'--homeserver <URL>': found \"localhost:8008\", wanted an http or https URL",
        ),
        (
            "--admin-room=admins",
            "'--admin-room <ROOM>': found \"admins\", wanted a room alias or id",
        ),
        (
            "--admin=alice",
            "'--admin <USER>': found \"alice\", wanted a user id",
        ),
        ("--directory=nowhere", "no directory at /"),
        ("--project=../x", "'--project <NAME>': found \"../x\""),
        ("--localpart=RC Bot", "found \"RC Bot\", wanted a user name"),
        ("--host=a b", "found \"a b\", wanted a host's name"),
    ] {
        init(&site, &[flag]).failed(2).says(refusal);
    }
    assert_bare(&site);
}

#[test]
fn nothing_is_overwritten_and_existing_files_are_reported_before_any_question() {
    let both = ["bot/config.yaml", "bot/registration.yaml"];
    for (name, other) in [(both[0], both[1]), (both[1], both[0])] {
        let site = empty_site();
        let (there, other) = (site.path(name), site.path(other));
        site.write(name, "mine");
        let refusal = format!("{} exists already, so nothing was written", there.display());
        init_with_all(&site, &[]).failed(1).says(&refusal);
        let (screen, code) = init_at_a_terminal(&site, &[], "");
        assert_eq!(code, Some(1));
        screen.says("exists already");
        screen.lacks("Homeserver");
        site.read(name).is("mine");
        assert!(!other.exists());

        fs::remove_file(&there).unwrap();
        symlink("nowhere", &there).unwrap();
        init_with_all(&site, &[]).failed(1);
        assert!(!other.exists());
    }
}

#[test]
fn a_place_that_cannot_be_written_is_reported_before_any_question() {
    let site = empty_site();
    site.write("file", "mine");
    for (config, refusal) in [
        ("../website", "website is a folder: name a file in it"),
        ("new/", "new/ is a folder: name a file in it"),
        ("../file/new/config.yaml", "file: name another place"),
    ] {
        let (screen, code) = init_at_a_terminal(&site, &["--config", config], "");
        assert_eq!(code, Some(1));
        screen.says(refusal);
        screen.lacks("Homeserver");
    }
    assert_bare(&site);
}

#[test]
fn a_missing_answer_leaves_nothing_behind() {
    let site = empty_site();
    let (screen, code) =
        init_at_a_terminal(&site, &["--homeserver=http://127.0.0.1:9"], "example.org\n");
    assert_eq!(code, Some(1), "{screen}");
    screen.says("no answer came, so nothing was written");
    assert_bare(&site);
}

#[test]
fn each_answer_is_checked_and_asked_for_again_until_it_is_valid() {
    let site = empty_site();
    let lines = format!(
        "localhost\n{}\n\nadmins\n\"#admins:{SERVER_NAME}\"\nalice\n@alice:{SERVER_NAME}\n../nowhere\n../website\n\n",
        homeserver().url()
    );
    let (screen, code) = init_at_a_terminal(&site, &[], &lines);
    assert_eq!(code, Some(0), "{screen}");
    for part in [
        "found \"localhost\", wanted an http or https URL",
        &format!("(such as example.org) [{SERVER_NAME}]: "),
        "found \"admins\", wanted a room alias or id",
        "found \"alice\", wanted a user id",
        "no directory at /",
        "as people type it [website]: ",
        "Wrote /",
    ] {
        screen.says(part);
    }
    let config = site.path("bot/config.yaml");
    assert_eq!(users(&config), json!([format!("@alice:{SERVER_NAME}")]));
    let checkup = Checker::new(&config).run();
    for name in ["configuration", "registration", "homeserver"] {
        checkup.passed(name, "");
    }
    checkup.failed("account", "does not know the appservice's token");
}

#[test]
fn an_address_at_which_no_homeserver_answers_is_taken_with_a_warning() {
    let site = empty_site();
    let lines = "http://127.0.0.1:9\nexample.org\n#admins:example.org\nnone\n../website\n\n";
    let (screen, code) = init_at_a_terminal(&site, &[], lines);
    assert_eq!(code, Some(0), "{screen}");
    screen.says("No homeserver answers at http://127.0.0.1:9/ now");
}
