//! Events -> `Message`: what is dropped, and why.
//!
//! Invariant: the sync loop hands the events over, so nothing here waits for the homeserver: what is left over goes to a queue, and
//! waits for nothing but a place in it.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use matrix_sdk::{
    Room,
    deserialized_responses::TimelineEvent,
    ruma::{
        Int, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, RoomId,
        events::{
            AnySyncMessageLikeEvent, AnySyncTimelineEvent, SyncMessageLikeEvent,
            room::{
                encrypted::OriginalSyncRoomEncryptedEvent,
                message::{
                    MessageType, OriginalSyncRoomMessageEvent, Relation,
                    sanitize::remove_plain_reply_fallback,
                },
            },
        },
        serde::Raw,
    },
};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{
    ReplyTo,
    admin_room::AdminRoom,
    conversations::{Conversations, Talk},
    invitations::Invitation,
    late_key::{self, Decrypted, Places},
};

/// How many event ids are remembered, so that an event that comes twice counts once.
const REMEMBERED_EVENTS: usize = 4096;

/// What the bot hears.
#[derive(Debug)]
pub enum Heard {
    /// Somebody addressed the bot.
    Message(Message),
    /// Somebody said what the bot cannot decrypt.
    Undecryptable {
        /// Who.
        sender: OwnedUserId,
        /// To answer it.
        reply_to: ReplyTo,
    },
    /// Somebody said something to the bot outside of the admin room.
    Talk(Talk),
    /// Somebody invites the bot to another room.
    Invitation(Invitation),
    /// The admin room was upgraded, and is another room now.
    AdminRoomMoved,
    /// The homeserver shows another identity of a user than the one that the bot knows.
    IdentityChanged {
        /// Whose.
        user: OwnedUserId,
    },
}

/// A text that somebody addressed to the bot in the admin room.
#[derive(Debug, Clone)]
pub struct Message {
    /// The event, to reply to.
    pub event_id: OwnedEventId,
    /// Who sent it, says the homeserver; what proves it is looked at later (see [`Matrix::proof`]).
    pub sender: OwnedUserId,
    /// The text, without the quotation that some clients put before a reply.
    pub text: String,
    /// The thread that it was sent in.
    pub(super) thread: Option<OwnedEventId>,
}

/// Why an event is no message for the bot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dropped {
    NotAddressed,
    AnotherRoom,
    OwnEvent,
    NotText,
    Edit,
    TooOld,
    FromTheFuture,
    BeforeFirstSync,
    SeenBefore,
}

/// What the inbox goes by.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) own_user: OwnedUserId,
    pub(super) admin_room: Arc<AdminRoom>,
    pub(super) conversations: Arc<Conversations>,
    /// The first word of whatever is meant for the bot.
    pub(super) prefix: String,
    pub(super) max_age: Duration,
    pub(super) seen: Mutex<Seen>,
    /// Places for events whose keys are late.
    pub(super) places: Places,
    pub(super) heard: mpsc::Sender<Heard>,
}

impl Inbox {
    /// Hears an event, decrypted where that is possible. Waits while too much waits for the bot.
    pub(super) async fn hear(self: &Arc<Self>, event: &TimelineEvent, room: &Room) {
        use AnySyncMessageLikeEvent::{RoomEncrypted, RoomMessage};
        // What makes no sense is not for the bot.
        let Ok(AnySyncTimelineEvent::MessageLike(spoken)) = event.raw().deserialize() else {
            return;
        };
        match spoken {
            RoomMessage(SyncMessageLikeEvent::Original(message)) => {
                self.hear_message(&message, room).await;
            }
            RoomEncrypted(SyncMessageLikeEvent::Original(encrypted)) => {
                self.await_key(encrypted, event.raw().cast_ref_unchecked(), room);
            }
            _ => {}
        }
    }

    /// The key may come after its event, and the sync loop has to go on for it to come.
    fn await_key(
        self: &Arc<Self>,
        event: OriginalSyncRoomEncryptedEvent,
        raw: &Raw<OriginalSyncRoomEncryptedEvent>,
        room: &Room,
    ) {
        if !self.is_worth_waiting_for(&event, room) {
            return;
        }
        let Some(place) = self.places.take(&event.sender) else {
            // Each of the many that wait leaves a line in the log already.
            debug!(event = %event.event_id, "undecryptable event dropped, too many wait");
            return;
        };
        let (inbox, raw, room) = (Arc::clone(self), raw.clone(), room.clone());
        tokio::spawn(async move {
            inbox.wait_for_key(&event, raw, room).await;
            drop(place);
        });
    }

