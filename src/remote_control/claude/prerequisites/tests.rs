use std::time::Duration;

use serde_json::json;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<OsString, OsString> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

#[test]
fn the_files_are_where_home_or_the_variables_say() {
    let files =
        |pairs: &[(&str, &str)]| ClaudeFiles::of(&environment(pairs), Path::new("/srv/website"));
    let at_home = files(&[("HOME", "/home/alice")]).unwrap();
    assert_eq!(at_home.state[1], Path::new("/home/alice/.claude.json"));
    assert_eq!(
        at_home.credentials,
        Path::new("/home/alice/.claude/.credentials.json")
    );
    let empty = files(&[("HOME", "/home/alice"), ("CLAUDE_CONFIG_DIR", "")]);
    assert_eq!(empty.as_ref(), Some(&at_home));
    let elsewhere = files(&[
        ("HOME", "/home/alice"),
        ("CLAUDE_CONFIG_DIR", "/srv/claude"),
    ])
    .unwrap();
    assert_eq!(elsewhere.state[1], Path::new("/srv/claude/.claude.json"));
    assert_eq!(
        elsewhere.credentials,
        Path::new("/srv/claude/.credentials.json")
    );
    assert_eq!(
        elsewhere.settings[3],
        Path::new("/srv/claude/settings.json")
    );
    assert_eq!(files(&[("HOME", "")]), None);
}

#[test]
fn a_directory_is_trusted_if_it_was_accepted_itself() {
    let state = json!({ "projects": {
        "/srv/website": { "hasTrustDialogAccepted": true },
        "/srv/api": { "hasTrustDialogAccepted": false },
        "/srv/docs": {},
    } });
    let state = ClaudeState::parse(&state.to_string()).unwrap();
    let all = [
        "/srv/website",
        "/srv/website/backend",
        "/srv",
        "/srv/api",
        "/srv/docs",
    ];
    let trusted = all.iter().filter(|path| state.trusts(Path::new(path)));
    assert_eq!(trusted.collect::<Vec<_>>(), [&"/srv/website"]);
}

