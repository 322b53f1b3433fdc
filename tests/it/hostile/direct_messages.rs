//! False members and state of rooms.

use matrix_sdk::ruma::RoomId;

use super::{assert_unharmed, without_encryption, without_encryption_event};
use crate::support::{
    impostor::Impostor,
    prelude::*,
    proxy::{
        forgery::{in_timeline, membership},
        rules::Held,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_message_that_shows_another_member_or_no_encryption_gets_no_link() {
    let mallory = person("mallory").await;
    let (alice, proxy, bot) = behind_proxy(|bot| bot).await;
    let admin_room = bot.admin_room().to_owned();
    let no_link = "I cannot send you the link for website: ";
    let state = || proxy.on(elsewhere(&admin_room, Request::reads_state));
    state().rewrite(|_, answer| without_encryption_event(answer));
    let of_sync = admin_room.clone();
    proxy
        .on(Request::is_sync)
        .rewrite(move |_, answer| without_encryption(answer, |room| *of_sync != room));
    bot.request(&alice, "start").await.begins(no_link);
    proxy.be_honest();

    let joins = membership(mallory.user_id(), "join");
    state().rewrite(move |request, answer| {
        // Of the path rooms/<room>/state.
        let mut joins = joins.clone();
        joins["room_id"] = json!(request.path.rsplit('/').nth(1));
        answer.as_array_mut().unwrap().push(joins);
    });
    bot.request(&alice, "start").await.begins(no_link);
    assert!(proxy.keys_for(mallory.user_id()).is_empty());
    assert_unharmed(&bot, &proxy, &alice).await;
}

/// Sends a message, and not the offer of a picture.
fn sends_message(request: &Request) -> bool {
    request.sends() && request.path.contains("/m.room.encrypted/")
}

/// Holds the next message that the bot sends to a room.
fn hold_message(proxy: &Proxy, room: &RoomId) -> Held {
    proxy.on(in_room(room, sends_message)).times(1).hold()
}

async fn wait_until_caught(held: &Held) {
    until("the link is on its way", || held.has_caught()).await;
}

/// A link that somebody else could read is worthless: its session ends, and the next one has another link in another room.
async fn assert_session_ended(bot: &Bot, alice: &Person, read: &LinkMessage) -> LinkMessage {
    bot.wait_until_no_process_is_left().await;
    let next = bot.start_session(alice, "website").await;
    assert_ne!(next.room(), read.room());
    assert_ne!(next.link, read.link);
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_while_a_link_is_sent_ends_the_session_whatever_error_or_kill_follows() {
    let mallory = person("mallory").await;
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot).await;
    let first = bot.start_session(&alice, "website").await;
    let room = first.room();
    let held = hold_message(&proxy, room);
    let asked = bot.send(&alice, "start").await;
    wait_until_caught(&held).await;
    let syncs = proxy.on(Request::is_sync).hold();
    proxy.inject(json!({}));
    until("no sync shows the join", || syncs.has_caught()).await;
    bot.bring_in_as_bot(room, &mallory).await;
    // The link arrives. The bot's first query of the members then fails, and its retry succeeds.
    proxy
        .on(in_room(room, Request::reads_state))
        .times(1)
        .answer(Answer::json(200, &json!("nonsense")));
    drop(held);

    let answer = bot.answer(&alice, &asked).await;
    answer.says("somebody else");
    drop(syncs);
    let overheard = bot.links_of(&alice).remove(1);
    bot.wait_for_redaction(&alice, &overheard).await;
    assert_eq!(bot.links_of(&alice).len(), 2);
    assert!(mallory.never_read(&first.link));
    let next = assert_session_ended(&bot, &alice, &first).await;

    // The link arrives, and the homeserver says that it does not.
    let room = next.room();
    let held = hold_message(&proxy, room);
    let link = proxy.on(in_room(room, sends_message)).times(1);
    link.replace_answer(Answer::refusal(403, "M_FORBIDDEN"));
    let asked = bot.send(&alice, "start").await;
    wait_until_caught(&held).await;
    proxy.inject(in_timeline(room, &[membership(mallory.user_id(), "join")]));
    // Once the bot answers the next message, it has received this one.
    bot.request(&alice, "status").await;
    drop(held);
    let answer = bot.answer(&alice, &asked).await;
    answer.says("somebody else");
    let next = assert_session_ended(&bot, &alice, &next).await;

    // The bot is killed before it can look again.
    let room = next.room();
    let held = hold_message(&proxy, room);
    bot.send(&alice, "start").await;
    wait_until_caught(&held).await;
    proxy.inject(in_timeline(room, &[membership(mallory.user_id(), "join")]));
    // Once the bot answers the next message, it has received this one.
    bot.request(&alice, "status").await;
    bot.kill_9();
    drop(held);
    bot.run();
    assert_session_ended(&bot, &alice, &next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overheard_log_is_redacted() {
    let mallory = person("mallory").await;
    let (alice, proxy, bot) = behind_proxy(|bot| bot).await;
    let link = bot.start_session(&alice, "website").await;
    let room = link.room();
    let held = hold_message(&proxy, room);
    let asked = bot.send(&alice, "logs").await;
    wait_until_caught(&held).await;
    proxy.inject(in_timeline(room, &[membership(mallory.user_id(), "join")]));
    // Once the bot answers the next message, it has received this one.
    bot.request(&alice, "status").await;
    drop(held);
    let answer = bot.answer(&alice, &asked).await;
    answer.says("somebody else");
    let sent = proxy.passed_by(in_room(room, sends_message)).pop().unwrap();
    let event = sent.answer["event_id"].as_str().unwrap();
    let redactions = format!("/redact/{event}/");
    let redactions = proxy.passed_by(|request| request.path.contains(&redactions));
    assert_eq!(redactions.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_while_the_picture_of_a_link_is_sent_ends_the_session_and_both_are_redacted() {
    let mallory = person("mallory").await;
    let (alice, proxy, bot) = behind_proxy(|bot| bot).await;
    let sent = bot.start_session(&alice, "website").await;
    let room = sent.room();
    let held = hold_message(&proxy, room);
    bot.ask_for_picture(&alice, &sent).await;
    until("the picture is on its way", || held.has_caught()).await;
    proxy.inject(in_timeline(room, &[membership(mallory.user_id(), "join")]));
    // Once the bot answers the next message, it has received this one.
    bot.request(&alice, "status").await;
    drop(held);
    let next = assert_session_ended(&bot, &alice, &sent).await;
    let [picture] = &bot.pictures_of(&alice)[..] else {
        panic!("one picture")
    };
    for message in [&sent.event, picture] {
        bot.wait_for_redaction(&alice, message).await;
    }
    bot.picture_of(&alice, &next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_who_is_shown_only_while_the_key_goes_out_is_found_and_the_session_ended() {
    let mallory = person("mallory").await;
    let (alice, proxy, bot) = behind_proxy(|bot| bot).await;
    let first = bot.start_session(&alice, "website").await;
    let room = first.room();
    let looks = || {
        let looks = in_room(room, Request::reads_state);
        proxy.passed_by(looks).len()
    };
    let before = looks();
    let devices = proxy.on(Request::queries_keys).times(1).hold();
    let link = hold_message(&proxy, room);
    let asked = bot.send(&alice, "start").await;
    until("the room was looked at, and the devices not yet", || {
        devices.has_caught() && looks() > before
    })
    .await;
    proxy.inject(in_timeline(room, &[membership(mallory.user_id(), "join")]));
    until("the bot knows her devices", || {
        let asked_for = |request: &Request| {
            let users = &request.json["device_keys"];
            request.queries_keys() && users.get(mallory.user_id().as_str()).is_some()
        };
        !proxy.passed_by(asked_for).is_empty()
    })
    .await;
    drop(devices);
    wait_until_caught(&link).await;
    let keys = proxy.keys_for(mallory.user_id());
    assert!(!keys.is_empty(), "the homeserver got hold of the key");
    let leaves = membership(mallory.user_id(), "leave");
    proxy.inject(in_timeline(room, &[leaves]));
    // Once the bot answers the next message, it has received this one.
    bot.request(&alice, "status").await;
    drop(link);

    let answer = bot.answer(&alice, &asked).await;
    answer.says("somebody else");
    let overheard = bot.links_of(&alice).remove(1);
    bot.wait_for_redaction(&alice, &overheard).await;
    assert_session_ended(&bot, &alice, &first).await;
}

/// With the device, the homeserver deletes the only store that knows of her.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_out_while_a_link_is_sent_hides_nobody_who_got_its_key() {
    let mallory = person("mallory").await;
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot).await;
    let first = bot.start_session(&alice, "website").await;
    let room = first.room();
    let link = hold_message(&proxy, room);
    bot.send(&alice, "start").await;
    wait_until_caught(&link).await;
    for is_member in ["join", "leave"] {
        let shown = membership(mallory.user_id(), is_member);
        proxy.inject(in_timeline(room, &[shown]));
        // Once the bot answers the next message, it has received this one.
        bot.request(&alice, "status").await;
    }
    let connections = bot.connections();
    bot.log_out(homeserver()).await;
    // The bot notices with the next sync.
    bot.send(&alice, "status").await;
    bot.wait_until_connected(connections + 1).await;
    drop(link);
    bot.wait_until_no_process_is_left().await;
    assert_ne!(bot.start_session(&alice, "website").await.link, first.link);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_is_shown_while_a_link_is_on_its_way_does_not_get_it() {
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot).await;
    let first = bot.start_session(&alice, "website").await;
    let room = first.room();
    let looks = proxy.passed_by(Request::queries_keys).len();
    let state = in_room(room, Request::reads_state);
    let members = proxy.on(state).times(1).hold();
    bot.send(&alice, "start").await;
    until("the devices were looked at, and the room not yet", || {
        members.has_caught() && proxy.passed_by(Request::queries_keys).len() > looks
    })
    .await;
    let impostor = Impostor::identity_of(alice.user_id()).await;
    impostor.show(&proxy);
    // The bot cannot encrypt its answer in the admin room to the identity that is shown for her now.
    bot.wait_for_log("a verification is withdrawn once no link is on its way")
        .await;
    let sent = proxy.passed_by(in_room(room, Request::sends));
    drop(members);
    bot.wait_for_log("IdentityChanged").await;
    let sent_since = proxy.passed_by(in_room(room, Request::sends));
    assert_eq!(sent_since.len(), sent.len(), "{sent_since:?}");
    assert_eq!(bot.links_of(&alice).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unacknowledged_link_is_redacted_if_its_requester_was_demoted_since() {
    let bob = person("bob").await;
    let (alice, proxy, bot) = behind_proxy(|bot| bot.member(&bob, 100)).await;
    let links = elsewhere(bot.admin_room(), Request::sends);
    proxy.on(links).replace_answer(Answer::error_page(502));
    let asked = bot.send(&bob, "start").await;
    let arrived = eventually("the link arrives", async || bot.links_of(&bob).pop()).await;
    alice
        .set_power_level(bot.admin_room(), bob.user_id(), 0)
        .await;
    let answer = bot.answer(&alice, &asked).await;
    answer.says("you may not command me any more");
    proxy.be_honest();
    bot.wait_for_redaction(&bob, &arrived).await;
    assert_eq!(bot.links_of(&bob).len(), 1);
    // The session goes on for those who may have its link.
    bot.start_session(&alice, "website").await;
    assert_eq!(bot.standin_starts(), 1);
}
