//! Whom a request is to be answered, as text: it stands in the records of sessions, and outlives the bot.

use matrix_sdk::ruma::EventId;
use serde::{Deserialize, Serialize};

use crate::matrix::ReplyTo;

/// Whom a request is to be answered.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ReplyTarget {
    /// A message in the admin room.
    Message(ReplyTo),
    /// The operator on the host, by the number of the order; of use only as long as the bot runs.
    Operator(u64),
    /// Nobody asked.
    Nobody,
}

impl ReplyTarget {
    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The event that asked, if one did.
    pub(super) fn event(&self) -> Option<&EventId> {
        match self {
            Self::Message(reply_to) => Some(reply_to.event_id()),
            Self::Operator(_) | Self::Nobody => None,
        }
    }

    pub(super) fn from_text(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or(Self::Nobody)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_survives_as_text_and_what_is_none_answers_nobody() {
        let reference = ReplyTarget::Operator(7);
        assert_eq!(ReplyTarget::from_text(&reference.to_text()), reference);
        for text in ["", "{}", "null", "{\"message\": 3}"] {
            assert_eq!(ReplyTarget::from_text(text), ReplyTarget::Nobody, "{text}");
        }
    }
}
