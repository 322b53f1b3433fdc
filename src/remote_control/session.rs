//! One session as a pure state machine: an event and the time go in, actions come out.
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
mod event;
mod machine;

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{
    claude::Cause,
    process::{Exit, NotSpawned, ProcessIdentity},
};
use crate::link::Link;

pub use event::{Action, Event, Outcome};

/// How long before its end a session's requesters are warned.
pub const WARNING: Duration = Duration::from_mins(10);

/// A moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// For people, and to carry a time over a reboot.
    pub wall: SystemTime,
    /// For all that is waited for: how long the host is up.
    pub uptime: Duration,
}

/// What the project's settings say about the life of a session.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How long a process may run without showing its link. `None`: nobody looks for it.
    pub link_timeout: Option<Duration>,
    /// How long a session may last; `None`: until it is stopped.
    pub max_duration: Option<Duration>,
    /// Whether a session that ended by itself is brought back.
    pub restart: Restart,
}

/// Whether a session that ended by itself is brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// No.
    Never,
    /// Yes, after a while that grows with each time, and not for ever.
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

/// Where a delivered link can be found again, to withdraw it. In the caller's words.
pub type Receipt = String;

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
    /// Set once the link has arrived.
    pub receipt: Option<Receipt>,
}

impl Delivery {
    /// All requests that it answers.
    pub fn requests(&self) -> impl Iterator<Item = &Request> {
        std::iter::once(&self.request).chain(&self.also)
    }
}

/// What a session is at. Only what holds in a state is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The record is on disk; the process may or may not exist yet.
    Spawning {
        /// The uptime at which it was to be spawned.
        since: Duration,
    },
    /// The process runs and has not shown its link.
    Starting {
        /// The process.
        process: ProcessIdentity,
        /// The uptime by which the link has to be there.
        deadline: Duration,
    },
    /// The process runs, its link is known.
    Running {
        /// The process.
        process: ProcessIdentity,
        /// The link.
        #[serde(with = "stored_link")]
        link: Link,
        /// The uptime at which the link was first known.
        since: Duration,
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
    /// The process ended by itself, and another is to take its place.
    Resting {
        /// The uptime at which that is to be spawned.
        until: Duration,
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
    /// Its time was up.
    Expired,
    /// The host was restarted, and no process outlives that.
    HostRestarted,
    /// The process ended by itself.
    Exited {
        /// How.
        exit: Exit,
        /// Why, where its output tells.
        cause: Option<Cause>,
    },
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    id: SessionId,
    created: SystemTime,
    beginning: Beginning,
    state: State,
    deliveries: Vec<Delivery>,
    next_delivery: u32,
    had_link: bool,
    end: Option<End>,
    /// How often it was brought back since it last ran well.
    restarts: u32,
}

impl Session {
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

    /// The process that runs it now, if there is one and it is known.
    #[must_use]
    pub fn process(&self) -> Option<&ProcessIdentity> {
        match &self.state {
            State::Starting { process, .. } | State::Running { process, .. } => Some(process),
            State::Stopping { process, .. } => process.as_ref(),
            State::Spawning { .. } | State::Resting { .. } => None,
        }
    }

    /// Who waits to hear of its end.
    #[must_use]
    pub fn stop_requests(&self) -> &[Request] {
        match &self.state {
            State::Stopping { stop_requests, .. } => stop_requests,
            State::Spawning { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Resting { .. } => &[],
        }
    }

    /// With what it began.
    #[must_use]
    pub fn beginning(&self) -> Beginning {
        self.beginning
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

    /// How long it may still last, at that uptime. `None`: until it is stopped.
    #[must_use]
    pub fn time_left(&self, uptime: Duration) -> Option<Duration> {
        self.end.map(|end| end.uptime.saturating_sub(uptime))
    }

    /// All deliveries that are not withdrawn.
    #[must_use]
    pub fn deliveries(&self) -> &[Delivery] {
        &self.deliveries
    }

    /// All requests that this delivery answers.
    #[must_use]
    pub fn requests(&self, number: u32) -> Vec<Request> {
        let delivery = self
            .deliveries
            .iter()
            .find(|delivery| delivery.number == number);
        delivery
            .map(|delivery| delivery.requests().cloned().collect())
            .unwrap_or_default()
    }

    /// Whether this delivery is still wanted.
    #[must_use]
    pub fn wants(&self, number: u32) -> bool {
        self.deliveries
            .iter()
            .any(|delivery| delivery.number == number)
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
