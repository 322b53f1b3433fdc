//! Forwards all of the SDK's requests, from a Unix socket to the homeserver, with the bot's credential. For an appservice that
//! the homeserver does not log in, the SDK cannot add that itself; and no answer reaches the SDK unchecked.
//!
//! Invariant: nothing is stored, except by [`Quarantine`]. Other bodies are streamed, and the caller decides how long to wait.
//! Where the homeserver cannot be reached the connection closes without an answer, for the SDK a network error.

use std::{
    error::Error,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::bail;
use http_body_util::{BodyExt as _, LengthLimitError, Limited, combinators::BoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri, Version,
    body::{Body as _, Bytes, Incoming},
    header::{self, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use matrix_sdk::reqwest::{self, Body, Client};
use serde_json::Value;
use tokio::{net::UnixStream, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, warn};
use url::Url;

use super::appservice::Appservice;
use crate::{
    config::Config,
    matrix::{
        Chain, Fault, MatrixFolder,
        fault::LONGEST_WAIT,
        folder::file_fault,
        guard::{self, Quarantine},
        homeserver::{http_client, is_page, no_http_client, page_in_words},
        unreadable::readable_messages,
    },
    private_socket::PrivateSocket,
    secret::Token,
};

/// Hop-by-hop headers (RFC 9110, section 7.6.1), and those that each connection sets itself.
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

/// The largest answer that is passed on, decompressed: the first sync of a bot in a room with many thousands of members has some
/// MiB, and what a broken proxy sends may have no end.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// The SDK does not log how long it waits. Of a wait like this an operator should know.
const LONG_WAIT: Duration = Duration::from_secs(10);

/// Whether the last request reached the homeserver, so that an outage is logged once, however many forwarders see it: a process
/// has one homeserver.
static IS_REACHABLE: AtomicBool = AtomicBool::new(true);

/// How the SDK's requests are authenticated.
#[derive(Debug)]
pub(super) enum Credential {
    /// The device's own token.
    Token(Token),
    /// The appservice's token, together with user and device.
    Appservice(Box<Appservice>),
}

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
    /// Listens in this folder, which must be inaccessible to others.
    pub(super) fn start(
        config: &Config,
        credential: Credential,
        folder: &MatrixFolder,
        quarantine: Arc<Quarantine>,
    ) -> Result<Self, Fault> {
        let path = folder.homeserver_socket();
        let socket = PrivateSocket::listen(&path).map_err(|source| file_fault(&path, source))?;
        let route = Arc::new(Route {
            // Answers are compressed on the network, and plain on the socket.
            http: http_client(Client::builder())?,
            homeserver: config.homeserver_url.clone(),
            credential,
            quarantine,
            placeholder: format!("placeholder-{:032x}", rand::random::<u128>()),
        });
        let reached_at = socket.path().to_owned();
        let ended = CancellationToken::new();
        let serving = serve(socket, Arc::clone(&route));
        let end = ended.clone().drop_guard();
        let serving = tokio::spawn(async move {
            // Dropped after a panic too, which is in the log.
            let _end = end;
            serving.await;
        });
        Ok(Self {
            socket: reached_at,
            route,
            ended,
            _serving: AbortOnDropHandle::new(serving),
        })
    }

    /// The HTTP client for the SDK, which sends to [`Forwarder::homeserver`].
    pub(super) fn http_client(&self) -> Result<Client, Fault> {
        let client = Client::builder().unix_socket(self.socket.as_path());
        // A socket has no certificate to check, and loading those of the system takes time and memory.
        let client = client.no_proxy().no_gzip().tls_certs_only([]).build();
        client.map_err(no_http_client)
    }

    /// The homeserver's address for the SDK. It does not exist in the network.
    pub(super) fn homeserver() -> &'static str {
        "http://homeserver.invalid"
    }

    /// The SDK's access token. Requests without a token are forwarded as they are. Those with another one are not forwarded:
    /// they are of an earlier log-in.
    pub(super) fn placeholder(&self) -> &str {
        &self.route.placeholder
    }

    pub(super) fn credential(&self) -> &Credential {
        &self.route.credential
    }

    /// Waits until forwarding has ended, which only a bug causes.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// Serves until a connection panics.
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

/// Where requests go, and in whose name.
#[derive(Debug)]
struct Route {
    http: Client,
    homeserver: Url,
    credential: Credential,
    quarantine: Arc<Quarantine>,
    /// The SDK's access token.
    placeholder: String,
}

/// The kinds of requests whose answers are not streamed.
enum Subject {
    /// A sync, with the SDK's token.
    Sync(String),
    Keys,
    Messages,
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
        } else if path.ends_with("/messages") {
            Self::Messages
        } else {
            Self::Other
        }
    }
}

