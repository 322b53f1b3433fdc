//! Events -> `Message`: what is dropped, and why.
//!
//! An event whose key is not there yet waits here, and is tried again after each sync: Synapse hands out at most a hundred keys
//! with each, so after a time away the keys trail the events.
//!
//! Invariant: the sync loop hands the events over, so nothing here waits for the homeserver: what is left over goes to a queue, and
//! waits for nothing but a place in it.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use matrix_sdk::{
    Client, Room,
    deserialized_responses::{EncryptionInfo, TimelineEvent, TimelineEventKind},
    ruma::{
        EventId, Int, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId,
        UserId,
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
    Chain, Fault, Matrix, ReplyTo, admin_room::AdminRoom, clock::Clock,
    direct_message::DirectMessages, replay::ReplayProtection,
};
use crate::config::Config;

/// How many event ids are remembered, so that an event that comes twice counts once.
const REMEMBERED_EVENTS: usize = 4096;

/// How long a key may trail its event before the sender is told that the event cannot be decrypted.
pub(super) const KEY_TIMEOUT: Duration = Duration::from_secs(10);

/// How many events of one sender may wait for their keys at a time, so that nobody takes the places of others.
const WAITING_PER_SENDER: usize = 16;

/// How many may wait of all senders: each is looked up after each sync, and a homeserver can invent senders.
const WAITING: usize = 1024;

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

/// When an event was sent: the sender's word, and its age, which is the homeserver's.
type Sent = (MilliSecondsSinceUnixEpoch, Option<Int>);

#[derive(Debug)]
pub(super) struct Inbox {
    config: Arc<Config>,
    admin_room: Arc<AdminRoom>,
    direct_messages: Arc<DirectMessages>,
    replay_protection: Arc<ReplayProtection>,
    seen: Mutex<Seen>,
    undecrypted: Mutex<VecDeque<Undecrypted>>,
    clock: Clock,
    heard: mpsc::Sender<Heard>,
}

/// An event of the admin room whose key is not there yet.
#[derive(Debug)]
pub struct Undecrypted {
    event: OriginalSyncRoomEncryptedEvent,
    raw: Raw<OriginalSyncRoomEncryptedEvent>,
    room: OwnedRoomId,
    since: Instant,
}

impl Inbox {
    pub(super) fn new(
        config: &Arc<Config>,
        admin_room: &Arc<AdminRoom>,
        direct_messages: &Arc<DirectMessages>,
        replay_protection: &Arc<ReplayProtection>,
        heard: mpsc::Sender<Heard>,
    ) -> Self {
        Self {
            config: Arc::clone(config),
            admin_room: Arc::clone(admin_room),
            direct_messages: Arc::clone(direct_messages),
            replay_protection: Arc::clone(replay_protection),
            seen: Mutex::default(),
            undecrypted: Mutex::default(),
            clock: Clock::default(),
            heard,
        }
    }

    /// Hears an event, decrypted where that is possible. Waits while too much waits for the bot.
    pub(super) async fn hear(&self, event: &TimelineEvent, room: &Room) {
        use AnySyncMessageLikeEvent::{RoomEncrypted, RoomMessage};
        // What cannot be read is not for the bot.
        let Ok(AnySyncTimelineEvent::MessageLike(spoken)) = event.raw().deserialize() else {
            return;
        };
        match spoken {
            RoomMessage(SyncMessageLikeEvent::Original(message)) => {
                self.hear_message(&message, room.room_id()).await;
            }
            RoomEncrypted(SyncMessageLikeEvent::Original(encrypted)) => {
                self.await_key(Undecrypted {
                    event: encrypted,
                    raw: event.raw().clone().cast_unchecked(),
                    room: room.room_id().to_owned(),
                    since: Instant::now(),
                });
            }
            _ => {}
        }
    }

