//! What the owner of the sessions has to do or to report, and the status of sessions.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use super::{
    claude::{Cause, Connection, Quote},
    logs::Output,
    process::StopReport,
    project::{Options, ProjectName, Start},
    session::{Delivery, Ending, Redaction, Request, Restart, Session, SessionId, State},
};
use crate::link::Link;

/// What the owner has to do or to report, each with its project.
pub type Notices = Vec<(ProjectName, Notice)>;

#[derive(Debug, PartialEq, Eq)]
pub enum Notice {
    /// Deliver this link to the requester; then call [`RemoteControl::delivered`](super::RemoteControl::delivered). If that
    /// fails or is cancelled, call [`RemoteControl::cancelled`](super::RemoteControl::cancelled), and after a failure also
    /// [`RemoteControl::undeliverable`](super::RemoteControl::undeliverable). The id is the same after a crash, so that a
    /// repetition can be recognised.
    Deliver {
        id: DeliveryId,
        request: Request,
        link: Link,
    },
    /// Redact the message with a link; then call [`RemoteControl::redacted`](super::RemoteControl::redacted). A delivery that
    /// is still under way is cancelled instead.
    Redact(Redaction),
    /// A session is over. Its last output is there if it is readable.
    Over {
        outcome: Outcome,
        last_output: Option<Output>,
    },
    /// The record of a session was lost, and with it who has its link. `is_running`: whether its process was found.
    RecordLost { is_running: bool },
    /// A session ended unexpectedly or could not start, and is restarted after a while, without limit. Sent once for each
    /// reason; and to those who requested the link meanwhile, who get it when it is there.
    Restarting {
        ending: Ending,
        delay: Duration,
        had_link: bool,
        requests: Vec<Request>,
    },
    /// A session has been cut off from its service for longer than its limit. It is restarted a little later, if that is
    /// wanted.
    CutOff { lasts: Duration, restart: Restart },
    /// It has reconnected after this time.
    Reconnected { after: Duration },
    /// The running program reports a problem that is unknown here, or that keeps conversations from starting. The quote is
    /// confidential and for the recipients of the link. `in_room`: the room is to be notified that there is a problem.
    Complained {
        cause: Cause,
        quote: Quote,
        in_room: bool,
    },
    /// A session ends soon. For the holders of its link.
    EndsSoon {
        holders: BTreeSet<String>,
        left: Duration,
    },
    /// A session got more time. `None`: it has no end, so nothing changed.
    Extended {
        request: Request,
        /// The holders of its link, who are informed of the new end there.
        holders: BTreeSet<String>,
        left: Option<Duration>,
    },
    /// Some processes of a session cannot be ended. This is retried, and the session is over once they are gone. For those who
    /// requested the end.
    NotEnded {
        requests: Vec<Request>,
        reason: String,
    },
    /// The end of a session takes a while. For those who requested it; they are notified again when it is over.
    ShuttingDown(Vec<Request>),
    /// There is no session to stop or to extend.
    NoSession(Request),
    /// The session of the project runs with other options than the requested ones, and goes on with these.
    OtherOptions { request: Request, options: Options },
    /// The request is refused, as the session is ending.
    RefusedWhileStopping(Request),
    /// No further session may start: the limit is reached.
    TooManySessions {
        requests: Vec<Request>,
        limit: usize,
        active: Vec<ProjectName>,
    },
    /// The request could not be recorded, so nothing was done. The reason is the operating system's.
    NotRecorded { request: Request, reason: String },
}

/// How a session ended, and who has to be notified of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub session: SessionId,
    /// When it was asked for.
    pub since: SystemTime,
    pub ending: Ending,
    /// How the process tree ended, where there was one.
    pub report: Option<StopReport>,
    pub stop_requests: Vec<Request>,
    /// All deliveries that are not redacted yet. Without a receipt: it may or may not have arrived.
    pub deliveries: Vec<Delivery>,
    pub had_link: bool,
}

/// Identifies one delivery for good.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeliveryId {
    pub project: ProjectName,
    pub session: SessionId,
    /// Within the session.
    pub number: u32,
}

/// One project's line in an overview.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub project: ProjectName,
    pub session: Option<SessionStatus>,
}

/// The status of a session, without its link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStatus {
    pub id: SessionId,
    pub phase: Phase,
    pub start: Start,
    /// When it was asked for.
    pub since: SystemTime,
    /// Who asked for it first, where that is still known.
    pub requester: Option<String>,
    /// How long it may still last. `None`: until it is stopped.
    pub time_left: Option<Duration>,
    /// The connection to the service as its program shows it, if it does.
    pub connection: Option<Connection>,
    /// Whether it is cut off from its service for longer than `reconnect_limit`.
    pub is_cut_off: bool,
    /// While it waits for a restart: how long until then, and the cause, if it is known.
    pub next_try: Option<(Duration, Option<Cause>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No link yet.
    Starting,
    /// The link is known.
    Running,
    Stopping,
    /// It ended unexpectedly or could not start, and waits for a restart.
    AwaitingRestart,
}

impl Status {
    pub(super) fn of(project: &ProjectName, session: Option<&Session>, uptime: Duration) -> Self {
        let session = session.map(|session| SessionStatus {
            id: session.id().clone(),
            phase: Phase::of(session),
            start: session.start().clone(),
            since: session.created(),
            requester: session.requester().map(str::to_owned),
            time_left: session.time_left(uptime),
            connection: session.connection(uptime),
            is_cut_off: session.is_cut_off(),
            next_try: match session.state() {
                State::AwaitingRestart { until, cause } => {
                    Some((until.saturating_sub(uptime), *cause))
                }
                State::Spawning { .. }
                | State::Starting { .. }
                | State::Running { .. }
                | State::Stopping { .. } => None,
            },
        });
        Self {
            project: project.clone(),
            session,
        }
    }
}

impl Phase {
    pub(super) fn of(session: &Session) -> Self {
        match session.state() {
            State::Spawning { .. } | State::Starting { .. } => Self::Starting,
            State::Running { .. } => Self::Running,
            State::Stopping { .. } => Self::Stopping,
            State::AwaitingRestart { .. } => Self::AwaitingRestart,
        }
    }
}
