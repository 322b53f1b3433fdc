//! A session whose process runs, and which nobody can use, as it has lost its service.

use std::time::Duration;

use super::{Effect, Ending, Heard, Moment, Restart, Session, State, Terms};
use crate::remote_control::{claude::Connection, notice::Notice};

/// How long at most after its limit, in parts of which, a session that is cut off is restarted: the program gives up by itself at the
/// usual limit, if it is not stuck, and its own way is the better one.
const TIME_TO_GIVE_UP: Duration = Duration::from_mins(1);
const PART_OF_LIMIT: u32 = 10;

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
}
