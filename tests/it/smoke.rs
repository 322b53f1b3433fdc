//! The ground that all other tests stand on, tried without the bot.

use matrix_sdk::deserialized_responses::{VerificationLevel, VerificationState};

use crate::support::{
    homeserver,
    person::{CrossSigning, Person},
    rooms::RoomOptions,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_message_is_decrypted_by_another_client() {
    let alice = Person::register(homeserver(), "alice").await.unwrap();
    let bob = Person::register(homeserver(), "bob").await.unwrap();
    let room = alice.create_admin_room(bob.user_id()).await.unwrap();
    let sent = alice.say(&room, "well met").await.unwrap();

    let heard = bob
        .wait_for("the message", |event| {
            event.id == sent && event.body().is_some()
        })
        .await
        .unwrap();
    assert_eq!(heard.body(), Some("well met"));
    assert_eq!(heard.sender, alice.user_id());
    assert_eq!(heard.shield(), "none");
    let state = &heard.encryption.unwrap().verification_state;
    assert_eq!(
        state,
        &VerificationState::Unverified(VerificationLevel::UnverifiedIdentity)
    );
    let stored = bob.event_from_server(&room, &sent).await.unwrap();
    assert_eq!(stored["type"], "m.room.encrypted");
    assert!(!homeserver().database_contains("well met").unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_signed_only_where_that_was_asked_for() {
    let alice = Person::register(homeserver(), "alice").await.unwrap();
    let signed = alice.second_device(true).await.unwrap();
    let unsigned = alice.second_device(false).await.unwrap();
    let plain = Person::register_with(homeserver(), "carol", CrossSigning::Without)
        .await
        .unwrap();
    let bob = Person::register(homeserver(), "bob").await.unwrap();
    let invite = vec![alice.user_id().to_owned(), plain.user_id().to_owned()];
    let options = RoomOptions {
        encrypted: true,
        invite,
        ..RoomOptions::default()
    };
    let room = bob.create_room(options).await.unwrap();

    for (person, level) in [
        (&alice, VerificationLevel::UnverifiedIdentity),
        (&signed, VerificationLevel::UnverifiedIdentity),
        (&unsigned, VerificationLevel::UnsignedDevice),
        (&plain, VerificationLevel::UnsignedDevice),
    ] {
        person
            .wait_for("its join", |event| event.room == room)
            .await
            .unwrap();
        let sent = person.say(&room, "hello").await.unwrap();
        let heard = bob
            .wait_for("the message", |event| {
                event.id == sent && event.body().is_some()
            })
            .await
            .unwrap();
        assert_eq!(
            heard.encryption.unwrap().verification_state,
            VerificationState::Unverified(level)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_in_an_encrypted_room_is_seen_as_such() {
    let alice = Person::register(homeserver(), "alice").await.unwrap();
    let bob = Person::register(homeserver(), "bob").await.unwrap();
    bob.join_invitations(false);
    let room = alice.create_admin_room(bob.user_id()).await.unwrap();
    assert_eq!(
        alice.members(&room).await.unwrap()[bob.user_id().as_str()],
        "invite"
    );
    bob.join(&room).await.unwrap();
    assert_eq!(
        alice.members(&room).await.unwrap()[bob.user_id().as_str()],
        "join"
    );

    let sent = alice.say_plain(&room, "in the open").await.unwrap();
    let heard = bob
        .wait_for("the message", |event| event.id == sent)
        .await
        .unwrap();
    assert_eq!(heard.body(), Some("in the open"));
    assert_eq!(heard.shield(), "not encrypted");
    assert!(homeserver().database_contains("in the open").unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_can_go_away_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut homeserver = crate::support::start_homeserver(folder.path()).unwrap();
    let alice = Person::register(&homeserver, "alice").await.unwrap();
    let room = alice.create_room(RoomOptions::default()).await.unwrap();
    homeserver.stop();
    homeserver.start_again().unwrap();
    let sent = alice.say(&room, "back again").await.unwrap();
    alice
        .wait_for("her own message", |event| event.id == sent)
        .await
        .unwrap();
}