    /// Whether an event is a command that counted already. A homeserver that brings it again has nothing new before it.
    pub(super) fn has_counted(&self, event: &TimelineEvent) -> bool {
        let id = event.event_id();
        id.is_some_and(|id| self.replay_protection.has_event(&id))
    }

    /// Compares the clocks by an event that an answer has just brought.
    pub(super) fn compare_clocks(&self, event: &TimelineEvent) {
        let config = &self.config;
        self.clock
            .compare(event, &config.server_name, config.max_command_age);
    }

    async fn hear_message(&self, event: &OriginalSyncRoomMessageEvent, room: &RoomId) {
        match self.accept(event, room, SystemTime::now()) {
            Ok(heard) => self.hand_over(heard).await,
            Err(Dropped::NotAddressed | Dropped::AnotherRoom | Dropped::OwnEvent) => {}
            Err(reason) => {
                debug!(event = %event.event_id, sender = %event.sender, ?reason, "event dropped");
            }
        }
    }

    /// Hands the bot what it should know of. Waits while too much waits for it.
    pub(super) async fn hand_over(&self, heard: Heard) {
        if self.heard.send(heard).await.is_err() {
            debug!("nobody is there any more to hear it");
        }
    }

    fn accept(
        &self,
        event: &OriginalSyncRoomMessageEvent,
        room: &RoomId,
        now: SystemTime,
    ) -> Result<Heard, Dropped> {
        if event.sender == self.config.bot_user {
            return Err(Dropped::OwnEvent);
        }
        if let Some(Relation::Replacement(_)) = &event.content.relates_to {
            return Err(Dropped::Edit);
        }
        let text = text_of(event).ok_or(Dropped::NotText)?;
        let sent = (event.origin_server_ts, event.unsigned.age);
        if !self.admin_room.is(room) {
            let is_theirs = self.direct_messages.with(&event.sender).as_deref() == Some(room);
            if !is_theirs {
                return Err(Dropped::AnotherRoom);
            }
            self.check_age(sent, now)?;
            let sender = event.sender.clone();
            return Ok(Heard::DirectMessage { sender });
        }
        let first_word = text.split_whitespace().next().unwrap_or_default();
        if !first_word.eq_ignore_ascii_case(&self.config.command_prefix) {
            return Err(Dropped::NotAddressed);
        }
        self.check_time(sent, now)?;
        if self.replay_protection.has_event(&event.event_id) || !self.is_first(&event.event_id) {
            return Err(Dropped::SeenBefore);
        }
        Ok(Heard::Message(Message {
            event_id: event.event_id.clone(),
            sender: event.sender.clone(),
            text: text.to_owned(),
            thread: match &event.content.relates_to {
                Some(Relation::Thread(thread)) => Some(thread.event_id.clone()),
                _ => None,
            },
        }))
    }

