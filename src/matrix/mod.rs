//! Connects to Matrix: logs in, follows /sync, reads the admin room, sends links end-to-end encrypted.
//!
//! Invariant: nothing here knows processes or sessions, and nothing here decides who may command. It gathers the evidence, and
//! guarantees that a link leaves only through [`ConfidentialRoom::send`], and its picture only through
//! [`PictureDelivery::send`].

mod client;
mod confidentiality;
mod connect;
mod direct_message;
mod facts;
mod fault;
mod folder;
mod guard;
mod homeserver;
mod hosts;
mod inbox;
mod link_picture;
mod login;
mod membership;
mod message;
mod own_identity;
mod pinned_identities;
mod proof;
mod redact;
mod registration;
mod replay;
mod rooms;
mod send;
mod sync;
mod unreadable;

pub(crate) use client::Matrix;
pub(crate) use confidentiality::{NotConfidential, NotSent};
pub(crate) use connect::Connector;
pub(crate) use direct_message::{ConfidentialRoom, SentLink, SentNotice};
pub(crate) use facts::{CurrentState, Membership, NoPower, RoomFacts};
pub(crate) use fault::{BackOff, Cause, Chain, Fault, Severity};
pub(crate) use folder::{Authentication, MatrixFolder, Session};
pub(crate) use homeserver::HomeserverKind;
pub(crate) use hosts::{
    AnnouncedNames, AnnouncedProject, AnnouncedSession, Announcement, HOST_EVENT, HostEvent,
};
pub(crate) use inbox::clock_skew;
pub(crate) use link_picture::{NoPicture, PictureDelivery, PictureMessage};
pub(crate) use login::Login;
pub(crate) use message::{
    Arrival, HostSignal, IncomingEvent, Message, PICTURE_SIGN, ReplyTo, Signal, SignalKind,
};
pub(crate) use own_identity::{RECOVERY_KEY_VARIABLE, RecoveryKey, reset_identity};
pub(crate) use pinned_identities::{IdentityReport, NotAccepted, PinnedIdentity};
pub(crate) use proof::Trust;
pub(crate) use redact::{LinkReceipt, LinkTransactions};
pub(crate) use registration::{Registration, RegistrationError};
pub use registration::{generate, write_new};
pub(crate) use send::Reply;
pub(crate) use send::Sound;
