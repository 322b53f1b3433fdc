//! What becomes of a direct message between two links: whatever was done to it, the next link is read by its requester alone.

use matrix_sdk::ruma::RoomId;
use serde_json::json;

use crate::support::{
    bot::Bot,
    eventually, homeserver, person,
    person::Person,
    proxy::{Proxy, Request},
    rooms::assert_forbidden,
};

/// Leaves a room, or declines the invitation to it.
async fn leave(person: &Person, room: &RoomId) {
    let room = person.client().get_room(room).unwrap();
    room.leave().await.unwrap();
}

/// The one room to which this person is invited.
async fn invitation_of(person: &Person) -> matrix_sdk::Room {
    eventually("an invitation", async || {
        person.client().invited_rooms().pop()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_person_who_was_in_the_direct_message_between_two_links_reads_neither() {
    let (alice, mallory) = (person("alice").await, person("mallory").await);
    let proxy = Proxy::start(homeserver()).await;
    let bot = Bot::builder(homeserver())
        .through(&proxy)
        .start(&alice)
        .await;
    let first = bot.start_session(&alice, "website").await;
    // Only the bot may invite there; a homeserver that plays false can do it in its name.
    bot.bring_in_as_bot(&alice, first.room(), &mallory).await;
    leave(&mallory, first.room()).await;

    let second = bot.start_session(&alice, "website").await;
    assert_ne!(second.room(), first.room(), "it was not always between two");
    for sent in proxy.passed_by(Request::sends_to_devices) {
        let messages = &sent.request.json["messages"];
        assert!(messages.get(mallory.user_id().as_str()).is_none());
    }
    assert!(mallory.never_read(&first.link));
    let seen = mallory.events();
    assert!(seen.iter().all(|event| event.id != second.event.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requester_cannot_bring_a_third_person_into_the_direct_message() {
    let (alice, mallory) = (person("alice").await, person("mallory").await);
    let bot = Bot::builder(homeserver())
        .project("website", |project| project.standin("slow=1"))
        .start(&alice)
        .await;
    let asked = bot.send(&alice, "start").await;
    let room = eventually("the direct message is made", async || {
        let mut rooms = alice.client().joined_rooms();
        rooms.retain(|room| room.room_id() != bot.admin_room());
        rooms.pop()
    })
    .await;
    let room = room.room_id();
    let refused = alice.invite(room, mallory.user_id()).await;
    assert_forbidden(&refused.unwrap_err());
    let kind = "m.room.power_levels";
    let mut levels = alice.state(room, kind).await.unwrap();
    levels["users"][alice.user_id().as_str()] = 100.into();
    let known = alice.client().get_room(room).unwrap();
    let refused = known.send_state_event_raw(kind, "", levels).await;
    assert_forbidden(&refused.unwrap_err().into());
    bot.answer(&alice, &asked).await;
    let sent = bot.link_after(&alice, 0).await;
    assert_eq!(sent.room(), room);
    assert!(mallory.never_saw(room));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_the_direct_message_after_the_link_was_sent_reads_it() {
    let alice = person("alice").await;
    let bot = Bot::builder(homeserver()).start(&alice).await;
    alice.join_invitations(false);
    bot.request(&alice, "start").await;
    assert!(bot.links_of(&alice).is_empty());
    let room = invitation_of(&alice).await;
    alice.join(room.room_id()).await.unwrap();
    bot.link_after(&alice, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_declined_the_direct_message_is_invited_to_another_one() {
    let alice = person("alice").await;
    let bot = Bot::builder(homeserver()).start(&alice).await;
    alice.join_invitations(false);
    bot.request(&alice, "start").await;
    let declined = invitation_of(&alice).await;
    leave(&alice, declined.room_id()).await;

    alice.join_invitations(true);
    let sent = bot.start_session(&alice, "website").await;
    assert_ne!(sent.room(), declined.room_id());
    assert_eq!(bot.standin_starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_message_whose_encryption_was_altered_gets_no_link() {
    for content in [
        json!({ "algorithm": "m.olm.v1.curve25519-aes-sha2" }),
        json!({ "algorithm": "org.example.none" }),
        json!({}),
    ] {
        let alice = person("alice").await;
        let bot = Bot::builder(homeserver()).start(&alice).await;
        let first = bot.start_session(&alice, "website").await;
        bot.set_state_as_bot(&alice, first.room(), "m.room.encryption", &content)
            .await;
        let second = bot.start_session(&alice, "website").await;
        assert_ne!(second.room(), first.room(), "{content}");
        assert_eq!(second.link, first.link);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_message_that_everybody_may_look_into_shows_them_no_link() {
    let (alice, mallory) = (person("alice").await, person("mallory").await);
    let mut bot = Bot::builder(homeserver()).start(&alice).await;
    let first = bot.start_session(&alice, "website").await;
    for (kind, content) in [
        (
            "m.room.history_visibility",
            json!({ "history_visibility": "world_readable" }),
        ),
        ("m.room.join_rules", json!({ "join_rule": "public" })),
    ] {
        bot.set_state_as_bot(&alice, first.room(), kind, &content)
            .await;
    }
    let second = bot.start_session(&alice, "website").await;
    // Whoever comes in upon its picture ends the session.
    bot.wait_for_log_times("picture of the link sent", 2).await;
    mallory.join(first.room()).await.unwrap();
    let third = bot.start_session(&alice, "website").await;
    assert_ne!(third.room(), first.room());
    for sent in [first, second, third] {
        assert!(mallory.never_read(&sent.link));
    }
}
