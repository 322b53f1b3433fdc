//! What runs on several hosts, and what can be started there: of this one as it is, of the others as they announce themselves.
//!
//! However many there are, the answer can be read on a phone: what runs comes first and whole, the rest is counted.

use std::time::{Duration, SystemTime};

use matrix_sdk::ruma::OwnedUserId;

use super::{
    MOST_LISTED, Mark, Reply, counted, listed, listed_with, moment, phase, session_reply, unmarked,
    with_begin,
};
use crate::{
    config::HostName,
    matrix::{AnnouncedSession, Announcement},
    remote_control::{Phase, ProjectName, SessionStatus, Status, Usages},
};

/// How many hosts without a session get a line each. If there are more, they share one.
const MOST_IDLE_HOSTS: usize = 5;

/// How many names the line of projects without a session has.
const MOST_IDLE: usize = 8;

#[derive(Debug, Clone)]
pub(crate) struct OtherHost {
    pub(crate) bot: OwnedUserId,
    pub(crate) announcement: Announcement,
    /// Its bot was asked whether it runs, and did not answer.
    pub(crate) is_silent: bool,
}

/// One host in an overview.
struct Section {
    host: String,
    is_silent: bool,
    /// A line for each session.
    sessions: Vec<Reply>,
    /// Projects without a session, and how many there are besides.
    idle: Vec<String>,
    more_idle: usize,
}

pub(crate) fn status_of_hosts(
    host: &HostName,
    statuses: &[Status],
    usage: &Usages,
    others: &[OtherHost],
    prefix: &str,
    now: SystemTime,
) -> Reply {
    let own = Section::own(host, statuses, usage, now);
    let others = others.iter().map(|other| Section::announced(other, now));
    let mut all: Vec<_> = others.chain([own]).collect();
    all.sort_by(|a, b| a.host.cmp(&b.host));
    let (busy, idle): (Vec<_>, Vec<_>) = all.into_iter().partition(|it| !it.sessions.is_empty());
    let (silent, idle): (Vec<_>, Vec<_>) = idle.into_iter().partition(|it| it.is_silent);
    let mut paragraphs = Vec::new();
    let (mut lines, mut left_out) = (0, Vec::new());
    for section in busy {
        if lines > 0 && lines + section.sessions.len() > MOST_LISTED {
            left_out.push(section.host);
            continue;
        }
        lines += section.sessions.len();
        paragraphs.push(section.reply());
    }
    if !left_out.is_empty() {
        paragraphs.push(Reply::new(format!(
            "{} more with sessions: {}. `{prefix} status @HOST` shows one of them.",
            hosts(left_out.len()),
            listed(&left_out)
        )));
    }
    paragraphs.extend(without_session(&idle));
    paragraphs.extend(not_answering(&silent));
    Reply::paragraphs(paragraphs)
}

impl Section {
    fn own(host: &HostName, statuses: &[Status], usage: &Usages, now: SystemTime) -> Self {
        let (running, idle): (Vec<_>, Vec<_>) =
            statuses.iter().partition(|status| status.session.is_some());
        let sessions = running
            .iter()
            .map(|status| session_reply(status, usage, now));
        Self {
            host: host.to_string(),
            is_silent: false,
            sessions: sessions.collect(),
            idle: idle.iter().map(|it| it.project.to_string()).collect(),
            more_idle: 0,
        }
    }

    /// All of it comes from another bot.
    fn announced(other: &OtherHost, now: SystemTime) -> Self {
        let announced = &other.announcement;
        let (mut sessions, mut idle) = (Vec::new(), Vec::new());
        for (name, project) in &announced.projects {
            let Ok(name) = name.parse::<ProjectName>() else {
                continue;
            };
            match &project.session {
                Some(session) => sessions.push(announced_session(&name, session, now)),
                None => idle.push(name.to_string()),
            }
        }
        if announced.more_sessions > 0 {
            let more = format!("and {} more with a session", announced.more_sessions);
            sessions.push(Reply::new(more));
        }
        Self {
            host: unmarked(&announced.host),
            is_silent: other.is_silent,
            sessions,
            idle,
            more_idle: announced.unnamed.as_ref().map_or(0, |it| it.count),
        }
    }

