//! `rcbot check` and the admin room: for each fault the failed line, and that its remedy fixes it.

use matrix_sdk::ruma::{
    RoomVersionId,
    api::client::alias::create_alias,
    events::room::{
        join_rules::{JoinRule, RoomJoinRulesEventContent},
        power_levels::RoomPowerLevelsEventContent,
    },
};

use crate::support::{checkup::Checkup, homeserver::SERVER_NAME, prelude::*};

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_open_or_unencrypted_room_and_a_bot_outside_of_it_are_reported() {
    let alice = person("alice").await;
    let mut bot = bot().encrypted_admin_room(false).start(&alice).await;
    let id = bot.admin_room().to_owned();
    let alias = format!("#admins-{}:{SERVER_NAME}", random_text());
    bot.reconfigure(|config| config["admin_room"] = json!(alias));
    let checkup = Checkup::of(&bot);
    let remedy = checkup.failed("room", &format!("no room has the address {alias}"));
    remedy.begins("give the room this address");
    checkup.skipped("commanders", "\"admin room\" comes first");
    checkup.passed("sync", "");
    let request = create_alias::v3::Request::new(alias.try_into().unwrap(), id.clone());
    alice.client().send(request).await.unwrap();
    Checkup::of(&bot).passed("room", "");

    let room = alice.client().get_room(&id).unwrap();
    let join_rule = async |rule| {
        let content = RoomJoinRulesEventContent::new(rule);
        room.send_state_event(content).await.unwrap();
    };
    join_rule(JoinRule::Public).await;
    let remedy = Checkup::of(&bot).failed("access", "anybody can join");
    remedy.begins("make the room invite-only in its settings, or list");
    let list = |users: Value| bot.reconfigure(|config| config["authorization"]["users"] = users);
    list(json!([alice.user_id()]));
    Checkup::of(&bot).passed("access", "");
    list(json!([]));
    Checkup::of(&bot).failed("access", "");
    join_rule(JoinRule::Invite).await;
    Checkup::of(&bot).passed("access", "");

    let remedy = Checkup::of(&bot).warned("encryption", "off");
    remedy.is("turn on encryption in the room's settings");
    bot.reconfigure(|config| {
        config["encryption"] = json!({ "require_encrypted_commands": "always" });
    });
    Checkup::of(&bot).failed("encryption", "no command counts");
    room.enable_encryption().await.unwrap();
    Checkup::of(&bot).passed("encryption", "on");
    assert_bot_has_to_be_in_it(&mut bot, &alice).await;
}

async fn assert_bot_has_to_be_in_it(bot: &mut Bot, alice: &Person) {
    bot.terminate().await;
    let room = alice.room(bot.admin_room());
    room.kick_user(bot.user_id(), None).await.unwrap();
    let checkup = Checkup::of(bot);
    let remedy = checkup.failed("membership", "neither in the room nor invited");
    let invite = format!("invite {} to the room", bot.user_id());
    remedy.begins(&invite);
    checkup.skipped("commanders", "\"admin room membership\" comes first");
    room.ban_user(bot.user_id(), None).await.unwrap();
    let remedy = Checkup::of(bot).failed("membership", "neither");
    remedy.ends("lift the ban first");
    room.unban_user(bot.user_id(), None).await.unwrap();
    room.invite_user_by_id(bot.user_id()).await.unwrap();
    let checkup = Checkup::of(bot);
    checkup.passed("membership", "invited; the bot joins when it runs");
    checkup.skipped("commanders", "\"admin room membership\" comes first");
    bot.run();
    bot.wait_until_ready(alice).await;
    Checkup::of(bot).passed("membership", "joined");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_in_which_nobody_may_command_or_the_bot_may_not_send_is_reported() {
    let alice = person("alice").await;
    // Before version 12 its creator's power is a number.
    let bot = bot()
        .room_version(RoomVersionId::V11)
        .power_levels(json!({
            "users_default": 50,
            "events_default": 50,
            "events": { "m.room.encrypted": 50 },
        }))
        .start(&alice)
        .await;
    let level = |level: i64| {
        bot.reconfigure(|config| config["authorization"]["power_level"] = json!(level));
    };
    level(101);
    let remedy = Checkup::of(&bot).failed("commanders", "power level 101 is needed");
    remedy.says("or lower `authorization.power_level`");
    level(50);
    let remedy = Checkup::of(&bot).failed("access", "everybody in the room has power level 50");
    remedy.begins("lower the room's default power level below 50");
    let mut levels = alice
        .state(bot.admin_room(), "m.room.power_levels")
        .await
        .unwrap();
    levels["users_default"] = json!(49);
    let room = alice.client().get_room(bot.admin_room()).unwrap();
    let sent = room.send_state_event_raw("m.room.power_levels", "", levels);
    sent.await.unwrap();
    let checkup = Checkup::of(&bot);
    checkup.passed("access", "");
    let remedy = checkup.failed("power", "takes power level 50");
    remedy.is(&format!(
        "give {} power level 50 in the room's settings",
        bot.user_id()
    ));
    alice
        .set_power_level(bot.admin_room(), bot.user_id(), 50)
        .await;
    Checkup::of(&bot).passed("power", "may send messages");
    level(100);
    Checkup::of(&bot).warned("commanders", alice.user_id().as_str());

    let bob = person("bob").await;
    let user = bob.user_id();
    bot.reconfigure(|config| config["authorization"]["users"] = json!([user]));
    let remedy = Checkup::of(&bot).failed("commanders", "none is in the room");
    assert_eq!(
        remedy,
        format!("invite {user} to the room, and give them power level 100")
    );
    alice.invite(bot.admin_room(), user).await.unwrap();
    bob.join(bot.admin_room()).await;
    alice.set_power_level(bot.admin_room(), user, 100).await;
    Checkup::of(&bot).passed("commanders", user.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_share_a_room_need_names_and_the_power_to_announce_them() {
    let alice = person("alice").await;
    let mut first = bot().start(&alice).await;
    Checkup::of(&first).passed("hosts", "only this one");
    let host = |bot: &Bot, name: &str| bot.reconfigure(|config| config["host"] = json!(name));
    host(&first, "build1");
    let remedy = Checkup::of(&first).failed("hosts", "rcbot.host take power level 50");
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
    Checkup::of(&first).passed("hosts", "build1, the only one so far");

    let second = bot().beside(&first).start(&alice).await;
    let remedy = Checkup::of(&second).failed("hosts", "(build1), and this one has no host name");
    remedy.begins("set `host` in config.yaml");
    host(&second, "build1");
    Checkup::of(&second).failed("hosts", "calls its host build1 too");
    host(&second, "build2");
    alice.set_power_level(&room, second.user_id(), 1).await;
    Checkup::of(&second).passed("hosts", "build2, beside build1");
}
