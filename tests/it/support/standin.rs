//! The stand-in for `claude`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use serde::Deserialize;

use super::processes::Mark;

/// The variable that names the stand-in's log, and marks the sessions of a test.
pub(crate) const STANDIN_LOG: &str = "RCBOT_STANDIN_LOG";

/// Copies the program in its first argument to its second, and makes it name this interpreter.
const COPY: &str = r##"
import os, sys
program, copy = sys.argv[1:]
with open(program) as file:
    _, body = file.read().split("\n", 1)
new = f"{copy}.{os.getpid()}"
with open(new, "w") as file:
    file.write(f"#!{sys.executable} -IS\n{body}")
os.chmod(new, 0o755)
os.replace(new, copy)
"##;

/// One line of the stand-in's log.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct StandinRecord {
    /// `start`, or `relink` where a running one printed another link.
    pub(crate) event: String,
    pub(crate) pid: i32,
    /// The value of `RCBOT_SESSION_ID`.
    pub(crate) session_id: String,
    pub(crate) link: String,
    #[serde(default)]
    pub(crate) argv: Vec<String>,
    #[serde(default)]
    pub(crate) cwd: PathBuf,
    #[serde(default)]
    pub(crate) environment: Vec<String>,
}

/// Every start of a stand-in and every further link in this log, in order.
pub(crate) fn standin_records(log: &Path) -> Vec<StandinRecord> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let records: Result<_, _> = text.lines().map(serde_json::from_str).collect();
    records.unwrap()
}

/// The mark of the stand-ins with this log, and of their children.
pub(crate) fn standin_mark(log: &Path) -> Mark<'_> {
    Mark {
        name: STANDIN_LOG,
        value: log.as_ref(),
    }
}

/// A copy of tests/fixtures/claude that names its interpreter. Where `python3` is a script that looks for the real one, as
/// pyenv's is, that would take longer than the stand-in itself, some 700 times in a run.
pub(crate) fn standin_program() -> &'static Path {
    static COPIED: LazyLock<PathBuf> = LazyLock::new(|| {
        let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("claude");
        // Another process writes it: what a test spawns would inherit a file that is open for writing here, and a program
        // cannot be executed while it is.
        let copied = Command::new("python3")
            .args(["-IS", "-c", COPY])
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/fixtures/claude"
            ))
            .arg(&copy)
            .status();
        assert!(copied.expect("python3 is needed").success());
        copy
    });
    &COPIED
}
