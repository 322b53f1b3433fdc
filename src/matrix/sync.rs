//! Our own loop around `sync_once`: the SDK's loops sleep a second whenever two answers come within a second.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use matrix_sdk::{
    Client, Room,
    config::{SyncSettings, SyncToken},
    ruma::{
        RoomId,
        api::client::filter::{FilterDefinition, LazyLoadOptions},
        presence::PresenceState,
    },
    sync::SyncResponse,
};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::{
    Chain, Fault, Matrix, backfill::EVENTS_OF_A_ROOM, guard::Quarantine, inbox::KEY_TIMEOUT,
    upgrade::Upgrades,
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

/// Follows the homeserver, and returns only when going on makes no sense. Joins the admin room once it is invited there.
pub(super) async fn follow(matrix: &Matrix) -> Fault {
    let mut failures = back_off();
    let mut failing = false;
    let mut answered = false;
    let mut join_is_settled = matrix.join_admin_room().await;
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
