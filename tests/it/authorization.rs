//! Who may command, and which events are commands. Everybody and everything else has no effect.

use std::time::{Duration, SystemTime};

use matrix_sdk::ruma::events::room::message::RoomMessageEventContent;

use crate::support::prelude::*;

/// Asserts that the commands so far had no effect. Anything pending has happened once `admin` has an answer.
async fn assert_nothing_happened(bot: &Bot, admin: &Person) {
    bot.assert_no_session(admin).await;
    assert_eq!(bot.standin_starts(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_can_need_another_level_and_a_demoted_user_is_refused_from_then_on() {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let bot = bot()
        .power_level(50)
        .project("api", |project| project.set("power_level", 75))
        .project("website", |project| project)
        .member(&bob, 50)
        .start(&alice)
        .await;
    let sent = bot.start_session(&bob, "website").await;
    let refusal = bot.request(&bob, "start api").await;
    refusal.says("your power level here is 50, and this takes 75");
    assert_eq!(bot.standin_starts(), 1);

    let room = bot.admin_room();
    alice.set_power_level(room, bob.user_id(), 49).await;
    for command in ["start website", "stop website"] {
        let asked = bot.send(&bob, command).await;
        let why = "PowerLevel { has: 49, needs: 50 }";
        bot.wait_for_refusal(&asked, why).await;
    }
    assert_eq!(bot.links_of(&bob).len(), 1);
    // The session is the project's, so another administrator can end it.
    let stopped = bot.request(&alice, "stop").await;
    stopped.says("website stopped");
    bot.wait_for_redaction(&bob, &sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_has_left_the_room_is_refused() {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let mut bot = bot().member(&bob, 100).start(&alice).await;
    // Once it answers, the bot has seen its own join: it ignores what was sent before.
    bot.request(&alice, "status").await;
    bot.kill_9();
    let asked = bot.send(&bob, "start").await;
    bob.room(bot.admin_room()).leave().await.unwrap();
    bot.run();
    bot.answer(&alice, &asked)
        .await
        .says("you are not a member of this room");
    assert_nothing_happened(&bot, &alice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_and_talk_that_begins_like_a_command_do_nothing() {
    let (alice, bot) = alice_and_bot().await;
    let notice = RoomMessageEventContent::notice_plain("!rc start");
    let notice = alice.send(bot.admin_room(), notice).await.unwrap();
    let talk = alice.send_text(bot.admin_room(), "!rcx start, or !rc start");
    let talk = talk.await.unwrap();
    assert_nothing_happened(&bot, &alice).await;
    for event in [notice, talk] {
        assert!(alice.answers_to(&event).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_too_old_is_ignored() {
    let (alice, mut bot) = alice_and_bot().await;
    // Once it answers, the bot has seen its own join: it ignores what was sent before.
    bot.request(&alice, "status").await;
    bot.kill_9();
    let sent = SystemTime::now();
    bot.send(&alice, "start").await;
    let age = Duration::from_secs(1);
    until("the command is too old", || {
        sent.elapsed().unwrap() > 2 * age
    })
    .await;
    bot.reconfigure(|config| config["max_command_age"] = json!("1s"));
    bot.run();
    bot.wait_for_log("reason=TooOld").await;

    bot.reconfigure(|config| config["max_command_age"] = json!("2m"));
    bot.restart(&alice).await;
    assert_nothing_happened(&bot, &alice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_waits_too_long_for_the_homeserver_is_ignored() {
    let (alice, proxy, bot) =
        behind_proxy(|bot| bot.configure(|config| config["max_command_age"] = json!("15s"))).await;
    bot.request(&alice, "status").await;
    let held = proxy.on(Request::reads_event).times(1).hold();
    let sent = SystemTime::now();
    let asked = bot.send(&alice, "start").await;
    until("the homeserver is asked about it", || held.has_caught()).await;
    until("the command is too old", || {
        sent.elapsed().unwrap() > Duration::from_secs(16)
    })
    .await;
    drop(held);
    let answer = bot.answer(&alice, &asked).await;
    answer.says("it took too long until I could ask the homeserver about it");
    assert_eq!(bot.standin_starts(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_before_the_bots_first_sync_is_ignored() {
    let alice = person("alice").await;
    let builder = bot().encrypted_admin_room(false);
    let mut bot = builder.prepare(&alice).await;
    let backlog = bot.send(&alice, "start").await;
    bot.run();
    bot.wait_for_log("reason=BeforeFirstSync").await;
    bot.wait_until_ready(&alice).await;
    assert_nothing_happened(&bot, &alice).await;
    assert!(alice.answers_to(&backlog).is_empty());
}
