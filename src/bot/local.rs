//! The operator on the host, who commands without Matrix: a socket in the data directory, open to the bot's own user alone.
//! One order a connection, a line of JSON; the answer is JSON.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use matrix_sdk::ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::{debug, error, warn};

use crate::{
    config::MasterKey,
    data_dir::SOCKET,
    matrix::{IdentityReport, NotAccepted},
    private_socket::{self, PrivateSocket},
};

/// How many orders may wait.
const ORDERS_WAITING: usize = 8;

/// The longest order, in bytes: a user id has at most 255.
const LONGEST_ORDER: u64 = 1024;

/// How long somebody who connected may take to give the order.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why an order did not get to the bot, or was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Nobody listens.
    #[error("no bot runs with this data directory, or it does not listen at {path}")]
    NoBot {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or what came is no answer.
    #[error("the bot's answer did not come, by {path}")]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bot has the order and is not done with it.
    #[error("it has not done so within {}, and goes on trying: `rcbot status` shows what is left", humantime::format_duration(*.0))]
    NotYet(Duration),
    /// The bot says why it did not.
    #[error("{0}")]
    Refused(String),
}

/// What the operator orders.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// To end the session of a project, named as it was typed. The answer is a text for the operator.
    Stop(String),
    /// To tell of a user's identity. The answer is a [`IdentityReport`], or why there is none.
    Identity(OwnedUserId),
    /// To go by another identity of a user. The answer is a [`NotAccepted`], if anything.
    Trust(OwnedUserId, MasterKey),
}

/// An order, and where its answer goes.
#[derive(Debug)]
pub(super) struct Ordered {
    pub(super) order: Order,
    pub(super) answer: Answer,
}

/// Where the answer to an order goes.
#[derive(Debug)]
pub(super) struct Answer(oneshot::Sender<String>);

impl Answer {
    /// What came of the order, or why nothing did.
    pub(super) fn give<T: Serialize>(self, answer: &Result<T, String>) {
        match serde_json::to_string(answer) {
            Ok(text) => {
                if self.0.send(text).is_err() {
                    debug!("the operator did not wait for the answer");
                }
            }
            Err(error) => error!(%error, "no answer to the operator"),
        }
    }
}

/// Hears the operator.
#[derive(Debug)]
pub(super) struct Operator(Option<mpsc::Receiver<Ordered>>);

impl Operator {
    /// Opens the socket. A bot without it works all the same, but for `rcbot stop` and `rcbot trust`.
    pub(super) fn listen(path: &Path) -> Self {
        match PrivateSocket::listen(path) {
            Ok(socket) => {
                let (orders, received) = mpsc::channel(ORDERS_WAITING);
                tokio::spawn(accept(socket, orders));
                Self(Some(received))
            }
            Err(error) => {
                warn!(path = %path.display(), %error, "no socket for the operator, `rcbot stop` and `rcbot trust` will not work");
                Self(None)
            }
        }
    }

    /// The next order; waits for ever where none can come.
    pub(super) async fn next(&mut self) -> Ordered {
        if let Some(orders) = &mut self.0
            && let Some(order) = orders.recv().await
        {
            return order;
        }
        std::future::pending().await
    }
}

async fn accept(socket: PrivateSocket, orders: mpsc::Sender<Ordered>) {
    while !orders.is_closed() {
        tokio::spawn(hear(socket.accept().await, orders.clone()));
    }
}

async fn hear(stream: UnixStream, orders: mpsc::Sender<Ordered>) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut lines = BufReader::new(read.take(LONGEST_ORDER));
    let Ok(Ok(_)) = timeout(PATIENCE, lines.read_line(&mut line)).await else {
        return;
    };
    let text = match serde_json::from_str(&line) {
        Ok(order) => {
            let (answer, answered) = oneshot::channel();
            let answer = Answer(answer);
            drop(orders.send(Ordered { order, answer }).await);
            // Without a bot there is no answer, and the connection ends without one.
            answered.await.unwrap_or_default()
        }
        Err(error) => {
            debug!(%error, "order not understood");
            String::new()
        }
    };
    if let Err(error) = write.write_all(text.as_bytes()).await {
        debug!(%error, "the operator did not wait for the answer");
    }
}

/// Asks the bot that runs with this data directory to stop a session; gives back its answer, once the session is over.
///
/// # Errors
/// [`OperatorError`]; also when the answer takes longer than `patience`.
pub async fn ask_to_stop(
    data_dir: &Path,
    project: &str,
    patience: Duration,
) -> Result<String, OperatorError> {
    let order = Order::Stop(project.to_owned());
    let answer = timeout(patience, ask_json(data_dir, &order)).await;
    answer.unwrap_or(Err(OperatorError::NotYet(patience)))
}

/// Asks the bot that runs with this data directory for the identity of a user.
///
/// # Errors
/// [`OperatorError`].
pub async fn ask_for_identity(
    data_dir: &Path,
    user: &UserId,
) -> Result<IdentityReport, OperatorError> {
    ask_json(data_dir, &Order::Identity(user.to_owned())).await
}

/// Asks the bot that runs with this data directory to go by this identity of a user from now on.
///
/// # Errors
/// [`OperatorError`].
pub async fn ask_to_trust(
    data_dir: &Path,
    user: &UserId,
    key: MasterKey,
) -> Result<Result<(), NotAccepted>, OperatorError> {
    ask_json(data_dir, &Order::Trust(user.to_owned(), key)).await
}

async fn ask_json<T: DeserializeOwned>(data_dir: &Path, order: &Order) -> Result<T, OperatorError> {
    let text = ask(data_dir, order).await?;
    let answer: Result<T, String> =
        serde_json::from_str(&text).map_err(|error| OperatorError::NoAnswer {
            path: data_dir.join(SOCKET),
            source: error.into(),
        })?;
    answer.map_err(OperatorError::Refused)
}

async fn ask(data_dir: &Path, order: &Order) -> Result<String, OperatorError> {
    let path = data_dir.join(SOCKET);
    let mut stream =
        private_socket::connect(&path)
            .await
            .map_err(|source| OperatorError::NoBot {
                path: path.clone(),
                source,
            })?;
    let exchange = async {
        let line = serde_json::to_string(order)? + "\n";
        stream.write_all(line.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        if answer.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        Ok(answer)
    };
    exchange.await.map_err(|source| OperatorError::NoAnswer {
        path: path.clone(),
        source,
    })
}
