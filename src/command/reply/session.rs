//! Replies about a session: it failed to start, ended, comes back, ends soon.

use std::time::{Duration, SystemTime};

use super::{Mark, Reply, Topic, counted, listed, moment, span};
use crate::remote_control::{
    Cause, Ending, Exit, NotSpawned, Options, Place, ProjectName, Restart, StopReport,
};

/// The project that a reply is about, and where to act on it.
pub(crate) struct About<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) project: &'a ProjectName,
    pub(crate) place: Place,
}

impl About<'_> {
    pub(crate) fn not_started(&self, ending: &Ending) -> Reply {
        Failure::of(self, ending, true).reply(self, Mark::Failed, "did not start", "")
    }

    /// A session that ended without being asked to, for the admin room.
    pub(crate) fn ended(&self, ending: &Ending) -> Reply {
        let (mark, what) = match ending {
            Ending::Completed | Ending::Expired | Ending::Stopped => (Mark::Stopped, "has ended"),
            // The restart of its process failed.
            Ending::NotSpawned(_) | Ending::NoLink { .. } => (Mark::Failed, "did not come back"),
            Ending::ExitedBeforeLink { .. }
            | Ending::HostRestarted
            | Ending::Exited { .. }
            | Ending::CutOff { .. } => (Mark::Failed, "has ended"),
        };
        Failure::of(self, ending, false).reply(self, mark, what, "")
    }

    /// A session that ended without a request or could not start, and that is started again.
    pub(crate) fn restarting(&self, ending: &Ending, delay: Duration, had_link: bool) -> Reply {
        let (prefix, project) = (self.prefix, self.project);
        let delay = humantime::format_duration(delay);
        let cause = ending.cause();
        if cause == Some(Cause::NothingToResume) {
            let text = format!(
                "**{project}** is not back: there is no recent conversation to bring back. I will start a new one in {delay}, \
                 and send its link."
            );
            return Reply::marked(Mark::Busy, text);
        }
        let has_run = had_link && ending.came_after_link();
        let (what, next) = if has_run {
            let next = format!(" I will restart it in {delay}, and send its link again.");
            ("has ended", next)
        } else {
            let next = format!(
                " I will try again in {delay}, for as long as it takes, and send the link then. `{prefix} stop {project}` ends \
                 that."
            );
            let what = if had_link {
                "is not back"
            } else {
                "has not started yet"
            };
            (what, next)
        };
        let mut failure = Failure::of(self, ending, !has_run);
        match cause {
            // The bot does what these advise.
            Some(cause) if cause.takes_only_a_restart() => {
                (failure.remedy, failure.topic) = (None, None);
            }
            None if has_run => failure.remedy = None,
            Some(_) | None => {}
        }
        failure.reply(self, Mark::Busy, what, &next)
    }

    /// A session that runs and that nobody can use.
    pub(crate) fn cut_off(&self, lasts: Duration, restart: Restart) -> Reply {
        let (prefix, project) = (self.prefix, self.project);
        let what_next = match restart {
            Restart::OnExit => "I will restart it if it is not back in a minute.".to_owned(),
            Restart::Never => format!(
                "If the host's network is well, restart it: `{prefix} stop {project}`, then `{prefix} start {project}`."
            ),
        };
        let text = format!(
            "**{project}** has been cut off from its service for {}: it runs, but nobody can use it until it reconnects. {what_next}",
            span(lasts)
        );
        Reply::marked(Mark::Failed, text).more(Topic::CutOff)
    }

    /// A session whose program complains, and goes on.
    pub(crate) fn complained(&self, cause: Cause) -> Reply {
        if cause == Cause::Unknown {
            let text = format!(
                "**{}**: {}. I sent its first line privately to everyone who asked for the link.",
                self.project,
                cause.what()
            );
            return Reply::marked(Mark::Busy, text).more(Topic::UnknownError);
        }
        let what = "runs, but no conversation can start in it";
        Failure::of_cause(self, cause).reply(self, Mark::Failed, what, "")
    }

    /// The record of a session was lost, and with it who has the link.
    pub(crate) fn record_lost(&self, is_running: bool) -> Reply {
        let (prefix, project) = (self.prefix, self.project);
        let session = if is_running {
            format!("It still runs: `{prefix} start {project}` gives its link again.")
        } else {
            "No process of it is left.".to_owned()
        };
        Reply::new(format!(
            "The record of **{project}** is lost or unreadable. {session} I cannot delete the messages with its link \
             that I sent before: anyone who has one should delete it."
        ))
    }

    pub(crate) fn too_many_sessions(&self, limit: usize, active: &[ProjectName]) -> Reply {
        let (prefix, project) = (self.prefix, self.project);
        let names: Vec<_> = active.iter().map(ToString::to_string).collect();
        let most = counted(limit, "session", "sessions");
        Reply::new(format!(
            "I did not start **{project}**: there may be no more than {most} at once (`max_sessions`). Sessions now: {}.\n\
             `{prefix} stop PROJECT` ends one.",
            listed(&names)
        ))
    }

    /// For those who have the link of a session that ends soon.
    pub(crate) fn ends_soon(&self, left: Duration) -> Reply {
        let (prefix, project) = (self.prefix, self.project);
        let left = span(left);
        Reply::new(format!(
            "**{project}** ends in {left}. `{prefix} extend {project} 2h` in the admin room gives it more time."
        ))
    }

    /// A start asks for other options than the session has that is there.
    pub(crate) fn other_options(&self, options: &Options) -> Reply {
        let (prefix, project) = (self.prefix, self.project);
        let options = super::status::options(options);
        let options = if options.is_empty() {
            "none that I know of".to_owned()
        } else {
            options.join(", ")
        };
        Reply::new(format!(
            "**{project}** has been started already, with other options: {options}. `{prefix} start {project}` sends you its link \
             as it is; to change the options, say `{prefix} stop {project}` first."
        ))
    }

    /// What to do about a cause, as a sentence.
    fn remedy(&self, cause: Cause) -> String {
        let (prefix, project) = (self.prefix, self.project);
        match cause {
            Cause::Unknown => format!(
                "Claude printed an error that I do not know: I sent its first line privately, and `{prefix} logs {project}` shows \
                 more."
            ),
            Cause::ProgramGone | Cause::ConversationsFail => {
                format!("Say `{prefix} stop {project}`, then `{prefix} start {project}`.")
            }
            Cause::NothingToResume => format!("`{prefix} start {project}` starts a new one."),
            cause => {
                let remedy = cause.remedy(&self.place);
                let (first, rest) = remedy.split_at(remedy.ceil_char_boundary(1));
                format!("{}{rest}.", first.to_uppercase())
            }
        }
    }
}

