//! One session as a pure state machine: an event and the time go in, effects come out.
//!
//! ```text
//!    ┌────────────── time to try again ──────────────┐
//!    ▼                                               │
//! Spawning ──spawned──▶ Starting ──link──▶ Running   │
//!    │                     │                  │      │
//!    │ stop                │ exit, time-out,  │ exit, stop, end of its time
//!    │                     ▼ stop             ▼      │
//!    └─────────────────▶ Stopping ──tree gone──▶ Resting (where it is to come back), or over
//! ```
//!
//! Invariants: no I/O; every way out of life leads through `Stopping`, where the whole process tree is ended, but for a
//! process that never came to be.

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
    options::{Options, Start},
    process::{Exit, NotSpawned, ProcessIdentity},
};
use crate::link::Link;

pub(crate) use life::{Effect, Event};
pub(crate) use running::MOST_COMPLAINTS;

/// How long before its end a session's requesters are warned.
pub const WARNING: Duration = Duration::from_mins(10);

/// What the project's settings say about the life of a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// How long a process may run without showing its link. `None`: nobody looks for it.
    pub(crate) link_timeout: Option<Duration>,
    /// How long a session may last; `None`: until it is stopped.
    pub(crate) max_duration: Option<Duration>,
    /// How long it may be cut off from its service; `None`: nobody minds.
    pub(crate) reconnect_limit: Option<Duration>,
    pub(crate) restart: Restart,
}

impl Terms {
    /// Without a project it goes on until it is stopped, and does not come back. Nobody looks for its link.
    pub(crate) const ORPHANED: Self = Self {
        link_timeout: None,
        max_duration: None,
        reconnect_limit: None,
        restart: Restart::Never,
    };
}

/// Whether a session that ended by itself is brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// No.
    Never,
    /// Yes, after a while that grows with each time, for as long as the session's time lasts.
    OnExit,
}

/// What a session begins with.
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
    /// The uptime at which its time is up. This one counts.
    uptime: Duration,
    /// The same by the wall clock, for the case that the host is booted in between.
    wall: SystemTime,
    /// Whether the requesters were warned.
    warned: bool,
}

/// A random name for one session: in the record, in the log, and in the environment of its processes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(String);

impl SessionId {
    /// A fresh one: 64 random bits.
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

/// Somebody asked for something. Both texts belong to the caller and mean nothing here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who asked.
    pub requester: String,
    /// Names the request, so that the answer finds it even after a restart.
    pub reference: String,
}

/// One link on its way to one requester.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Tells apart the deliveries of one session.
    pub number: u32,
    /// Who asked for the link.
    pub request: Request,
    /// What the same requester asked for while this was under way: one message answers it all.
    #[serde(default)]
    pub also: Vec<Request>,
    /// Where the link that arrived can be found again, in the caller's words. `None`: it has not arrived, as far as is known.
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
    /// Whose link it was.
    pub session: SessionId,
    /// How it was delivered. Without a receipt it may or may not have arrived.
    pub delivery: Delivery,
}

/// What a session is at. Only what holds in a state is in it.
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
        /// Who wants to hear when it is done, besides those who wait for the link.
        stop_requests: Vec<Request>,
        /// The uptime at which they hear that it takes a while.
        #[serde(default)]
        told_at: Option<Duration>,
    },
    /// The process ended by itself, or could not start, and another is to take its place.
    Resting {
        /// The uptime at which that is to be spawned.
        until: Duration,
        /// Why it rests.
        #[serde(default)]
        cause: Option<Cause>,
    },
}

/// Why a session ends. A cause is there where the output tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names of the fields say it")]
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
    /// Somebody asked for the end.
    Stopped,
    /// Its time was up.
    Expired,
    /// The host was restarted, and no process outlives that.
    HostRestarted,
    /// The process ended by itself.
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

    /// The same without what makes no difference to people: they need not hear of two such endings.
    fn in_short(&self) -> Self {
        match self {
            Self::ExitedBeforeLink { exit, cause } | Self::Exited { exit, cause } => Self::Exited {
                // What the program complains of says more than its exit code.
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

/// What the program said last of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Heard {
    connection: Connection,
    /// The uptime since which that is so.
    since: Duration,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    id: SessionId,
    created: SystemTime,
    beginning: Beginning,
    /// Of one that began before there were options, or whose record was lost, they are not known.
    #[serde(default)]
    options: Options,
    state: State,
    /// All that are not redacted.
    deliveries: Vec<Delivery>,
    next_delivery: u32,
    had_link: bool,
    end: Option<End>,
    /// How often it was tried again since it last ran well, but for the times that others only had to be waited for.
    restarts: u32,
    /// Why it had to be tried again since then, each in short and once: people have heard of these.
    #[serde(default)]
    told: Vec<Ending>,
    /// Who asked for the link, or then for the end, and has heard nothing yet.
    #[serde(default)]
    unheard: Vec<Request>,
    /// `None`: its process has not said so far.
    #[serde(default)]
    heard: Option<Heard>,
    /// The uptime at which people last heard that it is cut off.
    #[serde(default)]
    cut_off_told: Option<Duration>,
    /// What it complained of and people have heard.
    #[serde(default)]
    complaints: Vec<running::Complaint>,
    /// Why some of its processes cannot be ended. Found out anew after a restart.
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
            State::Spawning { .. } | State::Resting { .. } => None,
        }
    }

    /// Who waits to hear of its end.
    fn stop_requests(&self) -> &[Request] {
        match &self.state {
            State::Stopping { stop_requests, .. } => stop_requests,
            State::Spawning { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Resting { .. } => &[],
        }
    }

    /// What it runs with.
    pub(crate) fn start(&self) -> Start {
        Start {
            beginning: self.beginning,
            options: self.options.clone(),
        }
    }

    /// When it was asked for.
    pub(crate) fn created(&self) -> SystemTime {
        self.created
    }

    /// Who asked for it first, unless that delivery was refused.
    pub(crate) fn requester(&self) -> Option<&str> {
        let first = self.deliveries.first();
        first.map(|delivery| delivery.request.requester.as_str())
    }

    /// How long it may still last, at that uptime. `None`: until it is stopped.
    pub(crate) fn time_left(&self, uptime: Duration) -> Option<Duration> {
        self.end.map(|end| end.uptime.saturating_sub(uptime))
    }

    /// What is known of its connection, at that uptime.
    pub(crate) fn connection(&self, uptime: Duration) -> Option<Connection> {
        let Heard { connection, since } = self.heard?;
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

#[cfg(test)]
mod tests;
