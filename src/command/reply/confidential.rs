//! Replies in confidence, with a link above all, and what is said where they cannot be sent.

use std::{
    fmt,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use matrix_sdk::ruma::RoomId;

use super::{IDENTITY_CHANGED, Mark, Reply, Topic, moment, unmarked};
use crate::{
    matrix::{NotConfidential, PICTURE_SIGN},
    remote_control::{Options, Output, OutputError, ProjectName, Quote},
};

/// How many bytes of output are shown: they fit into an event of 64 KiB, encrypted, and on a phone they are ten screens.
const LONGEST_OUTPUT: usize = 10 * 1024;

/// The words that become a link to its room.
const DIRECT_MESSAGE: &str = "direct message";

/// What a link opens.
#[derive(Debug, Clone)]
pub(crate) struct Opens {
    pub(crate) project: ProjectName,
    pub(crate) host: String,
    /// The project's directory. `None`: it left the configuration.
    pub(crate) directory: Option<PathBuf>,
    /// The claude.ai account for which the link opens, where that is known.
    pub(crate) account: Option<String>,
    pub(crate) options: Options,
    /// When the session ends. `None`: it goes on until it is stopped.
    pub(crate) end: Option<String>,
}

/// The text before a link, and after it. Short lines, as they are read on a phone.
pub(crate) fn around_link(prefix: &str, opens: &Opens) -> (Reply, Reply) {
    let Opens { project, host, .. } = opens;
    let mut lines = Vec::new();
    lines.extend(opens.directory.as_ref().map(|directory| {
        let directory = unmarked(&directory.to_string_lossy());
        format!("**Directory:** `{directory}`")
    }));
    lines.push(match &opens.account {
        // As code, so that no client makes an address of it to write to, right below the link.
        Some(account) => format!("**Opens for:** `{}` at claude.ai", unmarked(account)),
        None => format!("**Opens for:** the claude.ai account that is logged in on {host}"),
    });
    let options = super::status::options(&opens.options);
    if !options.is_empty() {
        lines.push(format!("**Runs with:** {}", options.join(", ")));
    }
    lines.push(match &opens.end {
        Some(end) => format!("**Ends** {end}"),
        None => "**Ends** when somebody stops it".to_owned(),
    });
    lines.push(format!(
        "**To end it:** `{prefix} stop {project}` in the admin room"
    ));
    lines.push(format!(
        "**QR code:** react to this message with {PICTURE_SIGN}"
    ));
    lines.push(String::new());
    lines.push(format!(
        "Whoever has this link can run commands on {host}: keep it to yourself."
    ));
    (
        Reply::new(format!("**{project}** on **{host}**")),
        Reply::new(lines.join("\n")),
    )
}

/// The caption of a link's picture.
pub(crate) fn picture(project: &ProjectName) -> Reply {
    Reply::new(format!(
        "QR code of the link for **{project}**: open it on a phone with the phone's camera."
    ))
}

/// What a session complained of, for those who may have its link.
pub(crate) fn quote(project: &ProjectName, quote: &Quote) -> Reply {
    let head = format!("**{project}: an error that it printed**");
    with_output(&head, quote.expose())
}

/// What a session printed last, for those who may have its link.
pub(crate) fn last_output(project: &ProjectName, output: &Output, now: SystemTime) -> Reply {
    if output.is_empty() {
        return Reply::new(format!("**{project}** has printed nothing."));
    }
    excerpt(project, output, now, "")
}

/// The same in a message that is kept up to date, until then or until something else comes.
pub(crate) fn followed_output(
    project: &ProjectName,
    output: &Output,
    now: SystemTime,
    until: Result<SystemTime, NoLongerFollowed>,
) -> Reply {
    let state = match until {
        Ok(end) => format!(", kept up to date until {}", moment(end, now)),
        Err(why) => format!(", no longer kept up to date: {}", why.words()),
    };
    excerpt(project, output, now, &state)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoLongerFollowed {
    TimeUp,
    NoSession,
    AskedAgain,
    BotEnds,
}

impl NoLongerFollowed {
    fn words(self) -> &'static str {
        match self {
            Self::TimeUp => "the time is up",
            Self::NoSession => "the session is over",
            Self::AskedAgain => "you asked for a log again",
            Self::BotEnds => "the bot was ended or restarted",
        }
    }
}

fn excerpt(project: &ProjectName, output: &Output, now: SystemTime, state: &str) -> Reply {
    let all = output.expose();
    // The end of the output is most useful.
    let mut text = all
        .split_at(all.ceil_char_boundary(all.len().saturating_sub(LONGEST_OUTPUT)))
        .1;
    let mut cut = "";
    if text.len() < all.len() {
        cut = " and that fit into a message";
        text = text.split_once('\n').map_or(text, |(_, whole)| whole);
    }
    if text.is_empty() {
        text = "(nothing yet)";
    }
    let head = format!(
        "**{project}: the last lines that it printed{cut}, as of {}{state}**",
        moment(now, now)
    );
    with_output(&head, text)
}

/// The only replies with words of a process.
fn with_output(head: &str, text: &str) -> Reply {
    let head = Reply::new(head);
    Reply {
        plain: format!("{}\n\n{text}", head.plain),
        html: format!(
            "<p>{}</p><pre><code>{}</code></pre>",
            head.html,
            html_escape::encode_text(text)
        ),
    }
}

pub(crate) fn no_output(project: &ProjectName, error: &OutputError) -> Reply {
    Reply::new(match error {
        OutputError::None => {
            format!("**{project}** has printed nothing yet: it has had no session.")
        }
        OutputError::Read { .. } => {
            format!("I cannot read what **{project}** printed. The bot's log on the host says why.")
        }
    })
}

/// What only its requester may see.
#[derive(Debug, Clone)]
pub(crate) enum Secret {
    Link(ProjectName),
    Picture(ProjectName),
    Output(ProjectName),
    /// The report of `doctor`, which names files and people.
    Report,
}

impl Secret {
    pub(crate) fn project(&self) -> Option<&ProjectName> {
        match self {
            Self::Link(project) | Self::Picture(project) | Self::Output(project) => Some(project),
            Self::Report => None,
        }
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(project) => write!(formatter, "the link for {project}"),
            Self::Picture(project) => write!(formatter, "the QR code for {project}"),
            Self::Output(project) => write!(formatter, "the output of {project}"),
            Self::Report => formatter.write_str("the report"),
        }
    }
}

