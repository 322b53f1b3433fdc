//! Sends what is for one person only: links, each by a task that retries until the homeserver has it; the picture of a link, on
//! request; and in the end the redaction of both.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use matrix_sdk::ruma::{
    EventId, OwnedRoomId, OwnedTransactionId, OwnedUserId, TransactionId, UserId,
};
use tokio::{task::spawn_blocking, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{
    Bot, Event,
    answer::{ReplyTarget, log_rejection},
    audit::Conclusion,
    connection::{AsFault, MatrixHandle},
    hosts,
    judge::{Proving, proven},
    logs::Following,
};
use crate::{
    command::{
        Denied, Policy, authorize,
        reply::{self, Opens, Reply, Secret},
    },
    link::Link,
    matrix::{
        Chain, Fault, LinkReceipt, LinkTransactions, Matrix, NoPicture, NotConfidential, NotSent,
        PictureDelivery, PictureMessage, SentLink, SentNotice, Sound, Trust,
    },
    remote_control::{self, DeliveryId, ProjectName, Redaction, Request, SessionStatus},
};

/// How long the judgement of a requester is valid: what takes longer waits for something, and much can happen meanwhile.
const JUDGED_FOR: Duration = Duration::from_secs(2);

/// How long a link waits for the account that it opens for, which is in a file: one on a dead network file system is never read.
const ACCOUNT_TIMEOUT: Duration = Duration::from_secs(2);

/// What triggers a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trigger {
    /// A command: when the homeserver was asked about its sender, and the power level that they were found to have.
    Command { judged: Instant, power_level: i64 },
    /// An event of the session. The requester has to be judged.
    Session,
    /// The same at startup: an earlier run may have sent the link, and ended before it checked who could read it.
    Restore,
}

impl Trigger {
    /// Whether the judgement of the requester is still valid.
    fn is_judged(self, policy: &Policy) -> bool {
        match self {
            Self::Command {
                judged,
                power_level,
            } => judged.elapsed() < JUDGED_FOR && power_level >= policy.authorization.power_level,
            Self::Session | Self::Restore => false,
        }
    }
}

/// Why something was not delivered to its requester.
#[derive(Debug)]
pub(super) enum NotDelivered {
    /// It cannot be sent in confidence.
    NotConfidential(NotConfidential),
    /// The requester may not command any more.
    Denied(Denied),
    /// The homeserver rejects it, and a retry does not help.
    Fault(Fault),
    /// The picture of a link cannot be sent.
    NoPicture(NoPicture),
}

impl NotDelivered {
    /// For the log.
    fn why(&self) -> String {
        match self {
            Self::NotConfidential(reason) => format!("{reason:?}"),
            Self::Denied(denied) => format!("{denied:?}"),
            Self::Fault(fault) => Chain(fault).to_string(),
            Self::NoPicture(reason) => Chain(reason).to_string(),
        }
    }

    /// For the requester.
    fn text(&self, secret: &Secret) -> Reply {
        match self {
            Self::NotConfidential(reason) => reply::undeliverable(secret, reason),
            Self::Denied(_) => reply::no_longer_allowed(secret),
            Self::Fault(_) | Self::NoPicture(_) => reply::not_taken(secret),
        }
    }
}

impl From<NotSent> for NotDelivered {
    fn from(not_sent: NotSent) -> Self {
        match not_sent {
            NotSent::Refused(reason) => Self::NotConfidential(reason),
            NotSent::Fault(fault) => Self::Fault(fault),
        }
    }
}

impl AsFault for NotDelivered {
    fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Fault(fault)
            | Self::NoPicture(NoPicture::NotTaken(fault) | NoPicture::Unsure(fault)) => Some(fault),
            Self::NotConfidential(_)
            | Self::Denied(_)
            | Self::NoPicture(
                NoPicture::NotDrawn(_) | NoPicture::NotConfidential | NoPicture::Overheard,
            ) => None,
        }
    }
}

