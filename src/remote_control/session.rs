//! One session as a pure state machine: an event and the time go in, effects come out.
//!
//! ```text
//!    ┌────────────── time to try again ──────────────┐
//!    ▼                                               │
//! Spawning ──spawned──▶ Starting ──link──▶ Running   │
//!    │                     │                  │      │
//!    │ stop                │ exit, time-out,  │ exit, stop, end of its time
//!    │                     ▼ stop             ▼      │
//!    └─────────────────▶ Stopping ──tree gone──▶ AwaitingRestart (where it is to come back), or over
//! ```
//!
//! Invariants: no I/O; a session ends only through `Stopping`, where the whole process tree is ended, unless its process was
//! never spawned.

mod ending;
mod life;
mod running;

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{
    claude::{Cause, Connection},
    clock::Moment,
    process::{Exit, NotSpawned, ProcessIdentity},
    project::Start,
};
use crate::link::Link;

pub(crate) use life::{Effect, Event};
pub(crate) use running::MOST_COMPLAINTS;

/// How long before its end a session's requesters are warned.
pub const WARNING: Duration = Duration::from_mins(10);

/// What the project's settings say about the life of a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// How long a process may run without showing its link. `None`: the link is not looked for.
    pub(crate) link_timeout: Option<Duration>,
    /// How long a session may last; `None`: until it is stopped.
    pub(crate) max_duration: Option<Duration>,
    /// How long it may be cut off from its service; `None`: for any time.
    pub(crate) reconnect_limit: Option<Duration>,
    pub(crate) restart: Restart,
}

impl Terms {
    /// A session without a project goes on until it is stopped, and is not restarted. Its link is not looked for.
    pub(crate) const ORPHANED: Self = Self {
        link_timeout: None,
        max_duration: None,
        reconnect_limit: None,
        restart: Restart::Never,
    };
}

/// Whether a session that ended unexpectedly is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    Never,
    /// Yes, after a delay that grows with each time, for as long as the session's time lasts.
    OnExit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Beginning {
    /// The project's `command`.
    Fresh,
    /// The project's `resume_command`, which brings back the last conversation.
    Resumed,
}

/// When a session has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    /// The uptime at which its time is up; this one is decisive.
    uptime: Duration,
    /// The same by the wall clock, in case the host is booted in between.
    wall: SystemTime,
    /// Whether the requesters were warned.
    warned: bool,
}

/// A random name for one session: in the record, in the log, and in the environment of its processes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(String);

impl SessionId {
    /// A new one: 64 random bits.
    pub fn random() -> Self {
        Self(format!("{:016x}", rand::random::<u64>()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for SessionId {
    fn from(id: String) -> Self {
        Self(id)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A user's request. Both texts belong to the caller and are opaque here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub requester: String,
    /// Identifies the request, so that the answer finds it even after a restart.
    pub reference: String,
}

/// One link on its way to one requester.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Distinguishes the deliveries of one session.
    pub number: u32,
    pub request: Request,
    /// Requests of the same requester while this was under way: one message answers them all.
    #[serde(default)]
    pub also: Vec<Request>,
    /// Where the delivered link can be found again, as the caller's text. `None`: not delivered, as far as is known.
    pub receipt: Option<String>,
}

impl Delivery {
    /// All requests that it answers.
    pub fn requests(&self) -> impl Iterator<Item = &Request> {
        std::iter::once(&self.request).chain(&self.also)
    }
}

/// A link that has to be redacted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redaction {
    pub session: SessionId,
    /// How it was delivered. Without a receipt it may or may not have arrived.
    pub delivery: Delivery,
}

/// The state of a session, with the data of that state only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// The record is on disk; the process may or may not exist yet.
    Spawning {
        /// The uptime at which it was to be spawned.
        since: Duration,
    },
    /// The process runs and has not shown its link.
    Starting {
        process: ProcessIdentity,
        /// The uptime by which the link has to be there.
        deadline: Duration,
    },
    /// The process runs, its link is known.
    Running {
        process: ProcessIdentity,
        #[serde(with = "stored_link")]
        link: Link,
        /// The uptime at which the link was first known.
        since: Duration,
    },
    /// The process tree is being ended.
    Stopping {
        /// `None` where the process has not been seen yet.
        process: Option<ProcessIdentity>,
        ending: Ending,
        /// Requests to answer when it is done, besides those for the link.
        stop_requests: Vec<Request>,
        /// The uptime at which their users are notified that it takes a while.
        #[serde(default, rename = "told_at")]
        slow_at: Option<Duration>,
    },
    /// The process ended unexpectedly or could not start, and another will replace it.
    #[serde(rename = "resting")]
    AwaitingRestart {
        /// The uptime at which that one is to be spawned.
        until: Duration,
        /// The cause of the restart.
        #[serde(default)]
        cause: Option<Cause>,
    },
}

/// Why a session ends. A cause is there if the output shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The process could not be spawned.
    NotSpawned(NotSpawned),
    /// The process ended before it showed a link.
    ExitedBeforeLink { exit: Exit, cause: Option<Cause> },
    /// The process showed no link in time.
    NoLink {
        waited: Duration,
        cause: Option<Cause>,
    },
    /// A user requested the end.
    Stopped,
    /// Its time was up.
    Expired,
    /// The host was restarted, which no process outlives.
    HostRestarted,
    /// The process exited, although it was not asked to.
    Exited { exit: Exit, cause: Option<Cause> },
    /// The conversation that it brought back is over, and so is the process.
    Completed,
    /// The process runs, but was cut off from its service for too long.
    CutOff { lasted: Duration },
}

impl Ending {
    /// What the program complained of, where that is known.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Self::ExitedBeforeLink { cause, .. }
            | Self::NoLink { cause, .. }
            | Self::Exited { cause, .. } => *cause,
            Self::NotSpawned(_)
            | Self::Stopped
            | Self::Expired
            | Self::HostRestarted
            | Self::Completed
            | Self::CutOff { .. } => None,
        }
    }

    /// Whether the process showed its link before.
    pub fn came_after_link(&self) -> bool {
        match self {
            Self::Exited { .. }
            | Self::Completed
            | Self::CutOff { .. }
            | Self::Expired
            | Self::HostRestarted => true,
            Self::NotSpawned(_)
            | Self::ExitedBeforeLink { .. }
            | Self::NoLink { .. }
            | Self::Stopped => false,
        }
    }

    /// The same without details that make no difference to users: they need not be notified of two such endings.
    fn in_short(&self) -> Self {
        match self {
            Self::ExitedBeforeLink { exit, cause } | Self::Exited { exit, cause } => Self::Exited {
                // The program's complaint says more than its exit code.
                exit: cause.map_or(*exit, |_| Exit::Unknown),
                cause: *cause,
            },
            Self::NoLink { cause, .. } => Self::NoLink {
                waited: Duration::ZERO,
                cause: *cause,
            },
            Self::CutOff { .. } => Self::CutOff {
                lasted: Duration::ZERO,
            },
            Self::NotSpawned(_)
            | Self::Stopped
            | Self::Expired
            | Self::HostRestarted
            | Self::Completed => self.clone(),
        }
    }
}

