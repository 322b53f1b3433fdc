//! One session as a pure state machine: an event and the time go in, actions come out.
//!
//! ```text
//! Spawning ──spawned──▶ Starting ──link──▶ Running
//!    │                     │ exit, time-out, stop │ exit, stop
//!    │ stop                ▼                      ▼
//!    └────────────────▶ Stopping ──process tree gone──▶ over
//! ```
//!
//! Invariants: no I/O; every way out of life leads through `Stopping`, where the whole process tree is ended, but for a
//! process that never came to be.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{
    claude::Cause,
    process::{Exit, ProcessIdentity, StopReport},
};
use crate::link::Link;

/// A random name for one session: in the record, in the log, and in the environment of its processes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(String);

impl SessionId {
    /// A fresh one: 64 random bits.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("{:016x}", rand::random::<u64>()))
    }

    /// The text that stands in the environment of the session's processes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Somebody asked for something. Both texts belong to the caller and mean nothing here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who asked.
    pub requester: String,
    /// Names the request, so that the answer finds it even after a restart.
    pub reference: String,
}

/// Where a delivered link can be found again, to withdraw it. In the caller's words.
pub type Receipt = String;

/// One link on its way to one requester.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Tells apart the deliveries of one session.
    pub number: u32,
    /// Who asked for the link.
    pub request: Request,
    /// Set once the link has arrived.
    pub receipt: Option<Receipt>,
}

/// What a session is at. Only what holds in a state is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The record is on disk; the process may or may not exist yet.
    Spawning,
    /// The process runs and has not shown its link.
    Starting {
        /// The process.
        process: ProcessIdentity,
        /// Until when the link has to be there.
        deadline: SystemTime,
    },
    /// The process runs, its link is known.
    Running {
        /// The process.
        process: ProcessIdentity,
        /// The link.
        #[serde(with = "stored_link")]
        link: Link,
        /// Since when the link is known.
        since: SystemTime,
    },
    /// The process tree is being ended.
    Stopping {
        /// `None` where the process has not been seen yet.
        process: Option<ProcessIdentity>,
        /// Why.
        ending: Ending,
        /// Who wants to hear when it is done, besides those who wait for the link.
        stop_requests: Vec<Request>,
    },
}

/// Why a session ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The process could not be spawned.
    NotSpawned(NotSpawned),
    /// The process ended before it showed a link.
    ExitedBeforeLink {
        /// How.
        exit: Exit,
        /// Why, where its output tells.
        cause: Option<Cause>,
    },
    /// The process showed no link in time.
    NoLink {
        /// How long it had.
        waited: Duration,
        /// Why, where its output tells.
        cause: Option<Cause>,
    },
    /// Somebody asked for the end.
    Stopped,
    /// The process ended by itself.
    Exited {
        /// How.
        exit: Exit,
        /// Why, where its output tells.
        cause: Option<Cause>,
    },
}

/// Why a process could not be spawned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotSpawned {
    /// The program does not exist (ENOENT).
    CommandNotFound {
        /// The program.
        program: String,
    },
    /// The program may not be run (EACCES).
    NotExecutable {
        /// The program.
        program: String,
    },
    /// The project's directory does not exist.
    DirectoryGone {
        /// The directory.
        directory: String,
    },
    /// The project's directory may not be entered.
    DirectoryForbidden {
        /// The directory.
        directory: String,
    },
    /// Anything else, in the words of the operating system.
    Other {
        /// Those words.
        reason: String,
    },
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Somebody asks for the link.
    LinkRequested(Request),
    /// Somebody asks for the end.
    StopRequested(Request),
    /// The process exists.
    Spawned(ProcessIdentity),
    /// The process does not exist and will not.
    NotSpawned(NotSpawned),
    /// The process shows this link.
    LinkShown(Link),
    /// The time for a link is over.
    LinkTimedOut(Option<Cause>),
    /// The process ended.
    Exited(Exit, Option<Cause>),
    /// The process tree is gone.
    TreeGone(StopReport),
    /// The requester has the link.
    Delivered {
        /// Which delivery.
        number: u32,
        /// Where the link is.
        receipt: Receipt,
    },
    /// The requester cannot get the link.
    Undeliverable {
        /// Which delivery.
        number: u32,
    },
}

/// What is to be done, in this order. The record is saved before any of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the process.
    Spawn,
    /// Watch the process for its link, its end, and the time.
    Observe(ProcessIdentity),
    /// End the process tree.
    EndTree(Option<ProcessIdentity>),
    /// Bring the link to a requester.
    Deliver(Delivery, Link),
    /// The state changed in a way that only the record needs to know.
    Save,
    /// Refuse: the session is ending.
    RefuseWhileStopping(Request),
    /// The session is over; it has to be forgotten.
    Finish(Outcome),
}