/// `is_repeated`: the session was running before they asked. `is_invited`: they have not joined the direct message yet.
pub(crate) fn link_sent(
    project: &ProjectName,
    is_repeated: bool,
    room: &RoomId,
    is_invited: bool,
) -> Reply {
    let how = if is_repeated {
        "is already running. Its link is in our direct message again."
    } else {
        "is running. The link is in our direct message."
    };
    let invitation = if is_invited {
        " Accept my invitation to it."
    } else {
        ""
    };
    let text = format!("**{project}** {how}{invitation}");
    Reply::marked(Mark::Running, text).with_direct_message(room)
}

/// What a session printed is in its requester's direct message. `follow`: for how long new output is shown there too.
pub(crate) fn output_sent(project: &ProjectName, follow: Option<Duration>) -> Reply {
    let follow = follow.map(|time| {
        let time = humantime::format_duration(time);
        format!(" I keep that message up to date for {time}.")
    });
    Reply::new(format!(
        "**{project}**: what it printed last is in our {DIRECT_MESSAGE}.{}",
        follow.unwrap_or_default()
    ))
}

/// The report of `doctor` is there. Its summary is for everybody.
pub(crate) fn report_sent(summary: &str) -> Reply {
    Reply::new(format!("{summary} The report is in our {DIRECT_MESSAGE}."))
}

impl Reply {
    /// The same, with a link to the direct message that it speaks of.
    pub(crate) fn with_direct_message(self, room: &RoomId) -> Self {
        self.linked(DIRECT_MESSAGE, room)
    }
}

