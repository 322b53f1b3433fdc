//! `rcbot check` and the login, trust and settings of `claude`: for each fault the failed line, and that its remedy fixes it.
//! Needs no homeserver.

use std::{fs, time::SystemTime};

use crate::support::{
    checkup::commands,
    host::{CLAUDE, Host, with_mounts},
    prelude::*,
};

const STATE: &str = "home/.claude.json";
const CREDENTIALS: &str = "home/.claude/.credentials.json";
const USER_SETTINGS: &str = "home/.claude/settings.json";

#[test]
fn a_missing_login_trust_or_consent_fails_until_the_command_in_the_remedy_was_run() {
    type Break = fn(&Host);
    let faults: [(Break, &str, &str); 6] = [
        (
            |host| fs::remove_dir_all(host.path("home/.claude")).unwrap(),
            "website: login",
            "claude is not logged in",
        ),
        (
            |host| host.replace(CREDENTIALS, ",\"user:profile\"", ""),
            "website: login",
            "with a long-lived token",
        ),
        (
            |host| host.replace(STATE, "oauthAccount", "other"),
            "website: login",
            "not the account that it is of",
        ),
        (
            |host| host.replace(STATE, "projects", "other"),
            "website: trust",
            "does not trust the project's directory",
        ),
        (
            // A repository needs its own trust.
            |host| {
                let (here, above) = ("website\":{\"has", "\":{\"has");
                host.replace(STATE, &format!("/{here}"), above);
                host.check().passed("website: trust", "given");
                fs::create_dir(host.path("website/.git")).unwrap();
            },
            "website: trust",
            "does not trust the project's directory",
        ),
        (
            |host| fs::write(host.path(STATE), "{").unwrap(),
            "website: consent",
            ".claude.json cannot be read",
        ),
    ];
    for (spoil, name, part) in faults {
        let host = Host::new();
        spoil(&host);
        host.assert_remedy_fixes(name, "failed", part);
    }
}

#[test]
fn a_login_that_ends_within_five_days_is_warned_of_until_somebody_logs_in_again() {
    let host = Host::new();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let ends_in = |days: u128| {
        let end = now.clone().unwrap().as_millis() + (days * 24 + 1) * 3_600_000;
        let key = format!("\"refreshTokenExpiresAt\":{end},\"scopes\"");
        host.replace(CREDENTIALS, "\"scopes\"", &key);
    };
    ends_in(6);
    host.check().passed("website: login", "example.org, until ");
    host.shell("claude auth login");
    ends_in(4);
    host.assert_remedy_fixes(
        "website: login",
        "warning",
        ", 4 days from now; sessions end",
    );
}

#[test]
fn of_a_worktree_the_main_checkout_is_trusted_and_a_home_directory_never() {
    let host = Host::new();
    fs::create_dir_all(host.path("main/.git/worktrees/website")).unwrap();
    let common = host.path("main/.git/worktrees/website/commondir");
    fs::write(common, "../..\n").unwrap();
    let leads = "gitdir: ../main/.git/worktrees/website\n";
    host.write("website/.git", leads);
    host.check().failed("website: trust", "does not trust");
    host.replace(STATE, "/website\"", "/main\"");
    host.check().passed("website: trust", "given");

    host.configure_project("directory", json!("home"));
    let remedy = host.check().failed("website: trust", "home directory");
    remedy.says("`projects.website.directory`");
}

#[test]
fn a_consent_that_nobody_gives_fails_and_one_given_in_a_terminal_is_warned_of() {
    let host = Host::new();
    host.replace(STATE, "remoteDialogSeen", "other");
    host.configure_project("stdin", json!(""));
    let remedy = host.check().failed("website: consent", "asks once");
    assert_eq!(commands(&remedy), ["stdin: \"y\\n\""]);
    host.configure_project("stdin", json!("y\n"));
    host.check().passed("website: consent", "`stdin` answers");
    let in_terminal = json!(["script", "-qefc", "claude remote-control", "/dev/null"]);
    host.configure_project("command", in_terminal);
    let remedy = host.check().warned("website: consent", "is to be trusted");
    remedy.says("set `stdin: \"\"`");
}

