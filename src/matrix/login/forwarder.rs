//! The way of all of the SDK's requests: it hands them over through a Unix socket, and they go on with what proves whose they are.
//! For an appservice that the homeserver does not log in, the SDK cannot do that itself; and nothing reaches the SDK unseen.
//!
//! Invariant: nothing is kept but what [`Quarantine`] keeps. Other bodies flow through as they come, whoever waits for an answer
//! decides how long, and where the homeserver is not reached the connection ends without an answer, which the SDK takes for
//! what it is.

use std::{
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::FutureExt as _;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri, Version,
    body::{Body as _, Bytes, Incoming},
    header::{self, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use matrix_sdk::{
    reqwest::{self, Body, Client},
    ruma::{OwnedDeviceId, api::error::IntoHttpError},
};
use serde_json::Value;
use tokio::{net::UnixStream, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, warn};
use url::Url;

use super::{
    Credential,
    request::{http_client, is_page, no_http_client},
};
use crate::{
    config::Config,
    matrix::{
        Chain, Fault, MatrixFolder,
        fault::LONGEST_WAIT,
        guard::{self, Quarantine},
    },
    private_socket::PrivateSocket,
};

/// What is between two neighbours on the way and goes no further (RFC 9110, section 7.6.1), and what is made anew.
const NOT_FORWARDED: [HeaderName; 9] = [
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
];

/// A forwarder that runs until this is dropped.
#[derive(Debug)]
pub(super) struct Forwarder {
    socket: PathBuf,
    route: Arc<Route>,
    /// Cancelled when it ends, whatever the reason.
    ended: CancellationToken,
    _serving: AbortOnDropHandle<()>,
}

impl Forwarder {
    /// Listens in this folder, which must be closed to others.
    pub(super) fn start(
        config: &Config,
        credential: Credential,
        device: OwnedDeviceId,
        folder: &MatrixFolder,
        quarantine: Arc<Quarantine>,
    ) -> Result<Self, Fault> {
        let path = folder.homeserver_socket();
        let socket = PrivateSocket::listen(&path).map_err(|source| Fault::File {
            path: path.clone(),
            source,
        })?;
        let route = Arc::new(Route {
            // Answers are compressed on the way here, and plain on the socket.
            http: http_client(Client::builder())?,
            homeserver: config.homeserver_url.clone(),
            credential,
            device,
            quarantine,
            placeholder: format!("placeholder-{:032x}", rand::random::<u128>()),
            is_reachable: AtomicBool::new(true),
        });
        let reached_at = socket.path().to_owned();
        let ended = CancellationToken::new();
        let serving = AssertUnwindSafe(serve(socket, Arc::clone(&route))).catch_unwind();
        let end = ended.clone().drop_guard();
        let serving = tokio::spawn(async move {
            // A panic is in the log; what it leaves behind is thrown away.
            drop(serving.await);
            drop(end);
        });
        Ok(Self {
            socket: reached_at,
            route,
            ended,
            _serving: AbortOnDropHandle::new(serving),
        })
    }

    /// What the SDK is to send its requests with, to [`Forwarder::homeserver`].
    pub(super) fn http_client(&self) -> Result<Client, Fault> {
        let client = Client::builder().unix_socket(self.socket.as_path());
        let client = client.no_proxy().no_gzip().build();
        client.map_err(no_http_client)
    }

    /// The homeserver's address as the SDK is to know it. There is none like it in the network.
    pub(super) fn homeserver() -> &'static str {
        "http://homeserver.invalid"
    }

    /// What the SDK is to take for its access token. Requests without it go out as they are, and those with another one do
    /// not go out: they are of an earlier log-in.
    pub(super) fn placeholder(&self) -> &str {
        &self.route.placeholder
    }

    /// What proves whose the requests are.
    pub(super) fn credential(&self) -> &Credential {
        &self.route.credential
    }

    /// Waits until no request is forwarded any more, which is a bug.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// Serves until a connection fails by a bug.
async fn serve(socket: PrivateSocket, route: Arc<Route>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            stream = socket.accept() => {
                connections.spawn(serve_connection(stream, Arc::clone(&route)));
            }
            Some(ended) = connections.join_next() => if ended.is_err() {
                return;
            }
        }
    }
}

