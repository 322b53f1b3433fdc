//! Brings links and answers, and redacts links: each a task that goes on until the homeserver has it.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use matrix_sdk::ruma::{OwnedRoomId, OwnedTransactionId, OwnedUserId, TransactionId, UserId};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{Event, connection::MatrixHandle};
use crate::{
    command::{
        Denied, Policy,
        authorize::authorize,
        reply::{self, Reply},
    },
    link::Link,
    matrix::{
        Chain, Fault, LinkMessage, LinkReceipt, LinkTransactions, Matrix, NotConfidential, NotSent,
        Notice, ReplyTo, SentLink, Sound, Trust,
    },
    remote_control::{DeliveryId, Redaction, Request},
};

/// The longest wait between two tries, which chance makes up to twice as long: so soon after its return the homeserver gets
/// what waits for it.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// How long the homeserver's word about a requester holds. What takes longer waits for something, and much can happen meanwhile.
const JUDGED_FOR: Duration = Duration::from_secs(2);

/// A link to bring.
pub(super) struct Delivery {
    pub(super) id: DeliveryId,
    pub(super) request: Request,
    pub(super) link: Link,
    /// What stands before the link, and after it.
    pub(super) words: (Reply, Reply),
    /// What the requester has to live up to when the link is sent.
    pub(super) policy: Policy,
    pub(super) occasion: Trigger,
}

/// What there is to know of a delivery when it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trigger {
    /// Its requester was judged by what the homeserver said when it was asked at this moment.
    Judged(Instant),
    /// Its requester has to be judged.
    Later,
    /// The same, and an earlier run of the bot may have sent the link, and ended before it could look who read it.
    AfterRestart,
}

impl Trigger {
    /// Whether what was found out about the requester still holds.
    fn is_judged(self) -> bool {
        match self {
            Self::Judged(at) => at.elapsed() < JUDGED_FOR,
            Self::Later | Self::AfterRestart => false,
        }
    }
}

/// Why a link is not brought.
#[derive(Debug)]
pub(super) enum NotDelivered {
    /// Not in confidence.
    NotConfidential(NotConfidential),
    /// Whoever asked may not command any more.
    Denied(Denied),
    /// The homeserver does not take it, and waiting does not mend that.
    Fault(Fault),
}

/// Brings a link, however long the homeserver takes, unless it is called off between two tries.
pub(super) async fn deliver(
    mut line: MatrixHandle,
    delivery: Delivery,
    called_off: CancellationToken,
) -> Event {
    let mut patience = Backoff::new();
    let mut tried = None;
    loop {
        let attempt = async {
            let matrix = up_to_date(&mut line).await;
            Box::pin(try_to_deliver(&matrix, &delivery, &mut tried)).await
        };
        // A homeserver that slows us down can hold an attempt for half a minute; the session may be over by then.
        let outcome = called_off.run_until_cancelled(attempt).await;
        let may_have_arrived = tried.is_some() || delivery.occasion == Trigger::AfterRestart;
        let Delivery { id, request, .. } = &delivery;
        let (id, request) = (id.clone(), request.clone());
        let call_off = || Event::CalledOff {
            id: id.clone(),
            request: request.clone(),
            tried: may_have_arrived,
        };
        let fault = match outcome {
            None => return call_off(),
            Some(Ok(sent)) => return Event::Delivered { id, request, sent },
            Some(Err(NotDelivered::Fault(fault))) if line.may_mend(&fault) => fault,
            Some(Err(obstacle)) => {
                return Event::Undeliverable {
                    id,
                    request,
                    obstacle,
                    tried: may_have_arrived,
                };
            }
        };
        let waited = called_off.run_until_cancelled(patience.wait(&fault));
        if waited.await.is_none() {
            return call_off();
        }
    }
}

/// The connection, once the bot knows by it where it is: it may have been removed from the admin room while it heard nothing.
async fn up_to_date(line: &mut MatrixHandle) -> Matrix {
    loop {
        let matrix = line.matrix().await;
        tokio::select! {
            () = matrix.wait_until_up_to_date() => return matrix,
            () = line.wait_for_another() => {}
        }
    }
}