    fn reply(self) -> Reply {
        let head = if self.is_silent {
            let said = "does not answer. When its bot last ran:";
            Reply::marked(Mark::Failed, format!("**{}** {said}", self.host))
        } else {
            Reply::new(format!("**{}**:", self.host))
        };
        let idle = (self.idle.len() + self.more_idle > 0).then(|| {
            let idle = self.idle_projects();
            Reply::marked(Mark::Idle, format!("no session: {idle}"))
        });
        let lines = [head].into_iter().chain(self.sessions);
        Reply::lines(lines.chain(idle))
    }

    fn idle_projects(&self) -> String {
        let shown = self.idle.get(..MOST_IDLE).unwrap_or(&self.idle);
        listed_with(shown, self.more_idle + self.idle.len() - shown.len())
    }
}

fn announced_session(project: &ProjectName, session: &AnnouncedSession, now: SystemTime) -> Reply {
    let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(session.since));
    let since = since.filter(|since| *since <= now).unwrap_or(now);
    let mark = if session.phase == phase(Phase::Running) {
        Mark::Running
    } else {
        Mark::Busy
    };
    let phase = unmarked(&session.phase);
    let begun = with_begin(&phase, &moment(since, now));
    Reply::marked(mark, format!("**{project}**: {begun}"))
}

fn without_session(idle: &[Section]) -> Vec<Reply> {
    if idle.len() > MOST_IDLE_HOSTS {
        let text = format!("{} without a session: {}", hosts(idle.len()), names(idle));
        return vec![Reply::marked(Mark::Idle, text)];
    }
    let each = idle.iter().map(|section| {
        let (host, projects) = (&section.host, section.idle_projects());
        Reply::marked(Mark::Idle, format!("**{host}**: no session: {projects}"))
    });
    each.collect()
}

fn not_answering(silent: &[Section]) -> Option<Reply> {
    let do_not = match silent.len() {
        0 => return None,
        1 => "does not answer",
        _ => "do not answer",
    };
    let text = format!("{} {do_not}: {}", hosts(silent.len()), names(silent));
    Some(Reply::marked(Mark::Failed, text))
}

fn names(sections: &[Section]) -> String {
    let names = sections.iter().map(|section| section.host.clone());
    listed(&names.collect::<Vec<_>>())
}

fn hosts(count: usize) -> String {
    counted(count, "host", "hosts")
}

/// What can be started on this host, and on others by what they announce.
pub(crate) fn projects_of_hosts(
    host: &HostName,
    own: Reply,
    others: &[OtherHost],
    prefix: &str,
) -> Reply {
    let most = (MOST_LISTED / others.len().max(1)).max(1);
    let others = others.iter().map(|OtherHost { announcement, .. }| {
        let projects = announced_projects(announcement, prefix, most);
        (unmarked(&announcement.host), projects)
    });
    let mut all: Vec<_> = others.chain([(host.to_string(), own)]).collect();
    all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let sections = all
        .into_iter()
        .map(|(name, projects)| Reply::lines([Reply::new(format!("**{name}**:")), projects]));
    Reply::paragraphs(sections)
}

fn announced_projects(host: &Announcement, prefix: &str, most: usize) -> Reply {
    // It comes from another bot, so invalid names are dropped.
    let names = host.projects.keys();
    let names = names.filter(|name| name.parse::<ProjectName>().is_ok());
    let names: Vec<_> = names.cloned().collect();
    let shown = names.get(..most).unwrap_or(&names);
    let unnamed = host.unnamed.as_ref().map_or(0, |unnamed| unnamed.count);
    let left_out = unnamed + names.len() - shown.len();
    let more = match left_out {
        0 => String::new(),
        _ => format!("; `{prefix} projects @{}` lists all", unmarked(&host.host)),
    };
    Reply::new(format!("{}{more}", listed_with(shown, left_out)))
}

