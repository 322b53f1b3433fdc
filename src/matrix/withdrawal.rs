//! Takes links back, and their pictures, those included whose sending was cut off.

use matrix_sdk::{
    Room, RoomState,
    ruma::{
        EventId, OwnedEventId, OwnedTransactionId, RoomId, UserId,
        events::room::message::RoomMessageEventContent,
    },
};
use tracing::warn;

use super::{Chain, Fault, LinkReceipt, Matrix, link_receipt::Picture, send::mentioning_nobody};

/// Under which transactions a link and its picture are sent: the same for each try, so that each is one event.
#[derive(Debug, Clone)]
pub struct LinkTransactions {
    /// The link's.
    pub link: OwnedTransactionId,
    /// Its picture's.
    pub picture: OwnedTransactionId,
}

impl Matrix {
    /// Takes a link back, and its picture. A room or an event that is gone, or that is no longer ours, cannot be mended.
    ///
    /// # Errors
    /// [`Fault`], if it may work later.
    pub async fn withdraw(&self, receipt: &LinkReceipt) -> Result<(), Fault> {
        let Some(room) = self.client.get_room(&receipt.room) else {
            warn!(room = %receipt.room, "link not taken back, its room is gone");
            return Ok(());
        };
        remove(&room, &receipt.event).await?;
        match &receipt.picture {
            Picture::Sent(event) => remove(&room, event).await,
            Picture::None | Picture::Unsettled => Ok(()),
        }
    }

    /// Takes back a link whose sending was cut off, and its picture, wherever it may be. The homeserver is sent a harmless text
    /// under the same transaction: if the link had arrived, it answers with the link's event.
    ///
    /// # Errors
    /// [`Fault`], if it may work later.
    pub async fn withdraw_untold(
        &self,
        recipient: &UserId,
        harmless: &str,
        transactions: &LinkTransactions,
    ) -> Result<(), Fault> {
        if let Some(room) = self.direct_messages.with(recipient) {
            self.withdraw_from(&room, harmless, transactions).await?;
        }
        self.withdraw_replaced(recipient, harmless, transactions)
            .await
    }

    /// The same in the rooms to which no link of this user goes any more: another one is to be sent in their place.
    ///
    /// # Errors
    /// [`Fault`], if it may work later.
    pub async fn withdraw_replaced(
        &self,
        recipient: &UserId,
        harmless: &str,
        transactions: &LinkTransactions,
    ) -> Result<(), Fault> {
        for room in self.direct_messages.replaced(recipient) {
            self.withdraw_from(&room, harmless, transactions).await?;
        }
        Ok(())
    }

    async fn withdraw_from(
        &self,
        room: &RoomId,
        harmless: &str,
        transactions: &LinkTransactions,
    ) -> Result<(), Fault> {
        let Some(room) = self.client.get_room(room) else {
            return Ok(());
        };
        let Some(event) = self.find(&room, harmless, &transactions.link).await? else {
            return Ok(());
        };
        let receipt = LinkReceipt {
            room: room.room_id().to_owned(),
            event,
            picture: Picture::Unsettled,
        };
        let receipt = self.trace_picture(receipt, harmless, transactions).await?;
        self.withdraw(&receipt).await
    }

    /// Finds out where the picture is of a link whose place is known. A receipt that knows of its picture stays as it is.
    ///
    /// # Errors
    /// [`Fault`], if it may work later.
    pub async fn trace_picture(
        &self,
        receipt: LinkReceipt,
        harmless: &str,
        transactions: &LinkTransactions,
    ) -> Result<LinkReceipt, Fault> {
        let room = self.client.get_room(&receipt.room);
        let (Picture::Unsettled, Some(room)) = (&receipt.picture, room) else {
            return Ok(receipt);
        };
        let found = self.find(&room, harmless, &transactions.picture).await?;
        Ok(LinkReceipt {
            picture: found.map_or(Picture::None, Picture::Sent),
            ..receipt
        })
    }

    /// The event of a transaction. `None`: in this room nothing can be said, nor taken back.
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

async fn remove(room: &Room, event: &EventId) -> Result<(), Fault> {
    match room
        .redact(event, Some("the session has ended"), None)
        .await
        .map_err(Fault::from)
    {
        Ok(_) => Ok(()),
        Err(fault) if !fault.is_refusal() => Err(fault),
        Err(fault) => {
            warn!(room = %room.room_id(), error = %Chain(&fault), "link not taken back");
            Ok(())
        }
    }
}
