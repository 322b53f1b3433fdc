//! The binary without a homeserver: how it reports an invalid configuration, and writes a registration.

use std::{fs, process::Command};

use crate::support::{
    prelude::*,
    program::{Ended as _, Folder, rcbot},
    run_to_end,
};

/// A valid configuration, once there is a registration.
const CONFIG: &str = r##"homeserver:
  url: http://127.0.0.1:9
  server_name: example.org
admin_room: "#admins:example.org"
projects:
  website:
    directory: website
"##;

/// A folder with a valid configuration, its project's directory, and a registration as the binary writes it.
fn site() -> Folder {
    let site = site_without_registration();
    site.rcbot(&["registration"]).succeeded();
    site
}

fn site_without_registration() -> Folder {
    let site = Folder::new();
    site.write("config.yaml", CONFIG);
    fs::create_dir(site.path("website")).unwrap();
    site
}

/// Asserts that the bot refuses to run, with all these words.
#[track_caller]
fn assert_refused(site: &Folder, words: &[&str]) {
    let complaint = site.rcbot(&["run"]).failed(2);
    for word in words {
        complaint.says(word);
    }
}

/// The unit tests of the library have every refusal and its text.
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
        // `bot.localpart` is the registration's `sender_localpart`: each file is valid without the other.
        (
            "admin_room:",
            "bot: { localpart: rcbot-appservice }\nadmin_room:",
            &["registration.yaml", "sender_localpart", "bot.localpart"],
        ),
    ] {
        let site = site();
        site.replace("config.yaml", from, to);
        assert_refused(&site, words);
        assert!(!site.path("data").exists(), "nothing was created");
    }
}

#[test]
fn a_file_that_is_missing_is_named_with_the_remedy() {
    let site = site_without_registration();
    assert_refused(&site, &["registration.yaml", "rcbot registration --config"]);
    fs::remove_file(site.path("config.yaml")).unwrap();
    assert_refused(&site, &["config.yaml", "config.example.yaml", "--config"]);
}

#[test]
fn a_registration_is_written_once_with_fresh_tokens_and_readable_by_nobody_else() {
    let site = site_without_registration();
    let output = site.rcbot(&["registration", "--config", "config.yaml"]);
    output.succeeded();
    assert_eq!(site.mode("registration.yaml"), 0o600);
    let text = site.read("registration.yaml");
    for line in [
        "url: null",
        "rate_limited: false",
        "exclusive: true",
        r"@rcbot:example\.org",
    ] {
        text.says(line);
    }
    let registration: Value = serde_yaml::from_str(&text).unwrap();
    let token = |name: &str| registration[name].as_str().unwrap();
    for name in ["as_token", "hs_token"] {
        output.lacks(token(name));
    }
    assert_ne!(token("as_token"), token("hs_token"));
    assert_ne!(token("sender_localpart"), "rcbot");

    let again = site.rcbot(&["registration"]).failed(1);
    again.says("registration.yaml");
    assert_eq!(site.read("registration.yaml"), text, "it is as it was");

    let elsewhere = ["registration", "--output", "other.yaml", "--msc4190"];
    let use_it = "Name it under `appservice.registration`";
    output.lacks(use_it);
    site.rcbot(&elsewhere).succeeded().says(use_it);
    assert_eq!(site.mode("other.yaml"), 0o600);
    let other = site.read("other.yaml");
    other.says("io.element.msc4190: true\n");
    other.lacks(token("as_token"));
    other.lacks(token("hs_token"));
}

#[test]
fn a_bot_with_a_password_needs_no_registration() {
    let site = site_without_registration();
    let config = format!("{CONFIG}bot:\n  password: hunter2\n");
    site.write("config.yaml", &config);
    let output = site.rcbot(&["registration"]);
    output.failed(2).says("a registration is for an appservice");
    output.lacks("hunter2");
    assert!(!site.path("registration.yaml").exists());
}

#[test]
fn a_stop_names_the_projects_if_there_is_none_of_that_name_and_makes_nothing() {
    let site = site();
    let typo = site.rcbot(&["stop", "websiet"]).failed(2);
    typo.says("there is no project websiet; projects: website");
    let one = site.rcbot(&["stop", "website"]).succeeded();
    one.is("website is not running.\n");
    let all = site.rcbot(&["stop"]).succeeded();
    all.is("No session is running.\n");
    assert!(!site.path("data").exists(), "a data directory was made");
    site.replace("config.yaml", "projects:", "project_roots: [.]\nprojects:");
    let below_root = site.rcbot(&["stop", "websiet"]).failed(2);
    below_root.says("; projects: website, those below project roots that had a session");
}

