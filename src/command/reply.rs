//! Every sentence the bot says, plain and HTML. Each says what happened, and what to do.
//!
//! Invariant: no sentence holds a link, and none but [`last_output`] a word that a session's process printed.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use super::{Denied, Misuse};
use crate::{
    matrix::NotConfidential,
    remote_control::{
        Cause, Ending, Exit, NotSpawned, Output, OutputError, Phase, ProjectName, SessionStatus,
        Status, StopReport,
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

/// A start that came to nothing.
#[must_use]
pub fn not_started(project: &ProjectName, ending: &Ending) -> Reply {
    let reason = match ending {
        Ending::NotSpawned(reason) => not_spawned(reason),
        Ending::ExitedBeforeLink { exit, cause } => {
            format!(
                "the process ended before it showed a link ({}).{}",
                describe(*exit),
                explain(*cause)
            )
        }
        Ending::NoLink { waited, cause } => format!(
            "no link within {}, so the process was ended.{}",
            humantime::format_duration(*waited),
            explain(*cause)
        ),
        Ending::Stopped => "it was stopped before it showed a link.".to_owned(),
        Ending::Expired => "its time was up before it showed a link.".to_owned(),
        Ending::Exited { exit, cause } => {
            format!(
                "the process ended before the link was delivered ({}).{}",
                describe(*exit),
                explain(*cause)
            )
        }
    };
    Reply::new(format!("Failed to start {project}: {reason}"))
}

fn not_spawned(reason: &NotSpawned) -> String {
    match reason {
        NotSpawned::CommandNotFound { program } => format!(
            "the command `{program}` was not found (ENOENT). Install it on the host, or give its full path under \
             `command` in the bot's configuration."
        ),
        NotSpawned::NotExecutable { program } => format!(
            "the command `{program}` may not be run (EACCES). Make it executable for the bot's user on the host."
        ),
        NotSpawned::DirectoryGone { directory } => format!(
            "its directory `{directory}` is gone (ENOENT). Bring it back, or change `directory` in the bot's \
             configuration."
        ),
        NotSpawned::DirectoryForbidden { directory } => format!(
            "its directory `{directory}` may not be entered (EACCES). Let the bot's user on the host enter it."
        ),
        NotSpawned::Other { reason } => format!("the host says: {reason}."),
    }
}

fn describe(exit: Exit) -> String {
    match exit {
        Exit::Code(_) | Exit::Signal(_) => exit.to_string(),
        Exit::Unknown => "exit code unknown".to_owned(),
    }
}

fn explain(cause: Option<Cause>) -> String {
    cause
        .map(|cause| {
            format!(
                " It says: {}. To mend it: {}.",
                cause.what(),
                cause.remedy()
            )
        })
        .unwrap_or_default()
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
            "your cross-signing identity is another one than before. The bot's operator has to accept the new one first."
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

/// The session ended while its link was under way.
#[must_use]
pub fn ended_before_delivery(project: &ProjectName) -> Reply {
    Reply::new(format!(
        "Session for {project} ended before I could send you the link. Start it again if you need it."
    ))
}

/// A session that somebody stopped.
#[must_use]
pub fn stopped(project: &ProjectName, ending: &Ending, report: Option<&StopReport>) -> Reply {
    let Some(report) = report else {
        return Reply::new(format!(
            "Session for {project} is stopped: no process was running."
        ));
    };
    let how = how_it_ended(report);
    match ending {
        Ending::Exited { exit, .. } | Ending::ExitedBeforeLink { exit, .. } => Reply::new(format!(
            "Session for {project} had ended by itself already ({}). It is cleared away {how}.",
            describe(*exit)
        )),
        Ending::Stopped | Ending::Expired | Ending::NoLink { .. } | Ending::NotSpawned(_) => {
            Reply::new(format!("Session for {project} is stopped: ended {how}."))
        }
    }
}

/// A session that the operator stopped while no bot ran.
#[must_use]
pub fn stopped_offline(project: &ProjectName, report: &StopReport) -> Reply {
    Reply::new(format!(
        "Session for {project} is stopped: ended {}. Its link is taken back when the bot runs again.",
        how_it_ended(report)
    ))
}

fn how_it_ended(report: &StopReport) -> String {
    let processes = match report.processes {
        1 => "1 process".to_owned(),
        many => format!("{many} processes"),
    };
    let killed = match report.killed {
        0 => String::new(),
        killed => format!(", {killed} of them killed as they did not end when asked"),
    };
    format!("after {}, {processes}{killed}", seconds(report.took))
}

/// A time as people say it: what is over at once took less than a tenth of a second.
fn seconds(took: Duration) -> String {
    let seconds = took.as_secs_f32();
    if seconds < 0.1 {
        "less than 0.1 s".to_owned()
    } else {
        format!("{seconds:.1} s")
    }
}

/// A session that ended without being asked to, for the admin room.
#[must_use]
pub fn ended(project: &ProjectName, ending: &Ending, restarts: u32) -> Reply {
    let why = why(ending);
    let gave_up = match restarts {
        0 => String::new(),
        times => format!(" I brought it back {times} times in vain, and give up."),
    };
    Reply::new(format!(
        "Session for {project} has ended: {why} Its link no longer works.{gave_up}"
    ))
}

fn why(ending: &Ending) -> String {
    match ending {
        Ending::Exited { exit, cause } | Ending::ExitedBeforeLink { exit, cause } => {
            format!(
                "its process ended by itself ({}).{}",
                describe(*exit),
                explain(*cause)
            )
        }
        Ending::NoLink { cause, .. } => format!("it showed no link any more.{}", explain(*cause)),
        Ending::NotSpawned(reason) => {
            format!("it could not be brought back: {}", not_spawned(reason))
        }
        Ending::Stopped => "it was stopped.".to_owned(),
        Ending::Expired => "its time was up.".to_owned(),
    }
}

/// A session that ended by itself and comes back.
#[must_use]
pub fn restarting(project: &ProjectName, ending: &Ending, rest: Duration) -> Reply {
    let rest = humantime::format_duration(rest);
    Reply::new(format!(
        "Session for {project} has ended: {} I bring it back in {rest}, and send its link again.",
        why(ending)
    ))
}

/// For those who have the link of a session that ends soon.
#[must_use]
pub fn ends_soon(prefix: &str, project: &ProjectName, left: Duration) -> Reply {
    let left = humantime::format_duration(rounded(left));
    Reply::new(format!(
        "Session for {project} ends in {left}. To go on, say `{prefix} extend {project} 2h` in the admin room."
    ))
}

/// A session got more time.
#[must_use]
pub fn extended(project: &ProjectName, left: Option<Duration>) -> Reply {
    Reply::new(match left {
        Some(left) => {
            format!(
                "Session for {project} now ends in {}.",
                humantime::format_duration(rounded(left))
            )
        }
        None => format!(
            "Session for {project} has no end that could be moved: it goes on until it is stopped."
        ),
    })
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

/// For those who have the link of a session that is over.
#[must_use]
pub fn link_is_void(project: &ProjectName) -> Reply {
    Reply::new(format!(
        "Session for {project} has ended. Its link no longer works, and I took it back."
    ))
}

/// There is nothing to stop.
#[must_use]
pub fn no_session(project: &ProjectName) -> Reply {
    Reply::new(format!("There is no active session for {project}."))
}

/// No link while the session is ending.
#[must_use]
pub fn stopping(project: &ProjectName) -> Reply {
    Reply::new(format!(
        "Session for {project} is just being stopped. Try again in a moment."
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

/// Who may not command is told why.
#[must_use]
pub fn denied(denied: &Denied) -> Reply {
    let reason = match denied {
        Denied::NotListed => "you are not on the list of users who may command me".to_owned(),
        Denied::NotAMember => "you are not a member of this room".to_owned(),
        Denied::PowerLevel { has, needs } => {
            format!("your power level here is {has}, and this takes {needs}. Ask an administrator of this room")
        }
        Denied::NotEncrypted => {
            "your message was not encrypted, and has to be. Use a client that supports encrypted rooms".to_owned()
        }
        Denied::UnsignedDevice => {
            "your device is not verified. Verify this device in your client's settings, and try again".to_owned()
        }
        Denied::IdentityChanged => {
            "your cross-signing identity is another one than before. The bot's operator has to accept it first".to_owned()
        }
        Denied::UnknownDevice => {
            "I cannot tell which device your message came from. Send it once more; if that does not help, verify your \
             device in your client's settings"
                .to_owned()
        }
        Denied::NoFacts => {
            "the homeserver did not tell me what I need to know about you and this room. Try again in a moment".to_owned()
        }
    };
    Reply::new(format!("Sorry, I did not do that: {reason}."))
}

/// What was typed is no command.
#[must_use]
pub fn misuse(prefix: &str, misuse: &Misuse) -> Reply {
    let what = match misuse {
        Misuse::NoCommand => "What shall I do?".to_owned(),
        Misuse::UnknownCommand { word } => {
            format!("I do not know the command `{}`.", shortened(word))
        }
        Misuse::TooManyWords { command } => {
            format!("`{prefix} {command}` does not take so many words.")
        }
        Misuse::HowLong { .. } => {
            return Reply::new(format!(
                "By how long? Say for example `{prefix} extend 2h`, or `{prefix} extend PROJECT 90m`. From a minute to 30 \
                 days are possible."
            ));
        }
        Misuse::UnknownProject { name, known } => {
            return Reply::new(format!(
                "There is no project `{}`. {}",
                shortened(name),
                projects_are(known)
            ));
        }
        Misuse::WhichProject { command, known } => {
            return Reply::new(format!(
                "Which project? Say `{prefix} {command}` and its name. {}",
                projects_are(known)
            ));
        }
    };
    let usage = help(prefix);
    Reply {
        plain: format!("{what}\n{}", usage.plain),
        html: format!("{}<br>{}", Reply::new(what).html, usage.html),
    }
}

/// Nobody needs to read back a page of what they typed.
fn shortened(word: &str) -> String {
    let plain: String = word
        .chars()
        .filter(|character| *character != '`')
        .take(40)
        .collect();
    plain
}

fn projects_are(known: &[ProjectName]) -> String {
    match known {
        [] => "Names of projects are letters, digits, `-`, `_` and `.`.".to_owned(),
        known => {
            let names: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
            format!("Projects: {}.", names.join(", "))
        }
    }
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
pub fn status(statuses: &[Status], now: SystemTime) -> Reply {
    let line = |status: &Status| match &status.session {
        None => format!("{}: no session", status.project),
        Some(session) => format!("{}: {}", status.project, describe_session(session, now)),
    };
    let lines: BTreeSet<_> = statuses.iter().map(line).collect();
    Reply::new(lines.into_iter().collect::<Vec<_>>().join("\n"))
}

fn describe_session(session: &SessionStatus, now: SystemTime) -> String {
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
    format!("{phase} since {since} ({age}){ends}{by}")
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

    fn website() -> ProjectName {
        "website".parse().unwrap()
    }

    #[test]
    fn what_people_typed_cannot_become_html() {
        let misuse = Misuse::UnknownCommand {
            word: "<b>`x`</b>".to_owned(),
        };
        let reply = super::misuse("!rc", &misuse);
        assert!(
            reply
                .html
                .starts_with("I do not know the command <code>&lt;b&gt;x&lt;/b&gt;</code>."),
            "{}",
            reply.html
        );
    }

    #[test]
    fn a_missing_command_is_named_with_its_errno() {
        let ending = Ending::NotSpawned(NotSpawned::CommandNotFound {
            program: "claude".to_owned(),
        });
        let reply = not_started(&website(), &ending);
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
            "Session for website is stopped: ended after 0.3 s, 4 processes, 1 of them killed as they did not end when \
             asked."
        );
    }

    #[test]
    fn a_status_has_one_line_a_project_and_rounds_its_times() {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let session = SessionStatus {
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
        let reply = status(&statuses, since + Duration::from_secs(7_325));
        assert_eq!(
            reply.plain,
            "api: no session\nwebsite: running since 2026-09-21 14:13:20 UTC (2h 2m), ends in 9h 57m, started by \
             @alice:example.org"
        );
    }
}
