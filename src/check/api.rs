//! Questions to the homeserver: plain requests with the token that is there, so that no device is made.

use std::{
    error::Error,
    fmt,
    time::{Duration, SystemTime},
};

use matrix_sdk::{
    reqwest::{self, Client, Method, StatusCode},
    ruma::{UserId, http_headers::http_date_to_system_time},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use crate::{
    config::Config,
    data_dir,
    matrix::{Fault, Login, MatrixFolder, Session},
    secret::Token,
};

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How large an answer may be: what is asked for is a few KiB, in a room of thousands a few hundred.
const LARGEST_ANSWER: usize = 8 * 1024 * 1024;

/// The way to the homeserver.
pub(super) struct Api<'a> {
    http: Client,
    pub(super) config: &'a Config,
    /// `None`: the registration is missing or refused, and nothing can be asked in anybody's name.
    pub(super) login: Option<&'a Login>,
    /// `None`: the bot has not logged in yet.
    token: Result<Option<Token>, Fault>,
    /// As what an appservice's user is logged in: some homeservers let an appservice without a device do little.
    own: Option<Session>,
}

/// In whose name something is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    Nobody,
    /// Whoever the token is of: the appservice's own user, or the bot.
    Token,
    Bot,
}

/// Why a request has no good answer, and which request. Displayed as a part of a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{request}: {cause}")]
pub(super) struct Trouble {
    /// Method and path.
    request: String,
    pub(super) cause: Cause,
}

#[derive(Debug)]
pub(super) enum Cause {
    /// Nothing came back.
    Unreachable(String),
    /// The homeserver says no: a JSON object with an `errcode`.
    Refused {
        status: u16,
        code: String,
        message: String,
    },
    /// Not the homeserver says this, but a reverse proxy before it, or another server.
    Page { status: u16 },
    /// It is JSON, and not what was asked for.
    Nonsense,
}

impl Trouble {
    /// Whether the homeserver says that there is no such thing. What stands before it says 404 as well, and does not know.
    fn is_absence(&self) -> bool {
        matches!(&self.cause, Cause::Refused { status: 404, code, .. } if code == "M_NOT_FOUND")
    }

    /// Whether the homeserver does not know the token. A locked account's is good, and refused with the same status.
    pub(super) fn is_unknown_token(&self) -> bool {
        matches!(&self.cause, Cause::Refused { status, code, .. }
            if code == "M_UNKNOWN_TOKEN" || *status == 401 && code != "M_USER_LOCKED")
    }

    /// What the homeserver says, if it refuses what was asked, or knows no such user.
    pub(super) fn refusal(&self) -> Option<&str> {
        match &self.cause {
            Cause::Refused {
                status: 401 | 403 | 404,
                message,
                ..
            } => Some(message),
            _ => None,
        }
    }

    /// Whether the homeserver answered, and with anything but what was asked for: some give an empty page at an error of theirs.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(
            self.cause,
            Cause::Refused { .. } | Cause::Page { status: 500 }
        )
    }

    /// Whether what answers has no Matrix API, as far as can be told.
    pub(super) fn is_not_matrix(&self) -> bool {
        match &self.cause {
            Cause::Unreachable(_) => false,
            Cause::Refused { status, .. } => *status == 404,
            Cause::Page { status } => !matches!(status, 401 | 403 | 429 | 500..),
            Cause::Nonsense => true,
        }
    }

    /// What to do about it, where nothing better is known.
    pub(super) fn remedy(&self) -> &'static str {
        match &self.cause {
            Cause::Unreachable(_) => {
                "start the homeserver, and check the network and any reverse proxy between it and this host"
            }
            Cause::Refused { status: 429, .. } => "check again in a minute",
            Cause::Refused { .. } => "look this request up in the homeserver's log",
            Cause::Page { status: 502..=504 } => {
                "start the homeserver, or correct the address to which the reverse proxy passes requests"
            }
            Cause::Page { status: 429 } => {
                "check again in a minute; if it is the same then, let the reverse proxy's rate limit except this host"
            }
            Cause::Page { status: 401 | 403 } => {
                "let the reverse proxy or firewall before the homeserver pass all requests below `/_matrix`, without a log-in \
                 or a filter of its own"
            }
            Cause::Page { status: 500.. } | Cause::Nonsense => {
                "look this request up in the logs of the homeserver and of any reverse proxy before it"
            }
            Cause::Page { .. } => {
                "let the reverse proxy pass all requests below `/_matrix` on to the homeserver"
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(cause) => write!(formatter, "no answer ({cause})"),
            Self::Refused {
                status,
                code,
                message,
            } => write!(
                formatter,
                "the homeserver answers {status} {code} ({message})"
            ),
            Self::Page { status } => {
                let reason = StatusCode::from_u16(*status).ok();
                let reason = reason.and_then(|status| status.canonical_reason());
                let who = match status {
                    502..=504 => "a reverse proxy is there, and the homeserver behind it is not",
                    401 | 403 | 429 => "a reverse proxy says so, and not the homeserver",
                    _ => "this is not the answer of a homeserver",
                };
                write!(formatter, "{status} {} ({who})", reason.unwrap_or_default())
            }
            Self::Nonsense => formatter.write_str("the answer is not what Matrix prescribes"),
        }
    }
}

