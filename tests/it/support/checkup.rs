//! Runs the real `rcbot check`, and asserts its report.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

use super::{bot::Bot, program, run_to_end, says::Says as _};

#[derive(Debug, Clone)]
pub(crate) struct Checker {
    config: PathBuf,
    environment: BTreeMap<OsString, OsString>,
    /// The program that runs it, such as `unshare`, and its arguments.
    wrapper: Vec<OsString>,
}

#[derive(Debug)]
pub(crate) struct Checkup {
    checks: Vec<Value>,
    pub(crate) code: Option<i32>,
}

impl Checker {
    /// With this configuration. Its folder is the home directory, as for a [`Bot`].
    pub(crate) fn new(config: &Path) -> Self {
        Self {
            config: config.to_owned(),
            environment: BTreeMap::from([("HOME".into(), config.parent().unwrap().into())]),
            wrapper: Vec::new(),
        }
    }

    pub(crate) fn environment(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Runs it by another program, with these arguments before ours.
    pub(crate) fn wrapped(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(OsString::from).collect();
        self
    }

    /// Runs it until it exits, and parses its JSON report.
    #[track_caller]
    pub(crate) fn run(&self) -> Checkup {
        let output = self.output(&["--json"]);
        let said = String::from_utf8_lossy(&output.stdout);
        let report = serde_json::from_str(&said);
        let report: Value = report.unwrap_or_else(|_| panic!("no report: {}", output.text()));
        Checkup {
            checks: report["checks"].as_array().unwrap().clone(),
            code: output.status.code(),
        }
    }

    pub(crate) fn output(&self, options: &[&str]) -> Output {
        let own = [env!("CARGO_BIN_EXE_rcbot"), "check", "--config"].map(OsString::from);
        let mut words = self.wrapper.iter().chain(&own);
        let mut command = Command::new(words.next().unwrap());
        self.isolate(&mut command);
        run_to_end(command.args(words).arg(&self.config).args(options))
    }

    /// Runs a shell command in the same environment, which has to succeed: a remedy, for example.
    #[track_caller]
    pub(crate) fn shell(&self, command: &str, folder: &Path) {
        let output = self.run_in_shell(command, folder);
        assert!(output.status.success(), "{command}: {}", output.text());
    }

    /// What such a command prints on standard error, even if it fails.
    pub(crate) fn complaint(&self, command: &str, folder: &Path) -> String {
        let output = self.run_in_shell(command, folder);
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn run_in_shell(&self, command: &str, folder: &Path) -> Output {
        let mut shell = Command::new("sh");
        self.isolate(&mut shell);
        run_to_end(shell.args(["-c", command]).current_dir(folder))
    }

    fn isolate(&self, command: &mut Command) {
        let home = Path::new(&self.environment[OsStr::new("HOME")]);
        program::isolate(command, home);
        command.envs(&self.environment);
    }
}

impl Checkup {
    /// Its report for this bot.
    #[track_caller]
    pub(crate) fn of(bot: &Bot) -> Self {
        Checker::new(&bot.config_path()).run()
    }

    /// Asserts that a check has passed, and that `part` is in what was found. Checks are named by their ids, those of a project
    /// as `website: login`.
    #[track_caller]
    pub(crate) fn passed(&self, name: &str, part: &str) {
        self.assert_outcome(name, "passed", part);
    }

    /// Asserts that one was skipped, and that `part` is in the reason.
    #[track_caller]
    pub(crate) fn skipped(&self, name: &str, part: &str) {
        self.assert_outcome(name, "skipped", part);
    }

    /// Asserts that one has failed. Returns the remedy.
    #[track_caller]
    pub(crate) fn failed(&self, name: &str, part: &str) -> String {
        self.assert_outcome(name, "failed", part)
    }

    /// Asserts that one has warned. Returns the remedy.
    #[track_caller]
    pub(crate) fn warned(&self, name: &str, part: &str) -> String {
        self.assert_outcome(name, "warning", part)
    }

    #[track_caller]
    pub(crate) fn assert_outcome(&self, name: &str, outcome: &str, part: &str) -> String {
        let check = self.check(name);
        let found = check["found"].as_str().unwrap();
        assert!(
            check["outcome"] == outcome && found.contains(part),
            "{outcome}, {part:?}: {check}"
        );
        check["remedy"].as_str().unwrap_or_default().to_owned()
    }

    /// The ids of the checks with this outcome, in order.
    pub(crate) fn all(&self, outcome: &str) -> Vec<&str> {
        let all = self.checks.iter();
        let all = all.filter(|check| check["outcome"] == outcome);
        all.map(|check| check["id"].as_str().unwrap()).collect()
    }

    #[track_caller]
    fn check(&self, name: &str) -> &Value {
        let (project, id) = match name.split_once(": ") {
            Some((project, id)) => (Some(project), id),
            None => (None, name),
        };
        let project = json!(project);
        let mut all = self.checks.iter();
        let found = all.find(|check| check["id"] == id && check["project"] == project);
        found.unwrap_or_else(|| panic!("{name:?} is not in {:#?}", self.checks))
    }
}

pub(crate) fn binary(command: &str) -> String {
    command.replacen("rcbot", env!("CARGO_BIN_EXE_rcbot"), 1)
}

/// The commands in a remedy, between backticks.
pub(crate) fn commands(remedy: &str) -> Vec<&str> {
    remedy.split('`').skip(1).step_by(2).collect()
}
