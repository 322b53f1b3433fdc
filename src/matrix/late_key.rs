//! Events whose key comes after them: Synapse hands out at most a hundred keys with each sync, so after a time away the keys
//! trail the events. They are tried again after each sync.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use matrix_sdk::{
    Client, Room,
    deserialized_responses::{EncryptionInfo, TimelineEventKind},
    ruma::{
        OwnedRoomId, UserId,
        events::room::{
            encrypted::OriginalSyncRoomEncryptedEvent, message::OriginalSyncRoomMessageEvent,
        },
        serde::Raw,
    },
};
use tracing::{debug, warn};

use super::{Chain, Fault, Heard, Matrix, ReplyTo, inbox::Inbox};

/// How long a key may trail its event before the sender is told that the event cannot be read.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How many events of one sender may wait for their keys at a time, so that nobody takes the places of others.
const WAITING_PER_SENDER: usize = 16;

/// How many may wait of all senders: each is looked up after each sync, and a homeserver can invent senders.
const WAITING: usize = 1024;

/// An event whose key is not there yet.
#[derive(Debug)]
pub struct Late {
    event: OriginalSyncRoomEncryptedEvent,
    raw: Raw<OriginalSyncRoomEncryptedEvent>,
    room: OwnedRoomId,
    since: Instant,
}

impl Late {
    pub(super) fn new(
        event: OriginalSyncRoomEncryptedEvent,
        raw: Raw<OriginalSyncRoomEncryptedEvent>,
        room: OwnedRoomId,
    ) -> Self {
        Self {
            event,
            raw,
            room,
            since: Instant::now(),
        }
    }

    /// Whether the key should have come by now.
    fn is_overdue(&self) -> bool {
        self.since.elapsed() >= PATIENCE
    }
}

/// The events that wait for their keys, in the order in which they were said.
#[derive(Debug, Default)]
pub(super) struct LateKeys(Mutex<VecDeque<Late>>);

impl LateKeys {
    /// False: too many wait, of this sender or of all.
    fn wait(&self, late: Late) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let senders = waiting.iter().map(|late| &*late.event.sender);
        let has_place = has_place(senders, &late.event.sender);
        if has_place {
            waiting.push_back(late);
        }
        has_place
    }

    /// All that wait. Those whose key is still missing are to wait on.
    fn take(&self) -> VecDeque<Late> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_empty(&self) -> bool {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.is_empty()
    }
}

impl Matrix {
    /// The events that wait for their keys, which a connection in place of this one is to wait for: no later one hears them.
    #[must_use]
    pub fn take_late(&self) -> VecDeque<Late> {
        self.inbox.late.take()
    }

    /// Waits for the keys of what an earlier connection has heard. They may come with the next sync, so the wait begins anew.
    pub fn wait_on(&self, late: VecDeque<Late>) {
        for late in late {
            let since = Instant::now();
            self.inbox.await_key(Late { since, ..late });
        }
    }
}

impl Inbox {
    /// The key may come after its event, with a later sync.
    pub(super) fn await_key(&self, late: Late) {
        if !self.is_worth_waiting_for(&late.event, &late.room) {
            return;
        }
        let event = late.event.event_id.clone();
        if !self.late.wait(late) {
            // Each of the many that wait leaves a line in the log already.
            debug!(%event, "undecryptable event dropped, too many wait");
        }
    }

    /// Whether a key may come that somebody waits for.
    pub(super) fn waits_for_keys(&self) -> bool {
        !self.late.is_empty()
    }

    /// Hears the events whose keys have come. To be called after each sync, and soon enough for those whose keys do not come.
    pub(super) async fn hear_late(&self, client: &Client) {
        for late in self.late.take() {
            let Some(room) = client.get_room(&late.room) else {
                continue;
            };
            match try_to_decrypt(&room, &late.raw).await {
                Ok(Some(Decrypted::Message(message, _))) => {
                    self.hear_message(&message, &room).await;
                }
                Ok(Some(Decrypted::SomethingElse)) => {}
                Ok(None) | Err(_) if !late.is_overdue() => drop(self.late.wait(late)),
                Ok(None) => self.give_up(late).await,
                Err(fault) => {
                    warn!(event = %late.event.event_id, error = %Chain(&fault), "event not decrypted");
                    self.give_up(late).await;
                }
            }
        }
    }

    async fn give_up(&self, Late { event, .. }: Late) {
        warn!(event = %event.event_id, sender = %event.sender, "event in the admin room cannot be decrypted");
        let (sender, reply_to) = (event.sender, ReplyTo::event(event.event_id));
        self.hand_over(Heard::Undecryptable { sender, reply_to })
            .await;
    }
}

fn has_place<'a>(waiting: impl Iterator<Item = &'a UserId>, sender: &UserId) -> bool {
    let (mut all, mut own) = (0, 0);
    for waiting in waiting {
        all += 1;
        own += usize::from(waiting == sender);
    }
    all < WAITING && own < WAITING_PER_SENDER
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
    fn nobody_takes_the_places_of_others_and_all_together_are_bounded() {
        let (alice, mallory) = (user_id!("@alice:x.y"), user_id!("@mallory:x.y"));
        let of_mallory = |count| std::iter::repeat_n(mallory, count);
        assert!(has_place(of_mallory(WAITING_PER_SENDER - 1), mallory));
        assert!(!has_place(of_mallory(WAITING_PER_SENDER), mallory));
        assert!(has_place(of_mallory(WAITING_PER_SENDER), alice));
        assert!(!has_place(of_mallory(WAITING), alice));
    }
}
