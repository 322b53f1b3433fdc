//! One event as a person's client sees it.

use std::{fmt, sync::Arc};

use matrix_sdk::{
    deserialized_responses::{EncryptionInfo, ShieldState, TimelineEvent, TimelineEventKind},
    ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, events::AnySyncTimelineEvent, serde::Raw},
};
use serde_json::Value;

/// One event of a room's timeline, decrypted where that was possible.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// Its room.
    pub(crate) room: OwnedRoomId,
    pub(crate) id: OwnedEventId,
    pub(crate) sender: OwnedUserId,
    /// Its type; `m.room.encrypted` where it could not be decrypted.
    pub(crate) kind: String,
    /// All of it as JSON, decrypted.
    pub(crate) json: Value,
    /// How it was encrypted; `None` if it was plain text or could not be decrypted.
    pub(crate) encryption: Option<Arc<EncryptionInfo>>,
}

impl Event {
    /// Reads an event of a sync response; `None` if a required field is missing.
    pub(crate) fn from_timeline(room: OwnedRoomId, event: &TimelineEvent) -> Option<Self> {
        let json: Value = event.raw().deserialize_as_unchecked().ok()?;
        Some(Self {
            room,
            id: event.event_id()?,
            sender: event.sender()?,
            kind: json.get("type")?.as_str()?.to_owned(),
            json,
            encryption: event.encryption_info().cloned(),
        })
    }

    pub(crate) fn body(&self) -> Option<&str> {
        self.content("/body")
    }

    pub(crate) fn formatted_body(&self) -> Option<&str> {
        self.content("/formatted_body")
    }

    /// The type of a message, `m.text` or `m.notice` for example.
    pub(crate) fn message_type(&self) -> Option<&str> {
        self.content("/msgtype")
    }

    /// The event that this one replies to.
    pub(crate) fn replies_to(&self) -> Option<&str> {
        self.content("/m.relates_to/m.in_reply_to/event_id")
    }

    /// The first event of the thread that this one is in.
    pub(crate) fn thread(&self) -> Option<&str> {
        self.relates_by("m.thread")
    }

    fn relates_by(&self, kind: &str) -> Option<&str> {
        let is_such = self.content("/m.relates_to/rel_type")? == kind;
        self.content("/m.relates_to/event_id").filter(|_| is_such)
    }

    /// The event that this one is a reaction to.
    pub(crate) fn annotates(&self) -> Option<&str> {
        self.relates_by("m.annotation")
    }

    /// The event that this one is an edit of.
    pub(crate) fn edits(&self) -> Option<&str> {
        self.relates_by("m.replace")
    }

    /// The new text of an edit.
    pub(crate) fn new_text(&self) -> &str {
        self.content("/m.new_content/body").unwrap_or_default()
    }

    /// The event that this one redacts.
    pub(crate) fn redacts(&self) -> Option<&str> {
        self.content("/redacts")
            .or_else(|| self.json.get("redacts")?.as_str())
    }

    /// What a client shows beside a decrypted message: `none`, `grey: <why>` or `red: <why>`; `not encrypted` where it was not.
    pub(crate) fn shield(&self) -> String {
        let Some(encryption) = &self.encryption else {
            return "not encrypted".to_owned();
        };
        match encryption.verification_state.to_shield_state_lax() {
            ShieldState::None => "none".to_owned(),
            ShieldState::Grey { message, .. } => format!("grey: {message}"),
            ShieldState::Red { message, .. } => format!("red: {message}"),
        }
    }

    /// `origin_server_ts`: when it was sent, in milliseconds since 1970.
    pub(crate) fn sent(&self) -> Option<u64> {
        self.json.get("origin_server_ts")?.as_u64()
    }

    fn content(&self, pointer: &str) -> Option<&str> {
        self.json.get("content")?.pointer(pointer)?.as_str()
    }
}

impl AsRef<Self> for Event {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// One line, for the list of seen events in a failed test's message.
impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.body().or(self.redacts()).unwrap_or_default();
        write!(
            formatter,
            "{} {} [{}, shield: {}] {text:?}",
            self.room,
            self.sender,
            self.kind,
            self.shield()
        )
    }
}

/// The encrypted event, if its key is still missing.
pub(crate) fn undecrypted(event: &TimelineEvent) -> Option<&Raw<AnySyncTimelineEvent>> {
    match &event.kind {
        TimelineEventKind::UnableToDecrypt { event, .. } => Some(event),
        TimelineEventKind::Decrypted(_) | TimelineEventKind::PlainText { .. } => None,
    }
}
