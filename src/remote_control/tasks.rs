//! Slow work, as tasks that report back: spawning a session's process, watching it, ending its tree.

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
    process::{self, Follower, Launch, NotSpawned, ProcessIdentity, ReadFrom, StopReport},
    project::{MAX_OUTPUT, Project, ProjectName, STOP_GRACE, StartOption},
    session::{Event, Session, SessionId},
    settings_file::digest_of,
    watch::{self, STDERR, STDIN, STDOUT},
};

/// The pause between two tries to write a record, or to end a process tree; the latter grows up to `LONGEST_RETRY`.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_mins(5);

/// A session's input may be secret.
const STDIN_MODE: u32 = 0o600;

#[derive(Debug)]
pub(super) struct Report {
    pub(super) project: ProjectName,
    pub(super) session: SessionId,
    /// The process that it is about. `None`: the session as a whole.
    pub(super) process: Option<ProcessIdentity>,
    pub(super) event: Event,
}

#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) name: ProjectName,
    /// As it was when the task began.
    pub(super) session: Session,
    /// `None`: the project left the configuration.
    pub(super) project: Option<Arc<Project>>,
    /// Where the files of the session are.
    pub(super) folder: PathBuf,
    pub(super) reports: mpsc::Sender<Report>,
}

/// How to spawn a process.
pub(super) struct Spawning {
    pub(super) host: String,
    /// Variables by which the process is recognised, besides the session's id.
    pub(super) marks: [(OsString, OsString); 2],
    /// Held while a process is being spawned: one that hangs occupies a thread, and no second one of the project may hang too.
    pub(super) spawn_lock: Arc<Mutex<()>>,
}

impl Task {
    /// Whether the project's `stdin` answers a question.
    pub(super) fn has_answer(&self) -> bool {
        let project = self.project.as_ref();
        project.is_some_and(|project| !project.settings.stdin.expose().trim().is_empty())
    }

    /// A follower of one of the session's output files.
    pub(super) fn follower(&self, file: &str, start: ReadFrom) -> Follower {
        let project = self.project.as_ref();
        let limit = project.map_or(MAX_OUTPUT, |project| project.settings.max_output);
        Follower::new(self.folder.join(file), start, limit)
    }

    /// Sends a report; waits while too many are queued. It is dropped if there is no owner: the record on disk has what the
    /// next owner needs.
    pub(super) async fn report(&self, event: Event) {
        let report = Report {
            project: self.name.clone(),
            session: self.session.id().clone(),
            process: self.session.process().cloned(),
            event,
        };
        drop(self.reports.send(report).await);
    }

    /// Spawns the process; reports `Spawned` or `NotSpawned`, the latter also if the time for the session's link is over
    /// before: entering a directory on a dead network file system blocks.
    pub(super) async fn spawn(self, spawning: Spawning) {
        let project = self.project.as_ref();
        let limit = project.map_or(RETRY_AFTER, |it| it.settings.link_timeout);
        let hangs = Event::NotSpawned(NotSpawned::Unresponsive {
            directory: project
                .map(|project| project.directory.display().to_string())
                .unwrap_or_default(),
        });
        // Held to the end: what is ended below is found by the session's id, which a successor would have too.
        let Ok(spawn_lock) = Arc::clone(&spawning.spawn_lock).try_lock_owned() else {
            return self.report(hangs).await;
        };
        let this = self.clone();
        let mut spawned = spawn_blocking(move || this.spawn_now(spawning));
        let Ok(spawned) = timeout(limit, &mut spawned).await else {
            self.report(hangs).await;
            // A process that still comes up belongs to no session.
            let late = spawned.await.ok().and_then(Result::ok);
            let report = self.end(late.as_ref()).await;
            return warn!(?report, "ended a session that was spawned too late");
        };
        let event = match spawned.unwrap_or_else(|panic| Err(other(&panic))) {
            Ok(process) => Event::Spawned(process),
            Err(reason) => {
                // A process that was started but cannot be identified must not stay.
                self.end(None).await;
                Event::NotSpawned(reason)
            }
        };
        // Before the report, which may cause another try.
        drop(spawn_lock);
        self.report(event).await;
    }

    fn spawn_now(self, spawning: Spawning) -> Result<ProcessIdentity, NotSpawned> {
        let project = self
            .project
            .ok_or_else(|| other(&"its project is no longer configured"))?;
        let settings = &project.settings;
        let stdin = self.folder.join(STDIN);
        write_private(&stdin, settings.stdin.expose().as_bytes()).map_err(|error| other(&error))?;
        // The settings may have changed since the first start.
        let start = settings.complete(self.session.start());
        settings.level(&start).map_err(|option| {
            let value = start.options.get(option).unwrap_or_default();
            other(&format!(
                "the configuration does not allow {option} {value} any more"
            ))
        })?;
        let file = settings.settings.as_deref();
        let digest = file.map(|path| digest_of(path, |user| user == geteuid().as_raw()));
        let digest = digest.transpose();
        let digest = digest.map_err(|error| other(&in_full(&error)))?;
        let id = self.session.id().as_str();
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
        // For each start, automatic ones included.
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
        // No watcher reads output after the leader's end, nor that of a tree that was being ended when the bot was restarted.
        let followers = [STDOUT, STDERR].map(|file| self.follower(file, ReadFrom::Latest));
        let _followers: JoinSet<_> = followers.into_iter().map(watch::keep_small).collect();
        let report = self.end(self.session.process()).await;
        self.report(Event::TreeGone(report)).await;
    }

    /// Ends all processes with the mark of a session without a record.
    pub(super) async fn end_stray(self) {
        let report = self.end(self.session.process()).await;
        warn!(?report, "ended processes of a session without a record");
    }

    /// Ends all processes of the session. If some cannot be ended it reports that once and retries silently: they may run as
    /// another user, or hang in the kernel, and still end one day.
    async fn end(&self, leader: Option<&ProcessIdentity>) -> StopReport {
        let project = self.project.as_ref();
        let mut grace = project.map_or(STOP_GRACE, |project| project.settings.stop_grace);
        let (mut pause, mut is_reported) = (RETRY_AFTER, false);
        let mark = (SESSION_ID_VARIABLE, self.session.id().as_str());
        let report = loop {
            let error = match process::stop(leader, mark, grace).await {
                Ok(report) => break report,
                Err(error) => error,
            };
            if is_reported {
                debug!(%error, "process tree still not ended");
            } else {
                error!(%error, "process tree not ended, trying again");
                self.report(Event::NotEnded(in_full(&error))).await;
            }
            (grace, is_reported) = (Duration::ZERO, true);
            sleep(pause).await;
            pause = pause.saturating_mul(2).min(LONGEST_RETRY);
        };
        // A child that ended stays a zombie until it is reaped: without a watcher, that is done here.
        if let Some(leader) = leader
            && let Err(error) = process::exited(leader).await
        {
            error!(%error, "cannot watch for the end of the process");
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

/// Not synced, as the process reads it at once.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true);
    // This may block, on a file system that does not respond or at a FIFO: the time limit of the spawn bounds that.
    options.mode(STDIN_MODE).open(path)?.write_all(bytes)
}
