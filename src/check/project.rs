//! A project: its directory, its program, and what `claude` must have been told before it serves there.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::fs::{Access, access};

use super::{
    Outcome, Report,
    command::{Commands, Versions},
    process::BotProcess,
};
use crate::{
    config::{Config, usable_directory},
    remote_control::{
        Cause, Project, SESSION_ID_VARIABLE,
        claude::{
            self, WAY_OUT,
            prerequisites::{self, ClaudeFiles, ClaudeState},
        },
    },
};

pub(super) async fn look(report: &mut Report, config: &Config, bot: &BotProcess) {
    let mut versions = Versions::new();
    for project in config.projects.values() {
        let site = Site::new(&project.project, bot);
        let mut add =
            |what: &str, outcome| report.add(format!("{}: {what}", site.project.name), outcome);
        let directory = site.directory();
        let can_be_entered = matches!(directory, Outcome::Passed { .. });
        add("directory", directory);
        if can_be_entered {
            for (name, outcome) in site.commands().judge(&mut versions).await {
                add(name, outcome);
            }
        } else {
            add("command", Outcome::skipped("the directory cannot be used"));
        }
        if !site.runs_remote_control() {
            add(
                "claude",
                Outcome::skipped("its `command` does not name `remote-control`"),
            );
            continue;
        }
        add("variables", site.variables(bot));
        add("log-in", site.log_in());
        add("workspace trust", site.trust());
        add("consent", site.consent());
    }
}

/// A project, and the environment that its sessions get.
struct Site<'a> {
    project: &'a Project,
    environment: BTreeMap<OsString, OsString>,
    files: Option<ClaudeFiles>,
    /// Without symbolic links.
    directory: PathBuf,
}

/// A variable of a session. It has no `Debug`, as the value may be secret.
struct Variable {
    name: String,
    value: String,
    /// Where it is set.
    place: String,
}

impl<'a> Site<'a> {
    fn new(project: &'a Project, bot: &BotProcess) -> Self {
        let ours = bot.environment.clone();
        let mut environment = claude::environment(ours, &project.environment, "");
        // None of what is run here is a session.
        environment.remove(OsStr::new(SESSION_ID_VARIABLE));
        let directory = project.directory.canonicalize();
        let directory = directory.unwrap_or_else(|_| project.directory.clone());
        Self {
            project,
            files: ClaudeFiles::of(&environment, &directory),
            environment,
            directory,
        }
    }

