//! What is slow, as tasks that report back: making a process, watching it, ending its tree.

use std::{
    collections::HashMap,
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt as _;
use tokio::{
    sync::{Mutex, mpsc},
    task::{AbortHandle, JoinSet, spawn_blocking},
    time::{sleep, timeout},
};
use tracing::{Instrument as _, debug, error, info_span, warn};

use super::{
    Happened, What, claude,
    process::{self, Launch, NotSpawned, ProcessIdentity, StopError, StopReport},
    project::{MAX_OUTPUT, Project, ProjectName, STOP_GRACE},
    session::{Beginning, Event, Moment, Session, SessionId, State},
    store::StoreError,
    watch::{self, Watch},
};
/// How many reports may wait for the owner before tasks wait for it.
const REPORTS_WAITING: usize = 256;

/// How long between two tries to write a record, or to end a process that would not end; the latter grows to the other.
const RETRY_AFTER: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_mins(5);

/// What a session reads may be a secret.
const STDIN_MODE: u32 = 0o600;

/// The folder of a project's record, and the name of the folder that all of them are in.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) data_directory: String,
}

/// Running tasks. Dropping it ends the tasks and leaves the processes.
#[derive(Debug)]
pub(super) struct Tasks {
    host: String,
    reports: mpsc::Sender<Happened>,
    running: JoinSet<()>,
    /// The uptime at which each session is woken.
    timers: HashMap<ProjectName, (Duration, AbortHandle)>,
    /// Held while a process is being made: one that hangs keeps a thread, and no second one of the project is to hang too.
    spawning: HashMap<ProjectName, Arc<Mutex<()>>>,
}

/// The folder of a session's record, in the environment of its processes: with it they are found again even if the record
/// is lost.
pub const SESSION_FOLDER_VARIABLE: &str = "RCBOT_SESSION_FOLDER";

/// The random name of the folder of records, likewise: a path alone can be another folder's too, in another mount namespace.
pub const DATA_DIRECTORY_VARIABLE: &str = "RCBOT_DATA_DIRECTORY";

/// The present moment. A kernel that does not tell its uptime has none of the other facilities needed here either.
pub(super) fn now() -> Moment {
    let uptime = process::since_boot().unwrap_or_else(|error| {
        error!(%error, "uptime unknown");
        Duration::ZERO
    });
    Moment {
        wall: SystemTime::now(),
        uptime,
    }
}

/// How one session's tasks report.
#[derive(Debug, Clone)]
pub(super) struct Reporter {
    project: ProjectName,
    session: SessionId,
    /// The process that they look at, where they look at one.
    process: Option<ProcessIdentity>,
    reports: mpsc::Sender<Happened>,
}

impl Reporter {
    /// Reports, and waits while too many reports wait. Without an owner there is nobody to tell: the record on disk has
    /// what the next owner needs.
    pub(super) async fn report(&self, event: Event) {
        let what = What::Session {
            project: self.project.clone(),
            session: self.session.clone(),
            process: self.process.clone(),
            event,
        };
        drop(self.reports.send(Happened(what)).await);
    }

    async fn report_not_ended(&self, error: StopError) {
        let what = What::NotEnded {
            project: self.project.clone(),
            session: self.session.clone(),
            error,
        };
        drop(self.reports.send(Happened(what)).await);
    }
}

impl Tasks {
    pub(super) fn new(host: String) -> (Self, mpsc::Receiver<Happened>) {
        let (reports, happened) = mpsc::channel(REPORTS_WAITING);
        (
            Self {
                host,
                reports,
                running: JoinSet::new(),
                timers: HashMap::new(),
                spawning: HashMap::new(),
            },
            happened,
        )
    }

