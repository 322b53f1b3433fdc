//! `rcbot check`, run for real, and what it says.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use super::{bot::Bot, program, run_to_end};

/// How `rcbot check` is run.
#[derive(Debug, Clone)]
pub(crate) struct Checker {
    config: PathBuf,
    environment: BTreeMap<OsString, OsString>,
    /// What runs it, such as `unshare`, and its arguments.
    wrapper: Vec<OsString>,
}

/// What it said.
#[derive(Debug)]
pub(crate) struct Checkup {
    checks: Vec<Value>,
    /// Its exit code.
    pub(crate) code: Option<i32>,
}

impl Checker {
    /// With this configuration. The home directory is the folder in which it lies, as it is that of a [`Bot`].
    pub(crate) fn new(config: &Path) -> Self {
        Self {
            config: config.to_owned(),
            environment: BTreeMap::from([("HOME".into(), config.parent().unwrap().into())]),
            wrapper: Vec::new(),
        }
    }

    /// With a variable of its own.
    pub(crate) fn environment(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Run by another program, with these arguments before ours.
    pub(crate) fn wrapped(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(OsString::from).collect();
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub(crate) fn run(&self) -> Checkup {
        let own: [OsString; 4] = [
            env!("CARGO_BIN_EXE_rcbot").into(),
            "check".into(),
            "--json".into(),
            "--config".into(),
        ];
        let mut words = self.wrapper.iter().chain(&own);
        let mut command = Command::new(words.next().unwrap());
        self.isolate(&mut command);
        let output = run_to_end(command.args(words).arg(&self.config));
        let said = String::from_utf8_lossy(&output.stdout);
        let report: Value = serde_json::from_str(&said).unwrap_or_else(|_| {
            panic!(
                "no report: {said}{}",
                String::from_utf8_lossy(&output.stderr)
            )
        });
        Checkup {
            checks: report["checks"].as_array().unwrap().clone(),
            code: output.status.code(),
        }
    }

    /// A shell command in the same environment, which has to succeed: a remedy, for example.
    #[track_caller]
    pub(crate) fn shell(&self, command: &str, folder: &Path) {
        let output = self.run_in_shell(command, folder);
        assert!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// What such a command prints on standard error, whether it succeeds or not.
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
    /// What it says of this bot.
    #[track_caller]
    pub(crate) fn of(bot: &Bot) -> Self {
        Checker::new(&bot.config_path()).run()
    }

    /// `passed`, `warning`, `failed` or `skipped`.
    #[track_caller]
    pub(crate) fn outcome(&self, name: &str) -> &str {
        self.check(name)["outcome"].as_str().unwrap()
    }

    /// Asserts what came of a check, and that a text stands in what was found. Returns the remedy, if there is one.
    #[track_caller]
    pub(crate) fn assert_outcome(&self, name: &str, outcome: &str, part: &str) -> String {
        let check = self.check(name);
        let found = check["found"]
            .as_str()
            .or(check["because"].as_str())
            .unwrap();
        assert!(
            check["outcome"] == outcome && found.contains(part),
            "{outcome}, {part:?}: {check}"
        );
        check["remedy"].as_str().unwrap_or_default().to_owned()
    }

    /// The names of the checks of which this came, in order.
    pub(crate) fn all(&self, outcome: &str) -> Vec<&str> {
        let all = self
            .checks
            .iter()
            .filter(|check| check["outcome"] == outcome);
        all.map(|check| check["name"].as_str().unwrap()).collect()
    }

    #[track_caller]
    fn check(&self, name: &str) -> &Value {
        let found = self.checks.iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("{name:?} is not in {:#?}", self.checks))
    }
}

/// A command of ours, as a shell here has to call it.
pub(crate) fn binary(command: &str) -> String {
    command.replacen("rcbot", env!("CARGO_BIN_EXE_rcbot"), 1)
}

/// The commands in a remedy: what stands between backticks.
pub(crate) fn commands(remedy: &str) -> Vec<&str> {
    remedy.split('`').skip(1).step_by(2).collect()
}
