//! What a homeserver reports about itself, to offer it as an answer. What cannot be asked is not offered.

use std::time::Duration;

use matrix_sdk::{reqwest::Client, ruma::OwnedServerName};
use serde_json::Value;
use url::{Host, Url};

use crate::http;

/// A person waits.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Discovery {
    /// Whether a homeserver answers there.
    pub(super) is_homeserver: bool,
    /// Its URL by `.well-known`, if another.
    pub(super) elsewhere: Option<Url>,
    pub(super) server_name: Option<OwnedServerName>,
}

/// Asks the server at a URL.
pub(super) async fn about(url: &Url) -> Discovery {
    let Ok(client) = Client::builder().timeout(TIMEOUT).build() else {
        return Discovery::default();
    };
    if is_homeserver(&client, url).await {
        return Discovery {
            is_homeserver: true,
            elsewhere: None,
            server_name: name_of(&client, url).await,
        };
    }
    let elsewhere = well_known(&client, url).await;
    Discovery {
        is_homeserver: false,
        server_name: elsewhere
            .as_ref()
            .and_then(|_| domain(url)?.try_into().ok()),
        elsewhere,
    }
}

async fn is_homeserver(client: &Client, url: &Url) -> bool {
    let answer = get(client, url, &["_matrix", "client", "versions"]).await;
    answer.is_some_and(|answer| answer.get("versions").is_some_and(Value::is_array))
}

/// The name that it signs with (`/_matrix/key`); else the host itself.
async fn name_of(client: &Client, url: &Url) -> Option<OwnedServerName> {
    let key = get(client, url, &["_matrix", "key", "v2", "server"]).await;
    let signed = key.and_then(|key| key.get("server_name")?.as_str()?.try_into().ok());
    signed.or_else(|| domain(url)?.try_into().ok())
}

/// Where a site says that its homeserver is (specification, "Well-known URI").
async fn well_known(client: &Client, site: &Url) -> Option<Url> {
    let answer = get(client, site, &[".well-known", "matrix", "client"]).await?;
    let base = answer.pointer("/m.homeserver/base_url")?.as_str()?;
    Url::parse(base).ok().filter(Url::has_host)
}

async fn get(client: &Client, site: &Url, path: &[&str]) -> Option<Value> {
    let answer = http::send(client.get(http::address(site, path))).await;
    answer.ok().map(|answer| answer.body)
}

/// A name that others may know, unlike a host name without a dot.
fn domain(url: &Url) -> Option<&str> {
    match url.host()? {
        Host::Domain(domain) => domain.contains('.').then_some(domain),
        Host::Ipv4(_) | Host::Ipv6(_) => None,
    }
}