impl Route {
    /// An error: the request gets no answer.
    async fn forward(&self, request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
        let subject = Subject::of(&request);
        let name = format!("{} {}", request.method(), request.uri().path());
        let outgoing = self.outgoing(request)?;
        if let Subject::Sync(since) = &subject
            && let Some(part) = self.quarantine.next_part(since)
        {
            return Ok(Response::new(part.into()));
        }
        let answer = outgoing.send().await;
        match &answer {
            Ok(_) => IS_REACHABLE.store(true, Ordering::Relaxed),
            Err(error) if IS_REACHABLE.swap(false, Ordering::Relaxed) => {
                warn!(error = %Chain(error), "the homeserver cannot be reached");
            }
            Err(error) => debug!(error = %Chain(error), "the homeserver still cannot be reached"),
        }
        let answer = answer?;
        let page = page_in_words(&answer, &name);
        if is_page(&answer) {
            let mut absent = Response::new(page.into());
            *absent.status_mut() = StatusCode::BAD_GATEWAY;
            return Ok(absent);
        }
        let answer = bounded(answer, &name);
        let mut answer = match (answer.status(), &subject) {
            (StatusCode::OK, Subject::Sync(since)) => {
                with_body(answer, |body| self.quarantine.sync_answer(since, body)).await?
            }
            (StatusCode::OK, Subject::Keys) => {
                with_body(answer, |body| self.quarantine.keys_answer(body)).await?
            }
            (StatusCode::OK, Subject::Messages) => with_body(answer, readable_messages).await?,
            // The SDK decides by the error code, whatever the status.
            (status, _) if status.is_client_error() || status.is_server_error() => {
                debug!(%status, request = name, "the homeserver answers with an error");
                let mut answer =
                    with_body(answer, |body| rewritten_error(&name, &body, page)).await?;
                bound_retry_after(answer.headers_mut());
                answer
            }
            _ => answer.map(Body::wrap),
        };
        *answer.version_mut() = Version::HTTP_11;
        drop_hop_by_hop_headers(answer.headers_mut());
        Ok(answer)
    }

    fn outgoing(&self, request: Request<Incoming>) -> anyhow::Result<reqwest::RequestBuilder> {
        let (mut parts, body) = request.into_parts();
        let token = match (
            parts.headers.remove(header::AUTHORIZATION),
            &self.credential,
        ) {
            (None, _) => None,
            (Some(authorization), _) if !self.is_ours(&authorization) => {
                bail!("the request is of an earlier log-in");
            }
            (Some(_), Credential::Token(token)) => Some(token),
            (Some(_), Credential::Appservice(appservice)) => {
                appservice.as_device().maybe_add_to_uri(&mut parts.uri)?;
                Some(appservice.token())
            }
        };
        drop_hop_by_hop_headers(&mut parts.headers);
        let url = address(&self.homeserver, &parts.uri)?;
        let mut outgoing = self.http.request(parts.method, url).headers(parts.headers);
        if !body.is_end_stream() {
            outgoing = outgoing.body(Body::wrap(body));
        }
        Ok(match token {
            Some(token) => outgoing.bearer_auth(token.expose()),
            None => outgoing,
        })
    }

    fn is_ours(&self, authorization: &HeaderValue) -> bool {
        let token = authorization.to_str().ok();
        token.and_then(|text| text.strip_prefix("Bearer ")) == Some(self.placeholder.as_str())
    }
}

