//! "!rc ..." -> `Command` or `Misuse`.

use std::{fmt, ops::RangeInclusive, time::Duration};

/// By how much a session can be extended at a time.
const EXTENSIONS: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(24 * 30);

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) verb: Verb,
    /// The project as it was typed, which need not exist. `None`: the only one that can be meant.
    pub(crate) project: Option<String>,
}

/// The contract's table of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Start,
    Resume,
    Stop,
    Extend(Duration),
    Logs,
    Status,
    Doctor,
    Help,
}

/// What a verb is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// A project, with a session or without.
    Project,
    /// The session of a project: where one has a session, none without is meant.
    Session,
    /// The host as a whole.
    Host,
}

/// What each verb is called.
const VERBS: [&str; 8] = [
    "start", "resume", "stop", "extend", "logs", "status", "doctor", "help",
];

impl Verb {
    /// Whether there is nothing to do without a session.
    pub(crate) fn needs_session(self) -> bool {
        match self {
            Self::Stop | Self::Extend(_) => true,
            Self::Start | Self::Resume | Self::Logs | Self::Status | Self::Doctor | Self::Help => {
                false
            }
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Resume => "resume",
            Self::Stop => "stop",
            Self::Extend(_) => "extend",
            Self::Logs => "logs",
            Self::Status => "status",
            Self::Doctor => "doctor",
            Self::Help => "help",
        }
    }

    pub(crate) fn target(self) -> Target {
        match self {
            Self::Start | Self::Resume => Target::Project,
            Self::Stop | Self::Extend(_) | Self::Logs => Target::Session,
            Self::Status | Self::Doctor | Self::Help => Target::Host,
        }
    }
}

/// As it is typed, in one way of several, without the prefix.
impl fmt::Display for Command {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.verb.name())?;
        if let Some(project) = &self.project {
            write!(formatter, " {project}")?;
        }
        if let Verb::Extend(by) = self.verb {
            let by = humantime::format_duration(by).to_string();
            write!(formatter, " {}", by.replace(' ', ""))?;
        }
        Ok(())
    }
}

/// Why a text that addresses the bot is no command, or none that can be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Misuse {
    UnknownCommand {
        word: String,
        /// The text with the command that may have been meant, without the prefix.
        meant: Option<String>,
    },
    TooManyWords {
        command: &'static str,
    },
    /// This is no time by which a session can be extended.
    HowLong,
    UnknownProject {
        name: String,
        /// The projects that exist: by name, or as `project@host` where there are several hosts.
        known: Vec<String>,
    },
    UnknownHost {
        name: String,
        known: Vec<String>,
    },
    /// No project has the session that the command is about.
    NothingRuns,
    /// Several projects may be meant.
    Ambiguous {
        command: &'static str,
        /// Those, as above.
        known: Vec<String>,
    },
}

/// Takes the text of a message for a command. `None`: it does not begin with the prefix as a word of its own, so it is
/// not meant for us.
///
/// Prefix and command may be written in any case, as telephones begin sentences with a capital; names of projects not. Which
/// host is addressed is told by [`addressed_host`].
pub(crate) fn parse(prefix: &str, text: &str) -> Option<Result<Command, Misuse>> {
    let mut words = text.split_whitespace();
    if !words.next()?.eq_ignore_ascii_case(prefix) {
        return None;
    }
    // Whoever calls the bot by its name alone wants to know what it can do.
    let word = words.next().unwrap_or(Verb::Help.name());
    let arguments = words.map(|word| without_host(word).0);
    let arguments: Vec<_> = arguments.filter(|word| !word.is_empty()).collect();
    Some(parse_command(word, &arguments))
}

/// The host that a command addresses: what stands behind an `@` in one of its words, as in `!rc start website@build1`.
pub(crate) fn addressed_host(text: &str) -> Option<&str> {
    text.split_whitespace()
        .skip(2)
        .find_map(|word| without_host(word).1)
}

/// The name that somebody meant who typed another: the only one that begins so, else the one that is nearest.
pub(crate) fn nearest<'n>(
    typed: &str,
    names: impl IntoIterator<Item = &'n str>,
) -> Option<&'n str> {
    let typed = typed.to_lowercase();
    let names: Vec<_> = names.into_iter().collect();
    let mut beginning = names
        .iter()
        .filter(|name| name.to_lowercase().starts_with(&typed));
    if let (Some(name), None) = (beginning.next(), beginning.next()) {
        return Some(name);
    }
    // One slip in three letters is a misspelling; more is another word.
    let distances = names.iter().map(|name| {
        (
            strsim::damerau_levenshtein(&typed, &name.to_lowercase()),
            *name,
        )
    });
    let (distance, name) = distances.min()?;
    (distance <= typed.chars().count().div_ceil(3)).then_some(name)
}

