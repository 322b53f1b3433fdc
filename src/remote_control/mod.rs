//! Supervises detached `claude remote-control` processes: starts, follows, restores and ends them.
//!
//! Usable without the rest of rcbot: [`RemoteControl`] takes requests and returns [`Notice`]s. Reports of its tasks come from
//! [`RemoteControl::next`] and go to [`RemoteControl::handle`]. One owner, no locks.
//!
//! ```text
//! request or report ─▶ session: Event ─▶ Effects ─▶ act: saved, then done ─▶ Notices, or a task that reports
//! ```
//!
//! - `session` decides, and is pure; `act` records its decisions, then carries them out; `tasks` and `watch` do the slow work.
//! - `restore` is for a start of the bot, `offline` works without a bot, `store` keeps the records, `clock` the time.
//! - `project` is how sessions run and what a start may ask for, `settings_file` what sessions must not change.
//! - `notice` is what the owner is notified of, `logs` the last lines for users, `folder` what is shown of a project's folder.
//! - `claude` knows that program, `process` knows Linux.
//!
//! Invariant: nothing here knows Matrix. Requesters, and where their answers go, are opaque texts of the caller.

mod act;
pub mod claude;
mod clock;
mod folder;
mod logs;
mod notice;
pub mod offline;
pub mod process;
mod project;
mod restore;
mod session;
pub(crate) mod settings_file;
mod store;
mod tasks;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
};
use tracing::info;

pub(crate) use claude::Place;
pub use claude::{Cause, Connection, LinkPattern, PatternError, Quote, SESSION_ID_VARIABLE};
pub(crate) use clock::{now, uptime_reached};
pub(crate) use folder::{FolderFacts, account, last_used, login_ends_in};
pub use logs::{LogReader, Output, OutputError};
pub use notice::{DeliveryId, Notice, Notices, Outcome, Phase, SessionStatus, Status};
pub use process::{Exit, NotSpawned, ProcessIdentity, StopReport, Usage};
pub(crate) use project::has_placeholder;
pub use project::{
    Choice, InvalidProjectName, InvalidSessionName, MAX_OUTPUT, NotAllowed, Options, Project,
    ProjectName, RECONNECT_LIMIT, STOP_GRACE, SessionName, SessionSettings, Start, StartOption,
};
pub use restore::RestoreError;
pub use session::{Beginning, Delivery, Ending, Redaction, Request, Restart, SessionId, WARNING};
pub(crate) use store::DATA_DIRECTORY_VARIABLE;
pub use store::{SESSION_FOLDER_VARIABLE, StoreError};

use crate::link::Link;
use session::{Effect, Event, Session, State, Terms};
use store::{Record, Store};
use tasks::Report;

/// How many lines of output are shown by default: what fits on two screens of a phone.
const SHOWN_LINES: usize = 40;

/// Where records and output are kept, and what may run.
#[derive(Debug)]
pub struct Settings {
    /// The folder of records: one folder in it for each project. Absolute.
    pub folder: PathBuf,
    /// This host's name, for `{host}` in commands.
    pub host: String,
    pub projects: Vec<Project>,
    /// How many sessions there may be at once: those that start, run, stop, or wait for a restart. `None`: one for each
    /// project.
    pub max_sessions: Option<usize>,
}

/// Something for [`RemoteControl::handle`], and opaque to everyone else. `None`: a time has come.
#[derive(Debug)]
pub struct Happened(Option<Report>);

/// A task panicked, which is a bug: its work would stay undone, such as seeing a process end. Records and processes are as
/// after a crash, so a caller that restores again can go on.
#[derive(Debug, thiserror::Error)]
#[error("a task that looks after sessions panicked")]
pub struct TaskPanicked;

/// The processes and memory that each session on this host uses.
pub type Usages = BTreeMap<SessionId, Usage>;

/// Looks at all processes of this host, so it may block for some milliseconds.
pub fn usage() -> Result<Usages, process::ProcessError> {
    process::usage_by(SESSION_ID_VARIABLE)
}

