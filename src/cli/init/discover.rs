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
    let get = async |path: &[&str]| {
        let answer = http::send(client.get(http::address(url, path))).await;
        answer.map_or(Value::Null, |answer| answer.body)
    };
    let named = domain(url).and_then(|name| name.try_into().ok());
    let versions = get(&["_matrix", "client", "versions"]).await;
    if versions.get("versions").is_some_and(Value::is_array) {
        // With this name it signs.
        let key = get(&["_matrix", "key", "v2", "server"]).await;
        let signed = key.get("server_name").and_then(Value::as_str);
        return Discovery {
            is_homeserver: true,
            elsewhere: None,
            server_name: signed.and_then(|name| name.try_into().ok()).or(named),
        };
    }
    // Where a site says that its homeserver is (specification, "Well-known URI").
    let site = get(&[".well-known", "matrix", "client"]).await;
    let base = site.pointer("/m.homeserver/base_url");
    let base = base.and_then(|base| Url::parse(base.as_str()?).ok());
    let elsewhere = base.filter(Url::has_host);
    Discovery {
        is_homeserver: false,
        server_name: named.filter(|_| elsewhere.is_some()),
        elsewhere,
    }
}

/// A name that others may know, unlike a host name without a dot.
fn domain(url: &Url) -> Option<&str> {
    match url.host()? {
        Host::Domain(domain) => domain.contains('.').then_some(domain),
        Host::Ipv4(_) | Host::Ipv6(_) => None,
    }
}
