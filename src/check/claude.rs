//! The programs of a project's command lines: whether they are where a session would look, and run.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{Access, access};

use super::{
    Outcome,
    project::Site,
    run::{NotPrinted, printed_by},
};
use crate::remote_control::claude::{
    HarmfulOption, Invocation,
    prerequisites::{FIRST_TO_CONTINUE, FIRST_WITH_SETTINGS, KNOWN_VERSIONS, Version},
};

/// How much of a program's version is shown, in characters.
const SHOWN_VERSION: usize = 60;

/// Where programs are looked for without a PATH (execvp(3)).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// What programs print as their versions, by their environment: none is run twice.
pub(super) type Versions = BTreeMap<(PathBuf, Environment), Result<String, NotPrinted>>;

pub(super) type Environment = BTreeMap<OsString, OsString>;

impl Site<'_> {
    /// Only the program's first word is run, with `--version`: that starts nothing.
    pub(super) async fn judge_command(
        &self,
        words: &[String],
        resume: &[String],
        versions: &mut Versions,
    ) -> Outcome {
        let Some(name) = words.first() else {
            return Outcome::failed("it is empty", "set it in config.yaml");
        };
        let invocation = Invocation::of(words);
        if invocation == Invocation::InTerminal {
            return Outcome::failed(
                "`--remote-control` opens Remote Control in a terminal, and a session has none",
                "write `remote-control` in its place, without the dashes, in config.yaml; and restart the bot",
            );
        }
        if let Some(option) = HarmfulOption::of(words).or_else(|| HarmfulOption::of(resume)) {
            return judge_harmful(option);
        }
        let program = match self.find(name) {
            Ok(program) => program,
            Err(outcome) => return outcome,
        };
        let shown = program.display();
        // A user who can change it would have it run as root.
        if self.vantage.is_root_for_another() {
            return Outcome::passed(format!("{shown}, which root does not run"));
        }
        let version = match self.version(&program, versions).await {
            Ok(version) => version,
            Err(fault) => return judge_fault(&program, invocation, &fault),
        };
        let continues = resume.iter().any(|word| word == "--continue");
        let has_settings = self.project.settings.settings.is_some();
        let (oldest, newest) = KNOWN_VERSIONS;
        match Version::parse(&version) {
            Some(new) if new > newest => Outcome::passed(format!(
                "{shown}, {version}; this rcbot was written for versions up to {newest}"
            )),
            Some(old) if has_settings && old < FIRST_WITH_SETTINGS => Outcome::failed(
                format!("{shown} is version {old}, and `settings` needs {FIRST_WITH_SETTINGS}"),
                "`claude update`, as the user who runs rcbot",
            ),
            Some(old) if old < oldest => Outcome::warning(
                format!(
                    "{shown} is version {old}, and this rcbot was written for {oldest} to {newest}"
                ),
                "`claude update`, as the user who runs rcbot",
            ),
            Some(old) if continues && old < FIRST_TO_CONTINUE => Outcome::warning(
                format!("{shown} is version {old}, and `resume` needs {FIRST_TO_CONTINUE}"),
                "`claude update`, as the user who runs rcbot",
            ),
            Some(_) => Outcome::passed(format!("{shown}, {version}")),
            None if version.is_empty() => Outcome::passed(format!("{shown}, version unknown")),
            None => Outcome::passed(format!("{shown}, which prints {version:?} as its version")),
        }
    }

    /// Where a session would find the program.
    fn find(&self, name: &str) -> Result<PathBuf, Outcome> {
        let path = self.environment.get(OsStr::new("PATH")).cloned();
        let path = path.unwrap_or_else(|| DEFAULT_PATH.into());
        let folders: Vec<_> = if name.contains('/') {
            vec![PathBuf::new()]
        } else {
            env::split_paths(&path).collect()
        };
        let candidates = folders.iter();
        let candidates = candidates.map(|folder| self.directory.join(folder).join(name));
        let files: Vec<_> = candidates.filter(|path| path.is_file()).collect();
        let mut programs = files.iter();
        if let Some(program) = programs.find(|path| access(*path, Access::EXEC_OK).is_ok()) {
            return Ok(program.clone());
        }
        if let Some(program) = files.first() {
            let program = program.display();
            return Err(Outcome::failed(
                format!("{program} may not be run"),
                format!("`chmod +x {program}`"),
            ));
        }
        let place = if name.contains('/') {
            String::new()
        } else if self.vantage.knows_environment() {
            format!(" in PATH ({})", path.to_string_lossy())
        } else {
            return Err(Outcome::skipped(format!(
                "it is not in root's PATH, and the bot's is not known; {}",
                self.vantage.as_bot()
            )));
        };
        Err(Outcome::failed(
            format!("there is no {name}{place}"),
            "install it, or give its full path in config.yaml, or add its folder to the PATH of the bot (under systemd: \
             `Environment=PATH=` in the unit, and `systemctl daemon-reload`); and restart the bot",
        ))
    }

    /// The first line that the program prints.
    async fn version(&self, program: &Path, versions: &mut Versions) -> Result<String, NotPrinted> {
        let key = (program.to_owned(), self.environment.clone());
        if let Some(known) = versions.get(&key) {
            return known.clone();
        }
        let mut command = Command::new(program);
        command
            .arg("--version")
            .current_dir(&self.directory)
            .env_clear()
            .envs(&self.environment);
        let printed = printed_by(command).await;
        let line = printed.map(|text| {
            let line = text.lines().next().unwrap_or_default();
            line.chars().take(SHOWN_VERSION).collect()
        });
        versions.insert(key, line.clone());
        line
    }
}

fn judge_harmful(option: HarmfulOption) -> Outcome {
    match option {
        HarmfulOption::Verbose => Outcome::warning(
            "with `--verbose` claude prints all that is said in a session, which ends up in its log and in `!rc logs`",
            "remove it from `command` in config.yaml, and restart the bot",
        ),
        HarmfulOption::Sandbox => Outcome::failed(
            "claude refuses `--sandbox` and `--no-sandbox`: a sandbox is a matter of its settings",
            "remove it from `command` in config.yaml, restart the bot, and set `sandbox.enabled` in claude's settings",
        ),
    }
}

/// `claude` and its stand-ins know their version. Other programs need not, as long as they can be started.
fn judge_fault(program: &Path, invocation: Invocation, fault: &NotPrinted) -> Outcome {
    let shown = program.display();
    let remedy = format!(
        "`{shown} --version`, as the user who runs rcbot, tells more; if it misses another program, add that program's folder \
         to the PATH of the bot (under systemd: `Environment=PATH=` in the unit, and `systemctl daemon-reload`), and restart \
         the bot"
    );
    let knows_its_version = invocation == Invocation::Direct;
    match fault {
        NotPrinted::Failed(_) | NotPrinted::TooSlow if !knows_its_version => {
            Outcome::passed(format!("{shown}, version unknown"))
        }
        NotPrinted::NotStarted(_) | NotPrinted::Failed(_) => {
            Outcome::failed(format!("{shown} does not run ({fault})"), remedy)
        }
        NotPrinted::TooSlow => Outcome::warning(
            format!("{shown} did not print its version: {fault}"),
            remedy,
        ),
    }
}
