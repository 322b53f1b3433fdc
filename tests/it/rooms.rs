//! The bot is in the admin room and in its direct messages, and in no others.

use matrix_sdk::ruma::{
    OwnedRoomId,
    api::client::room::create_room,
    events::room::join_rules::{JoinRule, RoomJoinRulesEventContent},
    serde::Raw,
};

use crate::support::{prelude::*, rooms::RoomOptions};

async fn room_with(bot: &Bot, maker: &Person) -> OwnedRoomId {
    let options = RoomOptions {
        encrypted: true,
        invite: vec![bot.user_id().to_owned()],
        ..RoomOptions::default()
    };
    maker.create_room(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_other_invitations_are_declined_and_the_rooms_forgotten() {
    let (alice, mallory) = (person("alice").await, person("mallory").await);
    let proxy = Proxy::start(homeserver()).await;
    let bot = bot().through(&proxy).start(&alice).await;
    bot.request(&alice, "status").await;
    let of_an_admin = room_with(&bot, &alice).await;
    let of_a_stranger = room_with(&bot, &mallory).await;
    // Whoever leaves this one with all that it names as its predecessors leaves the admin room.
    let mut request = create_room::v3::Request::new();
    let creation = json!({ "predecessor": { "room_id": bot.admin_room() } });
    request.creation_content = Some(Raw::new(&creation).unwrap().cast_unchecked());
    request.invite = vec![bot.user_id().to_owned()];
    let trap = mallory.client().create_room(request).await.unwrap();

    bot.wait_for_membership(&alice, &of_an_admin, "leave").await;
    for room in [&of_a_stranger, trap.room_id()] {
        bot.wait_for_membership(&mallory, room, "leave").await;
    }
    // Nothing is left of them, neither with the bot nor with the homeserver.
    for room in [&of_an_admin, &of_a_stranger, trap.room_id()] {
        eventually("the room is forgotten", async || {
            let forgets =
                |request: &Request| request.is_in(room) && request.path.ends_with("/forget");
            let forgotten = proxy.passed_by(forgets);
            forgotten.iter().any(|it| it.status == 200).then_some(())
        })
        .await;
    }
    // A declined room may invite again.
    mallory.invite(&of_a_stranger, bot.user_id()).await.unwrap();
    bot.wait_for_membership(&mallory, &of_a_stranger, "leave")
        .await;
    bot.request(&alice, "status").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bot_says_itself_and_what_is_said_in_a_room_of_no_use_to_it_is_no_command() {
    let alice = person("alice").await;
    let builder = bot().encrypted_admin_room(false);
    let levels = json!({ "users": { builder.user_id(): 100 } });
    let bot = builder.power_levels(levels).start(&alice).await;
    let own = bot.send_as_bot(bot.admin_room(), "!rc help").await;
    alice
        .sees("the bot's own event", |event| event.id == own)
        .await;

    let room = alice.create_room(RoomOptions::default()).await.unwrap();
    let open = RoomJoinRulesEventContent::new(JoinRule::Public);
    let known = alice.client().get_room(&room).unwrap();
    known.send_state_event(open).await.unwrap();
    bot.join_as_bot(&room).await;
    let asked = alice.send_text(&room, "!rc start").await.unwrap();
    bot.assert_no_session(&alice).await;
    assert!(alice.answers_to(&own).is_empty() && alice.answers_to(&asked).is_empty());
    assert_eq!(bot.standin_starts(), 0);
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
    let other = room_with(&bot, &alice).await;
    bot.wait_until_ready(&alice).await;
    bot.wait_for_membership(&alice, &other, "leave").await;
    let room = bot.admin_room();
    let leaves = |request: &Request| request.is_in(room) && request.path.ends_with("/leave");
    assert!(proxy.passed_by(leaves).is_empty());
}
