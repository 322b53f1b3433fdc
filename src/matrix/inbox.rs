//! Turns events into [`Message`]s, or drops them, each for a reason.
//!
//! An event whose key is missing waits here, and is retried after each sync: Synapse hands out at most a hundred keys with
//! each, so after downtime the keys arrive later than the events.
//!
//! Invariant: the sync loop passes the events in, so nothing here waits for the homeserver. What is not dropped goes to a
//! queue, and only a full queue makes it wait.

use std::{
    collections::{BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
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
            reaction::OriginalSyncReactionEvent,
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
use serde_json::Value;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{
    Chain, Fault, IncomingEvent, Message, PICTURE_SIGN, ReplyTo,
    replay::ReplayProtection,
    rooms::{AdminRoom, DirectMessages},
};
use crate::config::Config;

/// How many event ids are remembered, so that an event that comes twice counts once.
const REMEMBERED_EVENTS: usize = 4096;

/// How long a key may trail its event before the sender is notified that the event cannot be decrypted.
pub(super) const KEY_TIMEOUT: Duration = Duration::from_secs(10);

/// How many events of one sender may wait for their keys at a time, so that no user crowds out others.
const WAITING_PER_SENDER: usize = 16;

/// How many may wait of all senders: each is retried after each sync, and a homeserver can invent senders.
const WAITING: usize = 1024;

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

/// When an event was sent, by the sender's clock, and its age, by the homeserver's.
type Sent = (MilliSecondsSinceUnixEpoch, Option<Int>);

#[derive(Debug)]
pub(super) struct Inbox {
    config: Arc<Config>,
    admin_room: Arc<AdminRoom>,
    direct_messages: Arc<DirectMessages>,
    replay_protection: Arc<ReplayProtection>,
    /// The latest commands.
    seen: Mutex<VecDeque<OwnedEventId>>,
    /// Shared by all connections: no later sync brings them again.
    undecrypted: Arc<Mutex<VecDeque<Undecrypted>>>,
    clock_report: Hourly,
    incoming: mpsc::Sender<IncomingEvent>,
}

/// An event of the admin room whose key is not there yet.
#[derive(Debug)]
pub(super) struct Undecrypted {
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
        undecrypted: Arc<Mutex<VecDeque<Undecrypted>>>,
        incoming: mpsc::Sender<IncomingEvent>,
    ) -> Self {
        let inbox = Self {
            config: Arc::clone(config),
            admin_room: Arc::clone(admin_room),
            direct_messages: Arc::clone(direct_messages),
            replay_protection: Arc::clone(replay_protection),
            seen: Mutex::default(),
            undecrypted,
            clock_report: Hourly::default(),
            incoming,
        };
        // Keys from an earlier connection may come with the next sync, so the wait starts again.
        for late in &mut *inbox.undecrypted() {
            late.since = Instant::now();
        }
        inbox
    }

    /// Receives an event, decrypted if possible. Waits while the bot's queue is full.
    pub(super) async fn receive(&self, event: &TimelineEvent, room: &Room) {
        use AnySyncMessageLikeEvent::{Reaction, RoomEncrypted, RoomMessage};
        // An unreadable event is not for the bot.
        let Ok(AnySyncTimelineEvent::MessageLike(spoken)) = event.raw().deserialize() else {
            return;
        };
        match spoken {
            RoomMessage(SyncMessageLikeEvent::Original(message)) => {
                self.receive_message(&message, room.room_id()).await;
            }
            Reaction(SyncMessageLikeEvent::Original(reaction)) => {
                self.receive_reaction(reaction, room.room_id()).await;
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

    /// Whether an event is a command that counted already. Nothing before it is new.
    pub(super) fn has_counted(&self, event: &TimelineEvent) -> bool {
        let id = event.event_id();
        id.is_some_and(|id| self.replay_protection.has_event(&id))
    }

    /// Whether an event was sent too long ago to be a command that still counts.
    pub(super) fn is_past(&self, event: &TimelineEvent) -> bool {
        let sent = sent_at(event);
        let age = sent.and_then(|sent| SystemTime::now().duration_since(sent).ok());
        age.is_some_and(|age| age > self.config.max_command_age)
    }

    /// Logs a warning if the clocks of this host and of the homeserver differ, by an event that an answer has just brought.
    pub(super) fn compare_clocks(&self, event: &TimelineEvent) {
        // Other homeservers have other clocks.
        let of_ours = |sender: OwnedUserId| sender.server_name() == self.config.server_name;
        if !event.sender().is_some_and(of_ours) {
            return;
        }
        let own = SystemTime::now();
        let skew = homeserver_time(event)
            .and_then(|time| clock_skew(own, time, self.config.max_command_age));
        if let Some(skew) = skew.filter(|_| self.clock_report.is_due(Instant::now())) {
            warn!(
                clock = skew,
                "the clocks of this host and of the homeserver differ, so commands seem too old or from the future, and do not \
                 count: set the time of both hosts"
            );
        }
    }

    async fn receive_message(&self, event: &OriginalSyncRoomMessageEvent, room: &RoomId) {
        match self.accept(event, room, SystemTime::now()) {
            Ok(incoming) => self.hand_over(incoming).await,
            Err(Dropped::NotAddressed | Dropped::AnotherRoom | Dropped::OwnEvent) => {}
            Err(reason) => {
                debug!(event = %event.event_id, sender = %event.sender, ?reason, "event dropped");
            }
        }
    }

    async fn receive_reaction(&self, event: OriginalSyncReactionEvent, room: &RoomId) {
        let (annotation, sender) = (event.content.relates_to, event.sender);
        let sent = (event.origin_server_ts, event.unsigned.age);
        if annotation.key.starts_with(PICTURE_SIGN)
            && self.is_direct_message_of(&sender, room)
            && self.check_age(sent, SystemTime::now()).is_ok()
        {
            let message = annotation.event_id;
            self.hand_over(IncomingEvent::PictureWanted { sender, message })
                .await;
        }
    }

    fn is_direct_message_of(&self, sender: &UserId, room: &RoomId) -> bool {
        self.direct_messages.with(sender).as_deref() == Some(room)
    }

    /// Queues an event for the bot. Waits while the queue is full.
    pub(super) async fn hand_over(&self, incoming: IncomingEvent) {
        if self.incoming.send(incoming).await.is_err() {
            debug!("event dropped, the bot has ended");
        }
    }

    fn accept(
        &self,
        event: &OriginalSyncRoomMessageEvent,
        room: &RoomId,
        now: SystemTime,
    ) -> Result<IncomingEvent, Dropped> {
        if event.sender == self.config.bot_user {
            return Err(Dropped::OwnEvent);
        }
        let text = text_of(event).ok_or(Dropped::NotText)?;
        let (edits, thread) = match &event.content.relates_to {
            Some(Relation::Replacement(edit)) => (Some(edit.event_id.clone()), None),
            Some(Relation::Thread(thread)) => (None, Some(thread.event_id.clone())),
            _ => (None, None),
        };
        let sent = (event.origin_server_ts, event.unsigned.age);
        if !self.admin_room.is(room) {
            if !self.is_direct_message_of(&event.sender, room) {
                return Err(Dropped::AnotherRoom);
            }
            if edits.is_some() {
                return Err(Dropped::Edit);
            }
            self.check_age(sent, now)?;
            let sender = event.sender.clone();
            return Ok(IncomingEvent::DirectMessage { sender });
        }
        let first_word = text.split_whitespace().next().unwrap_or_default();
        if !first_word.eq_ignore_ascii_case(&self.config.command_prefix) {
            return Err(Dropped::NotAddressed);
        }
        self.check_time(sent, now)?;
        if self.replay_protection.has_event(&event.event_id) || !self.is_first(&event.event_id) {
            return Err(Dropped::SeenBefore);
        }
        Ok(IncomingEvent::Message(Message {
            event_id: event.event_id.clone(),
            sender: event.sender.clone(),
            text: text.to_owned(),
            edits,
            thread,
        }))
    }

    fn is_first(&self, event: &EventId) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.iter().any(|it| it == event) {
            return false;
        }
        seen.push_back(event.to_owned());
        if seen.len() > REMEMBERED_EVENTS {
            seen.pop_front();
        }
        true
    }

    /// Messages from before the bot was in the admin room are ignored.
    fn check_time(&self, (sent, age): Sent, now: SystemTime) -> Result<(), Dropped> {
        let sent_by_sender = sent.to_system_time().ok_or(Dropped::FromTheFuture)?;
        // The homeserver sends the age, so that the clocks need not agree.
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

    /// Whether a message that was received in time has waited too long since.
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
        // A new device cannot decrypt what counted for an earlier one.
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
            // Each event whose key does not come is logged already.
            debug!(event = %event.event_id, "undecryptable event dropped, too many wait");
        }
    }

    pub(super) fn waits_for_keys(&self) -> bool {
        !self.undecrypted().is_empty()
    }

    /// Retries the events that wait for their keys. To be called after each sync, and within [`KEY_TIMEOUT`].
    pub(super) async fn retry_undecrypted(&self, client: &Client) {
        let undecrypted = std::mem::take(&mut *self.undecrypted());
        for late in undecrypted {
            let Some(room) = client.get_room(&late.room) else {
                continue;
            };
            let fault = match try_to_decrypt(&room, &late.raw).await {
                Ok(Some(Decrypted::Message(message, _))) => {
                    self.receive_message(&message, &late.room).await;
                    continue;
                }
                Ok(Some(Decrypted::Other)) => continue,
                Ok(None) => None,
                Err(fault) => Some(fault),
            };
            if late.since.elapsed() < KEY_TIMEOUT {
                self.await_key(late);
                continue;
            }
            let Undecrypted { event, .. } = late;
            let sender = event.sender;
            let error = fault.map(|fault| Chain(&fault).to_string());
            warn!(event = %event.event_id, %sender, error, "event in the admin room cannot be decrypted");
            self.hand_over(IncomingEvent::Undecryptable {
                devices: digest_of_devices(client, &sender).await,
                reply_to: ReplyTo::event(event.event_id),
                sender,
            })
            .await;
        }
    }

    fn undecrypted(&self) -> std::sync::MutexGuard<'_, VecDeque<Undecrypted>> {
        self.undecrypted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number for the devices of a user, as the store has them. It changes when the user follows the advice to verify one.
async fn digest_of_devices(client: &Client, user: &UserId) -> u64 {
    let mut digest = DefaultHasher::new();
    match client.encryption().get_user_devices(user).await {
        Ok(devices) => {
            let devices = devices.devices().map(|device| {
                let is_signed = device.is_cross_signed_by_owner();
                (device.device_id().to_owned(), is_signed)
            });
            devices.collect::<BTreeSet<_>>().hash(&mut digest);
        }
        Err(error) => debug!(%user, %error, "devices not known"),
    }
    digest.finish()
}

fn has_place<'a>(waiting: impl Iterator<Item = &'a UserId>, sender: &UserId) -> bool {
    let (mut all, mut own) = (0, 0);
    for waiting in waiting {
        all += 1;
        own += usize::from(waiting == sender);
    }
    all < WAITING && own < WAITING_PER_SENDER
}

pub(super) enum Decrypted {
    Message(Box<OriginalSyncRoomMessageEvent>, Arc<EncryptionInfo>),
    /// Another event than a message, so it cannot be a command.
    Other,
}

/// Decrypts an event, if its key is there.
pub(super) async fn try_to_decrypt(
    room: &Room,
    event: &Raw<OriginalSyncRoomEncryptedEvent>,
) -> Result<Option<Decrypted>, Fault> {
    let TimelineEventKind::Decrypted(event) = room.decrypt_event(event, None).await?.kind else {
        return Ok(None);
    };
    Ok(Some(match event.event.deserialize_as_unchecked() {
        Ok(message) => Decrypted::Message(Box::new(message), event.encryption_info),
        Err(_) => Decrypted::Other,
    }))
}

/// The age of an event, as the homeserver has it.
fn age_of(age: Option<Int>) -> Option<Duration> {
    let milliseconds = u64::try_from(i64::from(age?)).ok()?;
    Some(Duration::from_millis(milliseconds))
}

/// The text of a message, without a reply fallback; of an edit, the new text. `None`: it is not a text.
pub(super) fn text_of(event: &OriginalSyncRoomMessageEvent) -> Option<&str> {
    let msgtype = match &event.content.relates_to {
        Some(Relation::Replacement(edit)) => &edit.new_content.msgtype,
        _ => &event.content.msgtype,
    };
    match msgtype {
        MessageType::Text(content) => Some(remove_plain_reply_fallback(&content.body)),
        _ => None,
    }
}

/// A harmless difference, which a slow answer causes.
const HARMLESS: Duration = Duration::from_secs(5);

/// How far this host's clock is from the homeserver's, if that is at least half of the age up to which a command counts.
pub(crate) fn clock_skew(
    own: SystemTime,
    homeserver: SystemTime,
    max_command_age: Duration,
) -> Option<String> {
    let (by, direction) = match own.duration_since(homeserver) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let whole = humantime::format_duration(Duration::from_secs(by.as_secs()));
    let counts = by >= HARMLESS.max(max_command_age / 2);
    counts.then(|| format!("{whole} {direction} the homeserver's"))
}

/// When an event was sent, by the sender's clock.
fn sent_at(event: &TimelineEvent) -> Option<SystemTime> {
    let sent: MilliSecondsSinceUnixEpoch = event.raw().get_field("origin_server_ts").ok()??;
    sent.to_system_time()
}

/// Something that happens once an hour at most, since when.
#[derive(Debug, Default)]
struct Hourly(Mutex<Option<Instant>>);

impl Hourly {
    fn is_due(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| now.duration_since(last) >= Duration::from_hours(1));
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

/// The homeserver's time when it gave the event.
fn homeserver_time(event: &TimelineEvent) -> Option<SystemTime> {
    let unsigned: Value = event.raw().get_field("unsigned").ok()??;
    let age = Duration::from_millis(unsigned.get("age")?.as_u64()?);
    sent_at(event)?.checked_add(age)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use matrix_sdk::ruma::{owned_user_id, room_id, user_id};
    use serde_json::json;
    use tokio::time::timeout;

    use super::*;
    use crate::matrix::{Arrival, MatrixFolder};

    /// The inbox of a bot with its files in this folder, which logged in at this time.
    fn inbox(
        folder: &Path,
        logged_in: SystemTime,
        store_is_new: bool,
    ) -> (Inbox, mpsc::Receiver<IncomingEvent>) {
        let text = json!({
            "homeserver": { "url": "http://127.0.0.1", "server_name": "x.y" },
            "admin_room": "!admins:x.y",
            "projects": { "website": { "directory": folder } },
        });
        let config = Config::from_text(&folder.join("config.yaml"), &text.to_string()).unwrap();
        let matrix = MatrixFolder::new(folder.to_owned());
        let room = config.admin_room.clone();
        let admin_room = AdminRoom::load(&matrix, room).unwrap();
        admin_room.note_log_in(logged_in, store_is_new);
        // The bot joined the room long ago.
        let joined = SystemTime::UNIX_EPOCH;
        admin_room.enter(admins(), joined).unwrap();
        let replay_protection =
            ReplayProtection::load(matrix.counted_commands(), config.max_command_age).unwrap();
        let direct_messages = DirectMessages::load(&matrix).unwrap();
        let (incoming, waiting) = mpsc::channel(1);
        let inbox = Inbox::new(
            &Arc::new(config),
            &Arc::new(admin_room),
            &Arc::new(direct_messages),
            &Arc::new(replay_protection),
            Arc::default(),
            incoming,
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
    ) -> Result<IncomingEvent, Dropped> {
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
    fn a_command_that_counted_in_an_earlier_run_is_dropped() {
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
    fn a_new_store_ignores_messages_from_before_its_log_in_whatever_the_clocks_say() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let logged_in = now - Duration::from_secs(10);
        // A minute behind ours.
        let homeserver = now - Duration::from_mins(1);
        let message = |seconds| {
            let ago = Duration::from_secs(seconds);
            command("$event", homeserver - ago, Some(seconds * 1_000))
        };
        for store_is_new in [true, false] {
            let (inbox, _waiting) = inbox(folder.path(), logged_in, store_is_new);
            let before = accept(&inbox, &message(20), now);
            assert_eq!(before.is_ok(), !store_is_new);
            let (inbox, _waiting) = self::inbox(folder.path(), logged_in, store_is_new);
            assert!(accept(&inbox, &message(5), now).is_ok());
        }
    }

    #[test]
    fn an_event_is_past_once_it_is_older_than_a_command_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let (inbox, _waiting) = inbox(folder.path(), now, false);
        let is_past = |content: Value| {
            let event = Raw::new(&content).unwrap().cast_unchecked();
            inbox.is_past(&TimelineEvent::from_plaintext(event))
        };
        let stamp = |sent| json!({ "origin_server_ts": MilliSecondsSinceUnixEpoch::from_system_time(sent) });
        let longest = inbox.config.max_command_age;
        assert!(is_past(stamp(now - 2 * longest)));
        for sent in [now - longest / 2, now + 2 * longest] {
            assert!(!is_past(stamp(sent)));
        }
        assert!(!is_past(json!({})));
    }

    /// The sender sets the time of an event, and the homeserver its age.
    #[test]
    fn a_command_is_as_old_as_its_sender_or_the_homeserver_says_and_not_from_the_future() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let (inbox, _waiting) = inbox(folder.path(), SystemTime::UNIX_EPOCH, false);
        let (minute, too_old) = (Duration::from_mins(1), Duration::from_mins(3));
        for (number, (sent, age, dropped)) in [
            (now - minute, Some(60_000), None),
            (now - minute, None, None),
            (now + minute, Some(0), None),
            (now - too_old, Some(0), Some(Dropped::TooOld)),
            (now - too_old, None, Some(Dropped::TooOld)),
            (now, Some(180_000), Some(Dropped::TooOld)),
            (now + minute, Some(180_000), Some(Dropped::TooOld)),
            (now + too_old, Some(0), Some(Dropped::FromTheFuture)),
        ]
        .into_iter()
        .enumerate()
        {
            let command = command(&format!("${number}"), sent, age);
            let accepted = accept(&inbox, &command, now);
            assert_eq!(accepted.err(), dropped, "case {number}");
        }
    }

    #[tokio::test]
    async fn an_event_is_not_lost_while_the_queue_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let (inbox, mut waiting) = inbox(folder.path(), SystemTime::now(), false);
        inbox
            .hand_over(IncomingEvent::InAdminRoom(Arrival::Joined))
            .await;
        let user = owned_user_id!("@alice:x.y");
        let later = inbox.hand_over(IncomingEvent::IdentityChanged { user });
        let both = async { (waiting.recv().await, waiting.recv().await) };
        let both = async { tokio::join!(later, both).1 };
        let both = timeout(Duration::from_secs(30), both).await;
        assert!(
            matches!(
                both,
                Ok((
                    Some(IncomingEvent::InAdminRoom(Arrival::Joined)),
                    Some(IncomingEvent::IdentityChanged { .. })
                ))
            ),
            "{both:?}"
        );
    }

    #[test]
    fn waiting_events_are_bounded_for_each_sender_and_in_total() {
        let (alice, mallory) = (user_id!("@alice:x.y"), user_id!("@mallory:x.y"));
        let of_mallory = |count| std::iter::repeat_n(mallory, count);
        assert!(has_place(of_mallory(WAITING_PER_SENDER - 1), mallory));
        assert!(!has_place(of_mallory(WAITING_PER_SENDER), mallory));
        assert!(has_place(of_mallory(WAITING_PER_SENDER), alice));
        assert!(!has_place(of_mallory(WAITING), alice));
    }

    #[test]
    fn a_difference_counts_from_half_of_the_age_of_commands_on() {
        let now = SystemTime::now();
        let (secs, age) = (Duration::from_secs, Duration::from_mins(2));
        for (own, homeserver, max_command_age, skew) in [
            (now, now, age, None),
            (now, now + secs(59), age, None),
            (
                now + secs(600),
                now,
                age,
                Some("10m ahead of the homeserver's"),
            ),
            (now, now + secs(60), age, Some("1m behind the homeserver's")),
            (now, now + secs(4), secs(1), None),
        ] {
            let found = clock_skew(own, homeserver, max_command_age);
            assert_eq!(found.as_deref(), skew);
        }
    }

    #[test]
    fn the_age_of_an_event_shows_the_time_of_the_homeserver() {
        let event = json!({ "origin_server_ts": 1_000_000, "unsigned": { "age": 5_000 } });
        let event = TimelineEvent::from_plaintext(Raw::new(&event).unwrap().cast_unchecked());
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_005);
        assert_eq!(homeserver_time(&event), Some(time));
    }

    #[test]
    fn a_clock_difference_is_reported_once_an_hour() {
        let (report, begin) = (Hourly::default(), Instant::now());
        assert!(report.is_due(begin));
        assert!(!report.is_due(begin + Duration::from_mins(59)));
        assert!(report.is_due(begin + Duration::from_hours(1)));
    }
}
