//! Every sentence the bot says, plain and HTML. Each says what happened, and what to do.
//!
//! Invariant: no sentence holds a link, and none but [`last_output`] a word that a session's process printed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

mod life;
mod refusal;

use life::processes;
pub use life::*;
pub use refusal::*;

use bytesize::ByteSize;

use crate::{
    matrix::NotConfidential,
    remote_control::{
        Output, OutputError, Phase, ProjectName, SessionId, SessionStatus, Status, Usage,
    },
};

/// A text in both forms of a Matrix message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// For clients without HTML.
    pub plain: String,
    /// The same in the HTML that Matrix allows.
    pub html: String,
}

impl Reply {
    /// Lines of text, in which what stands between backticks is code.
    fn new(text: impl AsRef<str>) -> Self {
        let escaped = html_escape::encode_text(text.as_ref()).replace('\n', "<br>");
        let mut html = String::with_capacity(escaped.len());
        for (index, part) in escaped.split('`').enumerate() {
            if index > 0 {
                html.push_str(if index % 2 == 1 { "<code>" } else { "</code>" });
            }
            html.push_str(part);
        }
        Self {
            plain: text.as_ref().to_owned(),
            html,
        }
    }
}

/// The link is in the requester's direct message.
#[must_use]
pub fn running(project: &ProjectName) -> Reply {
    Reply::new(format!(
        "Session for {project} is running. I sent you the link privately."
    ))
}

/// What stands before a link, and after it.
#[must_use]
pub fn around_link(prefix: &str, project: &ProjectName, host: &str) -> (Reply, Reply) {
    (
        Reply::new(format!("Remote Control session for {project} on {host}:")),
        Reply::new(format!(
            "Whoever has this link can run commands on {host}: keep it to yourself. It opens for the claude.ai account \
             that is logged in there. To end the session, say `{prefix} stop {project}` in the admin room."
        )),
    )
}

/// The link cannot be delivered in confidence.
#[must_use]
pub fn undeliverable(project: &ProjectName, reason: &NotConfidential) -> Reply {
    let reason = match reason {
        NotConfidential::NoIdentity => {
            "your account has no cross-signing identity, so I cannot tell which devices are yours. Set up encryption \
             (secure backup) in your client's settings, and try again."
        }
        NotConfidential::IdentityChanged => {
            "your cross-signing identity is another one than I know. If you reset it yourself, ask the bot's operator to \
             accept it: `rcbot trust` and your user id, on the host."
        }
        NotConfidential::NoReadableDevice => {
            "none of your devices is verified. Verify this device in your client's settings, and try again."
        }
        NotConfidential::Overheard => {
            "somebody else was in our direct message. I took the link back; leave that room, and try again."
        }
        NotConfidential::RoomRefused { reason } => {
            return Reply::new(format!(
                "I cannot send you the link for {project}: the homeserver would not make a direct message with you \
                 ({reason}). No link was sent."
            ));
        }
    };
    Reply::new(format!(
        "I cannot send you the link for {project}: {reason}"
    ))
}

/// What a session printed last, for those who may have its link, in confidence. The only reply with words of a process.
#[must_use]
pub fn last_output(project: &ProjectName, output: &Output) -> Reply {
    if output.is_empty() {
        return Reply::new(format!("The last session for {project} printed nothing."));
    }
    let head = format!("The last lines that the session for {project} printed:");
    let text = output.expose();
    Reply {
        plain: format!("{head}\n\n{text}"),
        html: format!(
            "<p>{head}</p><pre><code>{}</code></pre>",
            html_escape::encode_text(text)
        ),
    }
}

/// The last lines are in the requester's direct message.
#[must_use]
pub fn output_sent(project: &ProjectName) -> Reply {
    Reply::new(format!(
        "I sent you the last lines of the session for {project} privately."
    ))
}

/// There are no last lines.
#[must_use]
pub fn no_output(project: &ProjectName, error: &OutputError) -> Reply {
    Reply::new(match error {
        OutputError::None => format!("There is no output of a session for {project} yet."),
        OutputError::Read { .. } | OutputError::Folder(_) => format!(
            "I cannot read the output of the session for {project}. The bot's log on the host says why."
        ),
    })
}

/// The requester may no longer have the link that they asked for.
#[must_use]
pub fn no_longer_allowed(project: &ProjectName) -> Reply {
    Reply::new(format!(
        "I did not send the link for {project}: whoever asked for it may not command me now."
    ))
}

/// The homeserver does not take the link, and waiting does not help.
#[must_use]
pub fn not_taken(project: &ProjectName) -> Reply {
    Reply::new(format!(
        "I cannot send you the link for {project}: the homeserver does not take it. The bot's log on the host says why."
    ))
}

