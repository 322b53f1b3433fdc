//! Supervises detached `claude remote-control` processes: starts, follows, restores and ends them.
//!
//! Usable without the rest of rcbot: [`RemoteControl`] takes requests and gives [`Notice`]s; between them its tasks send
//! [`Happened`]s, which the owner hands back to [`RemoteControl::handle`]. One owner, no locks.
//!
//! Invariant: nothing here knows Matrix. Who asks, and where the answer goes, are texts that belong to the caller.

pub mod claude;
mod observe;
pub mod process;
mod project;
mod session;
mod store;
mod tasks;

use std::{
    collections::BTreeMap,
    mem,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::mpsc;
use tracing::{error, info, warn};

pub use claude::{Cause, LinkPattern, PatternError, SESSION_ID_VARIABLE};
pub use process::{Exit, ProcessIdentity, StopReport};
pub use project::{InvalidProjectName, Project, ProjectName};
pub use session::{
    Delivery, Ending, NotSpawned, Outcome, Receipt, Request, Session, SessionId, State,
};
pub use store::{StoreError, Withdrawal};

use crate::link::Link;
use session::{Action, Event};
use store::{Found, Record, Store};
use tasks::Tasks;

/// Where records and output are kept, and what may run.
#[derive(Debug)]
pub struct Settings {
    /// The folder of records: one folder in it for each project.
    pub folder: PathBuf,
    /// This host's name, for `{host}` in commands.
    pub host: String,
    /// The projects of the configuration.
    pub projects: Vec<Project>,
}

/// Something came about in a task. For [`RemoteControl::handle`], and opaque to everyone else.
#[derive(Debug)]
pub struct Happened(What);

#[derive(Debug)]
enum What {
    Session {
        project: ProjectName,
        session: SessionId,
        event: Event,
    },
    /// It is time to try again to write a record.
    SaveAgain { project: ProjectName },
}

/// Names one delivery for good.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeliveryId {
    /// The project.
    pub project: ProjectName,
    /// The session.
    pub session: SessionId,
    /// The delivery's number within the session.
    pub number: u32,
}

/// What the owner has to do or to say.
#[derive(Debug)]
pub enum Notice {
    /// Bring this link to the requester; then call [`RemoteControl::delivered`] or [`RemoteControl::undeliverable`].
    Deliver {
        /// For the answer; also the same after a crash, so that a repetition can be recognised.
        id: DeliveryId,
        /// Who gets the link, and the request to answer.
        request: Request,
        /// The link.
        link: Link,
    },
    /// Take a link back; then call [`RemoteControl::withdrawn`].
    Withdraw {
        /// The project.
        project: ProjectName,
        /// Which link.
        withdrawal: Withdrawal,
    },
    /// A session is over.
    Over {
        /// The project.
        project: ProjectName,
        /// How, and who has to hear of it.
        outcome: Outcome,
    },
    /// There is no session to stop.
    NoSession {
        /// The project.
        project: ProjectName,
        /// Who asked.
        request: Request,
    },
    /// No link while the session is ending.
    RefusedWhileStopping {
        /// The project.
        project: ProjectName,
        /// Who asked.
        request: Request,
    },
    /// The request could not be written down, so nothing was done about it.
    NotRecorded {
        /// The project.
        project: ProjectName,
        /// Who asked.
        request: Request,
        /// Why, in the words of the operating system.
        reason: String,
    },
}

/// One project's line in an overview.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The project.
    pub project: ProjectName,
    /// Its session, if it has one.
    pub session: Option<SessionStatus>,
}

/// What can be said of a session without its link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStatus {
    /// What it is at.
    pub phase: Phase,
    /// When it was asked for.
    pub since: SystemTime,
    /// Who asked for it first, where that is still known.
    pub requester: Option<String>,
}

/// A session's [`State`], without what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No link yet.
    Starting,
    /// The link is known.
    Running,
    /// Being ended.
    Stopping,
}

