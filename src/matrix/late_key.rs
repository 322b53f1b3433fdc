//! Events whose key comes after them: Synapse hands out at most a hundred keys with each sync, so after a time away the keys
//! trail the events, and the SDK does not run its handlers again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures_util::StreamExt as _;
use matrix_sdk::{
    Room,
    deserialized_responses::{EncryptionInfo, TimelineEventKind},
    ruma::{
        OwnedUserId, UserId,
        events::room::{
            encrypted::OriginalSyncRoomEncryptedEvent, message::OriginalSyncRoomMessageEvent,
        },
        serde::Raw,
    },
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::debug;

use super::{Chain, Fault};

/// How long a key may trail its event before the sender is told that the event cannot be read.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many events of one sender may wait for their keys at a time.
const WAITING_PER_SENDER: usize = 16;

/// The places for events whose keys are late. Each sender has their own, so that nobody takes those of others.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<HashMap<OwnedUserId, Weak<Semaphore>>>);

impl Places {
    /// A place for an event of this sender, until it is dropped. `None`: all are taken.
    pub(super) fn take(&self, sender: &UserId) -> Option<OwnedSemaphorePermit> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|_, places| places.strong_count() > 0);
        let known = places.get(sender).and_then(Weak::upgrade);
        let own = known.unwrap_or_else(|| Arc::new(Semaphore::new(WAITING_PER_SENDER)));
        places.insert(sender.to_owned(), Arc::downgrade(&own));
        own.try_acquire_owned().ok()
    }
}

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

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::user_id;

    use super::*;

    #[test]
    fn nobody_takes_the_places_of_others() {
        let places = Places::default();
        let (alice, mallory) = (user_id!("@alice:x.y"), user_id!("@mallory:x.y"));
        let mut taken: Vec<_> = (0..1_000).filter_map(|_| places.take(mallory)).collect();
        assert_eq!(taken.len(), WAITING_PER_SENDER);
        let place = places.take(alice).unwrap();
        taken.pop();
        assert!(places.take(mallory).is_some(), "one is free again");
        drop((taken, place));
        drop(places.take(alice));
        assert_eq!(places.0.lock().unwrap().len(), 1, "the rest is forgotten");
    }
}
