//! The line to the homeserver: kept up, and made anew when the homeserver logs the bot out, or the SDK fails at what somebody sent.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tracing::warn;

use crate::{
    config::Config,
    matrix::{Connection, Fault, Heard, Login, Matrix, MatrixFolder, Quarantine},
};

/// How many messages may wait between the homeserver and the loop.
const MESSAGES_WAITING: usize = 64;

/// How long a log-out may stay unnoticed by /sync: a homeserver may hold a request open for half a minute.
const LONGEST_RENEWAL: Duration = Duration::from_secs(40);

/// Gives whoever wants to speak the connection of the moment.
#[derive(Debug, Clone)]
pub(super) struct MatrixHandle(watch::Receiver<Option<Matrix>>);

impl MatrixHandle {
    /// Waits until there is a connection. For ever, once the bot ends.
    pub(super) async fn matrix(&mut self) -> Matrix {
        match self
            .0
            .wait_for(Option::is_some)
            .await
            .map(|matrix| matrix.clone())
        {
            Ok(Some(matrix)) => matrix,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Whether trying again may mend a fault. A log-out passes, as the connection is made anew, which takes with it whatever was
    /// under way on the one before.
    pub(super) fn may_mend(&self, fault: &Fault) -> bool {
        fault.is_passing() || fault.is_logged_out() || self.0.has_changed().unwrap_or(true)
    }

    /// Waits until the connection is no longer the one that [`Self::matrix`] gave last, but not for ever.
    pub(super) async fn wait_for_another(&mut self) {
        drop(timeout(LONGEST_RENEWAL, self.0.changed()).await);
    }

    /// Closes the stores of the connection, if there is one.
    pub(super) async fn close(&self) {
        let matrix = self.0.borrow().clone();
        if let Some(matrix) = matrix {
            matrix.close().await;
        }
    }
}

/// What is heard from the homeserver, over all connections.
pub(super) struct Hearing {
    pub(super) messages: mpsc::Receiver<Heard>,
    /// Whether the homeserver answered when it was last asked.
    pub(super) homeserver_answers: watch::Receiver<bool>,
}

/// The future that keeps up the line, and ends with the fault that it cannot mend; the line; and what is heard.
pub(super) fn open(
    config: Arc<Config>,
    login: Login,
    folder: MatrixFolder,
) -> (impl Future<Output = Fault>, MatrixHandle, Hearing) {
    let (connected, line) = watch::channel(None);
    let (heard, messages) = mpsc::channel(MESSAGES_WAITING);
    let (answers, homeserver_answers) = watch::channel(false);
    let keep_up = async move {
        let quarantine = match Quarantine::load(&folder) {
            Ok(quarantine) => Arc::new(quarantine),
            Err(fault) => return fault,
        };
        let mut undecrypted = VecDeque::new();
        loop {
            let connecting =
                Matrix::connect(Arc::clone(&config), &login, &folder, &quarantine).await;
            let Connection {
                matrix,
                heard: mut messages,
            } = match connecting {
                Ok(connection) => connection,
                Err(fault) => return fault,
            };
            matrix.wait_on(std::mem::take(&mut undecrypted));
            connected.send_replace(Some(matrix.clone()));
            let fault = tokio::select! {
                fault = matrix.follow() => fault,
                () = forward(&mut messages, &heard) => continue,
                () = forward_latest(matrix.homeserver_answers(), &answers) => continue,
            };
            answers.send_replace(false);
            if fault.is_logged_out() {
                warn!("logged out by the homeserver, connecting anew");
            } else if !matches!(fault, Fault::SetAside { .. }) {
                return fault;
            }
            connected.send_replace(None);
            // What came just before that was heard, and no later connection hears it again.
            messages.close();
            forward(&mut messages, &heard).await;
            undecrypted = matrix.take_undecrypted();
            matrix.close().await;
        }
    };
    let hearing = Hearing {
        messages,
        homeserver_answers,
    };
    (keep_up, MatrixHandle(line), hearing)
}

async fn forward(from: &mut mpsc::Receiver<Heard>, to: &mpsc::Sender<Heard>) {
    while let Some(message) = from.recv().await {
        if to.send(message).await.is_err() {
            return;
        }
    }
}

async fn forward_latest(mut from: watch::Receiver<bool>, to: &watch::Sender<bool>) {
    loop {
        let latest = *from.borrow_and_update();
        to.send_if_modified(|known| std::mem::replace(known, latest) != latest);
        if from.changed().await.is_err() {
            return;
        }
    }
}