/// Why something went wrong, and what to do about it: the two lines of each failure.
struct Failure {
    /// Ends the sentence about the project: a clause behind a colon, or the probable cause.
    why: String,
    /// A sentence.
    remedy: Option<String>,
    topic: Option<Topic>,
}

impl Failure {
    /// `is_start`: the session had no link yet.
    fn of(about: &About<'_>, ending: &Ending, is_start: bool) -> Self {
        let (prefix, project) = (about.prefix, about.project);
        let too_early = if is_start {
            " before it showed a link"
        } else {
            ""
        };
        let shows = format!("`{prefix} logs {project}` shows what it printed.");
        let (what, remedy, topic) = match ending {
            Ending::NotSpawned(reason) => not_spawned(reason, &about.place),
            Ending::NoLink { waited, .. } => {
                let waited = humantime::format_duration(*waited);
                let what = format!("it showed no link within {waited}, and was ended");
                (what, Some(shows), Some(Topic::NoLink))
            }
            Ending::ExitedBeforeLink { exit, .. } | Ending::Exited { exit, .. } if is_start => {
                let what = format!("its process ended before it showed a link ({exit})");
                (what, Some(shows), Some(Topic::NoLink))
            }
            Ending::ExitedBeforeLink { exit, .. } | Ending::Exited { exit, .. } => {
                let what = match exit {
                    Exit::Signal(_) => format!("its process was ended by {exit}"),
                    Exit::Code(_) | Exit::Unknown => format!("its process exited ({exit})"),
                };
                let starts = format!("`{prefix} start {project}` starts it again.");
                (what, Some(starts), None)
            }
            Ending::Stopped => (format!("it was stopped{too_early}"), None, None),
            Ending::Expired => (format!("its time was up{too_early}"), None, None),
            Ending::HostRestarted => (format!("the host was restarted{too_early}"), None, None),
            Ending::Completed => {
                let what = "the conversation that it brought back is over";
                (what.to_owned(), None, None)
            }
            Ending::CutOff { lasted } => {
                let lasted = span(*lasted);
                let what = format!("it was cut off from its service for {lasted}");
                (what, None, Some(Topic::CutOff))
            }
        };
        let why = format!(": {what}");
        match ending.cause() {
            Some(Cause::Unknown) => Self {
                why,
                ..Self::of_cause(about, Cause::Unknown)
            },
            Some(cause) => Self::of_cause(about, cause),
            None => Self { why, remedy, topic },
        }
    }

