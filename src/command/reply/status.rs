//! What runs: an overview for the room, and a line for the operator's terminal.

use std::time::SystemTime;

use bytesize::ByteSize;

use super::{Mark, Reply, counted, end_after, moment, span};
use crate::remote_control::{Connection, Options, Phase, Status, Usage, Usages};

/// Those with a session first, each group in the order of names. No table, as one breaks words on a phone.
pub(crate) fn status(statuses: &[Status], usage: &Usages, now: SystemTime) -> Reply {
    let mut statuses: Vec<_> = statuses.iter().collect();
    statuses.sort_unstable_by_key(|status| (status.session.is_none(), &status.project));
    let entries = statuses.iter();
    Reply::lines(entries.map(|status| session_reply(status, usage, now)))
}

pub(super) fn session_reply(status: &Status, usage: &Usages, now: SystemTime) -> Reply {
    let (mark, phase, details) = facts(status, usage, now);
    let head = format!("**{}**: {}", status.project, phase.join(", "));
    let head = Reply::marked(mark, head);
    if details.is_empty() {
        return head;
    }
    let details = Reply::new(format!("  {}", details.join(", ")));
    Reply::lines([head, details])
}

pub(crate) fn status_line(status: &Status, usage: &Usages, now: SystemTime) -> String {
    let (_, phase, details) = facts(status, usage, now);
    let facts = [phase, details].concat();
    format!("{}: {}", status.project, facts.join(", "))
}

/// The phase of a project with its times, and the details of its session.
fn facts(status: &Status, usage: &Usages, now: SystemTime) -> (Mark, Vec<String>, Vec<String>) {
    let Some(session) = &status.session else {
        return (Mark::Idle, vec!["no session".to_owned()], Vec::new());
    };
    let age = now.duration_since(session.since).unwrap_or_default();
    let begun = format!("{} ({})", moment(session.since, now), span(age));
    let mut phase = vec![with_begin(self::phase(session.phase), &begun)];
    phase.extend(session.connection.map(connection));
    if let Some((next_try, cause)) = session.next_try {
        phase.push(format!("next try in {}", span(next_try)));
        phase.extend(cause.map(|cause| format!("probable cause: {}", cause.what())));
    }
    let left = session.time_left;
    let left = left.filter(|_| session.phase != Phase::Stopping);
    phase.extend(left.map(|left| format!("ends {}", end_after(now, left))));
    let requester = session.requester.as_ref();
    let mut details = Vec::from_iter(requester.map(|user| format!("started by {user}")));
    // The program is known to grow by a gigabyte a day, and to leave children behind.
    details.extend(usage.get(&session.id).map(self::usage));
    details.extend(options(&session.start.options));
    let mark = match session.connection {
        _ if session.is_cut_off => Mark::Failed,
        Some(Connection::Connecting | Connection::Reconnecting { .. }) => Mark::Busy,
        Some(Connection::Connected) | None => Mark::of(session.phase),
    };
    (mark, phase, details)
}

/// What a session runs with, in words; those that are not known are left out.
pub(super) fn options(options: &Options) -> Vec<String> {
    let Options { mode, spawn, name } = options;
    let words = [
        mode.as_ref().map(|mode| format!("permission mode {mode}")),
        spawn.as_ref().map(|spawn| format!("spawn mode {spawn}")),
        name.as_ref().map(|name| format!("name \"{name}\"")),
    ];
    words.into_iter().flatten().collect()
}

pub(crate) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Stopping => "stopping",
        Phase::AwaitingRestart => "waiting to be started again",
    }
}

/// A phase, and when its session began, which is not when it began to stop or to wait for its restart.
pub(super) fn with_begin(phase: &str, begun: &str) -> String {
    if phase == self::phase(Phase::Running) {
        format!("{phase} since {begun}")
    } else {
        format!("{phase}, begun {begun}")
    }
}

/// The connection as the program reports it.
pub(crate) fn connection(connection: Connection) -> String {
    match connection {
        Connection::Connecting => "connecting".to_owned(),
        Connection::Connected => "connected".to_owned(),
        Connection::Reconnecting { disconnected } => {
            let time = disconnected.map(|time| format!(" for {}", span(time)));
            format!("cut off from its service{}", time.unwrap_or_default())
        }
    }
}