/// The data of one project.
#[derive(Debug, Default)]
struct Slot {
    /// `None`: the project left the configuration, or its folder left the root, while it had a session.
    project: Option<Arc<Project>>,
    record: Record,
    /// Its session was over before this start, so a project with autostart still has to be started.
    starts_when_over: bool,
    /// The uptime at which writing the record is tried again.
    save_again_at: Option<Duration>,
    spawning: Arc<Mutex<()>>,
}

impl Slot {
    fn terms(&self) -> Terms {
        let project = self.project.as_ref();
        project.map_or(Terms::ORPHANED, |project| project.settings.terms())
    }

    /// A start with the options that it leaves to the settings.
    fn complete(&self, start: &Start) -> Start {
        let project = self.project.as_ref();
        project.map_or_else(|| start.clone(), |it| it.settings.complete(start))
    }

    /// Whether a report still matters: the session is not over, and no other process has replaced this one.
    fn accepts(&self, id: &SessionId, process: Option<&ProcessIdentity>) -> bool {
        let session = self.record.session.as_ref();
        session.is_some_and(|session| {
            session.id() == id && (process.is_none() || process == session.process())
        })
    }

    fn find_delivery<T>(
        &self,
        project: &ProjectName,
        find: impl Fn(&Delivery) -> Option<T>,
    ) -> Option<(DeliveryId, Request, Link, T)> {
        let session = self.record.session.as_ref()?;
        let link = session.link()?;
        let mut deliveries = session.deliveries().iter();
        let (delivery, found) = deliveries.find_map(|it| Some((it, find(it)?)))?;
        let id = DeliveryId {
            project: project.clone(),
            session: session.id().clone(),
            number: delivery.number,
        };
        Some((id, delivery.request.clone(), link.clone(), found))
    }

    fn next_wake(&self) -> Option<Duration> {
        self.record.session.as_ref()?.next_wake(&self.terms())
    }
}

/// The owner of all sessions of this host and configuration. Dropping it ends its tasks and leaves the processes.
#[derive(Debug)]
pub struct RemoteControl {
    slots: BTreeMap<ProjectName, Slot>,
    store: Store,
    host: String,
    max_sessions: Option<usize>,
    running: JoinSet<()>,
    reporting: mpsc::Sender<Report>,
    reports: mpsc::Receiver<Report>,
}

impl RemoteControl {
    /// Requests the link of the project's session, which is started if there is none. A session with other options than the
    /// requested ones gives no link.
    pub fn start(
        &mut self,
        project: &ProjectName,
        start: impl Into<Start>,
        request: Request,
    ) -> Notices {
        let start = start.into();
        if self.session(project).is_some() {
            return self.apply(project, Event::LinkRequested(request, start));
        }
        self.begin(project, &start, vec![request])
    }

    /// Requests the end of the project's session.
    pub fn stop(&mut self, project: &ProjectName, request: Request) -> Notices {
        if let Some(slot) = self.slots.get_mut(project) {
            slot.starts_when_over = false;
        }
        self.ask_active(project, request, Event::StopRequested)
    }

    /// Requests more time for the project's session.
    pub fn extend(&mut self, project: &ProjectName, by: Duration, request: Request) -> Notices {
        self.ask_active(project, request, |request| {
            Event::ExtensionRequested(request, by)
        })
    }

    /// The last lines that the project's latest session printed. Links are replaced.
    pub fn output(&self, project: &ProjectName) -> Result<Output, OutputError> {
        self.log_reader(project, None).read()
    }

    /// A reader of so many of these lines. `None`: the default number.
    #[must_use]
    pub fn log_reader(&self, project: &ProjectName, lines: Option<usize>) -> LogReader {
        let slot = self.slots.get(project);
        let configured = slot.and_then(|slot| slot.project.as_ref());
        LogReader {
            folder: self.store.project_folder(project),
            pattern: configured.map(|project| project.settings.link_pattern.clone()),
            lines: lines.unwrap_or(SHOWN_LINES),
        }
    }

