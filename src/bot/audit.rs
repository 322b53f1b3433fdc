//! The audit log: who asked for what, what was decided and why, and the result; under the tracing target `audit`.
//!
//! A command is logged as `command judged`, and as `command done` once its result is known: much later for a start whose link
//! waits for the homeserver, even after a restart. Both lines name the event of the command. Nobody can fill the disk with
//! them: commands are rate-limited for each user, and beyond the limit one a minute is logged.
//!
//! Invariant: no link and no output of a session is logged, and of what somebody typed only the parsed command, or a short
//! beginning of other text. All texts are escaped, so that none can forge a log line.

use std::fmt::Debug;

use matrix_sdk::ruma::{EventId, UserId};
use tracing::info;

use super::{
    answer::ReplyTarget,
    judge::{Decision, Intent},
};
use crate::{
    command::{self, Denied},
    config::MasterKey,
    matrix::Message,
    remote_control::{ProjectName, Request},
};

/// How much of a user's text a line holds, in characters.
const LONGEST_TEXT: usize = 200;

/// The result of an allowed command.
#[derive(Debug)]
pub(super) struct Conclusion {
    what: &'static str,
    why: Option<String>,
}

impl Conclusion {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, why: None }
    }

    /// With the reason, which holds no secret.
    pub(super) fn because(what: &'static str, why: impl Into<String>) -> Self {
        let why = Some(shortened(&why.into()));
        Self { what, why }
    }
}

pub(super) fn judged(prefix: &str, message: &Message, decision: &Decision) {
    let (judged, project, why) = match decision {
        // The sender is judged by the other bot.
        Decision::NotOurs => ("left to another host", None, None),
        Decision::DoneBefore => ("executed before", None, None),
        Decision::Do(_, intent, ..) => ("allowed", intent.project(), None),
        Decision::Denied(Denied::NoPower(reason)) => ("denied", None, Some(shown(reason))),
        Decision::Denied(denied) => ("denied", None, Some(shown(denied))),
        Decision::Misused(misuse) => ("misused", None, Some(shown(misuse))),
        Decision::CannotDeliver(project, reason) => {
            ("undeliverable", Some(project), Some(shown(reason)))
        }
    };
    let options = if let Decision::Do(_, Intent::Start { complete, .. }, ..) = decision {
        Some(&complete.options)
    } else {
        None
    };
    info!(
        target: "audit",
        user = message.sender.as_str(),
        event = message.event_id.as_str(),
        command = understood(prefix, &message.text),
        project = project.map(ProjectName::as_str),
        mode = options.and_then(|options| options.mode.as_deref()),
        spawn = options.and_then(|options| options.spawn.as_deref()),
        named = options.map(|options| options.name.is_some()),
        decision = judged,
        why,
        "command judged"
    );
}

pub(super) fn rate_limited(prefix: &str, message: &Message) {
    info!(
        target: "audit",
        user = message.sender.as_str(),
        event = message.event_id.as_str(),
        command = understood(prefix, &message.text),
        decision = "too many",
        "command judged"
    );
}

pub(super) fn done(request: &Request, project: Option<&ProjectName>, conclusion: &Conclusion) {
    info!(
        target: "audit",
        user = request.requester,
        event = ReplyTarget::of(request).event().map(EventId::as_str),
        project = project.map(ProjectName::as_str),
        outcome = conclusion.what,
        why = conclusion.why,
        "command done"
    );
}

/// Logs that the operator on the host, who need not be judged, stops a session.
pub(super) fn ordered(user: &str, project: &ProjectName) {
    info!(target: "audit", user, command = "stop", project = project.as_str(), decision = "allowed", "command judged");
}

/// Logs that the operator on the host accepts another identity of a user, and the result.
pub(super) fn trusted(user: &str, subject: &UserId, key: MasterKey, outcome: &str) {
    info!(
        target: "audit",
        user,
        command = "trust",
        subject = subject.as_str(),
        %key,
        decision = "allowed",
        outcome,
        "command done"
    );
}

/// The command as parsed, or the beginning of other text.
fn understood(prefix: &str, text: &str) -> String {
    match command::parse(prefix, text) {
        Some(Ok(mut command)) => {
            // Names of sessions are private to those who use them.
            let name = command.options.name.take().map_or("", |_| " --name ..");
            shortened(&format!("{command}{name}"))
        }
        Some(Err(_)) | None => shortened(text),
    }
}

fn shown(reason: &impl Debug) -> String {
    shortened(&format!("{reason:?}"))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}..", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_logged_as_parsed_and_other_text_by_its_beginning() {
        assert_eq!(understood("!rc", " !RC  Stop\nwebsite "), "stop website");
        let start = "!rc start --name “fix it” --mode plan website";
        assert_eq!(
            understood("!rc", start),
            "start website --mode plan --name .."
        );
        for nonsense in ["!rc ", "!rc stop "] {
            let nonsense = format!("{nonsense}{}", "ä".repeat(1_000));
            let written = understood("!rc", &nonsense);
            assert_eq!(written.chars().count(), LONGEST_TEXT + 2);
            assert!(written.ends_with("ä.."), "{written}");
        }
    }
}
