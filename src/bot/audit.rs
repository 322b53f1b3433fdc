//! The audit log: who asked for what, what was decided and why, and what came of it; under the tracing target `audit`.
//!
//! A command leaves `command judged`, and `command done` once it is known what came of it: much later for a start whose
//! link waits for the homeserver, and after a restart too, as both lines name the event of the command.
//!
//! Invariant: no link is ever here, no word that a session printed, and of what somebody typed only the command that was
//! understood, or a short beginning of what was not. All texts are escaped, so that none can pass for a line of its own.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use matrix_sdk::ruma::{EventId, UserId};
use tracing::info;

use super::{judge::Decision, rate::Excess, reply_target::ReplyTarget};
use crate::{
    command::{self, Denied},
    config::MasterKey,
    matrix::Message,
    remote_control::{ProjectName, Request},
};

/// How much of a text that others chose stands in a line, in characters.
const LONGEST_TEXT: usize = 200;

/// How many refusals are written in full each minute.
const REFUSALS_IN_FULL: u32 = 100;

/// The time in which refusals are counted together.
const MINUTE: Duration = Duration::from_mins(1);

/// Writes the audit log.
///
/// Whoever may not command could fill the disk with refusals, and a homeserver can invent as many users as it likes. So of
/// those of one minute the first [`REFUSALS_IN_FULL`] are written, and then each whose number is a power of ten, with that
/// number: a million refusals are a hundred and four lines, and nobody can hide how many they were.
#[derive(Debug)]
pub(super) struct Audit {
    /// When the minute began in which refusals are counted.
    minute: Instant,
    refusals: u32,
}

/// What came of a command that was obeyed.
#[derive(Debug)]
pub(super) struct Conclusion {
    what: &'static str,
    why: Option<String>,
}

impl Conclusion {
    /// Nothing more is to be said.
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, why: None }
    }

    /// With the reason, which holds no secret.
    pub(super) fn because(what: &'static str, why: impl Into<String>) -> Self {
        let why = Some(shortened(&why.into()));
        Self { what, why }
    }
}

impl Audit {
    pub(super) fn new() -> Self {
        Self {
            minute: Instant::now(),
            refusals: 0,
        }
    }

    /// Writes what was decided about a command.
    pub(super) fn judged(&mut self, prefix: &str, message: &Message, verdict: &Decision) {
        let command = understood(prefix, &message.text);
        let (decision, project, why) = match verdict {
            // Nothing was asked about its sender: that is for the other bot to judge.
            Decision::NotOurs => ("left to another host", None, None),
            Decision::DoneBefore => ("obeyed before", None, None),
            Decision::Do(_, intent, _) => ("allowed", intent.project(), None),
            Decision::Denied(Denied::NoPower(reason)) => ("denied", None, Some(shown(reason))),
            Decision::Denied(denied) => ("denied", None, Some(shown(denied))),
            Decision::Misused(misuse) => ("misused", None, Some(shown(misuse))),
            Decision::CannotDeliver(project, reason) => {
                ("undeliverable", Some(project), Some(shown(reason)))
            }
        };
        let number = match verdict {
            Decision::Do(..) => None,
            Decision::Denied(_)
            | Decision::Misused(_)
            | Decision::CannotDeliver(..)
            | Decision::DoneBefore
            | Decision::NotOurs => match self.count_refusal(Instant::now()) {
                None => return,
                number => number,
            },
        };
        info!(
            target: "audit",
            user = message.sender.as_str(),
            event = message.event_id.as_str(),
            command,
            project = project.map(ProjectName::as_str),
            decision,
            why,
            refusals_in_this_minute = number.filter(|number| *number > REFUSALS_IN_FULL),
            "command judged"
        );
    }

    /// Writes that a command was one too many for its user: of those of a minute each whose number is a power of ten, so
    /// that one user leaves room for the refusals of others.
    pub(super) fn turned_away(&mut self, prefix: &str, message: &Message, excess: Excess) {
        if !is_power_of_ten(excess.number) || self.count_refusal(Instant::now()).is_none() {
            return;
        }
        info!(
            target: "audit",
            user = message.sender.as_str(),
            event = message.event_id.as_str(),
            command = understood(prefix, &message.text),
            decision = "too many",
            too_many_in_this_minute = excess.number,
            "command judged"
        );
    }

    /// The number of this refusal within its minute, if it is to be written.
    fn count_refusal(&mut self, now: Instant) -> Option<u32> {
        if now.duration_since(self.minute) >= MINUTE {
            self.minute = now;
            self.refusals = 0;
        }
        self.refusals = self.refusals.saturating_add(1);
        let number = self.refusals;
        (number <= REFUSALS_IN_FULL || is_power_of_ten(number)).then_some(number)
    }
}

fn is_power_of_ten(number: u32) -> bool {
    let exponent = number.checked_ilog10();
    exponent.and_then(|exponent| 10_u32.checked_pow(exponent)) == Some(number)
}

/// Writes what came of a request about a project.
pub(super) fn done(request: &Request, project: &ProjectName, outcome: &Conclusion) {
    let reference = ReplyTarget::from_text(&request.reference);
    info!(
        target: "audit",
        user = request.requester,
        event = reference.event().map(EventId::as_str),
        project = project.as_str(),
        outcome = outcome.what,
        why = outcome.why,
        "command done"
    );
}

/// Writes that the operator on the host ordered the end of a session, who need not be judged.
pub(super) fn ordered(user: &str, project: &ProjectName) {
    info!(target: "audit", user, command = "stop", project = project.as_str(), decision = "allowed", "command judged");
}

/// Writes that the operator on the host ordered to go by another identity of a user, and what came of it.
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

/// Writes that a message was answered, which is all that came of it.
pub(super) fn answered(message: &Message) {
    concluded(message, &Conclusion::new("answered"));
}

/// Writes what came of a message that is about no project.
pub(super) fn concluded(message: &Message, outcome: &Conclusion) {
    info!(
        target: "audit",
        user = message.sender.as_str(),
        event = message.event_id.as_str(),
        outcome = outcome.what,
        why = outcome.why,
        "command done"
    );
}

/// The command as it was understood, or the beginning of what was not.
fn understood(prefix: &str, text: &str) -> String {
    match command::parse(prefix, text) {
        Some(Ok(command)) => command.to_string(),
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
    fn a_flood_of_refusals_leaves_few_lines_that_say_how_many_there_were() {
        let mut audit = Audit::new();
        let begin = audit.minute;
        let written: Vec<_> = (0..1_000_000)
            .filter_map(|_| audit.count_refusal(begin))
            .collect();
        let expected: Vec<_> = (1..=100)
            .chain([1_000, 10_000, 100_000, 1_000_000])
            .collect();
        assert_eq!(written, expected);
        assert_eq!(audit.count_refusal(begin + MINUTE), Some(1));
    }

    #[test]
    fn a_command_is_written_as_it_was_understood_and_else_its_beginning() {
        assert_eq!(understood("!rc", " !RC  Stop\nwebsite "), "stop website");
        let nonsense = format!("!rc {}", "ä".repeat(1_000));
        let written = understood("!rc", &nonsense);
        assert_eq!(written.chars().count(), LONGEST_TEXT + 2);
        assert!(written.starts_with("!rc ää") && written.ends_with("ä.."));
    }
}
