//! Events -> `Message`: what is dropped, and why.
//!
//! Invariant: handlers run inside the sync loop, so nothing here waits: what is left over goes to a queue.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use matrix_sdk::{
    Client, Room,
    deserialized_responses::{EncryptionInfo, VerificationLevel, VerificationState},
    event_handler::RawEvent,
    ruma::{
        Int, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId,
        events::room::{
            encrypted::OriginalSyncRoomEncryptedEvent,
            message::{
                MessageType, OriginalSyncRoomMessageEvent, Relation,
                sanitize::remove_plain_reply_fallback,
            },
        },
        serde::Raw,
    },
};
use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, warn};

use super::{
    Matrix, ReplyTo,
    late_key::{self, Decrypted},
};

/// How many event ids are remembered, so that an event that comes twice counts once.
const REMEMBERED_EVENTS: usize = 4096;

/// How many events may wait for their keys at a time.
const WAITING_FOR_KEYS: usize = 64;

/// What the bot hears in the admin room.
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
}

/// A text that somebody addressed to the bot in the admin room.
#[derive(Debug, Clone)]
pub struct Message {
    /// The event, to reply to.
    pub event_id: OwnedEventId,
    /// Who sent it, says the homeserver, and the encryption if there was any (see `trust`).
    pub sender: OwnedUserId,
    /// The text, without the quotation that some clients put before a reply.
    pub text: String,
    /// How the event was encrypted.
    pub trust: Trust,
    /// The Megolm session of the event, to look at its sender again.
    pub(super) megolm_session: Option<String>,
    /// The thread that it was sent in.
    pub(super) thread: Option<OwnedEventId>,
}

/// What the encryption of an event proves about its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Nothing: it was not encrypted.
    Plaintext,
    /// A device of the sender, signed by its owner.
    CrossSigned,
    /// A device of the sender that its owner has not signed.
    UnsignedDevice,
    /// The sender's identity is another one than the one we signed.
    IdentityChanged,
    /// It cannot be told which device encrypted it.
    UnknownDevice,
}

impl Trust {
    pub(super) fn of(event_sender: &OwnedUserId, encryption: Option<&EncryptionInfo>) -> Self {
        let Some(info) = encryption else {
            return Self::Plaintext;
        };
        // A key that came by way of somebody else proves nothing about the sender.
        if info.forwarder.is_some() || info.sender != *event_sender {
            return Self::UnknownDevice;
        }
        match &info.verification_state {
            VerificationState::Verified
            | VerificationState::Unverified(VerificationLevel::UnverifiedIdentity) => {
                Self::CrossSigned
            }
            VerificationState::Unverified(VerificationLevel::UnsignedDevice) => {
                Self::UnsignedDevice
            }
            VerificationState::Unverified(VerificationLevel::VerificationViolation) => {
                Self::IdentityChanged
            }
            VerificationState::Unverified(
                VerificationLevel::None(_) | VerificationLevel::MismatchedSender,
            ) => Self::UnknownDevice,
        }
    }
}

impl Matrix {
    /// What a message proves about its sender, looked at once more where the device was not known at first: the list of a
    /// user's devices may come after their first message.
    pub async fn trust_now(&self, message: &Message) -> Trust {
        let (Trust::UnknownDevice | Trust::UnsignedDevice, Some(megolm_session)) =
            (message.trust, &message.megolm_session)
        else {
            return message.trust;
        };
        if let Err(error) = self
            .client()
            .encryption()
            .request_user_identity(&message.sender)
            .await
        {
            debug!(sender = %message.sender, %error, "devices not looked up");
            return message.trust;
        }
        let Ok(room) = self.admin_room() else {
            return message.trust;
        };
        match room
            .get_encryption_info(megolm_session, &message.sender)
            .await
        {
            Some(encryption) => Trust::of(&message.sender, Some(&encryption)),
            None => message.trust,
        }
    }
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

/// When the bot began to hear the admin room: what was sent before was not sent to us. Whoever joins a room again gets
/// its latest events once more, also those that an earlier run has obeyed.
#[derive(Debug)]
pub(super) struct ListeningSince(Mutex<SystemTime>);

impl ListeningSince {
    pub(super) fn new(time: SystemTime) -> Self {
        Self(Mutex::new(time))
    }

    /// To be called with the time of a join, before the next sync.
    pub(super) fn set(&self, time: SystemTime) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }

    fn get(&self) -> SystemTime {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the inbox goes by.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) own_user: OwnedUserId,
    pub(super) admin_room: Arc<OnceLock<OwnedRoomId>>,
    /// The first word of whatever is meant for the bot.
    pub(super) prefix: String,
    pub(super) max_age: Duration,
    pub(super) listening_since: Arc<ListeningSince>,
    pub(super) seen: Mutex<Seen>,
    pub(super) heard: mpsc::Sender<Heard>,
}

