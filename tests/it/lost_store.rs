//! Losses of the bot's Matrix data, which it survives, or of which the operator hears what to do.

use std::fs;

use crate::support::{
    checkup::Checkup, host::set_mode, prelude::*, program::Ended as _, run_to_end,
};

/// Kills the bot and removes all its Matrix data. Returns the recovery key.
fn lose_everything(bot: &mut Bot) -> String {
    bot.kill_9();
    let folder = bot.data_dir().join("matrix");
    let key = fs::read_to_string(folder.join("recovery-key")).unwrap();
    fs::remove_dir_all(folder).unwrap();
    key
}

/// Runs the bot again: it has the same identity, and people can encrypt to its device.
async fn assert_comes_back(bot: &mut Bot, alice: &Person, identity: &str) {
    let connections = bot.connections();
    bot.run();
    bot.wait_until_connected(connections + 1).await;
    bot.wait_until_reached_at_its_device(alice).await;
    assert_eq!(bot.identity(alice).await, identity);
}

/// In a plain room: the next device could not decrypt an encrypted command anyway.
#[tokio::test(flavor = "multi_thread")]
async fn a_bot_with_nothing_but_its_recovery_key_has_its_identity_and_sessions_and_repeats_no_command()
 {
    let alice = person("alice").await;
    let mut bot = bot().encrypted_admin_room(false).start(&alice).await;
    let former = bot.start_session(&alice, "website").await;
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &former).await;
    let first = bot.start_session(&alice, "website").await;
    let identity = bot.identity(&alice).await;

    let key = lose_everything(&mut bot);
    let folder = bot.data_dir().join("matrix");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("recovery-key"), key).unwrap();
    set_mode(&folder, 0o700);
    set_mode(&folder.join("recovery-key"), 0o600);
    assert_comes_back(&mut bot, &alice, &identity).await;
    let status = bot.request(&alice, "status").await;
    status.begins("website: running");
    let second = bot.start_session(&alice, "website").await;
    assert_eq!(second.link, first.link);
    assert_eq!(bot.standin_starts(), 2);

    // The link that the lost device had sent is redacted too.
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &first).await;
    bot.wait_for_redaction(&alice, &second).await;
    bot.wait_until_no_process_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_key_in_the_environment_brings_the_bots_identity_back() {
    let (alice, mut bot) = alice_and_bot().await;
    bot.start_session(&alice, "website").await;
    let before = bot.identity(&alice).await;
    let key = lose_everything(&mut bot);
    // A failed start does not change the remedy.
    for start in 1..=2 {
        bot.run();
        assert_eq!(bot.wait_for_exit().await.code(), Some(3), "start {start}");
        let remedy = Checkup::of(&bot).failed("identity", "neither its keys nor");
        remedy.begins("put your copy of the recovery key at");
    }
    bot.set_variable("RCBOT_RECOVERY_KEY", "EsT wrong");
    bot.run();
    assert_eq!(bot.wait_for_exit().await.code(), Some(3));
    bot.log()
        .says("the recovery key in the variable RCBOT_RECOVERY_KEY does not bring back");

    bot.set_variable("RCBOT_RECOVERY_KEY", &key);
    // The device that was lost is still there, and signed.
    assert_comes_back(&mut bot, &alice, &before).await;
    assert!(!bot.data_dir().join("matrix/recovery-key").exists());
    let known = bot.links_of(&alice).len();
    bot.send(&alice, "start").await;
    bot.link_after(&alice, known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_recovery_key_only_the_operator_resets_the_bots_identity() {
    let (alice, mut bot) = alice_and_bot().await;
    let sent = bot.start_session(&alice, "website").await;
    let before = bot.identity(&alice).await;
    let recovery_key = bot.data_dir().join("matrix/recovery-key");

    // A log-out discards no identity.
    let key = fs::read(&recovery_key).unwrap();
    bot.lose_recovery_key();
    bot.log_out(homeserver()).await;
    assert_eq!(bot.wait_for_exit().await.code(), Some(3));
    let remedy =
        "`rcbot reset-identity --config` and the path of your config.yaml makes a new identity";
    bot.log().says(remedy);
    bot.log().says("and there is no recovery key");
    assert!(bot.data_dir().join("matrix/store").exists());
    fs::write(&recovery_key, key).unwrap();
    assert_comes_back(&mut bot, &alice, &before).await;

    bot.reset_identity().failed(1).says("another rcbot runs");
    lose_everything(&mut bot);
    let mut without_terminal = bot.command("reset-identity");
    let output = run_to_end(&mut without_terminal);
    output.says("aborted, nothing was changed");
    assert!(!output.status.success());
    assert_eq!(bot.identity(&alice).await, before);

    bot.reset_identity().succeeded();
    let after = bot.identity(&alice).await;
    assert_ne!(after, before);
    bot.restart(&alice).await;
    assert_eq!(bot.identity(&alice).await, after);
    let known = bot.links_of(&alice).len();
    bot.send(&alice, "start").await;
    let again = bot.link_after(&alice, known).await;
    assert_eq!(again.link, sent.link);

    // The new recovery key works as the old one did.
    let key = lose_everything(&mut bot);
    bot.set_variable("RCBOT_RECOVERY_KEY", &key);
    assert_comes_back(&mut bot, &alice, &after).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_that_breaks_off_leaves_no_recovery_key_of_the_former_identity() {
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot).await;
    let before = bot.identity(&alice).await;
    bot.terminate().await;
    // The homeserver has the secrets of the new identity, and the key to them is lost.
    proxy
        .on(|request| {
            request.method == "PUT" && request.path.ends_with("/m.secret_storage.default_key")
        })
        .times(1)
        .replace_answer(Answer::refusal(403, "M_FORBIDDEN"));
    assert!(!bot.reset_identity().status.success());
    let after = bot.identity(&alice).await;
    assert_ne!(after, before);
    assert_comes_back(&mut bot, &alice, &after).await;
    Checkup::of(&bot).passed("identity", "");
}
