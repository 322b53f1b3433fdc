//! Events that the Matrix library cannot read: they take nothing along that comes with them.

use hyper::Method;
use matrix_sdk::ruma::RoomId;
use matrix_sdk_base::crypto::vodozemac::megolm::{GroupSession, SessionConfig};

use crate::{
    malformed_keys::{Channel, send_to_bot},
    support::{
        prelude::*,
        proxy::forgery::{forged_message, in_timeline},
        rooms::RoomOptions,
    },
};

/// Sets the membership of a user, with a field that no client can read.
pub(crate) async fn set_membership(person: &Person, room: &RoomId, user: &str, membership: &str) {
    let content = json!({ "membership": membership, "is_direct": 7 });
    put_membership(person, room, user, &content).await;
}

async fn put_membership(person: &Person, room: &RoomId, user: &str, content: &Value) {
    let path = format!("rooms/{room}/state/m.room.member/{user}");
    let token = person.client().access_token().unwrap();
    homeserver().call(Method::PUT, &path, &token, content).await;
}

fn declines(request: &Request) -> bool {
    request.path.ends_with("/leave")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_invitation_that_is_withdrawn_does_not_end_the_bot() {
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot).await;
    bot.assert_no_session(&alice).await;
    let mallory = person("mallory").await;
    let room = mallory.create_room(RoomOptions::default()).await.unwrap();
    let held = proxy.on(declines).hold();
    set_membership(&mallory, &room, bot.user_id().as_str(), "invite").await;
    until("the bot declines", || held.has_caught()).await;
    set_membership(&mallory, &room, bot.user_id().as_str(), "leave").await;
    bot.assert_no_session(&alice).await;
    drop(held);
    bot.restart(&alice).await;
    bot.start_session(&alice, "website").await;
}

/// The library panics at 128 levels. Synapse accepts fewer, and adds one where an event shows the content that it replaced.
#[tokio::test(flavor = "multi_thread")]
async fn lists_that_are_nested_too_deep_do_not_end_the_bot() {
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot).await;
    bot.assert_no_session(&alice).await;
    let deep = (1..125).fold(json!([]), |deep, _| json!([deep]));
    let mallory = person("mallory").await;
    let room = mallory.create_room(RoomOptions::default()).await.unwrap();
    let content = json!({ "membership": "invite", "deep": deep });
    put_membership(&mallory, &room, bot.user_id().as_str(), &content).await;
    until("the bot declines", || !proxy.passed_by(declines).is_empty()).await;
    bot.assert_no_session(&alice).await;

    // In the room of the test, the clients of people would panic too.
    let mut message = forged_message(alice.user_id(), "!rc start");
    message["content"]["deep"] = json!([[[deep]]]);
    proxy.inject(in_timeline(bot.admin_room(), &[message]));
    bot.assert_no_session(&alice).await;
    bot.restart(&alice).await;
    bot.start_session(&alice, "website").await;
    assert_eq!(bot.standin_starts(), 1);
}

/// A member encrypts something without a type, and an administrator's command comes with the same sync.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_comes_with_an_encrypted_event_without_a_type_is_executed() {
    let mallory = person("mallory").await;
    let (alice, proxy, bot) = behind_proxy(|bot| bot.member(&mallory, 0)).await;
    bot.assert_no_session(&alice).await;
    let mut session = GroupSession::new(SessionConfig::version_1());
    let key = json!({
        "algorithm": "m.megolm.v1.aes-sha2", "room_id": bot.admin_room(), "session_id": session.session_id(),
        "session_key": session.session_key().to_base64(),
    });
    let mut channel = Channel::open(&mallory, bot.user_id()).await;
    let key = channel.encrypted("m.room_key", &key);
    send_to_bot(&bot, &mallory, "m.room.encrypted", &key).await;
    bot.assert_no_session(&alice).await;

    let syncing = proxy.on(Request::is_sync).hold();
    bot.send(&alice, "help").await;
    until("the next sync waits", || syncing.has_caught()).await;
    let message =
        session.encrypt(json!({ "room_id": bot.admin_room(), "content": {} }).to_string());
    let content = json!({
        "algorithm": "m.megolm.v1.aes-sha2", "session_id": session.session_id(), "ciphertext": message.to_base64(),
    });
    mallory
        .send_as_it_is(bot.admin_room(), "m.room.encrypted", &content)
        .await;
    let asked = bot.send(&alice, "status").await;
    proxy.be_honest();
    drop(syncing);
    bot.answer(&alice, &asked).await.is("website: no session");
}
