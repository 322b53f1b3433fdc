//! What the bot says, and to whom.

use matrix_sdk::ruma::OwnedUserId;
use tracing::{error, warn};

use super::{
    Bot,
    audit::{self, Conclusion},
    deliver::{self, NotDelivered},
    reply_target::ReplyTarget,
};
use crate::{
    command::reply::{self, Reply, Secret},
    matrix::{Chain, Message, NotConfidential, ReplyTo, Sound},
    remote_control::{DeliveryId, ProjectName, Request},
};

/// What came of a link, or something else in confidence, that did not get to its requester.
const NOT_DELIVERED: &str = "not delivered";

impl Bot {
    /// The requester does not get the link, and hears why. The session stays for a next try, unless the link was overheard.
    pub(super) fn give_up(&mut self, id: &DeliveryId, request: &Request, obstacle: &NotDelivered) {
        for request in self.remote_control.requests(id, request) {
            self.explain(Secret::Link(&id.project), &request, obstacle);
        }
        let notices = self.remote_control.undeliverable(id);
        self.handle(notices);
        if matches!(
            obstacle,
            NotDelivered::NotConfidential(NotConfidential::Overheard)
        ) {
            self.stop_overheard(&id.project);
        }
    }

    /// Whoever read a link can use it as long as its session lasts.
    fn stop_overheard(&mut self, project: &ProjectName) {
        error!(%project, "a link was overheard, ending its session");
        let request = Request {
            requester: "the bot itself".to_owned(),
            reference: ReplyTarget::Nobody.to_text(),
        };
        let notices = self.remote_control.stop(project, request);
        self.handle(notices);
    }

    /// Says why a link, or something else in confidence, does not get to its requester.
    pub(super) fn explain(
        &mut self,
        secret: Secret<'_>,
        request: &Request,
        obstacle: &NotDelivered,
    ) {
        let (text, why) = match obstacle {
            NotDelivered::NotConfidential(reason) => {
                warn!(
                    ?secret,
                    requester = request.requester,
                    ?reason,
                    "not delivered"
                );
                (reply::undeliverable(secret, reason), format!("{reason:?}"))
            }
            NotDelivered::Denied(reason) => {
                warn!(
                    ?secret,
                    requester = request.requester,
                    ?reason,
                    "not delivered, no longer allowed"
                );
                (reply::no_longer_allowed(secret), format!("{reason:?}"))
            }
            NotDelivered::Fault(fault) => {
                let error = Chain(fault).to_string();
                error!(
                    ?secret,
                    requester = request.requester,
                    error,
                    "not delivered"
                );
                (reply::not_taken(secret), error)
            }
        };
        let conclusion = Conclusion::because(NOT_DELIVERED, why);
        self.answer(secret.project(), request, &text, &conclusion);
    }

    pub(super) fn say(&mut self, message: &Message, text: &Reply) {
        self.spawn_quiet(deliver::say(
            self.line.clone(),
            text.clone(),
            Some(ReplyTo::from(message)),
        ));
    }

    /// Answers a request, perhaps one of before a restart, with what came of it.
    pub(super) fn answer(
        &mut self,
        project: &ProjectName,
        request: &Request,
        text: &Reply,
        outcome: &Conclusion,
    ) {
        self.settle(project, request, Ok(text), outcome);
    }

    /// The same where nothing came of it: `rcbot stop` then fails.
    pub(super) fn answer_failed(
        &mut self,
        project: &ProjectName,
        request: &Request,
        text: &Reply,
        outcome: &Conclusion,
    ) {
        self.settle(project, request, Err(text), outcome);
    }

    fn settle(
        &mut self,
        project: &ProjectName,
        request: &Request,
        result: Result<&Reply, &Reply>,
        outcome: &Conclusion,
    ) {
        audit::done(request, project, outcome);
        let (Ok(text) | Err(text)) = result;
        match ReplyTarget::from_text(&request.reference) {
            ReplyTarget::Message(reply_to) => {
                self.spawn_quiet(deliver::say(
                    self.line.clone(),
                    text.clone(),
                    Some(reply_to),
                ));
            }
            ReplyTarget::Operator(number) => {
                if let Some(answer) = self.stop_orders.remove(&number) {
                    let plain = |text: &Reply| text.plain.clone();
                    answer.give(&result.map(plain).map_err(plain));
                }
            }
            ReplyTarget::Nobody => {}
        }
    }

    pub(super) fn announce(&mut self, text: &Reply) {
        self.spawn_quiet(deliver::say(self.line.clone(), text.clone(), None));
    }

    /// Tells somebody something in their direct message, if there is one.
    pub(super) fn tell(&mut self, user: &str, text: &Reply, sound: Sound) {
        if let Ok(user) = OwnedUserId::try_from(user) {
            self.spawn_quiet(deliver::tell(self.line.clone(), user, text.clone(), sound));
        }
    }
}
