//! What the bot says that is not secret: answers, announcements, notices in direct messages, and that it is typing.

use std::time::{Duration, Instant};

use matrix_sdk::ruma::{EventId, OwnedEventId, OwnedUserId, TransactionId};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::timeout};
use tracing::{debug, error};

use super::{
    Bot,
    audit::{self, Conclusion},
    connection::MatrixHandle,
};
use crate::{
    command::reply::Reply,
    matrix::{Chain, Fault, Matrix, Message, ReplyTo, Sound},
    remote_control::{ProjectName, Request},
};

/// Faster answers need no typing notice.
const SOON: Duration = Duration::from_millis(300);

/// How often a typing notice is sent again. The SDK sends it for four seconds, and not again before three.
const TYPING_REPEATED: Duration = Duration::from_millis(3300);

/// How long typing is shown: an answer that takes longer waits for something else than the bot.
const LONGEST_TYPING: Duration = Duration::from_mins(5);

/// Where a request is answered. Its text is stored in the records of sessions, and outlives the bot.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ReplyTarget {
    /// A message in the admin room.
    Message(ReplyTo),
    /// The operator on the host, by the number of the order; valid only while the bot runs.
    Operator(u64),
    Nobody,
}

impl ReplyTarget {
    pub(super) fn of(request: &Request) -> Self {
        serde_json::from_str(&request.reference).unwrap_or(Self::Nobody)
    }

    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The event of the request, if a message asked.
    pub(super) fn event(&self) -> Option<&EventId> {
        match self {
            Self::Message(reply_to) => Some(reply_to.event_id()),
            Self::Operator(_) | Self::Nobody => None,
        }
    }
}

/// Whether it is an autostart: then there is no message to answer, and yet somebody may miss it.
pub(super) fn nobody_asked(request: &Request) -> bool {
    ReplyTarget::of(request) == ReplyTarget::Nobody
}

impl Bot {
    /// Answers a request, perhaps from before a restart, with its result. An error: it failed, and so does `rcbot stop`.
    pub(super) fn answer(
        &mut self,
        project: Option<&ProjectName>,
        request: &Request,
        result: Result<&Reply, &Reply>,
        conclusion: &Conclusion,
    ) {
        audit::done(request, project, conclusion);
        let (Ok(text) | Err(text)) = result;
        match ReplyTarget::of(request) {
            ReplyTarget::Message(reply_to) => self.say(text, Some(reply_to)),
            ReplyTarget::Operator(number) => {
                if let Some(answer) = self.stop_orders.remove(&number) {
                    let plain = |text: &Reply| text.plain.clone();
                    answer.give(&result.map(plain).map_err(plain));
                }
            }
            ReplyTarget::Nobody => {}
        }
    }

    /// The same with a conclusion that needs no reason.
    pub(super) fn conclude(
        &mut self,
        project: &ProjectName,
        request: &Request,
        text: &Reply,
        what: &'static str,
    ) {
        self.answer(Some(project), request, Ok(text), &Conclusion::new(what));
    }

    /// Reports progress to those who wait for an answer; to the room, if no one does.
    pub(super) fn report_progress(&mut self, text: &Reply, requests: &[Request]) {
        if requests.iter().all(nobody_asked) {
            self.announce(text);
        }
        for request in requests {
            // The operator gets a single answer, at the end.
            if let ReplyTarget::Message(reply_to) = ReplyTarget::of(request) {
                self.say(text, Some(reply_to));
            }
        }
    }

    pub(super) fn react(&mut self, message: &Message, text: &'static str) {
        let (matrix, message) = (self.matrix.clone(), ReplyTo::from(message));
        self.spawn_quiet(async move {
            let (message, transaction) = (&message, &TransactionId::new());
            let reacted = matrix.until_accepted(|matrix| async move {
                matrix.react(message, text, transaction).await
            });
            log_rejection(reacted.await);
        });
    }

    pub(super) fn announce(&mut self, text: &Reply) {
        self.say(text, None);
    }

    pub(super) fn say(&mut self, text: &Reply, answered: Option<ReplyTo>) {
        let (matrix, text) = (self.matrix.clone(), text.clone());
        self.spawn_quiet(async move {
            say(&matrix, &text, answered.as_ref()).await;
        });
    }

    /// Sends a notice to a user's direct message, if there is one.
    pub(super) fn notify(&mut self, user: &str, text: &Reply, sound: Sound) {
        let Ok(user) = OwnedUserId::try_from(user) else {
            return;
        };
        let (matrix, text) = (self.matrix.clone(), text.clone());
        self.spawn_quiet(async move {
            let (user, text, transaction) = (&user, &text, &TransactionId::new());
            let sent = matrix.until_accepted(|matrix| async move {
                matrix.send_notice(user, text, sound, transaction).await
            });
            log_rejection(sent.await);
        });
    }
}

/// Says something in the admin room, as a reply where it answers somebody. `None`: the homeserver rejected it.
pub(super) async fn say(
    matrix: &MatrixHandle,
    text: &Reply,
    answered: Option<&ReplyTo>,
) -> Option<OwnedEventId> {
    let transaction = &TransactionId::new();
    let said = matrix
        .until_accepted(|matrix| async move { matrix.say(text, answered, transaction).await });
    log_rejection(said.await)
}

/// Replaces an answer by an edit.
pub(super) async fn correct(matrix: &MatrixHandle, said: &EventId, text: &Reply) {
    let transaction = &TransactionId::new();
    let corrected = matrix
        .until_accepted(|matrix| async move { matrix.correct(said, text, transaction).await });
    log_rejection(corrected.await);
}

/// Logs a permanent fault.
pub(super) fn log_rejection<T>(result: Result<T, Fault>) -> Option<T> {
    if let Err(fault) = &result {
        error!(error = %Chain(fault), "the homeserver rejected what the bot sent");
    }
    result.ok()
}

/// Shows typing in the admin room while an answer is due: a start takes some seconds, and the requester sees that the command
/// arrived. Ends with the sender of `due`.
pub(super) async fn show_typing(mut handle: MatrixHandle, mut due: watch::Receiver<bool>) {
    while due.wait_for(|due| *due).await.is_ok() {
        if answered_within(SOON, &mut due).await {
            continue;
        }
        let (matrix, begun) = (handle.connected().await, Instant::now());
        while begun.elapsed() < LONGEST_TYPING {
            set_typing(&matrix, true).await;
            if answered_within(TYPING_REPEATED, &mut due).await {
                break;
            }
        }
        set_typing(&matrix, false).await;
        if due.wait_for(|due| !*due).await.is_err() {
            break;
        }
    }
}

async fn answered_within(time: Duration, due: &mut watch::Receiver<bool>) -> bool {
    timeout(time, due.wait_for(|due| !*due)).await.is_ok()
}

/// A courtesy: where it fails, the answer comes all the same.
async fn set_typing(matrix: &Matrix, typing: bool) {
    if let Err(fault) = matrix.show_typing(typing).await {
        debug!(error = %Chain(&fault), "typing not shown");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_target_survives_as_text_and_another_text_answers_nobody() {
        let of = |text: &str| {
            ReplyTarget::of(&Request {
                requester: String::new(),
                reference: text.to_owned(),
            })
        };
        let target = ReplyTarget::Operator(7);
        assert_eq!(of(&target.to_text()), target);
        for text in ["", "{}", "null", "{\"message\": 3}"] {
            assert_eq!(of(text), ReplyTarget::Nobody, "{text}");
        }
    }
}