    /// The users who have the link of the project's session, or to whom it is being delivered.
    #[must_use]
    pub fn recipients(&self, project: &ProjectName) -> BTreeSet<String> {
        let session = self.session(project);
        let recipients = session.map(|session| session.requesters(|_| true));
        recipients.unwrap_or_default()
    }

    /// Where the records are: a folder for each project that has had a session.
    pub fn folder(&self) -> &Path {
        self.store.folder()
    }

    /// Adds or updates a project that is not in the configuration, for its next session. A present session keeps its own
    /// project, if that is known. Returns whether the project was taken.
    pub fn add_project(&mut self, project: Project) -> bool {
        let slot = self.slots.entry(project.name.clone()).or_default();
        let is_free = slot.project.is_none() || slot.record.session.is_none();
        if is_free {
            slot.project = Some(Arc::new(project));
        }
        is_free
    }

    /// One entry for each project of the configuration, and for each other one with a session, in the order of their names.
    pub fn status(&self) -> Vec<Status> {
        let uptime = now().uptime;
        let is_configured = |slot: &Slot| slot.project.as_ref().is_some_and(|it| !it.is_found);
        let slots = self.slots.iter();
        slots
            .filter(|(_, slot)| slot.record.session.is_some() || is_configured(slot))
            .map(|(name, slot)| Status::of(name, slot.record.session.as_ref(), uptime))
            .collect()
    }

    /// Whether a request for a link is still unanswered.
    pub fn has_unanswered_requests(&self) -> bool {
        let sessions = self.sessions().map(|(_, session)| session);
        // A session may wait for a restart for hours, and its requesters were notified of that.
        let sessions = sessions.filter(|session| Phase::of(session) != Phase::AwaitingRestart);
        let mut deliveries = sessions.flat_map(Session::deliveries);
        deliveries.any(|delivery| delivery.receipt.is_none())
    }

    /// Waits until there is something to handle. Cancel safe.
    pub async fn next(&mut self) -> Result<Happened, TaskPanicked> {
        let slots = self.slots.values();
        let due = slots.flat_map(|slot| [slot.save_again_at, slot.next_wake()]);
        let due = due.flatten().min();
        tokio::select! {
            panicked = next_panic(&mut self.running) => Err(panicked),
            Some(report) = self.reports.recv() => Ok(Happened(Some(report))),
            () = uptime_reached(due) => Ok(Happened(None)),
        }
    }

    /// Handles what [`RemoteControl::next`] returned.
    pub fn handle(&mut self, happened: Happened) -> Notices {
        let Some(report) = happened.0 else {
            return self.on_time();
        };
        let slot = self.slot(&report.project);
        if slot.accepts(&report.session, report.process.as_ref()) {
            self.apply(&report.project, report.event)
        } else {
            Vec::new()
        }
    }

    /// All requests that a delivery answers; of a session that is over, `first` only.
    pub fn requests(&self, id: &DeliveryId, first: &Request) -> Vec<Request> {
        match self.delivery(id) {
            Some(delivery) => delivery.requests().cloned().collect(),
            None => vec![first.clone()],
        }
    }

    /// Whether a delivery is still wanted: its session goes on, and shows that link.
    pub fn is_pending(&self, id: &DeliveryId) -> bool {
        self.delivery(id).is_some()
    }

    /// The delivery in which something is found, with its link, if its session still shows that link.
    pub fn find_delivery<T>(
        &self,
        find: impl Fn(&Delivery) -> Option<T>,
    ) -> Option<(DeliveryId, Request, Link, T)> {
        let mut slots = self.slots.iter();
        slots.find_map(|(project, slot)| slot.find_delivery(project, &find))
    }

    /// The link was delivered; the receipt says where. May be called again with a receipt that says more.
    pub fn delivered(&mut self, id: DeliveryId, request: Request, receipt: String) -> Notices {
        if self.is_pending(&id) {
            let number = id.number;
            return self.apply(&id.project, Event::Delivered { number, receipt });
        }
        // The link became invalid during the delivery: redact it at once.
        self.redact_at_once(id, request, Some(receipt))
    }

