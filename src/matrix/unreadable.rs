//! Takes out of the homeserver's answers what the SDK cannot read, where it would panic, or fail at the whole answer each time that
//! comes. Other users can put it there, as homeservers check little of it: lists nested too deep, a membership with a field of
//! the wrong type, in an invitation too, an event without a type, a user id with an invalid server name, and an invitation to a
//! room with an invalid id.
//!
//! Invariant: a membership that the SDK can read is kept, whatever else is in its event.

use std::collections::BTreeMap;

use hyper::body::Bytes;
use matrix_sdk::ruma::{
    MilliSecondsSinceUnixEpoch, OwnedUserId, RoomId,
    events::room::member::{MembershipState, StrippedRoomMemberEvent, SyncRoomMemberEvent},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

const MEMBER: &str = "m.room.member";

/// Some times an event's size, which is 64 KiB at most: one long name above thousands of values would take hundreds of MiB.
const LONGEST_FLATTENED: usize = 512 * 1024;

/// The fields of an object, each parsed only when needed.
pub(super) type Fields = BTreeMap<String, Box<RawValue>>;

/// Replaces a part of an answer.
type Replace = fn(Box<RawValue>) -> Box<RawValue>;

/// Where a part is in an answer; [`ANY`] stands for every name.
type Path = &'static [&'static str];

const ANY: &str = "*";

const OF_SYNC: [(Path, Replace); 5] = [
    (&["device_lists", ANY], readable_users),
    (&["rooms", ANY], readable_rooms),
    (
        &["rooms", "invite", ANY, "invite_state", "events"],
        readable_events::<StrippedRoomMemberEvent>,
    ),
    (
        &["rooms", "join", ANY, ANY, "events"],
        readable_events::<SyncRoomMemberEvent>,
    ),
    (
        &["rooms", "leave", ANY, ANY, "events"],
        readable_events::<SyncRoomMemberEvent>,
    ),
];

const OF_MESSAGES: [(Path, Replace); 1] = [(&[ANY], readable_events::<SyncRoomMemberEvent>)];

/// An answer to /sync without what the SDK cannot read.
pub(super) fn readable_sync(body: Bytes) -> Bytes {
    readable(body, &OF_SYNC)
}

/// The same of an answer to /messages.
pub(super) fn readable_messages(body: Bytes) -> Bytes {
    readable(body, &OF_MESSAGES)
}

fn readable(body: Bytes, parts: &[(Path, Replace)]) -> Bytes {
    let Ok(mut answer) = serde_json::from_slice::<Box<RawValue>>(&body) else {
        return body;
    };
    for (path, replace) in parts {
        answer = replace_at(answer, path, *replace);
    }
    String::from(Box::<str>::from(answer)).into()
}

/// What is not of the expected type is left to the SDK. Each level is parsed separately: at once, deep lists would be an error.
fn replace_at(value: Box<RawValue>, path: &[&str], replace: Replace) -> Box<RawValue> {
    let Some((wanted, path)) = path.split_first() else {
        return replace(value);
    };
    changed(value, |fields: Fields| {
        let fields = fields.into_iter().map(|(name, value)| {
            let is_wanted = *wanted == ANY || name == *wanted;
            let value = if is_wanted {
                replace_at(value, path, replace)
            } else {
                value
            };
            (name, value)
        });
        fields.collect::<Fields>()
    })
}

fn changed<T: DeserializeOwned, U: Serialize>(
    value: Box<RawValue>,
    change: impl FnOnce(T) -> U,
) -> Box<RawValue> {
    let parsed = serde_json::from_str(value.get()).ok();
    let changed = parsed.and_then(|parsed| to_raw_value(&change(parsed)).ok());
    changed.unwrap_or(value)
}

fn readable_users(list: Box<RawValue>) -> Box<RawValue> {
    changed(list, |mut users: Vec<Box<RawValue>>| {
        users.retain(|user| serde_json::from_str::<OwnedUserId>(user.get()).is_ok());
        users
    })
}

/// The rooms of one membership. Synapse accepts invitations to rooms with any id from other homeservers.
fn readable_rooms(rooms: Box<RawValue>) -> Box<RawValue> {
    changed(rooms, |mut rooms: Fields| {
        rooms.retain(|id, _| RoomId::parse(id).is_ok());
        rooms
    })
}

