//! The bot is in the admin room and in its direct messages, and in no others.

use crate::support::{prelude::*, rooms::RoomOptions};

#[tokio::test(flavor = "multi_thread")]
async fn all_other_invitations_are_declined_and_the_rooms_forgotten() {
    let mallory = person("mallory").await;
    let (alice, proxy, bot) = behind_proxy(|bot| bot).await;
    bot.request(&alice, "status").await;
    let looks = || {
        let room = bot.admin_room();
        let looks = |request: &Request| request.is_in(room) && request.path.ends_with("/state");
        proxy.passed_by(looks).len()
    };
    let before = looks();
    let of_an_admin = alice.create_admin_room(bot.user_id()).await.unwrap();
    let of_a_stranger = mallory.create_admin_room(bot.user_id()).await.unwrap();
    // It names the admin room as its predecessor: leaving it with its predecessors would leave the admin room.
    let options = RoomOptions {
        invite: vec![bot.user_id().to_owned()],
        creation: Some(json!({ "predecessor": { "room_id": bot.admin_room() } })),
        ..RoomOptions::default()
    };
    let trap = mallory.create_room(options).await.unwrap();

    bot.wait_for_membership(&alice, &of_an_admin, "leave").await;
    for room in [&of_a_stranger, &trap] {
        bot.wait_for_membership(&mallory, room, "leave").await;
    }
    // Neither the bot nor the homeserver keeps them.
    for room in [&of_an_admin, &of_a_stranger, &trap] {
        eventually("the room is forgotten", async || {
            let forgets =
                |request: &Request| request.is_in(room) && request.path.ends_with("/forget");
            let forgotten = proxy.passed_by(forgets);
            forgotten.iter().any(|it| it.status == 200).then_some(())
        })
        .await;
    }
    assert_eq!(looks(), before, "they say nothing of when the bot joined");
    // A second invitation to a declined room is declined too.
    mallory.invite(&of_a_stranger, bot.user_id()).await.unwrap();
    bot.wait_for_membership(&mallory, &of_a_stranger, "leave")
        .await;
    bot.request(&alice, "status").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_that_is_slow_to_look_up_the_alias_keeps_no_command_waiting() {
    let (alice, proxy, mut bot) = behind_proxy(BotBuilder::admin_room_by_alias).await;
    // It knows the room once it has answered in it, and has that on record.
    bot.request(&alice, "status").await;
    bot.kill_9();
    let held = proxy
        .on(|request| request.path.contains("/directory/room/"))
        .hold();
    bot.run();
    until("the alias is looked up", || held.has_caught()).await;
    bot.request(&alice, "status").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_invitation_is_declined_before_the_alias_of_the_admin_room_can_be_looked_up() {
    let alice = person("alice").await;
    let proxy = Proxy::start(homeserver()).await;
    proxy
        .on(|request| request.path.contains("/directory/room/"))
        .answer(Answer::error_page(502));
    let mut bot = bot()
        .admin_room_by_alias()
        .through(&proxy)
        .prepare(&alice)
        .await;
    bot.run();
    bot.wait_for_log_times("the admin room's alias cannot be looked up yet", 2)
        .await;
    proxy.be_honest();
    // The bot looks again when the next sync brings something.
    let other = alice.create_admin_room(bot.user_id()).await.unwrap();
    bot.wait_until_ready(&alice).await;
    bot.wait_for_membership(&alice, &other, "leave").await;
    let room = bot.admin_room();
    let leaves = |request: &Request| request.is_in(room) && request.path.ends_with("/leave");
    assert!(proxy.passed_by(leaves).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_that_can_neither_join_nor_leave_for_a_while_loses_no_invitation() {
    let (alice, mallory) = (person("alice").await, person("mallory").await);
    let proxy = Proxy::start(homeserver()).await;
    let mut bot = bot().through(&proxy).prepare(&alice).await;
    let first = mallory.create_admin_room(bot.user_id()).await.unwrap();
    let joins = |request: &Request| request.path.ends_with("/join");
    let leaves = |request: &Request| request.path.ends_with("/leave");
    // As often as the SDK tries on its own.
    proxy.on(leaves).times(3).answer(Answer::error_page(502));
    proxy.on(joins).answer(Answer::error_page(502));
    bot.run();
    let tries = |of: fn(&Request) -> bool| proxy.passed_by(of).len();
    until("the bot tries both", || {
        tries(leaves) >= 3 && tries(joins) >= 3
    })
    .await;
    // The bot tries again when the next sync brings something.
    let second = mallory.create_admin_room(bot.user_id()).await.unwrap();
    for room in [&first, &second] {
        bot.wait_for_membership(&mallory, room, "leave").await;
    }
    proxy.be_honest();
    mallory.create_admin_room(bot.user_id()).await.unwrap();
    bot.wait_until_ready(&alice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_was_banned_tries_no_join_and_is_back_once_it_is_unbanned_and_invited_again() {
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot).await;
    let (room, user) = (alice.room(bot.admin_room()), bot.user_id().to_owned());
    room.ban_user(&user, None).await.unwrap();
    let remedy =
        "removed from the admin room: invite the bot again; if it was banned, unban it before";
    bot.wait_for_log(remedy).await;
    bot.kill_9();
    bot.run();
    bot.wait_for_log("banned from the admin room: unban the bot, and invite it again")
        .await;
    let joins = |request: &Request| request.path.ends_with("/join");
    let before = proxy.passed_by(joins).len();
    for _ in 0..3 {
        let synced = proxy.passed_by(Request::is_sync).len();
        proxy.inject(json!({}));
        until("the next sync", || {
            proxy.passed_by(Request::is_sync).len() > synced
        })
        .await;
    }
    assert_eq!(proxy.passed_by(joins).len(), before);
    room.unban_user(&user, None).await.unwrap();
    alice.invite(bot.admin_room(), &user).await.unwrap();
    bot.wait_until_ready(&alice).await;
    bot.assert_no_session(&alice).await;
}
