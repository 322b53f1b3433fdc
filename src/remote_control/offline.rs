//! Sessions without a running bot: their status by records and processes, and how to end them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use super::{
    Ending, Phase, ProjectName, SESSION_ID_VARIABLE, Session, SessionId, Status, StopReport,
    StoreError, now,
    process::{self, ProcessError, StopError},
    restore::{Processes, stray_session},
    store::{Record, Store},
    usage,
};

/// Why the sessions on this host cannot be listed or ended.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error("the session records cannot be used")]
    Records(#[from] StoreError),
    #[error("the processes of this host cannot be looked at")]
    Processes(#[from] ProcessError),
    #[error("the processes of {project} cannot be ended")]
    Stop {
        project: ProjectName,
        source: StopError,
    },
}

/// The state of one project's session.
#[derive(Debug)]
pub enum SessionReport {
    /// A valid record, and whether processes of its session run.
    Record { status: Status, is_alive: bool },
    /// Processes of a session without a valid record.
    Unrecorded {
        project: ProjectName,
        session: SessionId,
    },
    /// An invalid record, and no processes.
    Unreadable { project: ProjectName },
}

impl SessionReport {
    /// A project that never had a session, or whose last one is over.
    pub fn none(project: &ProjectName) -> Self {
        Self::Record {
            status: Status::of(project, None, Duration::ZERO),
            is_alive: false,
        }
    }

    pub fn project(&self) -> &ProjectName {
        match self {
            Self::Record { status, .. } => &status.project,
            Self::Unrecorded { project, .. } | Self::Unreadable { project } => project,
        }
    }

    /// Whether there is a session to end. One that was ended while no bot ran stays on record until a bot has reported it.
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

/// All sessions that have a record in this folder or processes that belong to it. Changes nothing, and may be called while a
/// bot runs.
pub fn status(folder: &Path) -> Result<Vec<SessionReport>, OfflineError> {
    let uptime = now().uptime;
    let store = Store::existing(folder)?;
    let processes = Processes::look(&store)?;
    let running = usage()?;
    let mut records: BTreeMap<_, _> = store.load()?.into_iter().collect();
    let mut projects: BTreeSet<_> = processes.projects().cloned().collect();
    projects.extend(records.keys().cloned());
    let known = |project: ProjectName| {
        let record = records.remove(&project).and_then(Result::ok);
        let unrecorded = processes.sessions_of(&project).next();
        match (record, unrecorded) {
            (Some(record), unrecorded) if record.session.is_some() || unrecorded.is_none() => {
                let session = record.session.as_ref();
                let process = session.and_then(Session::process);
                SessionReport::Record {
                    status: Status::of(&project, session, uptime),
                    is_alive: process.is_some_and(|it| !matches!(it.is_alive(), Ok(false)))
                        || session.is_some_and(|it| running.contains_key(it.id())),
                }
            }
            (_, Some((session, _))) => SessionReport::Unrecorded {
                session: session.clone(),
                project,
            },
            (_, None) => SessionReport::Unreadable { project },
        }
    };
    Ok(projects.into_iter().map(known).collect())
}

/// Ends a project's session, on record or not. The next bot redacts the link, answers those who wait, and ends what was left.
/// Only while no bot runs: the caller holds the lock of the data directory. `None`: there is no session.
pub async fn stop(
    folder: &Path,
    project: &ProjectName,
    grace: Duration,
) -> Result<Option<StopReport>, OfflineError> {
    let store = Store::open(folder)?;
    let processes = Processes::look(&store)?;
    let mut records = store.load()?.into_iter();
    let (mut record, unreadable) = match records.find(|(name, _)| name == project) {
        Some((_, Ok(record))) => (record, None),
        Some((_, Err(reason))) => (Record::default(), Some(reason)),
        None => (Record::default(), None),
    };
    if record.session.is_none() {
        let unrecorded = processes.sessions_of(project).next();
        record.session = unrecorded.map(|(id, process)| stray_session(id, process));
    }
    let Some(session) = &mut record.session else {
        // An unreadable record stays where it is: the next bot reports it to the room.
        return Ok(None);
    };
    if let Some(reason) = unreadable {
        store.set_aside(project, &reason)?;
    }
    let was_stopping = Phase::of(session) == Phase::Stopping;
    // The next bot completes it, and answers those who wait.
    session.end(Ending::Stopped);
    let id = session.id().clone();
    let leader = session.process().or_else(|| processes.process_of(&id));
    let leader = leader.cloned();
    // Before anything is ended: after an interrupted stop, the next bot would otherwise take it for an unexpected exit.
    store.save(project, &record)?;
    let mut all = vec![(&id, leader.as_ref())];
    let strays = processes.strays_of(project, &id);
    all.extend(strays.map(|(stray, leader)| (stray, Some(leader))));
    let mut report = StopReport::default();
    for (session, leader) in all {
        let mark = (SESSION_ID_VARIABLE, session.as_str());
        let more =
            process::stop(leader, mark, grace)
                .await
                .map_err(|source| OfflineError::Stop {
                    project: project.clone(),
                    source,
                })?;
        report.processes += more.processes;
        report.killed += more.killed;
        report.took += more.took;
    }
    let was_over = was_stopping && report.processes == 0;
    Ok(Some(report).filter(|_| !was_over))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn an_unreadable_record_without_processes_is_left_for_the_next_bot() {
        let folder = tempfile::TempDir::new().unwrap();
        let project: ProjectName = "website".parse().unwrap();
        let record = folder.path().join("website/session.json");
        fs::create_dir(folder.path().join("website")).unwrap();
        fs::write(&record, "{").unwrap();
        let stopped = stop(folder.path(), &project, Duration::ZERO).await;
        assert!(stopped.unwrap().is_none());
        assert_eq!(fs::read_to_string(&record).unwrap(), "{");
    }
}
