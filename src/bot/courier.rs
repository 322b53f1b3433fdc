//! Brings links and answers, and takes links back: each a task that goes on until the homeserver has it.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use matrix_sdk::ruma::{OwnedRoomId, OwnedTransactionId, OwnedUserId, TransactionId, UserId};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{Event, connection::Line};
use crate::{
    command::{
        Denied, Policy,
        authorize::authorize,
        reply::{self, Reply},
    },
    link::Link,
    matrix::{
        Chain, Fault, LinkMessage, LinkReceipt, LinkTransactions, Matrix, NotConfidential, NotSent,
        Notice, ReplyTo, SentLink, Sound, Talk, Trust,
    },
    remote_control::{self, DeliveryId, ProjectName, Request, Withdrawal},
};

/// The longest wait between two tries, which chance makes up to twice as long: so soon after its return the homeserver gets
/// what waits for it.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// A link to bring.
pub(super) struct Delivery {
    pub(super) id: DeliveryId,
    pub(super) request: Request,
    pub(super) link: Link,
    /// What stands before the link, and after it.
    pub(super) words: (Reply, Reply),
    /// What the requester has to live up to when the link is sent.
    pub(super) policy: Policy,
    pub(super) occasion: Occasion,
}

/// What there is to know of a delivery when it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// Its requester was judged a moment ago.
    Judged,
    /// Its requester has to be judged.
    Later,
    /// The same, and an earlier run of the bot may have sent the link, and ended before it could look who read it.
    AfterRestart,
}

/// Why a link is not brought.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// Not in confidence.
    NotConfidential(NotConfidential),
    /// Whoever asked may not command any more.
    Denied(Denied),
    /// The homeserver does not take it, and waiting does not mend that.
    Fault(Fault),
}

/// Brings a link, however long the homeserver takes, unless it is called off between two tries.
pub(super) async fn deliver(
    mut line: Line,
    mut delivery: Delivery,
    called_off: CancellationToken,
) -> Event {
    let mut patience = Patience::new();
    let mut tried = None;
    loop {
        let Some(matrix) = called_off.run_until_cancelled(line.matrix()).await else {
            return call_off(delivery, tried.is_some());
        };
        let Delivery { id, request, .. } = &delivery;
        let attempt = try_to_deliver(&matrix, &delivery, &mut tried);
        // A homeserver that slows us down can hold an attempt for half a minute; the session may be over by then.
        let obstacle = match called_off.run_until_cancelled(Box::pin(attempt)).await {
            None => return call_off(delivery, tried.is_some()),
            Some(Ok(sent)) => {
                let (id, request) = (id.clone(), request.clone());
                return Event::Delivered { id, request, sent };
            }
            Some(Err(obstacle)) => obstacle,
        };
        let fault = match obstacle {
            Obstacle::Fault(fault) if line.may_mend(&fault) => fault,
            obstacle => {
                let Delivery { id, request, .. } = delivery;
                return Event::Undeliverable {
                    id,
                    request,
                    obstacle,
                    tried: tried.is_some(),
                };
            }
        };
        if called_off
            .run_until_cancelled(patience.wait(&fault))
            .await
            .is_none()
        {
            return call_off(delivery, tried.is_some());
        }
        if delivery.occasion == Occasion::Judged {
            delivery.occasion = Occasion::Later;
        }
    }
}

fn call_off(delivery: Delivery, tried: bool) -> Event {
    Event::CalledOff {
        id: delivery.id,
        request: delivery.request,
        tried,
    }
}

/// `tried`: the room in which an earlier try may have left the link.
async fn try_to_deliver(
    matrix: &Matrix,
    delivery: &Delivery,
    tried: &mut Option<OwnedRoomId>,
) -> Result<SentLink, Obstacle> {
    let Ok(recipient) = OwnedUserId::try_from(delivery.request.requester.as_str()) else {
        return Err(Obstacle::NotConfidential(NotConfidential::NoIdentity));
    };
    match delivery.occasion {
        Occasion::Judged => {}
        Occasion::Later => judge(matrix, &recipient, &delivery.policy).await?,
        Occasion::AfterRestart => {
            if let Some(room) = matrix.overheard_room(&recipient).await {
                *tried = Some(room);
                return Err(NotSent::Refused(NotConfidential::Overheard).into());
            }
            judge(matrix, &recipient, &delivery.policy).await?;
        }
    }
    let (before, after) = &delivery.words;
    let message = LinkMessage {
        before: (before.plain.clone(), before.html.clone()),
        after: (after.plain.clone(), after.html.clone()),
    };
    let room = match tried {
        None => matrix.confidential_room(&recipient).await?,
        Some(room) => matrix.confidential_room_again(&recipient, room).await?,
    };
    *tried = Some(room.id().to_owned());
    Ok(room
        .send(&delivery.link, &message, transactions(&delivery.id).link)
        .await?)
}

/// Whether somebody may have what they asked for earlier.
async fn judge(matrix: &Matrix, recipient: &UserId, policy: &Policy) -> Result<(), Obstacle> {
    let facts = matrix.room_facts(recipient).await;
    let facts = facts.map_err(Obstacle::Fault)?;
    // Nothing was sent by the requester now, so there is no encryption to judge.
    let permit = authorize(recipient, Trust::CrossSigned, Some(&facts), policy);
    permit.map(drop).map_err(Obstacle::Denied)
}

