//! Restores the sessions at a start of the bot, from their records and the processes that run.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::{sync::mpsc, task::JoinSet};
use tracing::{info, warn};

use super::{
    Beginning, Effect, Notice, Notices, Phase, ProcessIdentity, Project, ProjectName,
    RemoteControl, Request, SESSION_FOLDER_VARIABLE, SESSION_ID_VARIABLE, Session, SessionId,
    Settings, Slot, State, StoreError, Terms, now,
    process::{self, ProcessError},
    store::{DATA_DIRECTORY_VARIABLE, Store},
    tasks::Task,
};

/// How many reports may wait for the owner before tasks wait for it.
const REPORTS_WAITING: usize = 256;

/// Why sessions cannot be restored. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("the records cannot be read")]
    Records(#[from] StoreError),
    /// The processes of this host cannot be searched, so a second one might be started beside a first.
    #[error("the processes of this host cannot be searched")]
    Processes(#[from] ProcessError),
}

impl RemoteControl {
    /// Opens the folder of records and restores what stands there: sessions that still run are adopted, those that ended
    /// in the meantime are finished, deliveries and redactions go on, and projects with `deliver_to` start.
    ///
    /// `find` is called for each project that has a session and is not in the settings.
    ///
    /// Has to be called within a tokio runtime.
    pub fn restore(
        settings: Settings,
        mut find: impl FnMut(&ProjectName) -> Option<Project>,
    ) -> Result<(Self, Notices), RestoreError> {
        let store = Store::open(&settings.folder)?;
        let processes = Processes::look(&store)?;
        let records = store.load()?;
        let (reporting, reports) = mpsc::channel(REPORTS_WAITING);
        let mut this = Self {
            slots: BTreeMap::new(),
            store,
            host: settings.host,
            max_sessions: settings.max_sessions,
            running: JoinSet::new(),
            reporting,
            reports,
        };
        for project in settings.projects {
            let name = project.name.clone();
            this.slot(&name).project = Some(Arc::new(project));
        }
        for name in processes.projects() {
            this.slot(name);
        }
        let mut unreadable = BTreeSet::new();
        for (name, record) in records {
            match record {
                Ok(record) => this.slot(&name).record = record,
                Err(reason) => {
                    this.store.set_aside(&name, &reason)?;
                    this.slot(&name);
                    unreadable.insert(name);
                }
            }
        }
        for (name, slot) in &mut this.slots {
            let has_session = slot.record.session.is_some()
                || processes.projects().any(|project| project == name);
            if slot.project.is_none() && has_session {
                slot.project = find(name).map(Arc::new);
            }
        }
        let mut notices = Vec::new();
        let names: Vec<_> = this.slots.keys().cloned().collect();
        for name in &names {
            notices.extend(this.restore_project(name, unreadable.contains(name), &processes));
        }
        // If not all may run, those that ran before go first.
        for name in &names {
            notices.extend(this.autostart(name));
        }
        Ok((this, notices))
    }

    fn restore_project(
        &mut self,
        name: &ProjectName,
        is_unreadable: bool,
        processes: &Processes,
    ) -> Notices {
        let slot = self.slot(name);
        let before = slot.record.clone();
        let redactions = slot.record.redactions.iter().cloned();
        let mut effects: Vec<_> = redactions
            .map(|redaction| Effect::Notify(Notice::Redact(redaction)))
            .collect();
        effects.extend(slot.restore_session(name, processes));
        if before.session.is_none() && (is_unreadable || slot.record.session.is_some()) {
            let is_running = slot.record.session.is_some();
            effects.push(Effect::Notify(Notice::RecordLost { is_running }));
        }
        if let Some(session) = &slot.record.session {
            let id = session.id().clone();
            if slot.project.is_none() {
                warn!(project = %name, "project left the configuration, its session stays until it is stopped");
            }
            for (stray, leader) in processes.strays_of(name, &id) {
                self.run_for(name, stray_session(stray, leader), Task::end_stray);
            }
        }
        // An unchanged record is not written again: that takes milliseconds for each, and a start may restore hundreds.
        self.save_and_act(name, before, Vec::new(), effects)
    }

    pub(super) fn autostart(&mut self, name: &ProjectName) -> Notices {
        let slot = self.slot(name);
        let users = match &slot.project {
            Some(project) if slot.record.session.is_none() => project.deliver_to.clone(),
            Some(_) | None => Vec::new(),
        };
        if users.is_empty() {
            return Vec::new();
        }
        let nobody_asked = |requester| Request {
            requester,
            reference: String::new(),
        };
        let requests = users.into_iter().map(nobody_asked).collect();
        self.begin(name, &Beginning::Fresh.into(), requests)
    }
}

impl Slot {
    /// Continues the session that is on record, or adopts a process without a record.
    fn restore_session(&mut self, name: &ProjectName, processes: &Processes) -> Vec<Effect> {
        let terms = self.terms();
        let booted = self.record.carry_over_boot();
        if let Some(session) = &mut self.record.session {
            let phase = Phase::of(session);
            info!(project = %name, session = %session.id(), ?phase, "session restored");
            let found = processes.process_of(session.id()).cloned();
            self.starts_when_over = is_over(session, found.as_ref());
            return session.restore(found, booted, &terms, now());
        }
        let Some((id, process)) = processes.sessions_of(name).next() else {
            return Vec::new();
        };
        warn!(project = %name, session = %id, "adopting a session whose record is lost");
        let session = Session::adopted(id.clone(), process.clone(), &terms, now());
        self.record.session = Some(session);
        vec![Effect::Watch]
    }
}

/// Whether the session ended before this start, so that only its end is left to be reported.
fn is_over(session: &Session, found: Option<&ProcessIdentity>) -> bool {
    match session.state() {
        State::Starting { .. } | State::Running { .. } | State::Stopping { .. } => {
            let is_gone = |process: &ProcessIdentity| matches!(process.is_alive(), Ok(false));
            session.process().map_or(found.is_none(), is_gone)
        }
        State::Spawning { .. } | State::AwaitingRestart { .. } => false,
    }
}

/// A session that has no record and is to be ended, so that its time limit does not matter.
pub(super) fn stray_session(id: &SessionId, process: &ProcessIdentity) -> Session {
    Session::adopted(id.clone(), process.clone(), &Terms::ORPHANED, now())
}

/// The spawned process of each session on this host, from one survey: the oldest of its processes that lead a kernel session.
pub(super) struct Processes(Vec<Spawned>);

struct Spawned {
    process: ProcessIdentity,
    session: SessionId,
    /// Its project, if it belongs to this folder of records.
    project: Option<ProjectName>,
}

impl Processes {
    pub(super) fn look(store: &Store) -> Result<Self, ProcessError> {
        let variables = [
            SESSION_ID_VARIABLE,
            SESSION_FOLDER_VARIABLE,
            DATA_DIRECTORY_VARIABLE,
        ];
        let all = process::survey(variables)?.into_iter();
        // A bot that was started by hand from within a session does not count as its process.
        let leaders = all.filter(|(process, _)| {
            process.leads_session()
                && u32::try_from(process.identity.pid()) != Ok(std::process::id())
        });
        let spawned = leaders.filter_map(|(process, [session, folder, data_directory])| {
            let session = session?.into_string().ok()?.into();
            let project = folder.and_then(|folder| {
                let is_deleted = process.has_deleted("fd/1");
                store.project_of(&folder, data_directory.as_deref(), is_deleted)
            });
            Some(Spawned {
                process: process.identity,
                session,
                project,
            })
        });
        let mut spawned: Vec<_> = spawned.collect();
        let mut known = BTreeSet::new();
        spawned.retain(|it| known.insert((it.session.clone(), it.project.clone())));
        Ok(Self(spawned))
    }

    pub(super) fn projects(&self) -> impl Iterator<Item = &ProjectName> {
        self.0.iter().filter_map(|spawned| spawned.project.as_ref())
    }

    /// The sessions of a project, the oldest first.
    pub(super) fn sessions_of(
        &self,
        project: &ProjectName,
    ) -> impl Iterator<Item = (&SessionId, &ProcessIdentity)> {
        let all = self.0.iter();
        let of_project = all.filter(move |spawned| spawned.project.as_ref() == Some(project));
        of_project.map(|spawned| (&spawned.session, &spawned.process))
    }

    /// The sessions of a project except the one on record.
    pub(super) fn strays_of(
        &self,
        project: &ProjectName,
        recorded: &SessionId,
    ) -> impl Iterator<Item = (&SessionId, &ProcessIdentity)> {
        let all = self.sessions_of(project);
        all.filter(move |(session, _)| *session != recorded)
    }

    /// The process of a session that is on record. The session id is random, so the folder does not matter.
    pub(super) fn process_of(&self, session: &SessionId) -> Option<&ProcessIdentity> {
        let mut all = self.0.iter();
        let spawned = all.find(|spawned| spawned.session == *session);
        spawned.map(|spawned| &spawned.process)
    }
}
