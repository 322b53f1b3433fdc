//! Shows typing in the admin room while an answer is due: a start takes some seconds, and the requester sees that the command
//! arrived.

use std::time::Duration;

use tokio::{sync::watch, time::timeout};
use tracing::debug;

use super::connection::MatrixHandle;
use crate::matrix::{Chain, Matrix};

/// Faster answers need no typing notice.
const SOON: Duration = Duration::from_millis(300);

/// How often it is sent again. The SDK sends it for four seconds, and not again before three.
const REPEATED: Duration = Duration::from_millis(3300);

/// How long it is shown: an answer that takes longer waits for something else than the bot.
const LONGEST: Duration = Duration::from_mins(5);

/// Shows it whenever an answer is due. Ends with the sender of `due`.
pub(super) async fn show(mut handle: MatrixHandle, mut due: watch::Receiver<bool>) {
    while due.wait_for(|due| *due).await.is_ok() {
        if answered_within(SOON, &mut due).await {
            continue;
        }
        let matrix = handle.connected().await;
        let repeat = async {
            loop {
                set(&matrix, true).await;
                if answered_within(REPEATED, &mut due).await {
                    break;
                }
            }
        };
        let is_answered = timeout(LONGEST, repeat).await.is_ok();
        set(&matrix, false).await;
        if !is_answered && due.wait_for(|due| !*due).await.is_err() {
            break;
        }
    }
}

async fn answered_within(time: Duration, due: &mut watch::Receiver<bool>) -> bool {
    timeout(time, due.wait_for(|due| !*due)).await.is_ok()
}

/// A courtesy: where it fails, the answer comes all the same.
async fn set(matrix: &Matrix, typing: bool) {
    if let Err(fault) = matrix.show_typing(typing).await {
        debug!(error = %Chain(&fault), "typing not shown");
    }
}
