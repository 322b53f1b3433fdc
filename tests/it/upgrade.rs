//! Only users who may command can move the admin room, by an upgrade (tombstone). Tests see by the answers which room it is.

use matrix_sdk::ruma::{
    OwnedRoomId, RoomAliasId, RoomId, RoomVersionId,
    api::client::{
        alias::{create_alias, delete_alias},
        room::upgrade_room,
    },
    events::room::tombstone::RoomTombstoneEventContent,
};

use crate::support::{prelude::*, rooms::RoomOptions};

const ARRIVED: &str = "I followed the upgrade of the admin room: I take commands here from now on";
const NOT_FOLLOWED: &str = "the upgrade of the admin room is not followed";
const INVITE: &str = "the admin room was upgraded: invite the bot to the new room";

/// Upgrades the admin room as a client does, and joins the new room.
async fn upgrade(bot: &Bot, admin: &Person) -> OwnedRoomId {
    let old = bot.admin_room().to_owned();
    let request = upgrade_room::v3::Request::new(old, RoomVersionId::V12);
    let response = admin.client().send(request).await.unwrap();
    let room = response.replacement_room;
    let is_there = |event: &Event| event.room == room;
    admin.sees("the new room in the sync", is_there).await;
    room
}

/// Sends a tombstone that names another room as the successor of the admin room.
async fn tombstone(bot: &Bot, person: &Person, new: &RoomId) {
    let room = person.room(bot.admin_room());
    let content = RoomTombstoneEventContent::new("moved".to_owned(), new.to_owned());
    room.send_state_event(content).await.unwrap();
}

/// A room that names the admin room as its predecessor.
async fn successor(bot: &Bot, maker: &Person, encrypted: bool) -> OwnedRoomId {
    let options = RoomOptions {
        encrypted,
        invite: vec![bot.user_id().to_owned()],
        creation: Some(json!({ "predecessor": { "room_id": bot.admin_room() } })),
        ..RoomOptions::default()
    };
    maker.create_room(options).await.unwrap()
}

