//! An answer to the bot, and its transport: whole, cut off, or slow.

use std::{convert::Infallible, io, time::Duration};

use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Response,
    body::{Bytes, Frame},
};
use serde_json::{Value, json};

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// In how many pieces a slow answer comes.
const DROPS: usize = 8;

/// The pause between two of them.
const BETWEEN_DROPS: Duration = Duration::from_millis(10);

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(super) status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    pub(super) transport: Transport,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Transport {
    Whole,
    /// The connection breaks in the middle.
    Cut,
    /// In pieces.
    Slow,
}

impl Answer {
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: vec![("content-type", content_type.to_owned())],
            body: body.into(),
            transport: Transport::Whole,
        }
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    /// A standard error response, `M_FORBIDDEN` for example.
    pub(crate) fn refusal(status: u16, code: &str) -> Self {
        Self::json(status, &json!({ "errcode": code, "error": "No." }))
    }

    /// The error page of a reverse proxy.
    pub(crate) fn error_page(status: u16) -> Self {
        Self::new(status, "text/html", "<html><h1>Bad Gateway</h1></html>")
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(super) fn json_body(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(super) fn set_json_body(&mut self, body: &Value) {
        self.body = body.to_string().into();
    }

    pub(super) fn into_response(self) -> io::Result<Response<Body>> {
        let body = match self.transport {
            Transport::Whole => Full::new(self.body)
                .map_err(|never: Infallible| match never {})
                .boxed_unsync(),
            Transport::Cut => {
                let half = self.body.slice(..self.body.len() / 2);
                let broken = io::Error::other("cut by the test");
                StreamBody::new(stream::iter([Ok(Frame::data(half)), Err(broken)])).boxed_unsync()
            }
            Transport::Slow => in_pieces(&self.body),
        };
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        response.body(body).map_err(io::Error::other)
    }
}

fn in_pieces(body: &Bytes) -> Body {
    let size = body.len().div_ceil(DROPS).max(1);
    let drops: Vec<Bytes> = body.chunks(size).map(Bytes::copy_from_slice).collect();
    let slowly = stream::iter(drops).then(|drop| async {
        tokio::time::sleep(BETWEEN_DROPS).await;
        Ok(Frame::data(drop))
    });
    StreamBody::new(slowly).boxed_unsync()
}
