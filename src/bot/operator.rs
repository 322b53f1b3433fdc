//! The operator on the host, who can end sessions with no homeserver: a socket in the data directory, open to the bot's
//! own user alone. One order a connection: `stop PROJECT` and a line feed; the answer is one text.

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::{debug, error, warn};

/// How many orders may wait.
const ORDERS_WAITING: usize = 8;

/// The longest order, in bytes.
const LONGEST_ORDER: u64 = 256;

/// How long somebody who connected may take to give the order.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why an order did not get to the bot, or its answer not back.
#[derive(Debug, thiserror::Error)]
#[error("cannot speak to the bot that runs here, by {path}")]
pub struct OperatorError {
    path: PathBuf,
    source: io::Error,
}

/// An order to stop the session of a project.
#[derive(Debug)]
pub(super) struct StopOrder {
    /// As it was typed.
    pub(super) project: String,
    answer: oneshot::Sender<String>,
}

impl StopOrder {
    /// Answers the order.
    pub(super) fn answer(self, text: &str) {
        if self.answer.send(text.to_owned()).is_err() {
            debug!("the operator did not wait for the answer");
        }
    }
}

/// Hears the operator.
#[derive(Debug)]
pub(super) struct Operator(Option<mpsc::Receiver<StopOrder>>);

impl Operator {
    /// Opens the socket. A bot without it works all the same, but for `rcbot stop`.
    pub(super) fn listen(path: &Path) -> Self {
        match bind(path) {
            Ok(listener) => {
                let (orders, received) = mpsc::channel(ORDERS_WAITING);
                tokio::spawn(accept(listener, orders));
                Self(Some(received))
            }
            Err(error) => {
                warn!(path = %path.display(), %error, "no socket for the operator, `rcbot stop` will not work");
                Self(None)
            }
        }
    }

    /// The next order; waits for ever where none can come.
    pub(super) async fn next(&mut self) -> StopOrder {
        if let Some(orders) = &mut self.0
            && let Some(order) = orders.recv().await
        {
            return order;
        }
        std::future::pending().await
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    // Left behind by a bot that was killed: the lock of the data directory is ours, so nobody listens.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn accept(listener: UnixListener, orders: mpsc::Sender<StopOrder>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(hear(stream, orders.clone()));
            }
            Err(error) => {
                error!(%error, "the operator's socket fails");
                return;
            }
        }
        if orders.is_closed() {
            return;
        }
    }
}

async fn hear(stream: UnixStream, orders: mpsc::Sender<StopOrder>) {
    let (read, mut write) = stream.into_split();
    let mut order = String::new();
    let mut lines = BufReader::new(read.take(LONGEST_ORDER));
    let Ok(Ok(_)) = timeout(PATIENCE, lines.read_line(&mut order)).await else {
        return;
    };
    let text = match order.trim_end().strip_prefix("stop ") {
        Some(project) => {
            let (answer, answered) = oneshot::channel();
            drop(
                orders
                    .send(StopOrder {
                        project: project.to_owned(),
                        answer,
                    })
                    .await,
            );
            answered
                .await
                .unwrap_or_else(|_| "the bot ended before the session did".to_owned())
        }
        None => "not understood".to_owned(),
    };
    if let Err(error) = write.write_all(text.as_bytes()).await {
        debug!(%error, "the operator did not wait for the answer");
    }
}

/// Asks the bot that runs with this data directory to stop a session; gives back its answer, once the session is over.
///
/// # Errors
/// [`OperatorError`].
pub async fn ask_to_stop(data_dir: &Path, project: &str) -> Result<String, OperatorError> {
    let path = data_dir.join(super::data_dir::SOCKET);
    let ask = async {
        let mut stream = UnixStream::connect(&path).await?;
        stream
            .write_all(format!("stop {project}\n").as_bytes())
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    ask.await.map_err(|source| OperatorError {
        path: path.clone(),
        source,
    })
}
