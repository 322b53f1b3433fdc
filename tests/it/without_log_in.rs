//! A homeserver where appservices cannot log in, as with Matrix Authentication Service: the bot uses the appservice's token for
//! its user and device, and works as usual.

use std::{fs, path::PathBuf};

use hyper::Method;

use crate::support::{
    appservice::Tokens, checkup::Checkup, prelude::*, program::Ended as _, start_homeserver,
};

/// What the bot logs without a log-in.
const WITHOUT_LOG_IN: &str = "using the appservice's token for each request";

fn registration_without_log_in() -> PathBuf {
    homeserver().registrations()[1].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_the_homeserver_does_not_log_in_does_the_main_job_and_survives_its_losses() {
    let alice = person("alice").await;
    let mut bot = bot()
        .without_log_in(homeserver())
        .log_filter("trace")
        .prepare(&alice)
        .await;
    // The bot's copy of the registration does not say so: the homeserver's refusal does.
    change_registration(&bot, 1, "io.element.msc4190: true", "");
    Checkup::of(&bot).passed("account", "the bot's first run makes it");
    bot.run();
    bot.wait_until_ready(&alice).await;
    let devices = bot.devices(&alice).await;
    let checkup = Checkup::of(&bot);
    for name in ["server_name", "account", "sync", "pinned_identities"] {
        checkup.passed(name, "");
    }
    checkup.passed("identity", "unlocks the bot's identity");
    assert_eq!(bot.devices(&alice).await, devices, "no device was made");

    bot.assert_main_job(&alice).await;
    assert_eq!(bot.log().matches(WITHOUT_LOG_IN).count(), 2, "once a start");
    let tokens = Tokens::of(&registration_without_log_in());
    let knows_token = bot.log().contains(&tokens.appservice);
    assert!(!knows_token, "the as_token is in the log");
    let stored = bot.stored_log_in();
    assert_eq!(stored["authentication"], "identity_assertion");
    stored.to_string().lacks("token");

    let registration = registration_without_log_in();
    bot.reconfigure(|config| config["appservice"]["registration"] = json!(registration));
    bot.assert_survives_a_lost_store(&alice).await;
    let device = bot.devices(&alice).await;
    let connections = bot.connections();
    bot.delete_device(homeserver(), &registration).await;
    bot.wait_for_another_device(&alice, &device).await;
    bot.wait_until_connected(connections + 1).await;
    bot.start_session(&alice, "website").await;

    let known = bot.identity(&alice).await;
    assert!(bot.terminate().await.success());
    bot.lose_keys();
    bot.lose_recovery_key();
    bot.reset_identity().succeeded();
    let new = bot.identity(&alice).await;
    assert_ne!(new, known);
    bot.run();
    bot.wait_until_connected(connections + 2).await;
    assert_eq!(bot.identity(&alice).await, new);
    bot.start_session(&alice, "website").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_may_start_and_stop_to_log_in_the_bot() {
    let folder = tempfile::tempdir().unwrap();
    let mut homeserver = start_homeserver(folder.path()).unwrap();
    let registration = homeserver.registrations()[0].clone();
    let device_management = |from: &str, to: &str| {
        let text = fs::read_to_string(&registration).unwrap();
        let (from, to) = (format!("msc4190: {from}"), format!("msc4190: {to}"));
        text.says(&from);
        fs::write(&registration, text.replace(&from, &to)).unwrap();
    };
    let alice = Person::register(&homeserver, "alice").await.unwrap();
    let mut bot = BotBuilder::new(&homeserver).start(&alice).await;
    assert_eq!(bot.stored_log_in()["authentication"], "access_token");
    bot.wait_until_connected(1).await;

    device_management("false", "true");
    homeserver.start_again().unwrap();
    bot.log_out(&homeserver).await;
    bot.wait_for_log(WITHOUT_LOG_IN).await;
    bot.wait_until_connected(2).await;
    bot.wait_until_ready(&alice).await;
    bot.start_session(&alice, "website").await;

    device_management("true", "false");
    homeserver.start_again().unwrap();
    bot.delete_device(&homeserver, &registration).await;
    bot.wait_until_connected(3).await;
    assert_eq!(bot.stored_log_in()["authentication"], "access_token");
    bot.wait_until_ready(&alice).await;
    bot.start_session(&alice, "website").await;
}

/// Gives the bot a copy of a registration in which `to` replaces `from`.
fn change_registration(bot: &Bot, number: usize, from: &str, to: &str) {
    let text = fs::read_to_string(&homeserver().registrations()[number]).unwrap();
    text.says(from);
    let copy = bot.data_dir().with_file_name("registration.yaml");
    fs::write(&copy, text.replace(from, to)).unwrap();
    bot.reconfigure(|config| config["appservice"]["registration"] = json!(copy));
}

/// Whether it is a /whoami that names a device beside the token.
fn asks_as_device(request: &Request) -> bool {
    let names = ["device_id", "org.matrix.msc3202.device_id"];
    let is_named = names.iter().any(|name| request.query(name).is_some());
    request.path.ends_with("/account/whoami") && is_named
}

fn makes_device(request: &Request) -> bool {
    request.method == Method::PUT && request.path.contains("/client/v3/devices/")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_without_any_log_in_needs_no_flag_and_costs_no_device_if_it_forgets_the_token()
{
    let alice = person("alice").await;
    let proxy = Proxy::start(homeserver()).await;
    let unknown = json!({ "errcode": "M_UNRECOGNIZED", "error": "Unrecognized request" });
    let logs_in = |request: &Request| request.path.ends_with("/login");
    proxy.on(logs_in).answer(Answer::json(404, &unknown));
    let mut bot = bot()
        .without_log_in(homeserver())
        .through(&proxy)
        .prepare(&alice)
        .await;
    change_registration(&bot, 1, "io.element.msc4190: true", "");
    bot.run();
    bot.wait_until_ready(&alice).await;
    assert_eq!(bot.stored_log_in()["authentication"], "identity_assertion");
    bot.start_session(&alice, "website").await;

    let device = bot.devices(&alice).await;
    let token = Tokens::of(&registration_without_log_in()).appservice;
    proxy
        .on(move |request| request.bears(&token))
        .answer(Answer::refusal(401, "M_UNKNOWN_TOKEN"));
    assert_eq!(bot.wait_for_exit().await.code(), Some(1));
    let log = bot.log();
    log.says("M_UNKNOWN_TOKEN: name a copy of");
    log.lacks("device_is_gone=true");
    proxy.be_honest();
    bot.run();
    bot.wait_until_connected(2).await;
    assert_eq!(bot.devices(&alice).await, device);
    bot.start_session(&alice, "website").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_that_makes_no_devices_for_appservices_logs_the_bot_in() {
    let alice = person("alice").await;
    let not_found = json!({ "errcode": "M_NOT_FOUND", "error": "Device not found" });
    // Conduit refuses; Tuwunel 1.4 goes on as if no device had been named.
    for made in [Answer::json(404, &not_found), Answer::json(200, &json!({}))] {
        let proxy = Proxy::start(homeserver()).await;
        proxy.on(makes_device).answer(made);
        let builder = bot();
        let user = json!({ "user_id": builder.user_id() });
        proxy.on(asks_as_device).answer(Answer::json(200, &user));
        let mut bot = builder.through(&proxy).prepare(&alice).await;
        change_registration(&bot, 0, "msc4190: false", "msc4190: true");
        bot.run();
        bot.wait_until_ready(&alice).await;
        assert_eq!(bot.stored_log_in()["authentication"], "access_token");
        bot.start_session(&alice, "website").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_that_an_appservice_may_not_make_leaves_its_device_as_it_is() {
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot).await;
    bot.wait_until_connected(1).await;
    let (device, identity) = (bot.devices(&alice).await, bot.identity(&alice).await);
    assert!(bot.terminate().await.success());
    let user = json!({ "user_id": bot.user_id() });
    proxy.on(asks_as_device).answer(Answer::json(200, &user));
    let said = bot.reset_identity().failed(3);
    said.says("set bot.password in config.yaml");
    assert_eq!(bot.devices(&alice).await, device);
    bot.run();
    bot.wait_until_connected(2).await;
    assert_eq!(bot.identity(&alice).await, identity);
    bot.start_session(&alice, "website").await;
}
