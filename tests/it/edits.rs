//! Edits and undecryptable events are not executed, and are answered if their sender may command.

use matrix_sdk::ruma::OwnedEventId;

use crate::support::prelude::*;

const ANSWER: &str = "I take no commands from edits";

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_makes_a_command_of_a_message_is_answered_and_not_executed() {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let bot = bot().invite(bob.user_id()).start(&alice).await;
    // A misspelt command, and a message without the prefix.
    let misspelt = bot.send(&alice, "strat website").await;
    bot.answer(&alice, &misspelt).await;
    let without_prefix = alice.send_text(bot.admin_room(), "rc start").await.unwrap();
    for (message, count) in [(&misspelt, 2), (&without_prefix, 1)] {
        let edit = bot.edit(&alice, message, "start").await;
        let judged = bot.decision(&edit).await;
        judged.says("command=\"start\" decision=\"misused\" why=\"Edited\"");
        let answered = |event: &Event| {
            event.replies_to() == Some(message.as_str())
                && event.body().is_some_and(|body| body.contains(ANSWER))
        };
        let answer = alice.sees("an answer to the edit", answered).await;
        answer.says("send it as a new message");
        assert_eq!(alice.answers_to(message).len(), count);
    }
    // No answer to an edit of an executed command, nor to one of a user who may not command.
    let executed = bot.send(&alice, "status").await;
    bot.answer(&alice, &executed).await;
    let edit = bot.edit(&alice, &executed, "start").await;
    bot.decision(&edit).await.says("executed before");
    let of_bob = bob.send_text(bot.admin_room(), "rc start").await.unwrap();
    let edit = bot.edit(&bob, &of_bob, "start").await;
    bot.wait_for_refusal(&edit, "PowerLevel { has: 0, needs: 100 }")
        .await;
    // Nor to an edit of somebody else's message.
    let edit = bot.edit(&alice, &of_bob, "start").await;
    bot.wait_for_refusal(&edit, "Redacted").await;

    bot.assert_no_session(&alice).await;
    assert_eq!(bot.standin_starts(), 0);
    alice.catch_up().await;
    assert_eq!(alice.answers_to(&executed).len(), 1);
    assert!(alice.answers_to(&of_bob).is_empty());
}

/// Nobody waits for an answer to it.
#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_an_old_message_is_not_answered() {
    let (alice, proxy, bot) = behind_proxy(|bot| bot).await;
    let message = alice.send_text(bot.admin_room(), "rc start").await.unwrap();
    let path = format!("/event/{message}");
    proxy
        .on(move |request| request.path.ends_with(&path))
        .rewrite(|_, event| event["origin_server_ts"] = json!(1));
    let edit = bot.edit(&alice, &message, "start").await;
    bot.wait_for_refusal(&edit, "TooOld").await;
    bot.assert_no_session(&alice).await;
    alice.catch_up().await;
    assert!(alice.answers_to(&message).is_empty());
}

/// Sends an event that nobody can decrypt.
async fn send_undecryptable(person: &Person, bot: &Bot) -> OwnedEventId {
    let device = person.client().device_id().unwrap();
    let content = json!({
        "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "AwgAEpAB", "device_id": device,
        "sender_key": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "session_id": "c2Vzc2lvbg",
    });
    let room = bot.admin_room();
    person
        .send_as_it_is(room, "m.room.encrypted", &content)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecryptable_sender_is_answered_again_once_their_devices_have_changed() {
    let alice = person("alice").await;
    let telephone = alice.second_device(false).await;
    let mut bot = bot().start(&alice).await;
    let first = send_undecryptable(&telephone, &bot).await;
    let answer = bot.answer(&alice, &first).await;
    answer.says("I could not decrypt this.");
    let second = send_undecryptable(&telephone, &bot).await;
    bot.wait_for_log_times("event in the admin room cannot be decrypted", 2)
        .await;
    // As the answer said.
    alice.verify(&telephone).await;
    bot.request(&alice, "status").await;
    let third = send_undecryptable(&telephone, &bot).await;
    bot.answer(&alice, &third)
        .await
        .says("I could not decrypt this.");
    assert!(alice.answers_to(&second).is_empty());
}
