//! Several hosts, one admin room: which of the bots there answers a command.
//!
//! Each bot comes to the same answer by itself, from what all of them announce in the room: so exactly one answers.

use std::collections::BTreeMap;

use matrix_sdk::ruma::OwnedUserId;

use super::{Command, Misuse};
use crate::{config::HostName, remote_control::ProjectName};

/// A host as its bot announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// What people call it.
    pub name: HostName,
    /// Its bot.
    pub bot: OwnedUserId,
    /// Its projects, and whether each has a session.
    pub projects: BTreeMap<ProjectName, bool>,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// This bot.
    Mine,
    /// Another one.
    Others,
    /// This bot, for all of them: it cannot be told which one is meant.
    MineToAsk(Misuse),
}

/// Decides who answers. `named` is the host that the command names, if it names one.
#[must_use]
pub fn turn(
    own: &Host,
    others: &[Host],
    command: &Result<Command, Misuse>,
    named: Option<&str>,
) -> Turn {
    let mut all: Vec<_> = others.iter().chain([own]).collect();
    all.sort_unstable_by(|a, b| a.bot.cmp(&b.bot));
    let speaks_for_all = all.first().is_some_and(|first| first.bot == own.bot);
    let ask = |misuse| {
        if speaks_for_all {
            Turn::MineToAsk(misuse)
        } else {
            Turn::Others
        }
    };
    let of = |host: &Host| {
        if host.bot == own.bot {
            Turn::Mine
        } else {
            Turn::Others
        }
    };
    if named == Some(own.name.as_str()) {
        // Whoever else calls a host so: nobody keeps this one from its own commands.
        return Turn::Mine;
    }
    if let Some(name) = named {
        return match all.iter().find(|host| host.name.as_str() == name) {
            Some(host) => of(host),
            None => ask(Misuse::UnknownHost {
                name: name.to_owned(),
                known: all.iter().map(|host| host.name.clone()).collect(),
            }),
        };
    }
    if others.is_empty() {
        return Turn::Mine;
    }
    let Some((command, project)) = command.as_ref().ok().and_then(at_a_project) else {
        return if speaks_for_all {
            Turn::Mine
        } else {
            Turn::Others
        };
    };
    match candidates(&all, command, project).as_slice() {
        [] => ask(no_candidate(&all, command, project)),
        [(host, _)] => of(host),
        several => ask(Misuse::WhichHost {
            command: command.name(),
            known: places(several),
        }),
    }
}

/// The command, and the project that it names, if it is about one.
fn at_a_project(command: &Command) -> Option<(&Command, Option<&ProjectName>)> {
    match command {
        Command::Start { project }
        | Command::Resume { project }
        | Command::Stop { project }
        | Command::Logs { project }
        | Command::Extend { project, .. } => Some((command, project.as_ref())),
        Command::Status | Command::Doctor | Command::Help => None,
    }
}

/// The places that may be meant; of those for an existing session, the ones that have one, if any has.
fn candidates<'a>(
    all: &[&'a Host],
    command: &Command,
    project: Option<&ProjectName>,
) -> Vec<(&'a Host, &'a ProjectName)> {
    let places = || {
        all.iter().flat_map(|host| {
            let projects = host.projects.iter();
            projects.map(move |(name, active)| (*host, name, *active))
        })
    };
    let named = places().filter(|(_, name, _)| project.is_none_or(|project| project == *name));
    let active: Vec<_> = named.clone().filter(|(_, _, active)| *active).collect();
    let chosen: Vec<_> = match command {
        Command::Start { .. } | Command::Resume { .. } => named.collect(),
        Command::Stop { .. }
        | Command::Logs { .. }
        | Command::Extend { .. }
        | Command::Status
        | Command::Doctor
        | Command::Help => {
            if active.is_empty() {
                named.collect()
            } else {
                active
            }
        }
    };
    chosen
        .into_iter()
        .map(|(host, name, _)| (host, name))
        .collect()
}

fn no_candidate(all: &[&Host], command: &Command, project: Option<&ProjectName>) -> Misuse {
    let everywhere: Vec<_> = all
        .iter()
        .flat_map(|host| host.projects.keys().map(|name| (*host, name)))
        .collect();
    let known = places(&everywhere);
    match project {
        Some(project) => Misuse::NowhereKnown {
            name: project.to_string(),
            known,
        },
        None => Misuse::WhichHost {
            command: command.name(),
            known,
        },
    }
}

