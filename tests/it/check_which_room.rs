//! `rcbot check` where the admin room has moved from the configured one, or is shared with other hosts.

use matrix_sdk::ruma::{
    RoomAliasId, RoomVersionId,
    api::client::{
        alias::{create_alias, delete_alias},
        room::upgrade_room,
    },
    events::room::power_levels::RoomPowerLevelsEventContent,
};

use crate::support::{checkup::Checkup, prelude::*, rooms::RoomOptions};

const UPGRADE: &str = "upgrade";
const HOSTS: &str = "hosts";

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_room_is_reported_until_the_bot_is_invited_and_then_the_new_one_is_checked() {
    let alice = person("alice").await;
    let mut bot = bot().room_version(RoomVersionId::V11).start(&alice).await;
    // The bot stores a room once it has received something in it.
    bot.request(&alice, "status").await;
    let old = bot.admin_room().to_owned();
    let request = upgrade_room::v3::Request::new(old.clone(), RoomVersionId::V12);
    let new = alice.client().send(request).await.unwrap().replacement_room;
    let remedy = Checkup::of(&bot).warned(UPGRADE, "is still in the old one");
    let invite = format!("invite {} to {new} while the bot is running", bot.user_id());
    remedy.begins(&invite);
    alice.invite(&new, bot.user_id()).await.unwrap();
    bot.follow_to(new.clone());
    bot.wait_until_ready(&alice).await;
    bot.wait_for_log("the bot followed").await;

    // The configuration still names the old room.
    let checkup = Checkup::of(&bot);
    let followed = format!("{new}, to which the bot followed {old}");
    checkup.passed("room", &followed);
    assert!(!checkup.all("warning").contains(&UPGRADE), "{checkup:?}");
    checkup.passed("membership", "joined");
    checkup.passed("encryption", "on");
    checkup.warned("commanders", alice.user_id().as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_re_pointed_alias_is_reported_and_the_stored_room_is_checked() {
    let alice = person("alice").await;
    let mut bot = bot().admin_room_by_alias().start(&alice).await;
    // The bot stores a room once it has received something in it.
    bot.request(&alice, "status").await;
    let text = std::fs::read_to_string(bot.data_dir().join("matrix/admin-room.json")).unwrap();
    let stored: Value = serde_json::from_str(&text).unwrap();
    let alias = RoomAliasId::parse(stored["configured"].as_str().unwrap()).unwrap();
    let known = bot.admin_room().to_owned();
    Checkup::of(&bot).passed("room", &format!("{alias} is {known}"));

    let options = RoomOptions {
        encrypted: true,
        ..RoomOptions::default()
    };
    let other = alice.create_room(options).await.unwrap();
    let client = alice.client();
    let remove = delete_alias::v3::Request::new(alias.clone());
    client.send(remove).await.unwrap();
    Checkup::of(&bot).passed("room", "led once");
    let add = create_alias::v3::Request::new(alias, other.clone());
    client.send(add).await.unwrap();
    let checkup = Checkup::of(&bot);
    let remedy = checkup.warned("room", &format!("leads to {other} now"));
    remedy.begins(&format!("set `admin_room: \"{known}\"`"));
    checkup.warned("commanders", alice.user_id().as_str());
    bot.reconfigure(|config| config["admin_room"] = json!(known));
    bot.restart(&alice).await;
    Checkup::of(&bot).passed("room", known.as_str());

    // The bot's record of the room is gone.
    let file = bot.data_dir().join("matrix/admin-room.json");
    std::fs::write(&file, "{").unwrap();
    let remedy = Checkup::of(&bot).failed("room", "admin-room.json is invalid");
    remedy.begins("delete it, and the bot goes to the room that the configuration names");
    bot.kill_9();
    std::fs::remove_file(&file).unwrap();
    bot.restart(&alice).await;
    Checkup::of(&bot).passed("room", known.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_share_a_room_need_names_and_the_power_to_announce_them() {
    let alice = person("alice").await;
    let mut first = bot().start(&alice).await;
    Checkup::of(&first).passed(HOSTS, "only this one");
    let host = |bot: &Bot, name: &str| bot.reconfigure(|config| config["host"] = json!(name));
    host(&first, "build1");
    let remedy = Checkup::of(&first).failed(HOSTS, "rcbot.host take power level 50");
    // Not level 50, which also allows kicking and banning.
    let set = "in the room's `m.room.power_levels` (in Element: `/devtools`) set \"rcbot.host\": 1 under `events`, ";
    let give = format!(
        "give {} power level 1, and restart the bot",
        first.user_id()
    );
    remedy.begins(&format!("{set}{give}"));
    let room = first.admin_room().to_owned();
    let events = alice.client().get_room(&room).unwrap();
    let mut levels = events.power_levels().await.unwrap();
    levels.events.insert("rcbot.host".into(), 1.into());
    levels.users.insert(first.user_id().to_owned(), 1.into());
    let levels = RoomPowerLevelsEventContent::try_from(levels).unwrap();
    events.send_state_event(levels).await.unwrap();
    first.restart(&alice).await;
    let user = first.user_id().as_str();
    until("the announcement", || {
        let mut events = alice.events().into_iter();
        events.any(|event| event.kind == "rcbot.host" && event.sender == user)
    })
    .await;
    Checkup::of(&first).passed(HOSTS, "build1, the only one so far");

    let second = bot().beside(&first).start(&alice).await;
    let remedy = Checkup::of(&second).failed(HOSTS, "(build1), and this one has no host name");
    remedy.begins("set `host` in config.yaml");
    host(&second, "build1");
    Checkup::of(&second).failed(HOSTS, "calls its host build1 too");
    host(&second, "build2");
    alice.set_power_level(&room, second.user_id(), 1).await;
    Checkup::of(&second).passed(HOSTS, "build2, beside build1");
}
