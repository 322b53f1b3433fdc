//! Every sentence the bot says, plain and HTML. Each says what happened, and what to do.
//!
//! Invariant: no sentence holds a link, and none but those made by `with_output` a word that a session's process printed.

use std::time::{Duration, SystemTime};

mod confidential;
mod hosts;
mod projects;
mod refusal;
mod report;
mod session;
mod status;
mod topic;

pub(crate) use crate::matrix::Reply;
pub(crate) use confidential::*;
pub(crate) use hosts::*;
pub(crate) use projects::*;
pub(crate) use refusal::*;
pub(crate) use report::*;
pub(crate) use session::*;
pub(crate) use status::*;
pub use topic::Topic;

use matrix_sdk::ruma::{RoomId, RoomOrAliasId};

use crate::{
    config::{Devices, HostName},
    remote_control::{Phase, ProjectName},
};

/// How many names or lines of a list are shown: what fits on two screens of a phone.
const MOST_LISTED: usize = 40;

/// The state of a session or a project as a symbol. The words beside it say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Running,
    /// On its way from one state to another.
    Busy,
    /// Ended as requested.
    Stopped,
    /// Failed, or ended without a request.
    Failed,
    Idle,
}

impl Mark {
    fn of(phase: Phase) -> Self {
        match phase {
            Phase::Running => Self::Running,
            Phase::Starting | Phase::Stopping | Phase::AwaitingRestart => Self::Busy,
        }
    }

    fn symbol(self) -> &'static str {
        match self {
            Self::Running => "🟢",
            Self::Busy => "🟡",
            Self::Stopped => "⏹️",
            Self::Failed => "🔴",
            Self::Idle => "⚪",
        }
    }
}

impl Reply {
    /// Lines of text, in which text between backticks is code, verbatim, and elsewhere text between two pairs of asterisks is
    /// bold: `strong`, as some clients (Hydrogen) leave `b` out.
    fn new(text: impl AsRef<str>) -> Self {
        let (mut plain, mut html) = (String::new(), String::new());
        let mut bold = ["<strong>", "</strong>"].into_iter().cycle();
        for (index, part) in text.as_ref().split('`').enumerate() {
            let is_code = index % 2 == 1;
            if index > 0 {
                plain.push('`');
                html.push_str(if is_code { "<code>" } else { "</code>" });
            }
            if is_code {
                plain.push_str(part);
                html.push_str(&in_html(part));
                continue;
            }
            for (index, piece) in part.split("**").enumerate() {
                if index > 0 {
                    html.extend(bold.next());
                }
                plain.push_str(piece);
                html.push_str(&in_html(piece));
            }
        }
        // Space at the beginning of a line is lost in HTML.
        html = html.replace("<br>  ", "<br>\u{a0}\u{a0}");
        if html.starts_with("  ") {
            html.replace_range(..2, "\u{a0}\u{a0}");
        }
        Self { plain, html }
    }

    /// The same after a mark, which clients without HTML can do without.
    fn marked(mark: Mark, text: impl AsRef<str>) -> Self {
        let Self { plain, html } = Self::new(text);
        Self {
            plain,
            html: format!("{} {html}", mark.symbol()),
        }
    }

    /// The same, with a link to a room behind the first of these words. Clients open such an address.
    fn linked(mut self, words: &str, room: &RoomId) -> Self {
        let address = room.matrix_to_uri().to_string();
        let href = html_escape::encode_double_quoted_attribute(&address);
        let link = format!("<a href=\"{href}\">{words}</a>");
        self.html = self.html.replacen(words, &link, 1);
        self
    }

    fn paragraphs(replies: impl IntoIterator<Item = Self>) -> Self {
        let (plain, html): (Vec<_>, Vec<_>) = replies
            .into_iter()
            .map(|Self { plain, html }| (plain, format!("<p>{html}</p>")))
            .unzip();
        Self {
            plain: plain.join("\n\n"),
            html: html.concat(),
        }
    }

    fn lines(replies: impl IntoIterator<Item = Self>) -> Self {
        let (plain, html): (Vec<_>, Vec<_>) = replies
            .into_iter()
            .map(|reply| (reply.plain, reply.html))
            .unzip();
        Self {
            plain: plain.join("\n"),
            html: html.join("<br>"),
        }
    }
}

fn in_html(text: &str) -> String {
    html_escape::encode_text(text).replace('\n', "<br>")
}

pub(crate) fn not_recorded(project: &ProjectName, reason: &str) -> Reply {
    Reply::new(format!(
        "Not done: I could not record the command for **{project}** on disk ({reason}). Free space in the bot's data directory \
         on the host, or make it writable, and try again."
    ))
}