pub(crate) fn undeliverable(secret: &Secret, reason: &NotConfidential) -> Reply {
    let (why, topic) = match reason {
        NotConfidential::NoIdentity => (
            "your account has no cross-signing identity, so I cannot tell which devices are yours. Set up encryption \
             (secure backup) in your client's settings, and try again."
                .to_owned(),
            Some(Topic::NoIdentity),
        ),
        NotConfidential::IdentityChanged => {
            (format!("{IDENTITY_CHANGED}."), Some(Topic::IdentityChanged))
        }
        NotConfidential::NoReadableDevice => (
            "none of your devices is verified. Verify this device in your client's settings, and try again.".to_owned(),
            Some(Topic::NotVerified),
        ),
        NotConfidential::Overheard => {
            let what_now = match secret {
                Secret::Link(_) | Secret::Picture(_) => {
                    " and end the session, as they may have read it. Leave that room, and start again."
                }
                Secret::Output(_) | Secret::Report => ". Leave that room, and try again.",
            };
            let why = "somebody else was in our direct message when I sent it. I deleted it";
            (format!("{why}{what_now}"), Some(Topic::Overheard))
        }
        NotConfidential::RoomRefused { reason } => (
            format!(
                "the homeserver would not make a direct message with you ({}). Nothing was sent.",
                unmarked(reason)
            ),
            None,
        ),
    };
    Reply::new(format!("I cannot send you {secret}: {why}")).more(topic)
}

pub(crate) fn no_longer_allowed(secret: &Secret) -> Reply {
    Reply::new(format!(
        "I did not send you {secret}: you may not command me any more."
    ))
}

/// The homeserver rejects it, and a retry does not help.
pub(crate) fn not_taken(secret: &Secret) -> Reply {
    Reply::new(format!(
        "I cannot send you {secret}: the homeserver does not take it. The bot's log on the host says why."
    ))
}

#[cfg(test)]
mod tests {
    use super::{super::end_after, *};
    use crate::remote_control::SessionName;

    fn website() -> Opens {
        Opens {
            project: "website".parse().unwrap(),
            host: "buildhost".to_owned(),
            directory: Some("/srv/web`site".into()),
            account: Some("alice@example.org".to_owned()),
            options: Options {
                mode: Some("plan".to_owned()),
                spawn: Some("worktree".to_owned()),
                name: SessionName::try_from("fix the build".to_owned()).ok(),
            },
            end: Some(end_after(
                SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 - 43_199),
                Duration::from_secs(43_199),
            )),
        }
    }

    #[test]
    fn a_link_comes_with_what_it_opens_for_whom_until_when_and_how_to_stop_it() {
        let (before, after) = around_link("!rc", &website());
        assert_eq!(before.plain, "website on buildhost");
        assert_eq!(
            before.html,
            "<strong>website</strong> on <strong>buildhost</strong>"
        );
        let lines = [
            "Directory: `/srv/web'site`",
            "Opens for: `alice@example.org` at claude.ai",
            "Runs with: permission mode plan, spawn mode worktree, name \"fix the build\"",
            "Ends in 12h (14:13 UTC)",
            "To end it: `!rc stop website` in the admin room",
            "QR code: react to this message with 📷",
            "",
            "Whoever has this link can run commands on buildhost: keep it to yourself.",
        ];
        assert_eq!(after.plain, lines.join("\n"));
        assert!(
            after.html.contains("<code>!rc stop website</code>"),
            "{}",
            after.html
        );
    }

    #[test]
    fn a_requester_who_has_not_joined_the_direct_message_is_asked_to() {
        let (website, room) = (
            "website".parse().unwrap(),
            "!dm:example.org".try_into().unwrap(),
        );
        let said = |is_repeated, is_invited| link_sent(&website, is_repeated, room, is_invited);
        assert_eq!(
            said(false, true).plain,
            "website is running. The link is in our direct message. Accept my invitation to it."
        );
        let again = said(true, false);
        assert_eq!(
            again.plain,
            "website is already running. Its link is in our direct message again."
        );
        let room = "<a href=\"https://matrix.to/#/!dm:example.org\">direct message</a>";
        assert!(again.html.contains(room), "{}", again.html);
    }

    #[test]
    fn unknown_facts_of_a_session_are_left_out() {
        let opens = Opens {
            directory: None,
            account: None,
            options: Options::default(),
            end: None,
            ..website()
        };
        let (_, after) = around_link("!rc", &opens);
        assert!(
            after.plain.starts_with(
                "Opens for: the claude.ai account that is logged in on buildhost\nEnds when somebody stops it\n"
            ),
            "{}",
            after.plain
        );
    }
}
