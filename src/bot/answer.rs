//! What the bot says that is no secret: answers, announcements, and what it tells somebody in their direct message.

use matrix_sdk::ruma::{EventId, OwnedEventId, OwnedTransactionId, OwnedUserId, TransactionId};
use serde::{Deserialize, Serialize};
use tracing::error;

use super::{
    Bot,
    audit::{self, Conclusion},
    connection::MatrixHandle,
};
use crate::{
    command::reply::Reply,
    matrix::{Chain, Fault, Message, Notice, ReplyTo, Sound},
    remote_control::{ProjectName, Request},
};

/// Whom a request is to be answered. As text it stands in the records of sessions, and outlives the bot.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ReplyTarget {
    /// A message in the admin room.
    Message(ReplyTo),
    /// The operator on the host, by the number of the order; of use only as long as the bot runs.
    Operator(u64),
    /// Nobody asked.
    Nobody,
}

impl ReplyTarget {
    pub(super) fn of(request: &Request) -> Self {
        serde_json::from_str(&request.reference).unwrap_or(Self::Nobody)
    }

    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The event that asked, if one did.
    pub(super) fn event(&self) -> Option<&EventId> {
        match self {
            Self::Message(reply_to) => Some(reply_to.event_id()),
            Self::Operator(_) | Self::Nobody => None,
        }
    }
}

impl Bot {
    /// Answers a request, perhaps one of before a restart, with what came of it. An error: nothing did, and `rcbot stop` fails.
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

    /// The same where a word says what came of it.
    pub(super) fn conclude(
        &mut self,
        project: &ProjectName,
        request: &Request,
        text: &Reply,
        what: &'static str,
    ) {
        self.answer(Some(project), request, Ok(text), &Conclusion::new(what));
    }

    /// Tells those who wait what there is to tell before they have their answer; the room, where nobody waits who could be told.
    pub(super) fn say_meanwhile(&mut self, text: &Reply, requests: &[Request]) {
        let mut is_told = false;
        for request in requests {
            match ReplyTarget::of(request) {
                ReplyTarget::Message(reply_to) => self.say(text, Some(reply_to)),
                // Has one answer, at the end.
                ReplyTarget::Operator(_) => {}
                ReplyTarget::Nobody => continue,
            }
            is_told = true;
        }
        if !is_told {
            self.announce(text);
        }
    }

    pub(super) fn reply(&mut self, message: &Message, text: &Reply) {
        self.say(text, Some(message.into()));
    }

    pub(super) fn react(&mut self, message: &Message, text: &'static str) {
        let (matrix, message) = (self.matrix.clone(), ReplyTo::from(message));
        self.spawn_quiet(async move {
            let (message, transaction) = (&message, &TransactionId::new());
            let reacted = matrix.until_taken(|matrix| async move {
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

    /// Tells somebody something in their direct message, if there is one.
    pub(super) fn tell(&mut self, user: &str, text: &Reply, sound: Sound) {
        if let Ok(user) = OwnedUserId::try_from(user) {
            self.spawn_quiet(tell(self.matrix.clone(), user, text.clone(), sound));
        }
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
        .until_taken(|matrix| async move { matrix.say(notice(text, transaction), answered).await });
    log_rejection(said.await)
}

/// Says this in place of an answer.
pub(super) async fn correct(matrix: &MatrixHandle, said: &EventId, text: &Reply) {
    let transaction = &TransactionId::new();
    let corrected = matrix
        .until_taken(|matrix| async move { matrix.correct(said, notice(text, transaction)).await });
    log_rejection(corrected.await);
}

async fn tell(matrix: MatrixHandle, user: OwnedUserId, text: Reply, sound: Sound) {
    let (user, text, transaction) = (&user, &text, &TransactionId::new());
    let told = matrix.until_taken(|matrix| async move {
        matrix.tell(user, notice(text, transaction), sound).await
    });
    log_rejection(told.await);
}

/// What the homeserver does not take now, it never will.
pub(super) fn log_rejection<T>(result: Result<T, Fault>) -> Option<T> {
    result
        .inspect_err(
            |fault| error!(error = %Chain(fault), "the homeserver rejected what the bot sent"),
        )
        .ok()
}

pub(super) fn notice<'a>(text: &'a Reply, transaction: &'a OwnedTransactionId) -> Notice<'a> {
    Notice {
        plain: &text.plain,
        html: &text.html,
        transaction,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_target_survives_as_text_and_what_is_none_answers_nobody() {
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