fn without_host(word: &str) -> (&str, Option<&str>) {
    match word.split_once('@') {
        Some((word, host)) => (word, Some(host)),
        None => (word, None),
    }
}

fn parse_command(word: &str, arguments: &[&str]) -> Result<Command, Misuse> {
    let (verb, arguments) = match word.to_ascii_lowercase().as_str() {
        "start" => (Verb::Start, arguments),
        "resume" => (Verb::Resume, arguments),
        "stop" => (Verb::Stop, arguments),
        "extend" => {
            let (duration, project) = arguments.split_last().ok_or(Misuse::HowLong)?;
            let by = humantime::parse_duration(duration).ok();
            let by = by.filter(|by| EXTENSIONS.contains(by));
            (Verb::Extend(by.ok_or(Misuse::HowLong)?), project)
        }
        "logs" => (Verb::Logs, arguments),
        "status" => (Verb::Status, arguments),
        "doctor" => (Verb::Doctor, arguments),
        "help" => (Verb::Help, arguments),
        lower => {
            let meant = nearest(lower, VERBS).map(|verb| [&[verb], arguments].concat().join(" "));
            let word = word.to_owned();
            return Err(Misuse::UnknownCommand { word, meant });
        }
    };
    let project = match (verb.target(), arguments) {
        (_, []) => None,
        (Target::Project | Target::Session, [project]) => Some((*project).to_owned()),
        (Target::Project | Target::Session | Target::Host, _) => {
            return Err(Misuse::TooManyWords {
                command: verb.name(),
            });
        }
    };
    Ok(Command { verb, project })
}

#[cfg(test)]
mod tests {
    use super::*;

    mod properties;

    fn command(verb: Verb, project: Option<&str>) -> Command {
        let project = project.map(str::to_owned);
        Command { verb, project }
    }

    #[test]
    fn a_text_is_a_command_a_misuse_or_not_for_us() {
        let is = |verb, project: &str| {
            Some(Ok(command(
                verb,
                Some(project).filter(|name| !name.is_empty()),
            )))
        };
        let too_many = |command| Some(Err(Misuse::TooManyWords { command }));
        let how_long = || Some(Err(Misuse::HowLong));
        let unknown = |word: &str, meant: Option<&str>| {
            Some(Err(Misuse::UnknownCommand {
                word: word.to_owned(),
                meant: meant.map(str::to_owned),
            }))
        };
        for (text, expected) in [
            ("!rc start", is(Verb::Start, "")),
            ("  !rc   start\twebsite ", is(Verb::Start, "website")),
            ("!RC Start website", is(Verb::Start, "website")),
            ("!rc start ../etc", is(Verb::Start, "../etc")),
            ("!rc stop", is(Verb::Stop, "")),
            ("!rc stop api-2.x", is(Verb::Stop, "api-2.x")),
            (
                "!rc extend 2h",
                is(Verb::Extend(Duration::from_hours(2)), ""),
            ),
            (
                "!rc extend website 90m",
                is(Verb::Extend(Duration::from_mins(90)), "website"),
            ),
            ("!rc extend", how_long()),
            ("!rc extend website", how_long()),
            ("!rc extend 1s", how_long()),
            ("!rc extend 900d", how_long()),
            ("!rc extend a b 2h", too_many("extend")),
            ("!rc resume", is(Verb::Resume, "")),
            ("!rc logs website", is(Verb::Logs, "website")),
            ("!rc status", is(Verb::Status, "")),
            ("!rc doctor", is(Verb::Doctor, "")),
            ("!rc help", is(Verb::Help, "")),
            ("!rc", is(Verb::Help, "")),
            ("!rc strat", unknown("strat", Some("start"))),
            ("!rc Strat website", unknown("Strat", Some("start website"))),
            ("!rc dance", unknown("dance", None)),
            ("!rc start a b", too_many("start")),
            ("!rc status now", too_many("status")),
            ("", None),
            ("hello", None),
            ("!rcstart", None),
            ("!rcx start", None),
            ("please !rc start", None),
        ] {
            assert_eq!(parse("!rc", text), expected, "{text:?}");
            if let Some(Ok(command)) = &expected {
                assert_eq!(parse("!rc", &format!("!rc {command}")), expected);
            }
        }
    }
}
