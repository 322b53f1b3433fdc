//! `rcbot check` on the host: for each fault the failed line, and that its remedy fixes it. Needs no homeserver.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, chown},
    path::Path,
};

use crate::support::{
    checkup::commands,
    host::{CLAUDE, Host, set_mode, with_mounts},
    prelude::*,
};

#[test]
fn a_host_without_a_fault_lacks_only_the_homeserver() {
    let host = Host::new();
    let checkup = host.check();
    assert_eq!(checkup.all("failed"), ["homeserver"]);
    assert_eq!(checkup.all("warning"), [""; 0]);
    assert_eq!(checkup.code, Some(1));
    let version = "bin/claude, 2.1.250 (Claude Code)";
    checkup.passed("website: command", version);
    checkup.passed("website: login", "alice@example.org");
    assert!(!host.path("data").exists(), "nothing is made");
}

#[test]
fn the_report_shows_who_checked_and_what_failed_and_the_rest_with_verbose() {
    let host = Host::new();
    let check = |options: &[&str]| {
        let output = host.checker.output(options);
        String::from_utf8(output.stdout).unwrap()
    };
    let short = check(&[]);
    let lines: Vec<_> = short.lines().collect();
    let failed = "✘ homeserver: http://127.0.0.1:9/ does not answer (";
    assert!(lines[0].contains(" checked as: "), "{short}");
    assert!(lines[0].contains("; no bot runs; environment: "), "{short}");
    assert!(lines[1].starts_with(failed), "{short}");
    let remedy = "   To fix it: start the homeserver, or correct `homeserver.url`";
    assert!(lines[2].starts_with(remedy), "{short}");
    assert!(lines[3].contains(" checks: 1 failed, "), "{short}");
    assert_eq!(lines[4..], ["`rcbot check --verbose` lists all."]);

    let long = check(&["--verbose"]);
    for line in [
        "✔ website: workspace trust: given",
        "– sync: \"homeserver\" comes first",
    ] {
        short.lacks(line);
        assert!(long.lines().any(|each| each == line), "{long}");
    }
}