/// A link that is being delivered.
#[derive(Debug)]
pub(super) struct Delivery {
    id: DeliveryId,
    request: Request,
    link: Link,
    /// The text before the link, and after it.
    words: (Reply, Reply),
    /// What is required of the requester when the link is sent.
    policy: Policy,
    trigger: Trigger,
    /// The proof of the requester's direct message, for the first try.
    proving: Option<Proving>,
    /// The room in which an earlier try may have left the link.
    tried: Option<OwnedRoomId>,
}

/// The result of sending something other than a link in confidence.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) secret: Secret,
    /// What to answer if it was sent.
    pub(super) sent: Reply,
    pub(super) request: Request,
    pub(super) result: Result<SentNotice, NotDelivered>,
    /// Keeps its message up to date, if that was asked for.
    pub(super) following: Option<Box<Following>>,
}

/// The result of sending a picture.
#[derive(Debug)]
pub(super) struct Pictured {
    id: DeliveryId,
    request: Request,
    /// Where it is, and its link.
    picture: PictureDelivery,
    /// An error without a reason: it was cancelled.
    result: Result<(), Option<NotDelivered>>,
}

impl Bot {
    pub(super) fn deliver(
        &mut self,
        id: DeliveryId,
        request: Request,
        link: Link,
        (trigger, proving): (Trigger, Option<Proving>),
    ) {
        let cancellation = self.note_delivery(&id);
        let (config, session) = (Arc::clone(&self.config), self.session_of(&id.project));
        let policy = self.policy_for(&id.project, session.as_ref());
        let project = self.projects.get(&id.project);
        let project = project.map(|configured| configured.project.clone());
        let mut opens = self.opens(&id.project, session);
        let matrix = self.matrix.clone();
        self.spawn(async move {
            if let Some(project) = project {
                let account = spawn_blocking(move || remote_control::account(&project));
                let account = timeout(ACCOUNT_TIMEOUT, account).await;
                opens.account = account.ok().and_then(Result::ok).flatten();
            }
            let delivery = Delivery {
                id,
                request,
                link,
                words: reply::around_link(&config.command_prefix, &opens),
                policy,
                trigger,
                proving,
                tried: None,
            };
            delivery.deliver(matrix, cancellation).await
        });
    }

    /// `result`: an error without a reason is a cancelled delivery.
    pub(super) fn on_delivered(
        &mut self,
        delivery: Delivery,
        result: Result<SentLink, Option<NotDelivered>>,
    ) {
        let Delivery {
            id,
            request,
            trigger,
            tried,
            ..
        } = delivery;
        self.deliveries.remove(&id);
        match result {
            Ok(sent) => {
                let is_repeated = matches!(trigger, Trigger::Command { .. });
                let (project, receipt) = (&id.project, sent.receipt);
                let text = reply::link_sent(project, is_repeated, receipt.room(), sent.is_invited);
                let answered = self.remote_control.requests(&id, &request);
                let is_pending = self.remote_control.is_pending(&id);
                // Before it is announced: a bot that is killed afterwards knows which event to redact.
                let recorded = receipt.to_string();
                let notices = self.remote_control.delivered(id.clone(), request, recorded);
                // Else its session has ended or restarted, which answers them, and the link is redacted.
                if is_pending {
                    for request in answered {
                        self.conclude(&id.project, &request, &text, "link sent");
                    }
                    let offer = transactions(&id).offer;
                    self.spawn_quiet(offer_picture(self.matrix.clone(), receipt, offer));
                }
                self.handle(notices);
            }
            Err(reason) => {
                // Then the link may have arrived even so.
                let was_tried = tried.is_some() || trigger == Trigger::Restore;
                let notices = self
                    .remote_control
                    .cancelled(id.clone(), request.clone(), was_tried);
                self.handle(notices);
                if let Some(reason) = reason {
                    self.give_up(&id, &request, &reason);
                }
            }
        }
    }

