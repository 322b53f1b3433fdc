//! The operator on the host, who commands without Matrix: a socket in the data directory, open to the bot's own user only.
//! One order a connection, a line of JSON; the answer is JSON.

use std::{
    convert::Infallible,
    future::pending,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use matrix_sdk::ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::{debug, error, warn};

use super::{Bot, answer::ReplyTarget, audit, connection::MatrixHandle};
use crate::{
    config::MasterKey,
    data_dir::SOCKET,
    matrix::{Chain, Fault, IdentityReport, Matrix, NotAccepted},
    private_socket::{self, PrivateSocket},
    remote_control::{ProjectName, Request},
};

const OPERATOR: &str = "the operator on the host";

/// How long the operator waits for a homeserver that does not answer.
const HOMESERVER_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) const ORDERS_WAITING: usize = 8;

/// The longest order, in bytes: a user id has at most 255.
const LONGEST_ORDER: u64 = 1024;

/// How long somebody who connected may take to give the order.
const ORDER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an order did not get to the bot, or was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperatorError {
    #[error("no bot runs with this data directory, or it does not listen at {path}")]
    NoBot { path: PathBuf, source: io::Error },
    /// The connection broke, or the answer is invalid.
    #[error("the bot's answer did not come, by {path}")]
    NoAnswer { path: PathBuf, source: io::Error },
    /// The bot has the order and is not done with it in time.
    #[error("it has not done so within {}, and goes on trying: `rcbot status` shows what is left", humantime::format_duration(*.0))]
    NotYet(Duration),
    #[error("{0}")]
    Refused(String),
}

/// A command of the operator.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// Stop the session of a project, named as it was typed. The answer is a text for the operator.
    Stop(String),
    /// Show a user's identity. The answer is an [`IdentityReport`], or why there is none.
    Identity(OwnedUserId),
    /// Accept another identity of a user. The answer is a [`NotAccepted`], if it is refused.
    Trust(OwnedUserId, MasterKey),
}

/// Where the answer to an order goes.
#[derive(Debug)]
pub(super) struct Answer(oneshot::Sender<String>);

impl Answer {
    /// Sends the result of the order, or why it failed.
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

/// Serves the operator at the socket; never ends, and a panic in it ends the bot. Without the socket only `rcbot stop` and
/// `rcbot trust` do not work.
pub(super) async fn listen(path: PathBuf, orders: mpsc::Sender<(Order, Answer)>) -> Infallible {
    let socket = match PrivateSocket::listen(&path) {
        Ok(socket) => socket,
        Err(error) => {
            warn!(path = %path.display(), %error, "no socket for the operator: `rcbot stop` and `rcbot trust` will not work");
            return pending().await;
        }
    };
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            stream = socket.accept() => connections.push(serve(stream, orders.clone())),
            Some(()) = connections.next() => {}
        }
    }
}

async fn serve(stream: UnixStream, orders: mpsc::Sender<(Order, Answer)>) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut lines = BufReader::new(read.take(LONGEST_ORDER));
    let Ok(Ok(_)) = timeout(ORDER_TIMEOUT, lines.read_line(&mut line)).await else {
        return;
    };
    let order = match serde_json::from_str(&line) {
        Ok(order) => order,
        Err(error) => return debug!(%error, "invalid order"),
    };
    let (answer, answered) = oneshot::channel();
    drop(orders.send((order, Answer(answer))).await);
    // If the bot ends, the connection ends without an answer.
    let text = answered.await.unwrap_or_default();
    if let Err(error) = write.write_all(text.as_bytes()).await {
        debug!(%error, "the operator did not wait for the answer");
    }
}

impl Bot {
    pub(super) fn execute_order(&mut self, order: Order, answer: Answer) {
        let matrix = self.matrix.clone();
        match order {
            Order::Stop(project) => self.stop_by_order(&project, answer),
            Order::Identity(user) => self.spawn_quiet(async move {
                let user = &user;
                let report =
                    ask_homeserver(&matrix, |matrix| async move { matrix.identity(user).await });
                answer.give(&report.await);
            }),
            Order::Trust(user, key) => self.spawn_quiet(trust(matrix, user, key, answer)),
        }
    }