#[test]
fn settings_of_every_level_that_switch_remote_control_off_are_named_with_their_place() {
    let host = Host::new();
    let key = json!({ "ANTHROPIC_API_KEY": "sk-secret", "EDITOR": "vi" });
    host.configure_project("environment", key);
    let settings = host.path(USER_SETTINGS);
    let text = r#"{"env":{"DISABLE_GROWTHBOOK":"1"},"apiKeyHelper":"/key"}"#;
    fs::write(&settings, text).unwrap();
    let checkup = host.check();
    let shown = settings.display();
    let remedy = checkup.failed(
        "website: settings",
        "ANTHROPIC_API_KEY in `environment` in config.yaml and ",
    );
    assert_eq!(
        remedy,
        format!(
            "remove ANTHROPIC_API_KEY from `environment` in config.yaml and DISABLE_GROWTHBOOK from `env` in {shown} and \
             `apiKeyHelper` from {shown}, and restart the bot"
        )
    );
    assert!(!format!("{checkup:?}").contains("sk-secret"));
    host.configure(|_| {});
    fs::write(&settings, r#"{"env":{"DISABLE_TELEMETRY":"1"}}"#).unwrap();
    host.check()
        .warned("website: settings", "DISABLE_TELEMETRY");
    // A folder cannot be read as a file, not even by root.
    fs::remove_file(&settings).unwrap();
    fs::create_dir(&settings).unwrap();
    let part = format!("{shown} cannot be read");
    let remedy = host.check().failed("website: settings", &part);
    remedy.says("or remove it");
    fs::remove_dir(&settings).unwrap();

    let off = r#"{"disableRemoteControl":true}"#;
    fs::create_dir(host.path("website/.claude")).unwrap();
    for name in ["settings.json", "settings.local.json"] {
        let file = host.path("website/.claude").join(name);
        fs::write(&file, off).unwrap();
        let part = format!("`disableRemoteControl` in {}", file.display());
        host.check().failed("website: settings", &part);
        fs::remove_file(&file).unwrap();
    }
    for name in ["managed-settings.json", "managed-settings.d/10.json"] {
        let file = format!("/etc/claude-code/{name}");
        let script = format!(
            "mount -t tmpfs tmpfs /etc && mkdir -p $(dirname {file}) && echo '{off}' > {file} && exec \"$@\""
        );
        let part = format!("`disableRemoteControl` in {file}");
        let checkup = with_mounts(&host, &script).run();
        checkup.failed("website: settings", &part);
    }
    // Sessions do not inherit the bot's environment.
    let checker = host.checker.clone();
    let checker = checker.environment("ANTHROPIC_API_KEY", "sk-secret");
    checker.run().passed("website: settings", "");
}

#[test]
fn a_proxy_set_only_for_the_bot_is_warned_of() {
    let host = Host::new();
    let proxy = "http://user:secret@127.0.0.1:9";
    let settings = json!({ "env": { "HTTPS_PROXY": proxy } }).to_string();
    for name in ["HTTPS_PROXY", "https_proxy"] {
        let checker = host.checker.clone().environment(name, proxy);
        let checkup = checker.run();
        let part = "set for the bot, and not for its sessions: HTTPS_PROXY";
        let remedy = checkup.warned("website: settings", part);
        let add = "add HTTPS_PROXY under `projects.website.environment` in config.yaml";
        remedy.says(add);
        assert!(!format!("{checkup:?}").contains("secret"));
        host.configure_project("environment", json!({ "HTTPS_PROXY": proxy }));
        checker.run().passed("website: settings", "");
        host.configure(|_| {});
        host.write(USER_SETTINGS, &settings);
        checker.run().passed("website: settings", "");
        fs::remove_file(host.path(USER_SETTINGS)).unwrap();
    }
}

#[test]
fn a_command_is_judged_by_what_it_runs_and_with_which_options() {
    let host = Host::new();
    let command = |words: &[&str]| {
        host.configure_project("command", json!(words));
        host.check()
    };
    let remedy = command(&["claude", "--remote-control", "website"])
        .failed("website: command", "and a session has none");
    assert_eq!(commands(&remedy), ["remote-control"]);
    command(&["claude", "rc", "--sandbox"]).failed("website: command", "refuses `--sandbox`");
    command(&["bash", "-lc", "claude remote-control --verbose"])
        .warned("website: command", "all that is said in a session");
    let elsewhere = command(&["sleep", "60"]);
    elsewhere.skipped("website: login", "does not run `claude remote-control`");

    fs::remove_dir_all(host.path("home/.claude")).unwrap();
    for words in [
        &["claude", "rc"][..],
        &["bash", "-lc", "exec claude remote-control"],
    ] {
        command(words).failed("website: login", "");
    }
}

#[test]
fn a_claude_of_an_unknown_version_is_reported() {
    let host = Host::new();
    let check = |version: &str| {
        let claude = CLAUDE.replace("2.1.250", version);
        host.write("bin/claude", &claude);
        host.check()
    };
    for (version, part) in [
        ("2.1.199", "`resume` needs 2.1.200"),
        ("2.1.196", "was written for 2.1.197 to "),
    ] {
        let remedy = check(version).warned("website: command", part);
        assert_eq!(commands(&remedy), ["claude update"]);
    }
    check("2.1.200").passed("website: command", "2.1.200 (Claude Code)");
    check("2.2.0").passed("website: command", "was written for versions up to 2.1.");
}

#[test]
fn two_projects_with_one_directory_are_warned_of() {
    let host = Host::new();
    let other = |settings| host.configure(|config| config["projects"]["other"] = settings);
    other(json!({ "directory": "website/../website" }));
    let checkup = host.check();
    checkup.warned("other: directory", "is the directory of website too");
    let remedy = checkup.warned("website: directory", "is the directory of other too");
    remedy.says("`projects.website.directory`");
    // Another account, or another program.
    let environment = json!({ "CLAUDE_CONFIG_DIR": host.path("home-2") });
    other(json!({ "directory": "website", "environment": environment }));
    host.check().passed("website: directory", "");
    other(json!({ "directory": "website", "command": ["sleep", "60"] }));
    host.check().passed("website: directory", "");
}

#[test]
fn without_a_home_directory_claude_finds_nothing_until_one_is_configured() {
    let host = Host::new();
    let homeless = host.checker.clone().wrapped(&["env", "-u", "HOME"]);
    let of_home = ["website: login", "website: trust", "website: consent"];
    let checkup = homeless.run();
    for name in of_home {
        let remedy = checkup.failed(name, "HOME is not set");
        assert!(remedy.contains("under `environment` in config.yaml"));
    }
    host.configure_project("environment", json!({ "HOME": host.path("home") }));
    let checkup = homeless.run();
    for name in of_home {
        checkup.passed(name, "");
    }
}
