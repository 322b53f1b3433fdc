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
    },
};
use tokio::sync::mpsc;
use tracing::debug;

use super::{
    ReplyTo,
    admin_room::AdminRoom,
    clock::Clock,
    direct_message::DirectMessages,
    late_key::{Late, LateKeys},
    obeyed::Obeyed,
};
use crate::config::Config;

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
    /// Somebody writes to the bot in their direct message, where no command counts.
    DirectMessage {
        /// Who.
        sender: OwnedUserId,
    },
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
    config: Arc<Config>,
    pub(super) admin_room: Arc<AdminRoom>,
    direct_messages: Arc<DirectMessages>,
    /// The commands that were obeyed, in this run or an earlier one.
    obeyed: Arc<Obeyed>,
    seen: Mutex<Seen>,
    pub(super) late: LateKeys,
    clock: Clock,
    heard: mpsc::Sender<Heard>,
}

impl Inbox {
    pub(super) fn new(
        config: &Arc<Config>,
        admin_room: &Arc<AdminRoom>,
        direct_messages: &Arc<DirectMessages>,
        obeyed: &Arc<Obeyed>,
        heard: mpsc::Sender<Heard>,
    ) -> Self {
        Self {
            config: Arc::clone(config),
            admin_room: Arc::clone(admin_room),
            direct_messages: Arc::clone(direct_messages),
            obeyed: Arc::clone(obeyed),
            seen: Mutex::default(),
            late: LateKeys::default(),
            clock: Clock::default(),
            heard,
        }
    }

    /// Hears an event, decrypted where that is possible. Waits while too much waits for the bot.
    pub(super) async fn hear(&self, event: &TimelineEvent, room: &Room) {
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
                let raw = event.raw().clone().cast_unchecked();
                self.await_key(Late::new(encrypted, raw, room.room_id().to_owned()));
            }
            _ => {}
        }
    }

    /// Whether an event is a command that was obeyed already. A homeserver that brings it again has nothing new before it.
    pub(super) fn was_obeyed(&self, event: &TimelineEvent) -> bool {
        let id = event.event_id();
        id.is_some_and(|id| self.obeyed.has_event(&id))
    }

    /// Compares the clocks by an event that an answer has just brought.
    pub(super) fn compare_clocks(&self, event: &TimelineEvent) {
        let Config {
            server_name,
            max_command_age,
            ..
        } = &*self.config;
        self.clock.compare(event, server_name, *max_command_age);
    }

    pub(super) async fn hear_message(&self, event: &OriginalSyncRoomMessageEvent, room: &Room) {
        let now = SystemTime::now();
        let heard = if self.admin_room.is(room.room_id()) {
            self.accept(event, now).map(Heard::Message)
        } else {
            self.accept_direct_message(event, room.room_id(), now)
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
        if !first_word.eq_ignore_ascii_case(&self.config.command_prefix) {
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

    fn accept_direct_message(
        &self,
        event: &OriginalSyncRoomMessageEvent,
        room: &RoomId,
        now: SystemTime,
    ) -> Result<Heard, Dropped> {
        if self.direct_messages.with(&event.sender).as_deref() != Some(room) {
            return Err(Dropped::AnotherRoom);
        }
        self.own_words(event)?;
        self.check_age((event.origin_server_ts, event.unsigned.age), now)?;
        let sender = event.sender.clone();
        Ok(Heard::DirectMessage { sender })
    }

    /// What somebody else said.
    fn own_words<'a>(&self, event: &'a OriginalSyncRoomMessageEvent) -> Result<&'a str, Dropped> {
        if event.sender == self.config.bot_user {
            return Err(Dropped::OwnEvent);
        }
        if let Some(Relation::Replacement(_)) = &event.content.relates_to {
            return Err(Dropped::Edit);
        }
        text_of(event).ok_or(Dropped::NotText)
    }

    fn note(&self, event: &OriginalSyncRoomMessageEvent) -> Result<(), Dropped> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.obeyed.has_event(&event.event_id) && seen.insert(event.event_id.clone()) {
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
        // The homeserver tells the age, so that this does not need clocks that agree.
        let sent_by_own_clock = match age_of(times.1) {
            Some(age) => now.checked_sub(age).unwrap_or(now),
            None => sent,
        };
        let is_before_log_in = |logged_in| sent_by_own_clock < logged_in;
        if sent < self.admin_room.listening_since()
            || self.admin_room.logged_in().is_some_and(is_before_log_in)
        {
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
        let (age_by_clock, max_age) = (now.duration_since(sent), self.config.max_command_age);
        if age_by_clock
            .as_ref()
            .is_err_and(|ahead| ahead.duration() > max_age)
        {
            return Err(Dropped::FromTheFuture);
        }
        let age_by_server = age_of(age).unwrap_or_default();
        if age_by_clock.unwrap_or_default().max(age_by_server) > max_age {
            Err(Dropped::TooOld)
        } else {
            Ok(())
        }
    }

    pub(super) fn is_worth_waiting_for(
        &self,
        event: &OriginalSyncRoomEncryptedEvent,
        room: &RoomId,
    ) -> bool {
        let times = (event.origin_server_ts, event.unsigned.age);
        let now = SystemTime::now();
        // A new device cannot read what an earlier one has obeyed.
        event.sender != self.config.bot_user
            && !self.obeyed.has_event(&event.event_id)
            && self.admin_room.is(room)
            && self.check_time(times, now).is_ok()
    }
}

/// The age of an event, as the homeserver has it.
fn age_of(age: Option<Int>) -> Option<Duration> {
    let milliseconds = u64::try_from(i64::from(age?)).ok()?;
    Some(Duration::from_millis(milliseconds))
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
mod tests;