fn stored(bot: &Bot) -> Value {
    let path = bot.data_dir().join("matrix/admin-room.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_followed_once_the_bot_is_invited_and_the_old_room_is_left_behind() {
    let alice = person("alice").await;
    let mut bot = bot().room_version(RoomVersionId::V11).start(&alice).await;
    bot.assert_no_session(&alice).await;
    let old = bot.admin_room().to_owned();
    let new = upgrade(&bot, &alice).await;
    bot.wait_for_log(INVITE).await;
    alice.invite(&new, bot.user_id()).await.unwrap();
    bot.follow_to(new.clone());
    bot.wait_until_ready(&alice).await;
    bot.announcement(&alice, ARRIVED).await;
    let stored = stored(&bot);
    assert_eq!(stored["configured"], json!(old));
    assert_eq!(stored["room"], json!(new));

    let ignored = alice.send_text(&old, "!rc start").await.unwrap();
    bot.start_session(&alice, "website").await;
    assert_eq!(bot.standin_starts(), 1);
    assert!(alice.answers_to(&ignored).is_empty());

    // The configuration still names the old room.
    bot.restart(&alice).await;
    bot.start_session(&alice, "website").await;
    assert_eq!(bot.standin_starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_of_while_the_bot_was_away_is_followed_when_it_is_back() {
    let alice = person("alice").await;
    let mut bot = bot().room_version(RoomVersionId::V11).start(&alice).await;
    bot.assert_no_session(&alice).await;
    bot.kill_9();
    let new = upgrade(&bot, &alice).await;
    alice.invite(&new, bot.user_id()).await.unwrap();
    bot.follow_to(new);
    bot.run();
    bot.announcement(&alice, ARRIVED).await;
    bot.assert_no_session(&alice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_to_a_room_that_does_not_name_the_old_one_or_is_not_encrypted_is_not_followed()
{
    let (alice, mut bot) = alice_and_bot().await;
    bot.assert_no_session(&alice).await;
    let options = RoomOptions {
        encrypted: true,
        ..RoomOptions::default()
    };
    let other = alice.create_room(options).await.unwrap();
    tombstone(&bot, &alice, &other).await;
    bot.wait_for_log(INVITE).await;
    alice.invite(&other, bot.user_id()).await.unwrap();
    bot.wait_for_log("reason=NotItsSuccessor").await;
    bot.wait_for_membership(&alice, &other, "leave").await;
    bot.assert_no_session(&alice).await;

    // Nor is one from an encrypted room to an unencrypted one.
    let plain = successor(&bot, &alice, false).await;
    bot.wait_for_membership(&alice, &plain, "leave").await;
    tombstone(&bot, &alice, &plain).await;
    bot.wait_for_log_times(INVITE, 2).await;
    alice.invite(&plain, bot.user_id()).await.unwrap();
    bot.wait_for_log("reason=NotEncrypted").await;
    assert!(bot.log().contains(NOT_FOLLOWED));
    bot.assert_no_session(&alice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_command_does_not_move_the_admin_room() {
    let (alice, mallory) = (person("alice").await, person("mallory").await);
    let mut bot = bot()
        .invite(mallory.user_id())
        .power_levels(json!({
            "users": { mallory.user_id(): 50 },
            "events": { "m.room.tombstone": 50 },
        }))
        .start(&alice)
        .await;
    bot.assert_no_session(&alice).await;
    let own = successor(&bot, &mallory, true).await;
    tombstone(&bot, &mallory, &own).await;
    bot.wait_for_log("reason=NoPower").await;
    bot.assert_no_session(&alice).await;
    bot.wait_for_membership(&mallory, &own, "leave").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_of_somebody_who_is_gone_does_not_move_the_admin_room() {
    let alice = person("alice").await;
    let gone = [person("mallory").await, person("eve").await];
    let users = json!({
        alice.user_id(): 101, gone[0].user_id(): 100, gone[1].user_id(): 100,
    });
    let mut bot = bot()
        .room_version(RoomVersionId::V11)
        .invite(gone[0].user_id())
        .invite(gone[1].user_id())
        .power_levels(json!({ "users": users }))
        .start(&alice)
        .await;
    for (banned, mallory) in [true, false].into_iter().zip(&gone) {
        bot.assert_no_session(&alice).await;
        // An administrator, but not any more when the bot receives the tombstone.
        bot.kill_9();
        let own = successor(&bot, mallory, true).await;
        tombstone(&bot, mallory, &own).await;
        let room = |person: &Person| person.room(bot.admin_room());
        if banned {
            let room = room(&alice);
            room.ban_user(mallory.user_id(), None).await.unwrap();
        } else {
            room(mallory).leave().await.unwrap();
        }
        bot.run();
        bot.wait_for_membership(mallory, &own, "leave").await;
        bot.assert_no_session(&alice).await;
        assert_eq!(stored(&bot)["room"], json!(bot.admin_room()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_by_a_stolen_password_gives_an_accomplice_nothing_where_users_are_named() {
    let (alice, mallory) = (person("alice").await, person("mallory").await);
    let users = json!([alice.user_id()]);
    let mut bot = bot()
        .configure(|config| config["authorization"]["users"] = users)
        .start(&alice)
        .await;
    let sent = bot.start_session(&alice, "website").await;
    let own = successor(&bot, &mallory, true).await;
    let thief = alice.second_device(false).await;
    tombstone(&bot, &thief, &own).await;
    // The accomplice's invitation is declined; one by the user who upgraded the room would be accepted.
    bot.wait_for_log(INVITE).await;
    bot.wait_for_membership(&mallory, &own, "leave").await;
    mallory.invite(&own, bot.user_id()).await.unwrap();
    bot.follow_to(own);
    bot.announcement(&mallory, ARRIVED).await;
    let answer = bot.request(&mallory, "start").await;
    answer.says("you are not on the list of users");
    let asked = bot.send(&mallory, "stop").await;
    bot.wait_for_refusal(&asked, "NotListed").await;
    assert!(bot.links_of(&mallory).is_empty() && mallory.never_read(&sent.link));
    assert_eq!(bot.session_processes().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_that_leads_elsewhere_later_is_not_followed() {
    let (alice, mallory) = (person("alice").await, person("mallory").await);
    let mut bot = bot().admin_room_by_alias().start(&alice).await;
    bot.assert_no_session(&alice).await;
    let configured = stored(&bot)["configured"].as_str().unwrap().to_owned();
    let alias = RoomAliasId::parse(configured).unwrap();
    bot.kill_9();
    // The alias can belong to a user who may not command.
    let other = mallory.create_admin_room(bot.user_id()).await.unwrap();
    let remove = delete_alias::v3::Request::new(alias.clone());
    alice.client().send(remove).await.unwrap();
    let take = create_alias::v3::Request::new(alias, other.clone());
    mallory.client().send(take).await.unwrap();
    bot.run();
    bot.wait_for_log("the admin room's alias leads to another room now")
        .await;
    bot.assert_no_session(&alice).await;
    assert_eq!(stored(&bot)["room"], json!(bot.admin_room()));
    bot.wait_for_membership(&mallory, &other, "leave").await;
}
