//! Supervises detached `claude remote-control` processes: starts, follows, restores and ends them.
//!
//! Usable without the rest of rcbot: [`RemoteControl`] takes requests and gives [`Notice`]s; between them its tasks send
//! [`Happened`]s, which the owner hands back to [`RemoteControl::handle`]. One owner, no locks.
//!
//! Invariant: nothing here knows Matrix. Who asks, and where the answer goes, are texts that belong to the caller.

mod account;
mod act;
pub mod claude;
mod deliveries;
mod logs;
mod notice;
pub mod offline;
pub mod process;
mod project;
mod restore;
mod session;
mod store;
mod tasks;
mod watch;

use std::{collections::BTreeMap, mem, path::PathBuf, sync::Arc, time::Duration};

use tracing::{error, info};

pub use account::account;
pub use claude::{Cause, LinkPattern, PatternError, SESSION_ID_VARIABLE};
pub use logs::{Output, OutputError};
pub use notice::{DeliveryId, Notice, Phase, SessionStatus, Status};
pub use process::{Exit, NotSpawned, ProcessIdentity, StopReport, Usage};
pub use project::{
    InvalidProjectName, MAX_OUTPUT, Project, ProjectName, STOP_GRACE, SessionSettings,
};
pub use restore::RestoreError;
pub use session::{
    Action, Beginning, Delivery, Ending, Event, Moment, Outcome, Receipt, Request, Restart,
    Session, SessionId, State, Terms, WARNING,
};
pub use store::{StoreError, Withdrawal};
pub use tasks::{DATA_DIRECTORY_VARIABLE, SESSION_FOLDER_VARIABLE};

use store::{Record, Store};
use tasks::Tasks;

/// How many lines of output are shown to people: what fits on two screens of a phone.
const SHOWN_LINES: usize = 40;

/// Where records and output are kept, and what may run.
#[derive(Debug)]
pub struct Settings {
    /// The folder of records: one folder in it for each project. Absolute.
    pub folder: PathBuf,
    /// This host's name, for `{host}` in commands.
    pub host: String,
    /// The projects of the configuration.
    pub projects: Vec<Project>,
    /// How many sessions there may be at once: those that start, run, stop, or rest before they come back. `None`: one for
    /// each project.
    pub max_sessions: Option<usize>,
}

/// Something came about in a task. For [`RemoteControl::handle`], and opaque to everyone else.
#[derive(Debug)]
pub struct Happened(What);

#[derive(Debug)]
enum What {
    Session {
        project: ProjectName,
        session: SessionId,
        /// The process that it was seen of. `None`: it is of the session as a whole.
        process: Option<ProcessIdentity>,
        event: Event,
    },
    /// Some processes of a session cannot be ended.
    NotEnded {
        project: ProjectName,
        session: SessionId,
        error: process::StopError,
    },
    /// It is time to try again to write a record.
    SaveAgain {
        project: ProjectName,
    },
    Panicked,
}

/// A task panicked, which is a bug: what it was to do would stay undone, such as to see a process end. Records and processes
/// are as good as after a crash, so whoever restores anew goes on.
#[derive(Debug, thiserror::Error)]
#[error("a task that looks after sessions panicked")]
pub struct TaskPanicked;

/// What the processes of each session on this host take of it. Looks at all processes, so it may block for some
/// milliseconds.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn usage() -> Result<BTreeMap<SessionId, Usage>, process::ProcessError> {
    let by_id = process::usage_by(SESSION_ID_VARIABLE)?.into_iter();
    Ok(by_id
        .map(|(id, usage)| (SessionId::from(id), usage))
        .collect())
}

/// What is kept for one project.
#[derive(Debug, Default)]
struct Slot {
    /// `None`: the project left the configuration while it had a session.
    project: Option<Arc<Project>>,
    session: Option<Session>,
    withdrawals: Vec<Withdrawal>,
    /// Its session was over before we came, so that a project with autostart is still to be started.
    starts_when_over: bool,
    /// Why processes of the session are left that cannot be ended.
    not_ended: Option<String>,
    /// The record could not be written, and is to be tried again.
    save_is_due: bool,
}

impl Slot {
    fn terms(&self) -> Terms {
        // A session without a project goes on until it is stopped, and does not come back. Nobody looks for its link.
        let orphaned = Terms {
            link_timeout: None,
            max_duration: None,
            restart: Restart::Never,
        };
        self.project
            .as_ref()
            .map_or(orphaned, |project| project.settings.terms())
    }

