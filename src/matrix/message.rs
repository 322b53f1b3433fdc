//! The events that the bot receives, and what a reply to them needs.

use matrix_sdk::ruma::{
    EventId, OwnedEventId, OwnedUserId,
    events::{
        relation::{InReplyTo, Reply, Thread},
        room::message::Relation,
    },
};
use serde::{Deserialize, Serialize};

/// The beginning of a reaction to a link that requests its picture.
pub(crate) const PICTURE_SIGN: &str = "📷";

#[derive(Debug)]
pub(crate) enum IncomingEvent {
    /// A message to the bot in the admin room.
    Message(Message),
    /// An event in the admin room that the bot cannot decrypt.
    Undecryptable {
        sender: OwnedUserId,
        /// A digest of the sender's devices and of the signatures on them.
        devices: u64,
        reply_to: ReplyTo,
    },
    /// A text in a user's direct message, where no command counts.
    DirectMessage { sender: OwnedUserId },
    /// A signal of the bot of another host, or of this one.
    HostSignal(HostSignal),
    /// A reaction in a user's direct message that requests the picture of a link.
    PictureWanted {
        sender: OwnedUserId,
        message: OwnedEventId,
    },
    /// The bot has come into the admin room, and can send there.
    InAdminRoom(Arrival),
    /// The homeserver shows another identity of a user than the pinned one.
    IdentityChanged { user: OwnedUserId },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It was never there before.
    Joined,
    /// The room was upgraded, and the bot followed.
    Moved,
}

/// The type of the to-device events.
pub(super) const SIGNAL_EVENT: &str = "rcbot.host_signal";

/// What one bot sends to those of other hosts. Only the homeserver vouches for the sender.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct HostSignal {
    #[serde(rename = "sender")]
    pub bot: OwnedUserId,
    pub content: Signal,
}

/// The content of a signal. It reveals only that a bot runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signal {
    /// What it is about: the id of a command, as a rule.
    pub about: String,
    pub kind: SignalKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SignalKind {
    /// This bot answers, unless another one claimed that before.
    Claim,
    /// The same; and each bot that runs should send a [`Self::Pong`].
    Ping,
    /// This bot runs.
    Pong,
}

/// A text addressed to the bot in the admin room.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub event_id: OwnedEventId,
    /// The sender, as the homeserver says. The proof is checked later (see `Matrix::proof`).
    pub sender: OwnedUserId,
    /// The text, without a reply fallback.
    pub text: String,
    /// The message that it edits. An edit never counts as a command.
    pub edits: Option<OwnedEventId>,
    pub(super) thread: Option<OwnedEventId>,
}

#[cfg(test)]
impl Message {
    pub(crate) fn new(event_id: OwnedEventId, sender: OwnedUserId, text: &str) -> Self {
        Self {
            event_id,
            sender,
            text: text.to_owned(),
            edits: None,
            thread: None,
        }
    }
}

/// What a reply needs from the message that it answers. Serialized, so that it survives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplyTo {
    event_id: OwnedEventId,
    thread: Option<OwnedEventId>,
}

impl ReplyTo {
    pub(super) fn event(event_id: OwnedEventId) -> Self {
        Self {
            event_id,
            thread: None,
        }
    }

    pub(crate) fn event_id(&self) -> &EventId {
        &self.event_id
    }

    pub(super) fn relation<C>(&self) -> Relation<C> {
        match &self.thread {
            Some(root) => Relation::Thread(Thread::reply(root.clone(), self.event_id.clone())),
            None => Relation::Reply(Reply::new(InReplyTo::new(self.event_id.clone()))),
        }
    }
}

impl From<&Message> for ReplyTo {
    fn from(message: &Message) -> Self {
        // Clients show an edit in place of the message that it replaces.
        let shown = message.edits.as_ref().unwrap_or(&message.event_id);
        Self {
            event_id: shown.clone(),
            thread: message.thread.clone(),
        }
    }
}