type Bounded = BoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// The answer, whose body fails where it becomes too large: for the SDK a network error.
fn bounded(answer: reqwest::Response, request: &str) -> Response<Bounded> {
    let request = request.to_owned();
    Response::from(answer).map(|body| {
        let body = Limited::new(body, LARGEST_ANSWER).map_err(move |error| {
            if error.is::<LengthLimitError>() {
                warn!(
                    request,
                    limit = LARGEST_ANSWER,
                    "an answer is too large and was cut off"
                );
            }
            error
        });
        body.boxed()
    })
}

/// The answer with another body, after the whole body has arrived.
async fn with_body(
    answer: Response<Bounded>,
    change: impl FnOnce(Bytes) -> Bytes,
) -> anyhow::Result<Response<Body>> {
    let (mut head, body) = answer.into_parts();
    let body = body.collect().await.map_err(anyhow::Error::from_boxed)?;
    head.headers.remove(header::CONTENT_LENGTH);
    let body = change(body.to_bytes()).into();
    Ok(Response::from_parts(head, body))
}

/// The error for the SDK: with the request that failed, which the SDK's own errors do not name; and with a bounded wait, as the
/// SDK sleeps as long as the homeserver wants.
fn rewritten_error(request: &str, body: &[u8], page: Bytes) -> Bytes {
    let Ok(Value::Object(mut answer)) = serde_json::from_slice(body) else {
        return page;
    };
    if let Some(wait) = answer.get_mut("retry_after_ms") {
        let wanted = wait.as_u64().map_or(LONGEST_WAIT, Duration::from_millis);
        let bounded = wanted.min(LONGEST_WAIT);
        if bounded >= LONG_WAIT {
            let seconds = bounded.as_secs();
            warn!(
                request,
                seconds, "the homeserver asks for a pause before this request is sent again"
            );
        }
        *wait = u64::try_from(bounded.as_millis())
            .unwrap_or(u64::MAX)
            .into();
    }
    if let Some(Value::String(error)) = answer.get_mut("error") {
        *error = format!("{error} ({request})");
    }
    Value::Object(answer).to_string().into()
}

/// Removes a date, which is allowed too: the body says the same, or the SDK waits as it does by default.
fn bound_retry_after(headers: &mut HeaderMap) {
    if let Some(wait) = headers.remove(header::RETRY_AFTER)
        && let Some(wait) = wait.to_str().ok().and_then(|text| text.parse::<u64>().ok())
    {
        let wait = wait.min(LONGEST_WAIT.as_secs());
        headers.insert(header::RETRY_AFTER, wait.into());
    }
}

