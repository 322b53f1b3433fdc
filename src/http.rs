//! Single requests to a homeserver, without the SDK, which sends none before it is logged in.

use std::{error::Error, fmt};

use matrix_sdk::reqwest::{
    self, Client, ClientBuilder, RequestBuilder, Response, StatusCode,
    header::{HeaderMap, LOCATION},
    redirect,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

/// The largest response that is read: most are a few KiB, the state of a room with thousands of members some MiB.
const LARGEST_ANSWER: usize = 16 * 1024 * 1024;

pub(crate) struct Answer {
    /// Where it came from, after any redirections.
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// The part that a JSON pointer names. `None`: it is missing or of another type.
    pub(crate) fn part<T: DeserializeOwned>(&self, pointer: &str) -> Option<T> {
        T::deserialize(self.body.pointer(pointer)?).ok()
    }
}

/// Why there is no usable response. Displayed as a part of a sentence.
#[derive(Debug)]
pub(crate) enum Cause {
    Unreachable(String),
    /// An error of the homeserver: a JSON object with an `errcode`.
    Refused {
        status: u16,
        code: String,
        message: String,
    },
    /// Not from the homeserver, but from a reverse proxy before it or from another server.
    Page {
        status: u16,
        redirects_to: Option<Url>,
    },
    /// Not the JSON that was requested.
    Nonsense,
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
            Self::Page {
                status,
                redirects_to,
            } => {
                let reason = StatusCode::from_u16(*status).ok();
                let reason = reason.and_then(|status| status.canonical_reason());
                let who = match status {
                    502..=504 => "the reverse proxy does not reach the homeserver",
                    401 | 403 | 429 => "from a reverse proxy, not from the homeserver",
                    _ => "this is not the answer of a homeserver",
                };
                write!(formatter, "{status} {}", reason.unwrap_or_default())?;
                if let Some(url) = redirects_to {
                    write!(formatter, " to {url}")?;
                }
                write!(formatter, " ({who})")
            }
            Self::Nonsense => formatter.write_str("the answer is not what Matrix prescribes"),
        }
    }
}

impl Cause {
    /// For a response that the homeserver did not send.
    pub(crate) fn page(response: &Response) -> Self {
        let location = response.headers().get(LOCATION);
        let location = location.filter(|_| response.status().is_redirection());
        let redirects_to = location.and_then(|location| {
            let mut url = response.url().join(location.to_str().ok()?).ok()?;
            url.set_query(None);
            Some(url)
        });
        Self::Page {
            status: response.status().as_u16(),
            redirects_to,
        }
    }
}

/// A client that follows no redirects: a homeserver sends none.
/// Fails when this host has no root certificates.
pub(crate) fn client(builder: ClientBuilder) -> reqwest::Result<Client> {
    builder.redirect(redirect::Policy::none()).build()
}

/// The URL of this path on a site. Its segments are escaped here.
pub(crate) fn address(site: &Url, path: &[&str]) -> Url {
    let mut url = site.clone();
    // A URL with a host has a path.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    url
}

/// Fails unless the response is JSON with a status of success.
pub(crate) async fn send(request: RequestBuilder) -> Result<Answer, Cause> {
    let unreachable = |error: reqwest::Error| Cause::Unreachable(innermost(&error));
    let mut response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    let url = response.url().clone();
    let page = Cause::page(&response);
    let headers = std::mem::take(response.headers_mut());
    let text = read(&mut response).await.map_err(unreachable)?;
    let text = text.ok_or(Cause::Nonsense)?;
    let Ok(body) = serde_json::from_slice::<Value>(&text) else {
        return Err(page);
    };
    if status.is_success() {
        return Ok(Answer { url, headers, body });
    }
    let part = |key| body.get(key).and_then(Value::as_str);
    let Some(code) = part("errcode") else {
        return Err(page);
    };
    Err(Cause::Refused {
        status: status.as_u16(),
        code: code.to_owned(),
        message: part("error").unwrap_or_default().to_owned(),
    })
}

/// The body of a response. `None`: it is too large.
pub(crate) async fn read(response: &mut Response) -> reqwest::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > LARGEST_ANSWER {
            return Ok(None);
        }
    }
    Ok(Some(body))
}

/// The innermost cause, which is the one that users can act on.
pub(crate) fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