async fn serve_connection(stream: UnixStream, route: Arc<Route>) {
    let service = service_fn(move |request| {
        let route = Arc::clone(&route);
        async move { route.forward(request).await }
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.await {
        debug!(error = %Chain(&error), "connection to the forwarder ended");
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
enum NotForwarded {
    #[error("the request is of an earlier log-in")]
    OfAnEarlierLogIn,
    #[error("the request has no address")]
    WithoutAddress(#[from] url::ParseError),
    #[error("the request cannot be made in the name of the bot's device")]
    Identity(#[from] IntoHttpError),
    #[error("the homeserver cannot be reached")]
    Unreachable(#[from] reqwest::Error),
}

/// Where requests go, and in whose name.
#[derive(Debug)]
struct Route {
    http: Client,
    homeserver: Url,
    credential: Credential,
    device: OwnedDeviceId,
    quarantine: Arc<Quarantine>,
    /// What the SDK takes for its access token.
    placeholder: String,
    /// Whether the last request came through, so that an outage is told once.
    is_reachable: AtomicBool,
}

/// What an answer is about that does not flow through as it comes.
enum Subject {
    /// What came since this token of the SDK's.
    Sync(String),
    Keys,
    Other,
}

impl Subject {
    fn of(request: &Request<Incoming>) -> Self {
        let path = request.uri().path();
        if request.method() == Method::GET && path.ends_with("/sync") {
            let query = request.uri().query().unwrap_or_default();
            let mut query = url::form_urlencoded::parse(query.as_bytes());
            let since = query.find(|(name, _)| name == "since");
            Self::Sync(
                since
                    .map(|(_, since)| since.into_owned())
                    .unwrap_or_default(),
            )
        } else if path.ends_with("/keys/query") {
            Self::Keys
        } else {
            Self::Other
        }
    }
}

impl Route {
    async fn forward(&self, request: Request<Incoming>) -> Result<Response<Body>, NotForwarded> {
        let subject = Subject::of(&request);
        let outgoing = self.outgoing(request)?;
        if let Subject::Sync(since) = &subject
            && let Some(part) = self.quarantine.next_part(since)
        {
            return Ok(Response::new(part.into()));
        }
        let answer = outgoing.send().await;
        match &answer {
            Ok(_) => self.is_reachable.store(true, Ordering::Relaxed),
            Err(error) if self.is_reachable.swap(false, Ordering::Relaxed) => {
                warn!(error = %Chain(error), "the homeserver cannot be reached");
            }
            Err(error) => debug!(error = %Chain(error), "the homeserver still cannot be reached"),
        }
        let answer = answer?;
        if is_page(&answer) {
            let mut absent = Response::new(Body::default());
            *absent.status_mut() = StatusCode::BAD_GATEWAY;
            return Ok(absent);
        }
        let mut answer = match (answer.status(), &subject) {
            (StatusCode::OK, Subject::Sync(since)) => {
                let since = guard::honest(since);
                let change = |body| self.quarantine.sync_answer(since, body);
                changed(answer, change).await?
            }
            (StatusCode::OK, Subject::Keys) => {
                changed(answer, |body| self.quarantine.keys_answer(body)).await?
            }
            // The SDK decides by the error code, whatever the status.
            (status, _) if status.is_client_error() || status.is_server_error() => {
                let mut answer = changed(answer, bound_wait).await?;
                bound_retry_after(answer.headers_mut());
                answer
            }
            _ => Response::from(answer),
        };
        *answer.version_mut() = Version::HTTP_11;
        drop_neighbours_headers(answer.headers_mut());
        Ok(answer)
    }

    fn outgoing(
        &self,
        request: Request<Incoming>,
    ) -> Result<reqwest::RequestBuilder, NotForwarded> {
        let (mut parts, body) = request.into_parts();
        let is_authenticated = match parts.headers.remove(header::AUTHORIZATION) {
            None => false,
            Some(authorization) if self.is_ours(&authorization) => true,
            Some(_) => return Err(NotForwarded::OfAnEarlierLogIn),
        };
        if let Credential::Appservice(appservice) = &self.credential
            && is_authenticated
        {
            let identity = appservice.identity(Some(&self.device));
            identity.maybe_add_to_uri(&mut parts.uri)?;
        }
        drop_neighbours_headers(&mut parts.headers);
        let url = address(&self.homeserver, &parts.uri)?;
        let mut outgoing = self.http.request(parts.method, url).headers(parts.headers);
        if !body.is_end_stream() {
            outgoing = outgoing.body(Body::wrap(body));
        }
        Ok(if is_authenticated {
            self.credential.authenticate(outgoing)
        } else {
            outgoing
        })
    }

    fn is_ours(&self, authorization: &HeaderValue) -> bool {
        let token = authorization.to_str().ok();
        token.and_then(|text| text.strip_prefix("Bearer ")) == Some(self.placeholder.as_str())
    }
}

/// The answer with another body, which needs all of it.
async fn changed(
    answer: reqwest::Response,
    change: impl FnOnce(Bytes) -> Bytes,
) -> reqwest::Result<Response<Body>> {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = change(answer.bytes().await?);
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer.headers_mut().remove(header::CONTENT_LENGTH);
    Ok(answer)
}

/// The SDK sleeps as long as the homeserver wants.
fn bound_wait(body: Bytes) -> Bytes {
    let Ok(Value::Object(mut answer)) = serde_json::from_slice(&body) else {
        return body;
    };
    let longest = u64::try_from(LONGEST_WAIT.as_millis()).unwrap_or(u64::MAX);
    match answer.get_mut("retry_after_ms") {
        Some(wait) if wait.as_u64().is_none_or(|wait| wait > longest) => *wait = longest.into(),
        Some(_) | None => return body,
    }
    Value::Object(answer).to_string().into()
}

/// A date, which is allowed too, goes: the body says the same, or the SDK waits as it does without either.
fn bound_retry_after(headers: &mut HeaderMap) {
    if let Some(wait) = headers.remove(header::RETRY_AFTER)
        && let Some(wait) = wait.to_str().ok().and_then(|text| text.parse::<u64>().ok())
    {
        let wait = wait.min(LONGEST_WAIT.as_secs());
        headers.insert(header::RETRY_AFTER, wait.into());
    }
}

/// The same path and query at the homeserver, whose own address may have a path, and which knows its own tokens only.
fn address(homeserver: &Url, uri: &Uri) -> Result<Url, url::ParseError> {
    let base = homeserver.as_str().trim_end_matches('/');
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut url = Url::parse(&format!("{base}{path}"))?;
    if uri.query().is_some_and(guard::may_hold_part) {
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let mut query = url.query_pairs_mut();
        query.clear();
        for (name, value) in &pairs {
            let is_token = ["since", "from", "to"].contains(&name.as_str());
            match if is_token {
                guard::honest(value)
            } else {
                value
            } {
                // The first sync has none.
                "" if is_token => &mut query,
                value => query.append_pair(name, value),
            };
        }
        drop(query);
    }
    Ok(url)
}

fn drop_neighbours_headers(headers: &mut HeaderMap) {
    for name in NOT_FORWARDED {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests;
