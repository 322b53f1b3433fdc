//! What an admin room needs: in a room that anybody can join, power levels prove nothing.

use matrix_sdk::ruma::{
    RoomVersionId,
    events::room::join_rules::{JoinRule, RoomJoinRulesEventContent},
};

use crate::support::prelude::*;

async fn set_join_rule(bot: &Bot, admin: &Person, rule: JoinRule) {
    let room = admin.room(bot.admin_room());
    let content = RoomJoinRulesEventContent::new(rule);
    room.send_state_event(content).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_room_is_refused_until_it_is_closed_again() {
    let (alice, bot) = alice_and_bot().await;
    set_join_rule(&bot, &alice, JoinRule::Public).await;
    bot.says(&alice, "start", "Not done: anybody can join this room. Make it invite-only in its settings, or let the bot's \
         operator list who may command me in `authorization.users`.").await;
    assert_eq!(bot.standin_starts(), 0);
    set_join_rule(&bot, &alice, JoinRule::Invite).await;
    bot.start_session(&alice, "website").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_version_12_room_its_creators_command_and_users_they_promote() {
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
    let refusal = bot.request(&carol, "start").await;
    refusal.says("your power level here is 0, and this takes 100");
    assert_eq!(bot.standin_starts(), 0);
    let sent = bot.start_session(&bob, "website").await;
    assert!(alice.never_read(&sent.link) && bot.links_of(&alice).is_empty());
    let own = bot.start_session(&alice, "website").await;
    assert_eq!(own.link, sent.link);

    alice.set_power_level(room, carol.user_id(), 100).await;
    let to_carol = bot.start_session(&carol, "website").await;
    alice.set_power_level(room, carol.user_id(), 99).await;
    let asked = bot.send(&carol, "stop").await;
    bot.wait_for_refusal(&asked, "PowerLevel { has: 99, needs: 100 }")
        .await;
    assert_eq!(bot.session_processes().len(), 1);
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&carol, &to_carol).await;
}
