//! Whose claude.ai account a project's sessions belong to.

use std::{collections::BTreeMap, env, ffi::OsString, fs::File, io::Read as _, path::Path};

use super::{
    Project,
    claude::{
        self,
        prerequisites::{ClaudeFiles, ClaudeState},
    },
};

/// How much of the state file is read, in bytes. It grows with the projects in it, to some megabytes.
const LONGEST_STATE_FILE: u64 = 64 << 20;

/// The address of the claude.ai account for which the links of this project open: of the one that is logged in now, with
/// the environment that a session gets. `None` where that cannot be told. Reads a file, so it may block.
#[must_use]
pub fn account(project: &Project) -> Option<String> {
    // Which session it is makes no difference to where the file is.
    let environment = claude::environment(env::vars_os(), &project.settings.environment, "");
    account_with(&environment, &project.directory)
}

fn account_with(environment: &BTreeMap<OsString, OsString>, directory: &Path) -> Option<String> {
    let files = ClaudeFiles::of(environment, directory)?;
    let path = files.state.iter().find(|path| path.exists())?;
    let mut state = String::new();
    let file = File::open(path).ok()?;
    file.take(LONGEST_STATE_FILE)
        .read_to_string(&mut state)
        .ok()?;
    let state = ClaudeState::parse(&state).ok()?;
    state.account().map(str::to_owned)
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
