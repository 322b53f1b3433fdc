//! The picture that follows a link, once the link is told and written down.

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    Bot, Event,
    connection::MatrixHandle,
    deliver::{Backoff, NotDelivered, transactions},
};
use crate::{
    command::reply,
    matrix::{Chain, NoPicture, NotConfidential, PictureMessage, SentLink},
    remote_control::{DeliveryId, Request},
};

/// What became of a picture, and of the link with it.
#[derive(Debug)]
pub(super) struct Settled {
    id: DeliveryId,
    request: Request,
    /// Where both are.
    receipt: String,
    /// Somebody else may have read them.
    overheard: bool,
}

impl Bot {
    /// Lets the picture of a link follow it. The record of the session says already that it may.
    pub(super) fn follow_with_picture(&mut self, id: DeliveryId, request: Request, sent: SentLink) {
        let called_off = CancellationToken::new();
        self.deliveries.insert(id.clone(), called_off.clone());
        let line = self.line.clone();
        self.spawn(
            async move { Event::Pictured(follow(line, id, request, sent, called_off).await) },
        );
    }

    pub(super) fn on_pictured(&mut self, settled: Settled) {
        let Settled {
            id,
            request,
            receipt,
            overheard,
        } = settled;
        self.deliveries.remove(&id);
        if overheard {
            // A delivery that is wanted no more is redacted.
            let obstacle = NotDelivered::NotConfidential(NotConfidential::Overheard);
            self.give_up(&id, &request, &obstacle);
        }
        let notices = self.remote_control.delivered(id, request, receipt);
        self.handle(notices);
    }
}

/// One try, as the link is there without its picture, and the SDK repeats each request by itself; but a picture that may be
/// there is not left before it is known who sees it.
async fn follow(
    mut line: MatrixHandle,
    id: DeliveryId,
    request: Request,
    mut sent: SentLink,
    called_off: CancellationToken,
) -> Settled {
    let message = picture_message(&id);
    let transactions = transactions(&id);
    let attempt = async {
        let mut patience = Backoff::new();
        loop {
            let matrix = line.matrix().await;
            let transaction = transactions.picture.clone();
            match sent
                .follow_with_picture(&matrix, &message, transaction)
                .await
            {
                Err(NoPicture::Unsure(fault)) if line.may_mend(&fault) => {
                    patience.wait(&fault).await;
                }
                result => return result,
            }
        }
    };
    let result = called_off.run_until_cancelled(attempt).await;
    let overheard = matches!(result, Some(Err(NoPicture::Overheard)));
    if let Some(Err(reason)) = result {
        warn!(project = %id.project, error = %Chain(&reason), "no picture follows the link");
    }
    Settled {
        receipt: sent.receipt().to_string(),
        id,
        request,
        overheard,
    }
}

fn picture_message(id: &DeliveryId) -> PictureMessage {
    let caption = reply::picture();
    PictureMessage {
        file_name: format!("remote-control-{}.png", id.project),
        caption: (caption.plain, caption.html),
    }
}
