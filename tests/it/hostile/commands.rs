//! Forged and replayed commands.

use std::fs;

use matrix_sdk::ruma::{RoomId, api::client::message::get_message_events};

use super::{assert_unharmed, sessions, without_encryption, without_encryption_event};
use crate::support::{
    prelude::*,
    proxy::forgery::{forged_message, in_timeline, under_new_ids},
};

/// From now on the homeserver says that the room was never encrypted.
fn withhold_encryption(proxy: &Proxy) {
    proxy
        .on(Request::reads_state)
        .rewrite(|_, answer| without_encryption_event(answer));
    proxy.on(Request::is_sync).rewrite(|_, answer| {
        without_encryption(answer, |_| true);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_room_that_was_ever_encrypted_always_needs_encrypted_commands() {
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot).await;
    let forge = async |bot: &Bot, command: &str| {
        let forged = forged_message(alice.user_id(), command);
        proxy.inject(in_timeline(bot.admin_room(), std::slice::from_ref(&forged)));
        let id = forged["event_id"].as_str().unwrap().try_into().unwrap();
        bot.wait_for_refusal(&id, "NotEncrypted").await;
    };
    // Only a sync has shown it so far.
    bot.announcement(&alice, "Hello!").await;
    withhold_encryption(&proxy);
    forge(&bot, "!rc start").await;
    bot.restart(&alice).await;
    forge(&bot, "!rc start").await;
    proxy.be_honest();
    assert_another_message_proves_nothing(&bot, &proxy, &alice).await;
    assert_unharmed(&bot, &proxy, &alice).await;

    // The next store of the SDK has never seen it.
    bot.kill_9();
    withhold_encryption(&proxy);
    fs::remove_dir_all(bot.data_dir().join("matrix/store")).unwrap();
    let connections = bot.connections();
    bot.run();
    bot.wait_until_connected(connections + 1).await;
    forge(&bot, "!rc stop").await;
    assert_eq!(bot.session_processes().len(), 1);
}

/// An encrypted message is shown in the place of a forged command.
async fn assert_another_message_proves_nothing(bot: &Bot, proxy: &Proxy, alice: &Person) {
    let room = bot.admin_room();
    let word = alice.send_text(room, "Good morning").await.unwrap();
    let mut shown = alice.event_from_server(room, &word).await.unwrap();
    assert_eq!(shown["type"], "m.room.encrypted");
    let forged = forged_message(alice.user_id(), "!rc start");
    shown["event_id"] = forged["event_id"].clone();
    let id = forged["event_id"].as_str().unwrap().to_owned();
    proxy
        .on(move |request| request.reads_event() && request.path.ends_with(&id))
        .answer(Answer::json(200, &shown));
    proxy.inject(in_timeline(room, std::slice::from_ref(&forged)));
    let id = forged["event_id"].as_str().unwrap().try_into().unwrap();
    bot.wait_for_refusal(&id, "Redacted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_set_to_always_need_encrypted_commands_does_not_depend_on_the_homeserver_for_it() {
    let alice = person("alice").await;
    let proxy = Proxy::start(homeserver()).await;
    withhold_encryption(&proxy);
    let mut bot = bot()
        .through(&proxy)
        .configure(|config| {
            config["encryption"] = json!({ "require_encrypted_commands": "always" });
        })
        .start(&alice)
        .await;
    let forged = forged_message(alice.user_id(), "!rc start");
    proxy.inject(in_timeline(bot.admin_room(), std::slice::from_ref(&forged)));
    bot.wait_for_log("why=\"NotEncrypted\"").await;
    assert_eq!(sessions(&bot), 0);

    proxy.be_honest();
    bot.send(&alice, "start").await;
    bot.link_after(&alice, 0).await;
}

/// A session was started and stopped, and nothing sent since has started another.
async fn assert_no_second_session(bot: &Bot, alice: &Person) {
    bot.assert_no_session(alice).await;
    assert_eq!(sessions(bot), 1);
    assert_eq!(bot.links_of(alice).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_timeline_starts_nothing_under_old_ids_or_new() {
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot).await;
    bot.start_session(&alice, "website").await;
    bot.request(&alice, "stop").await;
    let (events, to_device) = proxy.brought_to(bot.admin_room());
    let is_of_alice = |event: &&Value| {
        event["type"] == "m.room.encrypted" && event["sender"] == json!(alice.user_id())
    };
    let commands: Vec<_> = events.iter().filter(is_of_alice).cloned().collect();
    assert!(commands.len() >= 2, "{events:?}");
    for restarts in [false, true] {
        for events in [&events, &under_new_ids(&commands)] {
            proxy.inject(json!({ "to_device": { "events": to_device } }));
            proxy.inject(in_timeline(bot.admin_room(), events));
        }
        if restarts {
            bot.restart(&alice).await;
        }
        until("the bot has received it", || proxy.has_injected_all()).await;
        assert_no_second_session(&bot, &alice).await;
    }
}

/// All events of a room, the latest first, as from a homeserver that ignores limit and filter.
async fn everything_in(person: &Person, room: &RoomId) -> Vec<Value> {
    let mut request = get_message_events::v3::Request::backward(room.to_owned());
    request.limit = 1_000_u32.into();
    let answer = person.client().send(request).await.unwrap();
    let events = answer.chunk.iter();
    let events = events.map(|event| event.deserialize_as_unchecked().unwrap());
    events.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_executed_or_answered_twice_where_a_gap_brings_the_whole_room() {
    assert_gap_brings_nothing_new(true).await;
}

/// Without encryption there is no Megolm key by which a replay could be recognised.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_executed_twice_where_a_gap_brings_the_whole_room_in_plain_text() {
    assert_gap_brings_nothing_new(false).await;
}

/// Some homeservers ignore `to` and `filter` of /messages, and go back to the beginning of the room.
async fn assert_gap_brings_nothing_new(encrypted: bool) {
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot.encrypted_admin_room(encrypted)).await;
    bot.start_session(&alice, "website").await;
    bot.request(&alice, "stop").await;
    bot.request(&alice, "status").await;
    let room = bot.admin_room().to_owned();
    let everything = everything_in(&alice, &room).await;
    let asks_for_gap = |request: &Request| request.path.ends_with("/messages");
    let answer = json!({ "start": "t1", "end": "t0", "chunk": everything });
    proxy.on(asks_for_gap).answer(Answer::json(200, &answer));
    let timeline = format!("/rooms/join/{room}/timeline");
    let of_gap = timeline.clone();
    proxy.on(Request::is_sync).rewrite(move |_, answer| {
        if let Some(timeline) = answer.pointer_mut(&of_gap) {
            timeline["limited"] = json!(true);
        }
    });
    bot.restart(&alice).await;
    for _ in 0..2 {
        assert_no_second_session(&bot, &alice).await;
    }
    let asked_for = proxy.passed_by(asks_for_gap).len();
    let syncs = proxy.passed_by(Request::is_sync).into_iter();
    let gaps = syncs
        .filter(|sync| {
            sync.answer
                .pointer(&timeline)
                .is_some_and(|it| it["limited"] == true)
        })
        .count();
    assert!(
        (1..=gaps).contains(&asked_for),
        "a page for each gap: {asked_for} for {gaps}"
    );
    let mut commands = alice.events();
    commands.retain(|event| {
        event.sender == alice.user_id() && event.body().is_some_and(|it| it.starts_with("!rc"))
    });
    for command in commands {
        assert_eq!(alice.answers_to(&command.id).len(), 1, "{command}");
    }
}

/// Such a homeserver never says that a gap has ended.
#[tokio::test(flavor = "multi_thread")]
async fn old_events_that_a_gap_brings_are_not_taken_for_lost_commands() {
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot).await;
    bot.request(&alice, "status").await;
    let mut old = forged_message(alice.user_id(), "hello");
    old["origin_server_ts"] = json!(1);
    old["unsigned"] = json!({});
    let answer = json!({ "start": "t1", "end": "t0", "chunk": [old] });
    proxy
        .on(|request| request.path.ends_with("/messages"))
        .answer(Answer::json(200, &answer));
    let mut part = in_timeline(bot.admin_room(), &[]);
    let timeline = format!("/rooms/join/{}/timeline", bot.admin_room());
    let timeline = part.pointer_mut(&timeline).unwrap();
    timeline["limited"] = json!(true);
    timeline["prev_batch"] = json!("t1");
    proxy.inject(part);
    bot.wait_for_log("that a sync left out were backfilled")
        .await;
    assert!(!bot.log().contains("commands may be lost"));
}
