//! Forged events.

use std::time::{SystemTime, UNIX_EPOCH};

use matrix_sdk::ruma::{OwnedEventId, RoomId, UserId};
use serde_json::{Value, json};

use crate::support::person::random_text;

pub(crate) fn forged_message(sender: &UserId, text: &str) -> Value {
    json!({
        "type": "m.room.message",
        "event_id": forged_event_id(),
        "sender": sender,
        "origin_server_ts": now(),
        "content": { "msgtype": "m.text", "body": text },
        "unsigned": { "age": 1 },
    })
}

pub(crate) fn forged_state(sender: &UserId, kind: &str, key: &str, content: &Value) -> Value {
    json!({
        "type": kind,
        "state_key": key,
        "event_id": forged_event_id(),
        "sender": sender,
        "origin_server_ts": now(),
        "content": content,
        "unsigned": { "age": 1 },
    })
}

/// A user's membership event: `join`, `leave`, ..
pub(crate) fn membership(user: &UserId, membership: &str) -> Value {
    let content = json!({ "membership": membership });
    forged_state(user, "m.room.member", user.as_str(), &content)
}

/// The part of an answer to /sync that brings these events to a room.
pub(crate) fn in_timeline(room: &RoomId, events: &[Value]) -> Value {
    json!({ "rooms": { "join": { room: { "timeline": { "events": events } } } } })
}

/// The same events, as if they were sent again now.
pub(crate) fn under_new_ids(events: &[Value]) -> Vec<Value> {
    let mut events = events.to_vec();
    for event in &mut events {
        event["event_id"] = json!(forged_event_id());
        event["origin_server_ts"] = json!(now());
        event["unsigned"] = json!({ "age": 1 });
    }
    events
}

/// The time in events, in milliseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_millis().try_into().unwrap()
}

/// An id of the form that rooms have had since version 4.
fn forged_event_id() -> OwnedEventId {
    let [one, two, three] = [(); 3].map(|()| random_text());
    format!("${one}{two}{three}forged0").try_into().unwrap()
}