    /// The delivery was cancelled. If it was `tried`, the link may have arrived and is redacted at once; if not, there is
    /// nothing to redact.
    pub fn cancelled(&mut self, id: DeliveryId, request: Request, tried: bool) -> Notices {
        if tried {
            return self.redact_at_once(id, request, None);
        }
        let record = &mut self.slot(&id.project).record;
        record.remove_redaction(&id.session, id.number);
        drop(self.save(&id.project));
        Vec::new()
    }

    /// The link cannot be delivered. The session stays for a next try.
    pub fn undeliverable(&mut self, id: &DeliveryId) -> Notices {
        if !self.is_pending(id) {
            return Vec::new();
        }
        self.apply(&id.project, Event::Undeliverable { number: id.number })
    }

    pub fn redacted(&mut self, project: &ProjectName, redaction: &Redaction) {
        let record = &mut self.slot(project).record;
        record.remove_redaction(&redaction.session, redaction.delivery.number);
        drop(self.save(project));
    }

    fn redact_at_once(
        &mut self,
        id: DeliveryId,
        request: Request,
        receipt: Option<String>,
    ) -> Notices {
        let redaction = Redaction {
            session: id.session,
            delivery: Delivery {
                number: id.number,
                request,
                also: Vec::new(),
                receipt,
            },
        };
        let record = &mut self.slot(&id.project).record;
        record.add_redaction(redaction.clone());
        drop(self.save(&id.project));
        vec![(id.project, Notice::Redact(redaction))]
    }

    fn delivery(&self, id: &DeliveryId) -> Option<&Delivery> {
        let session = self.session(&id.project)?;
        let delivery = session.delivery(id.number);
        delivery.filter(|_| *session.id() == id.session)
    }

    fn begin(&mut self, project: &ProjectName, start: &Start, requests: Vec<Request>) -> Notices {
        // Checked right before the slot is taken, so that two starts cannot both get the last place.
        let active: Vec<_> = self.sessions().map(|(name, _)| name.clone()).collect();
        if let Some(limit) = self.max_sessions
            && active.len() >= limit
        {
            let notice = Notice::TooManySessions {
                requests,
                limit,
                active,
            };
            return vec![(project.clone(), notice)];
        }
        let slot = self.slot(project);
        let before = slot.record.clone();
        let id = SessionId::random();
        let start = slot.complete(start);
        let (mode, spawn) = (&start.options.mode, &start.options.spawn);
        info!(%project, session = %id, beginning = ?start.beginning, mode, spawn, "session starting");
        let session = Session::new(id, start, requests.clone(), &slot.terms(), now());
        slot.record.session = Some(session);
        self.save_and_act(project, before, requests, vec![Effect::Spawn])
    }

    fn ask_active(
        &mut self,
        project: &ProjectName,
        request: Request,
        event: impl FnOnce(Request) -> Event,
    ) -> Notices {
        if self.session(project).is_none() {
            return vec![(project.clone(), Notice::NoSession(request))];
        }
        self.apply(project, event(request))
    }

    fn session(&self, project: &ProjectName) -> Option<&Session> {
        self.slots.get(project)?.record.session.as_ref()
    }

    fn sessions(&self) -> impl Iterator<Item = (&ProjectName, &Session)> {
        let slots = self.slots.iter();
        slots.filter_map(|(name, slot)| Some((name, slot.record.session.as_ref()?)))
    }

    fn slot(&mut self, project: &ProjectName) -> &mut Slot {
        self.slots.entry(project.clone()).or_default()
    }
}