/// What is kept for one project.
#[derive(Debug, Default)]
struct Slot {
    /// `None`: the project left the configuration while it had a session.
    project: Option<Arc<Project>>,
    session: Option<Session>,
    withdrawals: Vec<Withdrawal>,
}

impl Slot {
    fn link_timeout(&self) -> Duration {
        self.project
            .as_ref()
            .map_or(Duration::ZERO, |project| project.link_timeout)
    }

    fn has_session(&self, id: &SessionId) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.id() == id)
    }
}

/// The owner of all sessions of this host and configuration.
#[derive(Debug)]
pub struct RemoteControl {
    slots: BTreeMap<ProjectName, Slot>,
    store: Store,
    tasks: Tasks,
}

impl RemoteControl {
    /// Opens the folder of records and restores what stands there: sessions that still run are adopted, those that ended
    /// in the meantime are finished, deliveries and withdrawals go on. What the tasks report comes by the receiver.
    ///
    /// Has to be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StoreError`], when the folder cannot be used.
    pub fn restore(
        settings: Settings,
    ) -> Result<(Self, mpsc::Receiver<Happened>, Vec<Notice>), StoreError> {
        let store = Store::open(settings.folder)?;
        let (tasks, happened) = Tasks::new(settings.host);
        let slots = settings.projects.into_iter().map(|project| {
            (
                project.name.clone(),
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
        };
        let notices = this.load()?;
        Ok((this, happened, notices))
    }

    /// Asks for the link of the project's session, which is started if there is none.
    pub fn start(&mut self, project: &ProjectName, request: Request) -> Vec<Notice> {
        let slot = self.slots.entry(project.clone()).or_default();
        if slot.session.is_some() {
            return self.apply(project, Event::LinkRequested(request));
        }
        let (session, actions) =
            Session::new(SessionId::random(), request.clone(), SystemTime::now());
        info!(%project, session = %session.id(), requester = request.requester, "session starting");
        slot.session = Some(session);
        match self.save(project) {
            Ok(()) => self.perform(project, actions),
            Err(error) => {
                self.slots.entry(project.clone()).or_default().session = None;
                vec![not_recorded(project, request, &error)]
            }
        }
    }

    /// Asks for the end of the project's session.
    pub fn stop(&mut self, project: &ProjectName, request: Request) -> Vec<Notice> {
        if self
            .slots
            .get(project)
            .is_none_or(|slot| slot.session.is_none())
        {
            return vec![Notice::NoSession {
                project: project.clone(),
                request,
            }];
        }
        self.apply(project, Event::StopRequested(request))
    }

    /// One entry a project, in the order of their names.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        let status = |(name, slot): (&ProjectName, &Slot)| Status {
            project: name.clone(),
            session: slot.session.as_ref().map(|session| SessionStatus {
                phase: match session.state() {
                    State::Spawning | State::Starting { .. } => Phase::Starting,
                    State::Running { .. } => Phase::Running,
                    State::Stopping { .. } => Phase::Stopping,
                },
                since: session.created(),
                requester: session.requester().map(str::to_owned),
            }),
        };
        self.slots.iter().map(status).collect()
    }

    /// Takes in what a task reports.
    pub fn handle(&mut self, happened: Happened) -> Vec<Notice> {
        match happened.0 {
            What::Session {
                project,
                session,
                event,
            } => {
                // A session that is over has nothing more to hear.
                let current = self
                    .slots
                    .get(&project)
                    .is_some_and(|slot| slot.has_session(&session));
                if current {
                    self.apply(&project, event)
                } else {
                    Vec::new()
                }
            }
            What::SaveAgain { project } => {
                self.save_or_retry(&project);
                Vec::new()
            }
        }
    }