    fn stop_by_order(&mut self, project: &str, answer: Answer) {
        let Ok(project) = project.parse::<ProjectName>() else {
            let refusal = format!("{project:?} cannot name a project");
            return answer.give(&Err::<(), _>(refusal));
        };
        audit::ordered(OPERATOR, &project);
        let number = rand::random();
        self.stop_orders.insert(number, answer);
        let request = Request {
            requester: OPERATOR.to_owned(),
            reference: ReplyTarget::Operator(number).to_text(),
        };
        let notices = self.remote_control.stop(&project, request);
        self.handle(notices);
    }
}

async fn trust(matrix: MatrixHandle, user: OwnedUserId, key: MasterKey, answer: Answer) {
    let whose = &user;
    let accepted = ask_homeserver(&matrix, |matrix| async move {
        matrix.accept_identity(whose, key).await
    });
    let accepted = accepted.await;
    let outcome = match &accepted {
        Ok(Ok(())) => "accepted",
        Ok(Err(NotAccepted::Configured)) => "refused: the configuration names the key",
        Ok(Err(NotAccepted::NotShown)) => "refused: the homeserver shows another key",
        Err(_) => "failed",
    };
    audit::trusted(OPERATOR, &user, key, outcome);
    answer.give(&accepted);
}

/// The homeserver's answer, or why there is none, in words for the operator.
async fn ask_homeserver<T, F>(
    matrix: &MatrixHandle,
    question: impl Fn(Matrix) -> F,
) -> Result<T, String>
where
    F: Future<Output = Result<T, Fault>>,
{
    match timeout(HOMESERVER_TIMEOUT, matrix.until_accepted(question)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(fault)) => {
            warn!(error = %Chain(&fault), "an order of the operator failed");
            Err(Chain(&fault).to_string())
        }
        Err(_) => Err(format!(
            "the homeserver has not answered for {}",
            humantime::format_duration(HOMESERVER_TIMEOUT)
        )),
    }
}

/// Asks the bot that runs with this data directory to stop a session; gives back its answer, once the session is over.
/// Fails also when the answer takes longer than `patience`.
pub(crate) async fn ask_to_stop(
    data_dir: &Path,
    project: &str,
    patience: Duration,
) -> Result<String, OperatorError> {
    let order = Order::Stop(project.to_owned());
    let answer = timeout(patience, ask(data_dir, &order)).await;
    answer.unwrap_or(Err(OperatorError::NotYet(patience)))
}

pub(crate) async fn ask_for_identity(
    data_dir: &Path,
    user: &UserId,
) -> Result<IdentityReport, OperatorError> {
    ask_soon(data_dir, &Order::Identity(user.to_owned())).await
}

pub(crate) async fn ask_to_trust(
    data_dir: &Path,
    user: &UserId,
    key: MasterKey,
) -> Result<Result<(), NotAccepted>, OperatorError> {
    ask_soon(data_dir, &Order::Trust(user.to_owned(), key)).await
}

/// An order that the bot answers within [`HOMESERVER_TIMEOUT`], unless it is stopped or hangs.
async fn ask_soon<T: DeserializeOwned>(data_dir: &Path, order: &Order) -> Result<T, OperatorError> {
    let answer = timeout(HOMESERVER_TIMEOUT + ORDER_TIMEOUT, ask(data_dir, order)).await;
    answer.unwrap_or_else(|_| {
        Err(OperatorError::NoAnswer {
            path: data_dir.join(SOCKET),
            source: io::ErrorKind::TimedOut.into(),
        })
    })
}

async fn ask<T: DeserializeOwned>(data_dir: &Path, order: &Order) -> Result<T, OperatorError> {
    let path = data_dir.join(SOCKET);
    let mut stream = match private_socket::connect(&path).await {
        Ok(stream) => stream,
        Err(source) => return Err(OperatorError::NoBot { path, source }),
    };
    let exchange = async {
        let line = serde_json::to_string(order)? + "\n";
        stream.write_all(line.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        if answer.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        Ok(serde_json::from_str::<Result<T, String>>(&answer)?)
    };
    let answer = exchange.await;
    let answer = answer.map_err(|source| OperatorError::NoAnswer { path, source })?;
    answer.map_err(OperatorError::Refused)
}