    /// Makes the process of a session; reports `Spawned` or `NotSpawned`, the latter also where nothing answers in the time that
    /// the session has for its link: a directory on a dead network file system blocks whoever enters it.
    pub(super) fn spawn_process(
        &mut self,
        name: &ProjectName,
        session: &Session,
        project: Option<Arc<Project>>,
        folder: Result<Folder, StoreError>,
    ) {
        let reporter = self.reporter(name, session.id());
        let beginning = session.beginning();
        let (host, session) = (self.host.clone(), session.id().clone());
        let mark = session.clone();
        let lock = Arc::clone(self.spawning.entry(name.clone()).or_default());
        let limit = project
            .as_ref()
            .map_or(RETRY_AFTER, |it| it.settings.link_timeout);
        let hangs = Event::NotSpawned(NotSpawned::Unresponsive {
            directory: directory_of(project.as_deref()),
        });
        self.run(name, &session.clone(), async move {
            let Ok(lock) = lock.try_lock_owned() else {
                return reporter.report(hangs).await;
            };
            // Handed back, as it is held to the end: what is ended below would be a successor's as well, by the session's id.
            let mut spawning = spawn_blocking(move || {
                let spawned = spawn(project.as_deref(), &session, beginning, &host, folder);
                (lock, spawned)
            });
            let Ok(spawned) = timeout(limit, &mut spawning).await else {
                reporter.report(hangs).await;
                // What comes of it after all is nobody's.
                let (_lock, late) = spawning.await.ok().unzip();
                let late = late.and_then(Result::ok);
                let report = end(late.as_ref(), &mark, STOP_GRACE, None).await;
                warn!(?report, "a session that came too late is ended");
                return reap(late.as_ref()).await;
            };
            let (lock, event) = match spawned {
                Ok((lock, Ok(process))) => (Some(lock), Event::Spawned(process)),
                Ok((lock, Err(reason))) => (Some(lock), Event::NotSpawned(reason)),
                Err(panic) => {
                    let reason = panic.to_string();
                    (None, Event::NotSpawned(NotSpawned::Other { reason }))
                }
            };
            if let Event::NotSpawned(_) = &event {
                // What was started and could not be looked at must not stay.
                end(None, &mark, STOP_GRACE, Some(&reporter)).await;
            }
            // Before anybody hears of it and tries again.
            drop(lock);
            reporter.report(event).await;
        });
    }

    /// Watches a process until it ends; reports its link, its end, and the end of its time.
    pub(super) fn watch(
        &mut self,
        name: &ProjectName,
        session: &Session,
        process: ProcessIdentity,
        project: Option<&Project>,
        folder: PathBuf,
    ) {
        let reporter = Reporter {
            process: Some(process.clone()),
            ..self.reporter(name, session.id())
        };
        let (deadline, link) = match session.state() {
            State::Starting { deadline, .. } => (Some(*deadline), None),
            State::Running { link, .. } => (None, Some(link.clone())),
            // There is nothing to wait for but the end.
            State::Spawning { .. } | State::Stopping { .. } | State::Resting { .. } => (None, None),
        };
        let watched = Watch {
            process,
            pattern: project.map(|project| project.settings.link_pattern.clone()),
            max_output: project.map_or(MAX_OUTPUT, |project| project.settings.max_output),
            deadline,
            link,
            folder,
        };
        self.run(name, session.id(), watch::watch(watched, reporter));
    }

    /// Ends a process tree, however long it takes; reports `TreeGone`, and first, where some of it cannot be ended, what.
    pub(super) fn end_tree(
        &mut self,
        name: &ProjectName,
        session: &SessionId,
        process: Option<ProcessIdentity>,
        project: Option<&Project>,
        folder: &Path,
    ) {
        let reporter = self.reporter(name, session);
        let grace = project.map_or(STOP_GRACE, |project| project.settings.stop_grace);
        let max_output = project.map_or(MAX_OUTPUT, |project| project.settings.max_output);
        let files = [watch::STDOUT, watch::STDERR].map(|file| folder.join(file));
        let mark = session.clone();
        self.run(name, session, async move {
            // Nobody watches what prints on after the leader's end, or was being ended when the bot was restarted.
            let files = files.into_iter();
            let _followers: JoinSet<_> = files
                .map(|file| watch::keep_small(file, max_output))
                .collect();
            let report = end(process.as_ref(), &mark, grace, Some(&reporter)).await;
            reap(process.as_ref()).await;
            reporter.report(Event::TreeGone(report)).await;
        });
    }

    /// Ends whatever carries the mark of a session that no record knows.
    pub(super) fn end_stray(
        &mut self,
        name: &ProjectName,
        session: SessionId,
        leader: ProcessIdentity,
    ) {
        let span = info_span!("stray", project = %name, %session);
        let task = async move {
            let report = end(Some(&leader), &session, STOP_GRACE, None).await;
            warn!(?report, "ended processes of a session that no record knows");
        };
        self.spawn(task.instrument(span));
    }

    /// Sees to it that the session hears when its time has come; called whenever that may have changed.
    pub(super) fn wake(&mut self, name: &ProjectName, session: Option<&Session>) {
        let due = session.and_then(|session| Some((session, session.next_wake()?)));
        let armed = self.timers.get(name).map(|(uptime, _)| *uptime);
        if armed == due.map(|(_, uptime)| uptime) {
            return;
        }
        if let Some((_, timer)) = self.timers.remove(name) {
            timer.abort();
        }
        let Some((session, uptime)) = due else { return };
        let reporter = self.reporter(name, session.id());
        let timer = self.spawn(async move {
            process::until(uptime).await;
            reporter.report(Event::TimeCame).await;
        });
        self.timers.insert(name.clone(), (uptime, timer));
    }

