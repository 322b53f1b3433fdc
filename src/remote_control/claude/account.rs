//! Who is logged in: `claude` keeps it in its state file, `.claude.json`, which is read and never written, as the program
//! races for it.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// The file, in the folder that `CLAUDE_CONFIG_DIR` names, else in the home directory.
const STATE_FILE: &str = ".claude.json";

/// The longest address there can be, in bytes: RFC 5321, 4.5.3.1.3.
const LONGEST_ADDRESS: usize = 254;

/// What is looked for in the file; all else is passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StateFile {
    oauth_account: Option<OauthAccount>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OauthAccount {
    email_address: Option<String>,
}

/// Where the state file of a process with this environment is.
#[must_use]
pub fn state_file(environment: &BTreeMap<OsString, OsString>) -> Option<PathBuf> {
    let folder = ["CLAUDE_CONFIG_DIR", "HOME"]
        .into_iter()
        .filter_map(|name| environment.get(OsStr::new(name)))
        .find(|folder| !folder.is_empty())?;
    Some(Path::new(folder).join(STATE_FILE))
}

/// The address of the claude.ai account that is logged in, by what the state file holds. `None` where that cannot be told.
#[must_use]
pub fn account(state_file: &[u8]) -> Option<String> {
    let state: StateFile = serde_json::from_slice(state_file).ok()?;
    let address = state.oauth_account?.email_address?;
    let is_address = address.len() <= LONGEST_ADDRESS
        && address.contains('@')
        && address
            .chars()
            .all(|character| character.is_ascii_graphic());
    is_address.then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state_file_of(variables: &[(&str, &str)]) -> Option<PathBuf> {
        let variables = variables.iter();
        let environment = variables.map(|(name, value)| ((*name).into(), (*value).into()));
        state_file(&environment.collect())
    }

    #[test]
    fn the_state_file_is_in_the_configuration_folder_or_at_home() {
        let home = ("HOME", "/home/alice");
        let at_home = Some("/home/alice/.claude.json".into());
        assert_eq!(state_file_of(&[home]), at_home);
        assert_eq!(state_file_of(&[home, ("CLAUDE_CONFIG_DIR", "")]), at_home);
        assert_eq!(
            state_file_of(&[home, ("CLAUDE_CONFIG_DIR", "/srv/claude")]),
            Some("/srv/claude/.claude.json".into())
        );
        assert_eq!(state_file_of(&[]), None);
    }

    #[test]
    fn the_account_is_known_once_somebody_is_logged_in() {
        let logged_in = r#"{
            "numStartups": 7,
            "oauthAccount": { "accountUuid": "u", "emailAddress": "alice@example.org", "organizationName": "x" },
            "projects": { "/srv/website": { "hasTrustDialogAccepted": true } }
        }"#;
        assert_eq!(
            account(logged_in.as_bytes()).as_deref(),
            Some("alice@example.org")
        );
    }

    #[test]
    fn what_tells_no_account_is_no_account() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"oauthAccount": null}"#,
            r#"{"oauthAccount": {}}"#,
            r#"{"oauthAccount": {"emailAddress": 7}}"#,
            r#"{"oauthAccount": {"emailAddress": "nobody"}}"#,
            r#"{"oauthAccount": {"emailAddress": "a@b\nHost: another"}}"#,
        ] {
            assert_eq!(account(text.as_bytes()), None, "{text}");
        }
    }
}
