//! What must hold on the host before `claude remote-control` serves, as the program's own files tell it.
//!
//! Read in version 2.1.332. These files are the program's: they are looked at and never written, as it races for them.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use url::Url;

use super::Cause;

/// The scope that a log-in with a claude.ai account has, and one with an API console has not.
const SCOPE_OF_SUBSCRIBERS: &str = "user:inference";

/// The scope that a full log-in has, and a long-lived token (`claude setup-token`) has not.
const SCOPE_OF_FULL_LOGINS: &str = "user:profile";

/// The one host that Remote Control works with.
const SERVICE: &str = "api.anthropic.com";

/// What an organisation prescribes to all users of a host.
const MANAGED_SETTINGS: &str = "/etc/claude-code/managed-settings.json";

/// The folder of more files of that kind, `*.json`.
pub(crate) const MANAGED_FOLDER: &str = "/etc/claude-code/managed-settings.d";

/// The version from which on `--continue` brings back a conversation of Remote Control.
pub(crate) const FIRST_TO_CONTINUE: Version = Version(2, 1, 200);

/// The longest e-mail address there can be, in bytes: RFC 5321, 4.5.3.1.3.
const LONGEST_ADDRESS: usize = 254;

/// Where the program keeps what it remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClaudeFiles {
    /// Where the trusted directories and the consent stand; the first of these that exists.
    pub(crate) state: [PathBuf; 2],
    /// Where the log-in stands. The content is secret.
    pub(crate) credentials: PathBuf,
    /// Settings, of which each may be missing, or add variables to the environment. Those in [`MANAGED_FOLDER`] count as well.
    pub(crate) settings: [PathBuf; 4],
}

impl ClaudeFiles {
    /// The files that a session with this environment uses in a directory. `None`: without HOME they cannot be told.
    pub(crate) fn of(environment: &BTreeMap<OsString, OsString>, directory: &Path) -> Option<Self> {
        let set = |name: &str| {
            let value = environment.get(OsStr::new(name));
            value.filter(|it| !it.is_empty()).map(PathBuf::from)
        };
        let home = set("HOME");
        let configured = set("CLAUDE_CONFIG_DIR");
        let folder = configured
            .clone()
            .or_else(|| Some(home.as_ref()?.join(".claude")))?;
        let storage = set("CLAUDE_SECURESTORAGE_CONFIG_DIR").unwrap_or_else(|| folder.clone());
        Some(Self {
            state: [
                folder.join(".config.json"),
                configured.or(home)?.join(".claude.json"),
            ],
            credentials: storage.join(".credentials.json"),
            settings: [
                MANAGED_SETTINGS.into(),
                directory.join(".claude/settings.local.json"),
                directory.join(".claude/settings.json"),
                folder.join("settings.json"),
            ],
        })
    }
}

/// What `.claude.json` says. A key that is missing or of another kind says no.
#[derive(Debug, Default)]
pub(crate) struct ClaudeState(Value);

impl ClaudeState {
    /// Reads the file's text.
    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text).map(Self)
    }

    /// Whether somebody was once asked whether Remote Control may be enabled. It is not asked again, whatever the answer.
    pub(crate) fn was_asked_for_consent(&self) -> bool {
        self.0.get("remoteDialogSeen") == Some(&Value::Bool(true))
    }

    /// Whether this directory was trusted. For which others that holds is another question.
    pub(crate) fn trusts(&self, directory: &Path) -> bool {
        let project = || self.0.get("projects")?.get(directory.to_str()?);
        let trust = project().and_then(|project| project.get("hasTrustDialogAccepted"));
        trust == Some(&Value::Bool(true))
    }

    /// Whether it is known whose the log-in is. Without that the program cannot tell the organisation, and refuses.
    pub(crate) fn has_account(&self) -> bool {
        self.0.get("oauthAccount").is_some_and(Value::is_object)
    }

    /// The e-mail address of the claude.ai account, if it is known: ASCII without blanks or line ends, as it is shown to people.
    pub(crate) fn account(&self) -> Option<&str> {
        let address = self.0.pointer("/oauthAccount/emailAddress")?.as_str()?;
        let is_address = address.len() <= LONGEST_ADDRESS
            && address.contains('@')
            && address
                .chars()
                .all(|character| character.is_ascii_graphic());
        is_address.then_some(address)
    }
}

