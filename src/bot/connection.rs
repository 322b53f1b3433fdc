//! The connection to the homeserver: made again when the homeserver logs the bot out or the SDK fails at what somebody sent,
//! with retries until an attempt succeeds.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tracing::{debug, warn};

use crate::{
    config::Config,
    matrix::{BackOff, Chain, Connector, Fault, IncomingEvent, Login, Matrix, MatrixFolder},
};

/// How many events may wait for the loop. More than people type; the rest of a flood stays on the homeserver.
const EVENTS_WAITING: usize = 256;

/// How long a log-out may stay unnoticed by /sync: a homeserver may hold a request open for half a minute.
const LONGEST_RENEWAL: Duration = Duration::from_secs(40);

/// Gives the current connection.
#[derive(Debug, Clone)]
pub(super) struct MatrixHandle(watch::Receiver<Option<Matrix>>);

/// An error that may be a [`Fault`] of the homeserver.
pub(super) trait AsFault {
    fn fault(&self) -> Option<&Fault>;
}

impl AsFault for Fault {
    fn fault(&self) -> Option<&Fault> {
        Some(self)
    }
}

impl MatrixHandle {
    /// Waits until there is a connection. For ever, once the bot ends.
    pub(super) async fn connected(&mut self) -> Matrix {
        let connected = self.0.wait_for(Option::is_some).await;
        match connected.map(|matrix| matrix.clone()) {
            Ok(Some(matrix)) => matrix,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// The connection, once it has synced: the bot may have been removed from a room while it was offline.
    async fn up_to_date(&mut self) -> Matrix {
        loop {
            let matrix = self.connected().await;
            tokio::select! {
                () = matrix.wait_until_up_to_date() => return matrix,
                () = self.wait_for_another() => {}
            }
        }
    }

    /// Retries until success or a permanent fault. Each try needs the same transaction, so that an event is sent once.
    pub(super) async fn until_accepted<T, E: AsFault, F>(
        &self,
        attempt: impl Fn(Matrix) -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let mut attempts = self.attempts();
        loop {
            let matrix = attempts.connection().await;
            let result = Box::pin(attempt(matrix)).await;
            if !attempts.go_on(result.as_ref().err()).await {
                return result;
            }
        }
    }

    /// The same for an attempt that changes something.
    pub(super) fn attempts(&self) -> Attempts {
        Attempts {
            handle: self.clone(),
            back_off: BackOff::default(),
            warned: false,
        }
    }

    /// Whether a retry may help. It does after a log-out: the bot reconnects, which aborts what was under way before.
    fn is_retryable(&self, fault: &Fault) -> bool {
        fault.is_passing() || fault.is_logged_out() || self.0.has_changed().unwrap_or(true)
    }

    /// Waits for another connection than [`Self::connected`] gave last, with a timeout.
    async fn wait_for_another(&mut self) {
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

/// Tries of one thing, until one succeeds or fails for good.
pub(super) struct Attempts {
    handle: MatrixHandle,
    back_off: BackOff,
    warned: bool,
}

impl Attempts {
    pub(super) async fn connection(&mut self) -> Matrix {
        self.handle.up_to_date().await
    }

    /// Whether to try again; if so, waits, longer each time. Warns once: the connection logs when the homeserver is back.
    pub(super) async fn go_on(&mut self, error: Option<&impl AsFault>) -> bool {
        let fault = error.and_then(AsFault::fault);
        let Some(fault) = fault.filter(|fault| self.handle.is_retryable(fault)) else {
            return false;
        };
        if fault.is_logged_out() {
            self.handle.wait_for_another().await;
        }
        if matches!(fault, Fault::NotInAdminRoom) {
            // The task that joins it logs the reason.
            debug!(error = %Chain(fault), "cannot send to the admin room yet");
        } else if std::mem::replace(&mut self.warned, true) {
            debug!(error = %Chain(fault), "the homeserver still does not accept what the bot sends");
        } else {
            warn!(error = %Chain(fault), "the homeserver did not accept what the bot sent, retrying until it does");
        }
        self.back_off.wait(fault).await;
        true
    }
}

/// What arrives from the homeserver, over all connections.
pub(super) struct Inbound {
    pub(super) messages: mpsc::Receiver<IncomingEvent>,
    /// Whether the homeserver answered when it was last asked.
    pub(super) homeserver_answers: watch::Receiver<bool>,
}

/// The future that keeps up the connection and ends with a permanent fault; its handle; and what arrives.
pub(super) fn open(
    config: Arc<Config>,
    login: Login,
    folder: MatrixFolder,
) -> (
    impl Future<Output = Result<Infallible, Fault>>,
    MatrixHandle,
    Inbound,
) {
    let (connected, handle) = watch::channel(None);
    let (incoming, messages) = mpsc::channel(EVENTS_WAITING);
    let (answers, homeserver_answers) = watch::channel(false);
    let keep_up = async move {
        let connector = Connector::new(config, login, folder, incoming, answers)?;
        loop {
            let matrix = connector.connect().await?;
            connected.send_replace(Some(matrix.clone()));
            let fault = matrix.follow().await;
            if fault.is_logged_out() {
                warn!("logged out by the homeserver, reconnecting");
            } else if !matches!(fault, Fault::SetAside { .. }) {
                return Err(fault);
            }
            connected.send_replace(None);
            matrix.close().await;
        }
    };
    let inbound = Inbound {
        messages,
        homeserver_answers,
    };
    (keep_up, MatrixHandle(handle), inbound)
}
