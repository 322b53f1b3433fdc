//! The queue of commands, judged one at a time for each sender, in the order in which they were sent; and rate limits for
//! commands and notices of each user.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use matrix_sdk::ruma::{OwnedUserId, UserId};
use tracing::warn;

use crate::matrix::Message;

/// How many commands of one sender may wait. Nobody types so fast; a script may.
const WAITING_PER_SENDER: usize = 100;

/// How many of another bot's pings are answered in a minute: one for each overview that people ask for.
const PINGS: usize = 120;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// A sender with an entry has a command under judgement; those in it wait.
    waiting: HashMap<OwnedUserId, VecDeque<Message>>,
}

impl Queue {
    /// Queues a message; returns it if it is the sender's turn.
    pub(super) fn push(&mut self, message: Message) -> Option<Message> {
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
                self.waiting.insert(message.sender.clone(), VecDeque::new());
                Some(message)
            }
        }
    }

    /// The sender's next message, once the one before is judged.
    pub(super) fn next_of(&mut self, sender: &UserId) -> Option<Message> {
        let next = self.waiting.get_mut(sender).and_then(VecDeque::pop_front);
        if next.is_none() {
            self.waiting.remove(sender);
        }
        next
    }
}

/// What is rate-limited for each user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Limited {
    /// They command.
    Command,
    /// They edit a message into a command.
    Edit,
    /// They get a refusal, which anybody can provoke.
    Refusal,
    /// It is logged that they command too often.
    Excess,
    /// They are notified that their message cannot be decrypted, with these devices. Someone who follows the advice and retries
    /// gets an answer, but not all messages are meant for the bot.
    Undecryptable { devices: u64 },
    /// The same with any devices, which somebody may change often.
    UndecryptableByAny,
    /// Their changed identity is announced.
    IdentityChange,
    /// They write in their direct message, and get the hint where commands count.
    Hint,
    /// They are the bot of another host, and their ping is answered.
    Ping,
}

/// Counts for each user separately. Forgets what is older than its limit.
#[derive(Debug)]
pub(super) struct Limits {
    commands_per_minute: usize,
    happened: HashMap<(OwnedUserId, Limited), VecDeque<Instant>>,
}

impl Limits {
    pub(super) fn new(commands_per_minute: usize) -> Self {
        Self {
            commands_per_minute,
            happened: HashMap::new(),
        }
    }

    /// Whether this may happen to this user now; if so, it counts.
    pub(super) fn allow(&mut self, what: Limited, user: &UserId) -> bool {
        self.allow_at(Instant::now(), what, user)
    }

    fn allow_at(&mut self, now: Instant, what: Limited, user: &UserId) -> bool {
        let commands = self.commands_per_minute;
        self.happened.retain(|(_, what), times| {
            let (_, within, _) = what.limit(commands);
            times.retain(|time| now.duration_since(*time) < within);
            !times.is_empty()
        });
        let (most, _, apart) = what.limit(commands);
        let times = self.happened.entry((user.to_owned(), what)).or_default();
        let is_apart = |last: &Instant| now.duration_since(*last) >= apart;
        let is_allowed = times.len() < most && times.back().is_none_or(is_apart);
        if is_allowed {
            times.push_back(now);
        }
        is_allowed
    }
}

impl Limited {
    /// At most this often within this time, and this far apart.
    fn limit(self, commands_per_minute: usize) -> (usize, Duration, Duration) {
        match self {
            Self::Command | Self::Edit => (commands_per_minute, MINUTE, Duration::ZERO),
            Self::Refusal | Self::Excess => (1, MINUTE, Duration::ZERO),
            Self::Ping => (PINGS, MINUTE, Duration::ZERO),
            Self::Undecryptable { .. } => (3, HOUR, 2 * MINUTE),
            Self::UndecryptableByAny => (12, HOUR, Duration::ZERO),
            Self::IdentityChange | Self::Hint => (1, HOUR, Duration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::user_id;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn alice() -> &'static UserId {
        user_id!("@alice:x.y")
    }

    fn bob() -> &'static UserId {
        user_id!("@bob:x.y")
    }

    #[test]
    fn commands_are_limited_within_any_minute() {
        let (mut limits, begin) = (Limits::new(3), Instant::now());
        let mut at =
            |user, seconds| limits.allow_at(begin + seconds * SECOND, Limited::Command, user);
        assert!(at(alice(), 0) && at(alice(), 10) && at(alice(), 59));
        assert!(!at(alice(), 59));
        assert!(at(bob(), 59), "each user has a separate count");
        assert!(at(alice(), 60), "the first is a minute ago");
        assert!(!at(alice(), 61), "what was refused does not count");
        assert!(at(alice(), 70) && !at(alice(), 118) && at(alice(), 119));
    }

    #[test]
    fn a_refusal_is_sent_once_a_minute_and_other_notices_besides() {
        let (mut limits, begin) = (Limits::new(3), Instant::now());
        let mut at = |what, seconds| limits.allow_at(begin + seconds * SECOND, what, bob());
        assert!(at(Limited::Refusal, 0) && !at(Limited::Refusal, 59));
        assert!(at(Limited::Hint, 59) && at(Limited::IdentityChange, 59));
        assert!(at(Limited::Refusal, 60));
        assert!(!at(Limited::Hint, 3600) && at(Limited::Hint, 3659));
    }

    #[test]
    fn an_undecryptable_sender_is_notified_again_soon_but_not_always() {
        let (mut limits, begin) = (Limits::new(3), Instant::now());
        let mut at = |user, devices, minute| {
            limits.allow_at(
                begin + minute * MINUTE,
                Limited::Undecryptable { devices },
                user,
            )
        };
        assert!(at(alice(), 0, 0) && !at(alice(), 0, 1) && at(bob(), 0, 1));
        assert!(at(alice(), 1, 1), "another device was verified");
        assert!(at(alice(), 0, 2) && at(alice(), 0, 5));
        assert!(!at(alice(), 0, 8) && !at(alice(), 0, 59));
        assert!(at(alice(), 0, 60), "the first is an hour ago");
        assert!(!at(alice(), 0, 61) && at(alice(), 0, 62));
    }

    #[test]
    fn quiet_users_are_forgotten() {
        let (mut limits, begin) = (Limits::new(1), Instant::now());
        for number in 0..1_000 {
            let user = UserId::parse(format!("@user{number}:x.y")).unwrap();
            assert!(limits.allow_at(begin, Limited::Command, &user));
        }
        assert_eq!(limits.happened.len(), 1_000);
        assert!(limits.allow_at(begin + MINUTE, Limited::Command, alice()));
        assert_eq!(limits.happened.len(), 1);
    }
}