/// The bot cannot write down what it was asked for.
#[must_use]
pub fn not_recorded(project: &ProjectName, reason: &str) -> Reply {
    Reply::new(format!(
        "I did nothing about {project}, as I cannot write it down ({reason}). Make room in the bot's data directory on \
         the host, or make it writable, and try again."
    ))
}

/// The list of commands.
#[must_use]
pub fn help(prefix: &str) -> Reply {
    Reply::new(format!(
        "`{prefix} start [project]`: start a session, or get the running one's link again\n\
         `{prefix} resume [project]`: the same, and bring back the last conversation\n\
         `{prefix} stop [project]`: end the session and all its processes\n\
         `{prefix} status`: what runs, since when, and who started it\n\
         `{prefix} extend [project] 2h`: move the session's end\n\
         `{prefix} logs [project]`: the last lines that the session printed, privately\n\
         `{prefix} help`: this list\n\
         The project may be left out where there is only one."
    ))
}

/// One line a project.
#[must_use]
pub fn status(statuses: &[Status], usage: &BTreeMap<SessionId, Usage>, now: SystemTime) -> Reply {
    let line = |status: &Status| match &status.session {
        None => format!("{}: no session", status.project),
        Some(session) => format!(
            "{}: {}",
            status.project,
            describe_session(session, usage.get(&session.id), now)
        ),
    };
    let lines: BTreeSet<_> = statuses.iter().map(line).collect();
    Reply::new(lines.into_iter().collect::<Vec<_>>().join("\n"))
}

fn describe_session(session: &SessionStatus, usage: Option<&Usage>, now: SystemTime) -> String {
    let phase = match session.phase {
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Stopping => "stopping",
        Phase::Resting => "coming back after it ended by itself",
    };
    let since = humantime::format_rfc3339_seconds(session.since)
        .to_string()
        .replace('T', " ")
        .replace('Z', " UTC");
    let age = humantime::format_duration(rounded(
        now.duration_since(session.since).unwrap_or_default(),
    ));
    let ends = session.time_left.map_or_else(String::new, |left| {
        format!(", ends in {}", humantime::format_duration(rounded(left)))
    });
    let by = session
        .requester
        .as_ref()
        .map_or_else(String::new, |user| format!(", started by {user}"));
    // The program is known to grow by a gigabyte a day, and to leave children behind.
    let takes = usage.map_or_else(String::new, |usage| {
        let memory = ByteSize(usage.memory).display().iec();
        format!(", {}, {memory:.0}", processes(usage.processes))
    });
    format!("{phase} since {since} ({age}){ends}{by}{takes}")
}

/// Seconds matter in the first minutes only.
fn rounded(age: Duration) -> Duration {
    let seconds = age.as_secs();
    let unit = if seconds < 600 { 1 } else { 60 };
    Duration::from_secs(seconds - seconds % unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote_control::{Ending, NotSpawned, StopReport};

    fn website() -> ProjectName {
        "website".parse().unwrap()
    }

    #[test]
    fn a_missing_command_is_named_with_its_errno() {
        let ending = Ending::NotSpawned(NotSpawned::CommandNotFound {
            program: "claude".to_owned(),
        });
        let reply = not_started("!rc", &website(), &ending);
        assert!(
            reply.plain.starts_with(
                "Failed to start website: the command `claude` was not found (ENOENT)."
            )
        );
    }

    #[test]
    fn a_stop_tells_how_it_went() {
        let report = StopReport {
            processes: 4,
            killed: 1,
            took: Duration::from_millis(340),
        };
        assert_eq!(
            stopped(&website(), &Ending::Stopped, Some(&report)).plain,
            "Session for website is stopped: ended after 0.3 s, 4 processes, 1 of them killed, as they did not end when \
             asked."
        );
    }

    #[test]
    fn a_status_has_one_line_a_project_and_rounds_its_times() {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let id = SessionId::random();
        let session = SessionStatus {
            id: id.clone(),
            phase: Phase::Running,
            since,
            requester: Some("@alice:example.org".to_owned()),
            time_left: Some(Duration::from_secs(35_875)),
        };
        let statuses = [
            Status {
                project: "api".parse().unwrap(),
                session: None,
            },
            Status {
                project: website(),
                session: Some(session),
            },
        ];
        let usage = BTreeMap::from([(
            id,
            Usage {
                processes: 3,
                memory: 412 << 20,
            },
        )]);
        let reply = status(&statuses, &usage, since + Duration::from_secs(7_325));
        assert_eq!(
            reply.plain,
            "api: no session\nwebsite: running since 2026-09-21 14:13:20 UTC (2h 2m), ends in 9h 57m, started by \
             @alice:example.org, 3 processes, 412 MiB"
        );
    }
}
