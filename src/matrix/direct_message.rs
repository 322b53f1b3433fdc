//! The only way to send a link: in an encrypted room with only the requester, which is checked right before.
//!
//! The SDK sends plaintext, silently, when it believes a room to be unencrypted, and its ready-made direct message is too open
//! (history shared, everyone may invite). So the bot creates its own room, and checks it on the homeserver for each link.
//!
//! Invariant: [`Link::expose`] is called here once, and its result goes into an encrypted event. For its picture,
//! `link_picture` calls it, and the picture goes into an encrypted attachment.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use matrix_sdk::{
    Room, RoomState,
    ruma::{
        OwnedEventId, OwnedRoomId, OwnedTransactionId, OwnedUserId, RoomId, UserId,
        api::client::room::create_room::{self, v3::RoomPreset},
        events::{
            AnyInitialStateEvent, InitialStateEvent,
            room::{
                encryption::RoomEncryptionEventContent,
                guest_access::{GuestAccess, RoomGuestAccessEventContent},
                history_visibility::{HistoryVisibility, RoomHistoryVisibilityEventContent},
                message::RoomMessageEventContent,
            },
        },
        serde::Raw,
    },
};
use serde_json::json;
use tracing::{error, info, warn};

use super::{
    Chain, Fault, LinkReceipt, Matrix, NotConfidential, NotSent, Reply,
    confidentiality::{is_confidential, is_invited, was_between_two},
    pinned_identities::KeptVerification,
    redact::Picture,
    rooms::{LinkKey, Readers},
    send::{SentSecret, Sound, Turn, editing, mentioning, mentioning_nobody},
};
use crate::link::Link;

