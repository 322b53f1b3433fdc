//! What is slow, as tasks that report back: making a session's process, watching it, ending its tree.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::process::geteuid;
use tokio::{
    sync::{Mutex, mpsc},
    task::{JoinSet, spawn_blocking},
    time::{sleep, timeout},
};
use tracing::{debug, error, info, warn};

use super::{
    SESSION_ID_VARIABLE, claude,
    options::{Start, StartOption},
    process::{self, Launch, NotSpawned, ProcessIdentity, StopReport},
    project::{MAX_OUTPUT, Project, ProjectName, STOP_GRACE},
    session::{Event, SessionId},
    settings_file::digest_of,
    watch::{self, STDERR, STDIN, STDOUT},
};

/// How long between two tries to write a record, or to end a process that would not end; the latter grows to the other.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_mins(5);

/// What a session reads may be a secret.
const STDIN_MODE: u32 = 0o600;

/// What a task has seen.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) project: ProjectName,
    pub(super) session: SessionId,
    /// The process that it was seen of. `None`: it is of the session as a whole.
    pub(super) process: Option<ProcessIdentity>,
    pub(super) event: Event,
}

/// Something to do for a session.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) name: ProjectName,
    pub(super) session: SessionId,
    /// `None`: it is yet to be made, or not known.
    pub(super) process: Option<ProcessIdentity>,
    /// `None`: it left the configuration.
    pub(super) project: Option<Arc<Project>>,
    /// Where the files of the session are.
    pub(super) folder: PathBuf,
    pub(super) reports: mpsc::Sender<Report>,
}

/// How to make a process.
pub(super) struct Spawning {
    pub(super) start: Start,
    /// The name of this host.
    pub(super) host: String,
    /// What the process is recognised by, besides the session's id.
    pub(super) marks: [(OsString, OsString); 2],
    /// Held while a process is being made: one that hangs keeps a thread, and no second one of the project is to hang too.
    pub(super) turn: Arc<Mutex<()>>,
}

impl Task {
    /// Whether the project's `stdin` answers a question.
    pub(super) fn has_answer(&self) -> bool {
        let project = self.project.as_ref();
        project.is_some_and(|project| !project.settings.stdin.expose().trim().is_empty())
    }

    /// Reports, and waits while too many reports wait. Without an owner there is nobody to tell: the record on disk has
    /// what the next owner needs.
    pub(super) async fn report(&self, event: Event) {
        let report = Report {
            project: self.name.clone(),
            session: self.session.clone(),
            process: self.process.clone(),
            event,
        };
        drop(self.reports.send(report).await);
    }

    /// Makes the process; reports `Spawned` or `NotSpawned`, the latter also where nothing answers in the time that the session
    /// has for its link: a directory on a dead network file system blocks whoever enters it.
    pub(super) async fn spawn(self, spawning: Spawning) {
        let project = self.project.as_ref();
        let limit = project.map_or(RETRY_AFTER, |it| it.settings.link_timeout);
        let hangs = Event::NotSpawned(NotSpawned::Unresponsive {
            directory: project
                .map(|project| project.directory.display().to_string())
                .unwrap_or_default(),
        });
        // To the end: what is ended below would be a successor's as well, by the session's id.
        let Ok(turn) = Arc::clone(&spawning.turn).try_lock_owned() else {
            return self.report(hangs).await;
        };
        let this = self.clone();
        let mut spawned = spawn_blocking(move || this.spawn_now(spawning));
        let Ok(spawned) = timeout(limit, &mut spawned).await else {
            self.report(hangs).await;
            // What comes of it after all is nobody's.
            let late = spawned.await.ok().and_then(Result::ok);
            let report = self.end(late.as_ref()).await;
            return warn!(?report, "a session that came too late is ended");
        };
        let event = match spawned.unwrap_or_else(|panic| Err(other(&panic))) {
            Ok(process) => Event::Spawned(process),
            Err(reason) => {
                // What was started and could not be looked at must not stay.
                self.end(None).await;
                Event::NotSpawned(reason)
            }
        };
        // Before anybody hears of it and tries again.
        drop(turn);
        self.report(event).await;
    }

