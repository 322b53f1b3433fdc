//! Single requests without a client of the SDK, which sends none before it is logged in, and none in another's name.

use std::{borrow::Cow, collections::BTreeSet, time::Duration};

use hyper::{Response, StatusCode, header};
use matrix_sdk::{
    HttpError,
    reqwest::{self, Client, ClientBuilder},
    ruma::api::{
        AppserviceUserIdentity, IncomingResponse as _, MatrixVersion, OutgoingRequest,
        OutgoingRequestAppserviceExt as _, SupportedVersions,
        auth_scheme::{AuthScheme, SendAccessToken},
        error::FromHttpResponseError,
        path_builder::VersionHistory,
    },
};
use url::Url;

use crate::{
    config::Config,
    http,
    matrix::{Fault, HomeserverKind},
    secret::Token,
};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The homeserver, to be asked without the SDK.
#[derive(Debug, Clone)]
pub(super) struct Homeserver {
    http: Client,
    address: Url,
}

impl Homeserver {
    /// Asks nothing yet.
    pub(super) fn new(config: &Config) -> Result<Self, Fault> {
        Ok(Self {
            http: http_client(Client::builder().timeout(TIMEOUT))?,
            address: config.homeserver_url.clone(),
        })
    }

    /// With the appservice's token, `identity` names whose request it is.
    pub(super) async fn send<R>(
        &self,
        request: R,
        token: Option<&Token>,
        identity: AppserviceUserIdentity<'_>,
    ) -> Result<R::IncomingResponse, HttpError>
    where
        R: OutgoingRequest<PathBuilder = VersionHistory>,
        for<'a> R::Authentication: AuthScheme<Input<'a> = SendAccessToken<'a>>,
        HttpError: From<FromHttpResponseError<R::EndpointError>>,
    {
        let token = token.map_or(SendAccessToken::None, |token| {
            SendAccessToken::Always(token.expose())
        });
        // What is asked here has had its path since then.
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
        let request = request.try_into().map_err(HttpError::Reqwest)?;
        let mut answer = self.http.execute(request).await?;
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = if is_page(&answer) {
            StatusCode::BAD_GATEWAY
        } else {
            answer.status()
        };
        parts.headers = std::mem::take(answer.headers_mut());
        let response = Response::from_parts(parts, answer.bytes().await?);
        Ok(R::IncomingResponse::try_from_http_response(response)?)
    }

    /// Which one it is, for words that fit it.
    pub(super) async fn kind(&self) -> HomeserverKind {
        HomeserverKind::ask(&self.address).await
    }
}

pub(super) fn http_client(builder: ClientBuilder) -> Result<Client, Fault> {
    http::client(builder).map_err(no_http_client)
}

/// There may be no certificates to check a homeserver's by.
pub(super) fn no_http_client(error: reqwest::Error) -> Fault {
    Fault::for_operator_by("the HTTP client cannot be set up", error)
}

/// Whether an answer that is no error is none of a homeserver's either, which answers in JSON: a proxy may say with a page, or a
/// redirection to one, that the homeserver is not there. Where nothing is to be read from an answer, the SDK would believe it.
pub(super) fn is_page(answer: &reqwest::Response) -> bool {
    let kind = answer.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    answer.status().as_u16() < 400 && !kind.starts_with("application/json")
}

#[cfg(test)]
pub(super) mod testing {
    use std::path::Path;

    use tokio::{
        io::AsyncReadExt as _,
        net::{TcpListener, TcpStream},
    };

    use crate::config::Config;

    /// A homeserver that a test plays, and a configuration in `folder` that names it. Its address has a path.
    pub(in crate::matrix::login) async fn homeserver(folder: &Path) -> (TcpListener, Config) {
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
    pub(in crate::matrix::login) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains(end) {
            assert_ne!(stream.read_buf(&mut text).await.unwrap(), 0, "cut off");
        }
        String::from_utf8(text).unwrap()
    }
}
