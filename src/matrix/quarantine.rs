//! What is encrypted cannot be looked at, so the SDK may panic at it. It gets what one user sent at a time: where it panics, it
//! is known at whose events, and a connection that is made anew does not meet them again.
//!
//! Invariant: what others sent beside it is not lost. The SDK keeps the channel of an event before it keeps what the event
//! brought, so one that shared its step with a panic could not be read a second time.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use hyper::body::Bytes;
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use super::{
    Fault, MatrixFolder, folder,
    guard::{self, Dropped, Portion, Rest, SyncAnswer},
};
use crate::atomic_file;

/// What stands in the tokens of a part of an answer, behind the homeserver's own.
const PART: &str = "_rcbot-part-";

/// How long nothing is taken from a user at whose events the SDK panicked for the first time: all that they sent together
/// comes within minutes.
const FIRST_TIME: Duration = Duration::from_mins(10);

/// How long it is after each further time.
const FURTHER_TIMES: Duration = Duration::from_hours(24);

/// So many users who made the SDK panic within [`FIRST_TIME`] are one attacker with many accounts: strangers have to wait.
const MANY: usize = 4;

/// How many users are remembered.
const MOST_OFFENDERS: usize = 1_000;

/// How many lines an hour tell what was dropped.
const MOST_LINES: usize = 100;

/// The time in which nothing is told twice.
const HOUR: Duration = Duration::from_hours(1);

/// What the SDK gets, and what it does not.
#[derive(Debug)]
pub struct Quarantine {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    offenders: BTreeMap<String, Offender>,
    /// Whose events the SDK has now.
    in_hand: Option<String>,
    /// Whether the homeserver brought to-device events since the SDK was last done, of which perhaps none were handed on.
    has_brought: bool,
    waiting: Option<Waiting>,
    /// Who has a part in the bot's encrypted rooms, while that matters.
    acquaintances: Option<BTreeSet<String>>,
    told: HashSet<(String, String)>,
    telling_since: Instant,
}

/// A user at whose events the SDK panicked.
#[derive(Debug, Deserialize, Serialize)]
struct Offender {
    last: SystemTime,
    times: u32,
}

/// What the SDK has yet to get of an answer to /sync.
#[derive(Debug)]
struct Waiting {
    /// What the SDK asked with first.
    since: String,
    /// What it asks with next.
    token: String,
    parts: usize,
    portions: VecDeque<Portion>,
    rest: Rest,
}

impl Quarantine {
    /// With what earlier runs have learned.
    ///
    /// # Errors
    /// [`Fault::File`].
    pub fn load(folder: &MatrixFolder) -> Result<Self, Fault> {
        let path = folder.quarantine();
        let offenders = folder::read(&path)?.and_then(|text| {
            serde_json::from_slice(&text)
                .inspect_err(
                    |_| warn!(path = %path.display(), "unreadable, beginning with an empty one"),
                )
                .ok()
        });
        let state = Mutex::new(State {
            offenders: offenders.unwrap_or_default(),
            in_hand: None,
            has_brought: false,
            waiting: None,
            acquaintances: None,
            told: HashSet::new(),
            telling_since: Instant::now(),
        });
        Ok(Self { path, state })
    }

    /// A new client of the SDK gets nothing that was meant for the one before. Who made that one panic stays known.
    pub(super) fn start_over(&self) {
        let mut state = self.state();
        state.in_hand = None;
        state.has_brought = false;
        state.waiting = None;
    }

    /// The answer to a request for what came since this token, where it is here already.
    pub(super) fn next_part(&self, since: &str) -> Option<Bytes> {
        let mut state = self.state();
        state.in_hand = None;
        let waiting = state.waiting.take()?;
        (waiting.token == since).then(|| state.hand_out(waiting))
    }

    /// What the SDK gets of the homeserver's answer, which is about what came since this token.
    pub(super) fn sync_answer(&self, since: &str, body: Bytes) -> Bytes {
        let Some(mut answer) = SyncAnswer::read(&body) else {
            return body;
        };
        let mut state = self.state();
        state.has_brought = true;
        let now = SystemTime::now();
        let mut dropped = std::mem::take(&mut answer.dropped);
        answer.portions.retain(|portion| {
            let keeps = state.takes_from(&portion.sender, now);
            if !keeps {
                dropped.push(Dropped {
                    user: portion.sender.clone(),
                    what: format!("{} encrypted to-device events", portion.events.len()),
                });
            }
            keeps
        });
        let is_unchanged = dropped.is_empty();
        for dropped in dropped {
            state.tell(dropped);
        }
        if is_unchanged && let [portion] = answer.portions.as_slice() {
            state.in_hand = Some(portion.sender.clone());
            return body;
        }
        let waiting = Waiting {
            since: since.to_owned(),
            token: String::new(),
            parts: 0,
            rest: answer.rest(),
            portions: answer.portions.into(),
        };
        state.hand_out(waiting)
    }

