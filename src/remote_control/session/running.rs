//! What the program says while its process runs: that it has lost its service, so that nobody can use the session, and what it
//! complains of.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Effect, Ending, Heard, Moment, Restart, Session, State, Terms};
use crate::remote_control::{
    claude::{Cause, Connection, Quote},
    notice::Notice,
};

/// How long at most after its limit, in parts of which, a session that is cut off is restarted: the program gives up by itself at the
/// usual limit, if it is not stuck, and its own way is the better one.
const TIME_TO_GIVE_UP: Duration = Duration::from_mins(1);
const PART_OF_LIMIT: u32 = 10;

/// How many complaints that are not known are quoted in the life of a session: who has read so many looks for themselves.
pub(crate) const MOST_COMPLAINTS: usize = 10;

/// One of which people have heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Complaint {
    cause: Cause,
    quote: Quote,
    in_room: bool,
}

impl Session {
    pub(super) fn on_connection(&mut self, connection: Connection, now: Moment) -> Vec<Effect> {
        let earliest = match &self.state {
            State::Starting { .. } => now.uptime,
            State::Running { since, .. } => *since,
            State::Spawning { .. } | State::Stopping { .. } | State::Resting { .. } => {
                return Vec::new();
            }
        };
        let lost_before = self.cut_off_since();
        let (connection, claimed) = match connection {
            Connection::Reconnecting { disconnected } => {
                let connection = Connection::Reconnecting { disconnected: None };
                (connection, disconnected.unwrap_or_default())
            }
            Connection::Connecting | Connection::Connected => (connection, Duration::ZERO),
        };
        if self
            .heard
            .is_some_and(|heard| heard.connection == connection)
        {
            return Vec::new();
        }
        // Whatever the program claims, people hear of it no more often than the limit is long.
        let since = now.uptime.saturating_sub(claimed).max(earliest);
        let since = since.max(self.cut_off_told.unwrap_or_default());
        let was_told = self.is_cut_off();
        self.heard = Some(Heard { connection, since });
        match (lost_before, connection) {
            (Some(lost), Connection::Connected) if was_told => {
                let after = now.uptime.saturating_sub(lost);
                vec![Effect::Tell(Notice::Reconnected { after })]
            }
            _ => Vec::new(),
        }
    }

    /// The uptime since which it has been without its service, while its link is known.
    fn cut_off_since(&self) -> Option<Duration> {
        let heard = self
            .heard
            .filter(|_| matches!(self.state, State::Running { .. }))?;
        (heard.connection != Connection::Connected).then_some(heard.since)
    }

    /// Whether it is cut off for so long that people have heard of it.
    pub(crate) fn is_cut_off(&self) -> bool {
        let since = self.cut_off_since();
        since.is_some_and(|since| self.cut_off_told.is_some_and(|told| told > since))
    }

    /// The uptime at which something is to be done about its being cut off.
    pub(super) fn cut_off_wake(&self, terms: &Terms) -> Option<Duration> {
        let limit = terms.reconnect_limit?;
        let over = self.cut_off_since()? + limit;
        match terms.restart {
            _ if !self.is_cut_off() => Some(over),
            Restart::OnExit => Some(over + TIME_TO_GIVE_UP.min(limit / PART_OF_LIMIT)),
            Restart::Never => None,
        }
    }

    pub(super) fn on_cut_off(&mut self, terms: &Terms, now: Moment) -> Vec<Effect> {
        let since = self.cut_off_since().unwrap_or(now.uptime);
        let lasts = now.uptime.saturating_sub(since);
        if self.is_cut_off() {
            self.note_good_run(now);
            return self.end(Ending::CutOff { lasted: lasts }, Vec::new());
        }
        self.cut_off_told = Some(now.uptime);
        vec![Effect::Tell(Notice::CutOff {
            lasts,
            restart: terms.restart,
        })]
    }

    /// The room hears once that there is something unknown, and else at the end; each is quoted once to those who asked for the link.
    pub(super) fn on_complained(&mut self, cause: Cause, quote: Quote) -> Vec<Effect> {
        let is_running = match &self.state {
            State::Starting { .. } => false,
            State::Running { .. } => true,
            // The room hears with the end that it was for something unknown.
            State::Stopping { ending, .. } if ending.cause() == Some(Cause::Unknown) => false,
            State::Spawning { .. } | State::Stopping { .. } | State::Resting { .. } => {
                return Vec::new();
            }
        };
        let same = self.complaints.iter().filter(|told| told.cause == cause);
        let (is_told, is_unknown) = (same.clone().next().is_some(), cause == Cause::Unknown);
        let is_quoted = same.clone().any(|told| told.quote.is_like(&quote));
        let is_one_too_many = same.clone().count() >= MOST_COMPLAINTS;
        if is_quoted || is_told && !is_unknown || is_one_too_many {
            return Vec::new();
        }
        let in_room = is_running && !same.clone().any(|told| told.in_room);
        self.complaints.push(Complaint {
            cause,
            quote: quote.clone(),
            in_room,
        });
        vec![Effect::Tell(Notice::Complained {
            cause,
            quote,
            in_room,
            requesters: self.requesters(|_| true),
        })]
    }

    /// Another process is not kept from what this one was.
    pub(super) fn forget_obstacles(&mut self) {
        self.complaints.retain(|told| told.cause == Cause::Unknown);
    }
}
