//! What became of the sessions while nobody watched.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{
    Beginning, Happened, Notice, ProjectName, RemoteControl, Request, SESSION_ID_VARIABLE, Session,
    SessionId, Settings, Slot, StoreError,
    process::{self, IdentityError, Leader},
    store::{Found, Store},
    tasks::{self, SESSION_FOLDER_VARIABLE, Tasks},
};

/// Why sessions cannot be restored. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The records cannot be read.
    #[error("the records cannot be read")]
    Records(#[from] StoreError),
    /// The processes of this host cannot be searched, so that a second one could be started beside a first.
    #[error("the processes of this host cannot be searched")]
    Processes(#[from] IdentityError),
}

impl RemoteControl {
    /// Opens the folder of records and restores what stands there: sessions that still run are adopted, those that ended
    /// in the meantime are finished, deliveries and withdrawals go on, and projects with `autostart_for` start. What the
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
        let processes = Processes::look(this.store.folder())?;
        let booted = this.load(&processes)?;
        let mut notices = Vec::new();
        let names: Vec<_> = this.slots.keys().cloned().collect();
        for name in &names {
            notices.extend(this.resume(name, booted.contains(name), &processes));
        }
        // Where not all can run, those that ran before go first.
        for name in &names {
            notices.extend(this.autostart(name));
        }
        Ok((this, happened, notices))
    }

    /// Reads all records; gives back those of an earlier boot of the host.
    fn load(&mut self, processes: &Processes) -> Result<BTreeSet<ProjectName>, StoreError> {
        let mut booted = BTreeSet::new();
        for (name, found) in self.store.load_all()? {
            let slot = self.slots.entry(name.clone()).or_default();
            match found {
                Found::Record(record) => {
                    if record.is_of_another_boot() {
                        booted.insert(name);
                    }
                    slot.session = record.session;
                    slot.withdrawals = record.withdrawals;
                }
                Found::Unreadable => {}
            }
        }
        for name in processes.by_project.keys() {
            self.slots.entry(name.clone()).or_default();
        }
        Ok(booted)
    }

    fn resume(&mut self, name: &ProjectName, booted: bool, processes: &Processes) -> Vec<Notice> {
        let slot = self.slots.entry(name.clone()).or_default();
        let withdrawals = slot.withdrawals.iter().cloned();
        let mut notices: Vec<_> = withdrawals
            .map(|withdrawal| Notice::Withdraw {
                project: name.clone(),
                withdrawal,
            })
            .collect();
        let terms = slot.terms();
        let recorded = slot.session.clone();
        let leaders = processes.of(name);
        let actions = if let Some(session) = &mut slot.session {
            let leads = |leader: &&Leader| {
                leader.variable(SESSION_ID_VARIABLE) == Some(session.id().as_str())
            };
            let found = leaders
                .iter()
                .find(leads)
                .map(|leader| leader.identity.clone());
            info!(project = %name, session = %session.id(), phase = ?session.phase(), "session restored");
            session.resume(found, booted, &terms, tasks::now())
        } else if let Some((id, leader)) = leaders
            .iter()
            .find_map(|leader| Some((session_id(leader)?, leader)))
        {
            warn!(project = %name, session = %id, "adopting a session whose record is lost");
            let (session, actions) =
                Session::adopted(id, leader.identity.clone(), &terms, tasks::now());
            slot.session = Some(session);
            actions
        } else {
            return notices;
        };
        if slot.project.is_none() {
            warn!(project = %name, "project left the configuration, its session stays until it is stopped");
        }
        // What stands on disk already is not written again: that takes milliseconds for each, and a start may meet hundreds.
        let must_be_recorded = booted || slot.session != recorded;
        let ours = slot.session.as_ref().map(|session| session.id().clone());
        let ids: BTreeSet<_> = leaders
            .iter()
            .filter_map(session_id)
            .map(|id| id.to_string())
            .collect();
        for stray in ids
            .into_iter()
            .filter(|id| ours.as_ref().is_none_or(|ours| ours.as_str() != id))
        {
            self.tasks.end_stray(name, SessionId::from(stray));
        }
        if must_be_recorded {
            self.save_or_retry(name);
        }
        notices.extend(self.perform(name, actions));
        notices
    }

    fn autostart(&mut self, name: &ProjectName) -> Vec<Notice> {
        let Some(slot) = self.slots.get(name) else {
            return Vec::new();
        };
        let users = slot
            .project
            .as_ref()
            .map(|project| project.autostart_for.clone())
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

fn session_id(leader: &Leader) -> Option<SessionId> {
    leader
        .variable(SESSION_ID_VARIABLE)
        .map(|id| SessionId::from(id.to_owned()))
}

/// The spawned processes of this host that belong to this folder of records, the oldest first. One look for all.
struct Processes {
    by_project: BTreeMap<ProjectName, Vec<Leader>>,
}

impl Processes {
    fn look(folder: &Path) -> Result<Self, IdentityError> {
        let mut by_project: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for leader in process::leaders_with(SESSION_ID_VARIABLE)? {
            let of_project = leader.variable(SESSION_FOLDER_VARIABLE).map(Path::new);
            let name = of_project
                .filter(|path| path.parent() == Some(folder))
                .and_then(|path| path.file_name()?.to_str()?.parse::<ProjectName>().ok());
            if let Some(name) = name {
                by_project.entry(name).or_default().push(leader);
            }
        }
        Ok(Self { by_project })
    }

    fn of(&self, project: &ProjectName) -> &[Leader] {
        self.by_project
            .get(project)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }
}