impl<'a> Api<'a> {
    /// # Errors
    /// Why requests cannot be made at all: this host has no root certificates.
    pub(super) fn new(config: &'a Config, login: Option<&'a Login>) -> Result<Self, String> {
        let http = Client::builder().timeout(TIMEOUT).build();
        let http = http.map_err(|error| innermost(&error))?;
        let stored = MatrixFolder::new(data_dir::matrix(&config.data_dir)).session();
        let (token, own) = match login {
            None => (Ok(None), None),
            Some(Login::Appservice(registration)) => (
                Ok(Some(registration.as_token.clone())),
                stored
                    .ok()
                    .flatten()
                    .filter(|session| session.authentication.is_some()),
            ),
            Some(Login::AccessToken(token)) => (Ok(Some(token.clone())), None),
            // To log in would make a device.
            Some(Login::Password(_)) => {
                let token = stored.map(|session| session?.token().cloned());
                (token, None)
            }
        };
        Ok(Self {
            http,
            config,
            login,
            token,
            own,
        })
    }

    /// Whether anything can be asked in anybody's name.
    pub(super) fn has_token(&self) -> Result<bool, &Fault> {
        self.token.as_ref().map(Option::is_some)
    }

    pub(super) fn bot(&self) -> &'a UserId {
        &self.config.bot_user
    }

    /// Whether the bot is asked for by an appservice that names the user alone.
    pub(super) fn is_without_device(&self) -> bool {
        matches!(self.login, Some(Login::Appservice(_))) && self.own.is_none()
    }

    /// From now on asks without the bot's device, whose log-in may be no longer good. Gives whether that makes a difference.
    pub(super) fn forget_device(&mut self) -> bool {
        self.own.take().is_some()
    }

    /// The time of whatever answers for the homeserver. `None`: it does not tell.
    pub(super) async fn time(&self) -> Option<SystemTime> {
        let url = self.url(Asker::Nobody, &["client", "versions"], &[]);
        let answer = self.http.get(url).send().await.ok()?;
        http_date_to_system_time(answer.headers().get("date")?).ok()
    }

    /// Asks below `/_matrix`. The parts of the path need not be escaped.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        asker: Asker,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, Trouble> {
        let url = self.url(asker, path, query);
        self.send(asker, Method::GET, url, None).await
    }

    /// The same where there may be no such thing: `None`, if the homeserver says so.
    pub(super) async fn find<T: DeserializeOwned>(
        &self,
        asker: Asker,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Option<T>, Trouble> {
        match self.get(asker, path, query).await {
            Ok(answer) => Ok(Some(answer)),
            Err(trouble) if trouble.is_absence() => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Asks with a body, for questions that need one.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        asker: Asker,
        path: &[&str],
        body: &Value,
    ) -> Result<T, Trouble> {
        let url = self.url(asker, path, &[]);
        self.send(asker, Method::POST, url, Some(body)).await
    }

    fn url(&self, asker: Asker, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.config.homeserver_url.clone();
        // A URL with a host has a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("_matrix").extend(path);
        }
        let mut pairs = query.to_vec();
        if asker == Asker::Bot && matches!(self.login, Some(Login::Appservice(_))) {
            if self.own_token().is_none() {
                pairs.push(("user_id", self.bot().as_str()));
                let device = self.own.as_ref().map(Session::device_id);
                pairs.extend(device.map(|device| ("device_id", device.as_str())));
            }
        }
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        url
    }

    fn own_token(&self) -> Option<&Token> {
        self.own.as_ref().and_then(Session::token)
    }

    fn token_of(&self, asker: Asker) -> Option<&Token> {
        match (asker, self.own_token()) {
            (Asker::Nobody, _) => None,
            (Asker::Bot, Some(own)) => Some(own),
            (Asker::Token | Asker::Bot, _) => self.token.as_ref().ok()?.as_ref(),
        }
    }

    async fn send<T: DeserializeOwned>(
        &self,
        asker: Asker,
        method: Method,
        url: Url,
        body: Option<&Value>,
    ) -> Result<T, Trouble> {
        let request = format!("{method} {}", url.path());
        let mut builder = self.http.request(method, url);
        if let Some(token) = self.token_of(asker) {
            builder = builder.bearer_auth(token.expose());
        }
        if let Some(body) = body {
            builder = builder.header("content-type", "application/json");
            builder = builder.body(body.to_string());
        }
        let answer = exchange(builder).await;
        answer.map_err(|cause| Trouble { request, cause })
    }
}

async fn exchange<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> Result<T, Cause> {
    let mut response = request.send().await.map_err(|error| unreachable(&error))?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| unreachable(&error))?
    {
        body.extend_from_slice(&chunk);
        if body.len() > LARGEST_ANSWER {
            return Err(Cause::Nonsense);
        }
    }
    let page = Cause::Page {
        status: status.as_u16(),
    };
    let Ok(answer) = serde_json::from_slice::<Value>(&body) else {
        return Err(page);
    };
    if status.is_success() {
        return serde_json::from_value(answer).map_err(|_| Cause::Nonsense);
    }
    let text = |key| answer.get(key).and_then(Value::as_str);
    let Some(code) = text("errcode") else {
        return Err(page);
    };
    Err(Cause::Refused {
        status: status.as_u16(),
        code: code.to_owned(),
        message: text("error").unwrap_or_default().to_owned(),
    })
}

fn unreachable(error: &reqwest::Error) -> Cause {
    if error.is_timeout() {
        return Cause::Unreachable(format!("none within {} s", TIMEOUT.as_secs()));
    }
    Cause::Unreachable(innermost(error))
}

/// The innermost cause says what people can act on.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
