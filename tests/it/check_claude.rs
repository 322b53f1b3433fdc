//! `rcbot check` and what `claude` must have been told: for each fault the failed line, and that its remedy mends it. Needs no
//! homeserver.

use std::fs;

use serde_json::json;

use crate::support::{
    checkup::commands,
    host::{CLAUDE, Host, with_mounts},
};

#[test]
fn a_claude_that_cannot_resume_is_warned_of() {
    let host = Host::new();
    fs::write(
        host.path("bin/claude"),
        CLAUDE.replace("2.1.250", "2.1.199"),
    )
    .unwrap();
    let remedy =
        host.check()
            .assert_outcome("website: command", "warning", "`resume` needs 2.1.200");
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
    host.assert_remedy_fixes("website: log-in", "failed", "claude is not logged in");
}

#[test]
fn a_directory_that_claude_does_not_trust_fails_until_it_does() {
    let host = Host::new();
    let state = host.path("home/.claude.json");
    let trusts = |name: &str| {
        let trusted = json!({ host.path(name).canonicalize().unwrap().to_str().unwrap(): { "hasTrustDialogAccepted": true } });
        let text = json!({ "remoteDialogSeen": true, "oauthAccount": {}, "projects": trusted });
        fs::write(&state, text.to_string()).unwrap();
    };
    let is_trusted = || host.check().outcome("website: workspace trust") == "passed";
    let fault = "does not trust the project's directory";
    fs::write(&state, r#"{"remoteDialogSeen":true}"#).unwrap();
    host.assert_remedy_fixes("website: workspace trust", "failed", fault);
    trusts("");
    assert!(is_trusted(), "it holds below");
    // A repository needs trust of its own.
    fs::create_dir(host.path("website/.git")).unwrap();
    host.assert_remedy_fixes("website: workspace trust", "failed", fault);
    // Of a linked worktree the main checkout counts.
    fs::remove_dir(host.path("website/.git")).unwrap();
    fs::create_dir_all(host.path("main/.git/worktrees/website")).unwrap();
    fs::write(
        host.path("main/.git/worktrees/website/commondir"),
        "../..\n",
    )
    .unwrap();
    fs::write(
        host.path("website/.git"),
        "gitdir: ../main/.git/worktrees/website\n",
    )
    .unwrap();
    assert!(!is_trusted());
    trusts("main");
    assert!(is_trusted());
}

#[test]
fn a_home_directory_is_told_to_be_the_wrong_place() {
    let host = Host::new();
    host.configure_project("directory", json!("home"));
    let remedy =
        host.check()
            .assert_outcome("website: workspace trust", "failed", "home directory");
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
        .assert_outcome("website: consent", "failed", "asks once");
    assert_eq!(commands(&remedy), ["stdin: \"y\\n\""]);
    host.configure_project("stdin", json!("y\n"));
    host.check()
        .assert_outcome("website: consent", "passed", "`stdin` answers");
}

#[test]
fn variables_that_switch_remote_control_off_are_named_with_their_place() {
    let host = Host::new();
    host.configure_project(
        "environment",
        json!({ "ANTHROPIC_API_KEY": "sk-secret", "EDITOR": "vi" }),
    );
    let settings = host.path("home/.claude/settings.json");
    fs::write(
        &settings,
        r#"{"env":{"DISABLE_GROWTHBOOK":"1"},"apiKeyHelper":"/key"}"#,
    )
    .unwrap();
    let checkup = host.check();
    checkup.assert_outcome(
        "website: variables",
        "failed",
        "ANTHROPIC_API_KEY in `environment` in config.yaml",
    );
    let remedy = checkup.assert_outcome(
        "website: variables",
        "failed",
        "DISABLE_GROWTHBOOK in `env` in /",
    );
    let settings_file = settings.display();
    assert_eq!(
        remedy,
        format!(
            "remove ANTHROPIC_API_KEY from `environment` in config.yaml and DISABLE_GROWTHBOOK from `env` in {settings_file} and \
             `apiKeyHelper` from {settings_file}, and restart the bot"
        )
    );
    host.configure(|_| {});
    host.check()
        .assert_outcome("website: variables", "failed", "`apiKeyHelper` in /");
    fs::write(&settings, r#"{"env":{"DISABLE_TELEMETRY":"1"}}"#).unwrap();
    host.check()
        .assert_outcome("website: variables", "warning", "DISABLE_TELEMETRY");
    fs::remove_file(settings).unwrap();
    // What the bot has in its own environment does not reach a session.
    let checker = host
        .checker
        .clone()
        .environment("ANTHROPIC_API_KEY", "sk-secret");
    assert_eq!(checker.run().outcome("website: variables"), "passed");
}

#[test]
fn settings_of_every_level_can_switch_remote_control_off() {
    let host = Host::new();
    let off = r#"{"disableRemoteControl":true}"#;
    let of_project = host.path("website/.claude");
    fs::create_dir(&of_project).unwrap();
    for name in ["settings.json", "settings.local.json"] {
        fs::write(of_project.join(name), off).unwrap();
        let part = format!(
            "`disableRemoteControl` in {}",
            of_project.join(name).display()
        );
        host.check()
            .assert_outcome("website: variables", "failed", &part);
        fs::remove_file(of_project.join(name)).unwrap();
    }
    for name in ["managed-settings.json", "managed-settings.d/10.json"] {
        let file = format!("/etc/claude-code/{name}");
        let script = format!(
            "mount -t tmpfs tmpfs /etc && mkdir -p $(dirname {file}) && echo '{off}' > {file} && exec \"$@\""
        );
        with_mounts(&host, &script).run().assert_outcome(
            "website: variables",
            "failed",
            &format!("`disableRemoteControl` in {file}"),
        );
    }
    assert_eq!(host.check().outcome("website: variables"), "passed");
}

#[test]
fn a_copied_token_without_its_account_fails_until_somebody_logs_in() {
    let host = Host::new();
    fs::write(
        host.path("home/.claude.json"),
        r#"{"remoteDialogSeen":true}"#,
    )
    .unwrap();
    host.assert_remedy_fixes("website: log-in", "failed", "not the account that it is of");
}

#[test]
fn each_way_to_run_a_server_is_one_and_a_terminal_is_none() {
    let host = Host::new();
    fs::remove_dir_all(host.path("home/.claude")).unwrap();
    for command in [
        json!(["claude", "rc"]),
        json!(["bash", "-lc", "exec claude remote-control"]),
    ] {
        host.configure_project("command", command);
        assert_eq!(host.check().outcome("website: log-in"), "failed");
    }
    host.configure_project("command", json!(["claude", "--remote-control", "website"]));
    let remedy =
        host.check()
            .assert_outcome("website: command", "failed", "and a session has none");
    assert_eq!(commands(&remedy), ["remote-control"]);
    host.configure_project("command", json!(["claude", "remote-control"]));
    assert_eq!(host.check().outcome("website: command"), "passed");
}

#[test]
fn settings_that_cannot_be_read_are_told_until_they_can() {
    let host = Host::new();
    let settings = host.path("home/.claude/settings.json");
    // Nobody reads a folder, root neither.
    fs::create_dir(&settings).unwrap();
    let part = format!("{} cannot be read", settings.display());
    let remedy = host
        .check()
        .assert_outcome("website: variables", "failed", &part);
    assert!(remedy.contains("or remove it"), "{remedy}");
    fs::remove_dir(&settings).unwrap();
    assert_eq!(host.check().outcome("website: variables"), "passed");
}

#[test]
fn a_proxy_that_the_bot_alone_is_told_of_is_warned_of() {
    let host = Host::new();
    let proxy = "http://user:secret@127.0.0.1:9";
    for name in ["HTTPS_PROXY", "https_proxy"] {
        let checker = host.checker.clone().environment(name, proxy);
        let checkup = checker.run();
        let part = "set for the bot, and not for its sessions: HTTPS_PROXY";
        let remedy = checkup.assert_outcome("website: variables", "warning", part);
        assert!(
            remedy.contains("add HTTPS_PROXY under `projects.website.environment` in config.yaml"),
            "{remedy}"
        );
        assert!(!format!("{checkup:?}").contains("secret"));
        host.configure_project("environment", json!({ "HTTPS_PROXY": proxy }));
        assert_eq!(checker.run().outcome("website: variables"), "passed");
        host.configure(|_| {});
        let settings = host.path("home/.claude/settings.json");
        fs::write(
            &settings,
            json!({ "env": { "HTTPS_PROXY": proxy } }).to_string(),
        )
        .unwrap();
        assert_eq!(checker.run().outcome("website: variables"), "passed");
        fs::remove_file(&settings).unwrap();
    }
}

#[test]
fn a_long_lived_token_fails_until_somebody_logs_in_in_full() {
    let host = Host::new();
    let file = host.path("home/.claude/.credentials.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(",\"user:profile\"", "")).unwrap();
    host.assert_remedy_fixes("website: log-in", "failed", "with a long-lived token");
}

#[test]
fn a_file_of_claude_that_makes_no_sense_is_told_until_claude_has_written_it_anew() {
    let host = Host::new();
    fs::write(host.path("home/.claude.json"), "{").unwrap();
    let remedy =
        host.check()
            .assert_outcome("website: consent", "failed", ".claude.json cannot be read");
    assert_eq!(commands(&remedy), ["claude"]);
    host.shell(commands(&remedy)[0]);
    let checkup = host.check();
    assert_eq!(checkup.outcome("website: consent"), "passed");
    assert_eq!(checkup.outcome("website: workspace trust"), "passed");
}

#[test]
fn without_a_home_directory_claude_finds_nothing_until_it_is_told_one() {
    let host = Host::new();
    let homeless = host.checker.clone().wrapped(&["env", "-u", "HOME"]);
    let checkup = homeless.run();
    for name in ["log-in", "workspace trust", "consent"] {
        let remedy =
            checkup.assert_outcome(&format!("website: {name}"), "failed", "HOME is not set");
        assert!(
            remedy.contains("under `environment` in config.yaml"),
            "{remedy}"
        );
    }
    host.configure_project("environment", json!({ "HOME": host.path("home") }));
    let checkup = homeless.run();
    for name in ["log-in", "workspace trust", "consent"] {
        assert_eq!(checkup.outcome(&format!("website: {name}")), "passed");
    }
}
