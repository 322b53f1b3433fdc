//! Questions to the homeserver: plain requests with the token that is there, so that no device is made.

use std::{
    error::Error,
    fmt,
    time::{Duration, SystemTime},
};

use matrix_sdk::{
    reqwest::{self, Client},
    ruma::{UserId, http_headers::http_date_to_system_time},
};
use serde_json::Value;
use url::Url;

use crate::{
    config::Config,
    data_dir,
    matrix::{Fault, Login, stored_access_token},
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
}

/// In whose name something is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    Nobody,
    /// Whoever the token is of: the appservice's own user, or the bot.
    Token,
    Bot,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing came back.
    Unreachable(String),
    /// The homeserver, or what stands before it, says no.
    Refused {
        status: u16,
        /// Empty where what answers is no homeserver.
        code: String,
        message: String,
    },
    /// What came back is no JSON, or too much.
    Nonsense,
}

impl Trouble {
    /// Whether the homeserver says that there is no such thing. What stands before it says 404 as well, and does not know.
    fn is_absence(&self) -> bool {
        matches!(self, Self::Refused { status: 404, code, .. } if code == "M_NOT_FOUND")
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(cause) => write!(formatter, "no answer ({cause})"),
            Self::Refused {
                status,
                code,
                message,
            } if code.is_empty() => {
                write!(formatter, "{status} {message}")
            }
            Self::Refused {
                status,
                code,
                message,
            } => {
                write!(formatter, "{status} {code} ({message})")
            }
            Self::Nonsense => formatter.write_str("an answer that makes no sense"),
        }
    }
}

impl<'a> Api<'a> {
    /// # Errors
    /// Why requests cannot be made at all: this host has no root certificates.
    pub(super) fn new(config: &'a Config, login: Option<&'a Login>) -> Result<Self, String> {
        let http = Client::builder().timeout(TIMEOUT).build();
        let http = http.map_err(|error| innermost(&error))?;
        let token = match login {
            None => Ok(None),
            Some(Login::Appservice(registration)) => Ok(Some(registration.as_token.clone())),
            Some(Login::AccessToken(token)) => Ok(Some(token.clone())),
            // To log in would make a device.
            Some(Login::Password(_)) => stored_access_token(&data_dir::matrix(&config.data_dir)),
        };
        Ok(Self {
            http,
            config,
            login,
            token,
        })
    }

    /// Whether anything can be asked in anybody's name.
    pub(super) fn has_token(&self) -> Result<bool, &Fault> {
        self.token.as_ref().map(Option::is_some)
    }

    pub(super) fn bot(&self) -> &'a UserId {
        &self.config.bot_user
    }

    /// Asks below `/_matrix`. The parts of the path need not be escaped.
    pub(super) async fn get(
        &self,
        asker: Asker,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Value, Trouble> {
        let request = self.http.get(self.url(asker, path, query));
        self.send(asker, request).await
    }

    /// The time of whatever answers for the homeserver. `None`: it does not tell.
    pub(super) async fn time(&self) -> Option<SystemTime> {
        let url = self.url(Asker::Nobody, &["client", "versions"], &[]);
        let answer = self.http.get(url).send().await.ok()?;
        http_date_to_system_time(answer.headers().get("date")?).ok()
    }

    /// The same where there may be no such thing: `None`, if the homeserver says so.
    pub(super) async fn find(
        &self,
        asker: Asker,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Option<Value>, Trouble> {
        match self.get(asker, path, query).await {
            Ok(answer) => Ok(Some(answer)),
            Err(trouble) if trouble.is_absence() => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Asks with a body, for questions that need one.
    pub(super) async fn post(
        &self,
        asker: Asker,
        path: &[&str],
        body: &Value,
    ) -> Result<Value, Trouble> {
        let request = self.http.post(self.url(asker, path, &[]));
        let request = request.header("content-type", "application/json");
        self.send(asker, request.body(body.to_string())).await
    }

    fn url(&self, asker: Asker, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.config.homeserver_url.clone();
        // A URL with a host has a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("_matrix").extend(path);
        }
        let is_named = asker == Asker::Bot && matches!(self.login, Some(Login::Appservice(_)));
        let own = is_named.then_some(("user_id", self.bot().as_str()));
        let pairs: Vec<_> = query.iter().copied().chain(own).collect();
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        url
    }

    async fn send(&self, asker: Asker, request: reqwest::RequestBuilder) -> Result<Value, Trouble> {
        let request = match (asker, &self.token) {
            (Asker::Token | Asker::Bot, Ok(Some(token))) => request.bearer_auth(token.expose()),
            (Asker::Nobody, _) | (_, Ok(None) | Err(_)) => request,
        };
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
                return Err(Trouble::Nonsense);
            }
        }
        let answer = serde_json::from_slice::<Value>(&body);
        if status.is_success() {
            return answer.map_err(|_| Trouble::Nonsense);
        }
        let answer = answer.unwrap_or_default();
        let text = |key| answer.get(key).and_then(Value::as_str).unwrap_or_default();
        let reason = status.canonical_reason().unwrap_or_default();
        Err(Trouble::Refused {
            status: status.as_u16(),
            code: text("errcode").to_owned(),
            message: if answer.is_object() {
                text("error")
            } else {
                reason
            }
            .to_owned(),
        })
    }
}

fn unreachable(error: &reqwest::Error) -> Trouble {
    if error.is_timeout() {
        return Trouble::Unreachable(format!("none within {} s", TIMEOUT.as_secs()));
    }
    Trouble::Unreachable(innermost(error))
}

/// The innermost cause says what people can act on.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
