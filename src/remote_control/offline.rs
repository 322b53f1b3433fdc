//! Sessions without a running bot: what the records and the processes say, and how to end what runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use super::{
    SESSION_ID_VARIABLE, Status, StopReport, Terms,
    notice::Phase,
    process::{self, ProcessError, StopError},
    project::ProjectName,
    restore::Processes,
    session::{Restart, Session, SessionId},
    store::{Found, Record, Store, StoreError},
    tasks,
};

/// Why the sessions on this host cannot be told or ended.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The records cannot be used.
    #[error("the session records cannot be used")]
    Records(#[from] StoreError),
    /// The processes cannot be looked at.
    #[error("the processes of this host cannot be looked at")]
    Processes(#[from] ProcessError),
    /// Processes cannot be ended.
    #[error("the processes of {project} cannot be ended")]
    Stop {
        /// The project.
        project: ProjectName,
        /// Why.
        #[source]
        source: StopError,
    },
}

/// What is known of one project's session.
#[derive(Debug)]
pub enum Known {
    /// A record that makes sense.
    Record {
        /// What it says.
        status: Status,
        /// Whether processes of the session run.
        is_alive: bool,
    },
    /// Processes of a session, and no record of it that makes sense.
    Unrecorded {
        /// The project.
        project: ProjectName,
        /// The session.
        session: SessionId,
    },
    /// A record that makes no sense, and no processes.
    Unreadable {
        /// The project.
        project: ProjectName,
    },
}

impl Known {
    /// Whose session it is.
    #[must_use]
    pub fn project(&self) -> &ProjectName {
        match self {
            Self::Record { status, .. } => &status.project,
            Self::Unrecorded { project, .. } | Self::Unreadable { project } => project,
        }
    }

    /// Whether there is a session to end. One that was ended while no bot ran is on record until a bot has told of it.
    #[must_use]
    pub fn is_active(&self) -> bool {
        match self {
            Self::Record { status, is_alive } => {
                let phase = status.session.as_ref().map(|session| session.phase);
                *is_alive || phase.is_some_and(|phase| phase != Phase::Stopping)
            }
            Self::Unrecorded { .. } => true,
            Self::Unreadable { .. } => false,
        }
    }
}

/// What there is in this folder of records, and of processes that belong to it. Changes nothing, and may be called while a bot
/// runs.
///
/// # Errors
/// [`OfflineError`].
pub fn status(folder: &Path) -> Result<Vec<Known>, OfflineError> {
    let uptime = tasks::now().uptime;
    let id = Store::id_of(folder)?;
    let real_folder = folder.canonicalize();
    let real_folder = real_folder.as_deref().unwrap_or(folder);
    let processes = Processes::look(real_folder, id.as_deref())?;
    let running = process::usage_by(SESSION_ID_VARIABLE)?;
    let mut records: BTreeMap<_, _> = Store::peek(folder)?.into_iter().collect();
    let mut names: BTreeSet<_> = processes.projects().cloned().collect();
    names.extend(records.keys().cloned());
    let mut all = Vec::new();
    for project in names {
        let unrecorded = processes.sessions_of(&project).next();
        all.push(match (records.remove(&project).flatten(), unrecorded) {
            (Some(record), unrecorded) if record.session.is_some() || unrecorded.is_none() => {
                let session = record.session.as_ref();
                let process = session.and_then(Session::process);
                Known::Record {
                    status: Status::of(&project, session, uptime),
                    is_alive: process
                        .is_some_and(|process| !matches!(process.is_alive(), Ok(false)))
                        || session
                            .is_some_and(|session| running.contains_key(session.id().as_str())),
                }
            }
            (_, Some((session, _))) => Known::Unrecorded {
                session: session.clone(),
                project,
            },
            (_, None) => Known::Unreadable { project },
        });
    }
    Ok(all)
}

/// Ends a project's session, on record or not. The next bot takes the link back, and answers whoever waits. Only while none
/// runs: the caller holds the lock of the data directory. `None`: there is no session.
///
/// # Errors
/// [`OfflineError`]. What was not ended is ended by the next bot.
pub async fn stop(
    folder: &Path,
    project: &ProjectName,
    grace: Duration,
) -> Result<Option<StopReport>, OfflineError> {
    let store = Store::open(folder.to_owned())?;
    let processes = Processes::look(store.folder(), Some(store.id()))?;
    let (session, withdrawals) = match store.load(project)? {
        Some(Found::Record(record)) => (record.session, record.withdrawals),
        Some(Found::Unreadable) | None => (None, Vec::new()),
    };
    let session = session.or_else(|| processes.sessions_of(project).next().map(adopt));
    let Some(mut session) = session else {
        return Ok(None);
    };
    let was_stopping = session.phase() == Phase::Stopping;
    session.end_without_owner();
    // Before anything is ended: to a bot that comes after a stop that was cut short, it would look like an accident.
    let id = session.id().clone();
    let leader = session.process().or_else(|| processes.process_of(&id));
    let leader = leader.cloned();
    store.save(project, &Record::new(Some(session), withdrawals))?;
    let failed = |source| OfflineError::Stop {
        project: project.clone(),
        source,
    };
    let mark = (SESSION_ID_VARIABLE, id.as_str());
    let mut report = process::stop(leader.as_ref(), mark, grace)
        .await
        .map_err(failed)?;
    for (stray, leader) in processes.strays_of(project, &id) {
        let mark = (SESSION_ID_VARIABLE, stray.as_str());
        let more = process::stop(Some(leader), mark, grace)
            .await
            .map_err(failed)?;
        report.processes += more.processes;
        report.killed += more.killed;
        report.took += more.took;
    }
    let was_over = was_stopping && report.processes == 0;
    Ok(Some(report).filter(|_| !was_over))
}

/// A session whose record is lost, as it is found. How long it may last makes no difference any more.
fn adopt((id, process): (&SessionId, &process::ProcessIdentity)) -> Session {
    let terms = Terms {
        link_timeout: None,
        max_duration: None,
        restart: Restart::Never,
    };
    let (session, _) = Session::adopted(id.clone(), process.clone(), &terms, tasks::now());
    session
}
