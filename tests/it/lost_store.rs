//! Losses of the bot's Matrix data, which it survives.

use std::fs;

use crate::support::{checkup::Checkup, prelude::*};

/// Kills the bot and removes all its Matrix data but the recovery key's file.
fn lose_all_but_the_recovery_key(bot: &mut Bot) {
    bot.kill_9();
    let folder = bot.data_dir().join("matrix");
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else if !path.ends_with("recovery-key") {
            fs::remove_file(path).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_with_nothing_but_its_recovery_key_has_its_identity_and_its_sessions() {
    let (alice, mut bot) = alice_and_bot().await;
    let first = bot.start_session(&alice, "website").await;
    let identity = bot.identity(&alice).await;

    lose_all_but_the_recovery_key(&mut bot);
    assert_comes_back(&mut bot, &alice, &identity).await;
    let status = bot.request(&alice, "status").await;
    status.begins("website: running");
    let second = bot.start_session(&alice, "website").await;
    assert_eq!(second.link, first.link);
    assert_eq!(bot.standin_starts(), 1);

    // The link that the lost device had sent is redacted too.
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &first).await;
    bot.wait_for_redaction(&alice, &second).await;
    bot.wait_until_no_process_is_left().await;
}

/// Runs the bot again: it has the same identity, and people can encrypt to its device.
async fn assert_comes_back(bot: &mut Bot, alice: &Person, identity: &str) {
    bot.run();
    bot.wait_until_connected(2).await;
    bot.wait_until_reached_at_its_device(alice).await;
    assert_eq!(bot.identity(alice).await, identity);
}

/// In a plain room: the next device could not decrypt an encrypted command anyway.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_before_the_store_was_lost_is_not_executed_again() {
    let alice = person("alice").await;
    let mut bot = bot().encrypted_admin_room(false).start(&alice).await;
    let sent = bot.start_session(&alice, "website").await;
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &sent).await;

    lose_all_but_the_recovery_key(&mut bot);
    bot.run();
    bot.wait_until_connected(2).await;
    bot.wait_until_reached_at_its_device(&alice).await;
    bot.assert_no_session(&alice).await;
    assert_eq!(bot.standin_starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_failed_without_the_recovery_key_does_not_change_the_remedy() {
    let (alice, mut bot) = alice_and_bot().await;
    bot.wait_until_connected(1).await;
    let identity = bot.identity(&alice).await;
    let folder = bot.data_dir().join("matrix");
    let key = fs::read_to_string(folder.join("recovery-key")).unwrap();
    bot.kill_9();
    fs::remove_dir_all(&folder).unwrap();
    for start in 1..=2 {
        bot.run();
        assert_eq!(bot.wait_for_exit().await.code(), Some(3), "start {start}");
        let remedy = Checkup::of(&bot).failed("identity", "neither its keys nor");
        remedy.begins("put your copy of the recovery key at");
    }
    fs::write(folder.join("recovery-key"), key).unwrap();
    assert_comes_back(&mut bot, &alice, &identity).await;
    bot.start_session(&alice, "website").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_out_without_a_recovery_key_discards_no_identity() {
    let (alice, mut bot) = alice_and_bot().await;
    bot.wait_until_connected(1).await;
    let identity = bot.identity(&alice).await;
    let folder = bot.data_dir().join("matrix");
    let recovery_key = fs::read(folder.join("recovery-key")).unwrap();
    bot.lose_recovery_key();
    bot.log_out(homeserver()).await;
    assert_eq!(bot.wait_for_exit().await.code(), Some(3));
    assert!(folder.join("store").exists());

    fs::write(folder.join("recovery-key"), recovery_key).unwrap();
    assert_comes_back(&mut bot, &alice, &identity).await;
    bot.start_session(&alice, "website").await;
}