/// The list of commands, and the projects that they can be about.
pub fn help(prefix: &str, projects: &[String], has_roots: bool) -> Reply {
    let commands = format!(
        "`{prefix} start [project] [options]`: start a session, or get the running one's link again. Options, as far as the \
         configuration allows them: `--mode plan` (permission mode), `--spawn worktree`, `--name \"fix the build\"`\n\
         `{prefix} resume [project] [options]`: start a session, and bring back the last conversation; without `--spawn`\n\
         `{prefix} stop [project]`: end the session and all its processes\n\
         `{prefix} status`: what runs, since when, and who started it\n\
         `{prefix} projects [word]`: what can be started, and its git branch\n\
         `{prefix} extend [project] 2h`: move the session's end\n\
         `{prefix} logs [project] [100] [--follow 5m]`: the last lines that the session printed, privately; with `--follow`, in a message \
         that is kept up to date\n\
         `{prefix} doctor`: try everything that a session needs, and send you the report privately\n\
         `{prefix} help`: this list"
    );
    let items = commands
        .lines()
        .map(|line| format!("<li>{}</li>", Reply::new(line).html));
    let projects = Reply::new(if has_roots {
        let named = projects.iter().map(|name| format!("`{name}`, "));
        let named: String = named.take(MOST_LISTED).collect();
        format!("Projects: {named}and the folders below the project roots.")
    } else {
        format!("Projects: {}.", listed(projects))
    });
    Reply {
        plain: format!("{commands}\n{}", projects.plain),
        html: format!(
            "<ul>{}</ul><p>{}</p>",
            items.collect::<String>(),
            projects.html
        ),
    }
}

/// Names in a sentence.
fn listed(names: &[String]) -> String {
    listed_with(names, 0)
}

/// The same, and how many there are besides. Nobody reads two hundred.
fn listed_with(names: &[String], more: usize) -> String {
    let more = more + names.len().saturating_sub(MOST_LISTED);
    let names = names.iter().take(MOST_LISTED);
    let mut parts: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    match (parts.is_empty(), more) {
        (true, 0) => parts.push("none".to_owned()),
        (_, 0) => {}
        (true, more) => parts.push(format!("{more}")),
        (false, more) => parts.push(format!("and {more} more")),
    }
    parts.join(", ")
}

/// Somebody writes to the bot in their direct message, where no command counts.
pub(crate) fn commands_count_elsewhere(prefix: &str, admin_room: &RoomOrAliasId) -> Reply {
    let says = format!(
        "I am a bot and read no messages here. I take commands, such as `{prefix} start` and `{prefix} help`, only in"
    );
    match <&RoomId>::try_from(admin_room) {
        // Clients show the name of a room in place of such a link.
        Ok(id) => {
            let Reply { html, .. } =
                Reply::new(format!("{says} the admin room.")).linked("the admin room", id);
            let plain = format!("{says} the admin room: {}", id.matrix_to_uri());
            Reply { plain, html }
        }
        Err(alias) => Reply::new(format!(
            "{says} the admin room: {}",
            unmarked(alias.as_str())
        )),
    }
}

pub(crate) fn greeting(prefix: &str, host: &HostName, devices: Devices) -> Reply {
    let verify = match devices {
        Devices::CrossSigned => {
            " Use a device that is verified: no other can command me or read my answers."
        }
        Devices::Any => "",
    };
    Reply::new(format!(
        "Hello! I start Claude Code sessions on **{host}**, and send you their links privately.\n`{prefix} start` starts one, \
         `{prefix} help` lists the commands.{verify}"
    ))
}

pub(crate) fn moved_here() -> Reply {
    Reply::new(
        "I followed the upgrade of the admin room: I take commands here from now on, and no longer in the old room.",
    )
}

/// Foreign text without the marks of code and bold.
fn unmarked(text: &str) -> String {
    text.replace('`', "'").replace("**", "*")
}

/// A count with its noun.
pub(crate) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A time of day that means the same to everybody; with its date unless that is today's.
fn moment(time: SystemTime, now: SystemTime) -> String {
    let (time, now) = (rfc3339(time), rfc3339(now));
    let (Some((date, clock)), Some((today, _))) = (time.split_once('T'), now.split_once('T'))
    else {
        return time;
    };
    let minutes = clock.get(.."14:13".len()).unwrap_or(clock);
    if date == today {
        format!("{minutes} UTC")
    } else {
        format!("{date} {minutes} UTC")
    }
}

/// A time of RFC 3339, or the nearest that `humantime` can write: a file can name any, at which it would panic.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let latest = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    let time = time.clamp(SystemTime::UNIX_EPOCH, latest);
    humantime::format_rfc3339_seconds(time).to_string()
}

/// When a session ends, as in "ends in 2h (14:13 UTC)", to the nearest minute: of twelve hours, a moment is gone already.
pub(crate) fn end_after(now: SystemTime, left: Duration) -> String {
    let at = now.checked_add(left).unwrap_or(now);
    let left = span(left + Duration::from_secs(30));
    format!("in {left} ({})", moment(at, now))
}

/// Seconds matter in the first minutes only.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let unit = if seconds < 600 { 1 } else { 60 };
    let rounded = Duration::from_secs(seconds - seconds % unit);
    humantime::format_duration(rounded).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_1970_or_after_9999_is_written_too() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(1);
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(moment(before, now), "00:00 UTC");
        let last = moment(now + Duration::from_secs(1 << 40), now);
        assert_eq!(last, "9999-12-31 23:59 UTC");
    }

    #[test]
    fn code_is_verbatim_for_any_command_prefix() {
        let reply = Reply::new("**website** failed: say `** <start>`, or **`**`**");
        assert_eq!(
            reply.html,
            "<strong>website</strong> failed: say <code>** &lt;start&gt;</code>, or <strong><code>**</code></strong>"
        );
        assert_eq!(reply.plain, "website failed: say `** <start>`, or `**`");
    }
}
