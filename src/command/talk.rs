//! What somebody says to the bot outside of the admin room -> `Remark`.

use super::{Command, parse};

/// What is said outside of the admin room, where no command counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remark {
    /// Somebody asks for help, with the prefix or without.
    Help,
    /// Somebody says what would be for the bot in the admin room.
    Command,
    /// Anything else.
    Chat,
}

/// Takes a text for one of the three.
#[must_use]
pub fn remark(prefix: &str, text: &str) -> Remark {
    match parse(prefix, text) {
        Some(Ok(Command::Help)) => Remark::Help,
        Some(Ok(_) | Err(_)) => Remark::Command,
        None if text.trim().eq_ignore_ascii_case("help") => Remark::Help,
        None => Remark::Chat,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remark_is_a_wish_for_help_a_command_or_chat() {
        for (text, expected) in [
            ("help", Remark::Help),
            (" Help\n", Remark::Help),
            ("!rc help", Remark::Help),
            ("!RC HELP", Remark::Help),
            ("!rc start", Remark::Command),
            ("!rc", Remark::Command),
            ("!rc dance", Remark::Command),
            ("!rc help me", Remark::Command),
            ("help me", Remark::Chat),
            ("thanks!", Remark::Chat),
            ("", Remark::Chat),
            ("!rcx help", Remark::Chat),
        ] {
            assert_eq!(remark("!rc", text), expected, "{text:?}");
        }
    }
}
