//! What is said around a link, and where none can be sent.

use std::{fmt, path::PathBuf};

use super::{End, Reply, unmarked};
use crate::{matrix::NotConfidential, remote_control::ProjectName};

/// The link is in the requester's direct message.
#[must_use]
pub fn running(project: &ProjectName) -> Reply {
    Reply::new(format!(
        "Session for {project} is running. I sent you the link privately."
    ))
}

/// What a link opens.
#[derive(Debug, Clone)]
pub struct Opens {
    /// The project.
    pub project: ProjectName,
    /// The host.
    pub host: String,
    /// The project's directory. `None`: it left the configuration.
    pub directory: Option<PathBuf>,
    /// The claude.ai account for which the link opens, where that is known.
    pub account: Option<String>,
    /// When the session ends. `None`: it goes on until it is stopped.
    pub until: Option<End>,
}

/// What stands before a link, and after it. Short lines, as they are read on a phone.
#[must_use]
pub fn around_link(prefix: &str, opens: &Opens) -> (Reply, Reply) {
    let Opens {
        project,
        host,
        directory,
        account,
        until,
    } = opens;
    let mut lines = Vec::new();
    lines.extend(directory.as_ref().map(|directory| {
        let directory = unmarked(&directory.to_string_lossy());
        format!("Directory: `{directory}`")
    }));
    lines.push(match account {
        Some(account) => format!("Opens for: {}, at claude.ai", unmarked(account)),
        None => format!("Opens for: the claude.ai account that is logged in on {host}"),
    });
    lines.push(match until {
        Some(end) => format!("Until: {} ({})", end.moment(), end.span()),
        None => "Until: somebody stops it".to_owned(),
    });
    lines.push(String::new());
    lines.push(format!(
        "Whoever has this link can run commands on {host}: keep it to yourself."
    ));
    lines.push(format!(
        "To end the session, say `{prefix} stop {project}` in the admin room."
    ));
    (
        Reply::new(format!("Remote Control session for {project} on {host}:")),
        Reply::new(lines.join("\n")),
    )
}

/// What is said of a link's picture, which stands below the link.
#[must_use]
pub fn picture() -> Reply {
    Reply::new("The same link as a QR code: open it on a phone with the phone's camera.")
}

/// What only its requester may see.
#[derive(Debug, Clone, Copy)]
pub enum Secret<'a> {
    /// The link of a project's session.
    Link(&'a ProjectName),
    /// What a project's session printed.
    Output(&'a ProjectName),
}

impl<'a> Secret<'a> {
    /// Which project it is about.
    #[must_use]
    pub fn project(self) -> &'a ProjectName {
        match self {
            Self::Link(project) | Self::Output(project) => project,
        }
    }
}

impl fmt::Display for Secret<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(project) => write!(formatter, "the link for {project}"),
            Self::Output(project) => write!(formatter, "the output of {project}"),
        }
    }
}

/// Something cannot be delivered in confidence.
#[must_use]
pub fn undeliverable(secret: Secret<'_>, reason: &NotConfidential) -> Reply {
    match (secret, reason) {
        (Secret::Link(project), NotConfidential::Overheard) => Reply::new(format!(
            "I cannot send you the link for {project}: somebody else was in our direct message when I sent it. I took it \
             back and end the session, as they may have read it. Leave that room, and start again."
        )),
        (Secret::Link(_) | Secret::Output(_), reason) => {
            not_confidential(&secret.to_string(), reason)
        }
    }
}

/// Something cannot be delivered in confidence, and why.
pub(super) fn not_confidential(what: &str, reason: &NotConfidential) -> Reply {
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
            "somebody else was in our direct message when I sent it. I took it back. Leave that room, and try again."
        }
        NotConfidential::RoomRefused { reason } => {
            return Reply::new(format!(
                "I cannot send you {what}: the homeserver would not make a direct message with you ({}). Nothing \
                 was sent.",
                unmarked(reason)
            ));
        }
    };
    Reply::new(format!("I cannot send you {what}: {reason}"))
}

/// The requester may no longer have what they asked for.
#[must_use]
pub fn no_longer_allowed(secret: Secret<'_>) -> Reply {
    Reply::new(format!(
        "I did not send {secret}: whoever asked for it may not command me now."
    ))
}

/// The homeserver does not take it, and waiting does not help.
#[must_use]
pub fn not_taken(secret: Secret<'_>) -> Reply {
    Reply::new(format!(
        "I cannot send you {secret}: the homeserver does not take it. The bot's log on the host says why."
    ))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn website() -> Opens {
        Opens {
            project: "website".parse().unwrap(),
            host: "buildhost".to_owned(),
            directory: Some("/srv/web`site".into()),
            account: Some("alice@example.org".to_owned()),
            until: Some(End::after(
                SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 - 43_199),
                Duration::from_secs(43_199),
            )),
        }
    }

    #[test]
    fn a_link_comes_with_what_it_opens_for_whom_until_when_and_how_to_stop_it() {
        let (before, after) = around_link("!rc", &website());
        assert_eq!(
            before.plain,
            "Remote Control session for website on buildhost:"
        );
        let lines = [
            "Directory: `/srv/web'site`",
            "Opens for: alice@example.org, at claude.ai",
            "Until: 2026-09-21 14:13 UTC (12h)",
            "",
            "Whoever has this link can run commands on buildhost: keep it to yourself.",
            "To end the session, say `!rc stop website` in the admin room.",
        ];
        assert_eq!(after.plain, lines.join("\n"));
        assert!(
            after.html.contains("<code>!rc stop website</code>"),
            "{}",
            after.html
        );
    }

    #[test]
    fn what_is_not_known_of_a_session_is_left_out() {
        let opens = Opens {
            directory: None,
            account: None,
            until: None,
            ..website()
        };
        let (_, after) = around_link("!rc", &opens);
        assert!(
            after.plain.starts_with(
                "Opens for: the claude.ai account that is logged in on buildhost\nUntil: somebody stops it\n\n"
            ),
            "{}",
            after.plain
        );
    }
}
