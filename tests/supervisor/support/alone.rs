//! Tests that need a process of their own: this binary is run once more for them.

use std::{
    env,
    process::{Command, Stdio},
};

/// The variable that tells a test that it has its process for itself.
const ALONE: &str = "RCBOT_TEST_ALONE";

/// Whether the test that asks, named by its whole path, has the process for itself. If not, it was run in one of its own by
/// now, and went well.
#[track_caller]
pub(crate) fn alone(test: &str) -> bool {
    alone_within(test, &[], &[])
}

/// As [`alone`], with more variables in the environment, and through another program (its words come first).
#[track_caller]
pub(crate) fn alone_within(test: &str, wrapper: &[&str], environment: &[(&str, &str)]) -> bool {
    if env::var_os(ALONE).is_some() {
        return true;
    }
    let binary = env::current_exe().unwrap();
    let binary = binary.to_str().unwrap();
    let how = ["--exact", "--nocapture", "--include-ignored"];
    let words = [wrapper, &[binary, test], &how].concat();
    let output = Command::new(words[0])
        .args(&words[1..])
        .env(ALONE, "")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", words[0]));
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}", output.status);
    assert!(said.contains("1 passed"), "{test} is no test:\n{said}");
    eprintln!("{said}");
    false
}
