//! Malformed answers with status 200, to every request that a decision depends on.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use matrix_sdk::ruma::RoomVersionId;

use super::{assert_unharmed, sessions};
use crate::support::{
    prelude::*,
    proxy::forgery::{forged_message, in_timeline},
};

/// A list, an empty object, another kind of file, half an answer, and the right names with the wrong types.
fn nonsense() -> Vec<Answer> {
    let wrong_types = json!({
        "next_batch": 7, "rooms": [], "chunk": "all", "event_id": {}, "room_id": 7, "type": [], "sender": null, "content": 7,
        "users": 100, "users_default": "100", "membership": ["join"], "room_version": {}, "device_keys": [], "master_keys": 7,
    });
    vec![
        Answer::new(200, "application/json", "[]"),
        Answer::new(200, "application/json", "{}"),
        Answer::new(
            200,
            "text/html",
            "<html>Welcome to the Wi-Fi of this hotel</html>",
        ),
        Answer::new(
            200,
            "application/json",
            r#"{"membership":"join","chunk":[{"type":"m.ro"#,
        ),
        Answer::json(200, &wrong_types),
    ]
}

/// Asks for a session while these requests get each malformed answer in turn. None is started, whether the bot retries or
/// refuses. Once the homeserver is honest again there is one.
async fn permits_nothing(
    (alice, proxy, bot): (&Person, &Proxy, &Bot),
    request: impl Fn(&Request) -> bool + Send + Sync + 'static,
) {
    let before = sessions(bot);
    let given = Arc::<AtomicUsize>::default();
    let (turn, all) = (Arc::clone(&given), nonsense());
    proxy
        .on(request)
        .answer_with(move || all[turn.fetch_add(1, Ordering::Relaxed) % all.len()].clone());
    let mut asked = bot.send(alice, "start").await;
    eventually("all nonsense was answered", async || {
        if given.load(Ordering::Relaxed) >= nonsense().len() {
            return Some(());
        }
        if !bot.audit(&asked).is_empty() {
            asked = bot.send(alice, "start").await;
        }
        None
    })
    .await;
    assert_eq!(sessions(bot), before);
    proxy.be_honest();
    bot.start_session(alice, "website").await;
    bot.request(alice, "stop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_for_the_requests_of_a_start_permits_nothing() {
    // In a room of version 10 the list of power levels decides about everybody.
    let (alice, proxy, bot) = behind_proxy(|bot| {
        bot.room_version(RoomVersionId::V10)
            .configure(|config| config["rate"]["commands_per_minute"] = json!(100))
    })
    .await;
    let everything = (&alice, &proxy, &bot);
    // There is no direct message yet.
    permits_nothing(everything, Request::makes_room).await;
    permits_nothing(everything, Request::reads_event).await;
    // Of the admin room, and of the direct message.
    let admin_room = bot.admin_room();
    permits_nothing(everything, in_room(admin_room, Request::reads_state)).await;
    permits_nothing(everything, elsewhere(admin_room, Request::reads_state)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_for_the_keys_of_people_gives_a_key_to_nobody_else() {
    let (alice, proxy, bot) = behind_proxy(|bot| bot).await;
    permits_nothing((&alice, &proxy, &bot), Request::queries_keys).await;
    let receivers: BTreeSet<String> = proxy
        .passed_by(Request::sends_to_devices)
        .iter()
        .flat_map(|sent| sent.request.json["messages"].as_object().unwrap().clone())
        .map(|(user, _)| user)
        .collect();
    assert_eq!(receivers, BTreeSet::from([alice.user_id().to_string()]));
}

/// The homeserver has accepted the link, and the bot cannot know it.
#[tokio::test(flavor = "multi_thread")]
async fn nonsense_after_a_sent_link_causes_no_second_message() {
    let (alice, proxy, bot) = behind_proxy(|bot| bot).await;
    let first = bot.start_session(&alice, "website").await;
    let mut known = 1;
    for answer in nonsense() {
        proxy
            .on(in_room(first.room(), Request::sends))
            .times(1)
            .replace_answer(answer);
        bot.start_session(&alice, "website").await;
        known += 1;
        assert_eq!(bot.links_of(&alice).len(), known);
    }
    assert_eq!(bot.standin_starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_in_a_sync_is_retried_and_in_a_timeline_skipped() {
    let (alice, proxy, bot) = behind_proxy(|bot| bot).await;
    for answer in nonsense() {
        proxy.on(Request::is_sync).times(1).answer(answer);
        // A message, to wake the waiting sync.
        bot.assert_no_session(&alice).await;
    }
    let mut events = Vec::new();
    for (key, value) in [
        ("content", json!(7)),
        (
            "content",
            json!({ "msgtype": "m.text", "body": ["!rc start"] }),
        ),
        ("content", Value::Null),
        ("sender", json!("nobody")),
        ("origin_server_ts", json!(-1)),
        ("origin_server_ts", json!("now")),
        ("type", json!({})),
        ("unsigned", json!([])),
    ] {
        let mut event = forged_message(alice.user_id(), "!rc start");
        event[key] = value;
        events.push(event);
    }
    for part in [
        in_timeline(bot.admin_room(), &events),
        json!({ "rooms": { "join": { "no room": { "timeline": { "events": [] } } } } }),
        json!({ "to_device": { "events": [{}, 7, { "type": "m.room.encrypted", "content": 7 }] } }),
        json!({ "device_lists": { "changed": ["nobody"] } }),
    ] {
        proxy.inject(part);
    }
    assert_unharmed(&bot, &proxy, &alice).await;
}