    /// Sends the picture of a link to a user who has it, once, if its session goes on.
    pub(super) fn send_picture(&mut self, user: &UserId, message: &EventId) {
        let receipt = |delivery: &remote_control::Delivery| {
            let receipt = delivery.receipt.as_ref()?.parse::<LinkReceipt>().ok()?;
            let is_theirs = delivery.request.requester == *user;
            (is_theirs && receipt.lacks_picture_of(message)).then_some(receipt)
        };
        let Some((id, request, link, receipt)) = self.remote_control.find_delivery(receipt) else {
            return;
        };
        let picture = PictureDelivery::new(link, user.to_owned(), receipt);
        // From now on the record says that it may be there, even if sending fails.
        let notices = self.remote_control.delivered(
            id.clone(),
            request.clone(),
            picture.receipt_beforehand().to_string(),
        );
        self.handle(notices);
        let policy = self.policy_for(&id.project, self.session_of(&id.project).as_ref());
        let cancellation = self.note_delivery(&id);
        let matrix = self.matrix.clone();
        self.spawn(async move {
            let (picture, result) = send_picture(matrix, &id, picture, policy, cancellation).await;
            Event::Pictured(Pictured {
                id,
                request,
                picture,
                result,
            })
        });
    }

    pub(super) fn on_pictured(&mut self, pictured: Pictured) {
        let Pictured {
            id,
            request,
            picture,
            result,
        } = pictured;
        self.deliveries.remove(&id);
        match result {
            Err(Some(NotDelivered::NoPicture(NoPicture::Overheard))) => {
                // A delivery that is no longer wanted is redacted.
                let reason = NotDelivered::NotConfidential(NotConfidential::Overheard);
                self.give_up(&id, &request, &reason);
            }
            Err(Some(reason)) => {
                warn!(project = %id.project, why = reason.why(), "picture of the link not sent");
                let text = reason.text(&Secret::Picture(id.project.clone()));
                self.notify(picture.recipient().as_str(), &text, Sound::Silent);
            }
            Ok(()) | Err(None) => {}
        }
        let receipt = picture.receipt().to_string();
        let notices = self.remote_control.delivered(id, request, receipt);
        self.handle(notices);
    }

    /// Cancels the link or its picture first, if still under way; the result decides what is redacted.
    pub(super) fn redact(&mut self, project: &ProjectName, redaction: Redaction) {
        let id = DeliveryId {
            project: project.clone(),
            session: redaction.session.clone(),
            number: redaction.delivery.number,
        };
        match self.deliveries.get(&id) {
            Some(cancellation) => cancellation.cancel(),
            None => self.spawn(redact(self.matrix.clone(), id, redaction)),
        }
    }

    /// Registers a delivery that begins; returns what cancels it.
    fn note_delivery(&mut self, id: &DeliveryId) -> CancellationToken {
        let cancellation = CancellationToken::new();
        self.deliveries.insert(id.clone(), cancellation.clone());
        cancellation
    }

    /// What the link of this project opens, without the account, which a file names.
    fn opens(&self, project: &ProjectName, session: Option<SessionStatus>) -> Opens {
        let configured = self.projects.get(project);
        let left = session.as_ref().and_then(|session| session.time_left);
        Opens {
            project: project.clone(),
            host: hosts::own_name(&self.config).to_string(),
            directory: configured.map(|configured| configured.project.directory.clone()),
            account: None,
            options: session
                .map(|session| session.start.options)
                .unwrap_or_default(),
            end: left.map(|left| reply::end_after(SystemTime::now(), left)),
        }
    }

    /// What is required of a user who gets the link of a project.
    fn policy_for(&self, project: &ProjectName, session: Option<&SessionStatus>) -> Policy {
        match session {
            Some(session) => {
                Policy::of_session(&self.config, self.projects.get(project), &session.start)
            }
            None => self.projects.policy(project),
        }
    }

    pub(super) fn session_of(&self, project: &ProjectName) -> Option<SessionStatus> {
        let mut statuses = self.remote_control.status().into_iter();
        statuses.find(|status| status.project == *project)?.session
    }

