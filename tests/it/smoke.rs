//! What all other tests rely on, without the bot: how clients show a message, and that encrypted text is in no file of the
//! homeserver.

use crate::support::prelude::*;

fn is_in_database(text: &str) -> bool {
    let mut files = homeserver().records().into_iter();
    files.any(|file| file.contains(text.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_show_who_sent_a_message_and_only_plain_text_is_in_the_database() {
    let alice = person("alice").await;
    let unsigned = alice.second_device(false).await;
    let carol = person_without_identity("carol").await;
    let bob = person("bob").await;
    let room = bob.create_admin_room(alice.user_id()).await.unwrap();
    bob.invite(&room, carol.user_id()).await.unwrap();

    for (person, text, encrypted, shield) in [
        (&alice, "well met by a signed device", true, "none"),
        (&unsigned, "well met by an unsigned one", true, "red: "),
        (
            &carol,
            "well met by somebody without an identity",
            true,
            "red: ",
        ),
        (&alice, "well met in the open", false, "not encrypted"),
    ] {
        person.sees("its join", |event| event.room == room).await;
        let sent = if encrypted {
            person.send_text(&room, text).await.unwrap()
        } else {
            person.send_plain_text(&room, text).await
        };
        let is_it = |event: &Event| event.id == sent && event.body().is_some();
        let heard = bob.sees(text, is_it).await;
        heard.is(text);
        assert_eq!(heard.sender, person.user_id());
        assert!(heard.shield().starts_with(shield), "{heard}");
        assert_eq!(is_in_database(text), !encrypted);
    }
}