fn readable_events<Member: DeserializeOwned>(list: Box<RawValue>) -> Box<RawValue> {
    changed(list, |events: Vec<_>| {
        let events = events.into_iter().filter_map(readable_event::<Member>);
        events.collect::<Vec<_>>()
    })
}

/// The event, or only its membership.
fn readable_event<Member: DeserializeOwned>(event: Box<RawValue>) -> Option<Box<RawValue>> {
    let event = without_related(event);
    // The SDK panics where this fails.
    let Ok(value) = serde_json::from_str::<Value>(event.get()) else {
        return bare_member::<Member>(&event);
    };
    let kind = value.get("type")?.as_str()?;
    let is_unreadable = kind == MEMBER && serde_json::from_str::<Member>(event.get()).is_err();
    if is_unreadable || flattened(&value, 0) > LONGEST_FLATTENED {
        return bare_member::<Member>(&event);
    }
    Some(event)
}

/// The event without those that relate to it: the bot uses none. They must not make a command unreadable; and the SDK decrypts
/// the latest one of a thread in its place, where it may be nested too deep.
fn without_related(event: Box<RawValue>) -> Box<RawValue> {
    changed(event, |mut event: Fields| {
        if let Some(unsigned) = event.remove("unsigned") {
            let unsigned = changed(unsigned, |mut unsigned: Fields| {
                unsigned.remove("m.relations");
                unsigned
            });
            event.insert("unsigned".to_owned(), unsigned);
        }
        event
    })
}

/// How many bytes the names in an event are where each value has all those above it, as the SDK keeps them for its push rules.
fn flattened(value: &Value, above: usize) -> usize {
    let fields = value.as_object().filter(|fields| !fields.is_empty());
    let Some(fields) = fields.map(|fields| fields.iter()) else {
        return above;
    };
    fields
        .map(|(name, value)| flattened(value, above + name.len() + 1))
        .sum()
}

