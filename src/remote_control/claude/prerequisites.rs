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
        let get = |name: &str| {
            environment
                .get(OsStr::new(name))
                .filter(|value| !value.is_empty())
        };
        let home = get("HOME").map(PathBuf::from);
        let configured = get("CLAUDE_CONFIG_DIR").map(PathBuf::from);
        let folder = configured
            .clone()
            .or_else(|| home.as_ref().map(|home| home.join(".claude")))?;
        let storage = get("CLAUDE_SECURESTORAGE_CONFIG_DIR").map(PathBuf::from);
        Some(Self {
            state: [
                folder.join(".config.json"),
                configured.or(home)?.join(".claude.json"),
            ],
            credentials: storage
                .unwrap_or_else(|| folder.clone())
                .join(".credentials.json"),
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
mod tests;
