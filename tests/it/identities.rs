//! Pinned identities: an administrator's identity is the one seen first, or named in the configuration, until the operator on
//! the host accepts another.

use std::process::Output;

use crate::support::{prelude::*, program::Ended as _, run_to_end};

/// Runs `rcbot trust` on the bot's host, with no terminal.
fn trust(bot: &Bot, arguments: &[&str]) -> Output {
    run_to_end(bot.command("trust").args(arguments))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_identity_commands_nothing_and_gets_no_link_until_the_operator_accepts_it() {
    let alice = person("alice").await;
    // Once the identity is replaced, the bot may see that before the new device is signed, and not encrypt to it.
    let onlooker = person("bob").await;
    let mut bot = bot().invite(onlooker.user_id()).prepare(&alice).await;
    let user = alice.user_id().as_str();
    trust(&bot, &[user]).failed(1).says("start the bot first");
    bot.run();
    bot.wait_until_ready(&alice).await;
    trust(&bot, &[user]).says("none yet");
    let sent = bot.start_session(&alice, "website").await;
    onlooker.hears("is running").await;
    let same = trust(&bot, &[user]).succeeded();
    same.says("They are the same");

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
    // Nor does it get the last output of the session.
    bot.end_process(bot.standin_records()[0].pid).await;
    bot.wait_for_log("the last output of a session is not shown")
        .await;
    bot.announcement(&onlooker, "website has ended").await;
    intruder.catch_up().await;
    let mut words = intruder.events();
    words.retain(|event| event.room == *sent.room());
    for word in words {
        word.lacks("the last lines");
    }

    // The refusal survives a restart.
    bot.restart(&intruder).await;
    bot.wait_until_connected(2).await;
    let output = trust(&bot, &[user]);
    let remedy = output.failed(1);
    output.says(&format!("the bot knows:        {known}"));
    output.says(&format!("the homeserver shows: {shown}"));
    remedy.says(&format!("--accept {shown}"));

    // The accepted key has to be the one that is shown.
    let output = trust(&bot, &[user, "--accept", &known]);
    output.says("the homeserver shows another key");
    trust(&bot, &[user, "--accept", &shown]).succeeded();
    let before = bot.links_of(&intruder).len();
    bot.send(&intruder, "start").await;
    bot.link_after(&intruder, before).await;

    // From now on a device of the previous identity counts as unverified, also in its old Megolm session.
    let asked = bot.send(&alice, "stop").await;
    bot.wait_for_refusal(&asked, "UnsignedDevice").await;
    assert_eq!(bot.session_processes().len(), 1);
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

/// Whether it uploads the public keys of the bot's identity.
pub(super) fn publishes(request: &Request) -> bool {
    request.path.ends_with("/keys/device_signing/upload")
}

/// How a homeserver asks for the password (user-interactive authentication).
pub(super) fn asks_for_the_password() -> Answer {
    let asked =
        json!({ "flows": [{ "stages": ["m.login.password"] }], "params": {}, "session": "s" });
    Answer::json(401, &asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_the_homeserver_does_not_take_at_first_is_published_later() {
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

    // Where it is only a failure that passes, in the same run. The SDK tries three times on its own.
    proxy.be_honest();
    proxy.on(publishes).times(4).answer(Answer::error_page(502));
    let limited = Answer::refusal(429, "M_LIMIT_EXCEEDED").header("retry-after", "1");
    let signs = |request: &Request| request.path.ends_with("/keys/signatures/upload");
    proxy.on(signs).times(4).answer(limited);
    let uploads = || proxy.passed_by(publishes).len();
    let refused = uploads();
    bot.run();
    bot.wait_until_ready(&alice).await;
    assert!(uploads() > refused + 4, "{refused} and {}", uploads());
    bot.start_session(&alice, "website").await;
    let identity = bot.identity(&alice).await;
    let (published, connections) = (uploads(), bot.connections());
    bot.restart(&alice).await;
    bot.wait_until_connected(connections + 1).await;
    assert_eq!(bot.identity(&alice).await, identity);
    assert_eq!(uploads(), published);
}
