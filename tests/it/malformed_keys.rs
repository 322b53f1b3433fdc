//! Public keys that are a byte too short or too long, on every path by which a stranger or a member gets them to the bot.

use std::collections::BTreeMap;

use matrix_sdk::{
    reqwest::Method,
    ruma::{
        DeviceKeyAlgorithm, OwnedDeviceId, UserId,
        api::client::keys::{claim_keys, get_keys},
    },
};
use matrix_sdk_base::crypto::vodozemac::{
    Curve25519PublicKey, base64_encode,
    olm::{Account, OlmMessage, Session, SessionConfig},
};
use serde_json::Map;

use crate::support::prelude::*;

/// The number of events in a flood.
const FLOOD: usize = 100;

/// What the audit log says when a user's events are set aside.
const SET_ASIDE: &str = "decision=\"set aside\"";

/// Keys of 31 and of 33 bytes.
fn malformed() -> [String; 2] {
    [format!("{}=", "A".repeat(42)), "A".repeat(44)]
}

/// The bot executes commands, now and after a restart.
async fn assert_executes(bot: &mut Bot, alice: &Person) {
    for _life in 1..=2 {
        bot.assert_no_session(alice).await;
        bot.restart(alice).await;
    }
    bot.start_session(alice, "website").await;
}

/// How often the Matrix library panicked at a user's events, by the audit log. Any other panic ends the bot.
fn panics(bot: &Bot) -> usize {
    bot.log().matches(SET_ASIDE).count()
}

/// Sends events to the bot's devices, as any client could.
pub(crate) async fn send_to_bot(bot: &Bot, sender: &Person, kind: &str, content: &Value) {
    let token = sender.client().access_token().unwrap();
    let path = format!("sendToDevice/{kind}/{}", random_text());
    let body = json!({ "messages": { bot.user_id(): { "*": content } } });
    homeserver().call(Method::PUT, &path, &token, &body).await;
}

/// An Olm channel to the bot's device, from one that no homeserver knows.
pub(crate) struct Channel {
    account: Account,
    session: Session,
    sender: String,
    bot: String,
    bot_key: Curve25519PublicKey,
    bot_signing_key: String,
}

impl Channel {
    pub(crate) async fn open(sender: &Person, bot: &UserId) -> Self {
        let client = sender.client();
        let mut query = get_keys::v3::Request::new();
        query.device_keys.insert(bot.to_owned(), Vec::new());
        let devices = client.send(query).await.unwrap().device_keys;
        let (id, device): (&OwnedDeviceId, _) = devices[bot].iter().next().unwrap();
        let device: Value = serde_json::from_str(device.json().get()).unwrap();
        let key = |algorithm| {
            device["keys"][format!("{algorithm}:{id}")]
                .as_str()
                .unwrap()
        };

        let wanted = BTreeMap::from([(id.clone(), "signed_curve25519".into())]);
        let claim = claim_keys::v3::Request::new(BTreeMap::from([(bot.to_owned(), wanted)]));
        let claimed = client.send(claim).await.unwrap().one_time_keys;
        let one_time_key = claimed[bot][id].values().next().unwrap();
        let one_time_key: Value = serde_json::from_str(one_time_key.json().get()).unwrap();
        let one_time_key = one_time_key["key"].as_str().unwrap();

        let account = Account::new();
        let bot_key = Curve25519PublicKey::from_base64(key("curve25519")).unwrap();
        let one_time_key = Curve25519PublicKey::from_base64(one_time_key).unwrap();
        let config = SessionConfig::version_1();
        Self {
            session: account
                .create_outbound_session(config, bot_key, one_time_key)
                .unwrap(),
            account,
            sender: sender.user_id().to_string(),
            bot: bot.to_string(),
            bot_key,
            bot_signing_key: key(DeviceKeyAlgorithm::Ed25519.as_str()).to_owned(),
        }
    }

    /// An event with this signing key of its sender.
    fn event(&mut self, signing_key: &str) -> Value {
        self.event_with("m.dummy", &json!({}), signing_key)
    }

