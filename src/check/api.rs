//! Requests to the homeserver: plain ones with the existing token, so that no device is made.

use std::{collections::BTreeMap, time::Duration};

use matrix_sdk::{
    reqwest::{self, Client, Method},
    ruma::UserId,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::Outcome;
use crate::{
    config::Config,
    data_dir::MATRIX,
    http::{self, Answer, Cause},
    matrix::{Authentication, Fault, Login, MatrixFolder, Session},
    secret::Token,
};

const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Api<'a> {
    client: Client,
    pub(super) config: &'a Config,
    /// What the bot stores about Matrix.
    pub(super) folder: MatrixFolder,
    /// `None`: the registration is missing or refused, and no authenticated request is possible.
    pub(super) login: Option<&'a Login>,
    /// The bot's log-in: some homeservers let an appservice without a device do little.
    pub(super) session: Result<Option<Session>, Fault>,
}

/// The user of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    Nobody,
    /// The owner of the token: the appservice's own user, or the bot.
    Token,
    Bot,
}

/// Why a request failed, and which one. Displayed as a part of a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{request}: {cause}")]
pub(super) struct Trouble {
    /// Method and path.
    request: String,
    pub(super) cause: Cause,
}

/// The public keys of identities, by user. Each is read separately: what one user publishes keeps nobody from the others' keys.
#[derive(Debug, Deserialize)]
pub(super) struct Identities {
    #[serde(default)]
    master_keys: BTreeMap<String, Value>,
}

impl Trouble {
    /// Whether the homeserver says that there is no such thing. A proxy before it may say 404 as well, and does not know.
    fn is_absence(&self) -> bool {
        matches!(&self.cause, Cause::Refused { status: 404, code, .. } if code == "M_NOT_FOUND")
    }

    /// Whether the homeserver does not know the token. That of a locked account is good, and refused with the same status.
    pub(super) fn is_unknown_token(&self) -> bool {
        matches!(&self.cause, Cause::Refused { status, code, .. }
            if code == "M_UNKNOWN_TOKEN" || *status == 401 && code != "M_USER_LOCKED")
    }

    /// The message of the homeserver, if it refuses the request, or knows no such user.
    pub(super) fn refusal(&self) -> Option<&str> {
        match &self.cause {
            Cause::Refused {
                status: 401 | 403 | 404,
                message,
                ..
            } => Some(message),
            Cause::Refused { .. }
            | Cause::Unreachable(_)
            | Cause::Page { .. }
            | Cause::Nonsense => None,
        }
    }

    /// Whether the homeserver answered with anything but what was asked for: some give an empty page at an error of theirs.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(
            self.cause,
            Cause::Refused { .. } | Cause::Page { status: 500, .. }
        )
    }

    /// Whether the server that answers seems to have no Matrix API.
    pub(super) fn is_not_matrix(&self) -> bool {
        match &self.cause {
            Cause::Unreachable(_) => false,
            Cause::Refused { status, .. } => *status == 404,
            Cause::Page { status, .. } => !matches!(status, 401 | 403 | 429 | 500..),
            Cause::Nonsense => true,
        }
    }

    /// The remedy where none more specific is known.
    pub(super) fn remedy(&self) -> &'static str {
        match &self.cause {
            Cause::Unreachable(_) => {
                "start the homeserver, and check the network and any reverse proxy between it and this host"
            }
            Cause::Refused { status: 429, .. } | Cause::Page { status: 429, .. } => {
                "check again in a minute"
            }
            Cause::Page {
                status: 502..=504, ..
            } => {
                "start the homeserver, or correct the address to which the reverse proxy passes requests"
            }
            Cause::Page {
                status: 401 | 403, ..
            } => {
                "let the reverse proxy or firewall before the homeserver pass all requests below `/_matrix`, without a log-in \
                 or a filter of its own"
            }
            Cause::Refused { .. } | Cause::Page { status: 500.., .. } | Cause::Nonsense => {
                "look this request up in the logs of the homeserver and of any reverse proxy before it"
            }
            Cause::Page { .. } => {
                "let the reverse proxy pass all requests below `/_matrix` on to the homeserver"
            }
        }
    }
}

/// An unforeseen failure is reported as it is.
impl From<Trouble> for Outcome {
    fn from(trouble: Trouble) -> Self {
        Self::failed(trouble.to_string(), trouble.remedy())
    }
}

impl<'a> Api<'a> {
    /// Fails when requests cannot be made at all: this host has no root certificates.
    pub(super) fn new(config: &'a Config, login: Option<&'a Login>) -> reqwest::Result<Self> {
        let folder = MatrixFolder::new(config.data_dir.join(MATRIX));
        Ok(Self {
            client: http::client(Client::builder().timeout(TIMEOUT))?,
            config,
            login,
            session: folder.session(),
            folder,
        })
    }