impl Inbox {
    /// Hears what comes by /sync from now on.
    pub(super) fn attach(self, client: &Client) {
        let inbox = Arc::new(self);
        let hearing = Arc::clone(&inbox);
        client.add_event_handler(
            move |event: OriginalSyncRoomMessageEvent,
                  room: Room,
                  encryption: Option<EncryptionInfo>| {
                let inbox = Arc::clone(&hearing);
                async move { inbox.hear(&event, &room, encryption.as_ref()) }
            },
        );
        let waiting = Arc::new(Semaphore::new(WAITING_FOR_KEYS));
        client.add_event_handler(
            move |event: OriginalSyncRoomEncryptedEvent, raw: RawEvent, room: Room| {
                let inbox = Arc::clone(&inbox);
                let place = Arc::clone(&waiting).try_acquire_owned();
                async move {
                    if !inbox.is_worth_waiting_for(&event, &room) {
                        return;
                    }
                    if let Ok(place) = place {
                        tokio::spawn(async move {
                            inbox
                                .wait_for_key(&event, Raw::from_json(raw.0), room)
                                .await;
                            drop(place);
                        });
                    } else {
                        warn!(event = %event.event_id, "undecryptable event dropped, too many wait");
                    }
                }
            },
        );
    }

    fn hear(
        &self,
        event: &OriginalSyncRoomMessageEvent,
        room: &Room,
        encryption: Option<&EncryptionInfo>,
    ) {
        match self.accept(event, room, encryption, SystemTime::now()) {
            // A full queue means that hundreds of commands wait: somebody floods the room.
            Ok(message) => {
                if let Err(error) = self.heard.try_send(Heard::Message(message)) {
                    warn!(event = %event.event_id, %error, "command dropped, too many wait");
                }
            }
            Err(Dropped::NotAddressed | Dropped::AnotherRoom | Dropped::OwnEvent) => {}
            Err(reason) => {
                debug!(event = %event.event_id, sender = %event.sender, ?reason, "event dropped");
            }
        }
    }

    fn accept(
        &self,
        event: &OriginalSyncRoomMessageEvent,
        room: &Room,
        encryption: Option<&EncryptionInfo>,
        now: SystemTime,
    ) -> Result<Message, Dropped> {
        if self
            .admin_room
            .get()
            .is_none_or(|admin_room| admin_room != room.room_id())
        {
            return Err(Dropped::AnotherRoom);
        }
        if event.sender == self.own_user {
            return Err(Dropped::OwnEvent);
        }
        let MessageType::Text(content) = &event.content.msgtype else {
            return Err(Dropped::NotText);
        };
        let thread = match &event.content.relates_to {
            Some(Relation::Replacement(_)) => return Err(Dropped::Edit),
            Some(Relation::Thread(thread)) => Some(thread.event_id.clone()),
            _ => None,
        };
        let text = remove_plain_reply_fallback(&content.body);
        let first_word = text.split_whitespace().next().unwrap_or_default();
        if !first_word.eq_ignore_ascii_case(&self.prefix) {
            return Err(Dropped::NotAddressed);
        }
        self.check_time((event.origin_server_ts, event.unsigned.age), now)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.insert(event.event_id.clone()) {
            return Err(Dropped::SeenBefore);
        }
        Ok(Message {
            event_id: event.event_id.clone(),
            sender: event.sender.clone(),
            text: text.to_owned(),
            trust: Trust::of(&event.sender, encryption),
            megolm_session: encryption.and_then(|info| info.session_id().map(str::to_owned)),
            thread,
        })
    }

    /// `origin_server_ts` is the sender's word, `age` the homeserver's; the older of the two counts.
    fn check_time(
        &self,
        (sent, age): (MilliSecondsSinceUnixEpoch, Option<Int>),
        now: SystemTime,
    ) -> Result<(), Dropped> {
        let sent = sent.to_system_time().ok_or(Dropped::FromTheFuture)?;
        if sent < self.listening_since.get() {
            return Err(Dropped::BeforeFirstSync);
        }
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
        let in_admin_room = self
            .admin_room
            .get()
            .is_some_and(|admin_room| admin_room == room.room_id());
        let times = (event.origin_server_ts, event.unsigned.age);
        in_admin_room
            && event.sender != self.own_user
            && self.check_time(times, SystemTime::now()).is_ok()
    }

    async fn wait_for_key(
        &self,
        event: &OriginalSyncRoomEncryptedEvent,
        raw: Raw<OriginalSyncRoomEncryptedEvent>,
        room: Room,
    ) {
        match late_key::decrypt(&room, &raw).await {
            Some(Decrypted::Message(message, encryption)) => {
                self.hear(&message, &room, Some(&encryption));
            }
            Some(Decrypted::SomethingElse) => {}
            None => {
                warn!(event = %event.event_id, sender = %event.sender, "event in the admin room cannot be decrypted");
                let (sender, reply_to) =
                    (event.sender.clone(), ReplyTo::event(event.event_id.clone()));
                if self
                    .heard
                    .try_send(Heard::Undecryptable { sender, reply_to })
                    .is_err()
                {
                    debug!(event = %event.event_id, "too many wait to tell its sender");
                }
            }
        }
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