    fn commands(&self) -> Commands<'_> {
        Commands {
            project: self.project,
            environment: &self.environment,
            directory: &self.directory,
        }
    }

    fn directory(&self) -> Outcome {
        let path = &self.project.directory;
        let remedy = "let the user who runs rcbot enter it";
        if let Err(why) = usable_directory(path) {
            return Outcome::failed(
                why,
                format!(
                    "bring it back, or change `projects.{}.directory` in config.yaml and start the bot again",
                    self.project.name
                ),
            );
        }
        match access(path, Access::EXEC_OK | Access::READ_OK) {
            Ok(()) => Outcome::passed(path.display().to_string()),
            Err(error) => {
                let error = io::Error::from(error);
                Outcome::failed(
                    format!("{} cannot be used ({error})", path.display()),
                    remedy,
                )
            }
        }
    }

    fn runs_remote_control(&self) -> bool {
        self.project
            .command
            .iter()
            .any(|word| word.contains("remote-control"))
    }

    fn variables(&self, bot: &BotProcess) -> Outcome {
        let (all, unread) = self.all_variables();
        let is_culprit =
            |variable: &&Variable| prerequisites::switches_off(&variable.name, &variable.value);
        let culprits: Vec<_> = all.iter().filter(is_culprit).collect();
        if culprits.is_empty() {
            return unread.unwrap_or_else(|| self.way_out(bot, &all));
        }
        let list = |preposition: &str| {
            let list = culprits
                .iter()
                .map(|Variable { name, place, .. }| format!("{name} {preposition} {place}"));
            list.collect::<Vec<_>>().join(" and ")
        };
        Outcome::failed(
            format!("Remote Control is switched off by {}", list("in")),
            format!("remove {}, and start the bot again", list("from")),
        )
    }

    /// The variables of a session, and of which settings that cannot be told.
    fn all_variables(&self) -> (Vec<Variable>, Option<Outcome>) {
        let of_environment = self.environment.iter().filter_map(|(name, value)| {
            Some(Variable {
                name: name.to_str()?.to_owned(),
                value: value.to_string_lossy().into_owned(),
                place: "`environment` in config.yaml".to_owned(),
            })
        });
        let mut all: Vec<_> = of_environment.collect();
        let mut unread = None;
        for file in self.files.iter().flat_map(|files| &files.settings) {
            let place = format!("`env` in {}", file.display());
            match fs::read_to_string(file) {
                Ok(text) => {
                    let of_settings = prerequisites::variables_in_settings(&text).into_iter();
                    all.extend(of_settings.map(|(name, value)| Variable {
                        name,
                        value,
                        place: place.clone(),
                    }));
                }
                Err(error) if is_missing(&error) => {}
                Err(error) => unread = Some(unreadable_settings(file, &error)),
            }
        }
        (all, unread)
    }

    /// What the host tells the bot of the way to the network has to be told to the sessions as well.
    fn way_out(&self, bot: &BotProcess, all: &[Variable]) -> Outcome {
        let bot_has = |wanted: &str| {
            bot.environment.iter().any(|(name, value)| {
                name.eq_ignore_ascii_case(OsStr::new(wanted)) && !value.is_empty()
            })
        };
        let session_has = |wanted: &str| {
            all.iter().any(|variable| {
                variable.name.eq_ignore_ascii_case(wanted) && !variable.value.is_empty()
            })
        };
        let missing = WAY_OUT
            .into_iter()
            .filter(|name| bot_has(name) && !session_has(name));
        let missing = missing.collect::<Vec<_>>().join(", ");
        if missing.is_empty() {
            return Outcome::passed("none that switches Remote Control off");
        }
        Outcome::warning(
            format!("set for the bot, and not for its sessions: {missing}"),
            format!(
                "if claude needs that to reach its service, add {missing} under `projects.{}.environment` in config.yaml, and \
                 start the bot again",
                self.project.name
            ),
        )
    }

    fn log_in(&self) -> Outcome {
        let Some(files) = &self.files else {
            return no_home();
        };
        let verdict = match fs::read_to_string(&files.credentials) {
            Ok(text) => prerequisites::log_in(&text, SystemTime::now()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Cause::NotLoggedIn),
            Err(error) => return unreadable(&files.credentials, &error),
        };
        match verdict {
            Ok(()) => {
                let account = self
                    .state()
                    .ok()
                    .and_then(|state| state.account().map(str::to_owned));
                let account = account
                    .map(|account| format!(" as {account}"))
                    .unwrap_or_default();
                Outcome::passed(format!("logged in{account}"))
            }
            Err(cause) => Outcome::failed(cause.what(), cause.remedy()),
        }
    }

    fn trust(&self) -> Outcome {
        let home = self.environment.get(OsStr::new("HOME"));
        if home.is_some_and(|home| {
            Path::new(home)
                .canonicalize()
                .is_ok_and(|home| home == self.directory)
        }) {
            return Outcome::failed(
                "claude never trusts a home directory",
                format!(
                    "set `projects.{}.directory` in config.yaml to another directory, and start the bot again",
                    self.project.name
                ),
            );
        }
        match self.state() {
            Err(outcome) => outcome,
            Ok(state) if state.trusts(&self.directory) => Outcome::passed("given"),
            Ok(_) => Outcome::failed(
                Cause::WorkspaceNotTrusted.what(),
                format!(
                    "run `claude` once in {}, as the user that the bot runs as, and accept the question",
                    self.directory.display()
                ),
            ),
        }
    }

    fn consent(&self) -> Outcome {
        let answers = self.project.stdin.to_lowercase().starts_with('y');
        match self.state() {
            Err(outcome) => outcome,
            Ok(state) if state.was_asked_for_consent() => Outcome::passed("given"),
            Ok(_) if answers => Outcome::passed("`stdin` answers the question"),
            Ok(_) => Outcome::failed(
                "claude asks once whether it may enable Remote Control, and nobody answers",
                format!(
                    "{} in config.yaml, and start the bot again",
                    Cause::ConsentAsked.remedy()
                ),
            ),
        }
    }

    fn state(&self) -> Result<ClaudeState, Outcome> {
        let files = self.files.as_ref().ok_or_else(no_home)?;
        let [first, second] = &files.state;
        let file = if first.exists() { first } else { second };
        match fs::read_to_string(file) {
            Ok(text) => ClaudeState::parse(&text).map_err(|error| unreadable(file, &error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(ClaudeState::default()),
            Err(error) => Err(unreadable(file, &error)),
        }
    }
}

fn no_home() -> Outcome {
    Outcome::failed(
        "HOME is not set, so claude does not find its files",
        "set it for the bot, or under `environment` in config.yaml",
    )
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// It could switch Remote Control off.
fn unreadable_settings(file: &Path, error: &io::Error) -> Outcome {
    Outcome::failed(
        format!("{} cannot be read ({error})", file.display()),
        "make it a file that the user who runs rcbot may read, or remove it; and run `rcbot check` as that user",
    )
}

fn unreadable(file: &Path, error: &io::Error) -> Outcome {
    Outcome::failed(
        format!("{} cannot be read ({error})", file.display()),
        "run `claude` once as the user who runs rcbot, and `rcbot check` as the same user",
    )
}