/// The phase of a session, as announced to other hosts.
pub(crate) fn announced_phase(session: &SessionStatus) -> String {
    let cut_off = if session.is_cut_off { " (cut off)" } else { "" };
    format!("{}{cut_off}", phase(session.phase))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::AnnouncedProject;

    /// A host; a `*` marks the projects that have a session, a `!` before its name one that is silent.
    fn other(name: &str, projects: &str) -> OtherHost {
        let since = 1_790_000_000;
        let projects = projects.split_whitespace().map(|project| {
            let name = project.trim_end_matches('*');
            let session = (name.len() < project.len()).then(|| AnnouncedSession {
                phase: "running".to_owned(),
                since,
            });
            (name.to_owned(), AnnouncedProject { session })
        });
        OtherHost {
            bot: OwnedUserId::try_from("@rcbot:example.org").unwrap(),
            announcement: Announcement {
                host: name.trim_start_matches('!').to_owned(),
                projects: projects.collect(),
                more_sessions: 0,
                unnamed: None,
            },
            is_silent: name.starts_with('!'),
        }
    }

    fn status(others: &[OtherHost]) -> Reply {
        let project = "website".parse().unwrap();
        let own = Status {
            project,
            session: None,
        };
        let host = "build0".parse().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_101);
        status_of_hosts(&host, &[own], &Usages::new(), others, "!rc", now)
    }

    #[test]
    fn few_hosts_are_all_shown_and_sessions_come_first() {
        let others = [
            other("alpha", "notes"),
            other("build1", "api website*"),
            other("!build2", "wiki*"),
            other("!laptop", "notes"),
        ];
        let expected = "build1:\nwebsite: running since 14:13 UTC\nno session: `api`\n\n\
                        build2 does not answer. When its bot last ran:\nwiki: running since 14:13 UTC\n\n\
                        alpha: no session: `notes`\n\n\
                        build0: no session: `website`\n\n\
                        1 host does not answer: `laptop`";
        assert_eq!(status(&others).plain, expected);
    }

    #[test]
    fn the_overview_of_fifty_hosts_fits_on_a_phone_and_has_all_that_run() {
        let number = |number: usize| other(&format!("host{number:02}"), "website api notes");
        let mut others: Vec<_> = (1..47).map(number).collect();
        others.push(other("!host47", "website"));
        others.push(other("host48", "website* api"));
        let Reply { plain, .. } = status(&others);
        let lines: Vec<_> = plain.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines[..2], ["host48:", "website: running since 14:13 UTC"]);
        assert!(lines[3].starts_with("47 hosts without a session: `build0`, `host01`"));
        assert!(lines[3].ends_with("and 7 more"), "{}", lines[3]);
        assert_eq!(lines[4], "1 host does not answer: `host47`");
        assert_eq!(lines.len(), 5);
        assert!(plain.len() < 1_000);

        let busy = |number: usize| other(&format!("host{number:02}"), "website* api* notes*");
        let Reply { plain, .. } = status(&(0..50).map(busy).collect::<Vec<_>>());
        assert_eq!(plain.matches("running since").count(), 39);
        let rest = "37 hosts more with sessions: `host13`, `host14`";
        assert!(plain.contains(rest), "{plain}");
        assert!(plain.contains("1 host without") || plain.contains("build0: no session"));
    }

    #[test]
    fn the_projects_of_fifty_hosts_fit_on_a_phone_too() {
        let names: Vec<_> = (0..100).map(|number| format!("project-{number}")).collect();
        let hosts = (0..49).map(|number| other(&format!("host{number:02}"), &names.join(" ")));
        let host = "build0".parse().unwrap();
        let own = Reply::new("website");
        let reply = projects_of_hosts(&host, own, &hosts.collect::<Vec<_>>(), "!rc");
        assert!(reply.plain.len() < 6_000, "{}", reply.plain.len());
        assert!(
            reply
                .plain
                .contains("`project-0`, and 99 more; `!rc projects @host07` lists all")
        );
    }
}
