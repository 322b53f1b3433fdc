//! What the homeserver brings, before the SDK reads it: the cryptography library below the SDK panics at public keys that are a
//! byte too short or too long, and the SDK feeds it what strangers send.
//!
//! Invariant: pure, and whatever is let through unchanged is not copied. What cannot be read here is left to the SDK, whose
//! parsers are stricter.

use std::{borrow::Cow, collections::BTreeMap};

use matrix_sdk_base::crypto::vodozemac::{Ed25519PublicKey, base64_decode};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

/// The only to-device events that a bot needs: they bring room keys, and all else that a device says in confidence.
///
/// Key requests and forwarded keys have no use, as the bot is built without key forwarding; secrets have none, as it has one
/// device, and its own come from secret storage; nobody verifies it interactively; `m.room_key.withheld` explains only why a
/// message cannot be read; and `m.room_key` and `m.dummy` do not count unless they are encrypted.
const NEEDED: &str = "m.room.encrypted";

/// The algorithm of what is encrypted for one device.
const OLM: &str = "m.olm.v1.curve25519-aes-sha2";

/// How much of a text that others chose is kept for the log, in characters.
const LONGEST_TEXT: usize = 255;

/// Something that the SDK does not get.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    /// Whose it is.
    pub(super) user: String,
    /// What it is.
    pub(super) what: String,
}

/// What one user sent to the bot's device.
#[derive(Debug)]
pub(super) struct Portion {
    pub(super) sender: String,
    pub(super) events: Vec<Box<RawValue>>,
}

/// An answer to /sync with to-device events.
#[derive(Debug)]
pub(super) struct SyncAnswer<'a> {
    fields: BTreeMap<Cow<'a, str>, &'a RawValue>,
    /// What is needed and well-formed, by sender.
    pub(super) portions: Vec<Portion>,
    /// The rest.
    pub(super) dropped: Vec<Dropped>,
}

impl<'a> SyncAnswer<'a> {
    /// `None` where there is nothing to look at.
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct ToDevice<'a> {
            #[serde(borrow, default)]
            events: Vec<&'a RawValue>,
        }
        let fields: BTreeMap<Cow<'a, str>, &'a RawValue> = serde_json::from_slice(body).ok()?;
        let to_device: ToDevice<'_> = serde_json::from_str(fields.get("to_device")?.get()).ok()?;
        if to_device.events.is_empty() {
            return None;
        }
        let mut answer = Self {
            fields,
            portions: Vec::new(),
            dropped: Vec::new(),
        };
        for event in to_device.events {
            answer.take(event);
        }
        Some(answer)
    }

    fn take(&mut self, event: &RawValue) {
        let sender = match sender_of_needed(event) {
            Ok(sender) => sender,
            Err(dropped) => return self.dropped.push(dropped),
        };
        let event = event.to_owned();
        match self.portions.iter_mut().find(|one| one.sender == sender) {
            Some(portion) => portion.events.push(event),
            None => self.portions.push(Portion {
                sender,
                events: vec![event],
            }),
        }
    }

    /// The answer but for its to-device events.
    pub(super) fn rest(&self) -> Rest {
        let rest = self.fields.iter();
        let rest = rest.filter(|(name, _)| *name != "to_device");
        Rest(
            rest.map(|(name, value)| (name.to_string(), (*value).to_owned()))
                .collect(),
        )
    }
}

/// An answer to /sync but for its to-device events.
#[derive(Debug)]
pub(super) struct Rest(BTreeMap<String, Box<RawValue>>);

impl Rest {
    /// An answer with these to-device events and nothing besides, after which the SDK asks with this token. The counts of keys
    /// that the homeserver has left come with the last part alone: the SDK uploads keys whenever it is told that few are left.
    pub(super) fn part(events: &[Box<RawValue>], next_batch: &str) -> Vec<u8> {
        let mut fields = BTreeMap::new();
        if let Ok(next_batch) = to_raw_value(next_batch) {
            fields.insert("next_batch", next_batch);
        }
        with_events(fields, events)
    }

    /// All of it, with these to-device events.
    pub(super) fn whole(&self, events: &[Box<RawValue>]) -> Vec<u8> {
        let fields = self.0.iter();
        let fields = fields.map(|(name, value)| (name.as_str(), value.clone()));
        with_events(fields.collect(), events)
    }
}

fn with_events(mut fields: BTreeMap<&str, Box<RawValue>>, events: &[Box<RawValue>]) -> Vec<u8> {
    if let Ok(to_device) = to_raw_value(&BTreeMap::from([("events", events)])) {
        fields.insert("to_device", to_device);
    }
    // Texts and JSON that was read before can be written.
    serde_json::to_vec(&fields).unwrap_or_default()
}

