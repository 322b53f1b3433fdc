//! Whether a command has to be encrypted, in an admin room that is not. The link is always encrypted. command/authorize has the
//! table of what each setting permits.

use crate::support::prelude::*;

const REFUSAL: &str = "your message was not encrypted, and has to be.";

/// A bot with this setting in a room that is not encrypted.
async fn bot_in_plain_room(alice: &Person, setting: &str) -> Bot {
    let encryption = json!({ "require_encrypted_commands": setting });
    bot()
        .encrypted_admin_room(false)
        .configure(|config| config["encryption"] = encryption)
        .start(alice)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_room_in_which_no_command_counts_serves_once_it_is_encrypted() {
    let alice = person("alice").await;
    let bot = bot_in_plain_room(&alice, "always").await;
    bot.says(&alice, "start", REFUSAL).await;
    assert_eq!(bot.standin_starts(), 0);
    assert!(bot.links_of(&alice).is_empty());
    let room = alice.room(bot.admin_room());
    room.enable_encryption().await.unwrap();
    bot.start_session(&alice, "website").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_room_that_is_encrypted_later_takes_no_plain_command_from_then_on() {
    let alice = person("alice").await;
    let bot = bot_in_plain_room(&alice, "auto").await;
    let sent = bot.start_session(&alice, "website").await;
    let room = alice.room(bot.admin_room());
    room.enable_encryption().await.unwrap();
    let asked = alice.send_plain_text(bot.admin_room(), "!rc stop").await;
    bot.answer(&alice, &asked).await.says(REFUSAL);
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

#[tokio::test(flavor = "multi_thread")]
async fn in_a_plain_room_somebody_whose_identity_was_replaced_commands_nothing() {
    let alice = person("alice").await;
    let bot = bot_in_plain_room(&alice, "auto").await;
    let sent = bot.start_session(&alice, "website").await;
    let intruder = alice.with_another_identity().await;
    let answer = bot.request(&intruder, "start").await;
    answer.says("your cross-signing identity has changed since I pinned it");
    let asked = bot.send(&intruder, "stop").await;
    bot.wait_for_refusal(&asked, "IdentityChanged").await;
    bot.announcement(&intruder, "The cross-signing identity of ")
        .await;
    assert!(intruder.never_read(&sent.link));
    assert_eq!(bot.session_processes().len(), 1);
}