    fn of_cause(about: &About<'_>, cause: Cause) -> Self {
        Self {
            why: format!(". Probable cause: {}", cause.what()),
            remedy: Some(about.remedy(cause)),
            topic: Topic::of_cause(cause),
        }
    }

    /// `what`: happened to the project. `next`: what comes now.
    fn reply(self, about: &About<'_>, mark: Mark, what: &str, next: &str) -> Reply {
        let Self { why, remedy, topic } = self;
        let remedy = remedy.map(|remedy| format!("\n{remedy}"));
        let remedy = remedy.unwrap_or_default();
        let text = format!("**{}** {what}{why}.{next}{remedy}", about.project);
        Reply::marked(mark, text).more(topic)
    }
}

/// What happened, what to do about it, and where to read more.
fn not_spawned(reason: &NotSpawned, place: &Place) -> (String, Option<String>, Option<Topic>) {
    let host = place.host.as_deref().unwrap_or("the host");
    let user = place.user.as_deref().unwrap_or("the bot's user");
    let (what, remedy, topic) = match reason {
        NotSpawned::CommandNotFound { program } => (
            format!("the command `{program}` was not found (ENOENT)"),
            format!("Install it on {host}, or give its full path under `command` in config.yaml."),
            Some(Topic::CommandNotFound),
        ),
        NotSpawned::NotExecutable { program } => (
            format!("the command `{program}` may not be run (EACCES)"),
            format!("Make it executable for {user} on {host}."),
            None,
        ),
        NotSpawned::DirectoryGone { directory } => (
            format!("its directory `{directory}` is gone (ENOENT)"),
            format!("Bring it back on {host}, or change `directory` in config.yaml."),
            None,
        ),
        NotSpawned::DirectoryForbidden { directory } => (
            format!("its directory `{directory}` may not be entered (EACCES)"),
            format!("Let {user} enter it on {host}."),
            None,
        ),
        NotSpawned::TooFewDescriptors { limit } => (
            format!(
                "the bot may have only {limit} files open at once, which is too few for another session"
            ),
            format!(
                "Raise the limit on {host} (`LimitNOFILE=` in a systemd unit, `ulimit -n` in a shell), or stop another session."
            ),
            Some(Topic::TooFewFiles),
        ),
        NotSpawned::Unresponsive { directory } => (
            format!(
                "the directory `{directory}` or the program does not answer, as on a network file system whose server is away"
            ),
            format!("Check its mount on {host}."),
            Some(Topic::Unresponsive),
        ),
        NotSpawned::Other { reason } => return (format!("the host says: {reason}"), None, None),
    };
    (what, Some(remedy), topic)
}

pub(crate) fn stopped(
    project: &ProjectName,
    ending: &Ending,
    report: Option<&StopReport>,
) -> Reply {
    let text = match (report.map(killed), ending) {
        (None, _) => "stopped: no process was running.".to_owned(),
        (Some(killed), Ending::Exited { exit, .. } | Ending::ExitedBeforeLink { exit, .. }) => {
            format!("had already ended ({exit}). What was left is cleared away{killed}.")
        }
        (Some(killed), _) => format!("stopped{killed}."),
    };
    Reply::marked(Mark::Stopped, format!("**{project}** {text}"))
}

pub(crate) fn shutting_down(project: &ProjectName) -> Reply {
    let text = format!(
        "**{project}** is shutting down: its processes were asked to end, and are killed if they take longer than \
         `stop_grace`. I will say when it is over."
    );
    Reply::marked(Mark::Busy, text)
}