/// Who sent an event that a bot needs, and that is well-formed as far as can be seen from outside.
fn sender_of_needed(event: &RawValue) -> Result<String, Dropped> {
    #[derive(Deserialize)]
    struct Head {
        r#type: String,
        sender: String,
    }
    #[derive(Deserialize)]
    struct Envelope {
        content: Content,
    }
    #[derive(Deserialize)]
    struct Content {
        algorithm: String,
        sender_key: String,
        ciphertext: BTreeMap<String, Box<RawValue>>,
    }
    let Ok(head) = serde_json::from_str::<Head>(event.get()) else {
        return Err(Dropped::new("", "to-device event without type or sender"));
    };
    if head.r#type != NEEDED {
        return Err(Dropped::new(&head.sender, &head.r#type));
    }
    let is_well_formed = serde_json::from_str(event.get()).is_ok_and(|Envelope { content }| {
        content.algorithm == OLM && is_key(&content.sender_key) && !content.ciphertext.is_empty()
    });
    if is_well_formed {
        return Ok(head.sender);
    }
    Err(Dropped::new(&head.sender, "malformed m.room.encrypted"))
}

/// An answer to /keys/query without the devices and identities that have a malformed key, and what they were. It is written
/// anew in any case: a name that stands twice in an object would be read in one way here and in another one by the SDK.
pub(super) fn clean_keys(body: &[u8]) -> Option<(Vec<u8>, Vec<Dropped>)> {
    type ByUser<T> = BTreeMap<String, T>;
    let mut dropped = Vec::new();
    let mut fields: ByUser<Box<RawValue>> = serde_json::from_slice(body).ok()?;
    for (name, field) in &mut fields {
        let cleaned = match name.as_str() {
            "device_keys" => {
                let devices = serde_json::from_str(field.get());
                let mut devices: ByUser<BTreeMap<String, Box<RawValue>>> = devices.ok()?;
                for (user, devices) in &mut devices {
                    devices.retain(|id, device| {
                        keep(device, user, || format!("device {id}"), &mut dropped)
                    });
                }
                to_raw_value(&devices)
            }
            "master_keys" | "self_signing_keys" | "user_signing_keys" => {
                let mut keys: ByUser<Box<RawValue>> = serde_json::from_str(field.get()).ok()?;
                keys.retain(|user, key| keep(key, user, || name.clone(), &mut dropped));
                to_raw_value(&keys)
            }
            _ => continue,
        };
        *field = cleaned.ok()?;
    }
    Some((serde_json::to_vec(&fields).ok()?, dropped))
}

fn keep(
    holder: &RawValue,
    user: &str,
    what: impl Fn() -> String,
    dropped: &mut Vec<Dropped>,
) -> bool {
    #[derive(Deserialize)]
    struct Keys {
        keys: BTreeMap<String, String>,
    }
    let is_well_formed = serde_json::from_str(holder.get()).is_ok_and(|Keys { keys }| {
        let mut signing_keys = keys.iter().filter(|(id, _)| id.starts_with("ed25519"));
        signing_keys.all(|(_, key)| is_key(key))
    });
    if !is_well_formed {
        dropped.push(Dropped::new(user, &what()));
    }
    is_well_formed
}

/// Whether a text is a public key as the SDK decodes it: of 32 bytes.
fn is_key(text: &str) -> bool {
    base64_decode(text).is_ok_and(|key| key.len() == Ed25519PublicKey::LENGTH)
}

impl Dropped {
    fn new(user: &str, what: &str) -> Self {
        let shortened = |text: &str| text.chars().take(LONGEST_TEXT).collect();
        Self {
            user: shortened(user),
            what: shortened(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const KEY: &str = "nqOvzeuGWT/sRx3h7+MHoInYj3Uk2LD/unI9kDYcHwk";

    /// Keys of 31 and of 33 bytes, in the lengths that the parser lets through.
    fn malformed() -> [String; 3] {
        let short = "A".repeat(42);
        [format!("{short}="), format!("{short}=="), "A".repeat(44)]
    }

    fn encrypted(sender: &str, sender_key: &str) -> Value {
        let content = json!({
            "algorithm": OLM, "sender_key": sender_key, "ciphertext": { KEY: { "type": 0, "body": "x" } },
        });
        json!({ "type": NEEDED, "sender": sender, "content": content })
    }

    fn read(events: &[Value]) -> (Vec<(String, usize)>, Vec<String>) {
        let body = json!({ "next_batch": "b", "to_device": { "events": events } }).to_string();
        let answer = SyncAnswer::read(body.as_bytes()).unwrap();
        let portions = answer.portions.iter();
        let portions = portions.map(|portion| (portion.sender.clone(), portion.events.len()));
        let dropped = answer.dropped.iter().map(|dropped| dropped.what.clone());
        (portions.collect(), dropped.collect())
    }

    #[test]
    fn only_what_is_encrypted_for_the_device_and_well_formed_gets_through() {
        let plain = |kind| json!({ "type": kind, "sender": "@m:x", "content": {} });
        let (portions, dropped) = read(&[
            encrypted("@a:x", KEY),
            plain("m.forwarded_room_key"),
            encrypted("@b:x", KEY),
            encrypted("@m:x", "short"),
            encrypted("@m:x", &malformed()[2]),
            plain(NEEDED),
            plain("m.room_key_request"),
            json!(7),
            json!({}),
            encrypted("@a:x", KEY),
        ]);
        assert_eq!(portions, [("@a:x".to_owned(), 2), ("@b:x".to_owned(), 1)]);
        let no_head = "to-device event without type or sender";
        let ill = "malformed m.room.encrypted";
        let plain = ["m.forwarded_room_key", "m.room_key_request"];
        assert_eq!(
            dropped,
            [plain[0], ill, ill, ill, plain[1], no_head, no_head]
        );
    }

    #[test]
    fn a_type_that_stands_twice_gets_nowhere() {
        let event = format!(
            r#"{{"type":"m.forwarded_room_key","type":"{NEEDED}","sender":"@m:x","content":{{}}}}"#
        );
        let body = format!(r#"{{"to_device":{{"events":[{event}]}}}}"#);
        let answer = SyncAnswer::read(body.as_bytes()).unwrap();
        assert!(answer.portions.is_empty());
    }

    #[test]
    fn an_answer_without_to_device_events_is_not_looked_at() {
        for body in [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"to_device":7}"#,
            r#"{"to_device":{}}"#,
            r#"{"to_device":{"events":[]},"rooms":{}}"#,
        ] {
            assert!(SyncAnswer::read(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn a_part_brings_events_alone_and_the_whole_brings_the_rest() {
        let body = json!({
            "next_batch": "b", "rooms": { "join": {} }, "device_one_time_keys_count": { "signed_curve25519": 7 },
            "to_device": { "events": [encrypted("@a:x", KEY)] },
        });
        let text = body.to_string();
        let answer = SyncAnswer::read(text.as_bytes()).unwrap();
        let (rest, events) = (answer.rest(), &answer.portions[0].events);
        let part = json!({ "next_batch": "a-1", "to_device": body["to_device"] });
        let read = |text: Vec<u8>| serde_json::from_slice::<Value>(&text).unwrap();
        assert_eq!(read(Rest::part(events, "a-1")), part);
        assert_eq!(read(rest.whole(events)), body);
    }

    fn device(key: &str) -> Value {
        json!({ "keys": { "ed25519:D": key, "curve25519:D": KEY, "other:D": "x" }, "unsigned": {} })
    }

    #[test]
    fn devices_and_identities_with_malformed_keys_are_dropped_and_no_others() {
        for bad in malformed() {
            let identity = |key: &str| json!({ "keys": { "ed25519:K": key }, "usage": ["master"] });
            let answer = json!({
                "failures": {},
                "device_keys": { "@a:x": { "GOOD": device(KEY), "BAD": device(&bad) }, "@b:x": { "D": device(KEY) } },
                "master_keys": { "@a:x": identity(&bad), "@b:x": identity(KEY) },
                "self_signing_keys": { "@a:x": identity(KEY), "@b:x": identity(&bad) },
                "user_signing_keys": { "@a:x": identity(&bad) },
            });
            let (cleaned, dropped) = clean_keys(answer.to_string().as_bytes()).unwrap();
            let expected = json!({
                "failures": {},
                "device_keys": { "@a:x": { "GOOD": device(KEY) }, "@b:x": { "D": device(KEY) } },
                "master_keys": { "@b:x": identity(KEY) },
                "self_signing_keys": { "@a:x": identity(KEY) },
                "user_signing_keys": {},
            });
            assert_eq!(serde_json::from_slice::<Value>(&cleaned).unwrap(), expected);
            assert_eq!(dropped.len(), 4);
            assert!(dropped.contains(&Dropped::new("@a:x", "device BAD")));
            assert!(dropped.contains(&Dropped::new("@b:x", "self_signing_keys")));
        }
    }

    #[test]
    fn a_malformed_key_does_not_hide_behind_depth_or_a_name_that_stands_twice() {
        let bad = &malformed()[2];
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        for device in [
            format!(r#"{{"keys":{{"ed25519:D":"{bad}"}},"keys":{{"ed25519:D":"{KEY}"}}}}"#),
            format!(r#"{{"unsigned":{deep},"keys":{{"ed25519:D":"{bad}"}}}}"#),
            format!(r#"{{"keys":{{"ed25519\u003aD":"{bad}"}}}}"#),
            r#"{"keys":{"ed25519:D":7}}"#.to_owned(),
            "7".to_owned(),
        ] {
            let body = format!(r#"{{"device_keys":{{"@m:x":{{"D":{device}}}}}}}"#);
            let (cleaned, _) = clean_keys(body.as_bytes()).unwrap();
            let cleaned = String::from_utf8(cleaned).unwrap();
            assert_eq!(cleaned, r#"{"device_keys":{"@m:x":{}}}"#, "{device}");
        }
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_left_to_the_sdk() {
        for body in [
            "",
            "<html>",
            "[]",
            r#"{"device_keys":[]}"#,
            r#"{"master_keys":7}"#,
        ] {
            assert!(clean_keys(body.as_bytes()).is_none(), "{body}");
        }
    }
}
