//! What the bot hears, and what it takes to answer that.

use matrix_sdk::ruma::{
    EventId, OwnedEventId, OwnedUserId,
    events::{
        relation::{InReplyTo, Reply, Thread},
        room::message::Relation,
    },
};
use serde::{Deserialize, Serialize};

/// What a reaction begins with that asks for the picture of the link that it is put to.
pub const PICTURE_SIGN: &str = "📷";

/// What the bot hears.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub enum Heard {
    /// Somebody addressed the bot.
    Message(Message),
    /// Somebody said what the bot cannot decrypt.
    Undecryptable {
        sender: OwnedUserId,
        /// Changes with their devices, and with their signatures on them.
        devices: u64,
        reply_to: ReplyTo,
    },
    /// Somebody writes to the bot in their direct message, where no command counts.
    DirectMessage { sender: OwnedUserId },
    /// The bot of another host, or this one, signals something.
    HostSignal(HostSignal),
    /// Somebody put the reaction to a message in their direct message that asks for the picture of a link.
    PictureWanted {
        sender: OwnedUserId,
        message: OwnedEventId,
    },
    /// The bot has come into the admin room, and can speak there.
    InAdminRoom(Arrival),
    /// The homeserver shows another identity of a user than the one that the bot knows.
    IdentityChanged { user: OwnedUserId },
}

/// How the bot came into the admin room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It was never there before.
    Joined,
    /// The room was upgraded, and is another one now.
    Moved,
}

/// The type of the to-device events.
pub(super) const SIGNAL_EVENT: &str = "rcbot.host_signal";

/// What one bot says to those of other hosts. Who sent it is the homeserver's word.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HostSignal {
    /// The bot.
    #[serde(rename = "sender")]
    pub bot: OwnedUserId,
    /// What it says.
    pub content: Signal,
}

/// What a signal says. Never more than that a bot runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// What it is about: the id of a command, as a rule.
    pub about: String,
    /// What it says of that.
    pub kind: SignalKind,
}

/// The kinds of signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalKind {
    /// This bot answers, unless another one said so before.
    Claim,
    /// The same; and each bot that runs is to send a [`Self::Pong`].
    Ping,
    /// This bot runs.
    Pong,
}

/// A text that somebody addressed to the bot in the admin room.
#[derive(Debug, Clone)]
pub struct Message {
    /// The event, to reply to.
    pub event_id: OwnedEventId,
    /// Who sent it, says the homeserver; what proves it is looked at later (see `Matrix::proof`).
    pub sender: OwnedUserId,
    /// The text, without the quotation that some clients put before a reply.
    pub text: String,
    /// The message that it is an edit of. An edit is no command, whatever it says.
    pub edits: Option<OwnedEventId>,
    /// The thread that it was sent in.
    pub(super) thread: Option<OwnedEventId>,
}

/// What an answer needs to know of the message that it answers. Survives a restart as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyTo {
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

    /// The message that is answered.
    pub fn event_id(&self) -> &EventId {
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
        // Clients show an edit in the place of what it replaces.
        let shown = message.edits.as_ref().unwrap_or(&message.event_id);
        Self {
            event_id: shown.clone(),
            thread: message.thread.clone(),
        }
    }
}
