//! Whether the clocks of this host and of the homeserver agree: commands are dropped for their age by either.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use matrix_sdk::{
    deserialized_responses::TimelineEvent,
    ruma::{MilliSecondsSinceUnixEpoch, OwnedUserId, ServerName},
};
use serde::Deserialize;
use tracing::warn;

/// How often it is told that the clocks differ.
const TOLD_APART: Duration = Duration::from_hours(1);

/// A difference that a slow answer makes, and that harms nothing.
const HARMLESS: Duration = Duration::from_secs(5);

/// How far this host's clock is from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skew {
    /// It is so much ahead.
    Ahead(Duration),
    /// It is so much behind.
    Behind(Duration),
}

impl Skew {
    /// The difference between this host's time and another's, if it takes away half of the time or more in which a command
    /// counts.
    #[must_use]
    pub fn between(own: SystemTime, other: SystemTime, max_command_age: Duration) -> Option<Self> {
        let skew = match own.duration_since(other) {
            Ok(ahead) => Self::Ahead(ahead),
            Err(behind) => Self::Behind(behind.duration()),
        };
        let (Self::Ahead(by) | Self::Behind(by)) = skew;
        (by >= HARMLESS.max(max_command_age / 2)).then_some(skew)
    }
}

impl std::fmt::Display for Skew {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (by, direction) = match self {
            Self::Ahead(by) => (by, "ahead of"),
            Self::Behind(by) => (by, "behind"),
        };
        let by = humantime::format_duration(Duration::from_secs(by.as_secs()));
        write!(formatter, "{by} {direction} the homeserver's")
    }
}

/// Compares the clocks by what the homeserver says of events.
#[derive(Debug, Default)]
pub(super) struct Clock {
    told: Mutex<Option<Instant>>,
}

/// What an event tells of the clock of the homeserver on which it was sent.
#[derive(Deserialize)]
struct Stamps {
    sender: OwnedUserId,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    unsigned: Age,
}

#[derive(Deserialize)]
struct Age {
    age: i64,
}

impl Clock {
    /// Looks at an event that an answer has just brought, and says so in the log if the clocks differ.
    pub(super) fn compare(
        &self,
        event: &TimelineEvent,
        homeserver: &ServerName,
        max_command_age: Duration,
    ) {
        let Ok(stamps) = event.raw().deserialize_as_unchecked::<Stamps>() else {
            return;
        };
        // Others stamp their events by clocks of their own.
        if stamps.sender.server_name() != homeserver {
            return;
        }
        let now = homeserver_time(&stamps);
        let skew = now.and_then(|now| Skew::between(SystemTime::now(), now, max_command_age));
        if let Some(skew) = skew.filter(|_| self.is_to_be_told(Instant::now())) {
            warn!(
                clock = %skew,
                "the clocks of this host and of the homeserver differ, so commands seem too old or from the future, and do not \
                 count: set the time of both hosts"
            );
        }
    }

    fn is_to_be_told(&self, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = told.is_none_or(|told| now.duration_since(told) >= TOLD_APART);
        if is_due {
            *told = Some(now);
        }
        is_due
    }
}

/// The homeserver's time when it gave the event.
fn homeserver_time(stamps: &Stamps) -> Option<SystemTime> {
    let sent = stamps.origin_server_ts.to_system_time()?;
    sent.checked_add(Duration::from_millis(stamps.unsigned.age.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const AGE: Duration = Duration::from_mins(2);

    #[test]
    fn a_difference_counts_from_half_of_the_age_of_commands_on() {
        let now = SystemTime::now();
        let mins = Duration::from_mins;
        assert_eq!(Skew::between(now, now, AGE), None);
        assert_eq!(Skew::between(now, now + Duration::from_secs(59), AGE), None);
        let ahead = Skew::between(now + mins(10), now, AGE).unwrap();
        assert_eq!(ahead, Skew::Ahead(mins(10)));
        assert_eq!(ahead.to_string(), "10m ahead of the homeserver's");
        let behind = Skew::between(now, now + mins(1), AGE).unwrap();
        assert_eq!(behind.to_string(), "1m behind the homeserver's");
        let short = Duration::from_secs(1);
        assert_eq!(
            Skew::between(now, now + Duration::from_secs(4), short),
            None
        );
    }

    #[test]
    fn the_age_of_an_event_tells_the_time_of_the_homeserver() {
        let stamps = json!({
            "sender": "@alice:x.y", "origin_server_ts": 1_000_000, "unsigned": { "age": 5_000 },
        });
        let stamps: Stamps = serde_json::from_value(stamps).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_005);
        assert_eq!(homeserver_time(&stamps), Some(time));
    }

    #[test]
    fn it_is_told_once_an_hour() {
        let (clock, begin) = (Clock::default(), Instant::now());
        assert!(clock.is_to_be_told(begin));
        assert!(!clock.is_to_be_told(begin + Duration::from_mins(59)));
        assert!(clock.is_to_be_told(begin + TOLD_APART));
    }
}
