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

pub use client::Matrix;
pub use confidentiality::{NotConfidential, NotSent};
pub use connect::Connector;
pub use direct_message::{ConfidentialRoom, SentLink, SentNotice};
pub(crate) use facts::{CurrentState, Membership};
pub use facts::{NoPower, RoomFacts};
pub(crate) use fault::BackOff;
pub use fault::{Cause, Chain, Fault, Severity};
pub use folder::MatrixFolder;
pub(crate) use folder::{Authentication, Session};
pub use homeserver::HomeserverKind;
pub use hosts::{
    AnnouncedNames, AnnouncedProject, AnnouncedSession, Announcement, HOST_EVENT, HostEvent,
};
pub use inbox::clock_skew;
pub use link_picture::{NoPicture, PictureDelivery, PictureMessage};
pub use login::Login;
pub use message::{
    Arrival, HostSignal, IncomingEvent, Message, PICTURE_SIGN, ReplyTo, Signal, SignalKind,
};
pub use own_identity::{RECOVERY_KEY_VARIABLE, RecoveryKey, reset_identity};
pub use pinned_identities::{IdentityReport, NotAccepted, PinnedIdentity};
pub use proof::{Proof, Trust};
pub use redact::{LinkReceipt, LinkTransactions};
pub use registration::{Registration, RegistrationError, WriteError, generate, write_new};
pub use send::{Reply, Sound, Turn};