    fn is_first(&self, event: &EventId) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(event.to_owned())
    }

    /// What was sent to the admin room before the bot was there was not sent to the bot.
    fn check_time(&self, (sent, age): Sent, now: SystemTime) -> Result<(), Dropped> {
        let sent_by_sender = sent.to_system_time().ok_or(Dropped::FromTheFuture)?;
        // The homeserver tells the age, so that this does not need clocks that agree.
        let sent_by_own_clock = match age_of(age) {
            Some(age) => now.checked_sub(age).unwrap_or(now),
            None => sent_by_sender,
        };
        let is_before_log_in = |logged_in| sent_by_own_clock < logged_in;
        if sent_by_sender < self.admin_room.listening_since()
            || self.admin_room.logged_in().is_some_and(is_before_log_in)
        {
            return Err(Dropped::BeforeFirstSync);
        }
        self.check_age((sent, age), now)
    }

    /// Whether what was heard in time has waited too long since.
    pub(super) fn is_too_old(&self, sent: Sent) -> bool {
        self.check_age(sent, SystemTime::now()).is_err()
    }

    /// The older of the two ages counts.
    fn check_age(&self, (sent, age): Sent, now: SystemTime) -> Result<(), Dropped> {
        let max_age = self.config.max_command_age;
        let sent = sent.to_system_time().ok_or(Dropped::FromTheFuture)?;
        let age_by_clock = match now.duration_since(sent) {
            Ok(age) => age,
            Err(ahead) if ahead.duration() > max_age => return Err(Dropped::FromTheFuture),
            Err(_) => Duration::ZERO,
        };
        if age_by_clock.max(age_of(age).unwrap_or_default()) > max_age {
            return Err(Dropped::TooOld);
        }
        Ok(())
    }

    /// Keeps an event until its key is there, if it may be a command. The key may come with a later sync.
    fn await_key(&self, late: Undecrypted) {
        let Undecrypted { event, room, .. } = &late;
        let sent = (event.origin_server_ts, event.unsigned.age);
        // A new device cannot decrypt what an earlier one has obeyed.
        if event.sender == self.config.bot_user
            || !self.admin_room.is(room)
            || self.replay_protection.has_event(&event.event_id)
            || self.check_time(sent, SystemTime::now()).is_err()
        {
            return;
        }
        let mut waiting = self.undecrypted();
        let senders = waiting.iter().map(|late| &*late.event.sender);
        if has_place(senders, &event.sender) {
            waiting.push_back(late);
        } else {
            // Each of the many that wait leaves a line in the log already.
            debug!(event = %event.event_id, "undecryptable event dropped, too many wait");
        }
    }

    /// Whether a key may come that somebody waits for.
    pub(super) fn waits_for_keys(&self) -> bool {
        !self.undecrypted().is_empty()
    }

    /// Hears the events whose keys have come. To be called after each sync, and soon enough for those whose keys do not come.
    pub(super) async fn hear_late(&self, client: &Client) {
        let waiting = std::mem::take(&mut *self.undecrypted());
        for late in waiting {
            let Some(room) = client.get_room(&late.room) else {
                continue;
            };
            let fault = match try_to_decrypt(&room, &late.raw).await {
                Ok(Some(Decrypted::Message(message, _))) => {
                    self.hear_message(&message, &late.room).await;
                    continue;
                }
                Ok(Some(Decrypted::SomethingElse)) => continue,
                Ok(None) => None,
                Err(fault) => Some(fault),
            };
            if late.since.elapsed() < KEY_TIMEOUT {
                self.await_key(late);
                continue;
            }
            let Undecrypted { event, .. } = late;
            let sender = event.sender;
            warn!(event = %event.event_id, %sender, "event in the admin room cannot be decrypted");
            if let Some(fault) = fault {
                warn!(event = %event.event_id, error = %Chain(&fault), "event not decrypted");
            }
            let reply_to = ReplyTo::event(event.event_id);
            self.hand_over(Heard::Undecryptable { sender, reply_to })
                .await;
        }
    }

    fn undecrypted(&self) -> std::sync::MutexGuard<'_, VecDeque<Undecrypted>> {
        self.undecrypted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Matrix {
    /// The events that wait for their keys, which a connection in place of this one is to wait for: no later one hears them.
    #[must_use]
    pub fn take_undecrypted(&self) -> VecDeque<Undecrypted> {
        std::mem::take(&mut *self.inbox.undecrypted())
    }

    /// Waits for the keys of what an earlier connection has heard. They may come with the next sync, so the wait begins anew.
    pub fn wait_on(&self, undecrypted: VecDeque<Undecrypted>) {
        for late in undecrypted {
            let since = Instant::now();
            self.inbox.await_key(Undecrypted { since, ..late });
        }
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
struct Seen {
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
    use std::path::Path;

    use matrix_sdk::ruma::{owned_user_id, room_id, user_id};
    use serde_json::{Value, json};
    use tokio::time::timeout;

    use super::*;
    use crate::matrix::MatrixFolder;

    /// The inbox of a bot with its files in this folder, which logged in at this time.
    fn inbox(
        folder: &Path,
        logged_in: SystemTime,
        store_is_new: bool,
    ) -> (Inbox, mpsc::Receiver<Heard>) {
        let text = json!({
            "homeserver": { "url": "http://127.0.0.1", "server_name": "x.y" },
            "admin_room": "!admins:x.y",
            "projects": { "website": { "directory": folder } },
        });
        let config = Config::from_text(&folder.join("config.yaml"), &text.to_string()).unwrap();
        let matrix = MatrixFolder::new(folder.to_owned());
        let room = config.admin_room.clone();
        let admin_room = AdminRoom::load(&matrix, room, logged_in, store_is_new).unwrap();
        // The bot is in the room for long.
        let joined = SystemTime::UNIX_EPOCH;
        admin_room.enter(admins(), joined).unwrap();
        let replay_protection =
            ReplayProtection::load(matrix.obeyed(), config.max_command_age).unwrap();
        let direct_messages = DirectMessages::load(&matrix).unwrap();
        let (heard, waiting) = mpsc::channel(1);
        let inbox = Inbox::new(
            &Arc::new(config),
            &Arc::new(admin_room),
            &Arc::new(direct_messages),
            &Arc::new(replay_protection),
            heard,
        );
        (inbox, waiting)
    }

    fn admins() -> &'static RoomId {
        room_id!("!admins:x.y")
    }

    fn accept(
        inbox: &Inbox,
        event: &OriginalSyncRoomMessageEvent,
        now: SystemTime,
    ) -> Result<Heard, Dropped> {
        inbox.accept(event, admins(), now)
    }

    /// A command, sent at this time and of this age, in milliseconds.
    fn command(id: &str, sent: SystemTime, age: Option<u64>) -> OriginalSyncRoomMessageEvent {
        let event: Value = json!({
            "type": "m.room.message",
            "event_id": id,
            "sender": "@alice:x.y",
            "origin_server_ts": MilliSecondsSinceUnixEpoch::from_system_time(sent),
            "content": { "msgtype": "m.text", "body": "!rc start" },
            "unsigned": age.map_or_else(|| json!({}), |age| json!({ "age": age })),
        });
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn a_command_that_an_earlier_run_obeyed_is_not_heard_again() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let first = command("$first", now, Some(0));
        let (run, _waiting) = inbox(folder.path(), SystemTime::UNIX_EPOCH, false);
        assert!(accept(&run, &first, now).is_ok());
        assert_eq!(accept(&run, &first, now).unwrap_err(), Dropped::SeenBefore);
        run.replay_protection
            .insert(&first.event_id, None, now)
            .unwrap();
        let (run, _waiting) = inbox(folder.path(), SystemTime::UNIX_EPOCH, false);
        assert_eq!(accept(&run, &first, now).unwrap_err(), Dropped::SeenBefore);
        assert!(accept(&run, &command("$second", now, Some(0)), now).is_ok());
    }

    #[test]
    fn a_new_store_hears_nothing_of_before_its_log_in_whatever_the_clocks_say() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let logged_in = now - Duration::from_secs(10);
        // A minute behind ours.
        let homeserver = now - Duration::from_mins(1);
        let said = |seconds| {
            let ago = Duration::from_secs(seconds);
            command("$event", homeserver - ago, Some(seconds * 1_000))
        };
        for store_is_new in [true, false] {
            let (inbox, _waiting) = inbox(folder.path(), logged_in, store_is_new);
            let before = accept(&inbox, &said(20), now);
            assert_eq!(before.is_ok(), !store_is_new);
            let (inbox, _waiting) = self::inbox(folder.path(), logged_in, store_is_new);
            assert!(accept(&inbox, &said(5), now).is_ok());
        }
    }

    #[tokio::test]
    async fn what_the_bot_should_know_is_not_lost_while_too_much_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let (inbox, mut waiting) = inbox(folder.path(), SystemTime::now(), false);
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