    /// Reports to the requester why there is no link. The session stays for another try, unless the link was overheard: anyone
    /// who read it can use it as long as its session lasts.
    fn give_up(&mut self, id: &DeliveryId, request: &Request, reason: &NotDelivered) {
        let secret = Secret::Link(id.project.clone());
        for request in self.remote_control.requests(id, request) {
            self.explain(&secret, &request, reason);
        }
        let notices = self.remote_control.undeliverable(id);
        self.handle(notices);
        if let NotDelivered::NotConfidential(NotConfidential::Overheard) = reason {
            error!(project = %id.project, "a link was overheard, ending its session");
            let request = Request {
                requester: "the bot itself".to_owned(),
                reference: ReplyTarget::Nobody.to_text(),
            };
            let notices = self.remote_control.stop(&id.project, request);
            self.handle(notices);
        }
    }

    pub(super) fn on_shown(&mut self, shown: Shown) {
        let Shown {
            secret,
            sent,
            request,
            result,
            following,
        } = shown;
        let mut what = "output sent";
        if matches!(secret, Secret::Report) {
            self.is_examining = false;
            what = "report sent";
        }
        match result {
            Ok(message) => {
                let text = sent.with_direct_message(&message.room);
                self.answer(
                    secret.project(),
                    &request,
                    Ok(&text),
                    &Conclusion::new(what),
                );
                if let Some(following) = following {
                    self.spawn_quiet(following.keep_up_to_date(message));
                }
            }
            Err(reason) => self.explain(&secret, &request, &reason),
        }
    }

    /// Reports to the requester why something was not delivered.
    fn explain(&mut self, secret: &Secret, request: &Request, reason: &NotDelivered) {
        let (text, why) = (reason.text(secret), reason.why());
        warn!(%secret, requester = request.requester, why, "not delivered");
        let conclusion = Conclusion::because("not delivered", why);
        self.answer(secret.project(), request, Ok(&text), &conclusion);
    }

    /// Sends somebody the last output of their session unasked, if they may see it now.
    pub(super) fn show_unasked(&mut self, project: &ProjectName, user: &str, text: Reply) {
        let Ok(user) = OwnedUserId::try_from(user) else {
            return;
        };
        let (matrix, policy) = (self.matrix.clone(), self.projects.policy(project));
        self.spawn_quiet(async move {
            if let Err(reason) = show(&matrix, &user, &text, &policy, None).await {
                warn!(%user, ?reason, "the last output of a session is not shown");
            }
        });
    }
}

impl Delivery {
    /// Retries until the homeserver has the link, unless it is cancelled.
    async fn deliver(mut self, matrix: MatrixHandle, cancellation: CancellationToken) -> Event {
        let delivering = async {
            let mut attempts = matrix.attempts();
            loop {
                let matrix = attempts.connection().await;
                let result = Box::pin(self.attempt(&matrix)).await;
                if !attempts.go_on(result.as_ref().err()).await {
                    break result;
                }
            }
        };
        // The homeserver's rate limit can hold an attempt for half a minute; the session may be over by then.
        let result = cancellation.run_until_cancelled(delivering).await;
        let result = result.map_or(Err(None), |result| result.map_err(Some));
        Event::Delivered(Box::new(self), result)
    }

    async fn attempt(&mut self, matrix: &Matrix) -> Result<SentLink, NotDelivered> {
        let Ok(recipient) = OwnedUserId::try_from(self.request.requester.as_str()) else {
            return Err(NotDelivered::NotConfidential(NotConfidential::NoIdentity));
        };
        if self.trigger == Trigger::Restore && self.tried.is_none() {
            self.check_earlier_run(matrix, &recipient).await?;
        }
        // Nothing else is awaited between these checks and the sending.
        let turn = matrix.turn_to_confide(&recipient).await;
        let known = match self.proving.take() {
            Some(proving) => proven(proving).await,
            None => None,
        };
        if !self.trigger.is_judged(&self.policy) {
            judge(matrix, &recipient, &self.policy).await?;
        }
        let room = matrix
            .confidential_room(&recipient, self.tried.as_deref(), turn, known)
            .await?;
        self.tried = Some(room.id().to_owned());
        let transaction = transactions(&self.id).link;
        Ok(room.send(&self.link, &self.words, transaction).await?)
    }

