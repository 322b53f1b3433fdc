//! A link goes to the requester's signed devices only, in a room of two that was checked a moment before.

use matrix_sdk::ruma::RoomId;

use crate::support::{prelude::*, rooms::assert_forbidden};

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_cross_signing_gets_no_report_and_no_link_whether_a_session_runs_or_not() {
    let alice = person("alice").await;
    let bob = person_without_identity("bob").await;
    let bot = bot()
        .encrypted_admin_room(false)
        .member(&bob, 100)
        .start(&alice)
        .await;
    let answer = bot.request(&bob, "start").await;
    answer.says("I cannot send you the link for website: ");
    answer.says("your account has no cross-signing identity");
    answer.says("Set up encryption (secure backup)");
    assert_eq!(bot.standin_starts(), 0);
    // Nor a report, and the next report does not wait for that.
    let answer = bot.request(&bob, "doctor").await;
    answer.begins("I cannot send you the report: your account has no cross-signing identity");
    let answer = bot.request(&alice, "doctor").await;
    answer.ends(" The report is in our direct message.");

    let sent = bot.start_session(&alice, "website").await;
    let answer = bot.request(&bob, "start").await;
    answer.says("no cross-signing identity");
    assert!(bot.links_of(&bob).is_empty() && bob.never_read(&sent.link));
    // Bob's refused command does not end the session.
    let status = bot.request(&alice, "status").await;
    status.says("website: running");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_devices_any_an_unsigned_device_commands_and_reads() {
    let alice = person_without_identity("alice").await;
    let bot = bot()
        .configure(|config| config["encryption"] = json!({ "devices": "any" }))
        .start(&alice)
        .await;
    bot.start_session(&alice, "website").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_administrators_get_the_same_link_each_in_their_own_direct_message() {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let bot = bot().member(&bob, 100).start(&alice).await;
    let to_alice = bot.start_session(&alice, "website").await;
    assert_closed(&alice, to_alice.room(), &bob).await;
    bot.request(&bob, "status").await;
    assert!(bob.never_read(&to_alice.link) && bot.links_of(&bob).is_empty());
    assert!(bob.client().invited_rooms().is_empty());
    let to_bob = bot.start_session(&bob, "website").await;
    assert_eq!(to_bob.link, to_alice.link);
    assert_ne!(to_bob.room(), to_alice.room());
    assert_eq!(bot.standin_starts(), 1);
    assert!(alice.never_saw(to_bob.room()) && bob.never_saw(to_alice.room()));

    // A stop rings for nobody, and its requester gets no further message.
    bot.request(&bob, "stop").await;
    bot.wait_for_redaction(&alice, &to_alice).await;
    bot.wait_for_redaction(&bob, &to_bob).await;
    let over = "I deleted the message with its link";
    let word = bot.private_message(&alice, over).await;
    assert_eq!(word.message_type(), Some("m.notice"), "{word}");
    assert!(bob.never_read(over));
}

/// Only the bot can change the direct message or invite others, from its beginning on.
async fn assert_closed(alice: &Person, room: &RoomId, bob: &Person) {
    for (kind, key, value) in [
        ("m.room.encryption", "algorithm", "m.megolm.v1.aes-sha2"),
        ("m.room.history_visibility", "history_visibility", "invited"),
        ("m.room.guest_access", "guest_access", "forbidden"),
        ("m.room.join_rules", "join_rule", "invite"),
    ] {
        let state = alice.state(room, kind).await.unwrap();
        assert_eq!(state[key], value, "{kind}");
    }
    let previews = alice.state(room, "org.matrix.room.preview_urls");
    assert_eq!(previews.await, Some(json!({ "disable": true })));
    let kind = "m.room.power_levels";
    let mut levels = alice.state(room, kind).await.unwrap();
    assert_eq!(levels["invite"], 100);
    assert_eq!(levels["state_default"], 100);
    assert_eq!(levels["users"].get(alice.user_id().as_str()), None);
    // The room is encrypted before anybody can join: no message can be in plain text.
    let mut first = alice.events();
    first.retain(|event| event.room == room);
    let position = |kind: &str| first.iter().position(|event| event.kind == kind).unwrap();
    assert!(position("m.room.encryption") < position("m.room.message"));

    let refused = alice.invite(room, bob.user_id()).await;
    assert_forbidden(&refused.unwrap_err());
    levels["users"][alice.user_id().as_str()] = 100.into();
    let known = alice.room(room);
    let refused = known.send_state_event_raw(kind, "", levels).await;
    assert_forbidden(&refused.unwrap_err().into());
    assert_eq!(alice.members(room).await.unwrap().len(), 2);
}
