//! What only the appservice can do: act as the bot's user, behind the bot's back.

use std::{fs, path::Path};

use matrix_sdk::{
    reqwest::Method,
    ruma::{OwnedEventId, RoomId, UserId},
};
use serde_json::{Value, json};

use super::{
    bot::Bot,
    homeserver,
    person::{Person, random_text},
};

#[derive(Debug)]
pub(crate) struct Tokens {
    /// `as_token`: proves to the homeserver that the sender is the appservice.
    pub(crate) appservice: String,
    /// `hs_token`: proves to the appservice that the sender is the homeserver.
    pub(crate) homeserver: String,
}

impl Tokens {
    /// Those that the bots of all tests share.
    pub(crate) fn shared() -> Self {
        Self::of(homeserver().registrations().first().unwrap())
    }

    /// Those in this registration.
    pub(crate) fn of(path: &Path) -> Self {
        let registration: Value = serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let token = |name: &str| registration[name].as_str().unwrap().to_owned();
        Self {
            appservice: token("as_token"),
            homeserver: token("hs_token"),
        }
    }
}

impl Bot {
    /// Sends a message in the bot's name, in plain text.
    pub(crate) async fn send_as_bot(&self, room: &RoomId, text: &str) -> OwnedEventId {
        let path = format!("rooms/{room}/send/m.room.message/{}", random_text());
        let content = json!({ "msgtype": "m.text", "body": text });
        let answer = self.call(Method::PUT, &path, &content).await;
        answer["event_id"].as_str().unwrap().try_into().unwrap()
    }

    pub(crate) async fn join_as_bot(&self, room: &RoomId) {
        self.call(Method::POST, &format!("join/{room}"), &json!({}))
            .await;
    }

    pub(crate) async fn invite_as_bot(&self, room: &RoomId, user: &UserId) {
        let path = format!("rooms/{room}/invite");
        self.call(Method::POST, &path, &json!({ "user_id": user }))
            .await;
    }

    /// Invites somebody into a room in the bot's name, and waits until they are in it.
    pub(crate) async fn bring_in_as_bot(&self, room: &RoomId, person: &Person) {
        self.invite_as_bot(room, person.user_id()).await;
        person.sees("the room", |event| event.room == *room).await;
    }

    pub(crate) async fn set_state_as_bot(&self, room: &RoomId, kind: &str, content: &Value) {
        let path = format!("rooms/{room}/state/{kind}/");
        self.call(Method::PUT, &path, content).await;
    }

    /// Sends a request in the bot's name.
    pub(crate) async fn call(&self, method: Method, path: &str, body: &Value) -> Value {
        let path = format!("{path}?user_id={}", self.user_id());
        let token = Tokens::shared().appservice;
        homeserver().call(method, &path, &token, body).await
    }
}
