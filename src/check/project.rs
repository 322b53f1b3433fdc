//! A project: its directory, its program, and what `claude` must have been told before it serves there.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::{
    fs::{Access, access},
    io::Errno,
};

use super::{
    Outcome, Report,
    claude::{Environment, Versions},
    trust,
    vantage::Vantage,
};
use crate::{
    config::{Config, usable_directory},
    remote_control::{
        Cause, Project, SESSION_ID_VARIABLE,
        claude::{
            self, Invocation, WAY_OUT,
            prerequisites::{
                self, ClaudeFiles, ClaudeSettings, ClaudeState, Hindrance, MANAGED_FOLDER,
            },
        },
    },
};

pub(super) async fn look(report: &mut Report, config: &Config, vantage: &Vantage) {
    let mut versions = Versions::new();
    for project in config.projects.values() {
        let site = Site::new(&project.project, vantage);
        let mut add =
            |what: &str, outcome| report.add(format!("{}: {what}", site.project.name), outcome);
        let directory = site.judge_directory();
        let is_usable = matches!(directory, Outcome::Passed { .. });
        add("directory", directory);
        let unusable = || Outcome::skipped("the directory cannot be used");
        let settings = &site.project.settings;
        let (start, resume) = (&settings.command, &settings.resume_command);
        if !is_usable {
            add("command", unusable());
        } else if start.first() == resume.first() {
            add("command", site.command(start, resume, &mut versions).await);
        } else {
            add("command", site.command(start, start, &mut versions).await);
            add(
                "resume command",
                site.command(resume, resume, &mut versions).await,
            );
        }
        if !Invocation::of(start).serves() {
            let because = "its `command` does not name `remote-control`";
            add("claude", Outcome::skipped(because));
            continue;
        }
        add(
            "variables",
            if is_usable {
                site.variables()
            } else {
                unusable()
            },
        );
        add("log-in", site.log_in());
        add(
            "workspace trust",
            if is_usable { site.trust() } else { unusable() },
        );
        add("consent", site.consent());
    }
}

/// A project, and the environment that its sessions get.
pub(super) struct Site<'a> {
    pub(super) project: &'a Project,
    pub(super) vantage: &'a Vantage,
    pub(super) environment: Environment,
    files: Option<ClaudeFiles>,
    /// Without symbolic links.
    pub(super) directory: PathBuf,
}

/// What the environment of a session and claude's settings say.
#[derive(Default)]
struct Said {
    variables: Vec<Variable>,
    /// Keys of settings that switch Remote Control off, and where they stand.
    switches: Vec<(String, String)>,
    /// Which settings cannot be told.
    unread: Option<Outcome>,
}

/// A variable of a session. It has no `Debug`, as the value may be secret.
struct Variable {
    name: String,
    value: String,
    /// Where it is set.
    place: String,
}

impl<'a> Site<'a> {
    fn new(project: &'a Project, vantage: &'a Vantage) -> Self {
        let ours = vantage.environment.clone();
        let mut environment = claude::environment(ours, &project.settings.environment, "");
        // None of what is run here is a session.
        environment.remove(OsStr::new(SESSION_ID_VARIABLE));
        let directory = project.directory.canonicalize();
        let directory = directory.unwrap_or_else(|_| project.directory.clone());
        Self {
            project,
            vantage,
            files: ClaudeFiles::of(&environment, &directory),
            environment,
            directory,
        }
    }

    fn judge_directory(&self) -> Outcome {
        let path = &self.project.directory;
        let elsewhere = format!(
            "or change `projects.{}.directory` in config.yaml and restart the bot",
            self.project.name
        );
        let may_enter = access(path, Access::EXEC_OK | Access::READ_OK);
        if let Err(error @ Errno::ACCESS) = may_enter {
            return Outcome::failed(
                format!(
                    "{} is closed to us ({})",
                    path.display(),
                    io::Error::from(error)
                ),
                format!("let the user who runs rcbot enter and read it, {elsewhere}"),
            );
        }
        match usable_directory(path) {
            Ok(()) => Outcome::passed(path.display().to_string()),
            Err(why) => Outcome::failed(why, format!("bring it back, {elsewhere}")),
        }
    }

    fn variables(&self) -> Outcome {
        let said = self.said();
        let kept_off_by = |wanted: Hindrance| {
            let variables = said.variables.iter();
            let found = variables
                .filter(move |one| prerequisites::hindrance(&one.name, &one.value) == wanted);
            found.map(|one| (one.name.clone(), one.place.clone()))
        };
        let list = |all: &[(String, String)], preposition: &str| {
            let list = all.iter();
            let list = list.map(|(name, place)| format!("{name} {preposition} {place}"));
            list.collect::<Vec<_>>().join(" and ")
        };
        let remove =
            |all: &[(String, String)]| format!("remove {}, and restart the bot", list(all, "from"));
        let refused: Vec<_> = kept_off_by(Hindrance::All)
            .chain(said.switches.clone())
            .collect();
        if !refused.is_empty() {
            return Outcome::failed(
                format!("Remote Control is switched off by {}", list(&refused, "in")),
                remove(&refused),
            );
        }
        if let Some(unread) = said.unread {
            return unread;
        }
        let doubtful: Vec<_> = kept_off_by(Hindrance::Old).collect();
        if !doubtful.is_empty() {
            return Outcome::warning(
                format!(
                    "a claude before 2.1.288, or an account with Trusted Devices, does not serve with {}",
                    list(&doubtful, "in")
                ),
                remove(&doubtful),
            );
        }
        self.way_out(&said.variables)
    }