    pub(super) fn bot(&self) -> &'a UserId {
        &self.config.bot_user
    }

    /// How the bot's device is logged in, if it is.
    fn device(&self) -> Option<(&Session, &Authentication)> {
        let session = self.session.as_ref().ok()?.as_ref()?;
        Some((session, session.authentication.as_ref()?))
    }

    /// Whether requests for the bot are an appservice's that names the user only.
    pub(super) fn is_without_device(&self) -> bool {
        matches!(self.login, Some(Login::Appservice(_))) && self.device().is_none()
    }

    /// From now on makes requests without the bot's device, whose log-in may have expired. Returns whether there was one.
    pub(super) fn forget_device(&mut self) -> bool {
        let had_one = self.device().is_some();
        self.session = Ok(None);
        had_one
    }

    /// The token, and the parameters for the user of the request.
    pub(super) fn credentials(&self, asker: Asker) -> (Option<&Token>, Vec<(&str, &str)>) {
        let user = ("user_id", self.bot().as_str());
        match (asker, self.login) {
            (Asker::Nobody, _) | (_, None) => (None, vec![]),
            (_, Some(Login::AccessToken(token))) => (Some(token), vec![]),
            // To log in would make a device.
            (_, Some(Login::Password(_))) => {
                let session = self.session.as_ref().ok().and_then(Option::as_ref);
                (session.and_then(Session::token), vec![])
            }
            (Asker::Token, Some(Login::Appservice(registration))) => {
                (Some(&registration.as_token), vec![])
            }
            (Asker::Bot, Some(Login::Appservice(registration))) => match self.device() {
                Some((_, Authentication::AccessToken { access_token })) => {
                    (Some(access_token), vec![])
                }
                Some((session, Authentication::IdentityAssertion)) => {
                    let device = ("device_id", session.device_id().as_str());
                    (Some(&registration.as_token), vec![user, device])
                }
                None => (Some(&registration.as_token), vec![user]),
            },
        }
    }

    /// Requests a path below `/_matrix`, and returns the part of the answer that a JSON pointer names. The parts of the path
    /// need not be escaped.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        asker: Asker,
        path: &[&str],
        part: &str,
    ) -> Result<T, Trouble> {
        self.send(asker, path, &[], None, |answer| answer.part(part))
            .await
    }

    /// The same where there may be no such thing: `None`, if the homeserver says so.
    pub(super) async fn find<T: DeserializeOwned>(
        &self,
        asker: Asker,
        path: &[&str],
        part: &str,
    ) -> Result<Option<T>, Trouble> {
        match self.get(asker, path, part).await {
            Ok(answer) => Ok(Some(answer)),
            Err(trouble) if trouble.is_absence() => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// The identities of users, as the homeserver shows them.
    pub(super) async fn identities(&self, users: &[&UserId]) -> Result<Identities, Trouble> {
        let path = ["client", "v3", "keys", "query"];
        let asked: BTreeMap<_, _> = users.iter().map(|user| (*user, json!([]))).collect();
        let body = json!({ "device_keys": asked });
        self.send(Asker::Bot, &path, &[], Some(&body), |answer| {
            answer.part("")
        })
        .await
    }

    /// With a body, it is a POST request. `read` returns `None` if the answer is not what was asked for.
    pub(super) async fn send<T>(
        &self,
        asker: Asker,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
        read: impl FnOnce(&Answer) -> Option<T>,
    ) -> Result<T, Trouble> {
        let path = [&["_matrix"], path].concat();
        let mut url = http::address(&self.config.homeserver_url, &path);
        let (token, names) = self.credentials(asker);
        let pairs = [query, &names].concat();
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        let method = body.map_or(Method::GET, |_| Method::POST);
        let request = format!("{method} {}", url.path());
        let mut builder = self.client.request(method, url);
        if let Some(token) = token {
            builder = builder.bearer_auth(token.expose());
        }
        if let Some(body) = body {
            builder = builder.header("content-type", "application/json");
            builder = builder.body(body.to_string());
        }
        let answer = http::send(builder).await;
        let answer = answer.and_then(|answer| read(&answer).ok_or(Cause::Nonsense));
        answer.map_err(|cause| Trouble { request, cause })
    }
}

impl Identities {
    /// The public key of this user's identity; empty where it is invalid.
    pub(super) fn of(&self, user: &UserId) -> Option<&str> {
        let shown = self.master_keys.get(user.as_str())?;
        let key = shown.get("keys").and_then(Value::as_object);
        let key = key.and_then(|keys| keys.values().next()?.as_str());
        Some(key.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::user_id;

    use super::*;

    #[test]
    fn a_malformed_key_of_one_user_costs_no_other_user_theirs() {
        let good = json!({ "keys": { "ed25519:abc": "abc" } });
        for malformed in [
            json!(null),
            json!({}),
            json!({ "keys": [] }),
            json!({ "keys": {} }),
            json!({ "keys": { "ed25519:abc": 7 } }),
        ] {
            let answer = json!({
                "master_keys": {
                    "@alice:example.org": good,
                    "@mallory:example.org": malformed,
                    "nobody": malformed,
                },
            });
            let identities = Identities::deserialize(answer).unwrap();
            assert_eq!(identities.of(user_id!("@alice:example.org")), Some("abc"));
            assert_eq!(identities.of(user_id!("@mallory:example.org")), Some(""));
            assert_eq!(identities.of(user_id!("@carol:example.org")), None);
        }
    }
}
