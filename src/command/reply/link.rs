//! What is said around a link, and where none can be sent.

use super::Reply;
use crate::{matrix::NotConfidential, remote_control::ProjectName};

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
