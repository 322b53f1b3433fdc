//! Only users who may command can move the admin room, by an upgrade (tombstone). Tests see by the answers which room it is.

use std::fs;

use matrix_sdk::ruma::{
    OwnedRoomId, RoomAliasId, RoomId, RoomVersionId,
    api::client::{
        alias::{create_alias, delete_alias},
        room::upgrade_room,
    },
    events::room::tombstone::RoomTombstoneEventContent,
};

use crate::support::{checkup::Checkup, prelude::*, rooms::RoomOptions};

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
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_followed_once_the_bot_is_invited_and_the_old_room_is_left_behind() {
    let alice = person("alice").await;
    let mut bot = bot().room_version(RoomVersionId::V11).start(&alice).await;
    bot.assert_no_session(&alice).await;
    let old = bot.admin_room().to_owned();
    let new = upgrade(&bot, &alice).await;
    bot.wait_for_log(INVITE).await;
    let remedy = Checkup::of(&bot).warned("upgrade", "is still in the old one");
    let invite = format!("invite {} to {new} while the bot is running", bot.user_id());
    remedy.begins(&invite);
    alice.invite(&new, bot.user_id()).await.unwrap();
    bot.admin_room = new.clone();
    bot.wait_until_ready(&alice).await;
    bot.announcement(&alice, ARRIVED).await;
    let stored = stored(&bot);
    assert_eq!(stored["configured"], json!(old));
    assert_eq!(stored["room"], json!(new));
    // The configuration still names the old room.
    let checkup = Checkup::of(&bot);
    let followed = format!("{new}, to which the bot followed {old}");
    checkup.passed("room", &followed);
    assert!(!checkup.all("warning").contains(&"upgrade"), "{checkup:?}");
    checkup.passed("membership", "joined");
    checkup.passed("encryption", "on");
    checkup.warned("commanders", alice.user_id().as_str());

    let ignored = alice.send_text(&old, "!rc start").await.unwrap();
    bot.start_session(&alice, "website").await;
    assert_eq!(bot.standin_starts(), 1);
    assert!(alice.answers_to(&ignored).is_empty());

    // Also an upgrade while the bot is away, although the configuration names the first room.
    bot.kill_9();
    let newer = upgrade(&bot, &alice).await;
    alice.invite(&newer, bot.user_id()).await.unwrap();
    bot.admin_room = newer;
    bot.run();
    bot.announcement(&alice, ARRIVED).await;
    bot.start_session(&alice, "website").await;
    assert_eq!(bot.standin_starts(), 1);
}

/// The SDK would try for longer than a test waits for an answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_join_of_the_new_room_holds_up_commands_in_the_old_one_for_seconds_only() {
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot).await;
    bot.assert_no_session(&alice).await;
    let new = successor(&bot, &alice, true).await;
    bot.wait_for_membership(&alice, &new, "leave").await;
    tombstone(&bot, &alice, &new).await;
    bot.wait_for_log(INVITE).await;
    let joins = proxy.on(|request| request.path.contains("/join/")).hold();
    alice.invite(&new, bot.user_id()).await.unwrap();
    until("the bot joins", || joins.has_caught()).await;
    bot.assert_no_session(&alice).await;
    proxy.be_honest();
    drop(joins);
    bot.admin_room = new;
    bot.announcement(&alice, ARRIVED).await;
}

