//! Whether a command has to be encrypted, in an admin room that is not. The link is always encrypted. command/authorize has the
//! table of what each setting permits.

use crate::support::prelude::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_room_that_is_encrypted_later_takes_no_plain_command_from_then_on() {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let bot = bot()
        .encrypted_admin_room(false)
        .member(&bob, 100)
        .start(&alice)
        .await;
    let sent = bot.start_session(&alice, "website").await;
    // Where commands need no encryption, the sender's identity counts all the same.
    bot.request(&bob, "status").await;
    let intruder = bob.with_another_identity().await;
    let answer = bot.request(&intruder, "start").await;
    answer.says("your cross-signing identity has changed since I pinned it");
    bot.announcement(&alice, "The cross-signing identity of ")
        .await;
    let asked = bot.send(&intruder, "stop").await;
    bot.wait_for_refusal(&asked, "IdentityChanged").await;
    assert!(intruder.never_read(&sent.link));

    let room = alice.room(bot.admin_room());
    room.enable_encryption().await.unwrap();
    let asked = alice.send_plain_text(bot.admin_room(), "!rc stop").await;
    let answer = bot.answer(&alice, &asked).await;
    answer.says("your message was not encrypted, and has to be.");
    assert_eq!(bot.session_processes().len(), 1);
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_commands_need_no_encryption_plain_ones_count_and_those_of_unsigned_devices_do_not() {
    let alice = person("alice").await;
    let stolen = alice.second_device(false).await;
    let bot = bot()
        .configure(|config| {
            config["encryption"] = json!({ "require_encrypted_commands": "never" });
        })
        .start(&alice)
        .await;
    let asked = bot.send(&stolen, "start").await;
    bot.answer(&alice, &asked)
        .await
        .says("your device is not verified");
    assert_eq!(bot.standin_starts(), 0);

    let asked = alice.send_plain_text(bot.admin_room(), "!rc start").await;
    bot.answer(&alice, &asked).await.says("website is running");
    bot.link_after(&alice, 0).await;
}
