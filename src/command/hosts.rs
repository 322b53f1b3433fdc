//! Which project a command means, and where several hosts share the admin room, which of their bots answers.
//!
//! Each bot computes the same order of bots, from what all of them announce in the room. What a bot knows beyond its own
//! announcement, such as a new folder, decides nothing here.
//!
//! A host with many projects announces most of them by a digest only. All bots see the same false positives in it: the bot of
//! the only host that seems to have the project answers that there is no such project; if several seem to, one bot asks which.
//! A digest cannot resolve the beginning of a name. So where there is one, a beginning counts for sessions, which are all
//! announced by name, and starts nothing unless the host is named too.

use std::collections::BTreeMap;

use matrix_sdk::ruma::OwnedUserId;

use super::{Command, Misuse, Target, digest::Digest};
use crate::{config::HostName, remote_control::ProjectName};

/// A host as its bot announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) name: HostName,
    pub(crate) bot: OwnedUserId,
    /// Its projects that are known by name, and whether each has a session.
    pub(crate) projects: BTreeMap<ProjectName, bool>,
    /// Its other projects, none of which has a session.
    pub(crate) unnamed: Unnamed,
}

/// Projects of which there is only a digest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Unnamed {
    pub(crate) count: usize,
    pub(crate) digest: Digest,
}

/// Which host a command is for, and which bots may answer it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) addressee: Addressee,
    /// By precedence: each answers if those before it do not run.
    pub(crate) order: Vec<OwnedUserId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Addressee {
    /// This host, whose bot is the first in the order. The others can only say that it does not answer.
    Host(HostName),
    /// All hosts alike: the bot that answers does so for all.
    All,
    /// It is unclear which one is meant: the bot that answers asks.
    Unclear(Misuse),
}

/// Decides who answers. `named` is the host that the command names, if it names one.
pub(crate) fn turn(
    own: &Host,
    others: &[Host],
    command: &Result<Command, Misuse>,
    named: Option<&str>,
) -> Turn {
    let mut all: Vec<_> = others.iter().chain([own]).collect();
    all.sort_unstable_by(|a, b| a.bot.cmp(&b.bot));
    let is_own = named == Some(own.name.as_str());
    let meant = match (named, command) {
        // Even where another host has the same name: it must not take the commands of this one.
        _ if is_own || (named.is_none() && others.is_empty()) => Ok(Some(own)),
        (Some(name), _) => match all.iter().find(|host| host.name.as_str() == name) {
            Some(host) => Ok(Some(*host)),
            None => Err(Misuse::UnknownHost {
                name: name.to_owned(),
                known: all.iter().map(|host| host.name.to_string()).collect(),
            }),
        },
        (None, Ok(command)) if command.verb.target() != Target::Host => {
            choose(command, &all).map(|place| Some(place.host))
        }
        (None, Ok(_) | Err(_)) => Ok(None),
    };
    let mut order: Vec<_> = all.iter().map(|host| host.bot.clone()).collect();
    let addressee = match meant {
        Ok(Some(host)) => {
            order.retain(|bot| *bot != host.bot);
            order.insert(0, host.bot.clone());
            Addressee::Host(host.name.clone())
        }
        Ok(None) => Addressee::All,
        Err(misuse) => Addressee::Unclear(misuse),
    };
    Turn { addressee, order }
}

/// The project of this host that a command names, or the only one that begins so, else the only possible one.
pub(crate) fn choose_project(command: &Command, own: &Host) -> Result<ProjectName, Misuse> {
    choose(command, &[own]).map(|place| place.project)
}

#[derive(Debug, Clone)]
struct Place<'a> {
    host: &'a Host,
    project: ProjectName,
    has_session: bool,
}