/// Judges the text of `.credentials.json`.
pub(crate) fn log_in(credentials: &str, now: SystemTime) -> Result<(), Cause> {
    let all: Value = serde_json::from_str(credentials).map_err(|_| Cause::NotLoggedIn)?;
    let login = all.get("claudeAiOauth").ok_or(Cause::NotLoggedIn)?;
    let has_token = |name: &str| {
        let token = login.get(name).and_then(Value::as_str);
        token.is_some_and(|token| !token.is_empty())
    };
    let has_scope = |wanted: &str| {
        let scopes = login.get("scopes").and_then(Value::as_array);
        scopes.is_some_and(|all| all.iter().any(|scope| scope == wanted))
    };
    if !has_token("accessToken") || !has_scope(SCOPE_OF_SUBSCRIBERS) {
        return Err(Cause::NotLoggedIn);
    }
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let is_over = |key: &str| {
        let end = login.get(key).and_then(Value::as_u64);
        end.is_some_and(|end| u128::from(end) <= now.as_millis())
    };
    // Where it can be renewed, it counts how long that is so.
    if is_over("refreshTokenExpiresAt") || is_over("expiresAt") && !has_token("refreshToken") {
        return Err(Cause::NotLoggedIn);
    }
    if has_scope(SCOPE_OF_FULL_LOGINS) {
        Ok(())
    } else {
        Err(Cause::LongLivedToken)
    }
}

/// Which versions of the program a variable keeps from serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hindrance {
    None,
    /// Those before 2.1.288, and all where the organisation asks for Trusted Devices.
    Old,
    All,
}

pub(crate) fn hindrance(name: &str, value: &str) -> Hindrance {
    let (hindrance, is_set) = match name {
        "ANTHROPIC_API_KEY"
        | "ANTHROPIC_AUTH_TOKEN"
        | "ANTHROPIC_UNIX_SOCKET"
        | "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"
        | "CLAUDE_CODE_OAUTH_TOKEN" => (Hindrance::All, !value.is_empty()),
        "ANTHROPIC_BASE_URL" => (Hindrance::All, !value.is_empty() && !is_service(value)),
        "CLAUDE_CODE_DISABLE_FEATURE_FLAGS"
        | "CLAUDE_CODE_REMOTE"
        | "CLAUDE_CODE_SIMPLE"
        | "CLAUDE_CODE_USE_ANTHROPIC_AWS"
        | "CLAUDE_CODE_USE_ANTHROPIC_GOOGLE_CLOUD"
        | "CLAUDE_CODE_USE_BEDROCK"
        | "CLAUDE_CODE_USE_FOUNDRY"
        | "CLAUDE_CODE_USE_MANTLE"
        | "CLAUDE_CODE_USE_VERTEX"
        | "DISABLE_GROWTHBOOK" => (Hindrance::All, is_on(value)),
        "DISABLE_TELEMETRY" => (Hindrance::Old, !value.is_empty()),
        "DO_NOT_TRACK" => (Hindrance::Old, is_on(value)),
        _ => (Hindrance::None, false),
    };
    if is_set { hindrance } else { Hindrance::None }
}

/// What of a settings file matters to Remote Control.
#[derive(Debug, Default)]
pub(crate) struct ClaudeSettings {
    /// The variables that it adds to the environment, with their values.
    pub(crate) variables: Vec<(String, String)>,
    /// Its keys that switch Remote Control off.
    pub(crate) switches: Vec<&'static str>,
}

impl ClaudeSettings {
    /// Reads a file's text. One that makes no sense says nothing: the program ignores it. A project's own file, which whoever can
    /// write to the project has written, gives no API key.
    pub(crate) fn parse(text: &str, is_of_project: bool) -> Self {
        let settings: Value = serde_json::from_str(text).unwrap_or_default();
        let variables = settings.get("env").and_then(Value::as_object);
        let variables = variables.into_iter().flatten().map(|(name, value)| {
            let text = value.as_str().map(str::to_owned);
            (name.clone(), text.unwrap_or_else(|| value.to_string()))
        });
        let is_ignored = |name: &str| is_of_project && name == "ANTHROPIC_API_KEY";
        let helper = settings.get("apiKeyHelper").and_then(Value::as_str);
        let is_disabled = settings.get("disableRemoteControl") == Some(&Value::Bool(true));
        let switches = [
            (
                "apiKeyHelper",
                helper.is_some_and(|helper| !helper.is_empty()),
            ),
            ("disableRemoteControl", is_disabled),
        ];
        let switches = switches.into_iter().filter(|(_, is_set)| *is_set);
        Self {
            variables: variables.filter(|(name, _)| !is_ignored(name)).collect(),
            switches: switches.map(|(name, _)| name).collect(),
        }
    }
}

/// The words that the program takes for a yes.
fn is_on(value: &str) -> bool {
    ["1", "true", "yes", "on"].contains(&value.trim().to_lowercase().as_str())
}

fn is_service(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.host_str() == Some(SERVICE) && url.port().is_none())
}

/// A version of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32, u32);

impl Version {
    /// Finds it in what `claude --version` prints: `2.1.197 (Claude Code)`.
    pub(crate) fn parse(printed: &str) -> Option<Self> {
        let numbers = printed.strip_suffix("(Claude Code)")?.trim_end();
        let mut numbers = numbers.split('.').map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        Some(Self(next()?, next()?, next()?))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
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
        let files = |pairs: &[(&str, &str)]| {
            ClaudeFiles::of(&environment(pairs), Path::new("/srv/website"))
        };
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
}
