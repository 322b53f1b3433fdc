//! Whether a session that was read from disk is one that can be: a damaged record must not overflow a clock or a counter.

use std::time::{Duration, UNIX_EPOCH};

use super::{Session, State};

/// No host is up for so long, and no session lasts so long: far from what a clock can hold, which a time is added to.
const LONGEST: Duration = Duration::from_hours(24 * 366 * 1000);

/// The days from 1970 to the year 10,000, which is the first that cannot be shown to people.
const END_OF_CALENDARS: Duration = Duration::from_hours(24 * 2_932_897);

/// More deliveries than any session has.
const MOST_DELIVERIES: u32 = u32::MAX / 2;

impl Session {
    /// Whether its times and numbers are such as a session can come to have.
    pub(in crate::remote_control) fn is_sound(&self) -> bool {
        let is_shown = self.created < UNIX_EPOCH + END_OF_CALENDARS;
        let ends = self
            .end
            .iter()
            .all(|end| end.uptime < LONGEST && end.wall < UNIX_EPOCH + END_OF_CALENDARS + LONGEST);
        is_shown && ends && self.uptime_of_state() < LONGEST && self.has_sound_numbers()
    }

    fn uptime_of_state(&self) -> Duration {
        match &self.state {
            State::Spawning { since } | State::Running { since, .. } => *since,
            State::Starting { deadline, .. } => *deadline,
            State::Resting { until } => *until,
            State::Stopping { .. } => Duration::ZERO,
        }
    }

    /// A number that two deliveries had would make the second one a repetition of the first.
    fn has_sound_numbers(&self) -> bool {
        let mut numbers = self.deliveries.iter().map(|delivery| delivery.number);
        self.next_delivery < MOST_DELIVERIES && numbers.all(|number| number < self.next_delivery)
    }
}
