//! What is said of the life of a session: that it failed to start, ended, comes back, ends soon.

use std::time::Duration;

use super::{End, Reply, rounded};
use crate::remote_control::{Cause, Ending, Exit, NotSpawned, ProjectName, StopReport};

/// A start that came to nothing.
#[must_use]
pub fn not_started(prefix: &str, project: &ProjectName, ending: &Ending) -> Reply {
    let look = format!(" Say `{prefix} logs {project}` to see what it printed.");
    let reason = match ending {
        Ending::NotSpawned(reason) => not_spawned(reason),
        Ending::ExitedBeforeLink { exit, cause } => {
            format!(
                "the process ended before it showed a link ({}).{}",
                describe(*exit),
                explain_or(*cause, &look)
            )
        }
        // It would have waited for ever: no time is too short for that.
        Ending::NoLink {
            cause: Some(question @ (Cause::ConsentAsked | Cause::SpawnModeAsked)),
            ..
        } => {
            format!(
                "it waits at a question, so the process was ended.{}",
                explain(Some(*question))
            )
        }
        Ending::NoLink { waited, cause } => format!(
            "no link within {}, so the process was ended.{}",
            humantime::format_duration(*waited),
            explain_or(*cause, &look)
        ),
        Ending::Stopped => "it was stopped before it showed a link.".to_owned(),
        Ending::Expired => "its time was up before it showed a link.".to_owned(),
        Ending::HostRestarted => "the host was restarted before it showed a link.".to_owned(),
        Ending::Exited { exit, cause } => {
            format!(
                "the process ended before the link was delivered ({}).{}",
                describe(*exit),
                explain_or(*cause, &look)
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
        NotSpawned::Unresponsive { directory } => format!(
            "the directory {directory} or the program does not answer, as on a network file system whose server is away. Check \
             its mount on the host."
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

/// What is known of the cause, else where to look for it.
fn explain_or(cause: Option<Cause>, look: &str) -> String {
    cause.map_or_else(|| look.to_owned(), |cause| explain(Some(cause)))
}

fn explain(cause: Option<Cause>) -> String {
    cause
        .map(|cause| format!(" It says: {}. To fix it: {}.", cause.what(), cause.remedy()))
        .unwrap_or_default()
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
            "Session for {project} had ended by itself already ({}). What was left is cleared away. {how}",
            describe(*exit)
        )),
        Ending::Stopped
        | Ending::Expired
        | Ending::HostRestarted
        | Ending::NoLink { .. }
        | Ending::NotSpawned(_) => Reply::new(format!("Session for {project} is stopped. {how}")),
    }
}

/// A session that the operator stopped while no bot ran.
#[must_use]
pub fn stopped_offline(project: &ProjectName, report: &StopReport) -> Reply {
    Reply::new(format!(
        "Session for {project} is stopped. {} Its link is deleted, and whoever waits for it gets an answer, when the bot \
         runs again.",
        how_it_ended(report)
    ))
}

pub(super) fn processes(count: usize) -> String {
    match count {
        1 => "1 process".to_owned(),
        many => format!("{many} processes"),
    }
}

fn how_it_ended(report: &StopReport) -> String {
    let took = report.took.as_secs_f32();
    let when = if took < 0.1 {
        "at once".to_owned()
    } else {
        format!("within {took:.1} s")
    };
    let killed = match (report.killed, report.processes) {
        (0, _) => String::new(),
        (1, 1) => ": it was killed, as it did not end when asked".to_owned(),
        (1, _) => ": 1 was killed, as it did not end when asked".to_owned(),
        (some, _) => format!(": {some} were killed, as they did not end when asked"),
    };
    match report.processes {
        0 => "No process was running.".to_owned(),
        1 => format!("Its process ended {when}{killed}."),
        many => format!("Its {many} processes ended {when}{killed}."),
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
            let end = match exit {
                Exit::Signal(_) => format!("its process was ended by {exit}."),
                Exit::Code(_) | Exit::Unknown => {
                    format!("its process ended by itself ({}).", describe(*exit))
                }
            };
            format!("{end}{}", explain(*cause))
        }
        Ending::NoLink { cause, .. } => format!("it showed no link any more.{}", explain(*cause)),
        Ending::NotSpawned(reason) => {
            format!("it could not be brought back: {}", not_spawned(reason))
        }
        Ending::Stopped => "it was stopped.".to_owned(),
        Ending::Expired => "its time was up.".to_owned(),
        Ending::HostRestarted => "the host was restarted.".to_owned(),
    }
}

/// The record of a session was lost, and with it who has the link.
#[must_use]
pub fn record_lost(prefix: &str, project: &ProjectName, is_running: bool) -> Reply {
    let session = if is_running {
        format!("It still runs: `{prefix} start {project}` gives its link again.")
    } else {
        "No process of it is left.".to_owned()
    };
    Reply::new(format!(
        "The record of the session for {project} is lost or unreadable. {session} I cannot delete the messages with its link \
         that I sent before: whoever has one should delete it."
    ))
}

/// A session that would be one too many.
#[must_use]
pub fn too_many_sessions(
    prefix: &str,
    project: &ProjectName,
    limit: usize,
    active: &[ProjectName],
) -> Reply {
    let names: Vec<_> = active.iter().map(|name| format!("`{name}`")).collect();
    let most = match limit {
        1 => "no more than 1 session".to_owned(),
        many => format!("no more than {many} sessions"),
    };
    Reply::new(format!(
        "I did not start a session for {project}: there may be {most} at once (`max_sessions`). Sessions now: {}. Say \
         `{prefix} stop PROJECT` to end one.",
        names.join(", ")
    ))
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
pub fn extended(project: &ProjectName, end: Option<End>) -> Reply {
    Reply::new(match end {
        Some(end) => format!(
            "Session for {project} now ends in {}, at {}.",
            end.span(),
            end.moment()
        ),
        None => format!(
            "Session for {project} has no end that could be moved: it goes on until it is stopped."
        ),
    })
}

/// For those who have the link of a session that is over.
#[must_use]
pub fn link_is_void(project: &ProjectName) -> Reply {
    Reply::new(format!(
        "Session for {project} has ended. Its link no longer works, and I took it back."
    ))
}

/// The session ended while its link was under way.
#[must_use]
pub fn ended_before_delivery(project: &ProjectName) -> Reply {
    Reply::new(format!(
        "Session for {project} ended before I could send you the link. Start it again if you need it."
    ))
}

/// Some processes of a session cannot be ended.
#[must_use]
pub fn not_ended(project: &ProjectName, reason: &str) -> Reply {
    Reply::new(format!(
        "Session for {project} cannot be ended as a whole: {reason}. End that process on the host; I keep trying, and the \
         project can be started again once it is gone."
    ))
}

/// There is nothing to stop.
#[must_use]
pub fn no_session(prefix: &str, project: &ProjectName) -> Reply {
    Reply::new(format!(
        "There is no active session for {project}. Say `{prefix} start {project}` to start one."
    ))
}

/// The same, for the operator on the host, who starts none.
#[must_use]
pub fn nothing_to_stop(project: &ProjectName) -> Reply {
    Reply::new(format!("There is no active session for {project}."))
}

/// No link while the session is ending.
#[must_use]
pub fn stopping(project: &ProjectName) -> Reply {
    Reply::new(format!(
        "Session for {project} is being stopped right now. Try again in a moment."
    ))
}