fn bare_member<Member: DeserializeOwned>(event: &RawValue) -> Option<Box<RawValue>> {
    let bare = serde_json::from_str::<BareMember>(event.get()).ok();
    let bare = to_raw_value(&bare.filter(|bare| bare.r#type == MEMBER)?).ok()?;
    let is_readable = serde_json::from_str::<Member>(bare.get()).is_ok();
    is_readable.then_some(bare)
}

/// What the SDK needs of a member event. An invitation has neither id nor time.
#[derive(Deserialize, Serialize)]
struct BareMember {
    r#type: String,
    sender: String,
    state_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin_server_ts: Option<MilliSecondsSinceUnixEpoch>,
    content: BareContent,
}

#[derive(Deserialize, Serialize)]
struct BareContent {
    membership: MembershipState,
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::api::{IncomingResponse as _, client::sync::sync_events};
    use serde_json::json;

    use super::*;

    fn cleaned(answer: &Value) -> Value {
        let cleaned = readable_sync(answer.to_string().into());
        let response = hyper::Response::new(cleaned.clone());
        sync_events::v3::Response::try_from_http_response(response).unwrap();
        serde_json::from_slice(&cleaned).unwrap()
    }

    fn member(content: &Value) -> Value {
        json!({
            "type": "m.room.member", "sender": "@m:x.y", "state_key": "@b:x.y", "event_id": "$1", "origin_server_ts": 1,
            "content": content, "unsigned": { "age": 1 },
        })
    }

    #[test]
    fn a_user_id_that_the_sdk_refuses_is_taken_out() {
        let answer = |users: &[&str]| {
            let lists = json!({ "changed": users, "left": users });
            json!({ "next_batch": "b", "device_lists": lists })
        };
        let users = [
            "@a:x.y",
            "@a:x_y",
            "@a\0:x.y",
            "@a:x.y:99999",
            "a",
            "@ä b:x.y",
        ];
        assert_eq!(cleaned(&answer(&users)), answer(&["@a:x.y", "@ä b:x.y"]));
    }

    #[test]
    fn a_room_whose_id_the_sdk_refuses_is_taken_out() {
        let answer = |rooms: &[&str]| {
            let rooms: BTreeMap<_, _> = rooms.iter().map(|room| (room, json!({}))).collect();
            json!({ "next_batch": "b", "rooms": { "invite": rooms, "leave": rooms } })
        };
        let rooms = ["!a:x.y", "!a", "a:x.y", "", "!a\0:x.y"];
        assert_eq!(cleaned(&answer(&rooms)), answer(&["!a:x.y", "!a"]));
    }

    #[test]
    fn only_its_membership_is_left_of_a_member_event_that_the_sdk_cannot_read() {
        let readable = member(&json!({ "membership": "join", "displayname": "B", "other": [7] }));
        let name = json!({ "type": "m.room.name", "state_key": "", "sender": "@m:x.y", "content": { "name": 7 } });
        for key in [
            "displayname",
            "avatar_url",
            "is_direct",
            "reason",
            "third_party_invite",
        ] {
            let unreadable = member(&json!({ "membership": "invite", key: 7 }));
            let nobody = member(&json!({ "membership": 7 }));
            let events = json!({ "events": [readable, unreadable, 7, {}, nobody, name] });
            let room = json!({ "state": events, "timeline": events });
            let rooms = json!({
                "invite": { "!1:x.y": { "invite_state": events } }, "join": { "!2:x.y": room },
                "leave": { "!3:x.y": { "state_after": events } },
            });
            let cleaned = cleaned(&json!({ "next_batch": "b", "rooms": rooms }));
            let mut bare = member(&json!({ "membership": "invite" }));
            bare.as_object_mut().unwrap().remove("unsigned");
            let expected = json!([readable, bare, name]);
            for part in [
                "invite/!1:x.y/invite_state",
                "join/!2:x.y/state",
                "join/!2:x.y/timeline",
                "leave/!3:x.y/state_after",
            ] {
                let found = cleaned.pointer(&format!("/rooms/{part}/events"));
                assert_eq!(found, Some(&expected), "{part} {key}");
            }
        }
    }

    #[test]
    fn an_event_whose_lists_are_too_deep_for_the_sdk_is_taken_out() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let with = |event: &Value, depth| {
            let deep = format!(r#""origin_server_ts":1,"deep":{}"#, nested(depth));
            event.to_string().replace(r#""origin_server_ts":1"#, &deep)
        };
        let name =
            json!({ "type": "m.room.name", "state_key": "", "origin_server_ts": 1, "content": {} });
        let member = member(&json!({ "membership": "join" }));
        let events = [with(&name, 100), with(&name, 200), with(&member, 200)].join(",");
        let deep = nested(500);
        let body = format!(
            r#"{{"deep":{deep},"rooms":{{"join":{{"!1:x.y":{{"deep":{deep},"timeline":{{"events":[{events}]}}}}}}}}}}"#
        );
        let cleaned = readable_sync(body.into());
        let cleaned = str::from_utf8(&cleaned).unwrap();
        assert_eq!(cleaned.matches("m.room.name").count(), 1);
        assert_eq!(cleaned.matches("m.room.member").count(), 1);
        assert!(!cleaned.contains(&format!(",\"deep\":{}", nested(200))));

        let messages = format!(r#"{{"chunk":[{}],"start":"a"}}"#, with(&name, 200));
        assert_eq!(
            readable_messages(messages.into()),
            r#"{"chunk":[],"start":"a"}"#
        );
    }

    #[test]
    fn an_event_of_one_long_name_above_many_values_is_taken_out() {
        for value in [json!(1), json!([]), json!({})] {
            let values = (0..4_000).map(|number| (number.to_string(), &value));
            let values: BTreeMap<_, _> = values.collect();
            let event = |name: &str| json!({ "type": "m.room.name", "content": { name: values } });
            let short = event("name");
            let messages = json!({ "chunk": [short, event(&".".repeat(30_000))] }).to_string();
            let cleaned = readable_messages(messages.into());
            let cleaned: Value = serde_json::from_slice(&cleaned).unwrap();
            assert!(cleaned == json!({ "chunk": [short] }), "{value}");
        }
    }

    #[test]
    fn an_event_comes_without_those_that_relate_to_it() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let messages = format!(
            r#"{{"chunk":[{{"type":"m.room.message","unsigned":{{"age":1,"m.relations":{{"m.thread":{deep}}}}}}}],"end":"b"}}"#
        );
        let expected = r#"{"chunk":[{"type":"m.room.message","unsigned":{"age":1}}],"end":"b"}"#;
        assert_eq!(readable_messages(messages.into()), expected);
    }

    #[test]
    fn what_is_not_an_answer_to_sync_is_left_to_the_sdk() {
        for body in [
            "",
            "<html>",
            "[]",
            r#"{"rooms":7}"#,
            r#"{"device_lists":[7]}"#,
        ] {
            assert_eq!(readable_sync(body.into()), body);
        }
    }
}