/// As people address them.
fn places(at: &[(&Host, &ProjectName)]) -> Vec<String> {
    let places = at
        .iter()
        .map(|(host, project)| format!("{project}@{}", host.name));
    let mut places: Vec<_> = places.collect();
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with these projects; a `*` marks one that has a session.
    fn host(name: &str, projects: &str) -> Host {
        let projects = projects.split_whitespace().map(|project| {
            let name = project.trim_end_matches('*');
            (name.parse().unwrap(), name.len() < project.len())
        });
        Host {
            name: name.parse().unwrap(),
            bot: OwnedUserId::try_from(format!("@rcbot-{name}:example.org")).unwrap(),
            projects: projects.collect(),
        }
    }

    /// Who of all hosts answers, and with what question.
    fn answers(all: &[Host], text: &str) -> Vec<(String, Turn)> {
        let command = crate::command::parse("!rc", text).unwrap();
        let named = crate::command::addressed_host(text);
        let turns = all.iter().enumerate().map(|(number, own)| {
            let mut others = all.to_vec();
            others.remove(number);
            (own.name.to_string(), turn(own, &others, &command, named))
        });
        turns.filter(|(_, turn)| *turn != Turn::Others).collect()
    }

    fn park() -> Vec<Host> {
        vec![
            host("laptop", "notes"),
            host("build1", "website* api"),
            host("build2", "website api*"),
        ]
    }

    #[test]
    fn nobody_keeps_a_bot_from_the_commands_that_name_its_host_by_announcing_another_so() {
        let mut impostor = host("build1", "website");
        impostor.bot = "@a:example.org".try_into().unwrap();
        let command = crate::command::parse("!rc", "!rc stop website@build1").unwrap();
        let turn = turn(&park()[1], &[impostor], &command, Some("build1"));
        assert_eq!(turn, Turn::Mine);
    }

    #[test]
    fn exactly_one_bot_answers_whatever_is_said() {
        let texts = [
            "!rc",
            "!rc help",
            "!rc status",
            "!rc nonsense",
            "!rc start",
            "!rc start website",
            "!rc start notes",
            "!rc start website@build1",
            "!rc start @build2",
            "!rc start website@nowhere",
            "!rc start nothing",
            "!rc stop",
            "!rc stop website",
            "!rc extend api 2h",
            "!rc logs",
            "!rc status @build2",
            "!rc doctor",
            "!rc doctor @build2",
        ];
        for all in [
            park(),
            park()[..1].to_vec(),
            vec![host("a", ""), host("b", "")],
        ] {
            for text in texts {
                assert_eq!(answers(&all, text).len(), 1, "{text}: {all:?}");
            }
        }
    }

    #[test]
    fn a_host_alone_answers_as_if_hosts_had_no_names() {
        let alone = &park()[2..];
        for text in ["!rc start nothing", "!rc start", "!rc stop website", "!rc"] {
            let mine = ("build2".to_owned(), Turn::Mine);
            assert_eq!(answers(alone, text), [mine], "{text}");
        }
    }

    #[test]
    fn a_command_goes_to_the_host_that_it_names_or_that_alone_can_be_meant() {
        for (text, answering) in [
            ("!rc start website@build2", "build2"),
            ("!rc start @laptop", "laptop"),
            ("!rc start notes", "laptop"),
            ("!rc stop website", "build1"),
            ("!rc stop api", "build2"),
            ("!rc status @build2", "build2"),
            ("!rc doctor @laptop", "laptop"),
        ] {
            assert_eq!(
                answers(&park(), text),
                [(answering.to_owned(), Turn::Mine)],
                "{text}"
            );
        }
    }

    #[test]
    fn where_several_may_be_meant_one_bot_asks_which() {
        let which = |command, known: &[&str]| {
            let known = known.iter().map(|place| (*place).to_owned()).collect();
            Turn::MineToAsk(Misuse::WhichHost { command, known })
        };
        for (text, question) in [
            (
                "!rc start website",
                which("start", &["website@build1", "website@build2"]),
            ),
            ("!rc stop", which("stop", &["api@build2", "website@build1"])),
            (
                "!rc start nothing",
                Turn::MineToAsk(Misuse::NowhereKnown {
                    name: "nothing".to_owned(),
                    known: [
                        "api@build1",
                        "api@build2",
                        "notes@laptop",
                        "website@build1",
                        "website@build2",
                    ]
                    .map(str::to_owned)
                    .to_vec(),
                }),
            ),
        ] {
            assert_eq!(
                answers(&park(), text),
                [("build1".to_owned(), question)],
                "{text}"
            );
        }
    }
}
