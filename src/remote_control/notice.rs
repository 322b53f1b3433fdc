//! What the owner of the sessions has to do or to say, and what there is to see.

use std::time::{Duration, SystemTime};

use super::{
    logs::Output,
    project::ProjectName,
    session::{Ending, Outcome, Request, Session, SessionId, State},
    store::Withdrawal,
};
use crate::link::Link;

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
    /// Bring this link to the requester; then call [`RemoteControl::delivered`](super::RemoteControl::delivered). If it
    /// cannot get there, or was called off, call [`RemoteControl::called_off`](super::RemoteControl::called_off), and in the
    /// first case [`RemoteControl::undeliverable`](super::RemoteControl::undeliverable) after that.
    Deliver {
        /// For the answer; also the same after a crash, so that a repetition can be recognised.
        id: DeliveryId,
        /// Who gets the link, and the request to answer.
        request: Request,
        /// The link.
        link: Link,
    },
    /// Take a link back; then call [`RemoteControl::withdrawn`](super::RemoteControl::withdrawn). One that is still under way
    /// is called off instead.
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
        /// What it printed last, if that can be had.
        last_output: Option<Output>,
    },
    /// The record of a session was lost: nobody knows who has its link.
    RecordLost {
        /// The project.
        project: ProjectName,
        /// Whether its process was found, and is looked after from now on.
        is_running: bool,
    },
    /// A session ended by itself and comes back after a while.
    Restarting {
        /// The project.
        project: ProjectName,
        /// How it ended.
        ending: Ending,
        /// How long until it comes back.
        rest: Duration,
    },
    /// A session ends soon.
    EndsSoon {
        /// The project.
        project: ProjectName,
        /// Who has its link.
        holders: Vec<String>,
        /// How soon.
        left: Duration,
    },
    /// A session got more time.
    Extended {
        /// The project.
        project: ProjectName,
        /// Who asked.
        request: Request,
        /// How long it lasts now. `None`: it has no end, so there was nothing to move.
        left: Option<Duration>,
    },
    /// Some processes of a session cannot be ended. It is tried again, and once they are gone the session is over.
    NotEnded {
        /// The project.
        project: ProjectName,
        /// Who asked for the end.
        requests: Vec<Request>,
        /// Which process, and why it cannot be ended.
        reason: String,
    },
    /// There is no session to stop or to extend.
    NoSession {
        /// The project.
        project: ProjectName,
        /// Who asked.
        request: Request,
    },
    /// Nothing but waiting can be done about a session that is ending.
    RefusedWhileStopping {
        /// The project.
        project: ProjectName,
        /// Who asked.
        request: Request,
    },
    /// No further session may start, as there are as many as there may be at once.
    TooManySessions {
        /// The project.
        project: ProjectName,
        /// Who asked.
        requests: Vec<Request>,
        /// How many there may be.
        limit: usize,
        /// The projects whose sessions there are.
        active: Vec<ProjectName>,
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
    /// The session.
    pub id: SessionId,
    /// What it is at.
    pub phase: Phase,
    /// When it was asked for.
    pub since: SystemTime,
    /// Who asked for it first, where that is still known.
    pub requester: Option<String>,
    /// How long it may still last. `None`: until it is stopped.
    pub time_left: Option<Duration>,
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
    /// Ended by itself, to come back.
    Resting,
}

impl Status {
    pub(super) fn of(project: &ProjectName, session: Option<&Session>, uptime: Duration) -> Self {
        let session = session.map(|session| SessionStatus {
            id: session.id().clone(),
            phase: session.phase(),
            since: session.created(),
            requester: session.requester().map(str::to_owned),
            time_left: session.time_left(uptime),
        });
        Self {
            project: project.clone(),
            session,
        }
    }
}

impl Session {
    /// What it is at, without what is in it.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.state() {
            State::Spawning { .. } | State::Starting { .. } => Phase::Starting,
            State::Running { .. } => Phase::Running,
            State::Stopping { .. } => Phase::Stopping,
            State::Resting { .. } => Phase::Resting,
        }
    }
}
