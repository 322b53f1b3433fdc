//! Follows the homeserver, and hands the inbox what it brings in the order in which it was said, with what it left out: a sync
//! brings the latest events of a room only when there are many, a hundred at most as a rule. Whoever floods the admin room would
//! push a command out of that, as would people who talk while the bot is away. So the rest is asked for.
//!
//! Our own loop around `sync_once`: the SDK's loops sleep a second whenever two answers come within a second.

use std::{collections::VecDeque, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBuilder};
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
    store::{StateStoreDataKey, StateStoreDataValue, StoreError},
    sync::{SyncResponse, Timeline},
};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::{
    Chain, Fault, Heard, Matrix, Undecrypted, guard::Quarantine, hosts::claim_of_answer,
    inbox::KEY_TIMEOUT, membership::Upgrades,
};

/// How long the homeserver may hold a request open when it has nothing to tell.
const LONG_POLL: Duration = Duration::from_secs(30);

/// An answer that comes faster than this, and brings nothing, is no long poll.
const SUSPICIOUSLY_FAST: Duration = Duration::from_millis(50);

/// So many fast and empty answers in a row are taken for a homeserver that does not wait.
const FAST_ANSWERS: u32 = 10;

/// How long to wait between requests to such a homeserver.
const PACE: Duration = Duration::from_secs(1);

/// How long a new room may wait for the sync that brings it, which is there in no time unless the homeserver is in trouble.
const LONGEST_WAIT_FOR_ROOM: Duration = Duration::from_secs(5);

/// Waits between failed requests: quickly at first, as most faults are short; never longer than four seconds, chance included,
/// as a person may be waiting.
pub(super) fn back_off() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times()
        .build()
}

/// Follows the homeserver, and returns only when going on cannot help. Joins the admin room once it is invited there.
pub(super) async fn follow(matrix: &Matrix) -> Fault {
    let mut failures = back_off();
    let mut failing = false;
    let mut answered = false;
    let was_there = matrix.admin_room.id().is_some();
    let mut join_is_settled = matrix.join_admin_room().await;
    if was_there {
        matrix.show_itself().await;
    }
    let mut upgrades = Upgrades::default();
    let mut alias_is_compared = false;
    let mut fast_answers = 0;
    loop {
        let asked = Instant::now();
        // At first, and after a failure, a long poll would keep us from seeing that the homeserver is there.
        let patience = if !answered {
            Duration::ZERO
        } else if matrix.inbox.waits_for_keys() {
            // Whoever said what cannot be read is told soon.
            KEY_TIMEOUT
        } else {
            LONG_POLL
        };
        let before = matrix.standpoint().await;
        if matrix.quarantine.is_besieged() {
            note_acquaintances(matrix).await;
        }
        let answer = matrix.client.sync_once(settings(patience)).await;
        let brought_to_device = matrix.quarantine.settle();
        match answer {
            Ok(answer) => {
                answered = true;
                if !matrix.quarantine.holds_more() {
                    // Before that, what the bot knows of rooms is as old as ever.
                    note_answer(matrix, true);
                }
                if std::mem::take(&mut failing) {
                    info!("homeserver answers again");
                    failures = back_off();
                }
                note_rooms(matrix, &answer);
                // After the announcements that came with them, and before the commands that they are about.
                if !matrix.quarantine.holds_more() {
                    matrix.hear_signals().await;
                }
                matrix.hear(&answer, &before).await;
                if !join_is_settled || !answer.rooms.invited.is_empty() {
                    join_is_settled = matrix.join_admin_room().await;
                }
                let successor = upgrades.after_sync(matrix, &answer).await;
                matrix.synced.send_replace(successor);
                if !std::mem::replace(&mut alias_is_compared, true) {
                    matrix.compare_alias().await;
                }
                if let Some(room) = matrix.admin_room.id()
                    && answer.rooms.left.contains_key(&room)
                {
                    warn!(%room, bot = %matrix.own_user(), "removed from the admin room: invite the bot again");
                }
                let is_fast = asked.elapsed() < SUSPICIOUSLY_FAST;
                let empty_and_fast = is_fast && !brought_to_device && brings_nothing(&answer);
                fast_answers = if empty_and_fast { fast_answers + 1 } else { 0 };
            }
            Err(error) => {
                let fault = Fault::from(error);
                if !fault.is_passing() {
                    return fault;
                }
                answered = false;
                note_answer(matrix, false);
                let wanted = fault.retry_after().unwrap_or_default();
                let wait = failures.next().unwrap_or(PACE).max(wanted);
                if failing {
                    debug!(error = %Chain(&fault), ?wait, "homeserver still does not answer");
                } else {
                    warn!(error = %Chain(&fault), "homeserver does not answer, trying again until it does");
                }
                failing = true;
                sleep(wait).await;
            }
        }
        if fast_answers >= FAST_ANSWERS {
            sleep(PACE).await;
        }
    }
}

