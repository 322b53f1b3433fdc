//! Follows /sync, and passes its events to the inbox in order, with those that a sync left out: it brings only the latest
//! events of a room, usually a hundred at most. A flood in the admin room would push a command out of that, and so would people
//! who talk while the bot is away. So the rest is backfilled.
//!
//! Our own loop around `sync_once`: the SDK's loops sleep a second whenever two answers come within a second.

use std::{mem, time::Duration};

use matrix_sdk::{
    Client, Room, RoomMemberships, RoomState,
    config::{SyncSettings, SyncToken},
    deserialized_responses::TimelineEvent,
    room::MessagesOptions,
    ruma::{
        Int, OwnedUserId, RoomId,
        api::client::filter::{FilterDefinition, LazyLoadOptions, RoomEventFilter},
        events::{TimelineEventType, room::power_levels::UserPowerLevel},
        presence::PresenceState,
    },
    store::{StateStoreDataKey, StateStoreDataValue},
    sync::RoomUpdates,
};
use tokio::{
    sync::broadcast,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{
    BackOff, Chain, Fault, HostSignal, IncomingEvent, Matrix, guard::Quarantine,
    hosts::claim_of_answer, inbox::KEY_TIMEOUT, membership::Upgrades,
};

/// How long the homeserver may hold a request open when nothing is new.
const LONG_POLL: Duration = Duration::from_secs(30);

/// An empty answer that comes faster than this is not a long poll.
const SUSPICIOUSLY_FAST: Duration = Duration::from_millis(50);

/// After so many fast and empty answers in a row the homeserver counts as one that does not wait.
const FAST_ANSWERS: u32 = 10;

/// How long to wait between requests to such a homeserver.
const PACE: Duration = Duration::from_secs(1);

/// How long to wait for the sync that brings a new room. It comes at once, unless the homeserver is in trouble.
const LONGEST_WAIT_FOR_ROOM: Duration = Duration::from_secs(5);

/// Syncs until a fault that a retry does not solve. Joins the admin room once it is invited there.
pub(super) async fn follow(matrix: &Matrix) -> Fault {
    let mut since = match stored_token(matrix).await {
        Ok(token) => token,
        Err(fault) => return fault,
    };
    let mut updates = matrix.client.subscribe_to_all_room_updates();
    // While the homeserver does not answer.
    let mut back_off: Option<BackOff> = None;
    let mut profile_is_due = matrix.admin_room.id().is_some();
    let mut join_is_settled = matrix.join_admin_room().await;
    let mut upgrades = Upgrades::default();
    let mut fast_answers = 0;
    loop {
        if join_is_settled && mem::take(&mut profile_is_due) {
            matrix.set_profile().await;
        }
        let asked = Instant::now();
        // At first, and after a failure, a long poll would hide that the homeserver is back.
        let poll_timeout = if !*matrix.answers.borrow() {
            Duration::ZERO
        } else if matrix.inbox.waits_for_keys() {
            // The sender of an undecryptable event should be notified soon.
            KEY_TIMEOUT
        } else {
            LONG_POLL
        };
        // Messages from before the bot was in the admin room are ignored.
        let is_there = matrix.joined_admin_room().is_ok();
        let backfill_from = since.as_deref().filter(|_| is_there);
        if matrix.quarantine.is_under_attack() {
            note_known_users(matrix).await;
        }
        let step = step(matrix, poll_timeout, &mut updates).await;
        let brought_to_device = matrix.quarantine.finish_step();
        match step {
            Ok((rooms, token)) => {
                if back_off.take().is_some() {
                    info!("homeserver answers again");
                }
                note_rooms(matrix, &rooms);
                // Until then, what the bot knows of rooms is out of date.
                if !matrix.quarantine.holds_more() {
                    note_answer(matrix, true);
                    // After the announcements that came with them, and before the commands that they are about.
                    for signal in matrix.quarantine.take_signals() {
                        matrix.receive_signal(signal).await;
                    }
                }
                matrix.receive(&rooms, backfill_from).await;
                let may_be_invited =
                    !rooms.invited.is_empty() && matrix.joined_admin_room().is_err();
                if !join_is_settled || may_be_invited {
                    join_is_settled = matrix.join_admin_room().await;
                }
                let successor = upgrades.after_sync(matrix, &rooms).await;
                matrix.synced.send_replace(successor);
                if let Some(room) = matrix.admin_room.id()
                    && rooms.left.contains_key(&room)
                {
                    warn!(%room, bot = %matrix.own_user(), "removed from the admin room: invite the bot again; if it was banned, unban it before");
                }
                let is_fast = asked.elapsed() < SUSPICIOUSLY_FAST;
                let empty_and_fast = is_fast && !brought_to_device && is_empty(&rooms);
                fast_answers = if empty_and_fast { fast_answers + 1 } else { 0 };
                since = token;
            }
            Err(fault) => {
                // A refusal may pass as well: while a homeserver is updated, requests reach the wrong part of it.
                if !(fault.is_passing() || fault.is_refusal()) {
                    return fault;
                }
                note_answer(matrix, false);
                if back_off.is_some() {
                    debug!(error = %Chain(&fault), "homeserver still does not answer");
                } else {
                    warn!(error = %Chain(&fault), "homeserver does not answer, trying again until it does");
                }
                back_off.get_or_insert_default().wait(&fault).await;
            }
        }
        if fast_answers >= FAST_ANSWERS {
            sleep(PACE).await;
        }
    }
}

/// Syncs once. Returns what came of rooms, and the token of the next sync.
///
/// Once the SDK has saved an answer and passed its rooms on, it looks for handlers of each event, of which the bot has none. It
/// fails there at an event without a type, which any member of an encrypted room can send. What came with it must not be lost;
/// the requests that the SDK makes at the end of a sync follow at the beginning of the next.
async fn step(
    matrix: &Matrix,
    poll_timeout: Duration,
    updates: &mut broadcast::Receiver<RoomUpdates>,
) -> Result<(RoomUpdates, Option<String>), Fault> {
    let answer = matrix.client.sync_once(settings(poll_timeout)).await;
    match (answer, updates.try_recv()) {
        (Ok(answer), _) => Ok((answer.rooms, Some(answer.next_batch))),
        (Err(error), Ok(rooms)) => {
            debug!(error = %Chain(&error), "an event that the Matrix library cannot read was skipped");
            Ok((rooms, stored_token(matrix).await?))
        }
        (Err(error), Err(_)) => Err(error.into()),
    }
}

/// The SDK's own token, which it does not tell.
async fn stored_token(matrix: &Matrix) -> Result<Option<String>, Fault> {
    let store = matrix.client.state_store();
    let stored = store.get_kv_data(StateStoreDataKey::SyncToken).await;
    let stored = stored.map_err(|error| Fault::fatal("the Matrix store cannot be read", error))?;
    Ok(stored.and_then(StateStoreDataValue::into_sync_token))
}

impl Matrix {
    /// A new room, once the sync that brings it is complete. The SDK then requests the keys of all its members. A send that
    /// begins before they arrive holds the lock that this takes, until it times out after five seconds.
    pub(super) async fn synced_room(&self, id: &RoomId) -> Option<Room> {
        let mut synced = self.synced_rooms.subscribe();
        let room_is_synced = synced.wait_for(|rooms| rooms.contains(id));
        // After a timeout, try anyway.
        drop(timeout(LONGEST_WAIT_FOR_ROOM, room_is_synced).await);
        self.client.get_room(id)
    }

    /// Waits until a sync is complete, so that the bot knows which rooms it is in, and which it has left.
    pub(crate) async fn wait_until_up_to_date(&self) {
        let mut answers = self.answers.subscribe();
        drop(answers.wait_for(|answers| *answers).await);
    }
}

/// Syncs once, without a long poll.
pub(super) async fn once(client: &Client, quarantine: &Quarantine) -> Result<(), Fault> {
    let answer = client.sync_once(settings(Duration::ZERO)).await;
    quarantine.finish_step();
    answer?;
    Ok(())
}

fn settings(poll_timeout: Duration) -> SyncSettings {
    SyncSettings::new()
        .token(SyncToken::ReusePrevious)
        .timeout(poll_timeout)
        .set_presence(PresenceState::Online)
        .filter(filter().into())
}

/// A bot needs no typing notifications, receipts or presence.
fn filter() -> FilterDefinition {
    let mut filter = FilterDefinition::default();
    filter.presence.not_types = vec!["*".to_owned()];
    filter.room.timeline.limit = Some(EVENTS_OF_A_ROOM.into());
    filter.room.ephemeral.not_types = vec!["*".to_owned()];
    filter.room.account_data.not_types = vec!["*".to_owned()];
    // Members are not lazily loaded: for each member event that Synapse adds to an answer for a join, it reports that the
    // device list of that user has changed, also our own. So each message would make the SDK query keys again, and a send at
    // that moment waits five seconds for its own user's.
    filter.room.state.lazy_load_options = LazyLoadOptions::Disabled;
    filter
}

/// Notifies those who wait for a new room: the SDK's requests after the sync that brings it are done.
fn note_rooms(matrix: &Matrix, rooms: &RoomUpdates) {
    matrix.synced_rooms.send_if_modified(|synced| {
        let before = synced.len();
        synced.extend(rooms.joined.keys().cloned());
        synced.len() > before
    });
}

fn note_answer(matrix: &Matrix, answered: bool) {
    let answers = &matrix.answers;
    answers.send_if_modified(|known| mem::replace(known, answered) != answered);
}

/// The known users share an encrypted room with the bot. All others are strangers.
async fn note_known_users(matrix: &Matrix) {
    match matrix.client.encryption().tracked_users().await {
        Ok(users) => {
            let users = users.iter().map(ToString::to_string).collect();
            matrix.quarantine.set_known_users(users);
        }
        Err(error) => warn!(error = %Chain(&error), "cannot list the users of encrypted rooms"),
    }
}

fn is_empty(rooms: &RoomUpdates) -> bool {
    rooms.joined.is_empty() && rooms.invited.is_empty() && rooms.left.is_empty()
}

/// How many events of a room a sync should bring. Synapse never brings more (`filter_timeline_limit`).
const EVENTS_OF_A_ROOM: u32 = 100;

/// How many requests are made to backfill one sync, for [`EVENTS_OF_A_ROOM`] each: a user who may command can send a thousand
/// messages at once, and make the bot miss earlier ones.
const REQUESTS: usize = 10;

impl Matrix {
    /// Receives the signal of another host. Anybody may send such an event: only bots that are announced in the room count.
    async fn receive_signal(&self, signal: HostSignal) {
        match self.is_host(&signal.bot).await {
            Ok(true) => {
                let signal = IncomingEvent::HostSignal(signal);
                self.inbox.hand_over(signal).await;
            }
            Ok(false) => {
                debug!(sender = %signal.bot, "signal of a user who is not the bot of an announced host dropped");
            }
            Err(fault) => debug!(error = %Chain(&fault), "signal dropped"),
        }
    }

    /// Takes an answer of another host's bot as a claim: that bot may not know of this one yet.
    async fn receive_answer(&self, event: &TimelineEvent, room: &Room) {
        if self.config.host.is_some()
            && self.admin_room.is(room.room_id())
            && let Some(claim) = claim_of_answer(event)
            && claim.bot != self.own_user()
            // People reply too.
            && matches!(self.is_host(&claim.bot).await, Ok(true))
        {
            self.inbox.hand_over(IncomingEvent::HostSignal(claim)).await;
        }
    }

    /// Passes on the events of a sync, and those that it left out of the admin room since this token. Waits while the bot's
    /// queue is full.
    async fn receive(&self, rooms: &RoomUpdates, since: Option<&str>) {
        for (id, update) in &rooms.joined {
            let room = self.client.get_room(id);
            let Some(room) = room.filter(|room| room.state() == RoomState::Joined) else {
                continue;
            };
            if let Some(latest) = update.timeline.events.last() {
                self.inbox.compare_clocks(latest);
            }
            if update.timeline.limited
                && self.admin_room.is(id)
                && let (Some(since), Some(until)) = (since, &update.timeline.prev_batch)
            {
                self.backfill(&room, since, until).await;
            }
            for event in &update.timeline.events {
                self.inbox.receive(event, &room).await;
                self.receive_answer(event, &room).await;
            }
        }
        self.inbox.retry_undecrypted(&self.client).await;
    }

    async fn backfill(&self, room: &Room, since: &str, until: &str) {
        match self.missed_events(room, since, until).await {
            Ok(events) => {
                info!(room = %room.room_id(), events = events.len(), "events of the admin room that a sync left out were backfilled");
                for event in &events {
                    self.inbox.receive(event, room).await;
                }
            }
            Err(fault) => {
                warn!(room = %room.room_id(), error = %Chain(&fault), "commands may be lost: a sync left events out, and the homeserver does not return them");
            }
        }
    }

    /// The events between two tokens, the oldest first. Some homeservers ignore `to` and the filter, and go back to the
    /// beginning of the room. So this stops at a command that counted.
    async fn missed_events(
        &self,
        room: &Room,
        since: &str,
        until: &str,
    ) -> Result<Vec<TimelineEvent>, Fault> {
        let filter = self.backfill_filter(room).await?;
        let mut until = until.to_owned();
        let mut events = Vec::new();
        let mut all_old = false;
        for _ in 0..REQUESTS {
            let mut options = MessagesOptions::backward().from(&*until);
            options.to = Some(since.to_owned());
            options.limit = EVENTS_OF_A_ROOM.into();
            options.filter = filter.clone();
            let page = room.messages(options).await?;
            let is_last = page.chunk.is_empty()
                || page.chunk.iter().any(|event| self.inbox.has_counted(event));
            all_old = page.chunk.iter().all(|event| self.inbox.is_past(event));
            events.extend(page.chunk);
            match page.end {
                Some(end) if !is_last => until = end,
                _ => {
                    events.reverse();
                    return Ok(events);
                }
            }
        }
        if !all_old {
            warn!(room = %room.room_id(), "commands may be lost: a sync left out more events than the bot fetches");
        }
        events.reverse();
        Ok(events)
    }

    /// Only messages of users with the power to command, by the store: a flood comes from others. Who may command is decided
    /// later, by the homeserver's state at that time.
    async fn backfill_filter(&self, room: &Room) -> Result<RoomEventFilter, Fault> {
        let mut filter = RoomEventFilter::default();
        let types = [
            TimelineEventType::RoomMessage,
            TimelineEventType::RoomEncrypted,
        ];
        filter.types = Some(types.map(|kind| kind.to_string()).into());
        filter.not_senders = vec![self.own_user().to_owned()];
        // Without the levels, anybody may have that power.
        if let Ok(levels) = room.power_levels().await {
            let needs = UserPowerLevel::Int(Int::new_saturating(self.config.least_power_level()));
            let authorization = &self.config.authorization;
            let members = room.members_no_sync(RoomMemberships::JOIN).await?;
            let members = members.iter().map(|member| member.user_id().to_owned());
            let has_power =
                |user: &OwnedUserId| authorization.lets(user) && levels.for_user(user) >= needs;
            filter.senders = Some(members.filter(has_power).collect());
        }
        Ok(filter)
    }
}