    fn said(&self) -> Said {
        let of_environment = self.environment.iter().filter_map(|(name, value)| {
            Some(Variable {
                name: name.to_str()?.to_owned(),
                value: value.to_string_lossy().into_owned(),
                place: "`environment` in config.yaml".to_owned(),
            })
        });
        let mut said = Said {
            variables: of_environment.collect(),
            ..Said::default()
        };
        let files = self.files.iter().flat_map(|files| files.settings.clone());
        for file in files.chain(managed_files()) {
            match fs::read_to_string(&file) {
                Ok(text) => {
                    let is_of_project = file.parent() == Some(&self.directory.join(".claude"));
                    let ClaudeSettings {
                        variables,
                        switches,
                    } = ClaudeSettings::parse(&text, is_of_project);
                    let place = format!("`env` in {}", file.display());
                    said.variables
                        .extend(variables.into_iter().map(|(name, value)| {
                            let place = place.clone();
                            Variable { name, value, place }
                        }));
                    let file = file.display().to_string();
                    let switches = switches.into_iter();
                    let switches = switches.map(|key| (format!("`{key}`"), file.clone()));
                    said.switches.extend(switches);
                }
                Err(error) if is_missing(&error) => {}
                // It could switch Remote Control off.
                Err(error) => said.unread = Some(unreadable(&file, &error, "or remove it")),
            }
        }
        said
    }

    /// What the host tells the bot of the way to the network has to be told to the sessions as well.
    fn way_out(&self, all: &[Variable]) -> Outcome {
        let bot_has = |wanted: &str| {
            self.vantage.environment.iter().any(|(name, value)| {
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
            Err(error) => return unreadable(&files.credentials, &error, LOG_IN),
        };
        match (verdict, self.state()) {
            (Err(cause), _) => Outcome::failed(cause.what(), cause.remedy()),
            (Ok(()), Ok(state)) if !state.has_account() => Outcome::failed(
                format!(
                    "claude has a token and not the account that it is of (`oauthAccount` in {}), as where only the token was \
                     copied",
                    state_file(files).display()
                ),
                Cause::NotLoggedIn.remedy(),
            ),
            (Ok(()), state) => {
                let state = state.ok();
                let account = state.as_ref().and_then(ClaudeState::account);
                let account = account.map(|account| format!(" as {account}"));
                Outcome::passed(format!("logged in{}", account.unwrap_or_default()))
            }
        }
    }

    fn trust(&self) -> Outcome {
        let home = self.environment.get(OsStr::new("HOME"));
        let home = home.and_then(|home| Path::new(home).canonicalize().ok());
        if home.as_ref() == Some(&self.directory) {
            return Outcome::failed(
                "claude never trusts a home directory",
                format!(
                    "set `projects.{}.directory` in config.yaml to another directory, and restart the bot",
                    self.project.name
                ),
            );
        }
        let places = trust::places(&self.directory, home.as_deref());
        match self.state() {
            Err(outcome) => outcome,
            Ok(state) if places.iter().any(|place| state.trusts(place)) => Outcome::passed("given"),
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
        let answers = self
            .project
            .settings
            .stdin
            .expose()
            .to_lowercase()
            .starts_with('y');
        match self.state() {
            Err(outcome) => outcome,
            Ok(state) if state.was_asked_for_consent() => Outcome::passed("given"),
            Ok(_) if answers => Outcome::passed("`stdin` answers the question"),
            Ok(_) => Outcome::failed(
                "claude asks once whether it may enable Remote Control, and nobody answers",
                format!(
                    "{} in config.yaml, and restart the bot",
                    Cause::ConsentAsked.remedy()
                ),
            ),
        }
    }

    fn state(&self) -> Result<ClaudeState, Outcome> {
        let file = state_file(self.files.as_ref().ok_or_else(no_home)?);
        match fs::read_to_string(file) {
            Ok(text) => {
                ClaudeState::parse(&text).map_err(|error| unreadable(file, &error.into(), LOG_IN))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(ClaudeState::default()),
            Err(error) => Err(unreadable(file, &error, LOG_IN)),
        }
    }
}

/// The one that claude reads, or would write.
fn state_file(files: &ClaudeFiles) -> &Path {
    let [first, second] = &files.state;
    if first.exists() { first } else { second }
}

/// More settings of the organisation's.
fn managed_files() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(MANAGED_FOLDER).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    files.filter(|file| file.extension() == Some(OsStr::new("json")))
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

/// What claude does about a file of its own that makes no sense.
const LOG_IN: &str = "or run `claude` once, as the user who runs rcbot, which writes it anew";

/// A file of claude's that cannot be read, and what else can be done about it than to open it.
fn unreadable(file: &Path, error: &io::Error, otherwise: &str) -> Outcome {
    // The organisation's settings under /etc stay root's: whose they are decides whom claude obeys.
    let is_of_root =
        !file.starts_with("/etc") && fs::metadata(file).is_ok_and(|metadata| metadata.uid() == 0);
    let remedy = if error.kind() != io::ErrorKind::PermissionDenied {
        format!("repair it, {otherwise}")
    } else if is_of_root {
        format!(
            "`sudo chown {} {}`",
            rustix::process::geteuid().as_raw(),
            file.display()
        )
    } else {
        "let the user who runs rcbot read it".to_owned()
    };
    Outcome::failed(
        format!("{} cannot be read ({error})", file.display()),
        remedy,
    )
}
