//! What the bot sends arrives, once, whatever the room and the homeserver do.

use matrix_sdk::ruma::events::room::message::{
    KeyVerificationRequestEventContent, MessageType, RoomMessageEventContent,
};

use crate::support::prelude::*;

/// The homeserver accepts all links, and the bot gets an error page instead of the answer.
fn drop_acknowledgements_of_links(proxy: &Proxy, bot: &Bot) {
    let links = elsewhere(bot.admin_room(), Request::sends);
    proxy.on(links).replace_answer(Answer::error_page(502));
}

/// Asks for a session, and waits until its link has arrived, without the bot's knowledge.
async fn unacknowledged_link(alice: &Person, bot: &Bot) -> Event {
    bot.send(alice, "start").await;
    eventually("the link arrives", async || bot.links_of(alice).pop()).await
}

async fn wait_until_redacted(alice: &Person, event: &Event) {
    eventually("the message is redacted", async || {
        (alice.stored(event).await["content"] == json!({})).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_answers_at_once_are_sent_where_each_message_needs_its_own_key() {
    let alice = person("alice").await;
    let mut bot = bot()
        .project("website", |project| project.standin("held"))
        .prepare(&alice)
        .await;
    let encryption = json!({ "algorithm": "m.megolm.v1.aes-sha2", "rotation_period_msgs": 1 });
    let room = alice.room(bot.admin_room());
    let set = room.send_state_event_raw("m.room.encryption", "", encryption);
    set.await.unwrap();
    bot.run();
    bot.wait_until_ready(&alice).await;
    let mut asked = Vec::new();
    for _ in 0..50 {
        asked.push(bot.send(&alice, "start").await);
    }
    bot.wait_for_log_times("decision=\"allowed\"", asked.len())
        .await;
    bot.release_links();
    for command in &asked {
        let answer = bot.answer(&alice, command).await;
        answer.says("is running");
    }
    assert_eq!(bot.standin_starts(), 1);
}

/// The Matrix library cancels the verifications of a user who requests a second one: by messages that keep no order with others.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_who_requests_verifications_makes_the_bot_send_nothing() {
    let mallory = person("mallory").await;
    let bot = bot().member(&mallory, 0);
    let alice = person("alice").await;
    let bot = bot.start(&alice).await;
    bot.assert_no_session(&alice).await;
    let device = mallory.client().device_id().unwrap().to_owned();
    for _ in 0..2 {
        let request = KeyVerificationRequestEventContent::new(
            "Verify me.".to_owned(),
            Vec::new(),
            device.clone(),
            bot.user_id().to_owned(),
        );
        let request = MessageType::VerificationRequest(request);
        let request = RoomMessageEventContent::new(request);
        mallory.send(bot.admin_room(), request).await.unwrap();
    }
    bot.assert_no_session(&alice).await;
    alice.catch_up().await;
    let mut events = alice.events();
    events.retain(|event| event.sender == bot.user_id() && event.kind.contains("verification"));
    assert!(events.is_empty(), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_relation_the_homeserver_refuses_comes_without_it() {
    let (alice, proxy, bot) = behind_proxy(|bot| bot.encrypted_admin_room(false)).await;
    proxy
        .on(|request| request.sends() && request.json.get("m.relates_to").is_some())
        .times(1)
        .answer(Answer::refusal(400, "M_UNKNOWN"));
    bot.send(&alice, "status").await;
    bot.announcement(&alice, "website: no session").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unacknowledged_link_is_redacted_if_its_session_ends_meanwhile() {
    let (alice, proxy, mut bot) =
        behind_proxy(|bot| bot.project("website", |it| it.standin("fork=1"))).await;
    drop_acknowledgements_of_links(&proxy, &bot);
    let link = unacknowledged_link(&alice, &bot).await;
    assert!(bot.terminate().await.success());
    // The process ends, and its child keeps running.
    bot.end_process(bot.standin_records()[0].pid).await;
    assert_eq!(bot.session_processes().len(), 1);
    proxy.be_honest();
    bot.run();
    bot.wait_for_redaction(&alice, &link).await;
    let ended = "website has ended: its process ";
    bot.announcement(&alice, ended).await;
    bot.wait_until_no_process_is_left().await;
    bot.assert_no_session(&alice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_a_killed_bot_sent_is_redacted_where_another_room_replaces_its_own() {
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot).await;
    drop_acknowledgements_of_links(&proxy, &bot);
    let link = unacknowledged_link(&alice, &bot).await;
    bot.kill_9();
    alice.room(&link.room).leave().await.unwrap();
    proxy.be_honest();
    bot.run();
    let sent = eventually("the link in another room", async || {
        let mut links = bot.links_of(&alice).into_iter();
        links.find(|other| other.room != link.room)
    })
    .await;
    wait_until_redacted(&alice, &link).await;
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_waits_while_a_bot_that_was_removed_from_the_admin_room_has_not_noticed_yet() {
    let alice = person("alice").await;
    let id = alice.user_id().to_owned();
    let proxy = Proxy::start(homeserver()).await;
    let mut bot = bot()
        .through(&proxy)
        .project("website", |project| {
            project
                .set("autostart", true)
                .set("deliver_to", json!([id]))
        })
        .start(&alice)
        .await;
    let first = bot.link_after(&alice, 0).await;
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &first).await;
    bot.kill_9();
    let room = alice.room(bot.admin_room());
    room.kick_user(bot.user_id(), None).await.unwrap();
    // It logs in, and every request but /sync is answered.
    let held = proxy.on(Request::is_sync).hold();
    bot.run();
    until("the bot syncs", || held.has_caught()).await;
    bot.wait_for_log("phase=Running").await;
    proxy.be_honest();
    drop(held);
    alice.invite(bot.admin_room(), bot.user_id()).await.unwrap();
    bot.wait_until_ready(&alice).await;
    let second = bot.link_after(&alice, 1).await;
    let is_second_join = |event: &Event| {
        event.kind == "m.room.member"
            && event.json["state_key"] == bot.user_id().as_str()
            && event.json["content"]["membership"] == "join"
            && event.json["unsigned"]["prev_content"]["membership"] == "invite"
            && event.sent() > first.event.sent()
    };
    let joined = alice.sees("the bot's second join", is_second_join).await;
    let second = second.event;
    assert!(joined.sent() <= second.sent(), "{joined} {second}");
}