    /// An earlier run may have sent the link: to the current room, or to one before, if the link is to go to another one.
    async fn check_earlier_run(
        &mut self,
        matrix: &Matrix,
        recipient: &UserId,
    ) -> Result<(), NotDelivered> {
        if let Some(room) = matrix.overheard_room(recipient).await {
            self.tried = Some(room);
            return Err(NotDelivered::NotConfidential(NotConfidential::Overheard));
        }
        judge(matrix, recipient, &self.policy).await?;
        let room = matrix.confidential_room(recipient, None, None, None);
        drop(room.await?);
        let transactions = transactions(&self.id);
        let redacted = matrix.redact_in_replaced(recipient, &transactions);
        redacted.await.map_err(NotDelivered::Fault)
    }
}

/// Whether somebody may have what they asked for earlier.
async fn judge(matrix: &Matrix, recipient: &UserId, policy: &Policy) -> Result<(), NotDelivered> {
    let facts = matrix.room_facts(recipient).await;
    let facts = facts.map_err(NotDelivered::Fault)?;
    // Nothing was sent by the requester now, so there is no encryption to judge.
    let permit = authorize(recipient, Trust::CrossSigned, &facts, policy);
    permit.map(drop).map_err(NotDelivered::Denied)
}

/// Sends a text in confidence, if the user may see it now; as an edit of an earlier message, where one is given.
pub(super) async fn show(
    matrix: &MatrixHandle,
    user: &UserId,
    text: &Reply,
    policy: &Policy,
    edited: Option<&SentNotice>,
) -> Result<SentNotice, NotDelivered> {
    let transaction = &TransactionId::new();
    let shown = matrix.until_accepted(|matrix| async move {
        let turn = matrix.turn_to_confide(user).await;
        judge(&matrix, user, policy).await?;
        let place = edited.map(|sent| &*sent.room);
        let room = matrix.confidential_room(user, place, turn, None).await?;
        Ok(room.send_notice(text, edited, transaction).await?)
    });
    shown.await
}

/// Adds the reaction to a link that requests its picture. Without it, people can add their own.
async fn offer_picture(matrix: MatrixHandle, link: LinkReceipt, transaction: OwnedTransactionId) {
    let (link, transaction) = (&link, &transaction);
    let offered = matrix
        .until_accepted(|matrix| async move { matrix.offer_picture(link, transaction).await });
    log_rejection(offered.await);
}

/// Returns what was sent, and where it is.
async fn send_picture(
    matrix: MatrixHandle,
    id: &DeliveryId,
    mut picture: PictureDelivery,
    policy: Policy,
    cancellation: CancellationToken,
) -> (PictureDelivery, Result<(), Option<NotDelivered>>) {
    let message = PictureMessage {
        file_name: format!("remote-control-{}.png", id.project),
        caption: reply::picture(&id.project),
    };
    let transaction = transactions(id).picture;
    let sending = async {
        let mut attempts = matrix.attempts();
        loop {
            let matrix = attempts.connection().await;
            let attempt = async {
                judge(&matrix, picture.recipient(), &policy).await?;
                let sent = picture.send(&matrix, &message, transaction.clone());
                sent.await.map_err(NotDelivered::NoPicture)
            };
            let result = Box::pin(attempt).await;
            if !attempts.go_on(result.as_ref().err()).await {
                break result;
            }
        }
    };
    let result = cancellation.run_until_cancelled(sending).await;
    let result = result.map_or(Err(None), |result| result.map_err(Some));
    (picture, result)
}

