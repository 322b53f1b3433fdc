//! What became of the sessions while nobody watched.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::Path,
    sync::Arc,
};

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{
    Action, Beginning, Happened, Notice, ProcessIdentity, ProjectName, RemoteControl, Request,
    SESSION_ID_VARIABLE, Session, SessionId, Settings, Slot, State, StoreError,
    process::{self, ProcessError},
    store::{Found, Store},
    tasks::{self, DATA_DIRECTORY_VARIABLE, SESSION_FOLDER_VARIABLE, Tasks},
};

/// Why sessions cannot be restored. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The records cannot be read.
    #[error("the records cannot be read")]
    Records(#[from] StoreError),
    /// The processes of this host cannot be searched, so that a second one could be started beside a first.
    #[error("the processes of this host cannot be searched")]
    Processes(#[from] ProcessError),
}

impl RemoteControl {
    /// Opens the folder of records and restores what stands there: sessions that still run are adopted, those that ended
    /// in the meantime are finished, deliveries and withdrawals go on, and projects with `deliver_to` start. What the
    /// tasks report comes by the receiver.
    ///
    /// Has to be called within a tokio runtime.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn restore(
        settings: Settings,
    ) -> Result<(Self, mpsc::Receiver<Happened>, Vec<Notice>), RestoreError> {
        let store = Store::open(settings.folder)?;
        let (tasks, happened) = Tasks::new(settings.host);
        let slots = settings.projects.into_iter().map(|project| {
            let name = project.name.clone();
            (
                name,
                Slot {
                    project: Some(Arc::new(project)),
                    ..Slot::default()
                },
            )
        });
        let mut this = Self {
            slots: slots.collect(),
            store,
            tasks,
            max_sessions: settings.max_sessions,
        };
        let processes = Processes::look(this.store.folder(), Some(this.store.id()))?;
        let records = this.load(&processes)?;
        let mut notices = Vec::new();
        let names: Vec<_> = this.slots.keys().cloned().collect();
        for name in &names {
            notices.extend(this.restore_project(name, &records, &processes));
        }
        // Where not all can run, those that ran before go first.
        for name in &names {
            notices.extend(this.autostart(name));
        }
        Ok((this, happened, notices))
    }

    fn load(&mut self, processes: &Processes) -> Result<Records, StoreError> {
        let mut records = Records::default();
        for (name, found) in self.store.load_all()? {
            let slot = self.slots.entry(name.clone()).or_default();
            match found {
                Found::Record(record) => {
                    if record.is_of_another_boot() {
                        records.of_another_boot.insert(name);
                    }
                    slot.session = record.session;
                    slot.withdrawals = record.withdrawals;
                }
                Found::Unreadable => drop(records.unreadable.insert(name)),
            }
        }
        for name in processes.projects() {
            self.slots.entry(name.clone()).or_default();
        }
        Ok(records)
    }

    fn restore_project(
        &mut self,
        name: &ProjectName,
        records: &Records,
        processes: &Processes,
    ) -> Vec<Notice> {
        let slot = self.slots.entry(name.clone()).or_default();
        let withdrawals = slot.withdrawals.iter().cloned();
        let mut notices: Vec<_> = withdrawals
            .map(|withdrawal| Notice::Withdraw {
                project: name.clone(),
                withdrawal,
            })
            .collect();
        let booted = records.of_another_boot.contains(name);
        let recorded = slot.session.clone();
        let actions = if slot.session.is_some() {
            slot.restore_session(name, booted, processes)
        } else {
            let adopted = slot.adopt(name, processes);
            let is_running = adopted.is_some();
            if is_running || records.unreadable.contains(name) {
                notices.push(Notice::RecordLost {
                    project: name.clone(),
                    is_running,
                });
            }
            adopted.unwrap_or_default()
        };
        let Some(session) = slot.session.as_ref().or(recorded.as_ref()) else {
            return notices;
        };
        if slot.project.is_none() {
            warn!(project = %name, "project left the configuration, its session stays until it is stopped");
        }
        let id = session.id().clone();
        slot.note(&id, &actions);
        // What stands on disk already is not written again: that takes milliseconds for each, and a start may meet hundreds.
        let must_be_recorded = booted || slot.session != recorded;
        for (stray, leader) in processes.strays_of(name, &id) {
            self.tasks.end_stray(name, stray.clone(), leader.clone());
        }
        if must_be_recorded {
            self.save_or_retry(name);
        }
        notices.extend(self.perform(name, actions));
        notices
    }

    pub(super) fn autostart(&mut self, name: &ProjectName) -> Vec<Notice> {
        let Some(slot) = self.slots.get(name) else {
            return Vec::new();
        };
        let users = slot
            .project
            .as_ref()
            .map(|project| project.deliver_to.clone())
            .unwrap_or_default();
        if slot.session.is_some() || users.is_empty() {
            return Vec::new();
        }
        let nobody_asked = |requester| Request {
            requester,
            reference: String::new(),
        };
        self.begin(
            name,
            Beginning::Fresh,
            users.into_iter().map(nobody_asked).collect(),
        )
    }
}