/// The table of ids in docs/operations.md, and the keys.
#[test]
fn the_report_for_machines_is_as_documented() {
    let host = Host::new();
    let output = host.checker.output(&["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let docs = include_str!("../../docs/operations.md");
    let (_, section) = docs.split_once("## The report for machines\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let documented = |word: &str| section.contains(&format!("`{word}`"));
    let keys = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    for key in [keys(&report), keys(&report["checks"][0])].concat() {
        assert!(documented(&key), "{key} is not in docs/operations.md");
    }
    for check in rcbot::Check::ALL {
        assert!(
            documented(check.id()),
            "{check:?} is not in docs/operations.md"
        );
    }
    assert_eq!(report["schema"], 1);
    assert_eq!(report["failed"], 1);
    let checks = report["checks"].as_array().unwrap();
    let of_project = checks.iter().filter(|check| check["project"] == "website");
    let ids: Vec<_> = of_project
        .map(|check| check["id"].as_str().unwrap())
        .collect();
    assert_eq!(
        ids,
        [
            "directory",
            "command",
            "settings",
            "login",
            "trust",
            "consent"
        ]
    );
}

#[test]
fn an_unusable_configuration_is_reported_with_the_command_that_writes_one() {
    let host = Host::new();
    host.configure(|config| {
        config["homeserver"]["url"] = json!("nowhere");
        config["projects"]["website"]["directory"] = json!("~/gone");
    });
    let checkup = host.check();
    assert_eq!(checkup.code, Some(2));
    checkup.failed("configuration", "homeserver.url");
    checkup.failed("configuration", "projects.website.directory");

    let file = host.path("config.yaml");
    fs::remove_file(&file).unwrap();
    let remedy = host.check().failed("configuration", "there is no /");
    let init = format!("rcbot init --config {}", file.display());
    assert_eq!(commands(&remedy), [&init, "--config"]);
    fs::create_dir(&file).unwrap();
    let remedy = host.check().failed("configuration", "cannot be read (");
    remedy.begins("make it a file that");
}

#[test]
fn files_that_others_can_read_fail_until_they_are_closed() {
    let host = Host::new();
    // Everybody may read a configuration without secrets.
    set_mode(&host.path("config.yaml"), 0o644);
    host.check().passed("configuration", "");
    host.configure_project("environment", json!({ "EDITOR": "vi" }));
    for (name, file) in [
        ("configuration", "config.yaml"),
        ("registration", "registration.yaml"),
    ] {
        set_mode(&host.path(file), 0o644);
        host.assert_remedy_fixes(name, "failed", "every user of this host can read");
    }
    set_mode(&host.path("config.yaml"), 0o640);
    host.check()
        .warned("configuration", "may be secret: chmod 600");
}

#[test]
fn a_missing_or_wrong_registration_is_reported_with_what_is_wanted() {
    let host = Host::new();
    let file = host.path("registration.yaml");
    fs::remove_file(&file).unwrap();
    let remedy = host.check().failed("registration", "there is no");
    let command = commands(&remedy)[0];
    assert!(command.starts_with("rcbot registration --config /"));
    host.shell(&command.replacen("rcbot", env!("CARGO_BIN_EXE_rcbot"), 1));
    host.check().passed("registration", "");

    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("url: null", "url: http://127.0.0.1:9")).unwrap();
    let remedy = host.check().warned("registration", "make it null");
    let copy = "and in the homeserver's copy, and restart the homeserver";
    assert_eq!(remedy, format!("change that in {} {copy}", file.display()));
    fs::write(&file, &good).unwrap();

    host.configure(|config| config["bot"] = json!({ "localpart": "other" }));
    host.check()
        .failed("registration", r"regex: '@other:example\.org$'");
    let fitting = good.replace(r"@rcbot:example\.org$", r"@other:example\.org$");
    fs::write(&file, fitting).unwrap();
    host.check().passed("registration", "");
}

#[test]
fn an_unusable_data_directory_is_reported() {
    let host = Host::new();
    let data = host.path("data");
    fs::write(&data, "").unwrap();
    let remedy = host.check().failed("data_directory", "is not a directory");
    let remove = format!("remove {}, or set `data_dir`", data.display());
    remedy.begins(&remove);
    host.configure(|config| config["data_dir"] = json!("data/below"));
    host.check().failed("data_directory", "cannot be");
    host.configure(|_| {});
    fs::remove_file(&data).unwrap();
    host.check().passed("data_directory", "the bot makes it");
    fs::create_dir(&data).unwrap();
    set_mode(&data, 0o755);
    host.assert_remedy_fixes(
        "data_directory",
        "warning",
        "other users of this host can open",
    );

    // Root can write everywhere except to a read-only file system.
    let on_a_disk = |options: &str| {
        let mount = format!(
            "mount -t tmpfs -o mode=700,{options} tmpfs {}",
            data.display()
        );
        with_mounts(&host, &format!("{mount} && exec \"$@\"")).run()
    };
    let remedy = on_a_disk("ro").failed("data_directory", "cannot be written to");
    let let_write = "let the user who runs rcbot write there";
    remedy.begins(let_write);
    let remedy = on_a_disk("size=50m").warned("disk_space", "50 MiB free");
    remedy.says("100 MiB");
    on_a_disk("size=101m").passed("disk_space", "");
}

/// Only root can run as two users.
#[test]
#[ignore = "needs root; .ci/run has it"]
fn as_root_the_report_names_the_user_to_check_as_and_no_command_that_takes_the_data() {
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
    let remedy = checkup.failed("checked_as", "the data directory belongs to daemon");
    let config = host.path("config.yaml");
    let check = format!("sudo -u daemon rcbot check --config {}", config.display());
    assert_eq!(commands(&remedy)[0], check);
    checkup.skipped("data_directory", "\"checked as\" comes first");
    assert!(!format!("{checkup:?}").contains("chown"), "{checkup:?}");
    let checkup = id(1);
    checkup.passed("checked_as", "daemon's, of this shell");
    checkup.passed("registration", "");

    // Root sees everything, runs nothing, and has another home directory and PATH.
    let root = host.checker.clone().environment("HOME", "/root").run();
    root.passed("website: command", "which root does not run");
    // Files of root's in the data directory come from `sudo rcbot`, unless root runs a bot.
    chown(host.path("data"), Some(0), Some(0)).unwrap();
    set_mode(&host.path("data"), 0o700);
    let checkup = id(1);
    checkup.passed("checked_as", "daemon; the data directory belongs to root");
    let remedy = checkup.failed("data_directory", "cannot be written to");
    let command = format!("sudo chown -R 1:1 {}", host.path("data").display());
    assert_eq!(commands(&remedy)[0], command);
    host.shell(command.strip_prefix("sudo ").unwrap());
    id(1).passed("data_directory", "");
}

/// Only root can make files of two users.
#[test]
#[ignore = "needs root; .ci/run has it"]
fn as_root_files_of_root_in_the_data_directory_fail_until_they_are_given_back() {
    let host = Host::new();
    let user = Some(65534);
    for name in ["data", "data/matrix", "data/sessions"] {
        fs::create_dir(host.path(name)).unwrap();
        set_mode(&host.path(name), 0o700);
        chown(host.path(name), user, user).unwrap();
    }
    let spoilt = ["data/lock", "data/sessions/website.json"];
    for name in spoilt {
        fs::write(host.path(name), "").unwrap();
    }
    let checkup = host.check();
    let remedy = checkup.failed("data_directory", "data/lock belongs to root, and ");
    // Root checks on behalf of the directory's owner.
    let whole = checkup.warned("checked_as", "who may do less than root");
    let rest = format!(
        " rcbot check --config {}",
        host.path("config.yaml").display()
    );
    let check = commands(&whole)[0];
    assert!(check.starts_with("sudo -u ") && check.ends_with(&rest));
    host.shell(commands(&remedy)[0].strip_prefix("sudo ").unwrap());
    host.check().passed("data_directory", "");
    for name in spoilt {
        assert_eq!(fs::metadata(host.path(name)).unwrap().uid(), 65534);
    }
}

/// A file system whose server never answers, as one on a dead network. Its end comes with that of the program that has it open.
const MOUNT_SILENT: &str = "exec 9<>/dev/fuse && mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 silent other && exec \"$@\"";

#[test]
fn a_directory_that_does_not_answer_fails_only_its_project() {
    if !Path::new("/dev/fuse").exists() {
        eprintln!("not tested: this kernel, or this container, has no FUSE");
        return;
    }
    let host = Host::new();
    host.configure(|config| config["projects"]["other"] = json!({ "directory": "other" }));
    fs::create_dir(host.path("other")).unwrap();
    let script = format!("cd {} && {MOUNT_SILENT}", host.path("").display());
    let checkup = with_mounts(&host, &script).run();
    let remedy = checkup.failed("other: directory", "other does not answer");
    remedy.says("bring its file system back");
    checkup.skipped("other: login", "\"directory\" comes first");
    checkup.passed("website: trust", "");
}

#[test]
fn a_missing_directory_fails_only_its_project() {
    let host = Host::new();
    host.configure(|config| {
        config["projects"]["other"] = json!({ "directory": "gone" });
        config["projects"]["file"] = json!({ "directory": "config.yaml" });
    });
    let checkup = host.check();
    checkup.failed("other: directory", "no directory at /");
    checkup.failed("file: directory", "config.yaml is not a directory");
    checkup.skipped("other: command", "\"directory\" comes first");
    for name in ["configuration", "website: directory", "website: command"] {
        checkup.passed(name, "");
    }
}

#[test]
fn a_program_that_is_missing_or_not_executable_is_reported() {
    let host = Host::new();
    set_mode(&host.path("bin/claude"), 0o644);
    host.assert_remedy_fixes("website: command", "failed", "may not be run");
    fs::rename(host.path("bin"), host.path("elsewhere")).unwrap();
    let not_found = "there is no claude in PATH (";
    let remedy = host.check().failed("website: command", not_found);
    // All remedies.
    assert!(remedy.contains("give its full path in config.yaml, or add its folder to the PATH"));
    let full_path = json!([host.path("elsewhere/claude"), "remote-control"]);
    host.configure_project("command", full_path);
    host.check().passed("website: command", "");
    host.configure(|_| {});
    let search = format!("{}:/usr/bin:/bin", host.path("elsewhere").display());
    let checker = host.checker.clone().environment("PATH", search);
    checker.run().passed("website: command", "");
}

#[test]
fn a_claude_that_does_not_run_fails_and_another_program_need_not_know_its_version() {
    let host = Host::new();
    for (script, how) in [
        ("#!/bin/sh\nkill -SEGV $$\n", "signal: 11"),
        (
            "#!/bin/sh\necho 'SyntaxError: what?' >&2\nexit 1\n",
            "exit code 1: SyntaxError: what?",
        ),
        ("#!/nowhere/node\n", "No such file or directory"),
        (
            "#!/usr/bin/env nodexyz\n",
            "bin/claude does not run (exit code 127: ",
        ),
    ] {
        host.write("bin/claude", script);
        let remedy = host.check().failed("website: command", how);
        remedy.says("folder to the PATH of the bot");
    }
    let remedy = host.check().failed("website: command", "");
    let command = commands(&remedy)[0];
    let complaint = host.checker.complaint(command, &host.path("website"));
    complaint.says("nodexyz");

    host.configure_project("command", json!(["false", "claude remote-control"]));
    host.check().passed("website: command", "version unknown");
}

#[test]
fn a_program_of_only_the_resume_command_is_looked_up_too() {
    let host = Host::new();
    let command = |program: &str| {
        let words = json!([program, "remote-control", "--continue"]);
        host.configure_project("resume_command", words);
        host.check()
    };
    let checkup = command("nope");
    checkup.passed("website: command", "");
    checkup.failed("website: resume_command", "there is no nope in PATH (");
    let full_path = host.path("bin/claude").display().to_string();
    command(&full_path).passed("website: resume_command", "");
    let old = CLAUDE.replace("2.1.250", "2.1.199");
    host.write("bin/claude", &old);
    let checkup = command(&full_path);
    checkup.warned("website: resume_command", "`resume` needs 2.1.200");
    checkup.passed("website: command", "");
}

#[test]
fn a_settings_file_is_checked_and_needs_a_claude_that_supports_it() {
    let host = Host::new();
    let file = host.path("settings.json");
    fs::write(&file, "{}").unwrap();
    host.configure_project("settings", json!(file));
    let checkup = host.check();
    checkup.failed("website: command", "`settings` needs 2.1.321");
    checkup.passed("website: settings_file", "SHA-256 44136fa3");
    let newer = CLAUDE.replace("2.1.250", "2.1.321");
    host.write("bin/claude", &newer);
    fs::write(&file, "[]").unwrap();
    let checkup = host.check();
    checkup.passed("website: command", "");
    checkup.failed("website: settings_file", "is not a JSON object");
}