    fn spawn_now(self, spawning: Spawning) -> Result<ProcessIdentity, NotSpawned> {
        let project = self
            .project
            .ok_or_else(|| other(&"its project is no longer configured"))?;
        let settings = &project.settings;
        let stdin = self.folder.join(STDIN);
        write_private(&stdin, settings.stdin.expose().as_bytes()).map_err(|error| other(&error))?;
        // The settings may be others than when it was started first.
        let start = settings.complete(&spawning.start);
        settings.level(&start).map_err(|option| {
            let value = start.options.get(option).unwrap_or_default();
            other(&format!(
                "the configuration does not allow {option} {value} any more"
            ))
        })?;
        let file = settings.settings.as_deref();
        let digest = file.map(|path| digest_of(path, |user| user == geteuid().as_raw()));
        let digest = digest
            .transpose()
            .map_err(|error| other(&in_full(&error)))?;
        let id = self.session.as_str();
        let file = file.map(|path| path.to_string_lossy().into_owned());
        let mut values = vec![
            ("project", Some(self.name.as_str())),
            ("host", Some(&spawning.host)),
            ("id", Some(id)),
            ("settings", file.as_deref()),
        ];
        values.extend(StartOption::ALL.map(|option| (option.name(), start.options.get(option))));
        let words = claude::fill_in(settings.command_for(start.beginning), &values);
        let mut words = words.into_iter();
        let mut environment = claude::environment(std::env::vars_os(), &settings.environment, id);
        environment.extend(spawning.marks);
        let process = process::spawn(&Launch {
            program: words.next().ok_or_else(|| other(&"the command is empty"))?,
            arguments: words.collect(),
            directory: project.directory.clone(),
            follows_links: !project.is_found,
            environment,
            stdin,
            stdout: self.folder.join(STDOUT),
            stderr: self.folder.join(STDERR),
            mark: id.to_owned(),
        })?;
        // Of each start, those included that nobody asked for.
        info!(
            target: "audit",
            project = self.name.as_str(),
            session = id,
            mode = start.options.mode,
            spawn = start.options.spawn,
            settings = digest,
            "session process started"
        );
        Ok(process)
    }

    /// Ends the process tree, however long it takes; reports `TreeGone`.
    pub(super) async fn end_tree(self) {
        let project = self.project.as_ref();
        let max_output = project.map_or(MAX_OUTPUT, |project| project.settings.max_output);
        // Nobody watches what prints on after the leader's end, or was being ended when the bot was restarted.
        let files = [STDOUT, STDERR].map(|file| self.folder.join(file));
        let _followers: JoinSet<_> = files
            .into_iter()
            .map(|file| watch::keep_small(file, max_output))
            .collect();
        let report = self.end(self.process.as_ref()).await;
        self.report(Event::TreeGone(report)).await;
    }

    /// Ends whatever carries the mark of a session that no record knows.
    pub(super) async fn end_stray(self) {
        let report = self.end(self.process.as_ref()).await;
        warn!(?report, "ended processes of a session that no record knows");
    }

    /// Ends all processes of the session. Where some cannot be ended it reports so once, and goes on trying quietly: they may run
    /// as another user, or hang in the kernel, and still end one day.
    async fn end(&self, leader: Option<&ProcessIdentity>) -> StopReport {
        let project = self.project.as_ref();
        let mut grace = project.map_or(STOP_GRACE, |project| project.settings.stop_grace);
        let (mut pause, mut is_told) = (RETRY_AFTER, false);
        let mark = (SESSION_ID_VARIABLE, self.session.as_str());
        let report = loop {
            let error = match process::stop(leader, mark, grace).await {
                Ok(report) => break report,
                Err(error) => error,
            };
            if is_told {
                debug!(%error, "process tree still not ended");
            } else {
                error!(%error, "process tree not ended, trying again");
                self.report(Event::NotEnded(in_full(&error))).await;
            }
            (grace, is_told) = (Duration::ZERO, true);
            sleep(pause).await;
            pause = pause.saturating_mul(2).min(LONGEST_RETRY);
        };
        // A child that ended stays a zombie until somebody asks how: where nobody watched it, it is asked here.
        if let Some(leader) = leader
            && let Err(error) = process::exited(leader).await
        {
            error!(%error, "end of the process not seen");
        }
        report
    }
}

fn other(reason: &dyn std::fmt::Display) -> NotSpawned {
    NotSpawned::Other {
        reason: reason.to_string(),
    }
}

/// An error and what caused it, in one line.
fn in_full(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Not for good, as the process reads it at once.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true);
    // It may wait, on a file system that does not answer or at a FIFO: the time for the spawning bounds that.
    options.mode(STDIN_MODE).open(path)?.write_all(bytes)
}