/// Waits for a task that panics. Forgets those that end well, so that their number stays that of the sessions.
async fn next_panic(tasks: &mut JoinSet<()>) -> TaskPanicked {
    loop {
        match tasks.join_next().await {
            Some(Err(error)) if error.is_panic() => return TaskPanicked,
            Some(Ok(()) | Err(_)) => {}
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &tempfile::TempDir) -> Settings {
        Settings {
            folder: folder.path().join("sessions"),
            host: "host".to_owned(),
            projects: Vec::new(),
            max_sessions: None,
        }
    }

    fn process(pid: i32) -> ProcessIdentity {
        let json = serde_json::json!({ "pid": pid, "start_time": 1, "boot_id": "boot" });
        serde_json::from_value(json).unwrap()
    }

    #[tokio::test]
    async fn the_owner_is_informed_only_of_a_task_that_panicked() {
        let folder = tempfile::TempDir::new().unwrap();
        let (mut sessions, _) = RemoteControl::restore(settings(&folder), |_| None).unwrap();
        let (go_on, gone_on) = tokio::sync::oneshot::channel::<()>();
        sessions.running.spawn(async { go_on.send(()).unwrap() });
        sessions.running.spawn(async {
            gone_on.await.unwrap();
            panic!("as it must");
        });
        let next = tokio::time::timeout(Duration::from_mins(1), sessions.next()).await;
        assert!(matches!(next, Ok(Err(TaskPanicked))), "{next:?}");
    }

    #[test]
    fn a_report_on_a_process_counts_until_another_replaces_it() {
        let mut slot = Slot::default();
        let id = SessionId::random();
        assert!(!slot.accepts(&id, None));
        let (now, terms) = (now(), slot.terms());
        let mut session =
            Session::new(id.clone(), Beginning::Fresh.into(), Vec::new(), &terms, now);
        session.on(Event::Spawned(process(2)), &terms, now);
        slot.record.session = Some(session);
        assert!(slot.accepts(&id, None) && slot.accepts(&id, Some(&process(2))));
        assert!(!slot.accepts(&id, Some(&process(1))), "of the one before");
        assert!(!slot.accepts(&SessionId::random(), None));
    }

    #[tokio::test]
    async fn a_late_report_on_a_delivery_changes_none_of_the_next_session() {
        let folder = tempfile::TempDir::new().unwrap();
        let (mut sessions, _) = RemoteControl::restore(settings(&folder), |_| None).unwrap();
        let request = Request {
            requester: "alice".to_owned(),
            reference: String::new(),
        };
        let project: ProjectName = "website".parse().unwrap();
        let (id, terms) = (SessionId::random(), Terms::ORPHANED);
        let (start, requests) = (Beginning::Fresh.into(), vec![request.clone()]);
        let next = Session::new(id, start, requests, &terms, now());
        sessions.slot(&project).record.session = Some(next.clone());
        let late = DeliveryId {
            project: project.clone(),
            session: SessionId::random(),
            number: 0,
        };
        assert!(sessions.undeliverable(&late).is_empty());
        let notices = sessions.delivered(late.clone(), request, "receipt".to_owned());
        assert!(
            matches!(&notices[..], [(_, Notice::Redact(it))] if it.session == late.session),
            "{notices:?}"
        );
        assert_eq!(sessions.session(&project), Some(&next));
    }

    #[tokio::test]
    async fn a_cancelled_delivery_is_redacted_only_if_it_may_have_arrived() {
        let folder = tempfile::TempDir::new().unwrap();
        let id = DeliveryId {
            project: "website".parse().unwrap(),
            session: SessionId::random(),
            number: 1,
        };
        let request = Request {
            requester: "alice".to_owned(),
            reference: String::new(),
        };
        let (mut sessions, _) = RemoteControl::restore(settings(&folder), |_| None).unwrap();
        let notices = sessions.cancelled(id.clone(), request.clone(), true);
        assert!(
            matches!(&notices[..], [(_, Notice::Redact(redaction))] if redaction.session == id.session),
            "{notices:?}"
        );
        let (mut restored, notices) = RemoteControl::restore(settings(&folder), |_| None).unwrap();
        assert!(matches!(notices[..], [(_, Notice::Redact(_))]), "on disk");
        assert!(restored.cancelled(id, request, false).is_empty());
        let (_, notices) = RemoteControl::restore(settings(&folder), |_| None).unwrap();
        assert!(notices.is_empty(), "{notices:?}");
    }
}
