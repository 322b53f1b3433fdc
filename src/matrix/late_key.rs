//! Events whose key comes after them: Synapse hands out at most a hundred keys with each sync, so after a time away the keys
//! trail the events, and the SDK does not run its handlers again.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use matrix_sdk::{
    Room,
    deserialized_responses::{EncryptionInfo, TimelineEventKind},
    ruma::{
        events::room::{
            encrypted::OriginalSyncRoomEncryptedEvent, message::OriginalSyncRoomMessageEvent,
        },
        serde::Raw,
    },
};
use tokio::time::timeout;
use tracing::debug;

use super::{Chain, Fault};

/// How long a key may trail its event before the sender is told that the event cannot be read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for the key of an event; gives back what it says, if it is a message. `None`: the key did not come.
pub(super) async fn decrypt(
    room: &Room,
    event: &Raw<OriginalSyncRoomEncryptedEvent>,
) -> Option<Decrypted> {
    let encryption = room.client().encryption();
    let waiting = async {
        // Listened to before the first try, so that no key comes unheard between the two.
        let mut keys = Box::pin(encryption.room_keys_received_stream().await?);
        loop {
            match try_to_decrypt(room, event).await {
                Ok(Some(decrypted)) => return Some(decrypted),
                Ok(None) => {}
                Err(fault) => debug!(error = %Chain(&fault), "event not decrypted"),
            }
            keys.next().await?.ok();
        }
    };
    timeout(PATIENCE, waiting).await.ok().flatten()
}

/// What an event says once its key is there.
pub(super) enum Decrypted {
    /// A message.
    Message(Box<OriginalSyncRoomMessageEvent>, Arc<EncryptionInfo>),
    /// Something that is no message, and so no command.
    SomethingElse,
}

/// What an event says, if its key is there.
///
/// # Errors
/// [`Fault`], where the store does not tell.
pub(super) async fn try_to_decrypt(
    room: &Room,
    event: &Raw<OriginalSyncRoomEncryptedEvent>,
) -> Result<Option<Decrypted>, Fault> {
    Ok(match room.decrypt_event(event, None).await?.kind {
        TimelineEventKind::Decrypted(decrypted) => {
            let message = decrypted.event.deserialize_as_unchecked();
            Some(match message {
                Ok(message) => Decrypted::Message(Box::new(message), decrypted.encryption_info),
                Err(_) => Decrypted::SomethingElse,
            })
        }
        TimelineEventKind::UnableToDecrypt { .. } | TimelineEventKind::PlainText { .. } => None,
    })
}