#[test]
fn sessions_are_seen_and_stopped_with_a_configuration_that_is_wrong_elsewhere() {
    let site = site();
    fs::remove_dir(site.path("website")).unwrap();
    site.replace("config.yaml", "admin_room", "admin_rom");
    assert_refused(&site, &["admin_rom: unknown key"]);
    for (arguments, wanted) in [
        (&["status"][..], "website: no session\n"),
        (&["stop"], "No session is running.\n"),
        (&["stop", "website"], "website is not running.\n"),
    ] {
        let output = site.rcbot(arguments);
        output.succeeded().is(wanted);
        // A warning.
        output.says("admin_rom: unknown key");
    }
}

#[test]
fn a_session_of_a_project_that_left_the_configuration_can_be_stopped_by_name() {
    let site = site();
    fs::create_dir_all(site.path("data/sessions/former")).unwrap();
    site.write("data/sessions/former/session.json", "{}");
    let typo = site.rcbot(&["stop", "formr"]).failed(2);
    typo.says("projects: former, website");
    let stopped = site.rcbot(&["stop", "former"]).succeeded();
    stopped.begins("former is not running.\n");
}

/// Each ends only once the other was asked to: one after the other, the first would have to be killed.
#[tokio::test]
async fn a_stop_of_all_sessions_ends_them_at_the_same_time() {
    const WAITS_FOR_THE_OTHER: &str = "\
import os, signal, sys, time
own, other = sys.argv[1:]
def end(*_):
    open(own, 'w').close()
    while not os.path.exists(other):
        time.sleep(0.01)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
open(own + '.ready', 'w').close()
while True:
    time.sleep(60)
";
    let site = site();
    site.replace(
        "config.yaml",
        "projects:",
        "sessions: { stop_grace: 20s }\nprojects:",
    );
    fs::create_dir_all(site.path("data/sessions")).unwrap();
    let id = "0123456789abcdef".repeat(2);
    site.write("data/sessions/.id", &id);
    let begin = async |own: &str, other: &str| {
        let mut process = Command::new("setsid");
        process
            .args(["python3", "-c", WAITS_FOR_THE_OTHER])
            .args([site.path(own), site.path(other)])
            .env("RCBOT_SESSION_ID", own)
            .env("RCBOT_SESSION_FOLDER", site.path("data/sessions").join(own))
            .env("RCBOT_DATA_DIRECTORY", &id);
        let process = process.spawn().unwrap();
        let ready = site.path(&format!("{own}.ready"));
        until("it handles the signal", || ready.exists()).await;
        process
    };
    let processes = [begin("one", "two").await, begin("two", "one").await];
    let stopped = site.rcbot(&["stop"]);
    for mut process in processes {
        // Does nothing if it has exited.
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let stopped = stopped.succeeded();
    stopped.says("one stopped. ");
    stopped.says("two stopped. ");
}

#[test]
fn a_file_in_the_data_directory_that_is_closed_to_the_bot_is_named() {
    let site = site();
    // A folder in its place cannot be opened as a lock, not even by root.
    fs::create_dir_all(site.path("data/lock")).unwrap();
    let part = format!("cannot use {}", site.path("data/lock").display());
    site.rcbot(&["stop", "website"]).failed(1).says(&part);
}

#[test]
fn an_invalid_rust_log_is_reported_and_ignored() {
    let site = site();
    let run = |filter: &str| {
        let mut stop = rcbot(&site.path(""));
        run_to_end(
            stop.arg("stop")
                .current_dir(site.path(""))
                .env("RUST_LOG", filter),
        )
    };
    let wrong = run("rcbot=debgu");
    wrong.succeeded();
    wrong.says("RUST_LOG is invalid and ignored");
    run("rcbot=debug").lacks("RUST_LOG");
}

#[test]
fn wrong_arguments_exit_with_code_2() {
    let site = site();
    for arguments in [
        &[][..],
        &["dance"],
        &["run", "--confg", "x"],
        &["run", "more"],
    ] {
        site.rcbot(arguments).failed(2).says("Usage: rcbot");
    }
    let refusal = site.rcbot(&["trust", "alice"]).failed(2);
    refusal.says("found \"alice\", wanted a user id");
    site.rcbot(&["--help"]).succeeded().says("registration");
}
