//! A device that its owner has signed can command and read; an unsigned one can do neither. A user without any device gets no
//! link.

use crate::support::prelude::*;

/// Whether the bot has sent this device a room key.
fn got_a_key(device: &Person, proxy: &Proxy) -> bool {
    let id = device.client().device_id().unwrap();
    proxy.keys_for(device.user_id()).contains(id.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn someone_with_the_password_but_no_cross_signing_gets_no_link_and_no_counted_command() {
    let alice = person("alice").await;
    let stolen = alice.second_device(false).await;
    let telephone = alice.second_device(true).await;
    let without = person_without_identity("bob").await;
    let proxy = Proxy::start(homeserver()).await;
    let bot = bot()
        .through(&proxy)
        .member(&without, 100)
        .start(&alice)
        .await;
    let asked = bot.send(&without, "start").await;
    let refusal = bot.answer(&alice, &asked).await;
    refusal.says("your device is not verified");
    assert_eq!(bot.standin_starts(), 0);
    let sent = bot.start_session(&alice, "website").await;
    assert!(got_a_key(&alice, &proxy) && got_a_key(&telephone, &proxy));
    let read = |event: &Event| event.id == sent.event.id && event.body().is_some();
    telephone.sees("the link", read).await;
    let asked = bot.send(&stolen, "start").await;
    let refusal = bot.answer(&alice, &asked).await;
    refusal.says("your device is not verified. Verify the device that you sent this with in its own settings");
    // The device cannot read that answer, but this reaction.
    let reaction = |event: &Event| {
        let relation = &event.json["content"]["m.relates_to"];
        relation["event_id"] == asked.as_str() && relation["key"] == "🔒 not verified"
    };
    stolen.sees("a reaction", reaction).await;
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &sent).await;
    assert!(!got_a_key(&stolen, &proxy));
    assert!(stolen.never_read(&sent.link) && bot.links_of(&without).is_empty());
    assert_eq!(bot.standin_starts(), 1);

    alice.verify(&stolen).await;
    let known = bot.links_of(&stolen).len();
    bot.request(&stolen, "start").await;
    bot.link_after(&stolen, known).await;
    assert_eq!(bot.standin_starts(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_sent_again_has_the_same_key_until_another_device_may_read_it() {
    let (alice, bot) = alice_and_bot().await;
    let key = async || {
        let sent = bot.start_session(&alice, "website").await;
        let encryption = sent.event.encryption.clone().unwrap();
        encryption.session_id().unwrap().to_owned()
    };
    let first = key().await;
    assert_eq!(key().await, first);
    let _telephone = alice.second_device(true).await;
    let with_telephone = key().await;
    assert_ne!(with_telephone, first);
    assert_eq!(key().await, with_telephone);
    bot.request(&alice, "stop").await;
    assert_ne!(key().await, with_telephone);
}
