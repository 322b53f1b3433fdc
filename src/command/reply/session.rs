//! What is said of a session: that it failed to start, ended, comes back, ends soon.

use std::time::Duration;

use super::{End, Mark, Reply, rounded};
use crate::remote_control::{
    Cause, Ending, Exit, NotSpawned, Options, ProjectName, Restart, StopReport,
};

/// A start that came to nothing.
pub(crate) fn not_started(prefix: &str, project: &ProjectName, ending: &Ending) -> Reply {
    if ending.cause() == Some(Cause::NothingToResume) {
        return Reply::marked(
            Mark::Failed,
            format!(
                "Failed to resume **{project}**: there is no recent conversation to bring back. Say `{prefix} start {project}` \
                 to start a new one."
            ),
        );
    }
    Reply::marked(
        Mark::Failed,
        format!(
            "Failed to start **{project}**: {}",
            why_not_started(prefix, project, ending)
        ),
    )
}

fn why_not_started(prefix: &str, project: &ProjectName, ending: &Ending) -> String {
    let cause_or_logs = |cause: Option<Cause>| match cause {
        Some(_) => explain(cause),
        None => format!(" Say `{prefix} logs {project}` to see what it printed."),
    };
    match ending {
        Ending::NotSpawned(reason) => not_spawned(reason),
        Ending::ExitedBeforeLink { exit, cause } => format!(
            "the process ended before it showed a link ({}).{}",
            describe(*exit),
            cause_or_logs(*cause)
        ),
        // It would have waited for ever: no time is too short for that.
        Ending::NoLink {
            cause: question @ Some(Cause::ConsentAsked | Cause::SpawnModeAsked),
            ..
        } => format!(
            "it waits at a question, so the process was ended.{}",
            explain(*question)
        ),
        Ending::NoLink {
            cause: complaint @ Some(_),
            ..
        } => format!(
            "it showed no link, so the process was ended.{}",
            explain(*complaint)
        ),
        Ending::NoLink {
            waited,
            cause: None,
        } => format!(
            "no link within {}, so the process was ended.{}",
            humantime::format_duration(*waited),
            cause_or_logs(None)
        ),
        Ending::Stopped => "it was stopped before it showed a link.".to_owned(),
        Ending::Expired => "its time was up before it showed a link.".to_owned(),
        Ending::HostRestarted => "the host was restarted before it showed a link.".to_owned(),
        Ending::Exited { exit, cause } => format!(
            "the process ended before the link was delivered ({}).{}",
            describe(*exit),
            cause_or_logs(*cause)
        ),
        Ending::Completed => "its conversation was over before the link was delivered.".to_owned(),
        Ending::CutOff { .. } => "it lost its service before the link was delivered.".to_owned(),
    }
}

