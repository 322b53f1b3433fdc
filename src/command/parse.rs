//! "!rc ..." -> `Command` or `Misuse`.

use std::{fmt, time::Duration};

use crate::{config::HostName, remote_control::ProjectName};

/// The least by which a session can be extended.
const SHORTEST_EXTENSION: Duration = Duration::from_mins(1);

/// The most by which a session can be extended at a time.
const LONGEST_EXTENSION: Duration = Duration::from_hours(24 * 30);

/// What somebody asks for, by the contract's table of commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Start a session, or get the running one's link.
    Start {
        /// `None`: the only one there is.
        project: Option<ProjectName>,
    },
    /// Start a session that brings back the conversation of the last one.
    Resume {
        /// `None`: the only one there is.
        project: Option<ProjectName>,
    },
    /// End a session.
    Stop {
        /// `None`: the only one there is.
        project: Option<ProjectName>,
    },
    /// Move the end of a session.
    Extend {
        /// `None`: the only one there is.
        project: Option<ProjectName>,
        /// By how much.
        by: Duration,
    },
    /// The last lines that a session printed.
    Logs {
        /// `None`: the only one there is.
        project: Option<ProjectName>,
    },
    /// One line a project.
    Status,
    /// Whether all that a start needs is there.
    Doctor,
    /// The list of commands.
    Help,
}

impl Command {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Resume { .. } => "resume",
            Self::Stop { .. } => "stop",
            Self::Extend { .. } => "extend",
            Self::Logs { .. } => "logs",
            Self::Status => "status",
            Self::Doctor => "doctor",
            Self::Help => "help",
        }
    }
}

/// As it is typed, in one way of several, without the prefix.
impl fmt::Display for Command {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let project = match self {
            Self::Start { project }
            | Self::Resume { project }
            | Self::Stop { project }
            | Self::Logs { project }
            | Self::Extend { project, .. } => project.as_ref(),
            Self::Status | Self::Doctor | Self::Help => None,
        };
        let name = self.name();
        formatter.write_str(name)?;
        if let Some(project) = project {
            write!(formatter, " {project}")?;
        }
        if let Self::Extend { by, .. } = self {
            let by = humantime::format_duration(*by).to_string();
            write!(formatter, " {}", by.replace(' ', ""))?;
        }
        Ok(())
    }
}

/// Why a text that addresses the bot is no command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misuse {
    /// Nothing follows the prefix.
    NoCommand,
    /// No command goes by this name.
    UnknownCommand {
        /// What was typed.
        word: String,
    },
    /// More words than the command takes.
    TooManyWords {
        /// The command's name.
        command: &'static str,
    },
    /// This is no time by which a session can be extended.
    HowLong {
        /// What was typed; empty if nothing was.
        word: String,
    },
    /// No project goes by this name.
    UnknownProject {
        /// What was typed.
        name: String,
        /// The names that exist.
        known: Vec<ProjectName>,
    },
    /// No host goes by this name.
    UnknownHost {
        /// What was typed.
        name: String,
        /// The names that exist.
        known: Vec<HostName>,
    },
    /// Several places may be meant.
    WhichHost {
        /// The command's name.
        command: &'static str,
        /// The places, as `project@host`.
        known: Vec<String>,
    },
    /// No host has a project of this name.
    NowhereKnown {
        /// What was typed.
        name: String,
        /// The places that exist, as `project@host`.
        known: Vec<String>,
    },
    /// There are several projects, and none was named.
    WhichProject {
        /// The command's name.
        command: &'static str,
        /// The names that exist.
        known: Vec<ProjectName>,
    },
}

/// Takes the text of a message for a command. `None`: it does not begin with the prefix as a word of its own, so it is
/// not meant for us.
///
/// Prefix and command may be written in any case, as telephones begin sentences with a capital; names of projects not. Which
/// host is addressed is told by [`addressed_host`].
#[must_use]
pub fn parse(prefix: &str, text: &str) -> Option<Result<Command, Misuse>> {
    let mut words = text.split_whitespace();
    if !words.next()?.eq_ignore_ascii_case(prefix) {
        return None;
    }
    let Some(word) = words.next() else {
        return Some(Err(Misuse::NoCommand));
    };
    let arguments = words.map(|word| without_host(word).0);
    let arguments: Vec<_> = arguments.filter(|word| !word.is_empty()).collect();
    Some(parse_command(word, &arguments))
}

/// The host that a command addresses: what stands behind an `@` in one of its words, as in `!rc start website@build1`.
#[must_use]
pub fn addressed_host(text: &str) -> Option<&str> {
    text.split_whitespace()
        .skip(2)
        .find_map(|word| without_host(word).1)
}

fn without_host(word: &str) -> (&str, Option<&str>) {
    match word.split_once('@') {
        Some((word, host)) => (word, Some(host)),
        None => (word, None),
    }
}

fn parse_command(word: &str, arguments: &[&str]) -> Result<Command, Misuse> {
    match word.to_ascii_lowercase().as_str() {
        "start" => Ok(Command::Start {
            project: optional_project("start", arguments)?,
        }),
        "stop" => Ok(Command::Stop {
            project: optional_project("stop", arguments)?,
        }),
        "resume" => Ok(Command::Resume {
            project: optional_project("resume", arguments)?,
        }),
        "logs" => Ok(Command::Logs {
            project: optional_project("logs", arguments)?,
        }),
        "extend" => parse_extend(arguments),
        "status" => without_arguments("status", arguments, Command::Status),
        "doctor" => without_arguments("doctor", arguments, Command::Doctor),
        "help" => without_arguments("help", arguments, Command::Help),
        _ => Err(Misuse::UnknownCommand {
            word: word.to_owned(),
        }),
    }
}

