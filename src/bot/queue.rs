//! Where commands wait to be judged: one at a time for each sender, in the order in which they were sent. It also counts who
//! was told what, and when, so that nobody is told too often.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use matrix_sdk::ruma::{OwnedUserId, UserId};
use tracing::warn;

use super::rate::{Excess, Rate};
use crate::{
    command::{self, Command, Misuse, Policy},
    config::Config,
    matrix::Message,
    remote_control::{ProjectName, Status},
};

/// How many commands of one sender may wait. Nobody types so fast; a script may.
const WAITING_PER_SENDER: usize = 100;

/// Whoever has not shown that they may command is told one thing in this time.
const REFUSALS_APART: Duration = Duration::from_mins(1);

/// Who cannot be understood is told so once in this time, so that whoever follows the advice and tries again has an answer;
const UNDECRYPTABLE_APART: Duration = Duration::from_mins(2);

/// and so often in an hour: not all that people say to one another is meant for the bot.
const UNDECRYPTABLE_AN_HOUR: usize = 3;

/// That the homeserver shows another identity of a user is told once in this time.
const IDENTITIES_APART: Duration = Duration::from_hours(1);

/// Who writes to the bot in their direct message is told once in this time where commands count.
const HINTS_APART: Duration = Duration::from_hours(1);

/// A command, and all that judging it takes but the homeserver's word.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) message: Message,
    pub(super) command: Result<Command, Misuse>,
    pub(super) statuses: Vec<Status>,
    pub(super) config: Arc<Config>,
}

/// The commands that wait, and the denials that were answered.
pub(super) struct Queue {
    config: Arc<Config>,
    /// A sender with an entry has a command under judgement; those behind it wait.
    waiting: HashMap<OwnedUserId, VecDeque<Message>>,
    refusals: HashMap<OwnedUserId, Instant>,
    undecryptable: HashMap<OwnedUserId, Vec<Instant>>,
    identities: HashMap<OwnedUserId, Instant>,
    hints: HashMap<OwnedUserId, Instant>,
    rate: Rate,
}

impl Queue {
    pub(super) fn new(config: &Arc<Config>) -> Self {
        Self {
            config: Arc::clone(config),
            waiting: HashMap::new(),
            refusals: HashMap::new(),
            undecryptable: HashMap::new(),
            identities: HashMap::new(),
            hints: HashMap::new(),
            rate: Rate::new(config.limits.commands_per_minute),
        }
    }

    /// Counts a message of this user. Nothing is asked of the homeserver for one that is too many.
    ///
    /// # Errors
    /// [`Excess`].
    pub(super) fn count(&mut self, sender: &UserId) -> Result<(), Excess> {
        self.rate.count(sender, Instant::now())
    }

    /// Takes a message in; gives it back as a case if it is the sender's turn.
    pub(super) fn take_in(&mut self, message: Message, statuses: &[Status]) -> Option<Case> {
        match self.waiting.get_mut(&message.sender) {
            Some(queue) if queue.len() >= WAITING_PER_SENDER => {
                warn!(sender = %message.sender, "command dropped, too many of this sender wait");
                None
            }
            Some(queue) => {
                queue.push_back(message);
                None
            }
            None => {
                let case = self.open(message, statuses)?;
                self.waiting
                    .insert(case.message.sender.clone(), VecDeque::new());
                Some(case)
            }
        }
    }

    /// The sender's next case, once the one before is judged.
    pub(super) fn next_of(&mut self, sender: &UserId, statuses: &[Status]) -> Option<Case> {
        while let Some(message) = self.waiting.get_mut(sender).and_then(VecDeque::pop_front) {
            if let Some(case) = self.open(message, statuses) {
                return Some(case);
            }
        }
        self.waiting.remove(sender);
        None
    }

    /// Whether a user is to be told now that something of theirs was refused, and not for a while after.
    pub(super) fn may_refuse(&mut self, user: &UserId) -> bool {
        is_due(&mut self.refusals, user, REFUSALS_APART)
    }

    /// Whether a sender is to be told now that they cannot be understood.
    pub(super) fn may_tell_undecryptable(&mut self, user: &UserId) -> bool {
        is_undecryptable_due(&mut self.undecryptable, user, Instant::now())
    }

    /// Whether the room is to be told now that a user has another identity, and not for a while after.
    pub(super) fn may_tell_identity(&mut self, user: &UserId) -> bool {
        is_due(&mut self.identities, user, IDENTITIES_APART)
    }

    /// Whether a user who writes in their direct message is to be told now where commands count, and not for a while after.
    pub(super) fn may_hint(&mut self, user: &UserId) -> bool {
        is_due(&mut self.hints, user, HINTS_APART)
    }

    /// `None`: it is not meant for the bot.
    fn open(&self, message: Message, statuses: &[Status]) -> Option<Case> {
        let command = command::parse(&self.config.command_prefix, &message.text)?;
        Some(Case {
            message,
            command,
            statuses: statuses.to_vec(),
            config: Arc::clone(&self.config),
        })
    }

    /// What this project asks of whoever commands it or gets its link.
    pub(super) fn policy(&self, project: Option<&ProjectName>) -> Policy {
        Policy::of(&self.config, project)
    }
}

/// Whether this user was last told longer ago than `apart`; if so, now counts.
fn is_due(told: &mut HashMap<OwnedUserId, Instant>, user: &UserId, apart: Duration) -> bool {
    told.retain(|_, time| time.elapsed() < apart);
    let due = !told.contains_key(user);
    if due {
        told.insert(user.to_owned(), Instant::now());
    }
    due
}

fn is_undecryptable_due(
    told: &mut HashMap<OwnedUserId, Vec<Instant>>,
    user: &UserId,
    now: Instant,
) -> bool {
    let an_hour = Duration::from_hours(1);
    told.retain(|_, times| {
        times.retain(|time| now.duration_since(*time) < an_hour);
        !times.is_empty()
    });
    let times = told.entry(user.to_owned()).or_default();
    let is_apart = |last: &Instant| now.duration_since(*last) >= UNDECRYPTABLE_APART;
    let is_due = times.len() < UNDECRYPTABLE_AN_HOUR && times.last().is_none_or(is_apart);
    if is_due {
        times.push(now);
    }
    is_due
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::user_id;

    use super::*;

    #[test]
    fn who_cannot_be_understood_hears_it_again_soon_but_not_all_the_time() {
        let (alice, bob) = (user_id!("@alice:x.y"), user_id!("@bob:x.y"));
        let (mut told, begin) = (HashMap::new(), Instant::now());
        let mut at = |user, minute| {
            is_undecryptable_due(&mut told, user, begin + Duration::from_mins(minute))
        };
        assert!(at(alice, 0) && !at(alice, 1) && at(bob, 1));
        assert!(at(alice, 2) && at(alice, 5));
        assert!(!at(alice, 8) && !at(alice, 59));
        assert!(at(alice, 60), "the first is an hour ago");
        assert!(!at(alice, 61) && at(alice, 62));
    }
}