    /// The requester has the link, and the receipt tells where.
    pub fn delivered(&mut self, id: DeliveryId, request: Request, receipt: Receipt) -> Vec<Notice> {
        let slot = self.slots.entry(id.project.clone()).or_default();
        if slot.has_session(&id.session) {
            return self.apply(
                &id.project,
                Event::Delivered {
                    number: id.number,
                    receipt,
                },
            );
        }
        // The session ended while the link was under way: it is taken back at once.
        let delivery = Delivery {
            number: id.number,
            request,
            receipt: Some(receipt),
        };
        let withdrawal = Withdrawal {
            session: id.session,
            delivery,
        };
        slot.withdrawals
            .retain(|known| !same_delivery(known, &withdrawal));
        slot.withdrawals.push(withdrawal.clone());
        self.save_or_retry(&id.project);
        vec![Notice::Withdraw {
            project: id.project,
            withdrawal,
        }]
    }

    /// The requester cannot get the link. The session stays for a next try.
    pub fn undeliverable(&mut self, id: &DeliveryId) -> Vec<Notice> {
        let slot = self.slots.entry(id.project.clone()).or_default();
        if slot.has_session(&id.session) {
            return self.apply(&id.project, Event::Undeliverable { number: id.number });
        }
        Vec::new()
    }

    /// The link is taken back.
    pub fn withdrawn(&mut self, project: &ProjectName, withdrawal: &Withdrawal) {
        let slot = self.slots.entry(project.clone()).or_default();
        slot.withdrawals
            .retain(|known| !same_delivery(known, withdrawal));
        self.save_or_retry(project);
    }

    fn load(&mut self) -> Result<Vec<Notice>, StoreError> {
        for (name, found) in self.store.load_all()? {
            let slot = self.slots.entry(name).or_default();
            match found {
                Found::Record(record) => {
                    slot.session = record.session;
                    slot.withdrawals = record.withdrawals;
                }
                Found::Unreadable => {}
            }
        }
        let names: Vec<_> = self.slots.keys().cloned().collect();
        Ok(names.iter().flat_map(|name| self.resume(name)).collect())
    }

    fn resume(&mut self, name: &ProjectName) -> Vec<Notice> {
        let slot = self.slots.entry(name.clone()).or_default();
        let withdrawals = slot.withdrawals.iter().cloned();
        let mut notices: Vec<_> = withdrawals
            .map(|withdrawal| Notice::Withdraw {
                project: name.clone(),
                withdrawal,
            })
            .collect();
        let link_timeout = slot.link_timeout();
        if slot.project.is_none() && slot.session.is_some() {
            warn!(project = %name, "project left the configuration, its session stays until it is stopped");
        }
        let Some(session) = &mut slot.session else {
            return notices;
        };
        let found = process::find_leader(SESSION_ID_VARIABLE, session.id().as_str())
            .unwrap_or_else(|error| {
                error!(project = %name, %error, "processes not searched");
                None
            });
        info!(project = %name, session = %session.id(), state = ?session.state(), "session restored");
        let actions = session.resume(found, link_timeout);
        self.save_or_retry(name);
        notices.extend(self.perform(name, actions));
        notices
    }

    /// Lets the session decide, writes down what it decided, and does it.
    fn apply(&mut self, project: &ProjectName, event: Event) -> Vec<Notice> {
        let slot = self.slots.entry(project.clone()).or_default();
        let link_timeout = slot.link_timeout();
        let Some(session) = &mut slot.session else {
            return Vec::new();
        };
        let before = session.clone();
        let new_request = match &event {
            Event::LinkRequested(request) => Some(request.clone()),
            // A stop is obeyed even if it cannot be written down; all else happened already.
            _ => None,
        };
        let actions = session.on(event, link_timeout, SystemTime::now());
        log_transition(project, &before, session);
        if let Some(Action::Finish(outcome)) = actions.last() {
            slot.session = None;
            slot.withdrawals.extend(to_withdraw(outcome));
        }
        if actions.is_empty() {
            return Vec::new();
        }
        if let Some(request) = new_request {
            if let Err(error) = self.save(project) {
                self.slots.entry(project.clone()).or_default().session = Some(before);
                return vec![not_recorded(project, request, &error)];
            }
        } else {
            self.save_or_retry(project);
        }
        self.perform(project, actions)
    }