/// Where no host is announced, each bot takes itself for the only one, and all answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_announced_in_the_new_room_too() {
    let alice = person("alice").await;
    let builder = bot().room_version(RoomVersionId::V11);
    let builder = builder.power_levels(json!({ "events": { "rcbot.host": 0 } }));
    let builder = builder.configure(|config| config["host"] = json!("build1"));
    let mut bot = builder.start(&alice).await;
    bot.assert_no_session(&alice).await;
    let new = upgrade(&bot, &alice).await;
    alice.invite(&new, bot.user_id()).await.unwrap();
    bot.admin_room = new.clone();
    let is_announced = |event: &Event| event.kind == "rcbot.host" && event.room == new;
    alice.sees("the announcement there", is_announced).await;
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
async fn a_tombstone_of_somebody_who_is_gone_does_not_move_the_admin_room() {
    let alice = person("alice").await;
    let mut builder = bot().room_version(RoomVersionId::V11).power_levels(json!({
        "users": { alice.user_id(): 101 },
        "events": { "m.room.tombstone": 50 },
    }));
    let mut cases = Vec::new();
    // Each of them can send a tombstone, and may not command when the bot receives it.
    for (case, level) in [("banned", 100), ("left", 100), ("no administrator", 50)] {
        let mallory = person("mallory").await;
        builder = builder.member(&mallory, level);
        cases.push((case, mallory));
    }
    let mut bot = builder.start(&alice).await;
    for (case, mallory) in &cases {
        bot.assert_no_session(&alice).await;
        bot.kill_9();
        let own = successor(&bot, mallory, true).await;
        tombstone(&bot, mallory, &own).await;
        let room = |person: &Person| person.room(bot.admin_room());
        match *case {
            "banned" => {
                let room = room(&alice);
                room.ban_user(mallory.user_id(), None).await.unwrap();
            }
            "left" => room(mallory).leave().await.unwrap(),
            _ => {}
        }
        bot.run();
        bot.wait_for_membership(mallory, &own, "leave").await;
        bot.assert_no_session(&alice).await;
        assert_eq!(stored(&bot)["room"], json!(bot.admin_room()), "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_that_leads_elsewhere_later_is_reported_and_not_followed() {
    let (alice, mallory) = (person("alice").await, person("mallory").await);
    let mut bot = bot().admin_room_by_alias().start(&alice).await;
    bot.assert_no_session(&alice).await;
    let known = bot.admin_room().to_owned();
    let configured = stored(&bot)["configured"].as_str().unwrap().to_owned();
    let alias = RoomAliasId::parse(configured).unwrap();
    Checkup::of(&bot).passed("room", &format!("{alias} is {known}"));
    bot.kill_9();
    let other = mallory.create_admin_room(bot.user_id()).await.unwrap();
    let remove = delete_alias::v3::Request::new(alias.clone());
    alice.client().send(remove).await.unwrap();
    Checkup::of(&bot).passed("room", "led once");
    // The alias can belong to a user who may not command.
    let take = create_alias::v3::Request::new(alias, other.clone());
    mallory.client().send(take).await.unwrap();
    bot.run();
    bot.wait_for_log("the admin room's alias leads to another room now")
        .await;
    bot.assert_no_session(&alice).await;
    assert_eq!(stored(&bot)["room"], json!(known));
    bot.wait_for_membership(&mallory, &other, "leave").await;

    let checkup = Checkup::of(&bot);
    let remedy = checkup.warned("room", &format!("leads to {other} now"));
    remedy.begins(&format!("set `admin_room: \"{known}\"`"));
    checkup.warned("commanders", alice.user_id().as_str());
    bot.reconfigure(|config| config["admin_room"] = json!(known));
    bot.restart(&alice).await;
    Checkup::of(&bot).passed("room", known.as_str());

    // The bot's record of the room is gone. A running bot would write it again.
    bot.kill_9();
    let file = bot.data_dir().join("matrix/admin-room.json");
    fs::write(&file, "{").unwrap();
    let remedy = Checkup::of(&bot).failed("room", "admin-room.json is invalid");
    remedy.begins("delete it, and the bot goes to the room that the configuration names");
    fs::remove_file(&file).unwrap();
    bot.restart(&alice).await;
    Checkup::of(&bot).passed("room", known.as_str());
}

/// A password is enough to add an unverified device, which can change all state of the room.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_password_of_an_administrator_an_accomplice_gets_nothing_where_users_are_named() {
    let (alice, mallory) = (person("alice").await, person("mallory").await);
    let users = json!([alice.user_id()]);
    let mut bot = bot()
        .configure(|config| config["authorization"]["users"] = users)
        .start(&alice)
        .await;
    let sent = bot.start_session(&alice, "website").await;
    let thief = alice.second_device(false).await;
    let room = bot.admin_room();
    thief.set_power_level(room, mallory.user_id(), 100).await;
    thief.invite(room, mallory.user_id()).await.unwrap();
    mallory
        .sees("the admin room", |event| event.room == room)
        .await;
    assert_gets_nothing(&bot, &mallory, &sent).await;

    // Nor in a room of the accomplice's own to which the thief upgrades the admin room.
    let own = successor(&bot, &mallory, true).await;
    tombstone(&bot, &thief, &own).await;
    // The accomplice's invitation is declined; one by the user who upgraded the room would be accepted.
    bot.wait_for_log(INVITE).await;
    bot.wait_for_membership(&mallory, &own, "leave").await;
    mallory.invite(&own, bot.user_id()).await.unwrap();
    bot.admin_room = own;
    bot.announcement(&mallory, ARRIVED).await;
    assert_gets_nothing(&bot, &mallory, &sent).await;
}

async fn assert_gets_nothing(bot: &Bot, mallory: &Person, sent: &LinkMessage) {
    for command in ["start", "stop", "logs", "status", "doctor"] {
        let asked = bot.send(mallory, command).await;
        bot.wait_for_refusal(&asked, "NotListed").await;
    }
    assert!(bot.links_of(mallory).is_empty() && mallory.never_read(&sent.link));
    assert_eq!(bot.session_processes().len(), 1);
}
