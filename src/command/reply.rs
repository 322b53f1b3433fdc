//! Every sentence the bot says, plain and HTML. Each says what happened, and what to do.
//!
//! Invariant: no sentence holds a link, and none but [`last_output`] a word that a session's process printed.

use std::time::{Duration, SystemTime};

mod confidential;
mod refusal;
mod report;
mod session;
mod status;

pub(crate) use confidential::*;
pub(crate) use refusal::*;
pub(crate) use report::*;
pub(crate) use session::*;
pub(crate) use status::*;

use matrix_sdk::ruma::{RoomId, RoomOrAliasId};

use crate::remote_control::ProjectName;

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

/// The bot cannot write down what it was asked for.
pub(crate) fn not_recorded(project: &ProjectName, reason: &str) -> Reply {
    Reply::new(format!(
        "I did nothing about {project}, as I cannot write it down ({reason}). Make room in the bot's data directory on \
         the host, or make it writable, and try again."
    ))
}

/// The list of commands.
#[must_use]
pub fn help(prefix: &str) -> Reply {
    let commands = format!(
        "`{prefix} start [project]`: start a session, or get the running one's link again\n\
         `{prefix} resume [project]`: the same, and bring back the last conversation\n\
         `{prefix} stop [project]`: end the session and all its processes\n\
         `{prefix} status`: what runs, since when, and who started it\n\
         `{prefix} extend [project] 2h`: move the session's end\n\
         `{prefix} logs [project]`: the last lines that the session printed, privately\n\
         `{prefix} doctor`: try everything that a session needs, and send you the report privately\n\
         `{prefix} help`: this list"
    );
    let rest = "The project may be left out where there is only one, and for `stop`, `extend` and `logs` where only one \
                has a session.";
    let items = commands
        .lines()
        .map(|line| format!("<li>{}</li>", Reply::new(line).html));
    Reply {
        plain: format!("{commands}\n{rest}"),
        html: format!(
            "<ul>{}</ul><p>{}</p>",
            items.collect::<String>(),
            Reply::new(rest).html
        ),
    }
}

/// Somebody writes to the bot in their direct message, where no command counts.
pub(crate) fn commands_count_elsewhere(prefix: &str, admin_room: &RoomOrAliasId) -> Reply {
    let admin_room = match <&RoomId>::try_from(admin_room) {
        // Clients open such an address, and show nothing for an id.
        Ok(id) => id.matrix_to_uri().to_string(),
        Err(alias) => alias.to_string(),
    };
    Reply::new(format!(
        "I am a bot and read no messages here. Commands such as `{prefix} start` and `{prefix} help` count only in the \
         admin room: {}",
        unmarked(&admin_room)
    ))
}

/// The admin room was upgraded to the one in which this is said.
pub(crate) fn moved_here() -> Reply {
    Reply::new(
        "I followed the upgrade of the admin room: commands count here now, and no longer in the room before.",
    )
}

/// A text from elsewhere, which is not to be taken for code.
fn unmarked(text: &str) -> String {
    text.replace('`', "'")
}

/// A time of day that means the same to everybody.
fn moment(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    let minutes = text.get(.."2026-09-21T14:13".len()).unwrap_or(&text);
    format!("{} UTC", minutes.replace('T', " "))
}

/// When a session ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    at: SystemTime,
    left: Duration,
}

impl End {
    pub(crate) fn after(now: SystemTime, left: Duration) -> Self {
        Self {
            at: now.checked_add(left).unwrap_or(now),
            left,
        }
    }

    fn moment(self) -> String {
        moment(self.at)
    }

    /// How far off it is, to the nearest minute: of twelve hours, a moment is gone already.
    fn span(self) -> String {
        let left = rounded(self.left + Duration::from_secs(30));
        humantime::format_duration(left).to_string()
    }
}

/// Seconds matter in the first minutes only.
fn rounded(age: Duration) -> Duration {
    let seconds = age.as_secs();
    let unit = if seconds < 600 { 1 } else { 60 };
    Duration::from_secs(seconds - seconds % unit)
}
