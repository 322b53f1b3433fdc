//! Redacts links and their pictures, also after an interrupted send: by the receipt in the session's record, or by the
//! transactions under which they were sent.

use std::{fmt, str::FromStr};

use matrix_sdk::{
    Room, RoomState,
    ruma::{
        EventId, OwnedEventId, OwnedRoomId, OwnedTransactionId, RoomId, UserId,
        events::room::message::RoomMessageEventContent,
    },
};
use tracing::warn;

use super::{Chain, Fault, Matrix, send::mentioning_nobody};

/// Stands for a picture that may have been sent.
const UNSETTLED: &str = "?";

/// Where a link and its picture were sent, for redacting both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkReceipt {
    pub(super) room: OwnedRoomId,
    pub(super) event: OwnedEventId,
    pub(super) picture: Picture,
}

/// Whether a link's picture was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Picture {
    None,
    /// It may have been sent, or may be sent yet: its transaction shows it.
    Unsettled,
    Sent(OwnedEventId),
}

impl LinkReceipt {
    pub(crate) fn room(&self) -> &RoomId {
        &self.room
    }

    /// Whether it is of this message, for which no picture was sent.
    pub(crate) fn lacks_picture_of(&self, message: &EventId) -> bool {
        self.event == message && self.picture == Picture::None
    }
}

impl fmt::Display for LinkReceipt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.room, self.event)?;
        match &self.picture {
            Picture::None => Ok(()),
            Picture::Unsettled => write!(formatter, " {UNSETTLED}"),
            Picture::Sent(event) => write!(formatter, " {event}"),
        }
    }
}

impl FromStr for LinkReceipt {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.split(' ');
        let mut next = || words.next();
        let room = next().ok_or("no room")?;
        let event = next().ok_or("no event")?;
        let picture = match next() {
            None => Picture::None,
            Some(UNSETTLED) => Picture::Unsettled,
            Some(event) => Picture::Sent(event.try_into().map_err(|_| "no picture")?),
        };
        if next().is_some() {
            return Err("more than a room and two events");
        }
        Ok(Self {
            room: room.try_into().map_err(|_| "no room")?,
            event: event.try_into().map_err(|_| "no event")?,
            picture,
        })
    }
}

/// The transactions of a link and of what belongs to it: the same for each try, so that each is one event.
#[derive(Debug, Clone)]
pub(crate) struct LinkTransactions {
    pub link: OwnedTransactionId,
    pub picture: OwnedTransactionId,
    /// That of the reaction by which the picture is offered.
    pub offer: OwnedTransactionId,
    /// What is sent to find the event of one of them, in case there is none.
    pub harmless: String,
}

impl Matrix {
    /// Redacts a link and its picture. If the picture's event is not known, the homeserver is asked for it, as in
    /// [`Self::redact_undelivered`]. A room or an event that is gone, or no longer the bot's, is skipped.
    /// Fails if a retry may work.
    pub(crate) async fn redact_link(
        &self,
        receipt: &LinkReceipt,
        transactions: &LinkTransactions,
    ) -> Result<(), Fault> {
        let Some(room) = self.client.get_room(&receipt.room) else {
            warn!(room = %receipt.room, "link not redacted, its room is gone");
            return Ok(());
        };
        let harmless = &transactions.harmless;
        let picture = match &receipt.picture {
            Picture::None => None,
            Picture::Sent(event) => Some(event.clone()),
            Picture::Unsettled => self.find(&room, harmless, &transactions.picture).await?,
        };
        redact(&room, &receipt.event).await?;
        match picture {
            Some(picture) => redact(&room, &picture).await,
            None => Ok(()),
        }
    }

    /// Redacts a link and its picture after an interrupted send, wherever they may be. A harmless text is sent under the same
    /// transaction: if the link had arrived, the homeserver answers with the link's event.
    /// Fails if a retry may work.
    pub(crate) async fn redact_undelivered(
        &self,
        recipient: &UserId,
        transactions: &LinkTransactions,
    ) -> Result<(), Fault> {
        if let Some(room) = self.direct_messages.with(recipient) {
            self.redact_in(&room, transactions).await?;
        }
        self.redact_in_replaced(recipient, transactions).await
    }

    /// The same in the replaced rooms of this user, before a new link is sent.
    /// Fails if a retry may work.
    pub(crate) async fn redact_in_replaced(
        &self,
        recipient: &UserId,
        transactions: &LinkTransactions,
    ) -> Result<(), Fault> {
        for room in self.direct_messages.replaced(recipient) {
            self.redact_in(&room, transactions).await?;
        }
        Ok(())
    }

    async fn redact_in(&self, id: &RoomId, transactions: &LinkTransactions) -> Result<(), Fault> {
        let Some(room) = self.client.get_room(id) else {
            return Ok(());
        };
        let LinkTransactions { link, harmless, .. } = transactions;
        let Some(event) = self.find(&room, harmless, link).await? else {
            return Ok(());
        };
        let receipt = LinkReceipt {
            room: id.to_owned(),
            event,
            picture: Picture::Unsettled,
        };
        self.redact_link(&receipt, transactions).await
    }

    /// The event of a transaction. `None`: the bot can neither send nor redact in this room.
    async fn find(
        &self,
        room: &Room,
        harmless: &str,
        transaction: &OwnedTransactionId,
    ) -> Result<Option<OwnedEventId>, Fault> {
        if room.state() != RoomState::Joined
            || !room.latest_encryption_state().await?.is_encrypted()
        {
            return Ok(None);
        }
        let content = mentioning_nobody(RoomMessageEventContent::notice_plain(harmless));
        self.send(room, content, transaction).await.map(Some)
    }
}

async fn redact(room: &Room, event: &EventId) -> Result<(), Fault> {
    let redacted = room.redact(event, Some("the session has ended"), None);
    match redacted.await.map_err(Fault::from) {
        Ok(_) => Ok(()),
        Err(fault) if !fault.is_refusal() => Err(fault),
        Err(fault) => {
            warn!(room = %room.room_id(), error = %Chain(&fault), "link not redacted");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_survives_as_text_in_each_state_of_the_picture() {
        // The first one is from before there were pictures.
        for (text, picture) in [
            ("!room:example.org $link", Picture::None),
            ("!room:example.org $link ?", Picture::Unsettled),
            (
                "!room:example.org $link $picture",
                Picture::Sent("$picture".try_into().unwrap()),
            ),
        ] {
            let receipt: LinkReceipt = text.parse().unwrap();
            assert_eq!(receipt.event, "$link");
            assert_eq!(receipt.picture, picture);
            assert_eq!(receipt.to_string(), text);
        }
    }

    #[test]
    fn a_text_without_event_ids_is_not_a_receipt() {
        for text in [
            "",
            "!room",
            "!room link",
            "!room $link picture",
            "!room $link $picture $more",
        ] {
            assert!(text.parse::<LinkReceipt>().is_err(), "{text}");
        }
    }
}
