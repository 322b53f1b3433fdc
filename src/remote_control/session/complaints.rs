//! What the program complains of while it goes on, and what people hear of that.

use serde::{Deserialize, Serialize};

use super::{Effect, Session, State};
use crate::remote_control::{
    claude::{Cause, Quote},
    notice::Notice,
};

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