/// Redacts a link; finds it first if its delivery was interrupted.
async fn redact(matrix: MatrixHandle, id: DeliveryId, redaction: Redaction) -> Event {
    let (delivery, transactions) = (&redaction.delivery, &transactions(&id));
    let redacted = matrix.until_accepted(|matrix| async move {
        let Some(receipt) = &delivery.receipt else {
            let Ok(user) = OwnedUserId::try_from(delivery.request.requester.as_str()) else {
                return Ok(());
            };
            return matrix.redact_undelivered(&user, transactions).await;
        };
        let receipt = match receipt.parse::<LinkReceipt>() {
            Ok(receipt) => receipt,
            Err(error) => {
                warn!(
                    error,
                    "link not redacted, its record does not say where it is"
                );
                return Ok(());
            }
        };
        matrix.redact_link(&receipt, transactions).await
    });
    log_rejection(redacted.await);
    Event::Redacted(id.project, redaction)
}

/// Transaction ids that stay the same after a crash, so that sending again makes no second event.
fn transactions(id: &DeliveryId) -> LinkTransactions {
    let link = format!("rcbot-{}-{}", id.session, id.number);
    LinkTransactions {
        picture: format!("{link}-picture").into(),
        offer: format!("{link}-offer").into(),
        link: link.into(),
        harmless: reply::ended_before_delivery(&id.project).plain,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::{super::tests::silent_bot, *};
    use crate::{
        config::{Authorization, Devices, RequireEncryptedCommands},
        remote_control::{Beginning, Options, SessionId, Start},
    };

    #[tokio::test]
    async fn a_link_that_arrives_after_its_session_is_redacted_and_not_announced() {
        let folder = tempfile::TempDir::new().unwrap();
        let (mut bot, _) = silent_bot(folder.path());
        let message = json!({ "event_id": "$asked", "thread": null });
        let reply_to = serde_json::from_value(message).unwrap();
        let delivery = Delivery {
            id: DeliveryId {
                project: "website".parse().unwrap(),
                session: SessionId::random(),
                number: 1,
            },
            request: Request {
                requester: "@alice:x.y".to_owned(),
                reference: ReplyTarget::Message(reply_to).to_text(),
            },
            link: Link::parse("https://claude.ai/code?environment=env_1").unwrap(),
            words: (reply::moved_here(), reply::moved_here()),
            policy: Policy::of_no_project(&bot.config),
            trigger: Trigger::Session,
            proving: None,
            tried: None,
        };
        let sent = SentLink {
            receipt: "!room:x.y $link".parse().unwrap(),
            is_invited: false,
        };
        bot.on_delivered(delivery, Ok(sent));
        assert_eq!(bot.tasks.len(), 1, "the redaction, and no message");
    }

    #[tokio::test]
    async fn a_link_needs_the_level_of_the_options_of_its_session() {
        let folder = tempfile::TempDir::new().unwrap();
        let (mut bot, _) = silent_bot(folder.path());
        let website = "website".parse().unwrap();
        let level = |bot: &Bot| {
            let policy = bot.policy_for(&website, bot.session_of(&website).as_ref());
            policy.authorization.power_level
        };
        assert_eq!(level(&bot), 50);
        let options = Options {
            mode: Some("bypassPermissions".to_owned()),
            ..Options::default()
        };
        let start = Start {
            beginning: Beginning::Fresh,
            options,
        };
        let request = Request {
            requester: "@alice:x.y".to_owned(),
            reference: ReplyTarget::Nobody.to_text(),
        };
        drop(bot.remote_control.start(&website, start, request));
        assert_eq!(level(&bot), 100);
    }

    #[test]
    fn a_judgement_holds_for_a_moment_and_for_its_power_level() {
        let policy = |power_level| Policy {
            authorization: Authorization {
                power_level,
                users: BTreeMap::new(),
            },
            devices: Devices::CrossSigned,
            require_encrypted_commands: RequireEncryptedCommands::Auto,
        };
        let command = |judged| Trigger::Command {
            judged,
            power_level: 50,
        };
        let now = Instant::now();
        assert!(command(now).is_judged(&policy(50)));
        // The session began with other options since.
        assert!(!command(now).is_judged(&policy(100)));
        let before = now.checked_sub(JUDGED_FOR).unwrap();
        assert!(!command(before).is_judged(&policy(50)));
        assert!(!Trigger::Session.is_judged(&policy(0)));
        assert!(!Trigger::Restore.is_judged(&policy(0)));
    }
}