/// The answer to the operator where no bot runs. `None`: there was no session.
pub(crate) fn stopped_offline(project: &ProjectName, report: Option<&StopReport>) -> Reply {
    let Some(report) = report else {
        return no_session(None, project);
    };
    Reply::new(format!(
        "**{project}** stopped{}. Its link is deleted, and those who wait for it get an answer, when the bot runs again.",
        killed(report)
    ))
}

fn killed(report: &StopReport) -> String {
    match report.killed {
        0 => String::new(),
        some => {
            let processes = counted(some, "process", "processes");
            format!(" ({processes} had to be killed)")
        }
    }
}

pub(crate) fn reconnected(project: &ProjectName, after: Duration) -> Reply {
    let after = span(after);
    let text = format!(
        "**{project}** is connected to its service again, after {after}. Its link is the same."
    );
    Reply::marked(Mark::Running, text)
}

/// A session got more time. `None`: it has no end.
pub(crate) fn extended(project: &ProjectName, end: Option<&str>) -> Reply {
    Reply::new(match end {
        Some(end) => format!("**{project}** now ends {end}."),
        None => format!("**{project}** has no time limit: it runs until it is stopped."),
    })
}

/// For those who have the link of a session that began at `since`; below the sentence that says how it ended, if there is one.
pub(crate) fn link_is_void(
    project: &ProjectName,
    how: Option<Reply>,
    since: SystemTime,
    now: SystemTime,
) -> Reply {
    let ended = how.unwrap_or_else(|| Reply::new(format!("**{project}** has ended.")));
    let deleted = format!(
        "I deleted the message with its link of {}. The next session may have the same link: keep no copy of it.",
        moment(since, now)
    );
    Reply::lines([ended, Reply::new(deleted)])
}

pub(crate) fn ended_before_delivery(project: &ProjectName) -> Reply {
    Reply::new(format!(
        "**{project}** ended before I could send you the link. Start it again if you need it."
    ))
}

pub(crate) fn not_ended(project: &ProjectName, reason: &str) -> Reply {
    Reply::new(format!(
        "**{project}** cannot be ended as a whole: {reason}. End that process on the host; I keep trying, and the project can be \
         started again once it is gone."
    ))
    .more(Topic::NotEnded)
}

/// There is nothing to stop or to extend. The operator on the host, who cannot start one either, has no `prefix`.
pub(crate) fn no_session(prefix: Option<&str>, project: &ProjectName) -> Reply {
    let remedy = prefix.map_or_else(String::new, |prefix| {
        format!(" `{prefix} start {project}` starts it.")
    });
    Reply::new(format!("**{project}** is not running.{remedy}"))
}

