//! Runs programs in an environment that is the same on every machine, and asserts their exit code and output.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Instant,
};

use tempfile::TempDir;

use super::{DEADLINE, FIRST_PAUSE, says::Says as _};

/// The variables that programs inherit. Others could change what they do: a home directory in which `claude` is logged in, a
/// recovery key, a proxy, a service manager, a log filter.
const KEPT: [&str; 2] = ["PATH", "TMPDIR"];

/// The binary, with this home directory.
pub(crate) fn rcbot(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rcbot"));
    isolate(&mut command, home);
    command
}

/// Gives a program this home directory, and no variable that differs between machines.
pub(crate) fn isolate(command: &mut Command, home: &Path) {
    command.env_clear().env("HOME", home);
    for name in KEPT {
        if let Some(value) = env::var_os(name) {
            command.env(name, value);
        }
    }
}

/// Runs a program that should exit; it is killed when the deadline passes.
pub(crate) fn run_to_end(command: &mut Command) -> Output {
    let mut process = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + DEADLINE;
    while process.try_wait().unwrap().is_none() && Instant::now() < deadline {
        thread::sleep(FIRST_PAUSE);
    }
    // Does nothing if it has exited.
    process.kill().unwrap();
    process.wait_with_output().unwrap()
}

/// Assertions on the exit code of a program.
pub(crate) trait Ended {
    /// Asserts success. Returns stdout.
    fn succeeded(&self) -> String;

    /// Asserts this exit code. Returns stderr.
    fn failed(&self, code: i32) -> String;
}

impl Ended for Output {
    #[track_caller]
    fn succeeded(&self) -> String {
        assert!(self.status.success(), "{}", self.text());
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    #[track_caller]
    fn failed(&self, code: i32) -> String {
        assert_eq!(self.status.code(), Some(code), "{}", self.text());
        String::from_utf8(self.stderr.clone()).unwrap()
    }
}

/// A temporary folder in which the binary is run.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(TempDir::with_prefix("rcbot-test-").unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Changes one part of a file.
    #[track_caller]
    pub(crate) fn replace(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        text.says(from);
        self.write(name, &text.replacen(from, to, 1));
    }

    /// The permissions of a file.
    pub(crate) fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o777
    }

    pub(crate) fn rcbot(&self, arguments: &[&str]) -> Output {
        let mut command = rcbot(self.0.path());
        run_to_end(command.args(arguments).current_dir(self.0.path()))
    }
}