impl Matrix {
    /// A new room, once a sync has brought it and was done with it. The SDK asks for the keys of all its members then, and a
    /// send that begins before they are there holds the lock that this takes, until it gives up after five seconds.
    pub(super) async fn room_once_heard(&self, id: &RoomId) -> Option<Room> {
        let mut heard = self.heard_rooms.subscribe();
        let room_is_heard = heard.wait_for(|rooms| rooms.contains(id));
        // Slow is better than never.
        drop(timeout(LONGEST_WAIT_FOR_ROOM, room_is_heard).await);
        self.client.get_room(id)
    }

    /// Waits until the homeserver has told what is new, so that the bot knows where it is, and where it is no longer.
    pub async fn wait_until_up_to_date(&self) {
        let mut answers = self.homeserver_answers();
        drop(answers.wait_for(|answers| *answers).await);
    }
}

/// Asks the homeserver once for what there is, without waiting for more.
pub(super) async fn once(client: &Client, quarantine: &Quarantine) -> Result<(), Fault> {
    let answer = client.sync_once(settings(Duration::ZERO)).await;
    quarantine.settle();
    answer?;
    Ok(())
}

fn settings(patience: Duration) -> SyncSettings {
    SyncSettings::new()
        .token(SyncToken::ReusePrevious)
        .timeout(patience)
        .set_presence(PresenceState::Online)
        .filter(filter().into())
}

/// Who is typing, who has read what, and who is about is nothing to a bot.
fn filter() -> FilterDefinition {
    let mut filter = FilterDefinition::default();
    filter.presence.not_types = vec!["*".to_owned()];
    filter.room.timeline.limit = Some(EVENTS_OF_A_ROOM.into());
    filter.room.ephemeral.not_types = vec!["*".to_owned()];
    filter.room.account_data.not_types = vec!["*".to_owned()];
    // Members are not lazily loaded: Synapse takes each member event that it adds to an answer for a join, and tells us that
    // the device list of that user has changed, our own among them. Each message would make the SDK ask for keys again, and
    // a send that meets it waits five seconds for its own user's.
    filter.room.state.lazy_load_options = LazyLoadOptions::Disabled;
    filter
}

/// Tells those who wait for a room of theirs: whatever the SDK asks for after a sync that brings it has been asked for.
fn note_rooms(matrix: &Matrix, answer: &SyncResponse) {
    matrix.heard_rooms.send_if_modified(|heard| {
        let before = heard.len();
        heard.extend(answer.rooms.joined.keys().cloned());
        heard.len() > before
    });
}

fn note_answer(matrix: &Matrix, answered: bool) {
    let answers = &matrix.answers;
    answers.send_if_modified(|known| std::mem::replace(known, answered) != answered);
}

/// Strangers are those who have no part in the bot's encrypted rooms.
async fn note_acquaintances(matrix: &Matrix) {
    match matrix.client.encryption().tracked_users().await {
        Ok(users) => {
            let users = users.iter().map(ToString::to_string).collect();
            matrix.quarantine.set_acquaintances(users);
        }
        Err(error) => warn!(error = %Chain(&error), "not known who is a stranger"),
    }
}

fn brings_nothing(answer: &SyncResponse) -> bool {
    answer.rooms.joined.is_empty()
        && answer.rooms.invited.is_empty()
        && answer.rooms.left.is_empty()
        && answer.to_device.is_empty()
}

/// How many events a sync is to bring of a room. Synapse brings no more, whatever is asked for (`filter_timeline_limit`).
pub(super) const EVENTS_OF_A_ROOM: u32 = 100;

/// How many requests are made for what one sync left out, for [`EVENTS_OF_A_ROOM`] each: whoever may command can say a thousand
/// things at once, and make the bot miss what was said before.
const REQUESTS: usize = 10;

/// Where the bot stood before a sync.
#[derive(Debug)]
pub(super) struct Standpoint {
    /// The token of the sync before. `None`: there was none.
    token: Result<Option<String>, StoreError>,
    /// The admin room, if the bot was in it. What was said before that was not said to the bot.
    room: Option<Room>,
}

impl Matrix {
    /// To be asked for before a sync.
    pub(super) async fn standpoint(&self) -> Standpoint {
        let store = self.client.state_store();
        let stored = store.get_kv_data(StateStoreDataKey::SyncToken).await;
        Standpoint {
            token: stored.map(|stored| stored.and_then(StateStoreDataValue::into_sync_token)),
            room: self.joined_admin_room().ok(),
        }
    }

    /// Hears the bots of other hosts. Anybody may send such an event: whoever is not announced in the room is none.
    async fn hear_signals(&self) {
        for signal in self.quarantine.take_signals() {
            match self.is_host(&signal.bot).await {
                Ok(true) => self.inbox.hand_over(Heard::HostSignal(signal)).await,
                Ok(false) => {
                    debug!(sender = %signal.bot, "signal of a bot that is not announced dropped");
                }
                Err(fault) => debug!(error = %Chain(&fault), "signal dropped"),
            }
        }
    }

