//! Checks the homeserver's answers before the SDK reads them: the cryptography library below the SDK panics at public keys that
//! are a byte too short or too long, and the SDK passes it keys that strangers send.
//!
//! Events that are malformed, or of no use to a bot, are dropped, and the signals of other hosts are kept from the SDK.
//! Encrypted content cannot be checked, so the SDK may panic at it. So it gets the events of one sender at a time: after a
//! panic that sender is known, and a new connection does not pass their events on.
//!
//! Invariant: the events of other senders are not lost. The SDK saves the Olm session of an event before it saves the event's
//! content, so an event in one step with a panic could not be decrypted a second time. What cannot be parsed here is left to
//! the SDK, whose parsers are stricter.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use hyper::body::Bytes;
use matrix_sdk_base::crypto::vodozemac::{Ed25519PublicKey, base64_decode};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tracing::{error, info, warn};

use super::{
    Fault, HostSignal, MatrixFolder, folder,
    message::SIGNAL_EVENT,
    unreadable::{Fields, readable_sync},
};
use crate::atomic_file;

/// The only to-device events that a bot needs: they bring room keys, and everything else that devices send encrypted.
///
/// Key requests and forwarded keys have no use, as the bot is built without key forwarding; secrets have none, as it has one
/// device, and its own come from secret storage; nobody verifies it interactively; `m.room_key.withheld` explains only why a
/// message cannot be read; and `m.room_key` and `m.dummy` do not count unless they are encrypted.
const NEEDED: &str = "m.room.encrypted";

/// The algorithm of events that are encrypted for one device.
const OLM: &str = "m.olm.v1.curve25519-aes-sha2";

/// How much of another user's text is logged, in characters.
const LONGEST_TEXT: usize = 255;

/// The part of a token between the homeserver's own token and the number of parts that the SDK has got since that.
const PART: &str = "_rcbot-part-";

/// How long a user is blocked after the first panic at their events: all that they sent together arrives within minutes.
const FIRST_BLOCK: Duration = Duration::from_mins(10);

/// How long after each further panic.
const REPEATED_BLOCK: Duration = Duration::from_hours(24);

/// So many users who made the SDK panic within [`FIRST_BLOCK`] are one attacker with many accounts: strangers are blocked.
const MANY: usize = 4;

/// How many users are remembered.
const MOST_OFFENDERS: usize = 1_000;

/// How many signals of other hosts may wait: more than a homeserver brings at once.
const MOST_SIGNALS: usize = 1_000;

/// How many log lines an hour report what was dropped.
const MOST_LINES: usize = 100;

/// How long nothing is reported twice.
const HOUR: Duration = Duration::from_hours(1);

/// Something that the SDK does not get.
#[derive(Debug, PartialEq, Eq)]
struct Dropped {
    user: String,
    what: String,
}

/// An answer to /sync with to-device events.
#[derive(Debug)]
struct SyncAnswer {
    needed: BySender,
    signals: Vec<HostSignal>,
    dropped: Vec<Dropped>,
    /// The answer without its to-device events.
    rest: Fields,
}

/// The needed and well-formed events, in their order for each sender.
type BySender = BTreeMap<String, Vec<Box<RawValue>>>;