/// `tried`: the room in which an earlier try may have left the link.
async fn try_to_deliver(
    matrix: &Matrix,
    delivery: &Delivery,
    tried: &mut Option<OwnedRoomId>,
) -> Result<SentLink, NotDelivered> {
    let Ok(recipient) = OwnedUserId::try_from(delivery.request.requester.as_str()) else {
        return Err(NotDelivered::NotConfidential(NotConfidential::NoIdentity));
    };
    if delivery.occasion == Trigger::AfterRestart && tried.is_none() {
        look_after_earlier_run(matrix, delivery, &recipient, tried).await?;
    }
    // Nothing is waited for between these looks and the sending.
    let turn = matrix.turn_to_confide(&recipient).await;
    if !delivery.occasion.is_judged() {
        judge(matrix, &recipient, &delivery.policy).await?;
    }
    let (before, after) = &delivery.words;
    let message = LinkMessage {
        before: (before.plain.clone(), before.html.clone()),
        after: (after.plain.clone(), after.html.clone()),
    };
    let room = matrix
        .confidential_room(&recipient, tried.as_deref(), turn)
        .await?;
    *tried = Some(room.id().to_owned());
    Ok(room
        .send(&delivery.link, &message, transactions(&delivery.id).link)
        .await?)
}

/// An earlier run of the bot may have sent the link, to the room of now or, if the link is to go to another one, to one before.
async fn look_after_earlier_run(
    matrix: &Matrix,
    delivery: &Delivery,
    recipient: &UserId,
    tried: &mut Option<OwnedRoomId>,
) -> Result<(), NotDelivered> {
    if let Some(room) = matrix.overheard_room(recipient).await {
        *tried = Some(room);
        return Err(NotSent::Refused(NotConfidential::Overheard).into());
    }
    judge(matrix, recipient, &delivery.policy).await?;
    drop(matrix.confidential_room(recipient, None, None).await?);
    let harmless = reply::ended_before_delivery(&delivery.id.project).plain;
    let transactions = transactions(&delivery.id);
    let redacted = matrix.redact_in_replaced(recipient, &harmless, &transactions);
    redacted.await.map_err(NotDelivered::Fault)
}

/// Whether somebody may have what they asked for earlier.
async fn judge(matrix: &Matrix, recipient: &UserId, policy: &Policy) -> Result<(), NotDelivered> {
    let facts = matrix.room_facts(recipient).await;
    let facts = facts.map_err(NotDelivered::Fault)?;
    // Nothing was sent by the requester now, so there is no encryption to judge.
    let permit = authorize(recipient, Trust::CrossSigned, Some(&facts), policy);
    permit.map(drop).map_err(NotDelivered::Denied)
}

impl From<NotSent> for NotDelivered {
    fn from(not_sent: NotSent) -> Self {
        match not_sent {
            NotSent::Refused(reason) => Self::NotConfidential(reason),
            NotSent::Fault(fault) => Self::Fault(fault),
        }
    }
}

/// Shows somebody who may command what is for them alone and yet no link, and tells where the homeserver has it.
pub(super) async fn show(
    mut line: MatrixHandle,
    user: OwnedUserId,
    text: Reply,
    policy: Policy,
) -> Result<(), NotDelivered> {
    let transaction = TransactionId::new();
    let notice = notice(&text, &transaction);
    let mut patience = Backoff::new();
    loop {
        let matrix = up_to_date(&mut line).await;
        let shown = async {
            let turn = matrix.turn_to_confide(&user).await;
            judge(&matrix, &user, &policy).await?;
            let room = matrix.confidential_room(&user, None, turn).await?;
            Ok(room.tell(notice).await?)
        };
        match Box::pin(shown).await {
            Ok(()) => return Ok(()),
            Err(NotDelivered::Fault(fault)) if line.may_mend(&fault) => patience.wait(&fault).await,
            Err(obstacle) => return Err(obstacle),
        }
    }
}

/// Shows somebody the last output of their session, which they did not ask for, if they may see it now.
pub(super) async fn show_last_output(
    line: MatrixHandle,
    user: OwnedUserId,
    text: Reply,
    policy: Policy,
) {
    if let Err(obstacle) = show(line, user.clone(), text, policy).await {
        warn!(%user, ?obstacle, "the last output of a session is not shown");
    }
}

