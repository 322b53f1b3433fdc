//! Which project a command means, and where several hosts share the admin room, which of their bots answers.
//!
//! Each bot comes to the same answer by itself, from what all of them announce in the room: so exactly one answers.

use std::collections::BTreeMap;

use matrix_sdk::ruma::OwnedUserId;

use super::{Command, Misuse, Target};
use crate::{config::HostName, remote_control::ProjectName};

/// A host as its bot announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) name: HostName,
    pub(crate) bot: OwnedUserId,
    /// Its projects, and whether each has a session.
    pub(crate) projects: BTreeMap<ProjectName, bool>,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    /// This bot.
    Mine,
    /// Another one.
    Others,
    /// This bot, for all of them: it cannot be told which one is meant.
    MineToAsk(Misuse),
}

/// Decides who answers. `named` is the host that the command names, if it names one.
pub(crate) fn turn(
    own: &Host,
    others: &[Host],
    command: &Result<Command, Misuse>,
    named: Option<&str>,
) -> Turn {
    let is_own = named == Some(own.name.as_str());
    if is_own || (named.is_none() && others.is_empty()) {
        // Whoever else calls a host so: nobody keeps this one from its own commands.
        return Turn::Mine;
    }
    let mut all: Vec<_> = others.iter().chain([own]).collect();
    all.sort_unstable_by(|a, b| a.bot.cmp(&b.bot));
    let speaks_for_all = all.first().copied();
    let answers = match (named, command) {
        (Some(name), _) => match all.iter().find(|host| host.name.as_str() == name) {
            Some(host) => Ok(Some(*host)),
            None => Err(Misuse::UnknownHost {
                name: name.to_owned(),
                known: all.iter().map(|host| host.name.to_string()).collect(),
            }),
        },
        (None, Ok(command)) if command.verb.target() != Target::Host => {
            let places = all.iter().flat_map(|host| places(host, Some(host)));
            choose(command, &places.collect::<Vec<_>>()).map(|place| place.host)
        }
        (None, Ok(_) | Err(_)) => Ok(speaks_for_all),
    };
    match answers {
        Ok(host) if host == Some(own) => Turn::Mine,
        Err(misuse) if speaks_for_all == Some(own) => Turn::MineToAsk(misuse),
        Ok(_) | Err(_) => Turn::Others,
    }
}

/// The project of this host that a command means: the one that it names, else the only one that can be meant.
///
/// # Errors
/// [`Misuse::UnknownProject`], [`Misuse::NothingRuns`] or [`Misuse::Ambiguous`].
pub(crate) fn choose_project(command: &Command, own: &Host) -> Result<ProjectName, Misuse> {
    let places: Vec<_> = places(own, None).collect();
    choose(command, &places).map(|place| place.project.clone())
}

/// A project, and on which host it is where that matters.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    host: Option<&'a Host>,
    project: &'a ProjectName,
    has_session: bool,
}

fn places<'a>(of: &'a Host, host: Option<&'a Host>) -> impl Iterator<Item = Place<'a>> {
    of.projects.iter().map(move |(project, has_session)| Place {
        host,
        project,
        has_session: *has_session,
    })
}

fn choose<'a>(command: &Command, all: &[Place<'a>]) -> Result<Place<'a>, Misuse> {
    let typed = command.project.as_deref();
    let named = all
        .iter()
        .filter(|place| typed.is_none_or(|name| name == place.project.as_str()));
    let prefers_active = command.verb.target() == Target::Session;
    let active = named
        .clone()
        .filter(|place| prefers_active && place.has_session);
    let meant: Vec<_> = if active.clone().next().is_some() {
        active.clone().copied().collect()
    } else {
        named.copied().collect()
    };
    match (meant.as_slice(), typed) {
        ([one], _) => Ok(*one),
        ([], Some(name)) => Err(Misuse::UnknownProject {
            name: name.to_owned(),
            known: as_typed(all),
        }),
        // A session that is over still has its output.
        (_, None) if command.verb.needs_session() && active.clone().next().is_none() => {
            Err(Misuse::NothingRuns)
        }
        (several, _) => Err(Misuse::Ambiguous {
            command: command.verb.name(),
            known: as_typed(several),
        }),
    }
}

/// As people address them.
fn as_typed(places: &[Place<'_>]) -> Vec<String> {
    let names = places.iter().map(|place| match place.host {
        Some(host) => format!("{}@{}", place.project, host.name),
        None => place.project.to_string(),
    });
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
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
    fn a_project_may_be_left_out_only_where_one_alone_can_be_meant() {
        let chosen = |own: &Host, text: &str| {
            let command = crate::command::parse("!rc", text).unwrap().unwrap();
            choose_project(&command, own).map(|project| project.to_string())
        };
        let (one, two) = (host("h", "a"), host("h", "a* b"));
        for (own, text, project) in [
            (&one, "!rc start", "a"),
            (&two, "!rc start b", "b"),
            (&two, "!rc stop", "a"),
            (&two, "!rc stop b", "b"),
        ] {
            assert_eq!(chosen(own, text), Ok(project.to_owned()), "{text}");
        }
        let known = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let ambiguous = |command, names: &[&str]| {
            let known = known(names);
            Err(Misuse::Ambiguous { command, known })
        };
        assert_eq!(chosen(&two, "!rc start"), ambiguous("start", &["a", "b"]));
        let idle = host("h", "a b");
        assert_eq!(chosen(&idle, "!rc logs"), ambiguous("logs", &["a", "b"]));
        for text in ["!rc stop", "!rc extend 2h"] {
            assert_eq!(chosen(&idle, text), Err(Misuse::NothingRuns), "{text}");
        }
        let unknown = Misuse::UnknownProject {
            name: "../c".to_owned(),
            known: known(&["a"]),
        };
        assert_eq!(chosen(&one, "!rc stop ../c"), Err(unknown));
    }

    #[test]
    fn where_several_may_be_meant_one_bot_asks_which() {
        let which = |command, known: &[&str]| {
            let known = known.iter().map(|place| (*place).to_owned()).collect();
            Turn::MineToAsk(Misuse::Ambiguous { command, known })
        };
        for (text, question) in [
            (
                "!rc start website",
                which("start", &["website@build1", "website@build2"]),
            ),
            ("!rc stop", which("stop", &["api@build2", "website@build1"])),
            (
                "!rc start nothing",
                Turn::MineToAsk(Misuse::UnknownProject {
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
