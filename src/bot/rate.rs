//! How often somebody may command: so many times within any minute, each user for themselves.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use matrix_sdk::ruma::{OwnedUserId, UserId};

/// The time within which commands are counted.
const MINUTE: Duration = Duration::from_mins(1);

/// Counts commands. What it remembers is what the users of the last minute did, and no more for each than they may do.
#[derive(Debug)]
pub(super) struct Rate {
    per_minute: usize,
    users: HashMap<OwnedUserId, Recent>,
}

/// What one user did within the last minute.
#[derive(Debug, Default)]
struct Recent {
    /// When they commanded, the oldest first.
    accepted: VecDeque<Instant>,
    /// When the first of the refusals was that are counted together, and how many they are.
    refused: Option<(Instant, u32)>,
}

/// A command too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Excess {
    /// The how manieth within a minute that begins with the first: one is the time to tell the user.
    pub(super) number: u32,
}

impl Rate {
    pub(super) fn new(per_minute: usize) -> Self {
        Self {
            per_minute,
            users: HashMap::new(),
        }
    }

    /// Counts a command.
    ///
    /// # Errors
    /// [`Excess`]: it is one too many, and does not count.
    pub(super) fn count(&mut self, user: &UserId, now: Instant) -> Result<(), Excess> {
        self.users.retain(|_, recent| !recent.is_forgotten(now));
        let recent = self.users.entry(user.to_owned()).or_default();
        if recent.accepted.len() < self.per_minute {
            recent.accepted.push_back(now);
            return Ok(());
        }
        let (_, number) = recent.refused.get_or_insert((now, 0));
        *number = number.saturating_add(1);
        Err(Excess { number: *number })
    }
}

impl Recent {
    /// Drops what is over; true if nothing is left.
    fn is_forgotten(&mut self, now: Instant) -> bool {
        let is_over = |time: &Instant| now.duration_since(*time) >= MINUTE;
        while self.accepted.front().is_some_and(is_over) {
            self.accepted.pop_front();
        }
        self.refused = self.refused.filter(|(first, _)| !is_over(first));
        self.accepted.is_empty() && self.refused.is_none()
    }
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::user_id;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn so_many_are_accepted_within_any_minute_and_the_rest_are_counted() {
        let (alice, bob) = (user_id!("@alice:x.y"), user_id!("@bob:x.y"));
        let mut rate = Rate::new(3);
        let begin = Instant::now();
        let mut at = |user, seconds| rate.count(user, begin + seconds * SECOND);
        for seconds in [0, 10, 59] {
            assert_eq!(at(alice, seconds), Ok(()));
        }
        assert_eq!(at(alice, 59), Err(Excess { number: 1 }));
        assert_eq!(at(alice, 59), Err(Excess { number: 2 }));
        assert_eq!(at(bob, 59), Ok(()), "everybody has a count of their own");
        assert_eq!(at(alice, 60), Ok(()), "the first is a minute ago");
        assert_eq!(at(alice, 61), Err(Excess { number: 3 }));
        assert_eq!(at(alice, 70), Ok(()));
        assert_eq!(at(alice, 118), Err(Excess { number: 4 }));
        assert_eq!(at(alice, 119), Ok(()));
        assert_eq!(at(alice, 119), Err(Excess { number: 1 }), "told once more");
    }

    #[test]
    fn who_has_been_quiet_for_a_minute_is_forgotten() {
        let mut rate = Rate::new(1);
        let begin = Instant::now();
        for number in 0..1_000 {
            let user = UserId::parse(format!("@user{number}:x.y")).unwrap();
            assert_eq!(rate.count(&user, begin), Ok(()));
        }
        assert_eq!(rate.users.len(), 1_000);
        let alice = user_id!("@alice:x.y");
        assert_eq!(rate.count(alice, begin + MINUTE), Ok(()));
        assert_eq!(rate.users.len(), 1);
    }
}