/// The state of the connection that the program showed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct ShownConnection {
    connection: Connection,
    /// The uptime since which it is so.
    since: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    id: SessionId,
    created: SystemTime,
    #[serde(flatten)]
    start: Start,
    state: State,
    /// All that are not redacted.
    deliveries: Vec<Delivery>,
    next_delivery: u32,
    had_link: bool,
    end: Option<End>,
    /// How often it was restarted since it last ran well, not counting waits for a cause that lapses.
    restarts: u32,
    /// The reasons for restarts since then, each in short and once, that users were notified of.
    #[serde(default, rename = "told")]
    reported: Vec<Ending>,
    /// Requests for the link, or then for the end, that have had no answer yet.
    #[serde(default, rename = "unheard")]
    unanswered: Vec<Request>,
    /// `None`: its process has not shown it so far.
    #[serde(default, rename = "heard")]
    shown: Option<ShownConnection>,
    /// The uptime at which users were last notified that it is cut off.
    #[serde(default, rename = "cut_off_told")]
    cut_off_reported: Option<Duration>,
    /// Complaints that users were notified of.
    #[serde(default)]
    complaints: Vec<running::Complaint>,
    /// Why some of its processes cannot be ended. Determined again after a restart.
    #[serde(skip)]
    not_ended: Option<String>,
}

impl Session {
    pub(crate) fn id(&self) -> &SessionId {
        &self.id
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// The process that runs it now, if there is one and it is known.
    pub(crate) fn process(&self) -> Option<&ProcessIdentity> {
        match &self.state {
            State::Starting { process, .. } | State::Running { process, .. } => Some(process),
            State::Stopping { process, .. } => process.as_ref(),
            State::Spawning { .. } | State::AwaitingRestart { .. } => None,
        }
    }

    /// The link, while the session runs.
    pub(crate) fn link(&self) -> Option<&Link> {
        let State::Running { link, .. } = &self.state else {
            return None;
        };
        Some(link)
    }

    /// The requests to answer at its end.
    fn stop_requests(&self) -> &[Request] {
        let State::Stopping { stop_requests, .. } = &self.state else {
            return &[];
        };
        stop_requests
    }

    /// The start with which it runs.
    pub(crate) fn start(&self) -> &Start {
        &self.start
    }

    /// When it was asked for.
    pub(crate) fn created(&self) -> SystemTime {
        self.created
    }

    /// The user who requested it first, unless that delivery was refused.
    pub(crate) fn requester(&self) -> Option<&str> {
        let first = self.deliveries.first();
        first.map(|delivery| delivery.request.requester.as_str())
    }

    /// How long it may still last, at that uptime. `None`: until it is stopped.
    pub(crate) fn time_left(&self, uptime: Duration) -> Option<Duration> {
        self.end.map(|end| end.uptime.saturating_sub(uptime))
    }

    /// The state of its connection, at that uptime.
    pub(crate) fn connection(&self, uptime: Duration) -> Option<Connection> {
        let ShownConnection { connection, since } = self.shown?;
        Some(match connection {
            Connection::Reconnecting { .. } => Connection::Reconnecting {
                disconnected: Some(uptime.saturating_sub(since)),
            },
            Connection::Connecting | Connection::Connected => connection,
        })
    }

    pub(crate) fn deliveries(&self) -> &[Delivery] {
        &self.deliveries
    }

    /// A delivery that is still wanted.
    pub(crate) fn delivery(&self, number: u32) -> Option<&Delivery> {
        let mut all = self.deliveries.iter();
        all.find(|delivery| delivery.number == number)
    }
}

/// The one place where a link is stored: the record of its session, which nobody else may read (mode 0600).
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

#[cfg(test)]
mod tests;