    fn has_session(&self, id: &SessionId) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.id() == id)
    }

    /// A session that is over has nothing more to hear, nor has one of a process whose place another has taken.
    fn awaits(&self, id: &SessionId, process: Option<&ProcessIdentity>) -> bool {
        let session = self.session.as_ref().filter(|session| session.id() == id);
        session.is_some_and(|session| process.is_none() || process == session.process())
    }

    fn note_withdrawal(&mut self, withdrawal: Withdrawal) {
        self.withdrawals
            .retain(|known| !known.is_same_delivery(&withdrawal));
        self.withdrawals.push(withdrawal);
    }
}

/// The owner of all sessions of this host and configuration.
#[derive(Debug)]
pub struct RemoteControl {
    slots: BTreeMap<ProjectName, Slot>,
    store: Store,
    tasks: Tasks,
    max_sessions: Option<usize>,
}

impl RemoteControl {
    /// Asks for the link of the project's session, which is started if there is none.
    pub fn start(
        &mut self,
        project: &ProjectName,
        beginning: Beginning,
        request: Request,
    ) -> Vec<Notice> {
        let slot = self.slots.entry(project.clone()).or_default();
        if slot.session.is_some() {
            let event = match beginning {
                Beginning::Fresh => Event::LinkRequested(request),
                Beginning::Resumed => Event::ResumeRequested(request),
            };
            return self.apply(project, event);
        }
        self.begin(project, beginning, vec![request])
    }

    /// Asks for the end of the project's session.
    pub fn stop(&mut self, project: &ProjectName, request: Request) -> Vec<Notice> {
        if let Some(slot) = self.slots.get_mut(project) {
            slot.starts_when_over = false;
        }
        let mut notices = self.ask_running(project, request.clone(), Event::StopRequested);
        // Nobody knows when it will be over, so whoever asks has an answer now.
        notices.extend(self.not_ended(project, vec![request]));
        notices
    }

    fn not_ended(&self, project: &ProjectName, requests: Vec<Request>) -> Option<Notice> {
        let slot = self.slots.get(project)?;
        Some(Notice::NotEnded {
            project: project.clone(),
            requests,
            reason: slot.not_ended.clone()?,
        })
    }

    /// Asks for more time for the project's session.
    pub fn extend(&mut self, project: &ProjectName, by: Duration, request: Request) -> Vec<Notice> {
        self.ask_running(project, request, |request| {
            Event::ExtensionRequested(request, by)
        })
    }

