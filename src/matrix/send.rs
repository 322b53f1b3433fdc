//! The only place that sends messages into rooms: one at a time in each room.
//!
//! Invariant: nothing else calls [`Room::send`]. Two concurrent sends of the SDK in one encrypted room share a key, and the
//! message after the last one for which that key is valid makes the SDK panic.

use matrix_sdk::{
    Room,
    room::futures::SendMessageLikeEventResult,
    ruma::{
        EventId, OwnedEventId, OwnedTransactionId, UserId,
        events::{
            Mentions,
            reaction::ReactionEventContent,
            relation::{Annotation, Replacement},
            room::message::{Relation, RoomMessageEventContent},
        },
    },
};
use tokio::sync::OwnedMutexGuard;
use tracing::{debug, error};

use super::{
    Chain, Fault, Matrix, ReplyTo,
    confidentiality::{is_confidential, was_between_two},
};

/// How long a text may be as JSON, plain and HTML together. An event is 64 KiB at most (specification, "Size limits"), and
/// encryption turns three bytes into four.
const LONGEST: usize = 32 * 1024;

/// How many bytes of a longer one are sent, without HTML. As JSON they are twice as many at most.
const SHOWN: usize = 12 * 1024;

/// Replaces the rest.
const CUT: &str = "\n\n(The rest is too long for one message.)";

/// The turn to send into one room: nothing else is sent there while it is held.
#[derive(Debug)]
pub(crate) struct Turn {
    room: Room,
    _held: OwnedMutexGuard<()>,
}

#[derive(Debug)]
pub(super) struct SentSecret {
    /// The event, if the homeserver accepted it.
    pub(super) event: Option<OwnedEventId>,
    /// Whether only the recipient can read it. An error: it was not sent, or that is not known.
    pub(super) is_confidential: Result<bool, Fault>,
}

/// Whether a phone rings for a message. With the default push rules it does for a text, and not for a notice, whomever that
/// mentions (specification, "Predefined rules": `.m.rule.suppress_notices` comes before `.m.rule.is_user_mention`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sound {
    /// It is unrequested and urgent: it rings also where direct messages ring only for mentions.
    Rings,
    /// It answers a user who waits for it, or it can wait.
    Silent,
}

/// What the bot says, in both forms of a Matrix message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// For clients without HTML.
    pub plain: String,
    /// The same in the HTML that Matrix allows.
    pub html: String,
}

impl Matrix {
    /// Sends a notice to the admin room: as a reply if it answers a message, in the message's thread if that was sent in one.
    /// Here and below, the same `transaction` for each try sends a message once.
    pub(crate) async fn say(
        &self,
        text: &Reply,
        answered: Option<&ReplyTo>,
        transaction: &OwnedTransactionId,
    ) -> Result<OwnedEventId, Fault> {
        let mut content = text.content(Sound::Silent);
        content.relates_to = answered.map(ReplyTo::relation);
        let room = self.joined_admin_room()?;
        self.send(&room, content, transaction).await
    }

    /// Edits an earlier message of the bot in the admin room.
    pub(crate) async fn correct(
        &self,
        message: &EventId,
        text: &Reply,
        transaction: &OwnedTransactionId,
    ) -> Result<(), Fault> {
        let content = editing(text.content(Sound::Silent), message.to_owned());
        let room = self.joined_admin_room()?;
        self.send(&room, content, transaction).await?;
        Ok(())
    }

    /// Reacts to a message in the admin room. The SDK never encrypts a reaction, so devices that get no keys can read it too.
    pub(crate) async fn react(
        &self,
        message: &ReplyTo,
        text: &str,
        transaction: &OwnedTransactionId,
    ) -> Result<(), Fault> {
        let room = self.joined_admin_room()?;
        self.annotate(&room, message.event_id(), text, transaction)
            .await
    }

