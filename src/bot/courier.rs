//! Brings links and answers, and takes links back: each a task that goes on until the homeserver has it.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use matrix_sdk::ruma::{OwnedTransactionId, OwnedUserId, TransactionId};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{Event, connection::Line};
use crate::{
    command::reply::{self, Reply},
    link::Link,
    matrix::{Fault, LinkMessage, LinkReceipt, Matrix, NotConfidential, NotSent, Notice, ReplyTo},
    remote_control::{self, DeliveryId, ProjectName, Request, Withdrawal},
};

/// The longest wait between two tries: so soon after its return the homeserver gets what waits for it.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// A link to bring.
pub(super) struct Delivery {
    pub(super) id: DeliveryId,
    pub(super) request: Request,
    pub(super) link: Link,
    /// What stands before the link, and after it.
    pub(super) words: (Reply, Reply),
}

/// Brings a link, however long the homeserver takes, unless it is called off between two tries.
pub(super) async fn deliver(
    mut line: Line,
    delivery: Delivery,
    called_off: CancellationToken,
) -> Event {
    let Delivery {
        id,
        request,
        link,
        words: (before, after),
    } = delivery;
    let message = LinkMessage {
        before: (before.plain, before.html),
        after: (after.plain, after.html),
    };
    let mut waits = waits();
    let mut tried = false;
    let fault = loop {
        let Some(matrix) = called_off.run_until_cancelled(line.matrix()).await else {
            return Event::CalledOff { id, request, tried };
        };
        match try_to_deliver(&matrix, &id, &request, &link, &message, &mut tried).await {
            Ok(receipt) => {
                return Event::Delivered {
                    id,
                    request,
                    receipt: receipt.to_string(),
                };
            }
            Err(NotSent::Refused(reason)) => {
                return Event::Undeliverable {
                    id,
                    request,
                    reason,
                };
            }
            Err(NotSent::Fault(fault)) if !may_pass(&fault) => break fault,
            Err(NotSent::Fault(fault)) => {
                warn!(project = %id.project, session = %id.session, %fault, "link not delivered yet, trying again");
            }
        }
        let wait = sleep(waits.next().unwrap_or(LONGEST_WAIT));
        if called_off.run_until_cancelled(wait).await.is_none() {
            return Event::CalledOff { id, request, tried };
        }
    };
    let reason = NotConfidential::RoomRefused {
        reason: fault.to_string(),
    };
    Event::Undeliverable {
        id,
        request,
        reason,
    }
}

async fn try_to_deliver(
    matrix: &Matrix,
    id: &DeliveryId,
    request: &Request,
    link: &Link,
    message: &LinkMessage,
    tried: &mut bool,
) -> Result<LinkReceipt, NotSent> {
    let Ok(recipient) = OwnedUserId::try_from(request.requester.as_str()) else {
        return Err(NotSent::Refused(NotConfidential::NoIdentity));
    };
    let room = matrix.confidential_room(&recipient).await?;
    *tried = true;
    room.send(link, message, transaction(id)).await
}

/// Takes a link back, and finds it first where its delivery was cut off.
pub(super) async fn withdraw(line: Line, id: DeliveryId, withdrawal: Withdrawal) -> Event {
    let project = id.project.clone();
    let transaction = transaction(&id);
    run(
        line,
        &Errand::Withdraw {
            project: project.clone(),
            withdrawal: withdrawal.clone(),
            transaction,
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
pub(super) async fn tell(line: Line, user: String, text: Reply) {
    if let Ok(user) = OwnedUserId::try_from(user) {
        run(
            line,
            &Errand::Tell {
                user,
                text,
                transaction: TransactionId::new(),
            },
        )
        .await;
    }
}

/// What is tried until the homeserver takes it. The transaction is the same for each try, so that it is done once.
enum Errand {
    Say {
        text: Reply,
        answered: Option<ReplyTo>,
        transaction: OwnedTransactionId,
    },
    Tell {
        user: OwnedUserId,
        text: Reply,
        transaction: OwnedTransactionId,
    },
    Withdraw {
        project: ProjectName,
        withdrawal: Withdrawal,
        transaction: OwnedTransactionId,
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
                let notice = Notice {
                    plain: &text.plain,
                    html: &text.html,
                    transaction,
                };
                matrix.say(notice, answered.as_ref()).await
            }
            Self::Tell {
                user,
                text,
                transaction,
            } => {
                let notice = Notice {
                    plain: &text.plain,
                    html: &text.html,
                    transaction,
                };
                matrix.tell(user, notice).await
            }
            Self::Withdraw {
                project,
                withdrawal,
                transaction,
            } => match find(matrix, project, &withdrawal.delivery, transaction).await? {
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
    transaction: &TransactionId,
) -> Result<Option<LinkReceipt>, Fault> {
    if let Some(receipt) = &delivery.receipt {
        return Ok(receipt.parse().ok());
    }
    let Ok(user) = OwnedUserId::try_from(delivery.request.requester.as_str()) else {
        return Ok(None);
    };
    matrix
        .trace(
            &user,
            &reply::ended_before_delivery(project).plain,
            transaction.to_owned(),
        )
        .await
}

async fn run(mut line: Line, errand: &Errand) {
    let mut waits = waits();
    loop {
        let matrix = line.matrix().await;
        match errand.attempt(&matrix).await {
            Ok(()) => return,
            Err(fault) if may_pass(&fault) => {
                warn!(%fault, "the homeserver did not take it yet, trying again");
            }
            Err(fault) => {
                let cause = std::error::Error::source(&fault).map(ToString::to_string);
                error!(%fault, cause, "the homeserver does not take it");
                return;
            }
        }
        sleep(waits.next().unwrap_or(LONGEST_WAIT)).await;
    }
}

/// The same after a crash, so that a second sending is no second event.
fn transaction(id: &DeliveryId) -> OwnedTransactionId {
    format!("rcbot-{}-{}", id.session, id.number).into()
}

fn waits() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(LONGEST_WAIT)
        .with_jitter()
        .without_max_times()
        .build()
}

/// A log-out passes too: the line is made anew.
fn may_pass(fault: &Fault) -> bool {
    fault.is_passing() || fault.is_logged_out()
}