#[test]
fn what_is_missing_or_of_another_kind_says_no() {
    for text in ["{}", "[]", r#"{"remoteDialogSeen":"yes","projects":[]}"#] {
        let state = ClaudeState::parse(text).unwrap();
        assert!(
            !state.was_asked_for_consent() && !state.trusts(Path::new("/srv")),
            "{text}"
        );
    }
    let state = ClaudeState::parse(r#"{"remoteDialogSeen":true}"#).unwrap();
    assert!(state.was_asked_for_consent() && !state.has_account());
    assert!(ClaudeState::parse("{").is_err());
}

#[test]
fn the_account_is_known_once_somebody_is_logged_in() {
    let state = json!({
        "numStartups": 7,
        "oauthAccount": { "accountUuid": "u", "emailAddress": "alice@example.org", "organizationName": "x" },
        "projects": { "/srv/website": { "hasTrustDialogAccepted": true } },
    });
    let state = ClaudeState::parse(&state.to_string()).unwrap();
    assert_eq!(state.account(), Some("alice@example.org"));
    assert!(state.has_account());
}

#[test]
fn what_tells_no_account_is_no_account() {
    let long = format!(
        r#"{{"oauthAccount": {{"emailAddress": "{}@b"}}}}"#,
        "a".repeat(253)
    );
    for text in [
        "{}",
        "[]",
        r#"{"oauthAccount": null}"#,
        r#"{"oauthAccount": {}}"#,
        r#"{"oauthAccount": {"emailAddress": 7}}"#,
        r#"{"oauthAccount": {"emailAddress": "nobody"}}"#,
        r#"{"oauthAccount": {"emailAddress": "a@b\nHost: another"}}"#,
        &long,
    ] {
        assert_eq!(ClaudeState::parse(text).unwrap().account(), None, "{text}");
    }
}

#[test]
fn a_login_needs_a_token_both_scopes_and_a_future() {
    let now = UNIX_EPOCH + Duration::from_secs(1_000);
    let full = json!(["user:inference", "user:profile"]);
    let login = |access: &str, refresh: &str, end: u64, scopes: &Value| {
        let text = json!({ "claudeAiOauth": {
            "accessToken": access, "refreshToken": refresh, "expiresAt": end, "scopes": scopes,
        } });
        log_in(&text.to_string(), now)
    };
    assert_eq!(login("a", "r", 2_000_000, &full), Ok(()));
    assert_eq!(login("a", "r", 500_000, &full), Ok(()), "it is renewed");
    let not_logged_in = Err(Cause::NotLoggedIn);
    assert_eq!(
        login("a", "", 500_000, &full),
        not_logged_in,
        "it cannot be renewed"
    );
    assert_eq!(login("", "", 0, &full), not_logged_in, "it was revoked");
    assert_eq!(
        login(
            "a",
            "r",
            2_000_000,
            &json!(["org:create_api_key", "user:profile"])
        ),
        not_logged_in
    );
    assert_eq!(
        login("a", "r", 2_000_000, &json!(["user:inference"])),
        Err(Cause::LongLivedToken)
    );
    let over = json!({ "claudeAiOauth": {
        "accessToken": "a", "refreshToken": "r", "expiresAt": 2_000_000, "refreshTokenExpiresAt": 500_000, "scopes": full,
    } });
    assert_eq!(
        log_in(&over.to_string(), now),
        not_logged_in,
        "the login itself has ended"
    );
    for text in ["", "{}", "{\"claudeAiOauth\":null}"] {
        assert_eq!(log_in(text, now), not_logged_in, "{text}");
    }
}

#[test]
fn what_switches_remote_control_off_is_known() {
    for (name, value, expected) in [
        ("ANTHROPIC_API_KEY", "sk", Hindrance::All),
        ("ANTHROPIC_API_KEY", "", Hindrance::None),
        (
            "ANTHROPIC_BASE_URL",
            "https://proxy.example",
            Hindrance::All,
        ),
        ("ANTHROPIC_BASE_URL", "nonsense", Hindrance::All),
        (
            "ANTHROPIC_BASE_URL",
            "https://api.anthropic.com",
            Hindrance::None,
        ),
        ("ANTHROPIC_MODEL", "opus", Hindrance::None),
        (
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
            "0",
            Hindrance::All,
        ),
        ("CLAUDE_CODE_USE_BEDROCK", "1", Hindrance::All),
        ("CLAUDE_CODE_USE_BEDROCK", "0", Hindrance::None),
        ("CLAUDE_CODE_USE_GATEWAY", "1", Hindrance::None),
        ("DISABLE_GROWTHBOOK", "0", Hindrance::None),
        ("DISABLE_TELEMETRY", "0", Hindrance::Old),
        ("DO_NOT_TRACK", "True", Hindrance::Old),
        ("DO_NOT_TRACK", "0", Hindrance::None),
    ] {
        assert_eq!(hindrance(name, value), expected, "{name}={value}");
    }
}

#[test]
fn settings_give_variables_and_switches() {
    let text = json!({
        "env": { "ANTHROPIC_API_KEY": "sk", "DISABLE_TELEMETRY": 1 },
        "apiKeyHelper": "/usr/bin/key",
        "disableRemoteControl": true,
    });
    let settings = |is_of_project| ClaudeSettings::parse(&text.to_string(), is_of_project);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let telemetry = pair("DISABLE_TELEMETRY", "1");
    assert_eq!(
        settings(false).variables,
        [pair("ANTHROPIC_API_KEY", "sk"), telemetry.clone()]
    );
    assert_eq!(settings(true).variables, [telemetry]);
    assert_eq!(
        settings(true).switches,
        ["apiKeyHelper", "disableRemoteControl"]
    );
    for nothing in [
        "{",
        "[]",
        r#"{"apiKeyHelper":"","disableRemoteControl":false}"#,
    ] {
        let settings = ClaudeSettings::parse(nothing, false);
        assert!(
            settings.variables.is_empty() && settings.switches.is_empty(),
            "{nothing}"
        );
    }
}

#[test]
fn versions_are_compared_by_number() {
    let version = |text| Version::parse(text);
    assert_eq!(version("2.1.197 (Claude Code)"), Some(Version(2, 1, 197)));
    assert!(version("2.1.1000 (Claude Code)").unwrap() > FIRST_TO_CONTINUE);
    for other in ["", "2.1.197", "bash 5.2.15", "2.1 (Claude Code)"] {
        assert_eq!(version(other), None, "{other}");
    }
}
