//! Where a link was sent, in a form that the record of its session keeps.

use std::{fmt, str::FromStr};

use matrix_sdk::ruma::{OwnedEventId, OwnedRoomId};

/// Stands for a picture of which it is not known whether it was sent.
const UNSETTLED: &str = "?";

/// Where a link was sent, and its picture: what it takes to withdraw both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkReceipt {
    pub(super) room: OwnedRoomId,
    pub(super) event: OwnedEventId,
    pub(super) picture: Picture,
}

/// What became of a link's picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Picture {
    /// None was sent.
    None,
    /// It may have been sent, or be sent still: its transaction tells.
    Unsettled,
    /// It was sent.
    Sent(OwnedEventId),
}

impl fmt::Display for LinkReceipt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.room, self.event)?;
        match &self.picture {
            Picture::None => Ok(()),
            Picture::Unsettled => write!(formatter, " {UNSETTLED}"),
            Picture::Sent(event) => write!(formatter, " {event}"),
        }
    }
}

impl FromStr for LinkReceipt {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.split(' ');
        let mut next = || words.next();
        let room = next().ok_or("no room")?;
        let event = next().ok_or("no event")?;
        let picture = match next() {
            None => Picture::None,
            Some(UNSETTLED) => Picture::Unsettled,
            Some(event) => Picture::Sent(event.try_into().map_err(|_| "no picture")?),
        };
        if next().is_some() {
            return Err("more than a room and two events");
        }
        Ok(Self {
            room: room.try_into().map_err(|_| "no room")?,
            event: event.try_into().map_err(|_| "no event")?,
            picture,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_survives_as_text_whatever_became_of_the_picture() {
        // The first is of before there were pictures.
        for (text, picture) in [
            ("!room:example.org $link", Picture::None),
            ("!room:example.org $link ?", Picture::Unsettled),
            (
                "!room:example.org $link $picture",
                Picture::Sent("$picture".try_into().unwrap()),
            ),
        ] {
            let receipt: LinkReceipt = text.parse().unwrap();
            assert_eq!(receipt.event, "$link");
            assert_eq!(receipt.picture, picture);
            assert_eq!(receipt.to_string(), text);
        }
    }

    #[test]
    fn what_names_no_events_is_no_receipt() {
        for text in [
            "",
            "!room",
            "!room link",
            "!room $link picture",
            "!room $link $picture $more",
        ] {
            assert!(text.parse::<LinkReceipt>().is_err(), "{text}");
        }
    }
}
