//! What goes into a session, and what comes out.

use std::time::Duration;

use super::{Delivery, Ending, NotSpawned, Receipt, Request, SessionId};
use crate::{
    link::Link,
    remote_control::{
        claude::Cause,
        process::{Exit, ProcessIdentity, StopReport},
    },
};

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Somebody asks for the link.
    LinkRequested(Request),
    /// Somebody asks for the link, and wants the last conversation back where a process is still to be made.
    ResumeRequested(Request),
    /// Somebody asks for the end.
    StopRequested(Request),
    /// Somebody asks for more time.
    ExtensionRequested(Request, Duration),
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
    /// The time has come that [`Session::next_wake`] named.
    TimeCame,
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
    Watch(ProcessIdentity),
    /// End the process tree.
    EndTree(Option<ProcessIdentity>),
    /// Bring the link to a requester.
    Deliver(Delivery, Link),
    /// Take these links back. Without a receipt, one may or may not have arrived.
    Withdraw(Vec<Delivery>),
    /// The state changed in a way that only the record needs to know.
    Save,
    /// Refuse: the session is ending.
    RefuseWhileStopping(Request),
    /// Answer: the session now lasts so long; `None`: it has no end to move.
    Extended(Request, Option<Duration>),
    /// Warn all who have the link that the session ends so soon.
    Warn(Vec<String>, Duration),
    /// Tell that the session ended by itself and comes back after a while.
    TellRestart(Ending, Duration),
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
    /// All deliveries that are not withdrawn yet. Without a receipt: it may or may not have arrived.
    pub deliveries: Vec<Delivery>,
    /// Whether a link was ever known.
    pub had_link: bool,
    /// How often it was brought back in vain.
    pub restarts: u32,
}
