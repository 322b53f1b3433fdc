//! An existing account: the bot logs in with its password, or uses the access token of a log-in made for it.

use crate::{
    identities::{asks_for_the_password, publishes},
    support::{
        checkup::Checkup,
        device::{account, log_in, log_out},
        prelude::*,
        program::Ended as _,
    },
};

/// Asserts that the bot exits with this error.
async fn assert_refused(bot: &mut Bot, words: &str) {
    bot.run();
    let status = bot.wait_for_exit().await;
    assert_eq!(status.code(), Some(3));
    let log = bot.log();
    let said = log.lines().last().unwrap();
    said.begins("rcbot: ");
    said.says(words);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_with_a_password_does_the_main_job_and_survives_its_losses() {
    let (alice, account) = (person("alice").await, account().await);
    let observer = log_in(&account).await;
    let devices = async || observer.devices().await.unwrap().devices.len();
    // This homeserver asks for the password before it takes an identity.
    let proxy = Proxy::start(homeserver()).await;
    let without_proof = |request: &Request| publishes(request) && request.json["auth"].is_null();
    proxy.on(without_proof).answer(asks_for_the_password());
    let (localpart, password) = &account;
    let mut bot = bot()
        .account(localpart, "password", password)
        .through(&proxy)
        .log_filter("trace")
        .prepare(&alice)
        .await;
    let checkup = Checkup::of(&bot);
    checkup.skipped("registration", "`bot.password`");
    checkup.passed("account", "the bot's first run logs in");
    checkup.skipped("sync", "\"bot's account\" comes first");
    assert_eq!(devices().await, 1, "no device was made");
    bot.run();
    bot.wait_until_ready(&alice).await;
    let checkup = Checkup::of(&bot);
    for name in ["account", "server_name", "sync"] {
        checkup.passed(name, "");
    }
    assert_eq!(devices().await, 2, "no device was made");
    observer.logout().await.unwrap();

    bot.assert_main_job(&alice).await;
    let uploads = proxy.passed_by(publishes);
    let proof = &uploads.last().unwrap().request.json["auth"];
    assert_eq!(proof["password"], *password);
    proxy.be_honest();
    assert!(!bot.log().contains(password), "the password is in the log");
    assert!(!bot.stored_log_in().to_string().contains(password));
    bot.assert_survives_a_lost_store(&alice).await;

    // Its identity is reset with the password, and not with only a token.
    let known = bot.identity(&alice).await;
    assert!(bot.terminate().await.success());
    bot.lose_keys();
    bot.lose_recovery_key();
    let log_in_with = |key: &str, secret: &str| {
        bot.reconfigure(|config| config["bot"] = json!({ "localpart": localpart, key: secret }));
    };
    let token = log_in(&account).await.access_token().unwrap();
    log_in_with("access_token", &token);
    bot.reset_identity().says("set bot.password in config.yaml");
    assert_eq!(bot.identity(&alice).await, known);
    log_in_with("password", password);
    bot.reset_identity().succeeded();
    let new = bot.identity(&alice).await;
    assert_ne!(new, known);
    let connections = bot.connections();
    bot.run();
    bot.wait_until_connected(connections + 1).await;
    assert_eq!(bot.identity(&alice).await, new);
    bot.start_session(&alice, "website").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_with_an_access_token_does_the_main_job_as_its_device() {
    let alice = person("alice").await;
    let account = account().await;
    let first = log_in(&account).await;
    let token = first.access_token().unwrap();
    let mut bot = bot()
        .account(&account.0, "access_token", &token)
        .log_filter("trace")
        .start(&alice)
        .await;
    bot.assert_main_job(&alice).await;
    let device = first.device_id().unwrap();
    assert_eq!(bot.devices(&alice).await, [device.as_str()]);
    assert!(bot.terminate().await.success());
    assert!(!bot.log().contains(&token), "the token is in the log");
    assert!(!bot.stored_log_in().to_string().contains(&token));

    // With another token the bot has another device and the same identity.
    let known = bot.identity(&alice).await;
    let connections = bot.connections();
    let second = log_in(&account).await;
    let token = second.access_token().unwrap();
    bot.reconfigure(|config| config["bot"]["access_token"] = json!(token));
    let recovery_key = bot.lose_recovery_key();
    assert_refused(&mut bot, "there is no recovery key").await;
    assert!(
        bot.data_dir().join("matrix/store").exists(),
        "nothing was removed"
    );
    bot.set_variable("RCBOT_RECOVERY_KEY", &recovery_key);
    bot.run();
    bot.wait_until_connected(connections + 1).await;
    let device = second.device_id().unwrap().to_string();
    assert!(bot.devices(&alice).await.contains(&device));
    assert_eq!(bot.identity(&alice).await, known);
    bot.start_session(&alice, "website").await;

    // A device cannot get lost keys back, and with a token the bot cannot make another device.
    assert!(bot.terminate().await.success());
    bot.lose_keys();
    assert_refused(&mut bot, "has keys that are not in").await;
    log_out(homeserver(), &token).await;
    let words = "bot.access_token is not valid any more: log in once more";
    assert_refused(&mut bot, words).await;
}

/// With a recovery key, a device that the homeserver does not know counts as lost, unless its store is new.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_at_the_first_start_does_not_make_a_token_useless() {
    let (alice, account) = (person("alice").await, account().await);
    let token = log_in(&account).await.access_token().unwrap();
    let proxy = Proxy::start(homeserver()).await;
    let builder = bot().account(&account.0, "access_token", &token);
    let mut bot = builder.through(&proxy).prepare(&alice).await;
    bot.set_variable("RCBOT_RECOVERY_KEY", "given beforehand");
    // More often than the SDK retries on its own.
    let versions = |request: &Request| request.path.ends_with("/client/versions");
    proxy.on(versions).times(5).answer(Answer::error_page(502));
    bot.run();
    bot.wait_until_ready(&alice).await;
    // That key is of no identity: the new one has its own.
    assert!(bot.data_dir().join("matrix/recovery-key").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_or_password_that_is_not_the_bots_is_refused_with_its_remedy() {
    let alice = person("alice").await;
    let (account, other) = (account().await, account().await);
    let of_another = log_in(&other).await.access_token().unwrap();
    let bot = |key, secret: &str| bot().account(&account.0, key, secret).prepare(&alice);
    // The token of a log-in that another client uses.
    let url = homeserver().url();
    let client = Person::log_in(&url, &account.0, &account.1, CrossSigning::Without);
    let client = client.await.unwrap();
    let of_client = client.client().access_token().unwrap();
    for (key, secret, words) in [
        (
            "access_token",
            &*of_another,
            "the homeserver says that the bot is @account-",
        ),
        (
            "access_token",
            "no_token",
            "bot.access_token is not valid any more",
        ),
        ("password", "wrong", "bot.password is not its password"),
        ("access_token", &of_client, "it is another program's"),
    ] {
        assert_refused(&mut bot(key, secret).await, words).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_account_is_waited_out() {
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot).await;
    for life in 1..=2 {
        let locked = json!({ "errcode": "M_USER_LOCKED", "error": "locked", "soft_logout": true });
        proxy.on(|_| true).answer(Answer::json(401, &locked));
        if life == 2 {
            bot.kill_9();
            bot.run();
        }
        let before = proxy.passed().len();
        eventually("the bot has asked several times", async || {
            let passed = proxy.passed();
            let refused = passed.iter().skip(before).filter(|one| one.status == 401);
            (refused.count() > 2).then_some(())
        })
        .await;
        proxy.be_honest();
        bot.assert_no_session(&alice).await;
    }
}