fn choose<'a>(command: &Command, hosts: &[&'a Host]) -> Result<Place<'a>, Misuse> {
    // Those that are known by name.
    let of_host = |host: &'a Host| {
        let projects = host.projects.iter();
        projects.map(move |(project, has_session)| Place {
            host,
            project: project.clone(),
            has_session: *has_session,
        })
    };
    let all: Vec<_> = hosts.iter().flat_map(|host| of_host(host)).collect();
    let more = hosts.iter().map(|host| host.unnamed.count).sum();
    let typed = command.project.as_deref();
    let target = command.verb.target();
    let prefers_active = [Target::Session, Target::Output].contains(&target);
    let is_active = |place: &&Place<'_>| prefers_active && place.has_session;
    let candidates = match typed {
        None => all.clone(),
        Some(typed) => by_name(typed, &all, hosts)
            .or_else(|| by_beginning(typed, all.iter().filter(is_active)))
            .or_else(|| by_beginning(typed, all.iter().filter(|_| more == 0)))
            .unwrap_or_default(),
    };
    let active: Vec<_> = candidates.iter().filter(is_active).cloned().collect();
    let has_active = !active.is_empty();
    let meant = if has_active { active } else { candidates };
    let as_typed = |places: &[Place<'_>]| as_typed(places, hosts.len() > 1);
    match (meant.as_slice(), typed) {
        ([one], Some(_)) => Ok(one.clone()),
        ([one], None) if more == 0 || has_active => Ok(one.clone()),
        ([], Some(name)) => Err(Misuse::UnknownProject {
            name: name.to_owned(),
            known: as_typed(&all),
            more,
        }),
        // A session that is over still has its output.
        (_, None) if target == Target::Session && !has_active => Err(Misuse::NothingRuns),
        (several, _) => Err(Misuse::Ambiguous {
            command: command.verb.name(),
            known: as_typed(several),
            more: if typed.is_none() && !has_active {
                more
            } else {
                0
            },
        }),
    }
}

/// Those of exactly this name, also by a digest.
fn by_name<'a>(typed: &str, all: &[Place<'a>], hosts: &[&'a Host]) -> Option<Vec<Place<'a>>> {
    let by_name = all.iter().filter(|place| place.project.as_str() == typed);
    let mut places: Vec<_> = by_name.cloned().collect();
    if let Ok(project) = typed.parse::<ProjectName>() {
        let unnamed = hosts.iter().filter(|host| {
            host.unnamed.digest.may_hold(typed) && !host.projects.contains_key(&project)
        });
        places.extend(unnamed.map(|host| Place {
            host,
            project: project.clone(),
            has_session: false,
        }));
    }
    Some(places).filter(|places| !places.is_empty())
}

/// Those whose names begin so, in any case, as phones begin words with a capital.
fn by_beginning<'p, 'a: 'p>(
    typed: &str,
    places: impl Iterator<Item = &'p Place<'a>>,
) -> Option<Vec<Place<'a>>> {
    let begins = |place: &&Place<'_>| {
        let beginning = place.project.as_str().get(..typed.len());
        beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(typed))
    };
    let places: Vec<_> = places.filter(begins).cloned().collect();
    Some(places).filter(|places| !places.is_empty())
}

