//! Programs in an environment that is the same on every machine.

use std::{env, path::Path, process::Command};

/// What of our own environment a program gets. All else could change what it does: a home directory in which `claude` is logged
/// in, a recovery key, a proxy, a service manager, a log filter.
const KEPT: [&str; 2] = ["PATH", "TMPDIR"];

/// The binary, with this home directory.
pub(crate) fn rcbot(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rcbot"));
    isolate(&mut command, home);
    command
}

/// Gives a program this home directory, and nothing else that could be another on another machine.
pub(crate) fn isolate(command: &mut Command, home: &Path) {
    command.env_clear().env("HOME", home);
    for name in KEPT {
        if let Some(value) = env::var_os(name) {
            command.env(name, value);
        }
    }
}