pub(crate) fn usage(usage: &Usage) -> String {
    let memory = ByteSize(usage.memory).display().iec();
    let processes = counted(usage.processes, "process", "processes");
    let version = if usage.is_replaced {
        ", its program was updated since (stop and start it to run the new version)"
    } else {
        ""
    };
    format!("{processes}, {memory:.0}{version}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        command::reply,
        remote_control::{Beginning, SessionId, SessionName, SessionStatus, Start},
    };

    /// Two projects, one with a session, and 2 hours and some minutes after that began.
    fn overview() -> (Vec<Status>, Usages, SystemTime) {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let id = SessionId::random();
        let session = SessionStatus {
            id: id.clone(),
            phase: Phase::Running,
            start: Start {
                beginning: Beginning::Fresh,
                options: Options {
                    mode: Some("plan".to_owned()),
                    spawn: None,
                    name: SessionName::try_from("fix it".to_owned()).ok(),
                },
            },
            since,
            requester: Some("@alice:example.org".to_owned()),
            time_left: Some(Duration::from_secs(35_875)),
            connection: Some(Connection::Connected),
            is_cut_off: false,
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
            is_replaced: false,
        };
        let now = since + Duration::from_secs(7_325);
        (statuses, Usages::from([(id, usage)]), now)
    }

    #[test]
    fn a_status_has_what_runs_first_and_rounds_its_times() {
        let (statuses, usage, now) = overview();
        let reply = status(&statuses, &usage, now);
        let plain = [
            "website: running since 14:13 UTC (2h 2m), connected, ends in 9h 58m (2026-09-22 02:13 UTC)",
            "  started by @alice:example.org, 3 processes, 412 MiB, permission mode plan, name \"fix it\"",
            "api: no session",
        ];
        assert_eq!(reply.plain, plain.join("\n"));
        assert_eq!(
            reply.html,
            "🟢 <strong>website</strong>: running since 14:13 UTC (2h 2m), connected, ends in 9h 58m (2026-09-22 02:13 UTC)<br>\
             \u{a0}\u{a0}started by @alice:example.org, 3 processes, 412 MiB, permission mode plan, name \"fix it\"<br>⚪ <strong>api</strong>: no session"
        );
    }

    #[test]
    fn a_session_that_is_cut_off_is_shown_as_such() {
        let (mut statuses, usage, now) = overview();
        let session = statuses[0].session.as_mut().unwrap();
        let disconnected = Some(Duration::from_secs(754));
        session.connection = Some(Connection::Reconnecting { disconnected });
        session.is_cut_off = true;
        assert_eq!(reply::announced_phase(session), "running (cut off)");
        let reply = status(&statuses, &usage, now);
        let said = "🔴 <strong>website</strong>: running since 14:13 UTC (2h 2m), cut off from its service for 12m, ends in ";
        assert!(reply.html.starts_with(said), "{}", reply.html);
    }

    #[test]
    fn a_session_that_stops_does_so_since_less_than_its_begin() {
        let (mut statuses, usage, now) = overview();
        let session = statuses[0].session.as_mut().unwrap();
        session.phase = Phase::Stopping;
        session.connection = None;
        let said = "website: stopping, begun 14:13 UTC (2h 2m), started by @alice:example.org, ";
        let line = status_line(&statuses[0], &usage, now);
        assert!(line.starts_with(said), "{line}");
    }

    #[test]
    fn a_session_whose_program_was_updated_is_distinguished() {
        let (statuses, mut usage, now) = overview();
        for usage in usage.values_mut() {
            usage.is_replaced = true;
        }
        let said = status(&statuses, &usage, now).plain;
        assert!(
            said.contains("412 MiB, its program was updated since"),
            "{said}"
        );
    }

    #[test]
    fn one_project_is_one_line_on_a_terminal() {
        let (statuses, usage, now) = overview();
        assert_eq!(
            status_line(&statuses[0], &usage, now),
            "website: running since 14:13 UTC (2h 2m), connected, ends in 9h 58m (2026-09-22 02:13 UTC), started by \
             @alice:example.org, 3 processes, 412 MiB, permission mode plan, name \"fix it\""
        );
    }
}