impl SyncAnswer {
    /// `None`: there is nothing to check.
    fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct ToDevice<'a> {
            #[serde(borrow, default)]
            events: Vec<&'a RawValue>,
        }
        let mut rest: Fields = serde_json::from_slice(body).ok()?;
        let to_device = rest.remove("to_device")?;
        let ToDevice { events } = serde_json::from_str(to_device.get()).ok()?;
        if events.is_empty() {
            return None;
        }
        let mut answer = Self {
            needed: BTreeMap::new(),
            signals: Vec::new(),
            dropped: Vec::new(),
            rest,
        };
        for event in events {
            if let Err(reason) = answer.take(event) {
                answer.dropped.push(reason);
            }
        }
        Some(answer)
    }

    /// Takes an event for the SDK or the bot, if it is well-formed as far as can be seen from outside.
    fn take(&mut self, event: &RawValue) -> Result<(), Dropped> {
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
        if head.r#type == SIGNAL_EVENT {
            let signal = serde_json::from_str(event.get()).ok();
            let signal = signal.filter(|it: &HostSignal| it.content.about.len() <= LONGEST_TEXT);
            let malformed = || Dropped::new(&head.sender, "malformed signal of a host");
            self.signals.push(signal.ok_or_else(malformed)?);
            return Ok(());
        }
        if head.r#type != NEEDED {
            return Err(Dropped::new(&head.sender, &head.r#type));
        }
        let is_well_formed = serde_json::from_str(event.get()).is_ok_and(|Envelope { content }| {
            content.algorithm == OLM
                && is_key(&content.sender_key)
                && !content.ciphertext.is_empty()
        });
        if !is_well_formed {
            return Err(Dropped::new(&head.sender, "malformed m.room.encrypted"));
        }
        let of_sender = self.needed.entry(head.sender).or_default();
        of_sender.push(event.to_owned());
        Ok(())
    }
}

/// An answer with these to-device events.
fn with_events(mut fields: Fields, events: &[Box<RawValue>]) -> Bytes {
    if let Ok(to_device) = to_raw_value(&BTreeMap::from([("events", events)])) {
        fields.insert("to_device".to_owned(), to_device);
    }
    // Strings, and JSON that was parsed before, can be serialized.
    serde_json::to_vec(&fields).unwrap_or_default().into()
}

