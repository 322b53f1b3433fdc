//! What the program reports while its process runs: that it has lost its service, so that nobody can use the session, and other
//! problems.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Effect, Ending, Moment, Restart, Session, ShownConnection, State, Terms};
use crate::remote_control::{
    claude::{Cause, Connection, Quote},
    notice::Notice,
};

/// A session that is cut off is restarted a part of its limit later, at most this long: the program itself gives up at the
/// usual limit, if it is not stuck, and its own end is the better one.
const TIME_TO_GIVE_UP: Duration = Duration::from_mins(1);
const PART_OF_LIMIT: u32 = 10;

/// How many unknown complaints are quoted in the life of a session: after so many, users look for themselves.
pub(crate) const MOST_COMPLAINTS: usize = 10;

/// A complaint that users were notified of.
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
            State::Spawning { .. } | State::Stopping { .. } | State::AwaitingRestart { .. } => {
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
        if self.shown.map(|shown| shown.connection) == Some(connection) {
            return Vec::new();
        }
        // Whatever the program claims, users are notified at most once in the time of the limit.
        let since = now.uptime.saturating_sub(claimed).max(earliest);
        let since = since.max(self.cut_off_reported.unwrap_or_default());
        let was_reported = self.is_cut_off();
        self.shown = Some(ShownConnection { connection, since });
        match (lost_before, connection) {
            (Some(lost), Connection::Connected) if was_reported => {
                let after = now.uptime.saturating_sub(lost);
                vec![Effect::Notify(Notice::Reconnected { after })]
            }
            _ => Vec::new(),
        }
    }

    /// The uptime since which it has been without its service, while its link is known.
    fn cut_off_since(&self) -> Option<Duration> {
        let is_running = matches!(self.state, State::Running { .. });
        let shown = self.shown.filter(|_| is_running)?;
        (shown.connection != Connection::Connected).then_some(shown.since)
    }

    /// Whether users were notified that it is cut off.
    pub(crate) fn is_cut_off(&self) -> bool {
        let since = self.cut_off_since();
        since.is_some_and(|since| self.cut_off_reported.is_some_and(|at| at > since))
    }

    /// The uptime of the next action because it is cut off.
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
            return self.end(Ending::CutOff { lasted: lasts });
        }
        self.cut_off_reported = Some(now.uptime);
        vec![Effect::Notify(Notice::CutOff {
            lasts,
            restart: terms.restart,
        })]
    }

    /// The room is notified once while it runs, and else at its end; the requesters of the link get each complaint once.
    pub(super) fn on_complained(&mut self, cause: Cause, quote: Quote) -> Vec<Effect> {
        let is_running = match &self.state {
            State::Starting { .. } => false,
            State::Running { .. } => true,
            // The end notifies the room that the cause is unknown.
            State::Stopping { ending, .. } if ending.cause() == Some(Cause::Unknown) => false,
            State::Spawning { .. } | State::Stopping { .. } | State::AwaitingRestart { .. } => {
                return Vec::new();
            }
        };
        let same = self.complaints.iter().filter(|known| known.cause == cause);
        let (is_known, is_unknown) = (same.clone().next().is_some(), cause == Cause::Unknown);
        let is_quoted = same.clone().any(|known| known.quote.is_like(&quote));
        let is_one_too_many = same.clone().count() >= MOST_COMPLAINTS;
        if is_quoted || is_known && !is_unknown || is_one_too_many {
            return Vec::new();
        }
        let in_room = is_running && !same.clone().any(|known| known.in_room);
        self.complaints.push(Complaint {
            cause,
            quote: quote.clone(),
            in_room,
        });
        vec![Effect::Notify(Notice::Complained {
            cause,
            quote,
            in_room,
        })]
    }

    /// The obstacles of this process do not apply to the next one.
    pub(super) fn forget_obstacles(&mut self) {
        self.complaints.retain(|old| old.cause == Cause::Unknown);
    }
}
