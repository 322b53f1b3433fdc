//! `rcbot check` on the host: for each fault the failed line, and that its remedy mends it. Needs no homeserver.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, chown},
    process::Stdio,
};

use nix::{
    sys::wait::{Id, WaitPidFlag, waitid},
    unistd::Pid,
};
use serde_json::json;

use crate::support::{
    checkup::commands,
    host::{CLAUDE, Host, set_mode, with_mounts},
    program::rcbot,
    run_to_end,
};

#[test]
fn a_host_without_a_fault_lacks_the_homeserver_alone() {
    let host = Host::new();
    let checkup = host.check();
    assert_eq!(checkup.all("failed"), ["homeserver"]);
    assert_eq!(checkup.all("warning"), [""; 0]);
    assert_eq!(checkup.code, Some(1));
    checkup.assert_outcome(
        "website: command",
        "passed",
        "bin/claude, 2.1.250 (Claude Code)",
    );
    checkup.assert_outcome("website: log-in", "passed", "alice@example.org");
    assert!(!host.path("data").exists(), "nothing is made");
}

#[test]
fn each_check_is_one_line_for_people() {
    let host = Host::new();
    let output = run_to_end(
        rcbot(&host.path("home"))
            .arg("check")
            .current_dir(host.path("")),
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
        config["projects"]["website"]["directory"] = json!("~/gone");
    });
    let checkup = host.check();
    assert_eq!(checkup.code, Some(2));
    checkup.assert_outcome("configuration", "failed", "homeserver.url");
    checkup.assert_outcome("configuration", "failed", "projects.website.directory");
}

#[test]
fn a_configuration_that_cannot_be_read_is_told_with_what_makes_one() {
    let host = Host::new();
    let file = host.path("config.yaml");
    fs::remove_file(&file).unwrap();
    let remedy = host
        .check()
        .assert_outcome("configuration", "failed", "there is no /");
    let init = format!("rcbot init --config {}", file.display());
    assert_eq!(commands(&remedy), [&init, "--config"]);
    fs::create_dir(&file).unwrap();
    let remedy = host
        .check()
        .assert_outcome("configuration", "failed", "cannot be read (");
    assert!(remedy.starts_with("make it a file that"), "{remedy}");
}

#[test]
fn a_missing_directory_fails_its_project_alone() {
    let host = Host::new();
    host.configure(|config| config["projects"]["other"] = json!({ "directory": "gone" }));
    let checkup = host.check();
    checkup.assert_outcome("other: directory", "failed", "no directory at /");
    for name in ["configuration", "website: directory", "website: command"] {
        assert_eq!(checkup.outcome(name), "passed", "{name}");
    }
}

#[test]
fn files_that_others_can_read_fail_until_they_are_closed() {
    let host = Host::new();
    for (name, file) in [
        ("configuration", "config.yaml"),
        ("registration", "registration.yaml"),
    ] {
        set_mode(&host.path(file), 0o644);
        host.assert_remedy_fixes(name, "failed", "every user of this host can read");
    }
}

#[test]
fn a_missing_registration_is_written_by_the_remedy() {
    let host = Host::new();
    fs::remove_file(host.path("registration.yaml")).unwrap();
    let remedy = host
        .check()
        .assert_outcome("registration", "failed", "there is no");
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
    checkup.assert_outcome("registration", "failed", r"regex: '@other:example\.org$'");
    checkup.assert_outcome("bot's account", "skipped", "the homeserver does not answer");
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
        .assert_outcome("data directory", "failed", "is not a directory");
    host.configure(|config| config["data_dir"] = json!("data/below"));
    host.check()
        .assert_outcome("data directory", "failed", "cannot be");
    host.configure(|config| config["data_dir"] = json!("data-2"));
    host.check()
        .assert_outcome("data directory", "passed", "the bot makes it");
    fs::create_dir(host.path("data-2")).unwrap();
    set_mode(&host.path("data-2"), 0o755);
    host.assert_remedy_fixes(
        "data directory",
        "warning",
        "other users of this host get into",
    );
}