/// As people address them, by their hosts too where there are several.
fn as_typed(places: &[Place<'_>], with_hosts: bool) -> Vec<String> {
    let names = places.iter().map(|place| {
        if with_hosts {
            format!("{}@{}", place.project, place.host.name)
        } else {
            place.project.to_string()
        }
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
            unnamed: Unnamed::default(),
        }
    }

    /// A host that announces these projects by a digest besides.
    fn with_unnamed(host: Host, names: &str) -> Host {
        let names: Vec<ProjectName> = names
            .split_whitespace()
            .map(|it| it.parse().unwrap())
            .collect();
        let digest = Digest::of(&names.iter().collect());
        let count = names.len();
        Host {
            unnamed: Unnamed { count, digest },
            ..host
        }
    }

    /// The host of the first bot, and which host the command is for. All bots compute the same order.
    #[track_caller]
    fn answers(all: &[Host], text: &str) -> (String, Addressee) {
        let command = crate::command::parse("!rc", text).unwrap();
        let named = crate::command::addressed_host(text);
        let turns = all.iter().enumerate().map(|(number, own)| {
            let mut others = all.to_vec();
            others.remove(number);
            turn(own, &others, &command, named)
        });
        let mut turns: Vec<_> = turns.collect();
        turns.dedup();
        let [Turn { addressee, order }] = turns.as_slice() else {
            panic!("{text}: {turns:?}");
        };
        let mut bots = order.clone();
        bots.sort_unstable();
        bots.dedup();
        assert_eq!(bots.len(), all.len(), "{text}: {order:?}");
        let first = all.iter().find(|host| host.bot == order[0]).unwrap();
        (first.name.to_string(), addressee.clone())
    }

    fn chosen(own: &Host, text: &str) -> Result<String, Misuse> {
        let command = crate::command::parse("!rc", text).unwrap().unwrap();
        choose_project(&command, own).map(|project| project.to_string())
    }

    fn ambiguous(command: &'static str, known: &[&str]) -> Misuse {
        Misuse::Ambiguous {
            command,
            known: known.iter().map(|it| (*it).to_owned()).collect(),
            more: 0,
        }
    }

    fn unknown(name: &str, known: &[&str]) -> Misuse {
        Misuse::UnknownProject {
            name: name.to_owned(),
            known: known.iter().map(|it| (*it).to_owned()).collect(),
            more: 0,
        }
    }

    fn for_host(name: &str) -> (String, Addressee) {
        (name.to_owned(), Addressee::Host(name.parse().unwrap()))
    }

    fn park() -> Vec<Host> {
        vec![
            host("laptop", "notes"),
            host("build1", "website* api"),
            host("build2", "website api*"),
        ]
    }

    /// Hosts of which some have many projects; `wiki` is on two of them.
    fn large_park() -> Vec<Host> {
        vec![
            with_unnamed(host("laptop", "notes"), "blog wiki"),
            with_unnamed(host("build1", "website* api"), "wiki tools"),
            host("build2", "website api*"),
        ]
    }

    fn everything(name: &str) -> Host {
        let unnamed = Unnamed {
            count: 5_000,
            digest: Digest::from_bytes(&[0xff; 1_024]),
        };
        Host {
            unnamed,
            ..host(name, "")
        }
    }

    #[test]
    fn a_host_that_announces_only_a_digest_is_found_by_the_names_in_it() {
        for (text, answering) in [
            ("!rc start blog", "laptop"),
            ("!rc resume tools", "build1"),
            ("!rc start wiki@laptop", "laptop"),
            ("!rc start notes", "laptop"),
            // Sessions are all announced by name.
            ("!rc stop w", "build1"),
            ("!rc stop a", "build2"),
            ("!rc start b@laptop", "laptop"),
        ] {
            assert_eq!(answers(&large_park(), text), for_host(answering), "{text}");
        }
        let asks = |text: &str| match answers(&large_park(), text) {
            (_, Addressee::Unclear(misuse)) => misuse,
            other => panic!("{text}: {other:?}"),
        };
        let both = ambiguous("start", &["wiki@build1", "wiki@laptop"]);
        assert_eq!(asks("!rc start wiki"), both);
        // Whether another host has a project that begins so is not known.
        for text in ["!rc start n", "!rc start bl", "!rc start nothing"] {
            assert!(
                matches!(asks(text), Misuse::UnknownProject { more: 4, .. }),
                "{text}"
            );
        }
        assert!(matches!(
            asks("!rc start"),
            Misuse::Ambiguous { more: 4, .. }
        ));
    }

    #[test]
    fn a_unique_beginning_of_a_name_is_as_good_as_the_name() {
        let own = host("h", "api api-2 web* website wiki* notes");
        for (text, project) in [
            ("!rc start n", "notes"),
            ("!rc start Not", "notes"),
            ("!rc start webs", "website"),
            // A whole name is that project's, whatever else begins so.
            ("!rc start web", "web"),
            ("!rc start api", "api"),
            ("!rc stop we", "web"),
            ("!rc extend wi 2h", "wiki"),
            ("!rc logs n", "notes"),
        ] {
            assert_eq!(chosen(&own, text), Ok(project.to_owned()), "{text}");
        }
        for (text, meant) in [
            (
                "!rc start w",
                ambiguous("start", &["web", "website", "wiki"]),
            ),
            ("!rc start ap", ambiguous("start", &["api", "api-2"])),
            ("!rc stop w", ambiguous("stop", &["web", "wiki"])),
        ] {
            assert_eq!(chosen(&own, text), Err(meant), "{text}");
        }
        assert!(matches!(
            chosen(&own, "!rc start ebsite"),
            Err(Misuse::UnknownProject { .. })
        ));
    }

    #[test]
    fn another_host_of_the_same_name_takes_no_commands_from_a_bot() {
        let mut impostor = host("build1", "website");
        impostor.bot = "@a:example.org".try_into().unwrap();
        let command = crate::command::parse("!rc", "!rc stop website@build1").unwrap();
        let own = &park()[1];
        let turn = turn(own, &[impostor], &command, Some("build1"));
        assert_eq!(turn.order.first(), Some(&own.bot));
    }

    #[test]
    fn all_bots_agree_on_one_order_whatever_is_said() {
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
            "!rc projects",
            "!rc projects web",
            "!rc projects @build2",
            "!rc start w",
            "!rc start blog",
            "!rc start wiki",
            "!rc start wi",
            "!rc start wi@laptop",
            "!rc stop w",
            "!rc stop wiki",
            "!rc logs a",
        ];
        for all in [
            park(),
            large_park(),
            // All of whose bits are set: every name seems to be there.
            vec![
                everything("laptop"),
                everything("build1"),
                host("build2", "website"),
            ],
            park()[..1].to_vec(),
            vec![host("a", ""), host("b", "")],
        ] {
            for text in texts {
                answers(&all, text);
            }
        }
    }

    #[test]
    fn a_single_host_answers_as_if_hosts_had_no_names() {
        let single = &park()[2..];
        for text in ["!rc start nothing", "!rc start", "!rc stop website", "!rc"] {
            assert_eq!(answers(single, text), for_host("build2"), "{text}");
        }
    }

    #[test]
    fn a_command_goes_to_the_host_that_it_names_or_to_the_only_possible_one() {
        for (text, answering) in [
            ("!rc start website@build2", "build2"),
            ("!rc start @laptop", "laptop"),
            ("!rc start notes", "laptop"),
            ("!rc stop website", "build1"),
            ("!rc stop api", "build2"),
            ("!rc status @build2", "build2"),
            ("!rc doctor @laptop", "laptop"),
        ] {
            assert_eq!(answers(&park(), text), for_host(answering), "{text}");
        }
    }

    #[test]
    fn a_project_may_be_left_out_only_where_one_is_possible() {
        let (one, two) = (host("h", "a"), host("h", "a* b"));
        for (own, text, project) in [
            (&one, "!rc start", "a"),
            (&two, "!rc start b", "b"),
            (&two, "!rc stop", "a"),
            (&two, "!rc stop b", "b"),
        ] {
            assert_eq!(chosen(own, text), Ok(project.to_owned()), "{text}");
        }
        let both = |command| Err(ambiguous(command, &["a", "b"]));
        assert_eq!(chosen(&two, "!rc start"), both("start"));
        let idle = host("h", "a b");
        assert_eq!(chosen(&idle, "!rc logs"), both("logs"));
        for text in ["!rc stop", "!rc extend 2h"] {
            assert_eq!(chosen(&idle, text), Err(Misuse::NothingRuns), "{text}");
        }
        let unknown = unknown("../c", &["a"]);
        assert_eq!(chosen(&one, "!rc stop ../c"), Err(unknown));
    }

    #[test]
    fn one_bot_asks_which_of_several_is_meant() {
        let website = ambiguous("start", &["website@build1", "website@build2"]);
        let running = ambiguous("stop", &["api@build2", "website@build1"]);
        let all = "api@build1 api@build2 notes@laptop website@build1 website@build2";
        let all: Vec<_> = all.split(' ').collect();
        for (text, misuse) in [
            ("!rc start website", website),
            ("!rc stop", running),
            ("!rc start nothing", unknown("nothing", &all)),
        ] {
            let question = ("build1".to_owned(), Addressee::Unclear(misuse));
            assert_eq!(answers(&park(), text), question, "{text}");
        }
    }
}