/// The same path and query at the homeserver, whose address may have a path. It gets only its own tokens.
fn address(homeserver: &Url, uri: &Uri) -> Result<Url, url::ParseError> {
    let base = homeserver.as_str().trim_end_matches('/');
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut url = Url::parse(&format!("{base}{path}"))?;
    if uri.query().is_some_and(guard::may_hold_part) {
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let mut query = url.query_pairs_mut();
        query.clear();
        for (name, value) in &pairs {
            let is_token = ["since", "to"].contains(&name.as_str());
            match if is_token {
                guard::homeserver_token(value)
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

fn drop_hop_by_hop_headers(headers: &mut HeaderMap) {
    for name in NOT_FORWARDED {
        headers.remove(name);
    }
}

// The bytes that go out, and those that come back.
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use matrix_sdk::ruma::device_id;
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        task::JoinHandle,
    };

    use super::*;
    use crate::{
        config::Config,
        matrix::{
            Registration, generate,
            homeserver::testing::{self, read_until},
            write_new,
        },
        secret::Token,
    };

    /// A mock homeserver, and the SDK's side of a forwarder to it.
    struct Setting {
        homeserver: TcpListener,
        forwarder: Forwarder,
        http: Client,
        folder: tempfile::TempDir,
        as_token: String,
    }

    impl Setting {
        async fn new() -> Self {
            Self::with(|appservice| Credential::Appservice(Box::new(appservice))).await
        }

        async fn with(credential: impl FnOnce(Appservice) -> Credential) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (homeserver, config) = testing::homeserver(folder.path()).await;
            let (appservice, as_token) = appservice(&config, folder.path());
            let credential = credential(appservice);
            let matrix = MatrixFolder::new(folder.path().to_owned());
            let quarantine = Arc::new(Quarantine::load(&matrix).unwrap());
            let forwarder = Forwarder::start(&config, credential, &matrix, quarantine).unwrap();
            Self {
                as_token,
                homeserver,
                http: forwarder.http_client().unwrap(),
                forwarder,
                folder,
            }
        }

        fn request(&self, path: &str) -> reqwest::RequestBuilder {
            let url = format!("{}{path}", Forwarder::homeserver());
            self.http.post(url)
        }

        /// A request as the homeserver gets it up to this text, the connection for its reply, and the SDK's wait for that.
        async fn ask(&self, request: reqwest::RequestBuilder, end: &str) -> Asked {
            let asking = tokio::spawn(request.send());
            let (mut stream, _) = self.homeserver.accept().await.unwrap();
            let asked = read_until(&mut stream, end).await;
            (asked, stream, asking)
        }

        /// The first line of a request as the homeserver gets it, and the SDK's answer when the homeserver sends this.
        async fn answer(&self, request: reqwest::RequestBuilder, reply: &str) -> (String, Answer) {
            let (asked, mut stream, asking) = self.ask(request, END).await;
            stream.write_all(reply.as_bytes()).await.unwrap();
            let first = asked.lines().next().unwrap().to_owned();
            (first, asking.await.unwrap().unwrap())
        }
    }

    /// Of the headers of a request.
    const END: &str = "\r\n\r\n";

    type Answer = reqwest::Response;
    type Asked = (String, TcpStream, JoinHandle<reqwest::Result<Answer>>);

    async fn read_json(answer: Answer) -> Value {
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }

    fn json(status: &str, header: &str, body: &Value) -> String {
        let body = body.to_string();
        let length = body.len();
        // Each on its own connection, so that none waits for the one before.
        format!(
            "HTTP/1.1 {status}\r\n{header}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    }

    /// The appservice of a configuration, and its token.
    fn appservice(config: &Config, folder: &std::path::Path) -> (Appservice, String) {
        let registration = folder.join("registration.yaml");
        write_new(&registration, &generate(&config.bot_user, false)).unwrap();
        let registration = Registration::load(&registration, &config.bot_user).unwrap();
        let device = device_id!("RCBOT+1");
        let appservice = Appservice::new(config, &registration, device).unwrap();
        (appservice, registration.as_token.expose().to_owned())
    }

    #[tokio::test]
    async fn a_request_goes_out_in_the_name_of_user_and_device_with_the_appservices_token() {
        let setting = Setting::new().await;
        let request = setting
            .request("/_matrix/client/v3/sync?since=a%20b")
            .bearer_auth(setting.forwarder.placeholder())
            .header("x-of-the-sdk", "kept")
            .body("the body");
        let (asked, mut stream, asking) = setting.ask(request, "the body").await;
        let (first, headers) = asked.split_once("\r\n").unwrap();
        assert_eq!(
            first,
            "POST /base/_matrix/client/v3/sync?since=a%20b&user_id=%40rcbot%3Aexample.org&device_id=RCBOT%2B1 HTTP/1.1"
        );
        let headers = headers.to_lowercase();
        let authorization = format!("authorization: bearer {}\r\n", setting.as_token);
        assert!(headers.contains(&authorization), "{headers}");
        assert!(headers.contains("x-of-the-sdk: kept\r\n"), "{headers}");
        assert!(headers.contains(&format!(
            "host: {}\r\n",
            setting.homeserver.local_addr().unwrap()
        )));
        assert_eq!(headers.matches("authorization:").count(), 1);

        let reply = "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        stream.write_all(reply.as_bytes()).await.unwrap();
        let answer = asking.await.unwrap().unwrap();
        assert_eq!(answer.status(), 403);
        assert_eq!(answer.headers()["content-type"], "application/json");
        assert_eq!(answer.text().await.unwrap(), "{}");
    }

    #[tokio::test]
    async fn a_request_of_a_device_that_is_logged_in_goes_out_with_its_own_token() {
        let token = |_| Credential::Token(Token::new("the_token".to_owned()).unwrap());
        let setting = Setting::with(token).await;
        let request = setting
            .request("/x?y=z")
            .bearer_auth(setting.forwarder.placeholder());
        let (asked, ..) = setting.ask(request, END).await;
        let asked = asked.to_lowercase();
        let begins = asked.starts_with("post /base/x?y=z http/1.1\r\n");
        let is_authorized = asked.contains("authorization: bearer the_token\r\n");
        assert!(begins && is_authorized, "{asked}");
    }

    #[tokio::test]
    async fn events_come_by_sender_and_the_homeserver_sees_only_its_own_tokens() {
        let setting = Setting::new().await;
        let key = "nqOvzeuGWT/sRx3h7+MHoInYj3Uk2LD/unI9kDYcHwk";
        let content = json!({
            "algorithm": "m.olm.v1.curve25519-aes-sha2", "sender_key": key, "ciphertext": { key: {} },
        });
        let event =
            |sender| json!({ "type": "m.room.encrypted", "sender": sender, "content": content });
        let events = [event("@a:x"), event("@b:x")];
        let reply = json!({ "next_batch": "b", "rooms": {}, "to_device": { "events": events } });
        let reply = json("200 OK", "content-type: application/json\r\n", &reply);
        let sync = |since: &str| {
            let query = match since {
                "" => String::new(),
                since => format!("since={since}&"),
            };
            let homeserver = Forwarder::homeserver();
            let url = format!("{homeserver}/_matrix/client/v3/sync?{query}timeout=0");
            setting.http.get(url)
        };
        for (since, query) in [("", ""), ("s1", "since=s1&")] {
            let (asked, part) = setting.answer(sync(since), &reply).await;
            let expected = format!("GET /base/_matrix/client/v3/sync?{query}timeout=0 HTTP/1.1");
            assert_eq!(asked, expected);
            let part = read_json(part).await;
            assert_eq!(part["to_device"]["events"], json!([events[0]]));
            assert!(part.get("rooms").is_none());

            // The next part is here already. A new client with the same token gets everything again.
            let token = part["next_batch"].as_str().unwrap();
            let part = read_json(sync(token).send().await.unwrap()).await;
            assert_eq!(part["next_batch"], "b");
            assert_eq!(part["to_device"]["events"], json!([events[1]]));
            let (asked, _) = setting.answer(sync(token), &reply).await;
            assert_eq!(asked, expected);
            // Events are backfilled up to the token of the last sync.
            let homeserver = Forwarder::homeserver();
            let gap = format!("{homeserver}/messages?from=t1&to={token}&dir=b");
            let (asked, _) = setting.answer(setting.http.get(gap), &reply).await;
            let to = query.replace("since", "to");
            assert_eq!(
                asked,
                format!("GET /base/messages?from=t1&{to}dir=b HTTP/1.1")
            );
        }
    }

    #[tokio::test]
    async fn a_retry_waits_for_five_minutes_at_most() {
        let setting = Setting::new().await;
        for (header, body, header_then, body_then) in [
            ("retry-after: 86400\r\n", 86_400_000, Some("300"), 300_000),
            ("retry-after: 7\r\n", 7_000, Some("7"), 7_000),
            ("retry-after: Fri, 31 Dec 9999 23:59:59 GMT\r\n", 1, None, 1),
        ] {
            let reply =
                json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "no", "retry_after_ms": body });
            for status in [429, 400, 503] {
                let reply = json(&format!("{status} No"), header, &reply);
                let (_, answer) = setting.answer(setting.request("/x"), &reply).await;
                assert_eq!(answer.status(), status);
                let wait = answer.headers().get("retry-after");
                assert_eq!(wait.map(|wait| wait.to_str().unwrap()), header_then);
                let body = read_json(answer).await;
                assert_eq!(body["retry_after_ms"], body_then);
                // The SDK's errors do not say which request failed.
                assert_eq!(body["error"], "no (POST /x)");
            }
        }
    }

    #[tokio::test]
    async fn a_request_without_a_token_is_forwarded_and_one_with_an_unknown_token_is_not() {
        let setting = Setting::new().await;
        let stranger = setting.request("/x").bearer_auth("somebody").send().await;
        assert!(stranger.unwrap_err().is_request());

        let request = setting.request("/_matrix/client/versions");
        let (asked, ..) = setting.ask(request, END).await;
        let begins = asked.starts_with("POST /base/_matrix/client/versions HTTP/1.1\r\n");
        let is_authorized = asked.to_lowercase().contains("authorization");
        assert!(begins && !is_authorized, "{asked}");
    }

    #[tokio::test]
    async fn a_page_of_a_proxy_becomes_a_bad_gateway() {
        let setting = Setting::new().await;
        for (page, words) in [
            (
                "200 OK\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\npage",
                "200 OK (",
            ),
            ("200 OK\r\ncontent-length: 0\r\n\r\n", "200 OK ("),
            ("204 No Content\r\n\r\n", "204 No Content ("),
            (
                "302 Found\r\nlocation: /maintenance?for=you\r\ncontent-length: 0\r\n\r\n",
                "302 Found to http://127.0.0.1:PORT/maintenance (",
            ),
            (
                "308 Permanent Redirect\r\nlocation: https://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
                "308 Permanent Redirect to https://127.0.0.1:1/ (",
            ),
            (
                "502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\npage",
                "502 Bad Gateway (the reverse proxy does not reach the homeserver",
            ),
        ] {
            let page = page.replacen("\r\n", "\r\nconnection: close\r\n", 1);
            let reply = format!("HTTP/1.1 {page}");
            let (_, answer) = setting.answer(setting.request("/x?y"), &reply).await;
            assert_eq!(answer.status(), 502, "{page}");
            let port = setting.homeserver.local_addr().unwrap().port();
            let words = words.replace("PORT", &port.to_string());
            let said = read_json(answer).await;
            let said = said.as_str().unwrap();
            assert!(said.starts_with(&format!("POST /x: {words}")), "{said}");
        }
    }

    #[tokio::test]
    async fn an_answer_is_streamed_and_a_closed_connection_closes_the_other_one() {
        let setting = Setting::new().await;
        let (_, mut stream, asking) = setting.ask(setting.request("/x"), END).await;
        let beginning =
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\nhello";
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let mut answer = asking.await.unwrap().unwrap();
        assert_eq!(
            answer.chunk().await.unwrap().unwrap(),
            "hello",
            "before the rest is there"
        );
        drop(answer);
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);

        // The same while there is no answer yet, as when a long poll is cancelled.
        let (_, mut stream, asking) = setting.ask(setting.request("/x"), END).await;
        asking.abort();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn an_answer_without_end_is_a_network_error() {
        let setting = Setting::new().await;
        let url = format!("{}/_matrix/client/v3/sync", Forwarder::homeserver());
        for request in [setting.request("/x"), setting.http.get(url)] {
            let (_, mut stream, asking) = setting.ask(request, END).await;
            let beginning = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
            stream.write_all(beginning.as_bytes()).await.unwrap();
            let sending = async {
                let piece = vec![b' '; 1024 * 1024];
                // Twice as much as is read, and not for ever.
                for _ in 0..LARGEST_ANSWER / piece.len() * 2 {
                    if stream.write_all(&piece).await.is_err() {
                        break;
                    }
                }
                drop(stream);
            };
            let reading = async { asking.await.unwrap()?.bytes().await };
            let (read, ()) = tokio::join!(reading, sending);
            assert!(read.is_err());
        }
    }

    #[tokio::test]
    async fn an_unreachable_homeserver_or_a_closed_connection_is_a_network_error() {
        let setting = Setting::new().await;
        let asking = tokio::spawn(setting.request("/x").send());
        let (stream, _) = setting.homeserver.accept().await.unwrap();
        drop(stream);
        assert!(asking.await.unwrap().unwrap_err().is_request());

        let request = setting.request("/x");
        drop(setting.homeserver);
        assert!(request.send().await.unwrap_err().is_request());
    }

    #[tokio::test]
    async fn only_the_owner_can_use_the_socket_which_closes_with_the_forwarder() {
        let setting = Setting::new().await;
        let socket = setting.folder.path().join("homeserver.sock");
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{:?}", setting.forwarder).contains(&setting.as_token));

        drop(setting.forwarder);
        let asked = setting.http.post(format!("{}/x", Forwarder::homeserver()));
        assert!(asked.send().await.unwrap_err().is_connect());
        // The file that is left does not stop the next one from listening.
        assert!(socket.exists());
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        PrivateSocket::listen(&socket).unwrap();
    }
}