/// Redacts a link, and finds it first where its delivery was cut off.
pub(super) async fn redact(line: MatrixHandle, id: DeliveryId, redaction: Redaction) -> Event {
    let project = id.project.clone();
    let (delivery, transactions) = (&redaction.delivery, &transactions(&id));
    let harmless = &reply::ended_before_delivery(&project).plain;
    until_taken(line, |matrix| async move {
        let Some(receipt) = &delivery.receipt else {
            let Ok(user) = OwnedUserId::try_from(delivery.request.requester.as_str()) else {
                return Ok(());
            };
            return matrix
                .redact_undelivered(&user, harmless, transactions)
                .await;
        };
        let Ok(receipt) = receipt.parse::<LinkReceipt>() else {
            return Ok(());
        };
        matrix.redact_link(&receipt, harmless, transactions).await
    })
    .await;
    Event::Redacted { project, redaction }
}

/// Says something in the admin room, as a reply where it answers somebody.
pub(super) async fn say(line: MatrixHandle, text: Reply, answered: Option<ReplyTo>) {
    let (text, answered, transaction) = (&text, answered.as_ref(), &TransactionId::new());
    until_taken(line, |matrix| async move {
        matrix.say(notice(text, transaction), answered).await
    })
    .await;
}

/// Tells somebody something in their direct message.
pub(super) async fn tell(line: MatrixHandle, user: OwnedUserId, text: Reply, sound: Sound) {
    let (user, text, transaction) = (&user, &text, &TransactionId::new());
    until_taken(line, |matrix| async move {
        matrix.tell(user, notice(text, transaction), sound).await
    })
    .await;
}

/// Tries until the homeserver takes it, or never will. What is tried has the same transaction each time, so that it is done
/// once.
async fn until_taken<F>(mut line: MatrixHandle, attempt: impl Fn(Matrix) -> F)
where
    F: Future<Output = Result<(), Fault>>,
{
    let mut patience = Backoff::new();
    loop {
        let matrix = line.matrix().await;
        match attempt(matrix).await {
            Ok(()) => return,
            Err(fault) if line.may_mend(&fault) => patience.wait(&fault).await,
            Err(fault) => {
                error!(error = %Chain(&fault), "the homeserver does not take it");
                return;
            }
        }
    }
}

fn notice<'a>(text: &'a Reply, transaction: &'a OwnedTransactionId) -> Notice<'a> {
    Notice {
        plain: &text.plain,
        html: &text.html,
        transaction,
    }
}

/// The same after a crash, so that a second sending is no second event.
pub(super) fn transactions(id: &DeliveryId) -> LinkTransactions {
    let link = format!("rcbot-{}-{}", id.session, id.number);
    LinkTransactions {
        picture: format!("{link}-picture").into(),
        link: link.into(),
    }
}

/// Waits between tries, longer each time, and warns once: the line says when the homeserver is back.
pub(super) struct Backoff {
    waits: backon::ExponentialBackoff,
    warned: bool,
}

impl Backoff {
    pub(super) fn new() -> Self {
        let waits = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(250))
            .with_max_delay(LONGEST_WAIT)
            .with_jitter()
            .without_max_times()
            .build();
        Self {
            waits,
            warned: false,
        }
    }

    pub(super) async fn wait(&mut self, fault: &Fault) {
        if matches!(fault, Fault::NotInAdminRoom) {
            // Whoever joins it says what it waits for.
            debug!(error = %Chain(fault), "nothing can be said yet");
        } else if std::mem::replace(&mut self.warned, true) {
            debug!(error = %Chain(fault), "the homeserver still does not take it");
        } else {
            warn!(error = %Chain(fault), "the homeserver did not take it yet, trying again until it does");
        }
        let wanted = fault.retry_after().unwrap_or_default();
        sleep(self.waits.next().unwrap_or(LONGEST_WAIT).max(wanted)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_homeserver_says_of_a_requester_holds_for_a_moment() {
        let now = Instant::now();
        assert!(Trigger::Judged(now).is_judged());
        let before = now.checked_sub(JUDGED_FOR).unwrap();
        assert!(!Trigger::Judged(before).is_judged());
        assert!(!Trigger::Later.is_judged());
        assert!(!Trigger::AfterRestart.is_judged());
    }
}
