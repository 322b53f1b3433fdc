//! What the bot sends gets there, once, whatever the room and the homeserver make of it.

use crate::support::prelude::*;

/// The homeserver takes all links, and the bot never hears so.
fn leave_links_untold(proxy: &Proxy, bot: &Bot) {
    let links = elsewhere(bot.admin_room(), Request::sends);
    proxy.on(links).replace_answer(Answer::error_page(502));
}

/// Asks for a session, and waits until its link is there, of which the bot does not know.
async fn link_untold(alice: &Person, bot: &Bot) -> Event {
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
async fn fifty_answers_at_once_are_sent_where_each_message_needs_a_key_of_its_own() {
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
async fn a_link_that_a_bot_sent_and_never_knew_of_is_redacted_if_its_session_ends_meanwhile() {
    let (alice, proxy, mut bot) =
        behind_proxy(|bot| bot.project("website", |it| it.standin("fork=1"))).await;
    leave_links_untold(&proxy, &bot);
    let link = link_untold(&alice, &bot).await;
    assert!(bot.terminate().await.success());
    // The process ends, and its child stays behind.
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
async fn a_link_that_a_killed_bot_sent_is_redacted_where_another_room_takes_the_place_of_its_own() {
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot).await;
    leave_links_untold(&proxy, &bot);
    let link = link_untold(&alice, &bot).await;
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
    // It logs in and gets everything but what is new.
    let held = proxy.on(Request::is_sync).hold();
    bot.run();
    until("the bot asks for what is new", || held.has_caught()).await;
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
