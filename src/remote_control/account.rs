//! Whose claude.ai account a project's sessions belong to.

use std::{env, fs::File, io::Read as _};

use super::{Project, claude};

/// How much of the state file is read, in bytes. It grows with the projects in it, to some megabytes.
const LONGEST_STATE_FILE: u64 = 64 << 20;

/// The address of the claude.ai account for which the links of this project open: of the one that is logged in now, with
/// the environment that a session gets. `None` where that cannot be told. Reads a file, so it may block.
#[must_use]
pub fn account(project: &Project) -> Option<String> {
    // Which session it is makes no difference to where the file is.
    let environment = claude::environment(env::vars_os(), &project.environment, "");
    let path = claude::state_file(&environment)?;
    let mut state = Vec::new();
    let file = File::open(path).ok()?;
    file.take(LONGEST_STATE_FILE).read_to_end(&mut state).ok()?;
    claude::account(&state)
}