    async fn hear_message(&self, event: &OriginalSyncRoomMessageEvent, room: &Room) {
        let now = SystemTime::now();
        let heard = if self.admin_room.is(room.room_id()) {
            self.accept(event, now).map(Heard::Message)
        } else {
            self.accept_talk(event, room.room_id(), now)
                .map(Heard::Talk)
        };
        match heard {
            Ok(heard) => self.hand_over(heard).await,
            Err(Dropped::NotAddressed | Dropped::AnotherRoom | Dropped::OwnEvent) => {}
            Err(reason) => {
                debug!(event = %event.event_id, sender = %event.sender, ?reason, "event dropped");
            }
        }
    }

    /// Waits while too much waits for the bot.
    pub(super) async fn hand_over(&self, heard: Heard) {
        if self.heard.send(heard).await.is_err() {
            debug!("nobody is there any more to hear it");
        }
    }

    fn accept(
        &self,
        event: &OriginalSyncRoomMessageEvent,
        now: SystemTime,
    ) -> Result<Message, Dropped> {
        let text = self.own_words(event)?;
        let thread = match &event.content.relates_to {
            Some(Relation::Thread(thread)) => Some(thread.event_id.clone()),
            _ => None,
        };
        let first_word = text.split_whitespace().next().unwrap_or_default();
        if !first_word.eq_ignore_ascii_case(&self.prefix) {
            return Err(Dropped::NotAddressed);
        }
        self.check_time((event.origin_server_ts, event.unsigned.age), now)?;
        self.note(event)?;
        Ok(Message {
            event_id: event.event_id.clone(),
            sender: event.sender.clone(),
            text: text.to_owned(),
            thread,
        })
    }

    fn accept_talk(
        &self,
        event: &OriginalSyncRoomMessageEvent,
        room: &RoomId,
        now: SystemTime,
    ) -> Result<Talk, Dropped> {
        if !self.conversations.are_with(&event.sender, room) {
            return Err(Dropped::AnotherRoom);
        }
        let text = self.own_words(event)?;
        self.check_age((event.origin_server_ts, event.unsigned.age), now)?;
        self.note(event)?;
        Ok(Talk {
            sender: event.sender.clone(),
            text: text.to_owned(),
            room: room.to_owned(),
            event_id: event.event_id.clone(),
        })
    }

