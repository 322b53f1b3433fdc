//! What makes a room fit to be the admin room: where the room itself keeps nobody out, its levels say nothing.

use matrix_sdk::ruma::{
    RoomVersionId,
    events::room::join_rules::{JoinRule, RoomJoinRulesEventContent},
};
use serde_json::json;

use crate::support::{assert_says, bot::Bot, homeserver, person, person::Person};

async fn set_join_rule(bot: &Bot, admin: &Person, rule: JoinRule) {
    let room = admin.client().get_room(bot.admin_room()).unwrap();
    let content = RoomJoinRulesEventContent::new(rule);
    room.send_state_event(content).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_room_is_refused_until_it_is_closed_again() {
    let alice = person("alice").await;
    let bot = Bot::builder(homeserver()).start(&alice).await;
    set_join_rule(&bot, &alice, JoinRule::Public).await;
    assert_says(
        &bot.request(&alice, "start").await,
        "Sorry, I did not do that: anybody can join this room. Make it invite-only in its settings, or let the bot's \
         operator list who may command me in `authorization.users`.",
    );
    assert_eq!(bot.standin_starts(), 0);
    set_join_rule(&bot, &alice, JoinRule::Invite).await;
    bot.start_session(&alice, "website").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_gives_the_level_to_everybody_is_refused() {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let bot = Bot::builder(homeserver())
        .invite(bob.user_id())
        .power_levels(json!({ "users_default": 100 }))
        .start(&alice)
        .await;
    for person in [&alice, &bob] {
        assert_says(
            &bot.request(person, "start").await,
            "everybody in this room has power level 100, and this takes 100. Lower the room's default power level",
        );
    }
    assert_eq!(bot.standin_starts(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_users_makes_up_for_an_open_room() {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let users = json!([alice.user_id()]);
    let bot = Bot::builder(homeserver())
        .configure(|config| config["authorization"]["users"] = users)
        .invite(bob.user_id())
        .power_levels(json!({ "users_default": 100 }))
        .start(&alice)
        .await;
    set_join_rule(&bot, &alice, JoinRule::Public).await;
    assert_says(
        &bot.request(&bob, "start").await,
        "you are not on the list of users",
    );
    bot.start_session(&alice, "website").await;
    assert_eq!(bot.standin_starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_creator_of_a_version_12_room_commands_and_nobody_else() {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let bot = Bot::builder(homeserver())
        .room_version(RoomVersionId::V12)
        .invite(bob.user_id())
        .start(&alice)
        .await;
    let levels = alice.state(bot.admin_room(), "m.room.power_levels").await;
    assert_eq!(
        levels.unwrap()["users"],
        json!({}),
        "the creator's power is in no list"
    );
    assert_says(
        &bot.request(&bob, "start").await,
        "your power level here is 0, and this takes 100",
    );
    assert_eq!(bot.standin_starts(), 0);
    bot.start_session(&alice, "website").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_creator_of_a_version_12_room_commands() {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let bot = Bot::builder(homeserver())
        .room_version(RoomVersionId::V12)
        .additional_creator(bob.user_id())
        .start(&alice)
        .await;
    let sent = bot.start_session(&bob, "website").await;
    assert!(alice.never_read(&sent.link) && bot.links_of(&alice).is_empty());
    let own = bot.start_session(&alice, "website").await;
    assert_eq!(own.link, sent.link);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_version_12_room_whoever_is_no_creator_can_be_raised_and_lowered_again() {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let bot = Bot::builder(homeserver())
        .room_version(RoomVersionId::V12)
        .invite(bob.user_id())
        .start(&alice)
        .await;
    alice
        .set_power_level(bot.admin_room(), bob.user_id(), 100)
        .await;
    let sent = bot.start_session(&bob, "website").await;
    alice
        .set_power_level(bot.admin_room(), bob.user_id(), 99)
        .await;
    assert_says(
        &bot.request(&bob, "stop").await,
        "your power level here is 99, and this takes 100",
    );
    assert_eq!(bot.session_processes().len(), 1);
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&bob, &sent).await;
}
