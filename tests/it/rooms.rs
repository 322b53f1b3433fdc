//! The bot is in the rooms of those who may command, and in no others; and nothing that is said there is a command.

use matrix_sdk::ruma::{
    OwnedRoomId, RoomId,
    api::client::room::create_room,
    events::room::join_rules::{JoinRule, RoomJoinRulesEventContent},
    serde::Raw,
};
use serde_json::json;

use crate::support::{
    assert_says,
    bot::Bot,
    event::Event,
    eventually, homeserver, person,
    person::Person,
    proxy::{Proxy, Request},
    rooms::RoomOptions,
};

const NOT_HERE: &str = "Commands count only in the admin room: ";
const HINT: &str = "I am a bot, and understand nothing here but `help`.";

async fn room_with(bot: &Bot, maker: &Person) -> OwnedRoomId {
    let options = RoomOptions {
        encrypted: true,
        invite: vec![bot.user_id().to_owned()],
        ..RoomOptions::default()
    };
    maker.create_room(options).await.unwrap()
}

/// What the bot answers, which is encrypted like all that it says there.
async fn request(person: &Person, room: &RoomId, text: &str) -> Event {
    let said = person.send_text(room, text).await.unwrap();
    let answer = person
        .wait_for(&format!("the answer to {text:?}"), |event| {
            event.replies_to() == Some(said.as_str()) && event.body().is_some()
        })
        .await
        .unwrap();
    assert_eq!(answer.message_type(), Some("m.notice"));
    assert_eq!(answer.shield(), "none");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn invitations_of_those_who_may_not_command_are_declined() {
    let (alice, bob, mallory) = (
        person("alice").await,
        person("bob").await,
        person("mallory").await,
    );
    let proxy = Proxy::start(homeserver()).await;
    let bot = Bot::builder(homeserver())
        .through(&proxy)
        .invite(bob.user_id())
        .start(&alice)
        .await;
    bot.request(&alice, "status").await;
    let of_a_member = room_with(&bot, &bob).await;
    let of_a_stranger = room_with(&bot, &mallory).await;
    // Whoever leaves this one with all that it names as its predecessors leaves the admin room.
    let mut request = create_room::v3::Request::new();
    let creation = json!({ "predecessor": { "room_id": bot.admin_room() } });
    request.creation_content = Some(Raw::new(&creation).unwrap().cast_unchecked());
    request.invite = vec![bot.user_id().to_owned()];
    let trap = mallory.client().create_room(request).await.unwrap();

    bot.wait_for_membership(&bob, &of_a_member, "leave").await;
    for room in [&of_a_stranger, trap.room_id()] {
        bot.wait_for_membership(&mallory, room, "leave").await;
    }
    // Nothing is left of them, neither with the bot nor with the homeserver.
    for room in [&of_a_member, &of_a_stranger, trap.room_id()] {
        eventually("the room is forgotten", async || {
            let forgets =
                |request: &Request| request.is_in(room) && request.path.ends_with("/forget");
            let forgotten = proxy.passed_by(forgets);
            forgotten.iter().any(|it| it.status == 200).then_some(())
        })
        .await;
    }
    bot.request(&alice, "status").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_command_can_talk_to_the_bot_anywhere_and_is_told_where_commands_count() {
    let alice = person("alice").await;
    let mut bot = Bot::builder(homeserver())
        .admin_room_by_alias()
        .start(&alice)
        .await;
    bot.request(&alice, "status").await;
    let room = room_with(&bot, &alice).await;
    bot.wait_until_in(&alice, &room).await;
    for text in ["Help", "!rc help"] {
        let answer = request(&alice, &room, text).await;
        assert_says(&answer, "`!rc start [project]`: start a session");
        assert_says(&answer, &format!("{NOT_HERE}#admins-"));
    }
    assert_says(&request(&alice, &room, "!rc start").await, NOT_HERE);
    assert_says(&request(&alice, &room, "Good morning").await, HINT);
    let chat = alice.send_text(&room, "How are you?").await.unwrap();
    request(&alice, &room, "help").await;
    let answered = |event: &Event| event.replies_to() == Some(chat.as_str());
    assert!(!alice.events().iter().any(answered), "one hint is enough");
    assert_eq!(bot.standin_starts(), 0);

    // Links go where only the bot has a say, and there it talks in the same way.
    let sent = bot.start_session(&alice, "website").await;
    assert_ne!(*sent.room(), room);
    assert_says(&request(&alice, sent.room(), "!rc stop").await, NOT_HERE);
    assert_says(&request(&alice, sent.room(), "help").await, NOT_HERE);
    assert_eq!(bot.session_processes().len(), 1);

    bot.restart(&alice).await;
    assert_says(&request(&alice, &room, "help").await, NOT_HERE);
    let another = room_with(&bot, &alice).await;
    bot.wait_until_in(&alice, &another).await;
    bot.wait_for_membership(&alice, &room, "leave").await;
    assert_says(&request(&alice, &another, "help").await, NOT_HERE);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_room_that_somebody_made_for_the_bot_nobody_else_is_answered() {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let bot = Bot::builder(homeserver()).start(&alice).await;
    bot.request(&alice, "status").await;
    let room = room_with(&bot, &alice).await;
    bot.wait_until_in(&alice, &room).await;
    alice.invite(&room, bob.user_id()).await.unwrap();
    bob.wait_for("the join", |event| event.room == room)
        .await
        .unwrap();
    let asked = bob.send_text(&room, "!rc help").await.unwrap();
    alice
        .wait_for("what Bob said", |event| event.id == asked)
        .await
        .unwrap();
    request(&alice, &room, "help").await;
    let answered = |event: &Event| event.replies_to() == Some(asked.as_str());
    assert!(!alice.events().iter().any(answered));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_room_that_is_nobodys_the_bot_says_nothing() {
    let alice = person("alice").await;
    let bot = Bot::builder(homeserver()).start(&alice).await;
    let room = alice.create_room(RoomOptions::default()).await.unwrap();
    let open = RoomJoinRulesEventContent::new(JoinRule::Public);
    let known = alice.client().get_room(&room).unwrap();
    known.send_state_event(open).await.unwrap();
    bot.join_as_bot(&alice, &room).await;
    let asked = alice.send_text(&room, "!rc start").await.unwrap();
    let status = bot.request(&alice, "status").await;
    assert_eq!(status.body(), Some("website: no session"));
    let answered = |event: &Event| event.replies_to() == Some(asked.as_str());
    assert!(!alice.events().iter().any(answered));
    assert_eq!(bot.standin_starts(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_waits_while_the_bot_cannot_tell_who_may_command() {
    let alice = person("alice").await;
    let mut bot = Bot::builder(homeserver()).start(&alice).await;
    bot.request(&alice, "status").await;
    let admin_room = alice.client().get_room(bot.admin_room()).unwrap();
    admin_room.kick_user(bot.user_id(), None).await.unwrap();
    bot.wait_for_log("removed from the admin room").await;
    let room = room_with(&bot, &alice).await;
    bot.wait_for_log("invitation not decided about yet").await;
    bot.wait_for_membership(&alice, &room, "invite").await;
    alice.invite(bot.admin_room(), bot.user_id()).await.unwrap();
    bot.wait_until_in(&alice, &room).await;
    assert_says(&request(&alice, &room, "help").await, NOT_HERE);
}
