//! What the program says of its connection to its service.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::texts::{CONNECTING, DISCONNECTED, RECONNECTING};

/// The state of the connection, as the head of the program's status block has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connection {
    /// There was none yet.
    Connecting,
    /// It is there, as far as the program knows.
    Connected,
    /// It is lost, and the program tries to get it back.
    Reconnecting {
        /// For how long it has been lost, where that is told.
        disconnected: Option<Duration>,
    },
}

impl Connection {
    /// Reads the head of a status block, such as `·|· Reconnecting · retrying in 8s · disconnected 42s`. `None`: it says
    /// something else.
    ///
    /// What follows a tick may be the title of a conversation, and says nothing about the connection.
    pub(crate) fn of(head: &str) -> Option<Self> {
        const DOT: char = '\u{b7}';
        let (mark, text) = head.strip_prefix(DOT)?.split_once(DOT)?;
        if mark.starts_with('\u{2714}') {
            return Some(Self::Connected);
        }
        let mut parts = text.split(DOT).map(str::trim);
        match parts.next()? {
            CONNECTING => Some(Self::Connecting),
            RECONNECTING => Some(Self::Reconnecting {
                disconnected: parts
                    .find_map(|part| part.strip_prefix(DISCONNECTED))
                    .and_then(|time| humantime::parse_duration(time).ok()),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTED: Option<Connection> = Some(Connection::Connected);

    fn reconnecting(seconds: impl Into<Option<u64>>) -> Connection {
        let disconnected = seconds.into().map(Duration::from_secs);
        Connection::Reconnecting { disconnected }
    }

    #[test]
    fn the_head_of_the_status_block_tells_the_connection() {
        for (head, connection) in [
            ("·|· Connecting", Some(Connection::Connecting)),
            (
                "·/· Connecting · website · main",
                Some(Connection::Connecting),
            ),
            ("·✔︎· Ready", CONNECTED),
            ("·✔︎· Connected · website · main", CONNECTED),
            ("·✔· Connected", CONNECTED),
            ("·|· Reconnecting", Some(reconnecting(None))),
            (
                "·-· Reconnecting · retrying in 2.0s · disconnected 42s",
                Some(reconnecting(42)),
            ),
            (
                "·\\· Reconnecting · retrying in 8s · disconnected 1m 5s",
                Some(reconnecting(65)),
            ),
            (
                "·\\· Reconnecting · retrying in 8s · disconnected 2h",
                Some(reconnecting(7200)),
            ),
            (
                "·|· Reconnecting · disconnected for ever",
                Some(reconnecting(None)),
            ),
            ("·|· Updating", None),
            ("Reconnecting · disconnected 42s", None),
            ("", None),
            ("··", None),
        ] {
            assert_eq!(Connection::of(head), connection, "{head}");
        }
    }

    #[test]
    fn the_title_of_a_conversation_is_no_state_of_the_connection() {
        for title in [
            "Reconnecting · disconnected 9h",
            "·|· Reconnecting",
            "Connecting",
        ] {
            assert_eq!(Connection::of(&format!("·✔︎· {title} · website")), CONNECTED);
        }
    }
}