/// Nobody else can be two users.
#[test]
#[ignore = "needs root; .ci/run has it"]
fn as_root_another_user_is_told_as_whom_to_check_and_given_no_command_that_takes_the_data() {
    let host = Host::new();
    fs::create_dir(host.path("data")).unwrap();
    for name in ["", "config.yaml", "registration.yaml", "data"] {
        chown(host.path(name), Some(1), Some(1)).unwrap();
    }
    set_mode(&host.path(""), 0o755);
    set_mode(&host.path("config.yaml"), 0o644);
    let id = |user: u32| {
        let (user, group) = (format!("--reuid={user}"), format!("--regid={user}"));
        let words = ["setpriv", &user, &group, "--clear-groups"];
        host.checker.clone().wrapped(&words).run()
    };
    let checkup = id(65534);
    let remedy = checkup.assert_outcome(
        "checked as",
        "failed",
        "and the bot's data directory belongs to daemon",
    );
    let config = host.path("config.yaml");
    let check = format!("sudo -u daemon rcbot check --config {}", config.display());
    assert_eq!(commands(&remedy)[0], check);
    checkup.assert_outcome("all else", "skipped", "does not see what belongs to daemon");
    assert!(!format!("{checkup:?}").contains("chown"), "{checkup:?}");
    let checkup = id(1);
    checkup.assert_outcome(
        "checked as",
        "passed",
        "daemon, with the environment of this shell",
    );
    assert_eq!(checkup.outcome("registration"), "passed");

    // Root sees everything, runs nothing, and has another home directory and PATH.
    host.checker
        .clone()
        .environment("HOME", "/root")
        .run()
        .assert_outcome("website: command", "passed", "which root does not run");
    // What is root's in the place of ours is what `sudo rcbot` has made, whatever else root runs or has run.
    let other = Host::new();
    fs::rename(other.path("config.yaml"), other.path("other.yaml")).unwrap();
    let spawn = |words: &[&str]| {
        let mut command = rcbot(&other.path("home"));
        command.args(words).current_dir(other.path(""));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let mut running = spawn(&["run", "--config", "other.yaml"]);
    let mut exited = spawn(&["--version"]);
    let id_of_exited = Id::Pid(Pid::from_raw(exited.id().try_into().unwrap()));
    waitid(id_of_exited, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    chown(host.path("data"), Some(0), Some(0)).unwrap();
    set_mode(&host.path("data"), 0o700);
    let checkup = id(1);
    running.kill().unwrap();
    running.wait().unwrap();
    exited.wait().unwrap();
    checkup.assert_outcome("checked as", "passed", "daemon, with");
    let remedy = checkup.assert_outcome("data directory", "failed", "cannot be written to");
    let command = format!("sudo chown -R 1:1 {}", host.path("data").display());
    assert_eq!(commands(&remedy)[0], command);
    host.shell(command.strip_prefix("sudo ").unwrap());
    assert_eq!(id(1).outcome("data directory"), "passed");
}

/// Nobody else can make files of two users.
#[test]
#[ignore = "needs root; .ci/run has it"]
fn as_root_what_root_has_made_in_the_data_directory_fails_until_it_is_given_back() {
    let host = Host::new();
    let user = Some(65534);
    for name in [
        "data",
        "data/matrix",
        "data/sessions",
        "data/sessions/website",
    ] {
        fs::create_dir(host.path(name)).unwrap();
        set_mode(&host.path(name), 0o700);
        chown(host.path(name), user, user).unwrap();
    }
    for name in ["data/lock", "data/sessions/website/session.json"] {
        fs::write(host.path(name), "").unwrap();
        set_mode(&host.path(name), 0o600);
    }
    let remedy = host.check().assert_outcome(
        "data directory",
        "failed",
        "data/lock belongs to root, and ",
    );
    // Root looks in the place of the user to whom the directory belongs.
    let whole = host
        .check()
        .assert_outcome("checked as", "warning", "root in place of ");
    let rest = format!(
        " rcbot check --config {}",
        host.path("config.yaml").display()
    );
    assert!(
        commands(&whole)[0].starts_with("sudo -u ") && commands(&whole)[0].ends_with(&rest),
        "{whole}"
    );
    let command = commands(&remedy)[0].strip_prefix("sudo ").unwrap();
    host.shell(command);
    assert_eq!(host.check().outcome("data directory"), "passed", "{remedy}");
    for name in ["data/lock", "data/sessions/website/session.json"] {
        assert_eq!(fs::metadata(host.path(name)).unwrap().uid(), 65534);
    }
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
        with_mounts(&host, &script).run()
    };
    let remedy = on_a_disk_of("50m").assert_outcome("disk space", "warning", "50 MiB left");
    assert!(remedy.contains("100 MiB"), "{remedy}");
    assert_eq!(on_a_disk_of("101m").outcome("disk space"), "passed");
}

#[test]
fn a_program_that_cannot_be_run_is_told() {
    let host = Host::new();
    set_mode(&host.path("bin/claude"), 0o644);
    host.assert_remedy_fixes("website: command", "failed", "may not be run");
    fs::rename(host.path("bin/claude"), host.path("website/claude")).unwrap();
    let remedy =
        host.check()
            .assert_outcome("website: command", "failed", "there is no claude in PATH (");
    assert!(
        remedy.contains("give its full path in config.yaml"),
        "{remedy}"
    );
    let command = json!([host.path("website/claude"), "remote-control"]);
    host.configure_project("command", command);
    assert_eq!(host.check().outcome("website: command"), "passed");
}

#[test]
fn a_program_that_knows_no_version_is_no_failure() {
    let host = Host::new();
    fs::write(host.path("bin/serve"), "#!/bin/sh\nexit 1\n").unwrap();
    set_mode(&host.path("bin/serve"), 0o755);
    host.configure_project("command", json!(["serve", "claude remote-control"]));
    host.check()
        .assert_outcome("website: command", "passed", "version unknown");
}

#[test]
fn a_claude_that_does_not_run_fails_until_what_it_misses_is_in_path() {
    let host = Host::new();
    fs::rename(host.path("bin/claude"), host.path("website/claude.js")).unwrap();
    let script = format!(
        "#!/usr/bin/env nodexyz\n{}",
        host.path("website/claude.js").display()
    );
    fs::write(host.path("bin/claude"), script).unwrap();
    set_mode(&host.path("bin/claude"), 0o755);
    let remedy = host.check().assert_outcome(
        "website: command",
        "failed",
        "bin/claude does not run (exit code 127: ",
    );
    let told = host
        .checker
        .complaint(commands(&remedy)[0], &host.path("website"));
    assert!(told.contains("nodexyz"), "{told}");
    assert!(
        remedy.contains(
            "if it misses another program, add that program's folder to the PATH of the bot"
        ),
        "{remedy}"
    );
    let folder = host.path("nodes");
    fs::create_dir(&folder).unwrap();
    fs::write(
        folder.join("nodexyz"),
        "#!/bin/sh\nfile=$(sed -n 2p \"$1\")\nshift\nexec \"$file\" \"$@\"\n",
    )
    .unwrap();
    set_mode(&folder.join("nodexyz"), 0o755);
    let search = [&host.path("bin"), &folder].map(|folder| folder.display().to_string());
    let search = format!("{}:/usr/bin:/bin", search.join(":"));
    let mended = host.checker.clone().environment("PATH", search);
    mended
        .run()
        .assert_outcome("website: command", "passed", "2.1.250");
}

#[test]
fn a_claude_that_ends_in_another_way_than_well_fails() {
    let host = Host::new();
    for (script, how) in [
        ("#!/bin/sh\nkill -SEGV $$\n", "signal: 11"),
        (
            "#!/bin/sh\necho 'SyntaxError: what?' >&2\nexit 1\n",
            "exit code 1: SyntaxError: what?",
        ),
        ("#!/nowhere/node\n", "No such file or directory"),
    ] {
        fs::write(host.path("bin/claude"), script).unwrap();
        host.check()
            .assert_outcome("website: command", "failed", how);
    }
}

#[test]
fn a_program_that_resumes_alone_is_looked_up_too() {
    let host = Host::new();
    assert!(
        !host
            .check()
            .all("passed")
            .contains(&"website: resume command")
    );
    host.configure_project(
        "resume_command",
        json!(["nope", "remote-control", "--continue"]),
    );
    let checkup = host.check();
    assert_eq!(checkup.outcome("website: command"), "passed");
    let remedy = checkup.assert_outcome(
        "website: resume command",
        "failed",
        "there is no nope in PATH (",
    );
    assert!(
        remedy.contains("or give its full path in config.yaml"),
        "{remedy}"
    );
    let full_path = json!([host.path("bin/claude"), "remote-control", "--continue"]);
    host.configure_project("resume_command", full_path);
    assert_eq!(host.check().outcome("website: resume command"), "passed");
    fs::write(
        host.path("bin/claude"),
        CLAUDE.replace("2.1.250", "2.1.199"),
    )
    .unwrap();
    host.check().assert_outcome(
        "website: resume command",
        "warning",
        "`resume` needs 2.1.200",
    );
    assert_eq!(host.check().outcome("website: command"), "passed");
}

#[test]
fn a_project_that_runs_something_else_is_not_asked_for_what_claude_needs() {
    let host = Host::new();
    host.configure_project("command", json!(["sleep", "60"]));
    let checkup = host.check();
    checkup.assert_outcome(
        "website: claude",
        "skipped",
        "does not name `remote-control`",
    );
    assert!(!checkup.all("passed").contains(&"website: log-in"));
}

#[test]
fn a_configuration_that_the_group_can_read_is_warned_of_if_it_may_hold_secrets() {
    let host = Host::new();
    set_mode(&host.path("config.yaml"), 0o640);
    assert_eq!(host.check().outcome("configuration"), "passed");
    host.configure_project("environment", json!({ "EDITOR": "vi" }));
    host.check()
        .assert_outcome("configuration", "warning", "may be secret: chmod 600");
    set_mode(&host.path("config.yaml"), 0o600);
    assert_eq!(host.check().outcome("configuration"), "passed");
}

#[test]
fn a_registration_with_an_address_is_warned_of() {
    let host = Host::new();
    let file = host.path("registration.yaml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("url: null", "url: http://127.0.0.1:9")).unwrap();
    let remedy = host
        .check()
        .assert_outcome("registration", "warning", "make it null");
    assert_eq!(
        remedy,
        format!(
            "change that in {} and in the homeserver's copy, and restart the homeserver",
            file.display()
        )
    );
    fs::write(&file, good).unwrap();
    assert_eq!(host.check().outcome("registration"), "passed");
}

#[test]
fn a_data_directory_in_the_way_or_closed_is_told_and_what_to_remove() {
    let host = Host::new();
    let data = host.path("data");
    fs::write(&data, "").unwrap();
    let remedy = host
        .check()
        .assert_outcome("data directory", "failed", "is not a directory");
    let remove = format!("remove {}, or set `data_dir`", data.display());
    assert!(remedy.starts_with(&remove), "{remedy}");
    fs::remove_file(&data).unwrap();
    assert_eq!(host.check().outcome("data directory"), "passed");

    // Root may write anywhere but on a file system that is read only.
    fs::create_dir(&data).unwrap();
    let script = format!(
        "mount -t tmpfs -o ro,mode=700 tmpfs {} && exec \"$@\"",
        data.display()
    );
    let remedy = with_mounts(&host, &script).run().assert_outcome(
        "data directory",
        "failed",
        "cannot be written to",
    );
    assert!(
        remedy.starts_with("let the user who runs rcbot write there"),
        "{remedy}"
    );
}

#[test]
fn a_program_in_another_folder_is_found_once_the_folder_is_in_path() {
    let host = Host::new();
    fs::rename(host.path("bin"), host.path("elsewhere")).unwrap();
    let remedy =
        host.check()
            .assert_outcome("website: command", "failed", "there is no claude in PATH");
    assert!(
        remedy.contains("or add its folder to the PATH of the bot"),
        "{remedy}"
    );
    let search = format!("{}:/usr/bin:/bin", host.path("elsewhere").display());
    let mended = host.checker.clone().environment("PATH", search);
    assert_eq!(mended.run().outcome("website: command"), "passed");
}