    /// Reminds the owner to write a record once more.
    pub(super) fn save_again_later(&mut self, project: &ProjectName) {
        let (project, reports) = (project.clone(), self.reports.clone());
        self.spawn(async move {
            sleep(RETRY_AFTER).await;
            drop(reports.send(Happened(What::SaveAgain { project })).await);
        });
    }

    fn reporter(&self, project: &ProjectName, session: &SessionId) -> Reporter {
        Reporter {
            project: project.clone(),
            session: session.clone(),
            process: None,
            reports: self.reports.clone(),
        }
    }

    fn run(
        &mut self,
        project: &ProjectName,
        session: &SessionId,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn(task.instrument(info_span!("session", %project, %session)));
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        // Tasks that ended are forgotten here, so that their number stays that of the sessions.
        while self.running.try_join_next().is_some() {}
        let reports = self.reports.clone();
        self.running.spawn(async move {
            // What a task leaves in the midst of its work is its own alone: it reports, and shares nothing.
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                drop(reports.send(Happened(What::Panicked)).await);
            }
        })
    }
}

/// Ends all processes of a session. Where some cannot be ended it says so once, and goes on trying quietly: they may run as
/// another user, or hang in the kernel, and still end one day.
async fn end(
    leader: Option<&ProcessIdentity>,
    session: &SessionId,
    mut grace: Duration,
    reporter: Option<&Reporter>,
) -> StopReport {
    let (mut pause, mut is_told) = (RETRY_AFTER, false);
    loop {
        let mark = (claude::SESSION_ID_VARIABLE, session.as_str());
        let error = match process::stop(leader, mark, grace).await {
            Ok(report) => return report,
            Err(error) => error,
        };
        if is_told {
            debug!(%error, "process tree still not ended");
        } else {
            error!(%error, "process tree not ended, trying again");
            if let Some(reporter) = reporter {
                reporter.report_not_ended(error).await;
            }
        }
        (grace, is_told) = (Duration::ZERO, true);
        sleep(pause).await;
        pause = pause.saturating_mul(2).min(LONGEST_RETRY);
    }
}

/// A child that ended stays a zombie until somebody asks how: where nobody watched it, it is asked here.
async fn reap(process: Option<&ProcessIdentity>) {
    if let Some(process) = process
        && let Err(error) = process::exited(process).await
    {
        error!(%error, "end of the process not seen");
    }
}

fn spawn(
    project: Option<&Project>,
    session: &SessionId,
    beginning: Beginning,
    host: &str,
    folder: Result<Folder, StoreError>,
) -> Result<ProcessIdentity, NotSpawned> {
    let other = |reason: String| NotSpawned::Other { reason };
    let project = project.ok_or_else(|| other("its project is no longer configured".to_owned()))?;
    let Folder {
        path: folder,
        data_directory,
    } = folder.map_err(|error| other(error.to_string()))?;
    let stdin = folder.join(watch::STDIN);
    write_private(&stdin, project.settings.stdin.expose().as_bytes())
        .map_err(|error| other(error.to_string()))?;
    let command = match beginning {
        Beginning::Fresh => &project.settings.command,
        Beginning::Resumed => &project.settings.resume_command,
    };
    let mut environment = claude::environment(
        std::env::vars_os(),
        &project.settings.environment,
        session.as_str(),
    );
    environment.insert(SESSION_FOLDER_VARIABLE.into(), folder.clone().into());
    environment.insert(DATA_DIRECTORY_VARIABLE.into(), data_directory.into());
    let values = [
        ("project", project.name.as_str()),
        ("host", host),
        ("id", session.as_str()),
    ];
    let mut words = claude::fill_in(command, values).into_iter();
    let launch = Launch {
        program: words
            .next()
            .ok_or_else(|| other("the command is empty".to_owned()))?,
        arguments: words.collect(),
        directory: project.directory.clone(),
        environment,
        stdin,
        stdout: folder.join(watch::STDOUT),
        stderr: folder.join(watch::STDERR),
        mark: session.to_string(),
    };
    process::spawn(&launch)
}

/// Not for good, as the process reads it at once.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true);
    // It may wait, on a file system that does not answer or at a FIFO: the time for the spawning bounds that.
    options.mode(STDIN_MODE).open(path)?.write_all(bytes)
}

fn directory_of(project: Option<&Project>) -> String {
    project
        .map(|project| project.directory.display().to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_reported_and_one_that_ends_is_not() {
        let (mut tasks, mut happened) = Tasks::new("host".to_owned());
        tasks.spawn(async {});
        tasks.spawn(async { panic!("as it must") });
        let report = timeout(Duration::from_secs(30), happened.recv()).await;
        assert!(matches!(report, Ok(Some(Happened(What::Panicked)))));
        tasks.spawn(async {});
        while tasks.running.join_next().await.is_some() {}
        assert!(happened.try_recv().is_err());
    }
}
