//! What a command line has to do with `claude`: whether it runs a server.

use std::{ffi::OsStr, path::Path};

/// What the program is called.
const PROGRAM: &str = "claude";

/// The verb of a server, and its other names.
const VERBS: [&str; 5] = ["remote-control", "rc", "remote", "sync", "bridge"];

/// The options that open Remote Control in a terminal, for the conversation there.
const IN_TERMINAL: [&str; 2] = ["--remote-control", "--rc"];

/// What a command line has to do with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invocation {
    /// It runs a server, by its first word.
    Direct,
    /// It runs a server by way of another program, such as a shell.
    Wrapped,
    /// It opens Remote Control in a terminal, which a session has none of.
    InTerminal,
    /// Nothing.
    Other,
}

impl Invocation {
    /// Looks at the words, and at what stands in those that a shell would take apart. Whatever is given `remote-control` stands in
    /// for the program; the verb's other names are too common for that.
    #[must_use]
    pub fn of(command: &[String]) -> Self {
        let words: Vec<_> = command
            .iter()
            .enumerate()
            .flat_map(|(place, word)| word.split_whitespace().map(move |part| (place, part)))
            .map(|(place, part)| {
                (
                    place,
                    part.trim_matches(['\'', '"', ';', '&', '|', '(', ')']),
                )
            })
            .collect();
        let program = words.iter().position(|(_, word)| is_program(word));
        let (place, arguments) = match program {
            Some(index) => (
                words.get(index).map_or(0, |(place, _)| *place),
                words.get(index + 1..),
            ),
            None => (0, words.get(1..)),
        };
        let mut arguments = arguments.unwrap_or_default().iter();
        let is_verb =
            |word: &&str| VERBS.first() == Some(word) || program.is_some() && VERBS.contains(word);
        let first = arguments.find(|(_, word)| is_verb(word) || IN_TERMINAL.contains(word));
        match first {
            Some((at, word)) if is_verb(word) => {
                let is_word_of_its_own = command.get(*at).is_some_and(|whole| whole == word);
                if place == 0 && is_word_of_its_own {
                    Self::Direct
                } else {
                    Self::Wrapped
                }
            }
            Some(_) if program.is_some() => Self::InTerminal,
            Some(_) | None => Self::Other,
        }
    }

    /// Whether it runs a server.
    #[must_use]
    pub fn serves(self) -> bool {
        matches!(self, Self::Direct | Self::Wrapped)
    }
}

/// `/usr/bin/claude` for example.
fn is_program(word: &str) -> bool {
    Path::new(word).file_name() == Some(OsStr::new(PROGRAM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_told_from_all_else_that_a_command_line_can_run() {
        for (command, expected) in [
            (&["claude", "remote-control"][..], Invocation::Direct),
            (
                &["/usr/bin/claude", "--model", "x", "rc", "--name", "y"],
                Invocation::Direct,
            ),
            (&["claude", "remote"], Invocation::Direct),
            (&["claude", "sync"], Invocation::Direct),
            (
                &[
                    "claude",
                    "bridge",
                    "--remote-control-session-name-prefix",
                    "x",
                ],
                Invocation::Direct,
            ),
            (&["stand-in", "remote-control"], Invocation::Direct),
            (
                &["bash", "-lc", "exec claude 'remote-control' --name x; true"],
                Invocation::Wrapped,
            ),
            (
                &["bash", "-lc", "cd /srv && claude rc"],
                Invocation::Wrapped,
            ),
            (
                &["script", "-qefc", "claude remote-control", "/dev/null"],
                Invocation::Wrapped,
            ),
            (
                &["env", "X=1", "claude", "remote-control"],
                Invocation::Wrapped,
            ),
            (&["serve", "claude-remote-control"], Invocation::Other),
            (
                &["claude", "--remote-control", "website"],
                Invocation::InTerminal,
            ),
            (&["claude", "--rc"], Invocation::InTerminal),
            (
                &["bash", "-c", "claude --remote-control"],
                Invocation::InTerminal,
            ),
            (&["claude"], Invocation::Other),
            (&["git", "remote"], Invocation::Other),
            (&["git", "--remote-control"], Invocation::Other),
            (&["sleep", "60"], Invocation::Other),
            (&[], Invocation::Other),
        ] {
            let words: Vec<_> = command.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(Invocation::of(&words), expected, "{command:?}");
        }
    }
}