    /// What somebody else said, and for the first time.
    fn own_words<'a>(&self, event: &'a OriginalSyncRoomMessageEvent) -> Result<&'a str, Dropped> {
        if event.sender == self.own_user {
            return Err(Dropped::OwnEvent);
        }
        if let Some(Relation::Replacement(_)) = &event.content.relates_to {
            return Err(Dropped::Edit);
        }
        text_of(event).ok_or(Dropped::NotText)
    }

    fn note(&self, event: &OriginalSyncRoomMessageEvent) -> Result<(), Dropped> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.insert(event.event_id.clone()) {
            Ok(())
        } else {
            Err(Dropped::SeenBefore)
        }
    }

    /// What was sent to the admin room before the bot was there was not sent to the bot.
    fn check_time(
        &self,
        times: (MilliSecondsSinceUnixEpoch, Option<Int>),
        now: SystemTime,
    ) -> Result<(), Dropped> {
        let sent = times.0.to_system_time().ok_or(Dropped::FromTheFuture)?;
        if sent < self.admin_room.listening_since() {
            return Err(Dropped::BeforeFirstSync);
        }
        self.check_age(times, now)
    }

    /// Whether what was heard in time has waited too long since.
    pub(super) fn is_too_old(&self, times: (MilliSecondsSinceUnixEpoch, Option<Int>)) -> bool {
        self.check_age(times, SystemTime::now()).is_err()
    }

    /// `origin_server_ts` is the sender's word, `age` the homeserver's; the older of the two counts.
    fn check_age(
        &self,
        (sent, age): (MilliSecondsSinceUnixEpoch, Option<Int>),
        now: SystemTime,
    ) -> Result<(), Dropped> {
        let sent = sent.to_system_time().ok_or(Dropped::FromTheFuture)?;
        let age_by_clock = now.duration_since(sent);
        if age_by_clock
            .as_ref()
            .is_err_and(|ahead| ahead.duration() > self.max_age)
        {
            return Err(Dropped::FromTheFuture);
        }
        let age_by_server = age.and_then(|age| u64::try_from(i64::from(age)).ok());
        let age = age_by_clock
            .unwrap_or_default()
            .max(Duration::from_millis(age_by_server.unwrap_or(0)));
        if age > self.max_age {
            Err(Dropped::TooOld)
        } else {
            Ok(())
        }
    }

    fn is_worth_waiting_for(&self, event: &OriginalSyncRoomEncryptedEvent, room: &Room) -> bool {
        let times = (event.origin_server_ts, event.unsigned.age);
        let now = SystemTime::now();
        if event.sender == self.own_user {
            false
        } else if self.admin_room.is(room.room_id()) {
            self.check_time(times, now).is_ok()
        } else {
            self.conversations.are_with(&event.sender, room.room_id())
                && self.check_age(times, now).is_ok()
        }
    }

    async fn wait_for_key(
        &self,
        event: &OriginalSyncRoomEncryptedEvent,
        raw: Raw<OriginalSyncRoomEncryptedEvent>,
        room: Room,
    ) {
        match late_key::decrypt(&room, &raw).await {
            Some(Decrypted::Message(message, _)) => self.hear_message(&message, &room).await,
            Some(Decrypted::SomethingElse) => {}
            None if !self.admin_room.is(room.room_id()) => {
                debug!(event = %event.event_id, sender = %event.sender, "talk cannot be decrypted");
            }
            None => {
                warn!(event = %event.event_id, sender = %event.sender, "event in the admin room cannot be decrypted");
                let (sender, reply_to) =
                    (event.sender.clone(), ReplyTo::event(event.event_id.clone()));
                self.hand_over(Heard::Undecryptable { sender, reply_to })
                    .await;
            }
        }
    }
}

/// What somebody said, without the quotation that some clients put before a reply. `None`: it is no text.
pub(super) fn text_of(event: &OriginalSyncRoomMessageEvent) -> Option<&str> {
    match &event.content.msgtype {
        MessageType::Text(content) => Some(remove_plain_reply_fallback(&content.body)),
        _ => None,
    }
}

/// The ids of the latest events that counted.
#[derive(Debug, Default)]
pub(super) struct Seen {
    ids: HashSet<OwnedEventId>,
    order: VecDeque<OwnedEventId>,
}

impl Seen {
    /// False if the event was there already.
    fn insert(&mut self, id: OwnedEventId) -> bool {
        if !self.ids.insert(id.clone()) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED_EVENTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::owned_user_id;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_the_bot_should_know_is_not_lost_while_too_much_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let room = "#admins:x.y".try_into().unwrap();
        let now = SystemTime::now();
        let admin_room = AdminRoom::load(folder.path().join("admin-room.json"), room, now);
        let (heard, mut waiting) = mpsc::channel(1);
        let inbox = Inbox {
            own_user: owned_user_id!("@rcbot:x.y"),
            admin_room: Arc::new(admin_room.unwrap()),
            conversations: Arc::new(Conversations::load(folder.path()).unwrap()),
            prefix: "!rc".to_owned(),
            max_age: Duration::from_mins(2),
            seen: Mutex::default(),
            places: Places::default(),
            heard,
        };
        inbox.hand_over(Heard::AdminRoomMoved).await;
        let user = owned_user_id!("@alice:x.y");
        let later = inbox.hand_over(Heard::IdentityChanged { user });
        let both = async { (waiting.recv().await, waiting.recv().await) };
        let both = async { tokio::join!(later, both).1 };
        let both = timeout(Duration::from_secs(30), both).await;
        assert!(
            matches!(
                both,
                Ok((
                    Some(Heard::AdminRoomMoved),
                    Some(Heard::IdentityChanged { .. })
                ))
            ),
            "{both:?}"
        );
    }
}
