//! The stand-in for `claude`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

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
