//! A request of the bot, and what it is about.

use std::io;

use http_body_util::BodyExt as _;
use hyper::{
    Method,
    body::{Bytes, Incoming},
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap},
};
use matrix_sdk::ruma::RoomId;
use percent_encoding::percent_decode_str;
use serde_json::Value;

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// The path, decoded.
    pub(crate) path: String,
    /// The body; null if it is not JSON.
    pub(crate) json: Value,
    /// Path and query, still encoded.
    pub(super) target: String,
    /// The headers that the homeserver needs.
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Request {
    pub(super) async fn read(incoming: hyper::Request<Incoming>) -> io::Result<Self> {
        let (head, body) = incoming.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let path = percent_decode_str(head.uri.path()).decode_utf8_lossy();
        // With HTTP/2, the URI includes the host.
        let target = head.uri.path_and_query().map(ToString::to_string);
        Ok(Self {
            path: path.into_owned(),
            json: serde_json::from_slice(&body).unwrap_or_default(),
            target: target.unwrap_or_default(),
            method: head.method,
            headers: for_homeserver(&head.headers),
            body,
        })
    }

    pub(crate) fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let mut parameters = url::form_urlencoded::parse(query.as_bytes());
        parameters.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
    }

    pub(crate) fn bears(&self, token: &str) -> bool {
        let authorization = self.headers.get(AUTHORIZATION);
        authorization.is_some_and(|value| *value == format!("Bearer {token}"))
    }

    pub(crate) fn is_in(&self, room: &RoomId) -> bool {
        self.path.split('/').any(|segment| segment == room.as_str())
    }

    pub(crate) fn is_sync(&self) -> bool {
        self.path.ends_with("/sync")
    }

    pub(crate) fn reads_event(&self) -> bool {
        self.method == Method::GET && self.path.contains("/event/")
    }

    /// Reads all state of a room.
    pub(crate) fn reads_state(&self) -> bool {
        self.method == Method::GET && self.path.ends_with("/state")
    }

    pub(crate) fn queries_keys(&self) -> bool {
        self.path.ends_with("/keys/query")
    }

    pub(crate) fn claims_keys(&self) -> bool {
        self.path.ends_with("/keys/claim")
    }

    pub(crate) fn sends(&self) -> bool {
        self.method == Method::PUT && self.path.contains("/send/")
    }

    /// Sends something to devices, mostly the keys of a room.
    pub(crate) fn sends_to_devices(&self) -> bool {
        self.path.contains("/sendToDevice/m.room.encrypted/")
    }

    pub(crate) fn makes_room(&self) -> bool {
        self.path.ends_with("/createRoom")
    }
}

/// The others are between the bot and the proxy.
fn for_homeserver(headers: &HeaderMap) -> HeaderMap {
    let needed = [AUTHORIZATION, CONTENT_TYPE].into_iter();
    let needed = needed.filter_map(|name| Some((name.clone(), headers.get(name)?.clone())));
    needed.collect()
}
