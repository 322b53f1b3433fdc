//! However a direct message changes between two links, only the requester reads the next link.

use std::time::Duration;

use matrix_sdk::ruma::RoomId;

use crate::support::prelude::*;

/// The only room to which this person is invited.
async fn invitation_of(person: &Person) -> matrix_sdk::Room {
    eventually("an invitation", async || {
        person.client().invited_rooms().pop()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_message_that_was_altered_or_left_gets_no_link_and_another_one_replaces_it() {
    let mallory = person("mallory").await;
    let (alice, bot) = alice_and_bot().await;
    let mut last = bot.start_session(&alice, "website").await;
    for content in [
        json!({ "algorithm": "m.olm.v1.curve25519-aes-sha2" }),
        json!({ "algorithm": "org.example.none" }),
        json!({}),
    ] {
        bot.set_state_as_bot(last.room(), "m.room.encryption", &content)
            .await;
        let next = bot.start_session(&alice, "website").await;
        assert_ne!(next.room(), last.room(), "{content}");
        assert_eq!(next.link, last.link);
        last = next;
    }

    // The history is world-readable, and somebody joins.
    for (kind, key, value) in [
        (
            "m.room.history_visibility",
            "history_visibility",
            "world_readable",
        ),
        ("m.room.join_rules", "join_rule", "public"),
    ] {
        let content = json!({ key: value });
        bot.set_state_as_bot(last.room(), kind, &content).await;
    }
    let opened = bot.start_session(&alice, "website").await;
    mallory.join(last.room()).await;
    let next = bot.start_session(&alice, "website").await;
    assert_ne!(next.room(), last.room());
    assert!(mallory.never_read(&next.link) && mallory.never_read(&opened.link));
    assert_leaving_brings_another(&bot, &alice, &next).await;
}

/// After leaving, also an invitation, a user gets another direct message, and reads the link once they join.
async fn assert_leaving_brings_another(bot: &Bot, alice: &Person, last: &LinkMessage) {
    alice.join_invitations(false);
    alice.room(last.room()).leave().await.unwrap();
    let known = bot.links_of(alice).len();
    bot.request(alice, "start").await;
    let declined = invitation_of(alice).await;
    declined.leave().await.unwrap();
    bot.request(alice, "start").await;
    assert_eq!(bot.links_of(alice).len(), known);
    let room = invitation_of(alice).await;
    assert_ne!(room.room_id(), declined.room_id());
    alice.join(room.room_id()).await;
    let sent = bot.link_after(alice, known).await;
    assert_eq!(sent.room(), room.room_id());
    // The next link goes into the same room.
    let next = bot.start_session(alice, "website").await;
    assert_eq!(next.room(), sent.room());
    assert_eq!(bot.standin_starts(), 1);
}

/// How often the bot has queried a room before it last sent something there.
fn queries_before_sending(proxy: &Proxy, room: &RoomId) -> usize {
    let mut passed = proxy.passed_by(|request| request.is_in(room));
    let last = passed.iter().rposition(|passed| {
        passed.request.sends() && passed.request.path.contains("/m.room.encrypted/")
    });
    passed.truncate(last.unwrap_or(0));
    passed.retain(|passed| passed.request.reads_state());
    passed.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_message_is_proved_while_its_requester_is_judged_and_again_after_two_seconds() {
    let (alice, proxy, bot) = behind_proxy(|bot| bot).await;
    let room = bot.start_session(&alice, "website").await.room().to_owned();
    let looks = || {
        let looks = in_room(&room, Request::reads_state);
        proxy.passed_by(looks).len()
    };
    let before = looks();
    let held = proxy.on(Request::reads_event).times(1).hold();
    let known = bot.links_of(&alice).len();
    bot.send(&alice, "start").await;
    until("the room is looked at", || {
        held.has_caught() && looks() > before
    })
    .await;
    assert_eq!(looks(), before + 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    drop(held);
    bot.link_after(&alice, known).await;
    assert_eq!(queries_before_sending(&proxy, &room), before + 2);
}
