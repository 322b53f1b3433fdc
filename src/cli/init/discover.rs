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
    pub(super) is_homeserver: bool,
    /// Its URL by `.well-known`, if another.
    pub(super) elsewhere: Option<Url>,
    pub(super) server_name: Option<OwnedServerName>,
}

const VERSIONS: [&str; 3] = ["_matrix", "client", "versions"];

pub(super) async fn about(url: &Url) -> Discovery {
    let Ok(client) = Client::builder().timeout(TIMEOUT).build() else {
        return Discovery::default();
    };
    let get = async |path: &[&str]| {
        let answer = http::send(client.get(http::address(url, path))).await;
        answer.map_or_else(
            |_| (None, Value::Null),
            |answer| (Some(answer.url), answer.body),
        )
    };
    let named = domain(url).and_then(|name| name.try_into().ok());
    let (found_at, versions) = get(&VERSIONS).await;
    if versions.get("versions").is_some_and(Value::is_array) {
        // With this name it signs.
        let (_, key) = get(&["_matrix", "key", "v2", "server"]).await;
        let signed = key.get("server_name").and_then(Value::as_str);
        // The bot follows no redirections, such as one from http to https.
        let redirected = found_at.filter(|found_at| *found_at != http::address(url, &VERSIONS));
        return Discovery {
            is_homeserver: redirected.is_none(),
            elsewhere: redirected.as_ref().and_then(site_of),
            server_name: signed.and_then(|name| name.try_into().ok()).or(named),
        };
    }
    // Where a site says that its homeserver is (specification, "Well-known URI").
    let (_, site) = get(&[".well-known", "matrix", "client"]).await;
    let base = site.pointer("/m.homeserver/base_url");
    let base = base.and_then(|base| Url::parse(base.as_str()?).ok());
    let elsewhere = base.filter(Url::has_host);
    Discovery {
        is_homeserver: false,
        server_name: named.filter(|_| elsewhere.is_some()),
        elsewhere,
    }
}

/// The site whose versions are at this URL.
fn site_of(versions: &Url) -> Option<Url> {
    let mut site = versions.clone();
    let mut segments = site.path_segments_mut().ok()?;
    segments.pop().pop().pop();
    drop(segments);
    (http::address(&site, &VERSIONS) == *versions).then_some(site)
}

/// A name that others may know, unlike a host name without a dot.
fn domain(url: &Url) -> Option<&str> {
    match url.host()? {
        Host::Domain(domain) => domain.contains('.').then_some(domain),
        Host::Ipv4(_) | Host::Ipv6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        net::TcpListener,
        thread,
    };

    use super::*;

    /// Answers each request with what `answer` makes of its path, and returns its address.
    fn site(answer: impl Fn(&str) -> String + Send + 'static) -> Url {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let first = lines.next().unwrap().unwrap();
                while !lines.next().unwrap().unwrap().is_empty() {}
                let path = first.split(' ').nth(1).unwrap();
                let answer = answer(path);
                let reply = format!("HTTP/1.1 {answer}");
                stream.write_all(reply.as_bytes()).unwrap();
            }
        });
        format!("http://{address}/").parse().unwrap()
    }

    #[tokio::test]
    async fn a_homeserver_behind_a_redirection_is_offered_where_it_is() {
        let homeserver = site(|path| {
            let body = match path {
                "/base/_matrix/client/versions" => r#"{ "versions": ["v1.11"] }"#,
                "/base/_matrix/key/v2/server" => r#"{ "server_name": "example.org" }"#,
                _ => "null",
            };
            let length = body.len();
            format!("200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
        });
        let base = homeserver.join("base").unwrap();
        let target = base.clone();
        let redirecting = site(move |path| {
            format!(
                "301 Moved Permanently\r\nconnection: close\r\nlocation: {target}{path}\r\ncontent-length: 0\r\n\r\n"
            )
        });
        let server_name = Some("example.org".try_into().unwrap());
        let there = Discovery {
            is_homeserver: true,
            elsewhere: None,
            server_name: server_name.clone(),
        };
        let elsewhere = Discovery {
            is_homeserver: false,
            elsewhere: Some(base.clone()),
            server_name,
        };
        assert_eq!(about(&base).await, there);
        assert_eq!(about(&redirecting).await, elsewhere);
    }
}