/// An answer to /keys/query without the devices and identities that have a malformed key, and a list of those. It is always
/// serialized again: the SDK might read a name that is twice in an object differently.
fn clean_keys(body: &[u8]) -> Option<(Vec<u8>, Vec<Dropped>)> {
    let mut dropped = Vec::new();
    let mut fields: Fields = serde_json::from_slice(body).ok()?;
    for (name, field) in &mut fields {
        let cleaned = match name.as_str() {
            "device_keys" => {
                let devices = serde_json::from_str(field.get());
                let mut devices: BTreeMap<String, Fields> = devices.ok()?;
                for (user, devices) in &mut devices {
                    devices.retain(|id, device| {
                        keep(device, user, || format!("device {id}"), &mut dropped)
                    });
                }
                to_raw_value(&devices)
            }
            "master_keys" | "self_signing_keys" | "user_signing_keys" => {
                let mut keys: Fields = serde_json::from_str(field.get()).ok()?;
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

/// Decides what the SDK gets of the homeserver's answers.
#[derive(Debug)]
pub(super) struct Quarantine {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    offenders: BTreeMap<String, Offender>,
    step: Step,
    /// Signals that wait for the bot.
    signals: Vec<HostSignal>,
    /// The users in the bot's encrypted rooms, while that matters.
    known_users: Option<BTreeSet<String>>,
    logged: HashSet<(String, String)>,
    logging_since: Instant,
}

/// What the SDK is processing.
#[derive(Debug, Default)]
struct Step {
    /// The sender of the events that the SDK is processing.
    current_sender: Option<String>,
    /// Whether to-device events have come since the SDK last finished, even if all were dropped.
    has_brought: bool,
    waiting: Option<Waiting>,
}

/// A user at whose events the SDK panicked.
#[derive(Debug, Deserialize, Serialize)]
struct Offender {
    last: SystemTime,
    times: u32,
}

/// The rest of an answer to /sync, which the SDK has yet to get.
#[derive(Debug)]
struct Waiting {
    /// The token of the SDK's next request.
    token: String,
    needed: BySender,
    rest: Fields,
}

impl Quarantine {
    /// With the users that earlier runs have blocked.
    pub(super) fn load(folder: &MatrixFolder) -> Result<Self, Fault> {
        let path = folder.quarantine();
        let offenders = folder::read(&path)?.and_then(|text| {
            serde_json::from_slice(&text)
                .inspect_err(
                    |_| warn!(path = %path.display(), "the list of users whose events are set aside is unreadable, starting with an empty one"),
                )
                .ok()
        });
        let state = Mutex::new(State {
            offenders: offenders.unwrap_or_default(),
            step: Step::default(),
            signals: Vec::new(),
            known_users: None,
            logged: HashSet::new(),
            logging_since: Instant::now(),
        });
        Ok(Self { path, state })
    }

    /// For a new client of the SDK: drops the parts that were for the one before. The blocked users stay.
    pub(super) fn start_over(&self) {
        self.state().step = Step::default();
    }

    /// The next part of the last answer, if the SDK asks with its token.
    pub(super) fn next_part(&self, since: &str) -> Option<Bytes> {
        let step = &mut self.state().step;
        step.current_sender = None;
        let waiting = step.waiting.take()?;
        (waiting.token == since).then(|| step.hand_out(waiting))
    }

    /// What the SDK gets of the homeserver's answer to its request with this token.
    pub(super) fn sync_answer(&self, since: &str, body: Bytes) -> Bytes {
        let body = readable_sync(body);
        let Some(answer) = SyncAnswer::read(&body) else {
            return body;
        };
        let SyncAnswer {
            needed,
            signals,
            mut dropped,
            rest,
        } = answer;
        let (mut state, now) = (self.state(), SystemTime::now());
        state.signals.extend(signals);
        state.signals.truncate(MOST_SIGNALS);
        let accepts = |(sender, _): &(String, _)| state.accepts_from(sender, now);
        let (needed, set_aside): (BySender, BySender) = needed.into_iter().partition(accepts);
        dropped.extend(set_aside.into_iter().map(|(user, events)| Dropped {
            what: format!("{} encrypted to-device events", events.len()),
            user,
        }));
        state.log_dropped(dropped);
        state.step.has_brought = true;
        let token = since.to_owned();
        state.step.hand_out(Waiting {
            token,
            needed,
            rest,
        })
    }

    /// What the SDK gets of the homeserver's answer about people's keys.
    pub(super) fn keys_answer(&self, body: Bytes) -> Bytes {
        let Some((cleaned, dropped)) = clean_keys(&body) else {
            return body;
        };
        self.state().log_dropped(dropped);
        cleaned.into()
    }

    /// The SDK has finished. Returns whether the homeserver sent to-device events, also dropped ones: then its answer was not
    /// empty.
    pub(super) fn finish_step(&self) -> bool {
        let step = &mut self.state().step;
        step.current_sender = None;
        std::mem::take(&mut step.has_brought)
    }

    /// The signals that have come, in the order of the homeserver.
    pub(super) fn take_signals(&self) -> Vec<HostSignal> {
        std::mem::take(&mut self.state().signals)
    }

    /// Whether the SDK has yet to get a part of the homeserver's last answer.
    pub(super) fn holds_more(&self) -> bool {
        self.state().step.waiting.is_some()
    }

    /// The SDK panicked. The sender of the events that it was processing is blocked.
    pub(super) fn blame(&self) -> Fault {
        let mut state = self.state();
        let Some(user) = state.step.current_sender.take() else {
            return Fault::Panicked;
        };
        warn!(
            user = user.as_str(),
            "the Matrix library panicked at encrypted events of this user, which are set aside: malformed keys, probably. Reconnecting"
        );
        info!(
            target: "audit",
            user = user.as_str(),
            event_type = "m.room.encrypted",
            decision = "set aside",
            why = "the Matrix library panicked",
            "to-device events judged"
        );
        state.note_offence(user.clone(), SystemTime::now());
        let written = serde_json::to_vec(&state.offenders).map_err(io::Error::from);
        if let Err(error) = written.and_then(|text| atomic_file::write(&self.path, &text)) {
            // This run remembers it anyway, and a full disk must not end it.
            error!(path = %self.path.display(), %error, "the list of users whose events are set aside was not saved: the next run has to find them again");
        }
        Fault::SetAside { user }
    }

    /// Whether strangers are blocked, so that the known users are needed.
    pub(super) fn is_under_attack(&self) -> bool {
        self.state().is_under_attack(SystemTime::now())
    }

    /// Sets the users who are not strangers.
    pub(super) fn set_known_users(&self, users: BTreeSet<String>) {
        self.state().known_users = Some(users);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The homeserver's own token.
pub(super) fn homeserver_token(token: &str) -> &str {
    token.split_once(PART).map_or(token, |(own, _)| own)
}

/// Whether a query may hold a token that is not the homeserver's.
pub(super) fn may_hold_part(query: &str) -> bool {
    query.contains(PART)
}

impl Step {
    /// Only the last part has the counts of one-time keys: the SDK uploads keys whenever few are left.
    fn hand_out(&mut self, mut waiting: Waiting) -> Bytes {
        let (sender, events) = waiting.needed.pop_first().unzip();
        let events = events.unwrap_or_default();
        self.current_sender = sender;
        if waiting.needed.is_empty() {
            return with_events(waiting.rest, &events);
        }
        // Another token than that of the request: the SDK skips an answer that has its own. After a restart between two parts it
        // asks for the first one again, in which there may be new events.
        let (since, part) = waiting
            .token
            .split_once(PART)
            .unwrap_or((&*waiting.token, ""));
        let part = part.parse::<u64>().unwrap_or_default().wrapping_add(1);
        waiting.token = format!("{since}{PART}{part}");
        let next_batch = to_raw_value(&waiting.token).ok();
        let next_batch = next_batch.map(|token| ("next_batch".to_owned(), token));
        self.waiting = Some(waiting);
        with_events(next_batch.into_iter().collect(), &events)
    }
}

impl State {
    fn accepts_from(&self, user: &str, now: SystemTime) -> bool {
        let offender = self.offenders.get(user);
        let is_blocked = offender.is_some_and(|offender| offender.is_blocked(now));
        let known_users = self.known_users.as_ref();
        let is_stranger = known_users.is_some_and(|known| !known.contains(user));
        !(is_blocked || is_stranger && self.is_under_attack(now))
    }

    fn is_under_attack(&self, now: SystemTime) -> bool {
        let recent = self.offenders.values();
        let recent = recent.filter(|offender| offender.age(now) < FIRST_BLOCK);
        recent.take(MANY).count() == MANY
    }

    fn note_offence(&mut self, user: String, now: SystemTime) {
        let offenders = &mut self.offenders;
        offenders.retain(|_, offender| offender.age(now) < REPEATED_BLOCK);
        let offender = offenders.entry(user).or_insert(Offender {
            last: now,
            times: 0,
        });
        offender.last = now;
        offender.times = offender.times.saturating_add(1);
        if offenders.len() > MOST_OFFENDERS {
            let oldest = offenders.iter().min_by_key(|(_, offender)| offender.last);
            if let Some(oldest) = oldest.map(|(user, _)| user.clone()) {
                offenders.remove(&oldest);
            }
        }
    }

    /// Logs what was dropped, each thing once an hour, and only [`MOST_LINES`].
    fn log_dropped(&mut self, dropped: Vec<Dropped>) {
        if self.logging_since.elapsed() > HOUR {
            self.logging_since = Instant::now();
            self.logged.clear();
        }
        for Dropped { user, what } in dropped {
            if self.logged.len() < MOST_LINES && self.logged.insert((user.clone(), what.clone())) {
                warn!(
                    user,
                    what, "dropped a malformed or unneeded to-device event, device or identity"
                );
            }
        }
    }
}

impl Offender {
    fn is_blocked(&self, now: SystemTime) -> bool {
        let time = if self.times > 1 {
            REPEATED_BLOCK
        } else {
            FIRST_BLOCK
        };
        self.age(now) < time
    }

    /// Zero after the clock was set back.
    fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.last).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;
    use crate::matrix::SignalKind;

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
        let needed = answer.needed.into_iter();
        let needed = needed.map(|(sender, events)| (sender, events.len()));
        let dropped = answer.dropped.iter().map(|dropped| dropped.what.clone());
        (needed.collect(), dropped.collect())
    }

    #[test]
    fn only_well_formed_encrypted_events_get_through() {
        let plain = |kind| json!({ "type": kind, "sender": "@m:x", "content": {} });
        let altered = |field: &str, value: Value| {
            let mut event = encrypted("@m:x", KEY);
            event["content"][field] = value;
            event
        };
        let (needed, dropped) = read(&[
            encrypted("@a:x", KEY),
            plain("m.forwarded_room_key"),
            encrypted("@b:x", KEY),
            encrypted("@m:x", "short"),
            encrypted("@m:x", &malformed()[2]),
            altered("algorithm", json!("m.megolm.v1.aes-sha2")),
            altered("ciphertext", json!({})),
            plain(NEEDED),
            plain("m.room_key_request"),
            json!(7),
            json!({}),
            encrypted("@a:x", KEY),
        ]);
        assert_eq!(needed, [("@a:x".to_owned(), 2), ("@b:x".to_owned(), 1)]);
        let no_head = "to-device event without type or sender";
        let ill = "malformed m.room.encrypted";
        let plain = ["m.forwarded_room_key", "m.room_key_request"];
        assert_eq!(
            dropped,
            [
                plain[0], ill, ill, ill, ill, ill, plain[1], no_head, no_head
            ]
        );
    }

    #[test]
    fn a_signal_of_a_host_goes_to_the_bot_and_not_to_the_sdk() {
        let (_folder, quarantine) = quarantine();
        let signal = |about: &str, kind: &str| {
            let content = json!({ "about": about, "kind": kind });
            json!({ "type": SIGNAL_EVENT, "sender": "@b:x", "content": content })
        };
        let (long, malformed) = (
            "x".repeat(LONGEST_TEXT + 1),
            json!({ "type": SIGNAL_EVENT, "sender": "@b:x" }),
        );
        let events = [
            signal("$1", "claim"),
            encrypted("@a:x", KEY),
            signal("$1", "pong"),
            signal(&long, "pong"),
            signal("$1", "other"),
            malformed,
        ];
        let body = json!({ "next_batch": "b", "rooms": {}, "to_device": { "events": events } });
        let part = quarantine.sync_answer("a", body.to_string().into());
        assert_eq!(read_part(&part).1, ["@a:x"]);
        let kinds = || {
            quarantine
                .take_signals()
                .into_iter()
                .map(|it| it.content.kind)
                .collect::<Vec<_>>()
        };
        assert_eq!(kinds(), [SignalKind::Claim, SignalKind::Pong]);
        assert!(kinds().is_empty());
        // A lone signal leaves an answer without such events, which still does not count as empty.
        quarantine.finish_step();
        let body = json!({ "next_batch": "b", "rooms": {}, "to_device": { "events": [signal("$2", "ping")] } });
        let part = quarantine.sync_answer("a", body.to_string().into());
        assert!(read_part(&part).1.is_empty() && quarantine.finish_step());
        assert_eq!(kinds(), [SignalKind::Ping]);
        let flood = vec![signal("$3", "pong"); MOST_SIGNALS + 1];
        let body = json!({ "next_batch": "b", "to_device": { "events": flood } });
        quarantine.sync_answer("a", body.to_string().into());
        assert_eq!(kinds().len(), MOST_SIGNALS);
    }

    #[test]
    fn an_event_with_two_types_is_dropped() {
        let event = format!(
            r#"{{"type":"m.forwarded_room_key","type":"{NEEDED}","sender":"@m:x","content":{{}}}}"#
        );
        let body = format!(r#"{{"to_device":{{"events":[{event}]}}}}"#);
        let answer = SyncAnswer::read(body.as_bytes()).unwrap();
        assert!(answer.needed.is_empty());
    }

    #[test]
    fn an_answer_without_to_device_events_is_not_checked() {
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
    fn a_malformed_key_does_not_hide_behind_depth_or_a_duplicate_name() {
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
    fn an_unreadable_answer_is_left_to_the_sdk() {
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

    fn quarantine() -> (TempDir, Quarantine) {
        let folder = TempDir::new().unwrap();
        let quarantine = Quarantine::load(&MatrixFolder::new(folder.path().to_owned())).unwrap();
        (folder, quarantine)
    }

    fn answer(senders: &[&str]) -> Bytes {
        let events: Vec<Value> = senders
            .iter()
            .map(|sender| encrypted(sender, KEY))
            .collect();
        let (rooms, keys) = (
            json!({ "join": { "!r:x": {} } }),
            json!({ "signed_curve25519": 7 }),
        );
        let answer = json!({
            "next_batch": "b", "rooms": rooms, "to_device": { "events": events }, "device_one_time_keys_count": keys,
        });
        answer.to_string().into()
    }

    /// The SDK's next token, the senders of what it got, and whether it got the rest.
    fn read_part(part: &Bytes) -> (String, Vec<String>, bool) {
        let part: Value = serde_json::from_slice(part).unwrap();
        let events = part["to_device"]["events"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let senders = events.iter().map(|event| text(&event["sender"]));
        let is_last = part.get("rooms").is_some();
        assert!(is_last || part.as_object().unwrap().len() == 2, "{part}");
        (text(&part["next_batch"]), senders.collect(), is_last)
    }

    /// The senders of each part of an answer.
    fn parts(quarantine: &Quarantine, answer: Bytes) -> Vec<Vec<String>> {
        let mut part = quarantine.sync_answer("a", answer);
        let mut parts = Vec::new();
        loop {
            let (token, senders, is_last) = read_part(&part);
            parts.push(senders);
            if is_last {
                assert_eq!(token, "b");
                assert!(!quarantine.holds_more());
                return parts;
            }
            assert_eq!(homeserver_token(&token), "a");
            assert!(quarantine.holds_more());
            part = quarantine.next_part(&token).unwrap();
        }
    }

    #[test]
    fn events_of_several_users_come_by_user_and_the_rest_comes_last() {
        let (_folder, quarantine) = quarantine();
        let parts = parts(&quarantine, answer(&["@a:x", "@b:x", "@a:x", "@c:x"]));
        assert_eq!(parts, [vec!["@a:x", "@a:x"], vec!["@b:x"], vec!["@c:x"]]);
        assert!(quarantine.next_part("a").is_none());
    }

    #[test]
    fn a_restart_between_two_parts_loses_no_later_event() {
        let (_folder, quarantine) = quarantine();
        let first = quarantine.sync_answer("a", answer(&["@a:x", "@b:x"]));
        let (token, ..) = read_part(&first);
        quarantine.start_over();
        let first = quarantine.sync_answer(&token, answer(&["@a:x", "@a:x", "@b:x"]));
        let (next, senders, _) = read_part(&first);
        assert_eq!(senders, ["@a:x", "@a:x"]);
        assert_ne!(next, token);
        assert_eq!(homeserver_token(&next), "a");
    }

    #[test]
    fn an_answer_of_which_all_is_dropped_is_not_taken_for_an_empty_one() {
        let (_folder, quarantine) = quarantine();
        let event = json!({ "type": "m.dummy", "sender": "@m:x", "content": {} });
        let flood = json!({ "next_batch": "b", "to_device": { "events": [event] } });
        quarantine.sync_answer("a", flood.to_string().into());
        assert!(quarantine.finish_step());
        let empty = json!({ "next_batch": "c", "to_device": { "events": [] } });
        quarantine.sync_answer("b", empty.to_string().into());
        assert!(!quarantine.finish_step());
    }

    #[test]
    fn after_a_panic_that_user_is_blocked_in_this_run_and_the_next() {
        let (folder, quarantine) = quarantine();
        let senders = ["@a:x", "@m:x", "@z:x"];
        let (token, ..) = read_part(&quarantine.sync_answer("a", answer(&senders)));
        quarantine.next_part(&token).unwrap();
        let fault = quarantine.blame();
        assert!(
            matches!(&fault, Fault::SetAside { user } if user == "@m:x"),
            "{fault}"
        );
        let next = Quarantine::load(&MatrixFolder::new(folder.path().to_owned())).unwrap();
        for quarantine in [quarantine, next] {
            assert_eq!(parts(&quarantine, answer(&senders)), [["@a:x"], ["@z:x"]]);
            assert_eq!(
                parts(&quarantine, answer(&["@m:x"])),
                [Vec::<String>::new()]
            );
        }
    }

    #[test]
    fn a_panic_that_cannot_be_saved_is_known_to_the_run_and_to_its_next_connection() {
        let (folder, quarantine) = quarantine();
        drop(folder);
        let senders = ["@m:x", "@z:x"];
        let (token, ..) = read_part(&quarantine.sync_answer("a", answer(&senders)));
        assert!(matches!(quarantine.blame(), Fault::SetAside { .. }));
        quarantine.start_over();
        assert!(quarantine.next_part(&token).is_none());
        assert_eq!(parts(&quarantine, answer(&senders)), [["@z:x"]]);
    }

    #[test]
    fn a_panic_at_no_users_events_ends_the_connection() {
        let (_folder, quarantine) = quarantine();
        assert!(matches!(quarantine.blame(), Fault::Panicked));
        quarantine.sync_answer("a", answer(&["@m:x"]));
        quarantine.finish_step();
        assert!(matches!(quarantine.blame(), Fault::Panicked));
        quarantine.sync_answer("a", answer(&["@m:x"]));
        assert!(quarantine.next_part("b").is_none());
        assert!(matches!(quarantine.blame(), Fault::Panicked));
    }

    #[test]
    fn a_second_panic_blocks_longer_and_no_block_is_for_ever() {
        let (_folder, quarantine) = quarantine();
        let mut state = quarantine.state();
        let begin = SystemTime::now();
        state.note_offence("@m:x".to_owned(), begin);
        assert!(!state.accepts_from("@m:x", begin));
        assert!(!state.accepts_from("@m:x", begin - HOUR));
        assert!(state.accepts_from("@m:x", begin + FIRST_BLOCK));
        let again = begin + FIRST_BLOCK;
        state.note_offence("@m:x".to_owned(), again);
        assert!(!state.accepts_from("@m:x", again + 10 * HOUR));
        let much_later = again + REPEATED_BLOCK;
        assert!(state.accepts_from("@m:x", much_later));
        // The earlier ones are forgotten.
        state.note_offence("@m:x".to_owned(), much_later);
        assert!(state.accepts_from("@m:x", much_later + FIRST_BLOCK));
    }

    #[test]
    fn an_attacker_with_many_accounts_blocks_only_strangers() {
        let (_folder, quarantine) = quarantine();
        let mut state = quarantine.state();
        let begin = SystemTime::now();
        for number in 0..2_000 {
            let earlier = Duration::from_millis(2_000 - number);
            state.note_offence(format!("@{number}:x"), begin - earlier);
        }
        assert_eq!(state.offenders.len(), MOST_OFFENDERS);
        assert!(!state.offenders.contains_key("@999:x"));
        assert!(state.offenders.contains_key("@1000:x"));
        assert!(state.is_under_attack(begin));
        assert!(
            state.accepts_from("@stranger:x", begin),
            "not known who is one"
        );
        state.known_users = Some(BTreeSet::from(["@alice:x".to_owned()]));
        assert!(state.accepts_from("@alice:x", begin));
        assert!(!state.accepts_from("@stranger:x", begin));
        assert!(state.accepts_from("@stranger:x", begin + FIRST_BLOCK));
    }

    #[test]
    fn a_flood_of_dropped_events_leaves_few_lines() {
        let (_folder, quarantine) = quarantine();
        let mut state = quarantine.state();
        let dropped = |number| Dropped::new(&format!("@{number}:x"), "m.dummy");
        state.log_dropped((0..1_000).map(dropped).collect());
        assert_eq!(state.logged.len(), MOST_LINES);
        state.logging_since -= HOUR + Duration::from_secs(1);
        state.log_dropped(vec![dropped(0)]);
        assert_eq!(state.logged.len(), 1);
    }
}
