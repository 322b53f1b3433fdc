//! A malicious homeserver, or a bad connection to an honest one: an HTTP proxy between one bot and Synapse. People use Synapse
//! directly, so they see the true events.
//!
//! [`Proxy::on`] sets rules for requests, [`Proxy::inject`] adds answers to /sync.

mod answer;
pub(crate) mod forgery;
mod injection;
mod request;
pub(crate) mod rules;

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::{
    Response,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use matrix_sdk::{
    reqwest,
    ruma::{RoomId, UserId},
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use super::{homeserver::Homeserver, until};
use answer::Body;
use injection::Injections;
use rules::{Effect, RuleBuilder, Rules};

pub(crate) use answer::Answer;
pub(crate) use request::Request;

/// The certificate of a proxy that speaks TLS, for 127.0.0.1 and nothing else, and the authority that signed it.
pub(crate) const CERTIFICATE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/tls/certificate.pem"
);

const CERTIFICATES_KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls/key.pem");

/// Stands between one bot and the homeserver. Honest by default; stops when dropped.
pub(crate) struct Proxy {
    scheme: &'static str,
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) request: Request,
    pub(crate) status: u16,
    /// The answer; null if it is not JSON.
    pub(crate) answer: Value,
    pub(crate) at: Instant,
}

struct Shared {
    homeserver: String,
    http: reqwest::Client,
    rules: Rules,
    injections: Injections,
    passed: Mutex<Vec<Arc<Passed>>>,
    plugged_in: watch::Sender<bool>,
    refused: AtomicUsize,
    distance: Duration,
    connections: AtomicUsize,
    closing_idle: watch::Sender<()>,
    /// Its count has one more for each /sync that is not answered yet.
    listening: Arc<()>,
}

impl Proxy {
    /// A proxy on a free port, before this homeserver.
    pub(crate) async fn start(homeserver: &Homeserver) -> Self {
        Self::start_at(homeserver, Duration::ZERO).await
    }

    /// The same, with this delay for each request: half of it on the way there, half on the way back.
    pub(crate) async fn start_at(homeserver: &Homeserver, distance: Duration) -> Self {
        Self::start_with(homeserver, None, distance).await
    }

    /// The same with TLS and HTTP/2. Its clients need [`CERTIFICATE`] as the system's root certificates.
    pub(crate) async fn start_with_http2(homeserver: &Homeserver) -> Self {
        let certificate = CertificateDer::from_pem_file(CERTIFICATE).unwrap();
        let key = PrivateKeyDer::from_pem_file(CERTIFICATES_KEY).unwrap();
        let config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into());
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth();
        let mut config = config.with_single_cert(vec![certificate], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self::start_with(homeserver, Some(Arc::new(config).into()), Duration::ZERO).await
    }

    async fn start_with(
        homeserver: &Homeserver,
        tls: Option<TlsAcceptor>,
        distance: Duration,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            homeserver: homeserver.url(),
            http: reqwest::Client::new(),
            rules: Rules::default(),
            injections: Injections::default(),
            passed: Mutex::default(),
            plugged_in: watch::Sender::new(true),
            refused: AtomicUsize::new(0),
            distance,
            connections: AtomicUsize::new(0),
            closing_idle: watch::Sender::default(),
            listening: Arc::default(),
        });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let serving = tokio::spawn(serve(listener, tls, Arc::clone(&shared)));
        Self {
            scheme,
            address,
            shared,
            serving,
        }
    }

    /// The base of the client-server API, as the bot sees it.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Adds a rule for the requests that match: `proxy.on(Request::reads_state).times(1).answer(..)`.
    pub(crate) fn on(
        &self,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
    ) -> RuleBuilder<'_> {
        self.shared.rules.build(Box::new(matches))
    }

    /// Answers the bot's /sync at once with only `part`, and nothing of the homeserver's. Each part is a separate answer, in
    /// order. Its events can also be requested one by one.
    pub(crate) fn inject(&self, part: Value) {
        self.shared.injections.add(part);
    }

    /// Whether the bot has received all injected answers.
    pub(crate) fn has_injected_all(&self) -> bool {
        self.shared.injections.is_empty()
    }

    /// Cuts all connections, and refuses new ones until [`Self::plug_in`].
    pub(crate) fn unplug(&self) {
        self.shared.plugged_in.send_replace(false);
    }

    /// Ends what [`Self::unplug`] began.
    pub(crate) fn plug_in(&self) {
        self.shared.plugged_in.send_replace(true);
    }

    /// How many connections the bot has made so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Closes idle connections, as a homeserver does after a minute or two: not the one on which /sync waits.
    pub(crate) async fn close_idle_connections(&self) {
        until("the /sync of the bot waits", || self.shared.is_syncing()).await;
        self.shared.closing_idle.send_replace(());
    }

    /// How many connections were refused while the proxy was unplugged.
    pub(crate) fn refused_connections(&self) -> usize {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Removes all rules: from now on only the homeserver answers.
    pub(crate) fn be_honest(&self) {
        self.shared.rules.clear();
    }

    pub(crate) fn passed(&self) -> Vec<Arc<Passed>> {
        self.shared.passed.lock().unwrap().clone()
    }

    /// The requests so far that match, with their answers.
    pub(crate) fn passed_by(&self, matches: impl Fn(&Request) -> bool) -> Vec<Arc<Passed>> {
        let mut passed = self.passed();
        passed.retain(|passed| matches(&passed.request));
        passed
    }

    /// The devices of a user to which the bot has sent keys.
    pub(crate) fn keys_for(&self, user: &UserId) -> BTreeSet<String> {
        let sent = self.passed_by(Request::sends_to_devices).into_iter();
        let devices = sent.filter_map(|sent| {
            let devices = sent.request.json["messages"].get(user.as_str())?;
            Some(devices.as_object()?.clone())
        });
        devices.flatten().map(|(device, _)| device).collect()
    }

    /// All events of a room that the bot got so far, and the keys that came with them.
    pub(crate) fn brought_to(&self, room: &RoomId) -> (Vec<Value>, Vec<Value>) {
        let (mut events, mut to_device) = (Vec::new(), Vec::new());
        let list = |answer: &Value, pointer: &str| {
            let list = answer.pointer(pointer).and_then(Value::as_array);
            list.cloned().unwrap_or_default()
        };
        let timeline = format!("/rooms/join/{room}/timeline/events");
        for passed in self.passed_by(Request::is_sync) {
            events.extend(list(&passed.answer, &timeline));
            to_device.extend(list(&passed.answer, "/to_device/events"));
        }
        (events, to_device)
    }
}

