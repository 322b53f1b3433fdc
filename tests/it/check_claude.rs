//! `rcbot check` and what `claude` must have been told: for each fault the failed line, and that its remedy mends it. Needs no
//! homeserver.

use std::fs;

use serde_json::json;

use crate::support::{
    checkup::commands,
    host::{CLAUDE, Host},
};

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
    let remedy = checkup.expect("website: variables", "failed", "");
    assert_eq!(
        remedy,
        format!(
            "remove ANTHROPIC_API_KEY from `environment` in config.yaml and DISABLE_TELEMETRY from `env` in {}, and start \
             the bot again",
            settings.display()
        )
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
fn settings_that_cannot_be_read_are_told_until_they_can() {
    let host = Host::new();
    let settings = host.path("home/.claude/settings.json");
    // Nobody reads a folder, root neither.
    fs::create_dir(&settings).unwrap();
    let part = format!("{} cannot be read", settings.display());
    let remedy = host.check().expect("website: variables", "failed", &part);
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
        let remedy = checkup.expect("website: variables", "warning", part);
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
    host.mend("website: log-in", "failed", "with a long-lived token");
}

#[test]
fn a_file_of_claude_that_makes_no_sense_is_told_until_claude_has_written_it_anew() {
    let host = Host::new();
    fs::write(host.path("home/.claude.json"), "{").unwrap();
    let remedy = host
        .check()
        .expect("website: consent", "failed", ".claude.json cannot be read");
    assert_eq!(commands(&remedy), ["claude", "rcbot check"]);
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
        let remedy = checkup.expect(&format!("website: {name}"), "failed", "HOME is not set");
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
