//! Pinned identities: an administrator's identity is the one seen first, or named in the configuration, until the operator on
//! the host accepts another.

use std::{fs, process::Output};

use crate::support::{prelude::*, program::Ended as _, run_to_end};

/// Runs `rcbot trust` on the bot's host, with no terminal.
fn trust(bot: &Bot, arguments: &[&str]) -> Output {
    run_to_end(bot.command("trust").args(arguments))
}

/// A bot with a session of this person's, and another member who reads the bot's messages in the admin room. Once the person's
/// identity is replaced, the bot may see that before the new device is signed, and not encrypt to it.
async fn bot_with_session(alice: &Person) -> (Bot, Person) {
    let onlooker = person("bob").await;
    let bot = bot().invite(onlooker.user_id()).start(alice).await;
    let room = bot.admin_room();
    onlooker.sees("the room", |event| event.room == *room).await;
    bot.start_session(alice, "website").await;
    onlooker.hears("is running").await;
    (bot, onlooker)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_identity_commands_nothing_and_gets_no_link_until_the_operator_accepts_it() {
    let alice = person("alice").await;
    let (mut bot, onlooker) = bot_with_session(&alice).await;
    let known = alice.master_key().await;
    let intruder = alice.with_another_identity().await;
    intruder.wait_for_signed_device_of(bot.user_id()).await;
    let shown = intruder.master_key().await;
    assert_ne!(known, shown);

    let asked = bot.send(&intruder, "start").await;
    let refusal = bot.answer(&intruder, &asked).await;
    refusal.says("your cross-signing identity has changed since I pinned it");
    let asked = bot.send(&intruder, "stop").await;
    bot.wait_for_refusal(&asked, "IdentityChanged").await;
    bot.announcement(&onlooker, "The cross-signing identity of ")
        .await;
    assert!(bot.links_of(&intruder).is_empty());
    assert_eq!(bot.session_processes().len(), 1);

    // The refusal survives a restart.
    bot.restart(&intruder).await;
    bot.wait_until_connected(2).await;
    let output = trust(&bot, &[alice.user_id().as_str()]);
    let remedy = output.failed(1);
    output.says(&format!("the bot knows:        {known}"));
    output.says(&format!("the homeserver shows: {shown}"));
    remedy.says(&format!("--accept {shown}"));

    // The accepted key has to be the one that is shown.
    let output = trust(&bot, &[alice.user_id().as_str(), "--accept", &known]);
    output.says("the homeserver shows another key");
    let output = trust(&bot, &[alice.user_id().as_str(), "--accept", &shown]);
    output.succeeded();
    let before = bot.links_of(&intruder).len();
    bot.send(&intruder, "start").await;
    bot.link_after(&intruder, before).await;

    // From now on a device of the previous identity counts as unverified, also in its old Megolm session.
    let asked = bot.send(&alice, "stop").await;
    bot.wait_for_refusal(&asked, "UnsignedDevice").await;
    assert_eq!(bot.session_processes().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_output_of_a_session_goes_to_nobody_whose_identity_was_replaced() {
    let alice = person("alice").await;
    let (mut bot, onlooker) = bot_with_session(&alice).await;
    let sent = bot.links_of(&alice).remove(0);
    let intruder = alice.with_another_identity().await;
    bot.announcement(&onlooker, "The cross-signing identity of ")
        .await;
    bot.end_process(bot.standin_records()[0].pid).await;
    bot.wait_for_log("the last output of a session is not shown")
        .await;
    bot.announcement(&onlooker, "website has ended").await;
    intruder.catch_up().await;
    let mut words = intruder.events();
    words.retain(|event| event.room == sent.room);
    for word in words {
        word.lacks("the last lines");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_the_configuration_names_is_not_taken_on_first_sight() {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let keys = json!({
        alice.user_id(): alice.master_key().await,
        // The key of somebody else: the homeserver shows a false identity for bob.
        bob.user_id(): alice.master_key().await,
    });
    let bot = bot()
        .configure(|config| config["authorization"]["users"] = keys)
        .member(&bob, 100)
        .start(&alice)
        .await;
    let refused = "your cross-signing identity has changed since I pinned it";
    bot.says(&bob, "start", refused).await;
    assert_eq!(bot.standin_starts(), 0);
    bot.start_session(&alice, "website").await;

    let shown = bob.master_key().await;
    let output = trust(&bot, &[bob.user_id().as_str(), "--accept", &shown]);
    output.says("the configuration names the key");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_identity_needs_no_accepting_and_a_stopped_bot_knows_none() {
    let alice = person("alice").await;
    let mut bot = bot().prepare(&alice).await;
    let user = [alice.user_id().as_str()];
    trust(&bot, &user).failed(1).says("start the bot first");
    bot.run();
    bot.wait_until_ready(&alice).await;
    let first = trust(&bot, &user);
    first.says("none yet");
    bot.request(&alice, "status").await;
    let same = trust(&bot, &user).succeeded();
    same.says("They are the same");
}

/// Removes everything of the bot's log-in but the recovery key, which it returns.
fn lose_the_store(bot: &mut Bot) -> String {
    bot.kill_9();
    let folder = bot.data_dir().join("matrix");
    let key = fs::read_to_string(folder.join("recovery-key")).unwrap();
    fs::remove_dir_all(folder).unwrap();
    key
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_key_in_the_environment_brings_the_bots_identity_back() {
    let (alice, mut bot) = alice_and_bot().await;
    bot.start_session(&alice, "website").await;
    let before = bot.identity(&alice).await;

    let key = lose_the_store(&mut bot);
    bot.set_variable("RCBOT_RECOVERY_KEY", "EsT wrong");
    bot.run();
    assert_eq!(bot.wait_for_exit().await.code(), Some(3));
    bot.log()
        .says("the recovery key in the variable RCBOT_RECOVERY_KEY does not bring back");

    bot.set_variable("RCBOT_RECOVERY_KEY", &key);
    bot.restart(&alice).await;
    // The device that was lost is still there, and signed.
    bot.wait_until_reached_at_its_device(&alice).await;
    assert_eq!(bot.identity(&alice).await, before);
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

    reset_identity(&bot, &["--yes"]).says("another rcbot runs");
    lose_the_store(&mut bot);
    bot.run();
    assert_eq!(bot.wait_for_exit().await.code(), Some(3));
    let remedy =
        "`rcbot reset-identity --config` and the path of your config.yaml makes a new identity";
    bot.log().says(remedy);
    reset_identity(&bot, &[]).says("aborted, nothing was changed");
    assert_eq!(bot.identity(&alice).await, before);

    reset_identity(&bot, &["--yes"]).is("");
    let after = bot.identity(&alice).await;
    assert_ne!(after, before);
    bot.restart(&alice).await;
    assert_eq!(bot.identity(&alice).await, after);
    let known = bot.links_of(&alice).len();
    bot.send(&alice, "start").await;
    let again = bot.link_after(&alice, known).await;
    assert_eq!(again.link, sent.link);

    // The new recovery key works as the old one did.
    let key = lose_the_store(&mut bot);
    bot.set_variable("RCBOT_RECOVERY_KEY", &key);
    bot.restart(&alice).await;
    assert_eq!(bot.identity(&alice).await, after);
}

/// Runs `rcbot reset-identity` on the bot's host, with no terminal. Returns its error.
fn reset_identity(bot: &Bot, arguments: &[&str]) -> String {
    let mut command = bot.command("reset-identity");
    let output = run_to_end(command.args(arguments).env("RUST_LOG", "off"));
    let says_nothing = output.stderr.is_empty();
    assert_eq!(output.status.success(), says_nothing, "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Whether it uploads the public keys of the bot's identity.
fn publishes(request: &Request) -> bool {
    request.path.ends_with("/keys/device_signing/upload")
}

/// How a homeserver asks for the password (user-interactive authentication).
fn asks_for_the_password() -> Answer {
    let asked =
        json!({ "flows": [{ "stages": ["m.login.password"] }], "params": {}, "session": "s" });
    Answer::json(401, &asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_the_homeserver_did_not_take_at_first_is_published_in_the_same_run() {
    let alice = person("alice").await;
    let proxy = Proxy::start(homeserver()).await;
    let uploads = || proxy.passed_by(publishes).len();
    // The SDK tries three times on its own.
    proxy.on(publishes).times(4).answer(Answer::error_page(502));
    let limited = Answer::refusal(429, "M_LIMIT_EXCEEDED").header("retry-after", "1");
    let signs = |request: &Request| request.path.ends_with("/keys/signatures/upload");
    proxy.on(signs).times(4).answer(limited);
    let bot = bot().through(&proxy);
    let mut bot = bot.start(&alice).await;
    assert!(uploads() > 4, "{}", uploads());
    bot.start_session(&alice, "website").await;
    let identity = bot.identity(&alice).await;
    let published = uploads();
    bot.restart(&alice).await;
    bot.wait_until_connected(2).await;
    assert_eq!(bot.identity(&alice).await, identity);
    assert_eq!(uploads(), published);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_takes_the_password_is_published_with_it() {
    let alice = person("alice").await;
    let proxy = Proxy::start(homeserver()).await;
    let without_proof = |request: &Request| publishes(request) && request.json["auth"].is_null();
    proxy.on(without_proof).answer(asks_for_the_password());
    let (localpart, password) = (format!("account-{}", random_text()), random_text());
    let made = homeserver().register_user(&localpart, &password).await;
    made.unwrap();
    let bot = bot()
        .account(&localpart, "password", &password)
        .through(&proxy)
        .start(&alice)
        .await;
    bot.start_session(&alice, "website").await;
    let uploads = proxy.passed_by(publishes);
    let proof = &uploads.last().unwrap().request.json["auth"];
    assert_eq!(proof["password"], password);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_appservice_that_is_asked_for_a_password_exits_and_says_where_to_set_it() {
    let alice = person("alice").await;
    let proxy = Proxy::start(homeserver()).await;
    proxy.on(publishes).answer(asks_for_the_password());
    let bot = bot().through(&proxy);
    let mut bot = bot.prepare(&alice).await;
    bot.run();
    assert_eq!(bot.wait_for_exit().await.code(), Some(3));
    let log = bot.log();
    let said = log.lines().last().unwrap();
    said.says("set bot.password in config.yaml");
    assert!(!bot.data_dir().join("matrix/recovery-key").exists());

    // It continues once the homeserver accepts the identity.
    proxy.be_honest();
    bot.run();
    bot.wait_until_ready(&alice).await;
    bot.start_session(&alice, "website").await;
}
