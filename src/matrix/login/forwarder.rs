//! The way of the SDK's requests where the homeserver logs in no appservice: the SDK hands them over through a Unix socket,
//! and they go on in the name of the bot's user and device, with the appservice's token. The SDK cannot do that itself.
//!
//! Invariant: nothing is kept. Bodies flow through as they come, whoever waits for an answer decides how long, and where the
//! homeserver is not reached the connection ends without an answer, which the SDK takes for what it is.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use hyper::{
    HeaderMap, Request, Response, Uri, Version,
    body::{Body as _, Incoming},
    header::{self, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use matrix_sdk::{
    reqwest::{self, Body, Client},
    ruma::{OwnedDeviceId, api::error::IntoHttpError},
};
use tokio::{net::UnixStream, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};
use url::Url;

use super::Appservice;
use crate::{
    matrix::{Chain, Fault},
    private_socket::PrivateSocket,
};

/// The socket, in the folder of Matrix.
const SOCKET: &str = "homeserver.sock";

/// What is between two neighbours on the way and goes no further (RFC 9110, section 7.6.1), and what is made anew.
const NOT_FORWARDED: [HeaderName; 8] = [
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
    _serving: AbortOnDropHandle<()>,
}

impl Forwarder {
    /// Listens in this folder, which must be closed to others.
    pub(super) fn start(
        appservice: Appservice,
        device: OwnedDeviceId,
        folder: &Path,
    ) -> Result<Self, Fault> {
        let path = folder.join(SOCKET);
        let socket = PrivateSocket::listen(&path).map_err(|source| Fault::File {
            path: path.clone(),
            source,
        })?;
        let route = Arc::new(Route {
            // What is compressed is so for the SDK, and is not opened on the way.
            http: Client::builder()
                .no_gzip()
                .build()
                .map_err(Fault::HttpClient)?,
            appservice,
            device,
            placeholder: format!("placeholder-{:032x}", rand::random::<u128>()),
            is_reachable: AtomicBool::new(true),
        });
        info!("the homeserver logs in no appservice: requests go out with the appservice's token");
        let serving = AbortOnDropHandle::new(tokio::spawn(serve(socket, Arc::clone(&route))));
        Ok(Self {
            socket: path,
            route,
            _serving: serving,
        })
    }

    /// What the SDK is to send its requests with, to [`Forwarder::homeserver`].
    pub(super) fn http_client(&self) -> Result<Client, Fault> {
        let client = Client::builder().unix_socket(self.socket.as_path()).build();
        client.map_err(Fault::HttpClient)
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

    /// Deletes the device in whose name requests go out.
    pub(super) async fn delete_device(&self) -> Result<(), Fault> {
        let Route {
            appservice, device, ..
        } = &*self.route;
        appservice.delete_device(device).await
    }
}

async fn serve(socket: PrivateSocket, route: Arc<Route>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            stream = socket.accept() => {
                connections.spawn(serve_connection(stream, Arc::clone(&route)));
            }
            Some(_) = connections.join_next() => {}
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
    appservice: Appservice,
    device: OwnedDeviceId,
    /// What the SDK takes for its access token.
    placeholder: String,
    /// Whether the last request came through, so that an outage is told once.
    is_reachable: AtomicBool,
}

impl Route {
    async fn forward(&self, request: Request<Incoming>) -> Result<Response<Body>, NotForwarded> {
        let answer = self.outgoing(request)?.send().await;
        match &answer {
            Ok(_) => self.is_reachable.store(true, Ordering::Relaxed),
            Err(error) if self.is_reachable.swap(false, Ordering::Relaxed) => {
                warn!(error = %Chain(error), "the homeserver cannot be reached");
            }
            Err(error) => debug!(error = %Chain(error), "the homeserver still cannot be reached"),
        }
        let mut answer = Response::from(answer?);
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
        if is_authenticated {
            self.appservice
                .identity(Some(&self.device))
                .maybe_add_to_uri(&mut parts.uri)?;
        }
        drop_neighbours_headers(&mut parts.headers);
        let url = address(self.appservice.homeserver(), &parts.uri)?;
        let mut outgoing = self.http.request(parts.method, url).headers(parts.headers);
        if !body.is_end_stream() {
            outgoing = outgoing.body(Body::wrap(body));
        }
        Ok(if is_authenticated {
            self.appservice.authenticate(outgoing)
        } else {
            outgoing
        })
    }

    fn is_ours(&self, authorization: &HeaderValue) -> bool {
        let token = authorization.to_str().ok();
        token.and_then(|text| text.strip_prefix("Bearer ")) == Some(self.placeholder.as_str())
    }
}

/// The same path and query at the homeserver, whose own address may have a path.
fn address(homeserver: &Url, uri: &Uri) -> Result<Url, url::ParseError> {
    let base = homeserver.as_str().trim_end_matches('/');
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Url::parse(&format!("{base}{path}"))
}

fn drop_neighbours_headers(headers: &mut HeaderMap) {
    for name in NOT_FORWARDED {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests;
