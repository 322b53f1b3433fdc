//! Who may command, and which events are commands. Everybody and everything else has no effect.

use std::time::{Duration, SystemTime};

use matrix_sdk::ruma::{
    RoomId, RoomVersionId,
    events::room::{
        join_rules::{JoinRule, RoomJoinRulesEventContent},
        message::RoomMessageEventContent,
    },
};

use crate::support::{prelude::*, rooms::RoomOptions};

/// Asserts that the commands so far had no effect. Anything pending has happened once `admin` has an answer.
async fn assert_nothing_happened(bot: &Bot, admin: &Person) {
    bot.assert_no_session(admin).await;
    assert_eq!(bot.standin_starts(), 0);
}

async fn set_join_rule(person: &Person, room: &RoomId, rule: JoinRule) {
    let content = RoomJoinRulesEventContent::new(rule);
    let room = person.room(room);
    room.send_state_event(content).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_or_a_mode_can_need_another_level_and_a_demoted_user_is_refused_from_then_on() {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let bot = bot()
        .configure(|config| {
            let modes = json!(["default", "plan", { "bypassPermissions": 100 }]);
            config["sessions"]["permission_modes"] = modes;
        })
        .power_level(50)
        .project("api", |project| project.set("power_level", 75))
        .project("website", |project| project)
        .member(&bob, 50)
        .start(&alice)
        .await;
    let refusal = bot.request(&bob, "start api").await;
    refusal.says("your power level here is 50, and this takes 75");
    // All further refusals within a minute are only in the audit log.
    let refused = async |command: &str, levels: &str| {
        let asked = bot.send(&bob, command).await;
        bot.wait_for_refusal(&asked, &format!("PowerLevel {{ {levels} }}"))
            .await;
    };
    let command = "start website --mode bypassPermissions";
    refused(command, "has: 50, needs: 100").await;
    assert_eq!(bot.standin_starts(), 0);
    let answer = bot.request(&alice, command).await;
    answer.says("website is running");
    // The link of a session needs the level of its mode, and other commands only that of the project.
    refused("start website", "has: 50, needs: 100").await;
    assert!(bot.links_of(&bob).is_empty());
    bot.says(&bob, "stop website", "website stopped").await;
    let answer = bot.request(&bob, "start website --mode plan").await;
    answer.says("website is running");
    let sent = bot.link_after(&bob, 0).await;

    let room = bot.admin_room();
    alice.set_power_level(room, bob.user_id(), 49).await;
    for command in ["start website", "stop website"] {
        refused(command, "has: 49, needs: 50").await;
    }
    assert_eq!(bot.links_of(&bob).len(), 1);
    bot.ask_for_picture(&bob, &sent).await;
    bot.private_message(
        &bob,
        "I did not send you the QR code for website: you may not command me any more",
    )
    .await;
    assert!(bot.pictures_of(&bob).is_empty());
    // The session is the project's, so another administrator can end it.
    let stopped = bot.request(&alice, "stop").await;
    stopped.says("website stopped");
    bot.wait_for_redaction(&bob, &sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_version_12_room_its_creators_command_and_users_they_promote_unless_anybody_can_join()
{
    let (alice, bob, carol) = (
        person("alice").await,
        person("bob").await,
        person("carol").await,
    );
    let bot = bot()
        .room_version(RoomVersionId::V12)
        .creation(json!({ "additional_creators": [bob.user_id()] }))
        .invite(bob.user_id())
        .invite(carol.user_id())
        .start(&alice)
        .await;
    let room = bot.admin_room();
    let levels = alice.state(room, "m.room.power_levels").await;
    assert_eq!(
        levels.unwrap()["users"],
        json!({}),
        "their power is in no list"
    );
    set_join_rule(&alice, room, JoinRule::Public).await;
    bot.says(&alice, "start", "Not done: anybody can join this room. Make it invite-only in its settings, or let the bot's \
         operator list who may command me in `authorization.users`.").await;
    set_join_rule(&alice, room, JoinRule::Invite).await;
    let refusal = bot.request(&carol, "start").await;
    refusal.says("your power level here is 0, and this takes 100");
    assert_eq!(bot.standin_starts(), 0);
    let sent = bot.start_session(&bob, "website").await;
    assert!(alice.never_read(&sent.link) && bot.links_of(&alice).is_empty());
    let own = bot.start_session(&alice, "website").await;
    assert_eq!(own.link, sent.link);

    alice.set_power_level(room, carol.user_id(), 100).await;
    let to_carol = bot.start_session(&carol, "website").await;
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&carol, &to_carol).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_talk_the_bots_own_messages_and_those_in_other_rooms_are_no_commands() {
    let alice = person("alice").await;
    let builder = bot().encrypted_admin_room(false);
    let levels = json!({ "users": { builder.user_id(): 100 } });
    let bot = builder.power_levels(levels).start(&alice).await;
    let room = bot.admin_room();
    let notice = RoomMessageEventContent::notice_plain("!rc start");
    let notice = alice.send(room, notice).await.unwrap();
    let talk = alice.send_text(room, "!rcx start, or !rc start").await;
    let own = bot.send_as_bot(room, "!rc start").await;
    let seen_own = |event: &Event| event.id == own;
    alice.sees("the bot's own event", seen_own).await;
    let other = alice.create_room(RoomOptions::default()).await.unwrap();
    set_join_rule(&alice, &other, JoinRule::Public).await;
    bot.join_as_bot(&other).await;
    let elsewhere = alice.send_text(&other, "!rc start").await;
    assert_nothing_happened(&bot, &alice).await;
    for event in [&notice, &talk.unwrap(), &own, &elsewhere.unwrap()] {
        assert!(alice.answers_to(event).is_empty());
    }

    // In the direct message it is answered with a hint, once an hour at most.
    let sent = bot.start_session(&alice, "website").await;
    for command in ["!rc stop", "!rc help"] {
        alice.send_text(sent.room(), command).await.unwrap();
        let status = bot.request(&alice, "status").await;
        status.begins("website: running");
    }
    let text = "only in the admin room";
    let hint = alice.hears(text).await;
    assert_eq!(hint.room, *sent.room());
    assert_eq!(hint.message_type(), Some("m.notice"));
    bot.request(&alice, "status").await;
    let mut hints = alice.events();
    hints.retain(|event| event.body().is_some_and(|body| body.contains(text)));
    assert_eq!(hints.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_while_the_bot_was_away_is_judged_by_how_things_are_when_it_is_back() {
    let (alice, bob, carol) = (
        person("alice").await,
        person("bob").await,
        person("carol").await,
    );
    let mut bot = bot()
        .encrypted_admin_room(false)
        .member(&bob, 100)
        .member(&carol, 100)
        .prepare(&alice)
        .await;
    let backlog = bot.send(&alice, "start").await;
    bot.run();
    bot.wait_for_log("reason=BeforeFirstSync").await;
    bot.wait_until_ready(&alice).await;
    assert_nothing_happened(&bot, &alice).await;
    assert!(alice.answers_to(&backlog).is_empty());

    // Its sender has left the room, or has no device any more.
    bot.kill_9();
    let of_bob = bot.send(&bob, "start").await;
    bob.room(bot.admin_room()).leave().await.unwrap();
    let of_carol = bot.send(&carol, "start").await;
    carol.client().matrix_auth().logout().await.unwrap();
    bot.run();
    let answer = bot.answer(&alice, &of_bob).await;
    answer.says("you are not a member of this room");
    let answer = bot.answer(&alice, &of_carol).await;
    answer.says("I cannot send you the link for website: ");
    answer.says("none of your devices is verified");

    // It is too old.
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
    tokio::join!(assert_waits_too_long(true), assert_waits_too_long(false));
}

async fn assert_waits_too_long(encrypted: bool) {
    let (alice, proxy, bot) = behind_proxy(|bot| {
        bot.encrypted_admin_room(encrypted)
            .configure(|config| config["max_command_age"] = json!("15s"))
    })
    .await;
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
