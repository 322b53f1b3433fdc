//! Whose claude.ai account a project's sessions belong to, and how long it is logged in.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    path::Path,
    time::{Duration, SystemTime},
};

use super::{
    Project, SessionSettings,
    claude::{self, Invocation, prerequisites::ClaudeFiles},
};

/// The address of the claude.ai account for which the links of this project open: of the one that is logged in now, with
/// the environment that a session gets. `None` where that cannot be told. Reads a file, so it may block.
pub fn account(project: &Project) -> Option<String> {
    account_with(&environment(&project.settings), &project.directory)
}

/// How long the login lasts with which a project's sessions run, if that is not long. `None` as well where they run something else.
/// Reads files, so it may block.
pub fn login_ends_in(
    settings: &SessionSettings,
    directory: &Path,
    now: SystemTime,
) -> Option<Duration> {
    if !Invocation::of(&settings.command).serves() {
        return None;
    }
    let files = ClaudeFiles::of(&environment(settings), directory)?;
    files.log_in(now).ok()?.ends_in(now)
}

/// Which session it is makes no difference to where the files are.
fn environment(settings: &SessionSettings) -> BTreeMap<OsString, OsString> {
    claude::environment(env::vars_os(), &settings.environment, "")
}

fn account_with(environment: &BTreeMap<OsString, OsString>, directory: &Path) -> Option<String> {
    ClaudeFiles::of(environment, directory)?.account()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_account_is_the_one_in_the_file_that_claude_itself_reads() {
        let folder = TempDir::new().unwrap();
        let environment = BTreeMap::from([("CLAUDE_CONFIG_DIR".into(), folder.path().into())]);
        let account = || account_with(&environment, Path::new("/"));
        let log_in = |file: &str, address: &str| {
            let state = json!({ "oauthAccount": { "emailAddress": address } });
            fs::write(folder.path().join(file), state.to_string()).unwrap();
        };
        assert_eq!(account(), None);
        log_in(".claude.json", "alice@example.org");
        assert_eq!(account().as_deref(), Some("alice@example.org"));
        // Where there is a file of this name, the other one is not read.
        log_in(".config.json", "bob@example.org");
        assert_eq!(account().as_deref(), Some("bob@example.org"));
        fs::write(folder.path().join(".config.json"), "{").unwrap();
        assert_eq!(account(), None);
    }
}
