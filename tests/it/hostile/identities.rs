//! Devices and identities that are not the user's own.

use serde_json::json;

use super::{administrator_and_bot, answer_to, assert_says, person, sessions};
use crate::support::{bot::Bot, eventually, homeserver, impostor::Impostor, proxy::Proxy};

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_the_homeserver_adds_gets_no_key_and_commands_nothing() {
    let (alice, proxy, bot) = administrator_and_bot(|bot, _| bot).await;
    let impostor = Impostor::device_of(alice.user_id()).await;
    impostor.show(&proxy);
    let room = bot.admin_room().to_owned();
    let forged = impostor
        .send_text(&proxy, &alice, bot.user_id(), &room, "!rc start")
        .await;
    let answer = answer_to(&bot, &alice, &forged).await;
    assert_says(&answer, "your device is not verified.");
    assert_eq!(sessions(&bot), 0);

    bot.start_session(&alice, "website").await;
    assert!(!impostor.got_a_key(&proxy));
    assert_eq!(bot.standin_starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_in_the_place_of_the_administrators_own_gets_no_link_and_commands_nothing() {
    let (alice, proxy, mut bot) =
        administrator_and_bot(|bot, _| bot.project("website", |project| project.standin("held")))
            .await;
    bot.send(&alice, "start").await;
    eventually("the stand-in starts", async || {
        (bot.standin_starts() == 1).then_some(())
    })
    .await;
    let impostor = Impostor::identity_of(alice.user_id()).await;
    impostor.show(&proxy);
    bot.release_links();
    // What the bot says now is for the impostor's device alone, so the log tells it.
    bot.wait_for_log("why=\"IdentityChanged\"").await;
    let room = bot.admin_room().to_owned();
    impostor
        .send_text(&proxy, &alice, bot.user_id(), &room, "!rc start")
        .await;
    bot.wait_for_log_times("why=\"IdentityChanged\"", 2).await;
    let links = proxy.passed_by(|request| request.sends() && !request.is_in(&room));
    assert!(links.is_empty(), "{links:?}");

    proxy.be_honest();
    bot.start_session(&alice, "website").await;
    assert_eq!(sessions(&bot), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_an_identity_that_was_shown_for_a_while_commands_nothing_afterwards() {
    let alice = person("alice").await;
    let users = json!({ alice.user_id(): alice.master_key().await.unwrap() });
    let proxy = Proxy::start(homeserver()).await;
    let mut bot = Bot::builder(homeserver())
        .through(&proxy)
        .configure(|config| config["authorization"]["users"] = users)
        .start(&alice)
        .await;
    let impostor = Impostor::identity_of(alice.user_id()).await;
    impostor.show(&proxy);
    let room = bot.admin_room().to_owned();
    impostor
        .send_text(&proxy, &alice, bot.user_id(), &room, "!rc start")
        .await;
    bot.wait_for_log("why=\"IdentityChanged\"").await;

    // The SDK remembers with the Megolm session that its sender was signed by the owner: by the one that was shown then.
    proxy.be_honest();
    impostor
        .send_text(&proxy, &alice, bot.user_id(), &room, "!rc start")
        .await;
    bot.wait_for_log("why=\"UnsignedDevice\"").await;
    assert_eq!(sessions(&bot), 0);
    bot.start_session(&alice, "website").await;
}