    /// The last lines that the project's latest session printed. Links are blotted out.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn output(&self, project: &ProjectName) -> Result<Output, OutputError> {
        let pattern = self
            .slots
            .get(project)
            .and_then(|slot| slot.project.as_ref())
            .map(|project| &project.settings.link_pattern);
        let folder = self.store.project_folder(project)?;
        logs::last_lines(&folder, pattern, SHOWN_LINES)
    }

    /// One entry a project, in the order of their names.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        let uptime = tasks::now().uptime;
        let slots = self.slots.iter();
        slots
            .map(|(name, slot)| Status::of(name, slot.session.as_ref(), uptime))
            .collect()
    }

    /// Whether somebody waits to hear what came of asking for a link.
    #[must_use]
    pub fn owes_answers(&self) -> bool {
        let sessions = self.slots.values().filter_map(|slot| slot.session.as_ref());
        let mut deliveries = sessions.flat_map(Session::deliveries);
        deliveries.any(|delivery| delivery.receipt.is_none())
    }

    /// Takes in what a task reports.
    ///
    /// # Errors
    /// [`TaskPanicked`].
    pub fn handle(&mut self, happened: Happened) -> Result<Vec<Notice>, TaskPanicked> {
        Ok(match happened.0 {
            What::Session {
                project,
                session,
                process,
                event,
            } => {
                let slot = self.slots.get(&project);
                if slot.is_some_and(|slot| slot.awaits(&session, process.as_ref())) {
                    self.apply(&project, event)
                } else {
                    Vec::new()
                }
            }
            What::NotEnded {
                project,
                session,
                error,
            } => {
                let slot = self.slots.entry(project.clone()).or_default();
                let Some(of_slot) = slot.session.as_ref().filter(|it| *it.id() == session) else {
                    return Ok(Vec::new());
                };
                let requests = of_slot.stop_requests().to_vec();
                slot.not_ended = Some(in_full(&error));
                self.not_ended(&project, requests).into_iter().collect()
            }
            What::SaveAgain { project } => {
                self.slots.entry(project.clone()).or_default().save_is_due = false;
                self.save_or_retry(&project);
                Vec::new()
            }
            What::Panicked => return Err(TaskPanicked),
        })
    }

    /// The projects that have a session, in whatever phase.
    fn active(&self) -> Vec<ProjectName> {
        let slots = self.slots.iter();
        slots
            .filter(|(_, slot)| slot.session.is_some())
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn begin(
        &mut self,
        project: &ProjectName,
        beginning: Beginning,
        requests: Vec<Request>,
    ) -> Vec<Notice> {
        // Looked at here, where the slot is taken in the same breath, so that two starts cannot both get the last place.
        let active = self.active();
        if let Some(limit) = self.max_sessions
            && active.len() >= limit
        {
            let project = project.clone();
            return vec![Notice::TooManySessions {
                project,
                requests,
                limit,
                active,
            }];
        }
        let slot = self.slots.entry(project.clone()).or_default();
        let id = SessionId::random();
        info!(%project, session = %id, ?beginning, "session starting");
        let (session, actions) =
            Session::new(id, beginning, requests.clone(), &slot.terms(), tasks::now());
        slot.session = Some(session);
        if let Err(error) = self.save(project) {
            self.slots.entry(project.clone()).or_default().session = None;
            // What could not be written to the end may stand there all the same.
            self.save_or_retry(project);
            let refuse = |request| not_recorded(project, request, &error);
            return requests.into_iter().map(refuse).collect();
        }
        self.perform(project, actions)
    }

    fn ask_running(
        &mut self,
        project: &ProjectName,
        request: Request,
        event: impl FnOnce(Request) -> Event,
    ) -> Vec<Notice> {
        let slot = self.slots.get(project);
        if slot.is_none_or(|slot| slot.session.is_none()) {
            let project = project.clone();
            return vec![Notice::NoSession { project, request }];
        }
        self.apply(project, event(request))
    }

    fn save(&mut self, project: &ProjectName) -> Result<(), StoreError> {
        let slot = self.slots.entry(project.clone()).or_default();
        // The record owns what it writes, so it is lent that and gives it back.
        let record = Record::new(slot.session.take(), mem::take(&mut slot.withdrawals));
        let result = self.store.save(project, &record);
        slot.session = record.session;
        slot.withdrawals = record.withdrawals;
        result
    }

    fn save_or_retry(&mut self, project: &ProjectName) {
        if let Err(error) = self.save(project) {
            error!(%project, %error, source = cause_of(&error), "session record not saved, trying again");
            let slot = self.slots.entry(project.clone()).or_default();
            if !mem::replace(&mut slot.save_is_due, true) {
                self.tasks.save_again_later(project);
            }
        }
    }
}

fn not_recorded(project: &ProjectName, request: Request, error: &StoreError) -> Notice {
    let reason = cause_of(error);
    error!(%project, %error, reason, "request refused, it cannot be written down");
    Notice::NotRecorded {
        project: project.clone(),
        request,
        reason,
    }
}

/// An error and what caused it, in one line.
fn in_full(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn cause_of(error: &StoreError) -> String {
    let source = std::error::Error::source(error);
    source.map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32) -> ProcessIdentity {
        let json = serde_json::json!({ "pid": pid, "start_time": 1, "boot_id": "boot" });
        serde_json::from_value(json).unwrap()
    }

    #[tokio::test]
    async fn the_owner_is_told_of_a_task_that_panicked() {
        let folder = tempfile::TempDir::new().unwrap();
        let settings = Settings {
            folder: folder.path().join("sessions"),
            host: "host".to_owned(),
            projects: Vec::new(),
            max_sessions: None,
        };
        let (mut sessions, _happened, _) = RemoteControl::restore(settings).unwrap();
        assert!(sessions.handle(Happened(What::Panicked)).is_err());
    }

    #[test]
    fn what_was_seen_of_a_process_counts_until_another_takes_its_place() {
        let mut slot = Slot::default();
        let id = SessionId::random();
        assert!(!slot.awaits(&id, None));
        let (now, terms) = (tasks::now(), slot.terms());
        let (mut session, _) = Session::new(id.clone(), Beginning::Fresh, Vec::new(), &terms, now);
        session.on(Event::Spawned(process(2)), &terms, now);
        slot.session = Some(session);
        assert!(slot.awaits(&id, None) && slot.awaits(&id, Some(&process(2))));
        assert!(!slot.awaits(&id, Some(&process(1))), "of the one before");
        assert!(!slot.awaits(&SessionId::random(), None));
    }
}
