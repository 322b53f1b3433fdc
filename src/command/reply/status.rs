//! What runs: an overview for the room, and a line for the operator's terminal.

use std::{
    collections::BTreeMap,
    iter,
    time::{Duration, SystemTime},
};

use bytesize::ByteSize;

use super::{Reply, moment, rounded};
use crate::{
    config::HostName,
    matrix::Announcement,
    remote_control::{Phase, SessionId, SessionStatus, Status, Usage},
};

/// A row for each project, in the order of their names.
///
/// Two columns, as a third would not fit on a phone beside a user's name. The cells of a row are apart and end with a line
/// break, so that a client that knows no tables shows rows all the same.
pub(crate) fn status(
    statuses: &[Status],
    usage: &BTreeMap<SessionId, Usage>,
    now: SystemTime,
) -> Reply {
    let mut statuses: Vec<_> = statuses.iter().collect();
    statuses.sort_unstable_by_key(|status| &status.project);
    let rows = statuses
        .iter()
        .map(|status| (status.project.as_str(), describe(status, usage, now)));
    table(&rows.collect::<Vec<_>>())
}

fn table(rows: &[(&str, Vec<String>)]) -> Reply {
    let names = rows.iter().map(|(name, _)| name.len());
    let width = names.max().unwrap_or_default() + ":".len();
    let (mut plain, mut html) = (Vec::new(), Vec::new());
    for (name, facts) in rows {
        let name_once = iter::once(format!("{name}:")).chain(iter::repeat(String::new()));
        let lines = name_once.zip(facts);
        plain.extend(lines.map(|(name, fact)| format!("{name:width$} {fact}")));
        html.push(format!(
            "<tr><td><b>{}</b></td> <td>{}<br></td></tr>",
            html_escape::encode_text(name),
            html_escape::encode_text(&facts.join("\n")).replace('\n', "<br>")
        ));
    }
    Reply {
        plain: plain.join("\n"),
        html: format!(
            "<table><thead><tr><th>Project</th> <th>Session<br></th></tr></thead><tbody>{}</tbody></table>",
            html.concat()
        ),
    }
}

/// The overview of this host, and below it those of others as they announce themselves.
pub(crate) fn status_of_hosts(
    host: &HostName,
    own: Reply,
    elsewhere: &[Announcement],
    now: SystemTime,
) -> Reply {
    let mut all = vec![(host.to_string(), own)];
    all.extend(
        elsewhere
            .iter()
            .map(|other| (other.host.clone(), announced(other, now))),
    );
    all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let plain = all
        .iter()
        .map(|(name, text)| format!("{name}:\n{}", text.plain));
    let html = all.iter().map(|(name, text)| {
        format!(
            "<p><b>{}</b></p>{}",
            html_escape::encode_text(name),
            text.html
        )
    });
    Reply {
        plain: plain.collect::<Vec<_>>().join("\n\n"),
        html: html.collect(),
    }
}

fn announced(host: &Announcement, now: SystemTime) -> Reply {
    let rows = host.projects.iter().map(|(name, project)| {
        let facts = project.session.as_ref().map_or_else(
            || "no session".to_owned(),
            |session| {
                let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(session.since));
                let since = since.filter(|since| *since <= now).unwrap_or(now);
                format!("{} since {}", session.phase, moment(since))
            },
        );
        (name.as_str(), vec![facts])
    });
    table(&rows.collect::<Vec<_>>())
}

/// One project in one line.
pub(crate) fn status_line(
    status: &Status,
    usage: &BTreeMap<SessionId, Usage>,
    now: SystemTime,
) -> String {
    format!(
        "{}: {}",
        status.project,
        describe(status, usage, now).join(", ")
    )
}

fn describe(status: &Status, usage: &BTreeMap<SessionId, Usage>, now: SystemTime) -> Vec<String> {
    status.session.as_ref().map_or_else(
        || vec!["no session".to_owned()],
        |session| describe_session(session, usage.get(&session.id), now),
    )
}

pub(crate) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Stopping => "stopping",
        Phase::Resting => "waiting to be started again",
    }
}

fn describe_session(
    session: &SessionStatus,
    usage: Option<&Usage>,
    now: SystemTime,
) -> Vec<String> {
    let phase = phase(session.phase);
    let age = now.duration_since(session.since).unwrap_or_default();
    let mut facts = vec![format!(
        "{phase} since {} ({})",
        moment(session.since),
        span(age)
    )];
    if let Some((next_try, cause)) = session.next_try {
        facts.push(format!("next try in {}", span(next_try)));
        facts.extend(cause.map(|cause| format!("probable cause: {}", cause.what())));
    }
    facts.extend(
        session
            .time_left
            .map(|left| format!("ends in {}", span(left))),
    );
    let requester = session.requester.as_ref();
    facts.extend(requester.map(|user| format!("started by {user}")));
    // The program is known to grow by a gigabyte a day, and to leave children behind.
    facts.extend(usage.map(self::usage));
    facts
}

pub(crate) fn usage(usage: &Usage) -> String {
    let memory = ByteSize(usage.memory).display().iec();
    match usage.processes {
        1 => format!("1 process, {memory:.0}"),
        many => format!("{many} processes, {memory:.0}"),
    }
}

fn span(time: Duration) -> String {
    humantime::format_duration(rounded(time)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two projects, one with a session, and 2 hours and some minutes after that began.
    fn overview() -> (Vec<Status>, BTreeMap<SessionId, Usage>, SystemTime) {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let id = SessionId::random();
        let session = SessionStatus {
            id: id.clone(),
            phase: Phase::Running,
            since,
            requester: Some("@alice:example.org".to_owned()),
            time_left: Some(Duration::from_secs(35_875)),
            next_try: None,
        };
        let statuses = vec![
            Status {
                project: "website".parse().unwrap(),
                session: Some(session),
            },
            Status {
                project: "api".parse().unwrap(),
                session: None,
            },
        ];
        let usage = Usage {
            processes: 3,
            memory: 412 << 20,
        };
        let now = since + Duration::from_secs(7_325);
        (statuses, BTreeMap::from([(id, usage)]), now)
    }

    #[test]
    fn a_status_is_a_table_of_two_columns_and_rounds_its_times() {
        let (statuses, usage, now) = overview();
        let reply = status(&statuses, &usage, now);
        let plain = [
            "api:     no session",
            "website: running since 2026-09-21 14:13 UTC (2h 2m)",
            "         ends in 9h 57m",
            "         started by @alice:example.org",
            "         3 processes, 412 MiB",
        ];
        assert_eq!(reply.plain, plain.join("\n"));
        let rows = "<tr><td><b>api</b></td> <td>no session<br></td></tr>\
                    <tr><td><b>website</b></td> <td>running since 2026-09-21 14:13 UTC (2h 2m)<br>ends in 9h 57m<br>\
                    started by @alice:example.org<br>3 processes, 412 MiB<br></td></tr>";
        assert!(reply.html.contains(rows), "{}", reply.html);
    }

    #[test]
    fn one_project_is_one_line_on_a_terminal() {
        let (statuses, usage, now) = overview();
        assert_eq!(
            status_line(&statuses[0], &usage, now),
            "website: running since 2026-09-21 14:13 UTC (2h 2m), ends in 9h 57m, started by @alice:example.org, 3 \
             processes, 412 MiB"
        );
    }
}
