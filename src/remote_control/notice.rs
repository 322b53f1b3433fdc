//! What the owner of the sessions has to do or to say, and what there is to see.

use std::time::{Duration, SystemTime};

use super::{
    claude::{Cause, Connection, Quote},
    logs::Output,
    options::{Options, Start},
    process::StopReport,
    project::ProjectName,
    session::{Delivery, Ending, Redaction, Request, Restart, Session, SessionId, State},
};
use crate::link::Link;

/// What the owner has to do or to say, each with the project that it is about.
pub type Notices = Vec<(ProjectName, Notice)>;

/// What the owner has to do or to say.
#[derive(Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub enum Notice {
    /// Bring this link to the requester; then call [`RemoteControl::delivered`](super::RemoteControl::delivered). If it
    /// cannot get there, or was called off, call [`RemoteControl::called_off`](super::RemoteControl::called_off), and in the
    /// first case [`RemoteControl::undeliverable`](super::RemoteControl::undeliverable) after that. The id is the same after a
    /// crash, so that a repetition can be recognised.
    Deliver {
        id: DeliveryId,
        request: Request,
        link: Link,
    },
    /// Redact the message with a link; then call [`RemoteControl::redacted`](super::RemoteControl::redacted). One that is still under way
    /// is called off instead.
    Redact(Redaction),
    /// A session is over. What it printed last is there if it can be had.
    Over {
        outcome: Outcome,
        last_output: Option<Output>,
    },
    /// The record of a session was lost: nobody knows who has its link. Whether its process was found, and is looked after from
    /// now on.
    RecordLost { is_running: bool },
    /// A session ended by itself, or could not start, and is tried again after a while, as often as it takes. Told once for each
    /// reason; and to those who asked for the link meanwhile, who get it when it is there.
    Restarting {
        ending: Ending,
        rest: Duration,
        had_link: bool,
        requests: Vec<Request>,
    },
    /// A session has been cut off from its service for so long that people should know. It is restarted a little later, if that is
    /// wanted.
    CutOff { lasts: Duration, restart: Restart },
    /// It is back, after so long a time.
    Reconnected { after: Duration },
    /// The program goes on and complains, of what is not known or keeps conversations from starting. What it says is for those who
    /// asked for the link, in confidence; that it does so for the room, where it is to hear of that.
    Complained {
        cause: Cause,
        quote: Quote,
        in_room: bool,
        requesters: Vec<String>,
    },
    /// A session ends soon. For those who have its link.
    EndsSoon {
        holders: Vec<String>,
        left: Duration,
    },
    /// A session got more time. `None`: it has no end, so there was nothing to move.
    Extended {
        request: Request,
        /// Those who have its link, and read there when it ends.
        holders: Vec<String>,
        left: Option<Duration>,
    },
    /// Some processes of a session cannot be ended. It is tried again, and once they are gone the session is over. For those who
    /// asked for the end.
    NotEnded {
        requests: Vec<Request>,
        reason: String,
    },
    /// The end of a session takes a while. For those who asked for it, who hear when it is over.
    ShuttingDown(Vec<Request>),
    /// There is no session to stop or to extend.
    NoSession(Request),
    /// The session of the project was started with other options than those that are asked for now: it goes on with these.
    OtherOptions { request: Request, options: Options },
    /// Nothing but waiting can be done about a session that is ending.
    RefusedWhileStopping(Request),
    /// No further session may start, as there are as many as there may be at once.
    TooManySessions {
        requests: Vec<Request>,
        limit: usize,
        active: Vec<ProjectName>,
    },
    /// The request could not be written down, so nothing was done about it. Why, in the words of the operating system.
    NotRecorded { request: Request, reason: String },
}

/// How a session ended, and who has to hear of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The session.
    pub session: SessionId,
    /// When it was asked for.
    pub since: SystemTime,
    /// Why it ended.
    pub ending: Ending,
    /// How the process tree ended, where there was one.
    pub report: Option<StopReport>,
    /// Who asked for the end.
    pub stop_requests: Vec<Request>,
    /// All deliveries that are not redacted yet. Without a receipt: it may or may not have arrived.
    pub deliveries: Vec<Delivery>,
    /// Whether a link was ever known.
    pub had_link: bool,
}

/// Names one delivery for good.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub struct DeliveryId {
    pub project: ProjectName,
    pub session: SessionId,
    /// Within the session.
    pub number: u32,
}

/// One project's line in an overview.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub struct Status {
    pub project: ProjectName,
    pub session: Option<SessionStatus>,
}

/// What can be said of a session without its link.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub struct SessionStatus {
    pub id: SessionId,
    pub phase: Phase,
    /// What it runs with.
    pub start: Start,
    /// When it was asked for.
    pub since: SystemTime,
    /// Who asked for it first, where that is still known.
    pub requester: Option<String>,
    /// How long it may still last. `None`: until it is stopped.
    pub time_left: Option<Duration>,
    /// What its program says of the connection to the service, if it says so.
    pub connection: Option<Connection>,
    /// Whether it is cut off from its service for longer than `reconnect_limit`.
    pub is_cut_off: bool,
    /// While it rests: how long until it is tried again, and why it has to be, where that is known.
    pub next_try: Option<(Duration, Option<Cause>)>,
}

/// What a session is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No link yet.
    Starting,
    /// The link is known.
    Running,
    /// Being ended.
    Stopping,
    /// To be tried again, after it ended by itself or could not start.
    Resting,
}

impl Status {
    pub(super) fn of(project: &ProjectName, session: Option<&Session>, uptime: Duration) -> Self {
        let session = session.map(|session| SessionStatus {
            id: session.id().clone(),
            phase: Phase::of(session),
            start: session.start(),
            since: session.created(),
            requester: session.requester().map(str::to_owned),
            time_left: session.time_left(uptime),
            connection: session.connection(uptime),
            is_cut_off: session.is_cut_off(),
            next_try: match session.state() {
                State::Resting { until, cause } => Some((until.saturating_sub(uptime), *cause)),
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
            State::Resting { .. } => Self::Resting,
        }
    }
}