/// Why a session ended that had a link.
fn why_ended(ending: &Ending) -> String {
    match ending {
        Ending::Exited { exit, cause } | Ending::ExitedBeforeLink { exit, cause } => {
            let cause = explain(*cause);
            match exit {
                Exit::Signal(_) => format!("its process was ended by {exit}.{cause}"),
                Exit::Code(_) | Exit::Unknown => {
                    format!("its process ended by itself ({}).{cause}", describe(*exit))
                }
            }
        }
        Ending::NoLink { cause, .. } => format!("it showed no link any more.{}", explain(*cause)),
        Ending::NotSpawned(reason) => {
            format!("it could not be brought back: {}", not_spawned(reason))
        }
        Ending::Stopped => "it was stopped.".to_owned(),
        Ending::Expired => "its time was up.".to_owned(),
        Ending::HostRestarted => "the host was restarted.".to_owned(),
        Ending::Completed => "the conversation that it brought back is over.".to_owned(),
        Ending::CutOff { lasted } => format!(
            "it was cut off from its service for {}.",
            humantime::format_duration(rounded(*lasted))
        ),
    }
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
        NotSpawned::TooFewDescriptors { limit } => format!(
            "the bot may have only {limit} files open at once, which is too few for another session. Raise the limit on the \
             host (`LimitNOFILE=` in a systemd unit, `ulimit -n` in a shell), or stop another session."
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

fn explain(cause: Option<Cause>) -> String {
    match cause {
        None => String::new(),
        Some(Cause::Unknown) => {
            format!(
                " It seems that {}. To find out more: {}.",
                Cause::Unknown.what(),
                Cause::Unknown.remedy()
            )
        }
        Some(cause) => format!(
            " Probable cause: {}. To fix it: {}.",
            cause.what(),
            cause.remedy()
        ),
    }
}

/// A session that somebody stopped.
pub(crate) fn stopped(
    project: &ProjectName,
    ending: &Ending,
    report: Option<&StopReport>,
) -> Reply {
    let Some(report) = report else {
        return Reply::marked(
            Mark::Stopped,
            format!("Session for **{project}** is stopped: no process was running."),
        );
    };
    let how = how_it_stopped(report);
    Reply::marked(
        Mark::Stopped,
        match ending {
            Ending::Exited { exit, .. } | Ending::ExitedBeforeLink { exit, .. } => format!(
                "Session for **{project}** had ended by itself already ({}). What was left is cleared away. {how}",
                describe(*exit)
            ),
            Ending::Stopped
            | Ending::Expired
            | Ending::Completed
            | Ending::CutOff { .. }
            | Ending::HostRestarted
            | Ending::NoLink { .. }
            | Ending::NotSpawned(_) => format!("Session for **{project}** is stopped. {how}"),
        },
    )
}

/// A stop that takes a while.
pub(crate) fn shutting_down(project: &ProjectName) -> Reply {
    Reply::marked(
        Mark::Busy,
        format!(
            "Session for **{project}** is shutting down: its processes were asked to end, and are killed if they take longer \
             than `stop_grace`. I will say when it is over."
        ),
    )
}

/// What the operator hears of a stop while no bot runs. `None`: there was no session.
pub(crate) fn stopped_offline(project: &ProjectName, report: Option<&StopReport>) -> Reply {
    report.map_or_else(
        || no_session(None, project),
        |report| {
            Reply::new(format!(
                "Session for **{project}** is stopped. {} Its link is deleted, and whoever waits for it gets an answer, when \
                 the bot runs again.",
                how_it_stopped(report)
            ))
        },
    )
}

fn how_it_stopped(report: &StopReport) -> String {
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
pub(crate) fn ended(project: &ProjectName, ending: &Ending) -> Reply {
    Reply::marked(
        Mark::Failed,
        format!("Session for **{project}** has ended: {}", why_ended(ending)),
    )
}

/// A session that ended by itself, or did not come up again, and is restarted.
pub(crate) fn restarting(
    prefix: &str,
    project: &ProjectName,
    ending: &Ending,
    rest: Duration,
) -> Reply {
    let rest = humantime::format_duration(rest);
    Reply::marked(
        Mark::Busy,
        if ending.cause() == Some(Cause::NothingToResume) {
            format!(
                "Session for **{project}** is not back: there is no recent conversation to bring back. I will start a new one in \
             {rest}, and send its link."
            )
        } else if ending.came_after_link() {
            format!(
                "Session for **{project}** has ended: {} I will restart it in {rest}, and send its link again.",
                why_ended(ending)
            )
        } else {
            format!(
                "Session for **{project}** is not back: {} I will try again in {rest}, and for as long as it takes. \
             `{prefix} stop {project}` ends that.",
                why_not_started(prefix, project, ending)
            )
        },
    )
}

/// A session that runs and that nobody can use.
pub(crate) fn cut_off(
    prefix: &str,
    project: &ProjectName,
    lasts: Duration,
    restart: Restart,
) -> Reply {
    let what_next = match restart {
        Restart::OnExit => "I will restart it if it is not back in a minute.".to_owned(),
        Restart::Never => format!(
            "If the host's network is well, restart it: `{prefix} stop {project}`, then `{prefix} start {project}`."
        ),
    };
    Reply::marked(
        Mark::Failed,
        format!(
            "Session for **{project}** has been cut off from its service for {}: it runs, but nobody can use it until it \
             reconnects. {what_next}",
            humantime::format_duration(rounded(lasts))
        ),
    )
}

/// A session that can be used again.
pub(crate) fn reconnected(project: &ProjectName, after: Duration) -> Reply {
    Reply::marked(
        Mark::Running,
        format!(
            "Session for **{project}** is connected to its service again, after {}. Its link is the same.",
            humantime::format_duration(rounded(after))
        ),
    )
}

/// A first start that failed for a reason that passes.
pub(crate) fn trying_again(
    prefix: &str,
    project: &ProjectName,
    ending: &Ending,
    rest: Duration,
) -> Reply {
    Reply::marked(
        Mark::Busy,
        format!(
            "**{project}** has not started yet: {} I will try again in {}, for as long as it takes, and send the link then. \
         `{prefix} stop {project}` ends that.",
            why_not_started(prefix, project, ending),
            humantime::format_duration(rest)
        ),
    )
}

/// The record of a session was lost, and with it who has the link.
pub(crate) fn record_lost(prefix: &str, project: &ProjectName, is_running: bool) -> Reply {
    let session = if is_running {
        format!("It still runs: `{prefix} start {project}` gives its link again.")
    } else {
        "No process of it is left.".to_owned()
    };
    Reply::new(format!(
        "The record of the session for **{project}** is lost or unreadable. {session} I cannot delete the messages with its link \
         that I sent before: whoever has one should delete it."
    ))
}

pub(crate) fn too_many_sessions(
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
        "I did not start a session for **{project}**: there may be {most} at once (`max_sessions`). Sessions now: {}. Say \
         `{prefix} stop PROJECT` to end one.",
        names.join(", ")
    ))
}

/// For those who have the link of a session that ends soon.
pub(crate) fn ends_soon(prefix: &str, project: &ProjectName, left: Duration) -> Reply {
    let left = humantime::format_duration(rounded(left));
    Reply::new(format!(
        "Session for **{project}** ends in {left}. To go on, say `{prefix} extend {project} 2h` in the admin room."
    ))
}

/// A session got more time. `None`: it has no end.
pub(crate) fn extended(project: &ProjectName, end: Option<End>) -> Reply {
    Reply::new(match end {
        Some(end) => format!("Session for **{project}** now ends {end}."),
        None => format!(
            "Session for **{project}** has no end that could be moved: it goes on until it is stopped."
        ),
    })
}

/// For those who have the link of a session that is over.
pub(crate) fn link_is_void(project: &ProjectName) -> Reply {
    Reply::new(format!(
        "Session for **{project}** has ended. I deleted the message with its link. The next session for {project} may have \
         the same link: keep no copy of it."
    ))
}

pub(crate) fn ended_before_delivery(project: &ProjectName) -> Reply {
    Reply::new(format!(
        "Session for **{project}** ended before I could send you the link. Start it again if you need it."
    ))
}

/// Some processes of a session cannot be ended.
pub(crate) fn not_ended(project: &ProjectName, reason: &str) -> Reply {
    Reply::new(format!(
        "Session for **{project}** cannot be ended as a whole: {reason}. End that process on the host; I keep trying, and the \
         project can be started again once it is gone."
    ))
}

/// There is nothing to stop or to extend. The operator on the host, who cannot start one either, has no `prefix`.
pub(crate) fn no_session(prefix: Option<&str>, project: &ProjectName) -> Reply {
    let remedy = prefix.map_or_else(String::new, |prefix| {
        format!(" Say `{prefix} start {project}` to start one.")
    });
    Reply::new(format!(
        "There is no active session for **{project}**.{remedy}"
    ))
}

/// Somebody asked for a session with other options than the one has that is there.
pub(crate) fn other_options(prefix: &str, project: &ProjectName, options: &Options) -> Reply {
    let options = super::status::options(options);
    let options = if options.is_empty() {
        "none that I know of".to_owned()
    } else {
        options.join(", ")
    };
    Reply::new(format!(
        "Session for **{project}** has been started already, with other options: {options}. Say `{prefix} start {project}` for its \
         link as it is, or `{prefix} stop {project}` and then start it with yours."
    ))
}

pub(crate) fn stopping(project: &ProjectName) -> Reply {
    Reply::new(format!(
        "Session for **{project}** is being stopped right now. Try again in a moment."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn website() -> ProjectName {
        "website".parse().unwrap()
    }

    #[test]
    fn a_missing_command_is_named_with_its_errno() {
        let program = "claude".to_owned();
        let ending = Ending::NotSpawned(NotSpawned::CommandNotFound { program });
        let reply = not_started("!rc", &website(), &ending);
        let begins = "Failed to start website: the command `claude` was not found (ENOENT).";
        assert!(reply.plain.starts_with(begins), "{}", reply.plain);
    }

    #[test]
    fn a_stop_tells_how_it_went() {
        let told = |processes, killed, milliseconds| {
            let took = Duration::from_millis(milliseconds);
            let report = StopReport {
                processes,
                killed,
                took,
            };
            stopped(&website(), &Ending::Stopped, Some(&report)).plain
        };
        assert_eq!(
            told(4, 1, 340),
            "Session for website is stopped. Its 4 processes ended within 0.3 s: 1 was killed, as it did not end when \
             asked."
        );
        assert_eq!(
            told(1, 0, 40),
            "Session for website is stopped. Its process ended at once."
        );
    }
}