/// How a session ended, and who has to hear of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The session.
    pub session: SessionId,
    /// Why it ended.
    pub ending: Ending,
    /// How the process tree ended, where there was one.
    pub report: Option<StopReport>,
    /// Who asked for the end.
    pub stop_requests: Vec<Request>,
    /// All deliveries that were ever begun. Without a receipt: it may or may not have arrived.
    pub deliveries: Vec<Delivery>,
    /// Whether a link was ever known.
    pub had_link: bool,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    id: SessionId,
    created: SystemTime,
    state: State,
    deliveries: Vec<Delivery>,
    next_delivery: u32,
    had_link: bool,
}

impl Session {
    /// A session for this request, and what to do for it.
    #[must_use]
    pub fn new(id: SessionId, request: Request, now: SystemTime) -> (Self, Vec<Action>) {
        let mut session = Self {
            id,
            created: now,
            state: State::Spawning,
            deliveries: Vec::new(),
            next_delivery: 0,
            had_link: false,
        };
        session.add_delivery(request);
        (session, vec![Action::Spawn])
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// What it is at.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When it was asked for.
    #[must_use]
    pub fn created(&self) -> SystemTime {
        self.created
    }

    /// Who asked for it first, unless that delivery was refused.
    #[must_use]
    pub fn requester(&self) -> Option<&str> {
        self.deliveries
            .first()
            .map(|delivery| delivery.request.requester.as_str())
    }

    /// What the session does about an event. `link_timeout` counts from when it was asked for.
    ///
    /// An event that makes no sense in the present state came late; it changes nothing.
    pub fn on(&mut self, event: Event, link_timeout: Duration, now: SystemTime) -> Vec<Action> {
        match event {
            Event::LinkRequested(request) => self.on_link_requested(request),
            Event::StopRequested(request) => self.on_stop_requested(request),
            Event::Spawned(process) => self.on_spawned(process, link_timeout),
            Event::NotSpawned(reason) => self.on_not_spawned(reason),
            Event::LinkShown(link) => self.on_link_shown(link, now),
            Event::LinkTimedOut(cause) => self.on_link_timed_out(cause, link_timeout),
            Event::Exited(exit, cause) => self.on_exited(exit, cause),
            Event::TreeGone(report) => self.on_tree_gone(report),
            Event::Delivered { number, receipt } => self.on_delivered(number, &receipt),
            Event::Undeliverable { number } => {
                self.deliveries.retain(|delivery| delivery.number != number);
                vec![Action::Save]
            }
        }
    }

    /// What a session that was read from disk needs to go on. `found`: its process, looked for by the session id in the
    /// environment of all processes, for the case that the record does not name it.
    pub fn resume(
        &mut self,
        found: Option<ProcessIdentity>,
        link_timeout: Duration,
    ) -> Vec<Action> {
        match &self.state {
            State::Spawning => match found {
                Some(process) => self.on_spawned(process, link_timeout),
                None => vec![Action::Spawn],
            },
            State::Starting { process, .. } => vec![Action::Observe(process.clone())],
            State::Running { process, link, .. } => {
                let undelivered = self
                    .deliveries
                    .iter()
                    .filter(|delivery| delivery.receipt.is_none());
                let deliveries =
                    undelivered.map(|delivery| Action::Deliver(delivery.clone(), link.clone()));
                std::iter::once(Action::Observe(process.clone()))
                    .chain(deliveries)
                    .collect()
            }
            State::Stopping { process, .. } => vec![Action::EndTree(process.clone().or(found))],
        }
    }

    fn add_delivery(&mut self, request: Request) -> Delivery {
        let delivery = Delivery {
            number: self.next_delivery,
            request,
            receipt: None,
        };
        self.next_delivery += 1;
        self.deliveries.push(delivery.clone());
        delivery
    }

    fn on_link_requested(&mut self, request: Request) -> Vec<Action> {
        match &self.state {
            State::Spawning | State::Starting { .. } => {
                self.add_delivery(request);
                vec![Action::Save]
            }
            State::Running { link, .. } => {
                let link = link.clone();
                vec![Action::Deliver(self.add_delivery(request), link)]
            }
            State::Stopping { .. } => vec![Action::RefuseWhileStopping(request)],
        }
    }

    fn on_stop_requested(&mut self, request: Request) -> Vec<Action> {
        let process = match &mut self.state {
            // The process comes to be at this moment: it is ended as soon as it is known.
            State::Spawning => None,
            State::Starting { process, .. } | State::Running { process, .. } => {
                Some(process.clone())
            }
            State::Stopping { stop_requests, .. } => {
                stop_requests.push(request);
                return vec![Action::Save];
            }
        };
        let was_spawning = process.is_none();
        self.state = State::Stopping {
            process: process.clone(),
            ending: Ending::Stopped,
            stop_requests: vec![request],
        };
        if was_spawning {
            vec![Action::Save]
        } else {
            vec![Action::EndTree(process)]
        }
    }

    fn on_spawned(&mut self, process: ProcessIdentity, link_timeout: Duration) -> Vec<Action> {
        match &mut self.state {
            State::Spawning => {
                let deadline = self.created + link_timeout;
                self.state = State::Starting {
                    process: process.clone(),
                    deadline,
                };
                vec![Action::Observe(process)]
            }
            State::Stopping { process: known, .. } => {
                *known = Some(process.clone());
                vec![Action::EndTree(Some(process))]
            }
            State::Starting { .. } | State::Running { .. } => Vec::new(),
        }
    }

    fn on_not_spawned(&mut self, reason: NotSpawned) -> Vec<Action> {
        match &self.state {
            State::Spawning => self.finish(Ending::NotSpawned(reason), None, Vec::new()),
            // Nothing came to be, so what was to be stopped is.
            State::Stopping {
                process: None,
                stop_requests,
                ..
            } => {
                let stop_requests = stop_requests.clone();
                self.finish(Ending::NotSpawned(reason), None, stop_requests)
            }
            State::Stopping { .. } | State::Starting { .. } | State::Running { .. } => Vec::new(),
        }
    }

    fn on_link_shown(&mut self, link: Link, now: SystemTime) -> Vec<Action> {
        match &self.state {
            State::Starting { process, .. } => {
                let process = process.clone();
                self.had_link = true;
                let waiting = self
                    .deliveries
                    .iter()
                    .filter(|delivery| delivery.receipt.is_none());
                let actions = waiting
                    .map(|delivery| Action::Deliver(delivery.clone(), link.clone()))
                    .collect();
                self.state = State::Running {
                    process,
                    link,
                    since: now,
                };
                actions
            }
            State::Spawning | State::Running { .. } | State::Stopping { .. } => Vec::new(),
        }
    }

    fn on_link_timed_out(&mut self, cause: Option<Cause>, waited: Duration) -> Vec<Action> {
        match &self.state {
            State::Starting { process, .. } => {
                let process = process.clone();
                self.end(process, Ending::NoLink { waited, cause })
            }
            State::Spawning | State::Running { .. } | State::Stopping { .. } => Vec::new(),
        }
    }

    fn on_exited(&mut self, exit: Exit, cause: Option<Cause>) -> Vec<Action> {
        match &self.state {
            State::Starting { process, .. } => {
                let process = process.clone();
                self.end(process, Ending::ExitedBeforeLink { exit, cause })
            }
            State::Running { process, .. } => {
                let process = process.clone();
                self.end(process, Ending::Exited { exit, cause })
            }
            // On its way out already; the tree is gone when it says so.
            State::Spawning | State::Stopping { .. } => Vec::new(),
        }
    }

    /// The end of the process is not the end of what it started.
    fn end(&mut self, process: ProcessIdentity, ending: Ending) -> Vec<Action> {
        self.state = State::Stopping {
            process: Some(process.clone()),
            ending,
            stop_requests: Vec::new(),
        };
        vec![Action::EndTree(Some(process))]
    }

    fn on_tree_gone(&mut self, report: StopReport) -> Vec<Action> {
        match &self.state {
            State::Stopping {
                ending,
                stop_requests,
                ..
            } => {
                let (ending, stop_requests) = (ending.clone(), stop_requests.clone());
                self.finish(ending, Some(report), stop_requests)
            }
            State::Spawning | State::Starting { .. } | State::Running { .. } => Vec::new(),
        }
    }

    fn on_delivered(&mut self, number: u32, receipt: &Receipt) -> Vec<Action> {
        for delivery in self
            .deliveries
            .iter_mut()
            .filter(|delivery| delivery.number == number)
        {
            delivery.receipt = Some(receipt.clone());
        }
        vec![Action::Save]
    }

    fn finish(
        &mut self,
        ending: Ending,
        report: Option<StopReport>,
        stop_requests: Vec<Request>,
    ) -> Vec<Action> {
        let deliveries = std::mem::take(&mut self.deliveries);
        let (session, had_link) = (self.id.clone(), self.had_link);
        vec![Action::Finish(Outcome {
            session,
            ending,
            report,
            stop_requests,
            deliveries,
            had_link,
        })]
    }
}

/// The one place where a link is written down: the record of its session, which nobody else may read (mode 0600).
mod stored_link {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::link::Link;

    pub(super) fn serialize<S: Serializer>(link: &Link, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(link.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Link, D::Error> {
        let text = String::deserialize(deserializer)?;
        Link::parse(&text).map_err(de::Error::custom)
    }
}