    pub(super) async fn annotate(
        &self,
        room: &Room,
        event: &EventId,
        text: &str,
        transaction: &OwnedTransactionId,
    ) -> Result<(), Fault> {
        let annotation = Annotation::new(event.to_owned(), text.to_owned());
        let turn = self.turn(room).await;
        let sending = turn.room.send(ReactionEventContent::new(annotation));
        sending.with_transaction_id(transaction.clone()).await?;
        Ok(())
    }

    /// Sets the bot's typing notification in the admin room, for some seconds, or clears it.
    pub(crate) async fn show_typing(&self, typing: bool) -> Result<(), Fault> {
        Ok(self.joined_admin_room()?.typing_notice(typing).await?)
    }

    /// Waits for the turn to send into a room.
    pub(super) async fn turn(&self, room: &Room) -> Turn {
        let turn = self.turns.of(room.room_id().to_owned());
        Turn {
            room: room.clone(),
            _held: turn.lock_owned().await,
        }
    }

    /// Sends a message without a secret. Users whose identity has changed may read it, and a relation that the homeserver
    /// refuses is left out: an answer without one is better than none.
    pub(super) async fn send(
        &self,
        room: &Room,
        mut content: RoomMessageEventContent,
        transaction: &OwnedTransactionId,
    ) -> Result<OwnedEventId, Fault> {
        let mut has_withdrawn = false;
        loop {
            let turn = self.turn(room).await;
            let sent = turn.send(content.clone(), transaction).await;
            // The next step may take a while.
            drop(turn);
            match sent {
                Ok(sent) => return Ok(sent.response.event_id),
                Err(Fault::IdentityChanged { users }) if !has_withdrawn => {
                    has_withdrawn = true;
                    self.withdraw_verifications(&users).await?;
                }
                Err(fault) if fault.is_refusal() && content.relates_to.is_some() => {
                    debug!(room = %room.room_id(), error = %Chain(&fault), "sending an answer without its relation");
                    content.relates_to = None;
                }
                Err(fault) => return Err(fault),
            }
        }
    }
}

impl Turn {
    pub(super) fn room(&self) -> &Room {
        &self.room
    }

    async fn send(
        &self,
        content: RoomMessageEventContent,
        transaction: &OwnedTransactionId,
    ) -> Result<SendMessageLikeEventResult, Fault> {
        let sending = self.room.send(content);
        Ok(sending.with_transaction_id(transaction.clone()).await?)
    }

    /// Sends a secret to the recipient, and checks afterwards who can read it.
    pub(super) async fn send_secret(
        &self,
        recipient: &UserId,
        content: RoomMessageEventContent,
        transaction: &OwnedTransactionId,
    ) -> SentSecret {
        let sent = self.send(content, transaction).await;
        // Whatever the homeserver answers, the members at that time have the key.
        let was_between_two = was_between_two(&self.room, recipient).await;
        let accepted = sent.as_ref().ok();
        let event = accepted.map(|sent| sent.response.event_id.clone());
        let is_confidential = match sent {
            Err(fault) if was_between_two => Err(fault),
            Ok(sent) if was_between_two && sent.encryption_info.is_some() => {
                is_confidential(&self.room, recipient).await
            }
            Ok(_) | Err(_) => Ok(false),
        };
        if matches!(is_confidential, Ok(false)) {
            error!(%recipient, room = %self.room.room_id(), ?event, "the room was not confidential when a secret was sent");
        }
        SentSecret {
            event,
            is_confidential,
        }
    }
}

impl Reply {
    /// The message. It mentions nobody, whatever it quotes, and is no longer than a homeserver accepts.
    pub(super) fn content(&self, sound: Sound) -> RoomMessageEventContent {
        let (plain, html) = (&self.plain, &self.html);
        let length = |text| serde_json::to_string(text).map_or(usize::MAX, |json| json.len());
        let fits = length(plain).saturating_add(length(html)) <= LONGEST;
        mentioning_nobody(match (sound, fits) {
            (Sound::Rings, true) => RoomMessageEventContent::text_html(plain, html),
            (Sound::Rings, false) => RoomMessageEventContent::text_plain(shortened(plain)),
            (Sound::Silent, true) => RoomMessageEventContent::notice_html(plain, html),
            (Sound::Silent, false) => RoomMessageEventContent::notice_plain(shortened(plain)),
        })
    }
}