    /// A well-formed event.
    pub(crate) fn encrypted(&mut self, kind: &str, content: &Value) -> Value {
        let signing_key = self.account.ed25519_key().to_base64();
        self.event_with(kind, content, &signing_key)
    }

    fn event_with(&mut self, kind: &str, content: &Value, signing_key: &str) -> Value {
        let payload = json!({
            "type": kind, "content": content, "sender": self.sender, "recipient": self.bot,
            "keys": { "ed25519": signing_key }, "recipient_keys": { "ed25519": self.bot_signing_key },
        });
        let message = self.session.encrypt(payload.to_string()).unwrap();
        let (kind, body) = OlmMessage::to_parts(&message);
        let body = base64_encode(body);
        json!({
            "algorithm": "m.olm.v1.curve25519-aes-sha2",
            "sender_key": self.account.curve25519_key().to_base64(),
            "ciphertext": { self.bot_key.to_base64(): { "type": kind, "body": body } },
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_events_of_strangers_with_malformed_keys_are_set_aside() {
    let (alice, mut bot) = alice_and_bot().await;
    let mallory = person("mallory").await;
    for key in malformed() {
        let content =
            json!({ "algorithm": "m.megolm.v1.aes-sha2", "sender_claimed_ed25519_key": key });
        send_to_bot(&bot, &mallory, "m.forwarded_room_key", &content).await;
    }
    // The bot has received them once it answers.
    bot.assert_no_session(&alice).await;
    assert_eq!(panics(&bot), 0, "plain events are not read");

    let mut expected = 0;
    for key in malformed() {
        let mallory = person("mallory").await;
        let mut channel = Channel::open(&mallory, bot.user_id()).await;
        for _ in 0..2 {
            send_to_bot(&bot, &mallory, "m.room.encrypted", &channel.event(&key)).await;
        }
        expected += 1;
        bot.wait_for_log_times(SET_ASIDE, expected).await;
        let audit = format!(
            "user=\"{}\" event_type=\"m.room.encrypted\"",
            mallory.user_id()
        );
        assert!(bot.log().contains(&audit));
    }
    assert_executes(&mut bot, &alice).await;
    assert_eq!(panics(&bot), 2, "one for each stranger");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_malformed_keys_while_the_bot_is_away_costs_one_panic_and_no_honest_key() {
    let (alice, mallory) = (person("alice").await, person("mallory").await);
    let mut bot = bot().start(&alice).await;
    let mut channel = Channel::open(&mallory, bot.user_id()).await;
    assert!(bot.terminate().await.success());
    let key = &malformed()[1];
    // The first event that Alice's client encrypts for the bot is the key of this message. The bot gets it before the flood.
    let asked = bot.send(&alice, "status").await;
    for _ in 0..FLOOD {
        send_to_bot(&bot, &mallory, "m.room.encrypted", &channel.event(key)).await;
    }
    bot.run();
    let status = bot.answer(&alice, &asked).await;
    status.is("website: no session");
    assert_executes(&mut bot, &alice).await;
    assert_eq!(panics(&bot), 1);
}

/// Synapse hands out a hundred events at a time: the command comes with the first ones, the panic is caused by one of the
/// next, and the key comes after those.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_waits_for_its_key_is_executed_when_malformed_keys_come_before_that() {
    let (alice, mallory) = (person("alice").await, person("mallory").await);
    let mut bot = bot().start(&alice).await;
    let mut channel = Channel::open(&mallory, bot.user_id()).await;
    assert!(bot.terminate().await.success());
    let malformed = channel.event(&malformed()[1]);
    for number in 0..2 * FLOOD {
        let (kind, content) = match number {
            FLOOD => ("m.room.encrypted", &malformed),
            _ => ("m.dummy", &json!({})),
        };
        send_to_bot(&bot, &mallory, kind, content).await;
    }
    let asked = bot.send(&alice, "status").await;
    bot.run();
    let status = bot.answer(&alice, &asked).await;
    status.is("website: no session");
    assert_eq!(panics(&bot), 1);
}

/// Shows the bot malformed keys of Alice's, and waits until it has received them.
async fn show(proxy: &Proxy, alice: &Person, key: &str, change: fn(&mut Value, &UserId, &str)) {
    let (user, malformed) = (alice.user_id().to_owned(), key.to_owned());
    proxy
        .on(Request::queries_keys)
        .rewrite(move |_, answer| change(answer, &user, &malformed));
    proxy.inject(json!({ "device_lists": { "changed": [alice.user_id()] } }));
    eventually("the bot has the key", async || {
        let given = proxy.passed_by(Request::queries_keys);
        let is_malformed = |answer: &Value| answer.to_string().contains(key);
        given
            .iter()
            .any(|given| is_malformed(&given.answer))
            .then_some(())
    })
    .await;
    // The bot that asks for the second of these has processed everything before.
    for _ in 0..2 {
        proxy.inject(json!({}));
        until("the bot goes on", || proxy.has_injected_all()).await;
    }
}

fn devices_of<'a>(answer: &'a mut Value, user: &UserId) -> Option<&'a mut Map<String, Value>> {
    answer["device_keys"]
        .get_mut(user.as_str())?
        .as_object_mut()
}

/// The device in use, its owner's identity, or another device beside it.
#[tokio::test(flavor = "multi_thread")]
async fn devices_and_identities_with_malformed_keys_do_not_count() {
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot).await;
    bot.request(&alice, "status").await;
    let of_devices = |answer: &mut Value, user: &UserId, key: &str| {
        for (id, device) in devices_of(answer, user).into_iter().flatten() {
            device["keys"][format!("ed25519:{id}")] = json!(key);
        }
    };
    let of_identities = |answer: &mut Value, user: &UserId, key: &str| {
        for kind in ["master_keys", "self_signing_keys"] {
            if let Some(identity) = answer[kind].get_mut(user.as_str()) {
                identity["keys"] = json!({ format!("ed25519:{key}"): key });
            }
        }
    };
    for change in [of_devices as fn(&mut Value, &UserId, &str), of_identities] {
        for key in malformed() {
            show(&proxy, &alice, &key, change).await;
            // Such keys do not count, so only with an honest answer can a command show that the bot is alive.
            bot.restart(&alice).await;
            proxy.be_honest();
            proxy.inject(json!({ "device_lists": { "changed": [alice.user_id()] } }));
            bot.assert_no_session(&alice).await;
        }
    }
    for key in malformed() {
        // The device that she uses still counts.
        show(&proxy, &alice, &key, |answer, user, key| {
            if let Some(devices) = devices_of(answer, user)
                && let Some(mut device) = devices.values().next().cloned()
            {
                device["device_id"] = json!("MALFORMED");
                device["keys"] = json!({ "ed25519:MALFORMED": key });
                devices.insert("MALFORMED".to_owned(), device);
            }
        })
        .await;
        bot.assert_no_session(&alice).await;
    }
    assert_executes(&mut bot, &alice).await;
    assert_eq!(panics(&bot), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_on_its_way_while_malformed_keys_are_set_aside_is_not_taken_for_overheard() {
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot).await;
    let mallory = person("mallory").await;
    let known = bot.start_session(&alice, "website").await;
    let held = proxy
        .on(in_room(known.room(), Request::sends))
        .times(1)
        .hold();
    bot.send(&alice, "start").await;
    until("the link is on its way", || held.has_caught()).await;
    let connections = bot.connections();
    let event = Channel::open(&mallory, bot.user_id())
        .await
        .event(&malformed()[1]);
    send_to_bot(&bot, &mallory, "m.room.encrypted", &event).await;
    bot.wait_until_connected(connections + 1).await;
    drop(held);
    assert_eq!(bot.link_after(&alice, 1).await.link, known.link);
    assert_eq!(panics(&bot), 1);
}