    /// What the SDK gets of the homeserver's answer about people's keys.
    pub(super) fn keys_answer(&self, body: Bytes) -> Bytes {
        let Some((cleaned, dropped)) = guard::clean_keys(&body) else {
            return body;
        };
        let mut state = self.state();
        for dropped in dropped {
            state.tell(dropped);
        }
        cleaned.into()
    }

    /// The SDK is done with what it got. Gives back whether the homeserver had to-device events for it, dropped ones too: then
    /// it has not answered for nothing.
    pub(super) fn settle(&self) -> bool {
        let mut state = self.state();
        state.in_hand = None;
        std::mem::take(&mut state.has_brought)
    }

    /// Whether the SDK has yet to get a part of the homeserver's last answer.
    pub(super) fn holds_more(&self) -> bool {
        self.state().waiting.is_some()
    }

    /// The SDK panicked. Whose events it had at that moment makes it panic no more.
    pub(super) fn blame(&self) -> Fault {
        let mut state = self.state();
        let Some(user) = state.in_hand.take() else {
            return Fault::Panicked;
        };
        warn!(
            user = user.as_str(),
            "the Matrix library panicked at encrypted events of this user, which are set aside: malformed keys, probably. Connecting anew"
        );
        info!(
            target: "audit",
            user = user.as_str(),
            event_type = "m.room.encrypted",
            decision = "set aside",
            why = "the Matrix library panicked",
            "to-device events judged"
        );
        state.note_offence(user.clone(), SystemTime::now());
        let written = serde_json::to_vec(&state.offenders).map_err(io::Error::from);
        if let Err(error) = written.and_then(|text| atomic_file::write(&self.path, &text)) {
            // This run knows it all the same, and a full disk must not make it end.
            error!(path = %self.path.display(), %error, "not written down whose events are set aside: the next run has to learn it anew");
        }
        Fault::SetAside { user }
    }

    /// Whether nothing is to be taken from strangers, so that it has to be known who is one.
    pub(super) fn is_besieged(&self) -> bool {
        self.state().is_besieged(SystemTime::now())
    }

    /// Who is no stranger.
    pub(super) fn set_acquaintances(&self, users: BTreeSet<String>) {
        self.state().acquaintances = Some(users);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The homeserver's own token.
pub(super) fn honest(token: &str) -> &str {
    token.split_once(PART).map_or(token, |(honest, _)| honest)
}

/// Whether a query may hold a token that is not the homeserver's.
pub(super) fn may_hold_part(query: &str) -> bool {
    query.contains(PART)
}

impl State {
    fn hand_out(&mut self, mut waiting: Waiting) -> Bytes {
        let portion = waiting.portions.pop_front();
        let (sender, events) = portion.map(|one| (one.sender, one.events)).unzip();
        let events = events.unwrap_or_default();
        self.in_hand = sender;
        if waiting.portions.is_empty() {
            return waiting.rest.whole(&events).into();
        }
        waiting.parts += 1;
        waiting.token = format!("{}{PART}{}", waiting.since, waiting.parts);
        let part = Rest::part(&events, &waiting.token);
        self.waiting = Some(waiting);
        part.into()
    }

    fn takes_from(&self, user: &str, now: SystemTime) -> bool {
        if self
            .offenders
            .get(user)
            .is_some_and(|one| one.is_kept_out(now))
        {
            return false;
        }
        let is_stranger = |known: &BTreeSet<String>| !known.contains(user);
        !(self.acquaintances.as_ref().is_some_and(is_stranger) && self.is_besieged(now))
    }

    fn is_besieged(&self, now: SystemTime) -> bool {
        let recent = self.offenders.values();
        let recent = recent.filter(|offender| offender.age(now) < FIRST_TIME);
        recent.take(MANY).count() == MANY
    }

    fn note_offence(&mut self, user: String, now: SystemTime) {
        self.offenders
            .retain(|_, offender| offender.age(now) < FURTHER_TIMES);
        let times = self.offenders.get(&user).map_or(0, |known| known.times);
        let offender = Offender {
            last: now,
            times: times.saturating_add(1),
        };
        self.offenders.insert(user, offender);
        while self.offenders.len() > MOST_OFFENDERS {
            let oldest = self
                .offenders
                .iter()
                .min_by_key(|(_, offender)| offender.last);
            let Some(oldest) = oldest.map(|(user, _)| user.clone()) else {
                return;
            };
            self.offenders.remove(&oldest);
        }
    }

    /// Tells what was dropped, once, and not too much of it.
    fn tell(&mut self, Dropped { user, what }: Dropped) {
        if self.telling_since.elapsed() > HOUR {
            self.telling_since = Instant::now();
            self.told.clear();
        }
        if self.told.len() < MOST_LINES && self.told.insert((user.clone(), what.clone())) {
            warn!(
                user = user.as_str(),
                what = what.as_str(),
                "dropped what a bot has no use for, or what is malformed"
            );
        }
    }
}

impl Offender {
    fn is_kept_out(&self, now: SystemTime) -> bool {
        let time = if self.times > 1 {
            FURTHER_TIMES
        } else {
            FIRST_TIME
        };
        self.age(now) < time
    }

    /// A clock that was set back makes it young.
    fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.last).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
