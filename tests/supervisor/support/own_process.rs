//! Tests that need a separate process: this binary is run once more for them.

use std::{
    any::type_name,
    env,
    process::{Command, Stdio},
};

use tokio::runtime::Builder;

/// Set in the separate process of a test.
const IN_OWN_PROCESS: &str = "RCBOT_TEST_OWN_PROCESS";

/// Runs a test in a separate process, through another program (its words come first) and with more variables in the
/// environment. The body is an async block of the test's function; its type names the test.
#[track_caller]
pub(crate) fn in_own_process<Body: Future<Output = ()>>(
    wrapper: &[&str],
    environment: &[(&str, &str)],
    body: Body,
) {
    run(Builder::new_multi_thread(), wrapper, environment, body);
}

/// The same on one thread, where no task begins before the body waits.
#[track_caller]
pub(crate) fn on_own_thread<Body: Future<Output = ()>>(wrapper: &[&str], body: Body) {
    run(Builder::new_current_thread(), wrapper, &[], body);
}

#[track_caller]
fn run<Body: Future<Output = ()>>(
    mut runtime: Builder,
    wrapper: &[&str],
    environment: &[(&str, &str)],
    body: Body,
) {
    if env::var_os(IN_OWN_PROCESS).is_some() {
        return runtime.enable_all().build().unwrap().block_on(body);
    }
    // The name of this crate, the path of the test, and that it is a block in it.
    let (_, test) = type_name::<Body>().split_once("::").unwrap();
    let test = test.trim_end_matches("::{{closure}}");
    let binary = env::current_exe().unwrap();
    let binary = binary.to_str().unwrap();
    let how = ["--exact", "--nocapture", "--include-ignored"];
    let words = [wrapper, &[binary, test], &how].concat();
    let output = Command::new(words[0])
        .args(&words[1..])
        .env(IN_OWN_PROCESS, "")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", words[0]));
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}", output.status);
    assert!(said.contains("1 passed"), "{test} is no test:\n{said}");
    eprintln!("{said}");
}
