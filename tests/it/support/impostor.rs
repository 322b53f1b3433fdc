//! A device that the homeserver makes up for a user: it has its own keys, so it can receive and send encrypted messages.

use std::collections::BTreeMap;

use matrix_sdk::ruma::{
    DeviceId, OwnedDeviceId, OwnedUserId, RoomId, UserId,
    api::client::keys::{claim_keys, get_keys},
    events::room::message::RoomMessageEventContent,
};
use matrix_sdk_base::crypto::{
    EncryptionSettings, OlmMachine, types::requests::AnyOutgoingRequest,
};
use serde_json::{Map, Value, json};

use super::{
    person::Person,
    proxy::{
        Proxy, Request,
        forgery::{forged_message, in_timeline},
    },
};

/// The id of its device, unless it takes that of another one.
const DEVICE: &str = "IMPOSTOR";

/// A made-up device, and perhaps a made-up identity that signs it.
#[derive(Debug)]
pub(crate) struct Impostor {
    user: OwnedUserId,
    device: OwnedDeviceId,
    machine: OlmMachine,
    device_keys: Value,
    one_time_keys: Map<String, Value>,
    /// The public half of an identity: its master key and its self-signing key.
    identity: Option<[Value; 2]>,
}

impl Impostor {
    /// An unsigned device of the user.
    pub(crate) async fn device_of(user: &UserId) -> Self {
        let machine = OlmMachine::new(user, DEVICE.into()).await;
        Self::new(machine, None).await
    }

    /// An identity that replaces the user's own, with one device.
    pub(crate) async fn identity_of(user: &UserId) -> Self {
        Self::identity_with_device(user, DEVICE.into()).await
    }

    /// The same, and its device has this id.
    pub(crate) async fn identity_with_device(user: &UserId, device: &DeviceId) -> Self {
        let machine = OlmMachine::new(user, device).await;
        let made = machine.bootstrap_cross_signing(true).await.unwrap();
        let key = |key| serde_json::to_value(key).unwrap();
        let keys = made.upload_signing_keys_req;
        let identity = [keys.master_key, keys.self_signing_key].map(|it| key(it.unwrap()));
        let signatures = serde_json::to_value(&made.upload_signatures_req.signed_keys).unwrap();
        let mut impostor = Self::new(machine, Some(identity)).await;
        let by_identity = &signatures[user.as_str()][device.as_str()]["signatures"][user.as_str()];
        let all = impostor.device_keys["signatures"][user.as_str()].as_object_mut();
        all.unwrap()
            .extend(by_identity.as_object().unwrap().clone());
        impostor
    }

    async fn new(machine: OlmMachine, identity: Option<[Value; 2]>) -> Self {
        let requests = machine.outgoing_requests().await.unwrap();
        let upload = requests.iter().find_map(|request| match request.request() {
            AnyOutgoingRequest::KeysUpload(upload) => Some(upload.clone()),
            _ => None,
        });
        let upload = upload.unwrap();
        let Value::Object(one_time_keys) = serde_json::to_value(upload.one_time_keys).unwrap()
        else {
            panic!("one-time keys are an object");
        };
        Self {
            user: machine.user_id().to_owned(),
            device: machine.device_id().to_owned(),
            device_keys: serde_json::to_value(upload.device_keys.unwrap()).unwrap(),
            machine,
            one_time_keys,
            identity,
        }
    }

    /// From now on the homeserver shows the device, and the identity if there is one, to the bot.
    pub(crate) fn show(&self, proxy: &Proxy) {
        let (user, device) = (self.user.clone(), self.device_keys.clone());
        let (id, identity) = (self.device.clone(), self.identity.clone());
        proxy
            .on(Request::queries_keys)
            .rewrite(move |request, answer| {
                if request.json["device_keys"].get(user.as_str()).is_none() {
                    return;
                }
                answer["device_keys"][user.as_str()][id.as_str()] = device.clone();
                let kinds = ["master_keys", "self_signing_keys"].iter();
                for (kind, key) in kinds.zip(identity.iter().flatten()) {
                    answer[kind][user.as_str()] = key.clone();
                }
            });
        let (user, one_time_key) = (self.user.clone(), self.one_time_keys.iter().next());
        let (id, one_time_key) = (
            self.device.clone(),
            json!(BTreeMap::from_iter(one_time_key)),
        );
        proxy
            .on(Request::claims_keys)
            .rewrite(move |request, answer| {
                let claimed = &request.json["one_time_keys"][user.as_str()];
                if claimed.get(id.as_str()).is_some() {
                    answer["one_time_keys"][user.as_str()][id.as_str()] = one_time_key.clone();
                }
            });
        proxy.inject(json!({ "device_lists": { "changed": [self.user] } }));
    }

    /// Whether the bot has sent the device a key.
    pub(crate) fn got_a_key(&self, proxy: &Proxy) -> bool {
        proxy.keys_for(&self.user).contains(self.device.as_str())
    }

    /// Sends a message in the user's name, encrypted for the bot. `through` queries the bot's keys.
    pub(crate) async fn send_text(
        &self,
        proxy: &Proxy,
        through: &Person,
        bot: &UserId,
        room: &RoomId,
        text: &str,
    ) -> Value {
        self.meet(through, bot).await;
        let settings = EncryptionSettings::default();
        let users = [bot].into_iter();
        let shared = self.machine.share_room_key(room, users, settings).await;
        for request in shared.unwrap() {
            let events: Vec<Value> = request.messages[bot]
                .values()
                .map(|content| {
                    json!({ "type": "m.room.encrypted", "sender": self.user, "content": content })
                })
                .collect();
            proxy.inject(json!({ "to_device": { "events": events } }));
        }
        let message = RoomMessageEventContent::text_plain(text);
        let encrypted = self.machine.encrypt_room_event(room, message).await;
        let mut event = forged_message(&self.user, "");
        event["type"] = json!("m.room.encrypted");
        event["content"] = json!(encrypted.unwrap().content);
        proxy.inject(in_timeline(room, std::slice::from_ref(&event)));
        event
    }

    /// Queries the bot's devices and opens an Olm session with each.
    async fn meet(&self, through: &Person, bot: &UserId) {
        let client = through.client();
        self.machine.update_tracked_users([bot]).await.unwrap();
        let (id, query) = self.machine.query_keys_for_users([bot]);
        let mut request = get_keys::v3::Request::new();
        request.device_keys = query.device_keys;
        let keys = client.send(request).await.unwrap();
        self.machine.mark_request_as_sent(&id, &keys).await.unwrap();
        let missing = self.machine.get_missing_sessions([bot].into_iter()).await;
        if let Some((id, request)) = missing.unwrap() {
            let request: claim_keys::v3::Request = request;
            let keys = client.send(request).await.unwrap();
            self.machine.mark_request_as_sent(&id, &keys).await.unwrap();
        }
    }
}
