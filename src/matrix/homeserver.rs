//! Requests to the homeserver without the SDK's client, which sends nothing before it is logged in, and nothing in another
//! user's name. And which software the homeserver is, as an appservice is registered differently with each.

use std::{borrow::Cow, collections::BTreeSet, path::Path, time::Duration};

use hyper::{Response, StatusCode, body::Bytes, header};
use matrix_sdk::{
    HttpError,
    reqwest::{self, Client, ClientBuilder},
    ruma::{
        UserId,
        api::{
            AppserviceUserIdentity, IncomingResponse as _, MatrixVersion, OutgoingRequest,
            OutgoingRequestAppserviceExt as _, SupportedVersions,
            auth_scheme::{AuthScheme, SendAccessToken},
            error::FromHttpResponseError,
            path_builder::VersionHistory,
        },
    },
};
use serde::de::IgnoredAny;
use serde_json::Value;
use url::Url;

use super::Fault;
use crate::{
    config::Config,
    http::{self, Answer, Cause},
    secret::Token,
};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub(super) struct Homeserver {
    http: Client,
    pub(super) address: Url,
    token: Option<Token>,
}

impl Homeserver {
    /// Sends nothing yet. The requests will have this token.
    pub(super) fn new(config: &Config, token: Option<&Token>) -> Result<Self, Fault> {
        Ok(Self {
            http: http_client(Client::builder().timeout(TIMEOUT))?,
            address: config.homeserver_url.clone(),
            token: token.cloned(),
        })
    }

    /// With the appservice's token, `identity` says in whose name the request is sent.
    pub(super) async fn send<R>(
        &self,
        request: R,
        identity: AppserviceUserIdentity<'_>,
    ) -> Result<R::IncomingResponse, HttpError>
    where
        R: OutgoingRequest<PathBuilder = VersionHistory>,
        for<'a> R::Authentication: AuthScheme<Input<'a> = SendAccessToken<'a>>,
        HttpError: From<FromHttpResponseError<R::EndpointError>>,
    {
        let token = match &self.token {
            Some(token) => SendAccessToken::Always(token.expose()),
            None => SendAccessToken::None,
        };
        // All paths used here exist since then.
        let versions = SupportedVersions {
            versions: BTreeSet::from([MatrixVersion::V1_1]),
            features: BTreeSet::new(),
        };
        let request = request
            .try_into_http_request_with_identity::<Vec<u8>>(
                self.address.as_str(),
                token,
                identity,
                Cow::Owned(versions),
            )
            .map_err(HttpError::IntoHttp)?;
        let request: reqwest::Request = request.try_into().map_err(HttpError::Reqwest)?;
        let name = format!("{} {}", request.method(), request.url().path());
        let mut answer = self.http.execute(request).await?;
        let words = page_in_words(&answer, &name);
        let body = http::read(&mut answer).await?;
        let status = if is_page(&answer) || body.is_none() {
            StatusCode::BAD_GATEWAY
        } else {
            answer.status()
        };
        let headers = std::mem::take(answer.headers_mut());
        let body = body.filter(|body| serde_json::from_slice::<IgnoredAny>(body).is_ok());
        let mut response = Response::new(body.map_or(words, Bytes::from));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(R::IncomingResponse::try_from_http_response(response)?)
    }
}

pub(super) fn http_client(builder: ClientBuilder) -> Result<Client, Fault> {
    http::client(builder).map_err(no_http_client)
}

/// It fails where the host has no certificates to check a homeserver's by.
pub(super) fn no_http_client(error: reqwest::Error) -> Fault {
    Fault::for_operator_by("the HTTP client cannot be set up", error)
}

/// Whether a successful answer is not JSON, and so not the homeserver's: a proxy may report an outage with a page, or with a
/// redirection to one. Where the SDK needs nothing from the body, it would take that for success.
pub(super) fn is_page(answer: &reqwest::Response) -> bool {
    let kind = answer.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    answer.status().as_u16() < 400 && !kind.starts_with("application/json")
}

/// What the SDK gets in place of a page, of which its errors would only say that it is not JSON. It has no `errcode`, and so
/// counts as no refusal.
pub(super) fn page_in_words(answer: &reqwest::Response, request: &str) -> Bytes {
    let words = format!("{request}: {}", Cause::page(answer));
    Value::from(words).to_string().into()
}

/// How long an answer may take that only makes a message more precise.
const DETECTION_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HomeserverKind {
    Synapse,
    Conduit,
    Tuwunel,
    /// <https://continuwuity.org>, and Conduwuit, of which it is the continuation.
    Continuwuity,
    Dendrite,
    /// It does not say, or is another one.
    Unknown,
}

impl HomeserverKind {
    pub(crate) async fn ask(homeserver: &Url) -> Self {
        let Ok(client) = http::client(Client::builder().timeout(DETECTION_TIMEOUT)) else {
            return Self::Unknown;
        };
        let get = |path: &[&str]| http::send(client.get(http::address(homeserver, path)));
        let (versions, version) = tokio::join!(
            get(&["_matrix", "client", "versions"]),
            get(&["_matrix", "federation", "v1", "version"]),
        );
        let version = version.map_or(Value::Null, |answer| answer.body);
        let Ok(Answer { headers, body, .. }) = versions else {
            return Self::of(&version, &Value::Null, "");
        };
        let header = headers.get(header::SERVER);
        let header = header.and_then(|header| header.to_str().ok());
        Self::of(&version, &body, header.unwrap_or_default())
    }