/// The fallback of an edit, for clients without edits.
const EDITED: &str = "(I edited my message. Your client does not show edits.)";

/// The same as an edit of an earlier message. The fallback does not repeat the text, so that the event is not too long.
pub(super) fn editing(
    content: RoomMessageEventContent,
    message: OwnedEventId,
) -> RoomMessageEventContent {
    let mut edit = mentioning_nobody(RoomMessageEventContent::notice_plain(EDITED));
    edit.relates_to = Some(Relation::Replacement(Replacement::new(
        message,
        content.into(),
    )));
    edit
}

pub(super) fn mentioning(
    content: RoomMessageEventContent,
    user: &UserId,
) -> RoomMessageEventContent {
    content.add_mentions(Mentions::with_user_ids([user.to_owned()]))
}

/// The same, mentioning nobody: it may quote others, and must not ring a phone for that.
pub(super) fn mentioning_nobody(content: RoomMessageEventContent) -> RoomMessageEventContent {
    content.add_mentions(Mentions::new())
}

fn shortened(text: &str) -> String {
    let mut shown = text.to_owned();
    shown.truncate(text.floor_char_boundary(SHOWN));
    // In JSON, each control character would be six bytes.
    shown.retain(|character| character == '\n' || !character.is_control());
    if text.len() > SHOWN {
        shown.push_str(CUT);
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The largest event that a homeserver accepts.
    const LIMIT: usize = 64 * 1024;

    fn content(plain: &str, html: &str) -> Value {
        let (plain, html) = (plain.to_owned(), html.to_owned());
        let reply = Reply { plain, html };
        serde_json::to_value(reply.content(Sound::Silent)).unwrap()
    }

    #[test]
    fn a_message_fits_into_an_event_whatever_it_is_made_of() {
        for piece in ["a", "\"", "\u{1}", "\n", "ü", "&amp;", "<br>"] {
            for length in [0, 100, SHOWN, 100_000, 1_000_000] {
                let text = piece.repeat(length / piece.len());
                let content = content(&text, &html_escape::encode_text(&text));
                let encrypted = content.to_string().len() * 4 / 3;
                assert!(encrypted < LIMIT - 8 * 1024, "{length} bytes of {piece:?}");
                let body = content["body"].as_str().unwrap();
                assert!(
                    length <= SHOWN && body == text
                        || length > SHOWN && body.ends_with(CUT)
                        || piece == "\u{1}"
                );
            }
        }
    }

    #[test]
    fn an_edit_fits_into_an_event_as_its_text_does_and_mentions_nobody() {
        for piece in ["\"", "\u{1}", "ü", "@room "] {
            let plain = piece.repeat(1_000_000);
            let html = html_escape::encode_text(&plain).into_owned();
            let reply = Reply { plain, html };
            let event = "$first:example.org".try_into().unwrap();
            let edit = editing(reply.content(Sound::Silent), event);
            let edit = serde_json::to_value(edit).unwrap();
            assert!(
                edit.to_string().len() * 4 / 3 < LIMIT - 8 * 1024,
                "{piece:?}"
            );
            assert_eq!(edit["m.relates_to"]["event_id"], "$first:example.org");
            let (outer, inner) = (&edit["msgtype"], &edit["m.new_content"]["msgtype"]);
            assert!(outer == "m.notice" && inner == "m.notice");
            for mentions in [&edit["m.mentions"], &edit["m.new_content"]["m.mentions"]] {
                assert_eq!(*mentions, serde_json::json!({}));
            }
        }
    }

    #[test]
    fn a_message_mentions_nobody() {
        let content = content("I do not know the command `@room`.", "");
        assert_eq!(content["m.mentions"], serde_json::json!({}));
    }
}