/// What there is to know of the records besides what stands in them.
#[derive(Default)]
struct Records {
    /// Written before the host was booted.
    of_another_boot: BTreeSet<ProjectName>,
    /// They made no sense, and were set aside.
    unreadable: BTreeSet<ProjectName>,
}

impl Slot {
    /// Lets the session go on that is on record.
    fn restore_session(
        &mut self,
        name: &ProjectName,
        booted: bool,
        processes: &Processes,
    ) -> Vec<Action> {
        let terms = self.terms();
        let Some(session) = &mut self.session else {
            return Vec::new();
        };
        info!(project = %name, session = %session.id(), phase = ?session.phase(), "session restored");
        let found = processes.process_of(session.id()).cloned();
        self.starts_when_over = is_over(session, found.as_ref());
        session.restore(found, booted, &terms, tasks::now())
    }

    /// Takes over a process that no record knows. `None`: there is none.
    fn adopt(&mut self, name: &ProjectName, processes: &Processes) -> Option<Vec<Action>> {
        let (id, process) = processes.sessions_of(name).next()?;
        warn!(project = %name, session = %id, "adopting a session whose record is lost");
        let (session, actions) =
            Session::adopted(id.clone(), process.clone(), &self.terms(), tasks::now());
        self.session = Some(session);
        Some(actions)
    }
}

/// Whether the session ended before we came, and only its end is left to be told.
fn is_over(session: &Session, found: Option<&ProcessIdentity>) -> bool {
    match session.state() {
        State::Starting { .. } | State::Running { .. } | State::Stopping { .. } => {
            let is_gone = |process: &ProcessIdentity| matches!(process.is_alive(), Ok(false));
            session.process().map_or(found.is_none(), is_gone)
        }
        State::Spawning { .. } | State::Resting { .. } => false,
    }
}

/// The spawned processes of this host, the oldest first. One look for all.
pub(super) struct Processes(Vec<Spawned>);

struct Spawned {
    process: ProcessIdentity,
    session: SessionId,
    /// Whose it is, if it is of this folder of records.
    project: Option<ProjectName>,
}

impl Processes {
    /// Looks for those of this folder of records, which has this name if it has one.
    pub(super) fn look(folder: &Path, id: Option<&str>) -> Result<Self, ProcessError> {
        let variables = [
            SESSION_ID_VARIABLE,
            SESSION_FOLDER_VARIABLE,
            DATA_DIRECTORY_VARIABLE,
        ];
        let all = process::survey(variables)?.into_iter();
        // A bot that was started by hand from within a session is no session.
        let leaders = all.filter(|(process, _)| {
            process.leads_session()
                && u32::try_from(process.identity.pid()) != Ok(std::process::id())
        });
        let spawned = leaders.filter_map(|(process, [session, of_session, data_directory])| {
            Some(Spawned {
                process: process.identity,
                session: session?.into_string().ok()?.into(),
                project: of_session
                    .and_then(|it| project_of(Path::new(&it), data_directory, folder, id)),
            })
        });
        Ok(Self(spawned.collect()))
    }

    /// The projects that have processes.
    pub(super) fn projects(&self) -> impl Iterator<Item = &ProjectName> {
        self.0.iter().filter_map(|spawned| spawned.project.as_ref())
    }

    /// The sessions of a project, each once for each of its processes that leads a session of the kernel's.
    pub(super) fn sessions_of(
        &self,
        project: &ProjectName,
    ) -> impl Iterator<Item = (&SessionId, &ProcessIdentity)> {
        let of_project = self
            .0
            .iter()
            .filter(move |spawned| spawned.project.as_ref() == Some(project));
        of_project.map(|spawned| (&spawned.session, &spawned.process))
    }

    /// The sessions of a project but for the one on record, each with the first of its processes.
    pub(super) fn strays_of(
        &self,
        project: &ProjectName,
        recorded: &SessionId,
    ) -> BTreeMap<&SessionId, &ProcessIdentity> {
        let all = self.sessions_of(project);
        let strays = all.filter(|(session, _)| *session != recorded);
        let mut by_id = BTreeMap::new();
        for (session, leader) in strays {
            by_id.entry(session).or_insert(leader);
        }
        by_id
    }

    /// The process of a session that is on record: its id is random, so it needs no folder.
    pub(super) fn process_of(&self, session: &SessionId) -> Option<&ProcessIdentity> {
        let spawned = self.0.iter().find(|spawned| spawned.session == *session);
        spawned.map(|spawned| &spawned.process)
    }
}

fn project_of(
    of_session: &Path,
    data_directory: Option<OsString>,
    folder: &Path,
    id: Option<&str>,
) -> Option<ProjectName> {
    let is_here = match data_directory {
        Some(theirs) => id.is_some_and(|ours| theirs == ours),
        // Of an rcbot that gave its sessions the path alone.
        None => of_session
            .parent()
            .is_some_and(|parent| parent.canonicalize().is_ok_and(|parent| parent == folder)),
    };
    let name = of_session.file_name()?.to_str()?;
    name.parse().ok().filter(|_| is_here)
}