    /// By the answer to `/_matrix/federation/v1/version`, which may be behind another port; that to `/_matrix/client/versions`,
    /// which may name the software (MSC4383); and the header `Server`, which a proxy may have replaced by its own.
    fn of(version: &Value, versions: &Value, header: &str) -> Self {
        let named = [
            version.pointer("/server/name"),
            versions.pointer("/server/name"),
            versions.pointer("/net.zemos.msc4383.server/name"),
        ];
        let named = named.into_iter().flatten().filter_map(Value::as_str);
        if let Some(kind) = named.chain([header]).find_map(Self::named) {
            return kind;
        }
        let features = versions.get("unstable_features");
        let mut features = features.and_then(Value::as_object).into_iter().flatten();
        // Only Synapse has a setting of that name.
        if features.any(|(name, _)| name.starts_with("io.element.e2ee_forced.")) {
            return Self::Synapse;
        }
        Self::Unknown
    }

    fn named(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let known = [
            ("synapse", Self::Synapse),
            ("conduit", Self::Conduit),
            ("tuwunel", Self::Tuwunel),
            ("continuwuity", Self::Continuwuity),
            ("conduwuit", Self::Continuwuity),
            ("dendrite", Self::Dendrite),
        ];
        let mut known = known.into_iter();
        known.find_map(|(beginning, kind)| name.starts_with(beginning).then_some(kind))
    }

    /// How the homeserver's operator registers this bot, with the registration in this file.
    pub(crate) fn how_to_register(self, registration: &Path, bot: &UserId) -> String {
        let file = registration.display();
        let (server, id) = (bot.server_name(), bot.localpart());
        match self {
            Self::Synapse => format!(
                "name a copy of {file} that Synapse can read, such as /etc/matrix-synapse/{id}.yaml, under \
                 app_service_config_files in homeserver.yaml, and restart Synapse"
            ),
            Self::Dendrite => format!(
                "name a copy of {file} that Dendrite can read under app_service_api.config_files in dendrite.yaml, and \
                 restart Dendrite"
            ),
            Self::Conduit => format!(
                "in Conduit's admin room, send `@conduit:{server}: register-appservice` with the content of {file} in a code \
                 block below it; everyone in that room can then act as the bot"
            ),
            Self::Tuwunel | Self::Continuwuity => format!(
                "in the admin room of Tuwunel or Continuwuity, send `!admin appservices register` with the content of {file} \
                 in a code block below it; everyone in that room can then act as the bot. If an earlier one is registered, send \
                 `!admin appservices unregister {id}` before"
            ),
            Self::Unknown => format!(
                "give the homeserver a copy of {file}: Synapse names it under app_service_config_files in homeserver.yaml and \
                 is restarted, and Conduit, Tuwunel and Continuwuity take its content in their admin room"
            ),
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::path::Path;

    use tokio::{
        io::AsyncReadExt as _,
        net::{TcpListener, TcpStream},
    };

    use crate::config::Config;

    /// A mock homeserver, and a configuration in `folder` that names it. Its address has a path.
    pub(in crate::matrix) async fn homeserver(folder: &Path) -> (TcpListener, Config) {
        let homeserver = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = homeserver.local_addr().unwrap();
        let file = folder.join("config.yaml");
        let text = format!(
            "homeserver: {{ url: 'http://{address}/base/', server_name: example.org }}\nadmin_room: '#a:example.org'\n\
             projects: {{ website: {{ directory: . }} }}\n"
        );
        std::fs::write(&file, text).unwrap();
        (homeserver, Config::load(&file).unwrap())
    }

    /// Reads until the text is there.
    pub(in crate::matrix) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains(end) {
            assert_ne!(stream.read_buf(&mut text).await.unwrap(), 0, "cut off");
        }
        String::from_utf8(text).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::user_id;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_homeserver_is_detected_by_any_of_its_answers() {
        use HomeserverKind as Kind;
        for (name, kind) in [
            ("Synapse", Kind::Synapse),
            ("Conduit", Kind::Conduit),
            ("Tuwunel", Kind::Tuwunel),
            ("continuwuity", Kind::Continuwuity),
            ("conduwuit", Kind::Continuwuity),
            ("Dendrite", Kind::Dendrite),
            ("Another", Kind::Unknown),
        ] {
            let version = json!({ "server": { "name": name, "version": "1" } });
            assert_eq!(Kind::of(&version, &Value::Null, "nginx"), kind, "{name}");
        }
        let named = json!({ "net.zemos.msc4383.server": { "name": "Tuwunel" } });
        let features = json!({ "unstable_features": { "io.element.e2ee_forced.public": false } });
        for (versions, header, kind) in [
            (named, "nginx", Kind::Tuwunel),
            (features, "nginx", Kind::Synapse),
            (Value::Null, "Synapse/1.163.2", Kind::Synapse),
            (Value::Null, "nginx", Kind::Unknown),
        ] {
            assert_eq!(Kind::of(&Value::Null, &versions, header), kind, "{header}");
        }
    }

    #[test]
    fn each_homeserver_is_given_the_registration_in_its_own_way() {
        let bot = user_id!("@rcbot:example.org");
        let how = |kind: HomeserverKind| kind.how_to_register(Path::new("r.yaml"), bot);
        assert!(how(HomeserverKind::Synapse).contains("under app_service_config_files"));
        let dendrite = how(HomeserverKind::Dendrite);
        assert!(dendrite.contains("under app_service_api.config_files in dendrite.yaml"));
        let conduit = how(HomeserverKind::Conduit);
        assert!(conduit.contains("`@conduit:example.org: register-appservice`"));
        assert!(!conduit.contains("!admin"));
        let tuwunel = how(HomeserverKind::Tuwunel);
        assert!(tuwunel.contains("`!admin appservices register`"));
        assert!(tuwunel.contains("`!admin appservices unregister rcbot`"));
    }
}
