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
fn trust_holds_for_all_below_and_for_nothing_beside() {
    let state = json!({ "projects": {
        "/srv/website": { "hasTrustDialogAccepted": true },
        "/srv/api": { "hasTrustDialogAccepted": false },
        "/srv/docs": {},
    } });
    let state = ClaudeState::parse(&state.to_string()).unwrap();
    for (directory, is_trusted) in [
        ("/srv/website", true),
        ("/srv/website/backend", true),
        ("/srv/website-2", false),
        ("/srv", false),
        ("/srv/api", false),
        ("/srv/docs", false),
    ] {
        assert_eq!(
            state.trusts(Path::new(directory)),
            is_trusted,
            "{directory}"
        );
    }
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
    assert!(state.was_asked_for_consent());
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
    for text in ["", "{}", "{\"claudeAiOauth\":null}"] {
        assert_eq!(log_in(text, now), not_logged_in, "{text}");
    }
}

#[test]
fn the_variables_that_switch_remote_control_off_are_known() {
    for (name, value) in [
        ("ANTHROPIC_API_KEY", "sk"),
        ("ANTHROPIC_BASE_URL", "https://proxy.example"),
        ("ANTHROPIC_BASE_URL", "nonsense"),
        ("CLAUDE_CODE_USE_BEDROCK", "1"),
        ("DISABLE_TELEMETRY", "0"),
        ("DO_NOT_TRACK", "True"),
    ] {
        assert!(switches_off(name, value), "{name}={value}");
    }
    for (name, value) in [
        ("ANTHROPIC_API_KEY", ""),
        ("ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
        ("ANTHROPIC_MODEL", "opus"),
        ("CLAUDE_CODE_USE_BEDROCK", "0"),
        ("CLAUDE_CODE_USE_POWERSHELL_TOOL", "1"),
        ("DO_NOT_TRACK", "0"),
    ] {
        assert!(!switches_off(name, value), "{name}={value}");
    }
    let settings = r#"{"env":{"DISABLE_TELEMETRY":1,"DO_NOT_TRACK":"no","EDITOR":"vi"}}"#;
    let all = variables_in_settings(settings);
    let culprits = all.iter().filter(|(name, value)| switches_off(name, value));
    let culprits: Vec<_> = culprits.map(|(name, _)| name.as_str()).collect();
    assert_eq!(culprits, ["DISABLE_TELEMETRY"]);
    assert!(variables_in_settings("{").is_empty());
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
