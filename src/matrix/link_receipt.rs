//! Where a link was sent, in a form that the record of its session keeps.

use std::{fmt, str::FromStr};

use matrix_sdk::ruma::{OwnedEventId, OwnedRoomId};

/// Where a link was sent: what it takes to withdraw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkReceipt {
    pub(super) room: OwnedRoomId,
    pub(super) event: OwnedEventId,
}

impl fmt::Display for LinkReceipt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.room, self.event)
    }
}

impl FromStr for LinkReceipt {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (room, event) = text.split_once(' ').ok_or("no room and event")?;
        let room = room.try_into().map_err(|_| "no room")?;
        let event = event.try_into().map_err(|_| "no event")?;
        Ok(Self { room, event })
    }
}