impl From<NotSent> for Obstacle {
    fn from(not_sent: NotSent) -> Self {
        match not_sent {
            NotSent::Refused(reason) => Self::NotConfidential(reason),
            NotSent::Fault(fault) => Self::Fault(fault),
        }
    }
}

/// Shows somebody who may command what is for them alone and yet no link, and tells where the homeserver has it.
pub(super) async fn show(
    mut line: Line,
    user: OwnedUserId,
    text: Reply,
    policy: Policy,
) -> Result<(), Obstacle> {
    let transaction = TransactionId::new();
    let notice = notice(&text, &transaction);
    let mut patience = Patience::new();
    loop {
        let matrix = line.matrix().await;
        let shown = async {
            judge(&matrix, &user, &policy).await?;
            let room = matrix.confidential_room(&user).await?;
            Ok(room.tell(notice).await?)
        };
        match shown.await {
            Ok(()) => return Ok(()),
            Err(Obstacle::Fault(fault)) if line.may_mend(&fault) => patience.wait(&fault).await,
            Err(obstacle) => return Err(obstacle),
        }
    }
}

/// Shows somebody the last output of their session, which they did not ask for, if they may see it now.
pub(super) async fn show_last_output(line: Line, user: OwnedUserId, text: Reply, policy: Policy) {
    if let Err(obstacle) = show(line, user.clone(), text, policy).await {
        warn!(%user, ?obstacle, "the last output of a session is not shown");
    }
}

/// Takes a link back, and finds it first where its delivery was cut off.
pub(super) async fn withdraw(line: Line, id: DeliveryId, withdrawal: Withdrawal) -> Event {
    let project = id.project.clone();
    let transactions = transactions(&id);
    run(
        line,
        &Errand::Withdraw {
            project: project.clone(),
            withdrawal: withdrawal.clone(),
            transactions,
        },
    )
    .await;
    Event::Withdrawn {
        project,
        withdrawal,
    }
}

/// Says something in the admin room, as a reply where it answers somebody.
pub(super) async fn say(line: Line, text: Reply, answered: Option<ReplyTo>) {
    run(
        line,
        &Errand::Say {
            text,
            answered,
            transaction: TransactionId::new(),
        },
    )
    .await;
}

/// Tells somebody something in their direct message.
pub(super) async fn tell(line: Line, user: OwnedUserId, text: Reply, sound: Sound) {
    run(
        line,
        &Errand::Tell {
            user,
            text,
            sound,
            transaction: TransactionId::new(),
        },
    )
    .await;
}

/// What is tried until the homeserver takes it. The transaction is the same for each try, so that it is done once.
pub(super) enum Errand {
    Say {
        text: Reply,
        answered: Option<ReplyTo>,
        transaction: OwnedTransactionId,
    },
    Tell {
        user: OwnedUserId,
        text: Reply,
        sound: Sound,
        transaction: OwnedTransactionId,
    },
    Reply {
        talk: Talk,
        text: Reply,
        transaction: OwnedTransactionId,
    },
    Withdraw {
        project: ProjectName,
        withdrawal: Withdrawal,
        transactions: LinkTransactions,
    },
}

impl Errand {
    async fn attempt(&self, matrix: &Matrix) -> Result<(), Fault> {
        match self {
            Self::Say {
                text,
                answered,
                transaction,
            } => {
                let notice = notice(text, transaction);
                matrix.say(notice, answered.as_ref()).await
            }
            Self::Tell {
                user,
                text,
                sound,
                transaction,
            } => {
                let notice = notice(text, transaction);
                matrix.tell(user, notice, *sound).await
            }
            Self::Reply {
                talk,
                text,
                transaction,
            } => matrix.reply(talk, notice(text, transaction)).await,
            Self::Withdraw {
                project,
                withdrawal,
                transactions,
            } => match find(matrix, project, &withdrawal.delivery, transactions).await? {
                Some(receipt) => matrix.withdraw(&receipt).await,
                None => Ok(()),
            },
        }
    }
}

/// Where a link is: by its receipt, or by asking the homeserver for what became of its transaction.
async fn find(
    matrix: &Matrix,
    project: &ProjectName,
    delivery: &remote_control::Delivery,
    transactions: &LinkTransactions,
) -> Result<Option<LinkReceipt>, Fault> {
    let harmless = reply::ended_before_delivery(project).plain;
    if let Some(receipt) = &delivery.receipt {
        let Ok(receipt) = receipt.parse() else {
            return Ok(None);
        };
        let found = matrix.trace_picture(receipt, &harmless, transactions);
        return found.await.map(Some);
    }
    let Ok(user) = OwnedUserId::try_from(delivery.request.requester.as_str()) else {
        return Ok(None);
    };
    matrix.trace(&user, &harmless, transactions).await
}

/// Tries until the homeserver takes it, or never will.
pub(super) async fn run(mut line: Line, errand: &Errand) {
    let mut patience = Patience::new();
    loop {
        let matrix = line.matrix().await;
        match errand.attempt(&matrix).await {
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
pub(super) struct Patience {
    waits: backon::ExponentialBackoff,
    warned: bool,
}

impl Patience {
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