pub(crate) fn stopping(project: &ProjectName) -> Reply {
    Reply::new(format!(
        "**{project}** is being stopped right now. Try again in a moment."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn website() -> ProjectName {
        "website".parse().unwrap()
    }

    fn about<'a>(project: &'a ProjectName, directory: &str) -> About<'a> {
        About {
            prefix: "!rc",
            project,
            place: Place {
                host: Some("buildhost".to_owned()),
                user: Some("alice".to_owned()),
                directory: Some(directory.into()),
            },
        }
    }

    #[test]
    fn a_failure_is_two_lines_the_cause_and_the_remedy() {
        let website = website();
        let said = |ending| about(&website, "/srv/website").not_started(&ending).plain;
        let exit = Exit::Code(1);
        let exited = |cause| Ending::ExitedBeforeLink { exit, cause };
        let program = "claude".to_owned();
        for (ending, why, remedy, topic) in [
            (
                Ending::NotSpawned(NotSpawned::CommandNotFound { program }),
                ": the command `claude` was not found (ENOENT).",
                "Install it on buildhost, or give its full path under `command` in config.yaml.",
                "command-not-found",
            ),
            (
                exited(Some(Cause::WorkspaceNotTrusted)),
                ". Probable cause: claude does not trust the project's directory.",
                "Run `cd /srv/website && claude` on buildhost as alice, and answer yes.",
                "directory-not-trusted",
            ),
            (
                exited(Some(Cause::Unknown)),
                ": its process ended before it showed a link (exit code 1).",
                "Claude printed an error that I do not know: I sent its first line privately, and `!rc logs website` shows more.",
                "unknown-error",
            ),
            (
                exited(None),
                ": its process ended before it showed a link (exit code 1).",
                "`!rc logs website` shows what it printed.",
                "no-link",
            ),
            (
                exited(Some(Cause::NothingToResume)),
                ". Probable cause: there is no recent conversation to bring back.",
                "`!rc start website` starts a new one.",
                "",
            ),
        ] {
            let more = match topic {
                "" => String::new(),
                topic => format!(" More: `docs/troubleshooting.md#{topic}`"),
            };
            assert_eq!(
                said(ending),
                format!("website did not start{why}\n{remedy}{more}")
            );
        }
    }

    #[test]
    fn a_retry_does_not_advise_to_try_again() {
        let website = website();
        let (about, delay) = (about(&website, "/srv/website"), Duration::from_secs(5));
        let said = |cause| {
            let cause = Some(cause);
            let exit = Exit::Code(1);
            let start = Ending::ExitedBeforeLink { exit, cause };
            let run = Ending::Exited { exit, cause };
            let start = about.restarting(&start, delay, false);
            let run = about.restarting(&run, delay, true);
            [start, run].map(|said| said.plain.lines().nth(1).map(str::to_owned))
        };
        for cause in [
            Cause::ServiceBusy,
            Cause::ServiceFails,
            Cause::EnvironmentLost,
        ] {
            assert_eq!(said(cause), [None, None], "{cause:?}");
        }
        let stop = "Stop the other one if there is one, such as in a terminal of buildhost. More: \
                    `docs/troubleshooting.md#already-served`";
        assert_eq!(
            said(Cause::AlreadyServed),
            [(); 2].map(|()| Some(stop.to_owned()))
        );
    }

    #[test]
    fn a_running_session_that_cannot_be_used_is_reported_with_one_remedy() {
        let website = website();
        let said = |cause| about(&website, "/srv/website").complained(cause).plain;
        let gone = "website runs, but no conversation can start in it. Probable cause: ";
        let restart = "Say `!rc stop website`, then `!rc start website`.";
        for (cause, remedy) in [
            (Cause::ProgramGone, restart),
            (Cause::ConversationsFail, restart),
            (Cause::DirectoryGone, "Bring it back on buildhost."),
        ] {
            let more = "More: `docs/troubleshooting.md#no-conversation-starts`";
            assert_eq!(
                said(cause),
                format!("{gone}{}.\n{remedy} {more}", cause.what())
            );
        }
        assert!(!said(Cause::Unknown).contains(gone));
    }

    #[test]
    fn a_directory_is_shown_as_a_shell_takes_it_or_not_at_all() {
        let website = website();
        let ending = Ending::NoLink {
            waited: Duration::from_secs(30),
            cause: Some(Cause::WorkspaceNotTrusted),
        };
        for (directory, shown) in [
            ("/srv/my site", "Run `cd '/srv/my site' && claude` on"),
            ("/srv/it's", r"Run `cd '/srv/it'\''s' && claude` on"),
            ("/srv/`x`", "Run `claude` in the project's directory on"),
        ] {
            let said = about(&website, directory).not_started(&ending).plain;
            assert!(said.contains(shown), "{said}");
        }
    }

    #[test]
    fn a_stop_counts_the_processes_that_had_to_be_killed() {
        let reply = |killed| {
            let report = StopReport {
                processes: 4,
                killed,
                took: Duration::from_millis(340),
            };
            stopped(&website(), &Ending::Stopped, Some(&report)).plain
        };
        assert_eq!(reply(0), "website stopped.");
        assert_eq!(reply(1), "website stopped (1 process had to be killed).");
        assert_eq!(reply(3), "website stopped (3 processes had to be killed).");
    }

    #[test]
    fn the_end_of_a_session_is_marked_by_whether_it_was_wanted() {
        let website = website();
        let said = |ending| about(&website, "/srv/website").ended(&ending);
        let crash = Ending::Exited {
            exit: Exit::Code(1),
            cause: None,
        };
        assert_eq!(
            said(crash).html,
            "🔴 <strong>website</strong> has ended: its process exited (exit code 1).<br><code>!rc start website</code> \
             starts it again."
        );
        let expired = said(Ending::Expired).html;
        assert_eq!(
            expired,
            "⏹️ <strong>website</strong> has ended: its time was up."
        );
    }
}