fn parse_extend(arguments: &[&str]) -> Result<Command, Misuse> {
    let (duration, project) = match arguments {
        [] => {
            return Err(Misuse::HowLong {
                word: String::new(),
            });
        }
        [project @ .., duration] => (duration, project),
    };
    let by = humantime::parse_duration(duration)
        .ok()
        .filter(|by| (SHORTEST_EXTENSION..=LONGEST_EXTENSION).contains(by))
        .ok_or_else(|| Misuse::HowLong {
            word: (*duration).to_owned(),
        })?;
    Ok(Command::Extend {
        project: optional_project("extend", project)?,
        by,
    })
}

fn without_arguments(
    name: &'static str,
    arguments: &[&str],
    command: Command,
) -> Result<Command, Misuse> {
    if arguments.is_empty() {
        Ok(command)
    } else {
        Err(Misuse::TooManyWords { command: name })
    }
}

fn optional_project(
    command: &'static str,
    arguments: &[&str],
) -> Result<Option<ProjectName>, Misuse> {
    match arguments {
        [] => Ok(None),
        [name] => match name.parse() {
            Ok(project) => Ok(Some(project)),
            // What cannot be a name is the name of no project.
            Err(_) => Err(Misuse::UnknownProject {
                name: (*name).to_owned(),
                known: Vec::new(),
            }),
        },
        _ => Err(Misuse::TooManyWords { command }),
    }
}

/// The project that a command means: the one it names, if it exists, else the only one there is.
///
/// # Errors
/// [`Misuse::UnknownProject`] or [`Misuse::WhichProject`].
pub fn choose_project(
    command: &'static str,
    named: Option<&ProjectName>,
    known: &[ProjectName],
) -> Result<ProjectName, Misuse> {
    match (named, known) {
        (Some(name), _) if known.contains(name) => Ok(name.clone()),
        (Some(name), _) => Err(Misuse::UnknownProject {
            name: name.to_string(),
            known: known.to_vec(),
        }),
        (None, [only]) => Ok(only.clone()),
        (None, _) => Err(Misuse::WhichProject {
            command,
            known: known.to_vec(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    mod properties;

    fn name(name: &str) -> ProjectName {
        name.parse().unwrap()
    }

    #[test]
    fn a_text_is_a_command_a_misuse_or_not_for_us() {
        let start = |project: Option<&str>| {
            Some(Ok(Command::Start {
                project: project.map(name),
            }))
        };
        let stop = |project: Option<&str>| {
            Some(Ok(Command::Stop {
                project: project.map(name),
            }))
        };
        let how_long = |word: &str| {
            Some(Err(Misuse::HowLong {
                word: word.to_owned(),
            }))
        };
        let unknown = |word: &str| {
            Some(Err(Misuse::UnknownCommand {
                word: word.to_owned(),
            }))
        };
        for (text, expected) in [
            ("!rc start", start(None)),
            ("  !rc   start\twebsite ", start(Some("website"))),
            ("!RC Start website", start(Some("website"))),
            ("!rc stop", stop(None)),
            ("!rc stop api-2.x", stop(Some("api-2.x"))),
            (
                "!rc extend 2h",
                Some(Ok(Command::Extend {
                    project: None,
                    by: Duration::from_hours(2),
                })),
            ),
            (
                "!rc extend website 90m",
                Some(Ok(Command::Extend {
                    project: Some(name("website")),
                    by: Duration::from_mins(90),
                })),
            ),
            ("!rc extend", how_long("")),
            ("!rc extend website", how_long("website")),
            ("!rc extend 1s", how_long("1s")),
            ("!rc extend 900d", how_long("900d")),
            (
                "!rc extend a b 2h",
                Some(Err(Misuse::TooManyWords { command: "extend" })),
            ),
            ("!rc resume", Some(Ok(Command::Resume { project: None }))),
            (
                "!rc logs website",
                Some(Ok(Command::Logs {
                    project: Some(name("website")),
                })),
            ),
            ("!rc status", Some(Ok(Command::Status))),
            ("!rc doctor", Some(Ok(Command::Doctor))),
            ("!rc help", Some(Ok(Command::Help))),
            ("!rc", Some(Err(Misuse::NoCommand))),
            ("!rc strat", unknown("strat")),
            ("!rc starting", unknown("starting")),
            (
                "!rc start a b",
                Some(Err(Misuse::TooManyWords { command: "start" })),
            ),
            (
                "!rc status now",
                Some(Err(Misuse::TooManyWords { command: "status" })),
            ),
            (
                "!rc start ../etc",
                Some(Err(Misuse::UnknownProject {
                    name: "../etc".to_owned(),
                    known: vec![],
                })),
            ),
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

    #[test]
    fn a_project_may_be_left_out_only_where_there_is_one() {
        let (one, two) = (vec![name("a")], vec![name("a"), name("b")]);
        assert_eq!(choose_project("start", None, &one), Ok(name("a")));
        assert_eq!(
            choose_project("start", Some(&name("b")), &two),
            Ok(name("b"))
        );
        assert_eq!(
            choose_project("start", None, &two),
            Err(Misuse::WhichProject {
                command: "start",
                known: two.clone()
            })
        );
        assert_eq!(
            choose_project("stop", Some(&name("c")), &one),
            Err(Misuse::UnknownProject {
                name: "c".to_owned(),
                known: one.clone()
            })
        );
    }
}