/// Matches such requests about this room.
pub(crate) fn in_room(
    room: &RoomId,
    is_such: fn(&Request) -> bool,
) -> impl Fn(&Request) -> bool + use<> {
    let room = room.to_owned();
    move |request| is_such(request) && request.is_in(&room)
}

/// Matches such requests about other rooms: direct messages, if this is the admin room.
pub(crate) fn elsewhere(
    room: &RoomId,
    is_such: fn(&Request) -> bool,
) -> impl Fn(&Request) -> bool + use<> {
    let room = room.to_owned();
    move |request| is_such(request) && !request.is_in(&room)
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        if *shared.plugged_in.borrow() {
            shared.connections.fetch_add(1, Ordering::Relaxed);
            connections.spawn(serve_connection(stream, tls.clone(), Arc::clone(&shared)));
        } else {
            shared.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn serve_connection(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut plugged_in = shared.plugged_in.subscribe();
    let mut closing_idle = shared.closing_idle.subscribe();
    let asked = Arc::new(());
    let being_asked = Arc::clone(&asked);
    let serves = Arc::clone(&shared);
    let service = service_fn(move |request| {
        let (shared, being_asked) = (Arc::clone(&serves), Arc::clone(&being_asked));
        async move {
            let answer = handle(shared, request).await;
            drop(being_asked);
            answer
        }
    });
    let connection = async {
        // The bot has to cope with any end of a connection.
        let Some(tls) = tls else {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            return connection.await.ok();
        };
        let stream = TokioIo::new(tls.accept(stream).await.ok()?);
        let builder = http2::Builder::new(TokioExecutor::new());
        builder.serve_connection(stream, service).await.ok()
    };
    let mut connection = Box::pin(connection);
    loop {
        tokio::select! {
            _ended = &mut connection => return,
            _unplugged = plugged_in.wait_for(|plugged_in| !plugged_in) => return,
            Ok(()) = closing_idle.changed() => {
                // Ours and the service's, and one for each request.
                if Arc::strong_count(&asked) == 2 && shared.is_syncing() {
                    return;
                }
            }
        }
    }
}

async fn handle(
    shared: Arc<Shared>,
    incoming: hyper::Request<Incoming>,
) -> io::Result<Response<Body>> {
    let request = Request::read(incoming).await?;
    let _listening = request.is_sync().then(|| Arc::clone(&shared.listening));
    shared.travel().await;
    let effects = shared.rules.apply(&request);
    let mut own = None;
    for effect in &effects {
        match &**effect {
            Effect::Hold(gate) => gate.wait().await,
            Effect::Answer(answer) => own = own.or_else(|| Some(answer())),
            Effect::Change(_) => {}
        }
    }
    let mut answer = match own {
        Some(answer) => answer,
        None => match shared.injections.event(&request.path) {
            Some(event) => Answer::json(200, &event),
            None if request.is_sync() => shared.answer_sync(&request).await?,
            None => shared.ask_homeserver(&request).await?,
        },
    };
    for effect in &effects {
        if let Effect::Change(change) = &**effect {
            change(&request, &mut answer);
        }
    }
    shared.travel().await;
    let (status, json) = (answer.status, answer.json_body());
    shared.passed.lock().unwrap().push(Arc::new(Passed {
        request,
        status,
        answer: json,
        at: Instant::now(),
    }));
    answer.into_response()
}

impl Shared {
    fn is_syncing(&self) -> bool {
        Arc::strong_count(&self.listening) > 1
    }

    /// Delays for one of the two ways between the bot and the homeserver.
    async fn travel(&self) {
        if !self.distance.is_zero() {
            sleep(self.distance / 2).await;
        }
    }

    /// Injected answers come first; an initial sync is always the homeserver's.
    async fn answer_sync(&self, request: &Request) -> io::Result<Answer> {
        let Some(since) = request.query("since") else {
            return self.ask_homeserver(request).await;
        };
        tokio::select! {
            biased;
            part = self.injections.next() => {
                let mut answer = part;
                answer["next_batch"] = json!(self.injections.token(&since));
                Ok(Answer::json(200, &answer))
            }
            answer = self.ask_homeserver(request) => answer,
        }
    }

    async fn ask_homeserver(&self, request: &Request) -> io::Result<Answer> {
        let url = format!("{}{}", self.homeserver, Injections::honest(&request.target));
        let mut asked = self.http.request(request.method.clone(), url);
        for (name, value) in &request.headers {
            asked = asked.header(name, value);
        }
        let answered = asked.body(request.body.clone()).send().await;
        let answered = answered.map_err(io::Error::other)?;
        let status = answered.status().as_u16();
        let body = answered.bytes().await.map_err(io::Error::other)?;
        Ok(Answer::new(status, "application/json", body))
    }
}