    fn perform(&mut self, name: &ProjectName, actions: Vec<Action>) -> Vec<Notice> {
        actions
            .into_iter()
            .flat_map(|action| self.perform_one(name, action))
            .collect()
    }

    fn perform_one(&mut self, name: &ProjectName, action: Action) -> Vec<Notice> {
        let Some(slot) = self.slots.get(name) else {
            return Vec::new();
        };
        let session = slot.session.as_ref();
        let project = slot.project.clone();
        match (action, session) {
            (Action::Finish(outcome), _) => Self::finish(name, outcome),
            (Action::RefuseWhileStopping(request), _) => {
                vec![Notice::RefusedWhileStopping {
                    project: name.clone(),
                    request,
                }]
            }
            (Action::Deliver(delivery, link), Some(session)) => {
                let id = DeliveryId {
                    project: name.clone(),
                    session: session.id().clone(),
                    number: delivery.number,
                };
                vec![Notice::Deliver {
                    id,
                    request: delivery.request,
                    link,
                }]
            }
            (Action::Spawn, Some(session)) => {
                self.tasks.spawn_process(
                    name,
                    session.id(),
                    project,
                    self.store.project_folder(name),
                );
                Vec::new()
            }
            (Action::Observe(process), Some(session)) => {
                self.tasks.observe(
                    name,
                    session,
                    process,
                    project,
                    self.store.project_folder(name),
                );
                Vec::new()
            }
            (Action::EndTree(process), Some(session)) => {
                self.tasks
                    .end_tree(name, session.id(), process, project.as_deref());
                Vec::new()
            }
            (Action::Save, _) | (_, None) => Vec::new(),
        }
    }

    fn finish(project: &ProjectName, outcome: Outcome) -> Vec<Notice> {
        info!(%project, ending = ?outcome.ending, report = ?outcome.report, "session over");
        let withdraw = |withdrawal| Notice::Withdraw {
            project: project.clone(),
            withdrawal,
        };
        // The link is taken back before anyone reads that it is of no use any more.
        let mut notices: Vec<_> = to_withdraw(&outcome).into_iter().map(withdraw).collect();
        notices.push(Notice::Over {
            project: project.clone(),
            outcome,
        });
        notices
    }

    fn save(&mut self, project: &ProjectName) -> Result<(), StoreError> {
        let slot = self.slots.entry(project.clone()).or_default();
        // The record borrows nothing, so it is lent what it writes and gives it back.
        let record = Record::new(slot.session.take(), mem::take(&mut slot.withdrawals));
        let result = self.store.save(project, &record);
        slot.session = record.session;
        slot.withdrawals = record.withdrawals;
        result
    }

    fn save_or_retry(&mut self, project: &ProjectName) {
        if let Err(error) = self.save(project) {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            error!(%project, %error, source, "session record not saved, trying again");
            self.tasks.save_again_later(project);
        }
    }
}

fn not_recorded(project: &ProjectName, request: Request, error: &StoreError) -> Notice {
    let source = std::error::Error::source(error)
        .map(ToString::to_string)
        .unwrap_or_default();
    error!(%project, %error, source, "request refused, it cannot be written down");
    Notice::NotRecorded {
        project: project.clone(),
        request,
        reason: source,
    }
}

/// All deliveries of a session whose link was known: those without a receipt may have arrived all the same.
fn to_withdraw(outcome: &Outcome) -> Vec<Withdrawal> {
    if !outcome.had_link {
        return Vec::new();
    }
    let withdrawal = |delivery: &Delivery| Withdrawal {
        session: outcome.session.clone(),
        delivery: delivery.clone(),
    };
    outcome.deliveries.iter().map(withdrawal).collect()
}

fn same_delivery(one: &Withdrawal, other: &Withdrawal) -> bool {
    one.session == other.session && one.delivery.number == other.delivery.number
}

fn log_transition(project: &ProjectName, before: &Session, after: &Session) {
    if mem::discriminant(before.state()) != mem::discriminant(after.state()) {
        info!(%project, session = %after.id(), state = ?after.state(), "session changed");
    }
}