/// How long a check of a room and its members holds. A longer delivery is waiting for something, and much can change meanwhile.
const PROVEN_FOR: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct SentLink {
    pub receipt: LinkReceipt,
    /// Whether the recipient has yet to accept the invitation to the room.
    pub is_invited: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct SentNotice {
    pub room: OwnedRoomId,
    event: OwnedEventId,
}

/// Proof that a room was fit for a link a moment ago: made by the bot, encrypted, with exactly the bot and the requester in it,
/// who has a device that may read. Valid for one send within two seconds. While it is held, no verification is withdrawn.
#[derive(Debug)]
pub(crate) struct ConfidentialRoom {
    matrix: Matrix,
    room: Room,
    recipient: OwnedUserId,
    readers: Readers,
    /// When the check began: its answers may be as old as that.
    proven: Instant,
    /// The turn to send there, if it was taken before the check.
    turn: Option<Turn>,
    _verification: KeptVerification,
}

impl ConfidentialRoom {
    pub(crate) fn id(&self) -> &RoomId {
        self.room.room_id()
    }

    /// Sends the link, with these words before and after it.
    ///
    /// The same `transaction` in the same room is the same event for the homeserver, however often it is tried.
    /// [`NotSent::Refused`] if the room turned out to be overheard, [`NotSent::Fault`] if the sending failed.
    pub(crate) async fn send(
        mut self,
        link: &Link,
        words: &(Reply, Reply),
        transaction: OwnedTransactionId,
    ) -> Result<SentLink, NotSent> {
        let content = compose(link, words);
        let sent = self.send_with_key_of(link, content, &transaction).await?;
        let event = self.or_redact(sent).await?;
        info!(recipient = %self.recipient, %event, "link sent");
        Ok(SentLink {
            receipt: LinkReceipt {
                room: self.id().to_owned(),
                event,
                picture: Picture::None,
            },
            is_invited: is_invited(&self.room, &self.recipient).await,
        })
    }

    /// Sends a link or its picture with a key that nothing else has: the one made before for the same link and the same devices,
    /// or a new one. Nothing is sent in between that could use it too.
    pub(super) async fn send_with_key_of(
        &mut self,
        link: &Link,
        content: RoomMessageEventContent,
        transaction: &OwnedTransactionId,
    ) -> Result<SentSecret, Fault> {
        let key = LinkKey {
            link: link.clone(),
            readers: std::mem::take(&mut self.readers),
        };
        let turn = self.turn().await;
        let rooms = &self.matrix.direct_messages;
        if rooms.take_key(self.id()).as_ref() != Some(&key) {
            self.room.discard_room_key().await?;
        }
        let sent = turn
            .send_secret(&self.recipient, content, transaction)
            .await;
        if let Ok(true) = sent.is_confidential {
            rooms.set_key(self.id(), key);
        }
        Ok(sent)
    }

    /// Sends something confidential that is not a link: as an edit of an earlier message, if one is given.
    pub(crate) async fn send_notice(
        mut self,
        text: &Reply,
        edited: Option<&SentNotice>,
        transaction: &OwnedTransactionId,
    ) -> Result<SentNotice, NotSent> {
        let turn = self.turn().await;
        let content = text.content(Sound::Silent);
        let content = match edited {
            Some(earlier) => editing(content, earlier.event.clone()),
            None => content,
        };
        let sent = turn.send_secret(&self.recipient, content, transaction);
        let event = self.or_redact(sent.await).await?;
        let room = self.id().to_owned();
        Ok(SentNotice { room, event })
    }

    /// Redacts a secret if another user may have got it.
    async fn or_redact(&self, sent: SentSecret) -> Result<OwnedEventId, NotSent> {
        match (sent.event, sent.is_confidential?) {
            (Some(event), true) => return Ok(event),
            (Some(event), false) => {
                if let Err(error) = self.room.redact(&event, None, None).await {
                    error!(%event, %error, "an overheard message was not redacted");
                }
            }
            (None, _) => {}
        }
        Err(NotSent::Refused(NotConfidential::Overheard))
    }

    /// Whether this proof is still valid: fresh, of this connection, and for this recipient and room.
    fn holds(&self, matrix: &Matrix, recipient: &UserId, tried: Option<&RoomId>) -> bool {
        let known = self.matrix.direct_messages.with(recipient);
        is_fresh(self.proven)
            && self.recipient == recipient
            && Arc::ptr_eq(&self.matrix.logged_in, &matrix.logged_in)
            && tried.or(known.as_deref()) == Some(self.id())
    }

    async fn turn(&mut self) -> Turn {
        match self.turn.take() {
            Some(turn) if turn.room().room_id() == self.room.room_id() => turn,
            Some(_) | None => self.matrix.turn(&self.room).await,
        }
    }
}

fn compose(link: &Link, (before, after): &(Reply, Reply)) -> RoomMessageEventContent {
    let url = link.expose();
    let href = html_escape::encode_double_quoted_attribute(url);
    let shown = html_escape::encode_text(url);
    // A text, not a notice: it is what the requester waits for, and a notice does not ring.
    mentioning_nobody(RoomMessageEventContent::text_html(
        format!("{}\n\n{url}\n\n{}", before.plain, after.plain),
        format!(
            "<p>{}</p><p><a href=\"{href}\">{shown}</a></p><p>{}</p>",
            before.html, after.html
        ),
    ))
}

impl Matrix {
    /// Waits for the turn to send to this user, in the room of earlier links: checks that are made afterwards are fresh when
    /// they are used. `None`: there is no such room.
    pub(crate) async fn turn_to_confide(&self, recipient: &UserId) -> Option<Turn> {
        let room = self.direct_messages.with(recipient)?;
        let room = self.client.get_room(&room)?;
        Some(self.turn(&room).await)
    }

    /// Checks the room in which this user got a link before, if there is one and their identity is pinned. For a command that
    /// is still being judged: no room is made, and no identity is pinned.
    pub(crate) async fn known_confidential_room(
        &self,
        recipient: &UserId,
    ) -> Result<Option<ConfidentialRoom>, NotSent> {
        if self.direct_messages.with(recipient).is_none() || !self.is_pinned(recipient) {
            return Ok(None);
        }
        self.prove(recipient, None, false).await
    }

    /// Finds or makes the room for a link to this user, and checks that it is fit for it. `tried`: the room in which the link
    /// may be already. No other one is used then, as it cannot be checked who reads it there. `known`: an earlier proof, which
    /// is used unless it is too old.
    /// [`NotSent::Refused`] if there can be none, [`NotSent::Fault`] if the check failed.
    pub(crate) async fn confidential_room(
        &self,
        recipient: &UserId,
        tried: Option<&RoomId>,
        turn: Option<Turn>,
        known: Option<ConfidentialRoom>,
    ) -> Result<ConfidentialRoom, NotSent> {
        let proven = match known.filter(|known| known.holds(self, recipient, tried)) {
            Some(known) => Some(known),
            None => self.prove(recipient, tried, tried.is_none()).await?,
        };
        // Only where the link may be in the room that was tried.
        let room = proven.ok_or(NotSent::Refused(NotConfidential::Overheard))?;
        Ok(ConfidentialRoom { turn, ..room })
    }

    /// Checks the recipient, and the room of [`Self::fit_room`]. `None`: there is none, and none may be made.
    async fn prove(
        &self,
        recipient: &UserId,
        tried: Option<&RoomId>,
        may_make: bool,
    ) -> Result<Option<ConfidentialRoom>, NotSent> {
        let proven = Instant::now();
        let verification = self.keep_verified(recipient).await;
        let fit = async { Ok(self.fit_room(recipient, tried).await?) };
        let (readers, mut room) = tokio::try_join!(self.check_devices(recipient), fit)?;
        if room.is_none() && may_make {
            room = Some(self.make_room(recipient).await?);
        }
        Ok(room.map(|room| ConfidentialRoom {
            matrix: self.clone(),
            room,
            recipient: recipient.to_owned(),
            readers,
            proven,
            turn: None,
            _verification: verification,
        }))
    }

    /// Sends a user a notice in their direct message, if there is one. For notices about links, without a link.
    pub(crate) async fn send_notice(
        &self,
        recipient: &UserId,
        text: &Reply,
        sound: Sound,
        transaction: &OwnedTransactionId,
    ) -> Result<(), Fault> {
        if let Some(room) = self.fit_room(recipient, None).await? {
            let content = match sound {
                Sound::Rings => mentioning(text.content(sound), recipient),
                Sound::Silent => text.content(sound),
            };
            self.send(&room, content, transaction).await?;
        }
        Ok(())
    }

    /// The room of earlier links, if another user was ever in it, and so may have read them.
    pub(crate) async fn overheard_room(&self, recipient: &UserId) -> Option<OwnedRoomId> {
        let room = self.direct_messages.with(recipient)?;
        let room = self.client.get_room(&room)?;
        let was_overheard = !was_between_two(&room, recipient).await;
        was_overheard.then(|| room.room_id().to_owned())
    }

    /// The room that was tried, or else the one of earlier links, if it is still confidential.
    async fn fit_room(
        &self,
        recipient: &UserId,
        tried: Option<&RoomId>,
    ) -> Result<Option<Room>, Fault> {
        let known = || self.direct_messages.with(recipient);
        let Some(id) = tried.map(RoomId::to_owned).or_else(known) else {
            return Ok(None);
        };
        let room = match self.client.get_room(&id) {
            Some(room) => Some(room),
            None => self.synced_room(&id).await,
        };
        let Some(room) = room.filter(|room| room.state() == RoomState::Joined) else {
            return Ok(None);
        };
        let fit = is_confidential(&room, recipient).await?;
        if !fit {
            warn!(room = %id, %recipient, "direct message no longer confidential");
        }
        Ok(fit.then_some(room))
    }

    async fn make_room(&self, recipient: &UserId) -> Result<Room, NotSent> {
        // Not with the SDK's own function, which also updates `m.direct`, with two more requests.
        let made = self.client.send(room_request(recipient)?).await;
        let id = match made.map_err(Fault::from) {
            Ok(made) => made.room_id,
            Err(fault) if !fault.is_refusal() => return Err(NotSent::Fault(fault)),
            Err(fault) => {
                let reason = Chain(&fault).to_string();
                return Err(NotSent::Refused(NotConfidential::RoomRefused { reason }));
            }
        };
        info!(room = %id, %recipient, "direct message made");
        self.direct_messages.replace(recipient, &id)?;
        let room = self.synced_room(&id).await.ok_or(Fault::RoomNotShown)?;
        if is_confidential(&room, recipient).await? {
            Ok(room)
        } else {
            let reason = "the new room is not as requested".to_owned();
            Err(NotSent::Refused(NotConfidential::RoomRefused { reason }))
        }
    }
}

fn is_fresh(proven: Instant) -> bool {
    proven.elapsed() < PROVEN_FOR
}

fn room_request(recipient: &UserId) -> Result<create_room::v3::Request, Fault> {
    let mut request = create_room::v3::Request::new();
    request.preset = Some(RoomPreset::PrivateChat);
    request.is_direct = true;
    // The invitation shows it.
    request.topic = Some(
        "Links to your Claude Code sessions. Only you and the bot are in this room.".to_owned(),
    );
    request.invite = vec![recipient.to_owned()];
    request.initial_state = vec![
        InitialStateEvent::with_empty_state_key(
            RoomEncryptionEventContent::with_recommended_defaults(),
        )
        .to_raw_any(),
        // Invited: the requester reads, after joining, a link that was sent before.
        InitialStateEvent::with_empty_state_key(RoomHistoryVisibilityEventContent::new(
            HistoryVisibility::Invited,
        ))
        .to_raw_any(),
        InitialStateEvent::with_empty_state_key(RoomGuestAccessEventContent::new(
            GuestAccess::Forbidden,
        ))
        .to_raw_any(),
        without_previews()?,
    ];
    let power_levels =
        json!({ "invite": 100, "kick": 100, "ban": 100, "redact": 100, "state_default": 100 });
    request.power_level_content_override = Some(Raw::new(&power_levels)?.cast_unchecked());
    Ok(request)
}

/// Disables URL previews: for those a client has the homeserver fetch the link. The event is in no specification: Element made
/// it up, and other clients support it too.
fn without_previews() -> serde_json::Result<Raw<AnyInitialStateEvent>> {
    let event = json!({
        "type": "org.matrix.room.preview_urls", "state_key": "", "content": { "disable": true },
    });
    Ok(Raw::new(&event)?.cast_unchecked())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_two_seconds_at_most() {
        let now = Instant::now();
        assert!(is_fresh(now));
        assert!(is_fresh(
            now.checked_sub(Duration::from_millis(1_500)).unwrap()
        ));
        assert!(!is_fresh(now.checked_sub(Duration::from_secs(2)).unwrap()));
    }
}