    /// Hears what the bot of another host answers: it claims that by its answer, also where it does not know yet of this one.
    async fn hear_answer(&self, event: &TimelineEvent, room: &Room) {
        if self.config.host.is_none() || !self.admin_room.is(room.room_id()) {
            return;
        }
        let Some(claim) = claim_of_answer(event).filter(|it| it.bot != self.own_user()) else {
            return;
        };
        match self.is_host(&claim.bot).await {
            Ok(true) => self.inbox.hand_over(Heard::HostSignal(claim)).await,
            Ok(false) => {}
            Err(fault) => debug!(error = %Chain(&fault), "not known whether a host answers"),
        }
    }

    /// Hears what a sync brought. Waits while the bot has more to do than may wait.
    pub(super) async fn hear(&self, answer: &SyncResponse, before: &Standpoint) {
        for (id, update) in &answer.rooms.joined {
            let room = self.client.get_room(id);
            let Some(room) = room.filter(|room| room.state() == RoomState::Joined) else {
                continue;
            };
            if let Some(latest) = update.timeline.events.last() {
                self.inbox.compare_clocks(latest);
            }
            if update.timeline.limited && before.room.as_ref().is_some_and(|it| it.room_id() == id)
            {
                self.hear_left_out(&room, &update.timeline, before).await;
            }
            for event in &update.timeline.events {
                self.inbox.hear(event, &room).await;
                self.hear_answer(event, &room).await;
            }
        }
        self.inbox.hear_late(&self.client).await;
    }

    async fn hear_left_out(&self, room: &Room, timeline: &Timeline, before: &Standpoint) {
        let since = match &before.token {
            Ok(since) => since,
            Err(error) => {
                warn!(room = %room.room_id(), error = %Chain(error), "commands may be lost: a sync left events out, and the store does not tell since when");
                return;
            }
        };
        let (Some(since), Some(until)) = (since, &timeline.prev_batch) else {
            return;
        };
        match self.left_out(room, since, until).await {
            Ok(events) => {
                info!(room = %room.room_id(), events = events.len(), "a sync left events of the admin room out, and they were asked for");
                for event in &events {
                    self.inbox.hear(event, room).await;
                }
            }
            Err(fault) => {
                warn!(room = %room.room_id(), error = %Chain(&fault), "commands may be lost: a sync left events out, and the homeserver does not give them");
            }
        }
    }

    /// The events between two tokens, the oldest first. Some homeservers know no such end and no filter, and go back to the
    /// beginning of the room: so nothing is asked for beyond a command that counted.
    async fn left_out(
        &self,
        room: &Room,
        since: &str,
        until: &str,
    ) -> Result<Vec<TimelineEvent>, Fault> {
        let filter = self.worth_asking_for(room).await?;
        let mut until = until.to_owned();
        let mut events = Vec::new();
        for _ in 0..REQUESTS {
            let mut options = MessagesOptions::backward().from(&*until);
            options.to = Some(since.to_owned());
            options.limit = EVENTS_OF_A_ROOM.into();
            options.filter = filter.clone();
            let page = room.messages(options).await?;
            let is_last = page.chunk.is_empty()
                || page.chunk.iter().any(|event| self.inbox.has_counted(event));
            events.extend(page.chunk);
            match page.end {
                Some(end) if !is_last => until = end,
                _ => {
                    events.reverse();
                    return Ok(events);
                }
            }
        }
        warn!(room = %room.room_id(), "commands may be lost: more was said at once than the bot asks for");
        events.reverse();
        Ok(events)
    }

    /// What those may have said who have the power to command, as far as the bot knows: a flood comes from others. Who may
    /// command is decided later, by what the homeserver says then.
    async fn worth_asking_for(&self, room: &Room) -> Result<RoomEventFilter, Fault> {
        let mut filter = RoomEventFilter::default();
        let types = [
            TimelineEventType::RoomMessage,
            TimelineEventType::RoomEncrypted,
        ];
        filter.types = Some(types.map(|kind| kind.to_string()).into());
        filter.not_senders = vec![self.own_user().to_owned()];
        // Without the levels anybody may be of those.
        if let Ok(levels) = room.power_levels().await {
            let needs = UserPowerLevel::Int(Int::new_saturating(self.config.least_power_level()));
            let authorization = &self.config.authorization;
            let members = room.members_no_sync(RoomMemberships::JOIN).await?;
            let members = members.iter().map(|member| member.user_id().to_owned());
            let powerful: Vec<OwnedUserId> = members
                .filter(|user| authorization.lets(user) && levels.for_user(user) >= needs)
                .collect();
            filter.senders = Some(powerful);
        }
        Ok(filter)
    }
}

impl Matrix {
    /// The events that wait for their keys, which a connection in place of this one is to wait for: no later one hears them.
    pub fn take_undecrypted(&self) -> VecDeque<Undecrypted> {
        self.inbox.take_undecrypted()
    }

    /// Waits for the keys of what an earlier connection has heard.
    pub fn wait_on(&self, undecrypted: VecDeque<Undecrypted>) {
        self.inbox.wait_on(undecrypted);
    }
}
