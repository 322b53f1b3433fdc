//! The ways in which the bot comes to be its user on its device: each does the whole main job, stays the same device over
//! restarts, and gets over the loss of its store or its device.

use std::{fs, path::PathBuf, process::Command};

use matrix_sdk::{
    Client,
    reqwest::{Method, StatusCode},
    ruma::UserId,
};
use serde_json::{Value, json};

use crate::support::{
    appservice::Tokens,
    bot::Bot,
    eventually, homeserver,
    homeserver::Homeserver,
    person::{CrossSigning, Person, random_text},
    run_to_end, start_homeserver,
};

/// What the bot says once it acts without a log-in.
const WITHOUT_LOG_IN: &str = "requests go out with the appservice's token";

async fn alice() -> Person {
    Person::register(homeserver(), "alice").await.unwrap()
}

/// The ids of the bot's devices, as the homeserver knows them.
async fn devices(bot: &Bot, person: &Person) -> Vec<String> {
    let encryption = person.client().encryption();
    let user = bot.user_id();
    encryption.request_user_identity(user).await.unwrap();
    let devices = encryption.get_user_devices(user).await.unwrap();
    let ids = devices
        .devices()
        .map(|device| device.device_id().to_string());
    ids.collect()
}

/// The bot's identity, by its public key.
async fn identity(bot: &Bot, person: &Person) -> String {
    let encryption = person.client().encryption();
    let identity = encryption.request_user_identity(bot.user_id()).await;
    let identity = identity.unwrap().expect("the bot has an identity");
    identity.master_key().get_first_key().unwrap().to_base64()
}

/// The log-in that the bot has written down.
fn stored_log_in(bot: &Bot) -> Value {
    let text = fs::read(bot.data_dir().join("matrix/session.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Starts a session, has its link delivered, restarts the bot, and ends the session.
async fn assert_main_job(bot: &mut Bot, alice: &Person) {
    let device = devices(bot, alice).await;
    assert_eq!(device.len(), 1);
    let first = bot.start_session(alice, "website").await;
    bot.restart(alice).await;
    assert_eq!(devices(bot, alice).await, device, "it is the same device");
    let second = bot.start_session(alice, "website").await;
    assert_eq!(second.link, first.link);
    assert_eq!(second.room(), first.room());
    let answer = bot.ask(alice, "stop").await;
    let body = answer.body().unwrap();
    assert!(body.starts_with("Session for website is stopped"), "{body}");
    bot.wait_for_withdrawal(alice, &first).await;
    bot.wait_for_withdrawal(alice, &second).await;
}

/// Waits until the bot has a connection, in all its lives so many times.
async fn wait_until_connected(bot: &mut Bot, times: usize) {
    bot.wait_for_log_times("connected to the homeserver", times)
        .await;
}

/// Waits until the bot has one device, and another one than this.
async fn wait_for_another_device(bot: &Bot, alice: &Person, old: &[String]) {
    eventually("the bot has one new device", async || {
        let now = devices(bot, alice).await;
        (now.len() == 1 && now != old).then_some(())
    })
    .await;
    alice
        .wait_for_signed_device_of(bot.user_id())
        .await
        .unwrap();
}

/// The bot's whole store is gone, but for the recovery key.
async fn assert_survives_a_lost_store(bot: &mut Bot, alice: &Person) {
    wait_until_connected(bot, 1).await;
    let (device, known) = (devices(bot, alice).await, identity(bot, alice).await);
    assert!(bot.terminate().await.success());
    fs::remove_dir_all(bot.data_dir().join("matrix/store")).unwrap();
    bot.run();
    wait_for_another_device(bot, alice, &device).await;
    assert_eq!(identity(bot, alice).await, known);
    wait_until_connected(bot, 2).await;
    bot.start_session(alice, "website").await;
}

/// Sends a request as the bot's user, with the appservice's token or the bot's own.
async fn request(homeserver: &Homeserver, method: Method, path: &str, token: &str) -> StatusCode {
    let url = format!("{}/_matrix/client/v3/{path}", homeserver.url());
    let http = matrix_sdk::reqwest::Client::new();
    let request = http.request(method, url).bearer_auth(token).body("{}");
    request.send().await.unwrap().status()
}

/// Deletes a device of the bot's, behind its back.
async fn delete_device(homeserver: &Homeserver, user: &UserId, device: &str, as_token: &str) {
    let path = format!("devices/{device}?user_id={user}");
    let status = request(homeserver, Method::DELETE, &path, as_token).await;
    assert_eq!(status, 200);
}

/// An account for a bot, with its localpart and its password.
async fn account() -> (String, String) {
    let (localpart, password) = (format!("account-{}", random_text()), random_text());
    let made = homeserver().register_user(&localpart, &password).await;
    made.unwrap();
    (localpart, password)
}

/// Logs in by hand, and returns the device's id and its token.
async fn log_in((localpart, password): &(String, String)) -> (String, String) {
    let client = Client::builder().homeserver_url(homeserver().url());
    let client = client.build().await.unwrap();
    let login = client.matrix_auth().login_username(localpart, password);
    let answer = login.send().await.unwrap();
    (answer.device_id.to_string(), answer.access_token)
}

/// A bot that ends with these words.
async fn assert_refused(bot: &mut Bot, words: &str) {
    bot.run();
    let status = bot.wait_for_exit().await;
    assert_eq!(status.code(), Some(1));
    let log = bot.log();
    let said = log.lines().last().unwrap();
    assert!(
        said.starts_with("rcbot: ") && said.contains(words),
        "{said}"
    );
}

fn registration_without_log_in() -> PathBuf {
    homeserver().registrations()[1].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_the_homeserver_does_not_log_in_does_the_main_job_and_stays_its_device() {
    let alice = alice().await;
    let mut bot = Bot::builder(homeserver())
        .without_log_in(homeserver())
        .log_filter("trace")
        .prepare(&alice)
        .await;
    // The bot's own copy does not say so: the homeserver's refusal does.
    let text = fs::read_to_string(registration_without_log_in()).unwrap();
    let copy = bot.data_dir().with_file_name("registration.yaml");
    assert!(text.contains("io.element.msc4190: true"));
    fs::write(&copy, text.replace("io.element.msc4190: true", "")).unwrap();
    bot.reconfigure(|config| config["appservice"]["registration"] = json!(copy));
    bot.run();
    bot.wait_until_ready(&alice).await;

    assert_main_job(&mut bot, &alice).await;
    assert_eq!(bot.log().matches(WITHOUT_LOG_IN).count(), 2, "once a start");
    let tokens = Tokens::of(&registration_without_log_in());
    assert!(
        !bot.log().contains(&tokens.appservice),
        "the as_token is in the log"
    );
    let stored = stored_log_in(&bot);
    assert_eq!(stored["authentication"], "identity_assertion");
    assert!(!stored.to_string().contains("token"), "{stored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_the_homeserver_does_not_log_in_gets_over_a_lost_store_and_a_deleted_device() {
    let alice = alice().await;
    let mut bot = Bot::builder(homeserver())
        .without_log_in(homeserver())
        .start(&alice)
        .await;
    bot.start_session(&alice, "website").await;
    assert_survives_a_lost_store(&mut bot, &alice).await;

    let device = devices(&bot, &alice).await;
    let tokens = Tokens::of(&registration_without_log_in());
    delete_device(homeserver(), bot.user_id(), &device[0], &tokens.appservice).await;
    wait_for_another_device(&bot, &alice, &device).await;
    wait_until_connected(&mut bot, 3).await;
    bot.start_session(&alice, "website").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_may_begin_and_cease_to_log_in_the_bot() {
    let folder = tempfile::tempdir().unwrap();
    let mut homeserver = start_homeserver(folder.path()).unwrap();
    let registration = homeserver.registrations()[0].clone();
    let device_management = |from: &str, to: &str| {
        let text = fs::read_to_string(&registration).unwrap();
        let (from, to) = (format!("msc4190: {from}"), format!("msc4190: {to}"));
        assert!(text.contains(&from));
        fs::write(&registration, text.replace(&from, &to)).unwrap();
    };
    let alice = Person::register(&homeserver, "alice").await.unwrap();
    let mut bot = Bot::builder(&homeserver).start(&alice).await;
    assert_eq!(stored_log_in(&bot)["authentication"], "access_token");
    wait_until_connected(&mut bot, 1).await;

    device_management("false", "true");
    homeserver.start_again().unwrap();
    let token = stored_log_in(&bot)["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        request(&homeserver, Method::POST, "logout", &token).await,
        200
    );
    bot.wait_for_log(WITHOUT_LOG_IN).await;
    wait_until_connected(&mut bot, 2).await;
    bot.wait_until_ready(&alice).await;
    bot.start_session(&alice, "website").await;

    device_management("true", "false");
    homeserver.start_again().unwrap();
    let device = stored_log_in(&bot)["device_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let tokens = Tokens::of(&registration);
    delete_device(&homeserver, bot.user_id(), &device, &tokens.appservice).await;
    wait_until_connected(&mut bot, 3).await;
    assert_eq!(stored_log_in(&bot)["authentication"], "access_token");
    bot.wait_until_ready(&alice).await;
    bot.start_session(&alice, "website").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_with_a_password_does_the_main_job_and_gets_over_a_lost_store() {
    let alice = alice().await;
    let (localpart, password) = account().await;
    let mut bot = Bot::builder(homeserver())
        .account(&localpart, "password", &password)
        .log_filter("trace")
        .start(&alice)
        .await;
    assert_main_job(&mut bot, &alice).await;
    let connections = bot.log().matches("connected to the homeserver").count();
    assert!(bot.terminate().await.success());
    assert!(!bot.log().contains(&password), "the password is in the log");
    assert!(!stored_log_in(&bot).to_string().contains(&password));

    let (device, known) = (devices(&bot, &alice).await, identity(&bot, &alice).await);
    fs::remove_dir_all(bot.data_dir().join("matrix/store")).unwrap();
    bot.run();
    wait_for_another_device(&bot, &alice, &device).await;
    wait_until_connected(&mut bot, connections + 1).await;
    assert_eq!(identity(&bot, &alice).await, known);
    bot.start_session(&alice, "website").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_with_an_access_token_does_the_main_job_as_its_device() {
    let alice = alice().await;
    let account = account().await;
    let (device, token) = log_in(&account).await;
    let mut bot = Bot::builder(homeserver())
        .account(&account.0, "access_token", &token)
        .log_filter("trace")
        .start(&alice)
        .await;
    assert_main_job(&mut bot, &alice).await;
    assert_eq!(devices(&bot, &alice).await, [device]);
    assert!(bot.terminate().await.success());
    assert!(!bot.log().contains(&token), "the token is in the log");
    assert!(!stored_log_in(&bot).to_string().contains(&token));

    // With another token the bot is another device, and the same bot.
    let known = identity(&bot, &alice).await;
    let connections = bot.log().matches("connected to the homeserver").count();
    let (device, token) = log_in(&account).await;
    bot.reconfigure(|config| config["bot"]["access_token"] = json!(token));
    bot.run();
    wait_until_connected(&mut bot, connections + 1).await;
    assert!(devices(&bot, &alice).await.contains(&device));
    assert_eq!(identity(&bot, &alice).await, known);
    bot.start_session(&alice, "website").await;

    // Keys that are lost cannot come back to a device, and a token cannot make another one.
    assert!(bot.terminate().await.success());
    fs::remove_dir_all(bot.data_dir().join("matrix/store")).unwrap();
    assert_refused(&mut bot, "has keys that are not in").await;
    assert_eq!(
        request(homeserver(), Method::POST, "logout", &token).await,
        200
    );
    assert_refused(
        &mut bot,
        "bot.access_token is no longer good: log in once more",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_or_password_that_is_not_the_bots_is_refused_with_its_remedy() {
    let alice = alice().await;
    let (account, other) = (account().await, account().await);
    let (_, of_another) = log_in(&other).await;
    let bot = |key, secret: &str| {
        Bot::builder(homeserver())
            .account(&account.0, key, secret)
            .prepare(&alice)
    };
    let mut with_anothers = bot("access_token", &of_another).await;
    assert_refused(
        &mut with_anothers,
        "the homeserver takes the bot for @account-",
    )
    .await;
    let mut with_none = bot("access_token", "no_token").await;
    assert_refused(&mut with_none, "bot.access_token is no longer good").await;
    let mut with_wrong = bot("password", "wrong").await;
    assert_refused(&mut with_wrong, "bot.password is not its password").await;

    // The token of a log-in that a client of its own uses.
    let url = homeserver().url();
    let person = Person::log_in(&url, &account.0, &account.1, CrossSigning::Without)
        .await
        .unwrap();
    let token = person.client().access_token().unwrap();
    let mut with_a_clients = bot("access_token", &token).await;
    assert_refused(&mut with_a_clients, "it is another program's").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_is_reset_with_the_password_and_not_with_a_token_alone() {
    let alice = alice().await;
    let account = account().await;
    let mut bot = Bot::builder(homeserver())
        .account(&account.0, "password", &account.1)
        .start(&alice)
        .await;
    wait_until_connected(&mut bot, 1).await;
    let known = identity(&bot, &alice).await;
    assert!(bot.terminate().await.success());
    fs::remove_dir_all(bot.data_dir().join("matrix/store")).unwrap();
    fs::remove_file(bot.data_dir().join("matrix/recovery-key")).unwrap();
    let reset = |bot: &Bot| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rcbot"));
        command.args(["reset-identity", "--yes", "--config"]);
        run_to_end(command.arg(bot.config_path()))
    };

    let (_, token) = log_in(&account).await;
    bot.reconfigure(|config| {
        config["bot"] = json!({ "localpart": account.0, "access_token": token });
    });
    let refused = String::from_utf8(reset(&bot).stderr).unwrap();
    assert!(
        refused.contains("put it into config.yaml as bot.password"),
        "{refused}"
    );
    assert_eq!(identity(&bot, &alice).await, known);

    bot.reconfigure(|config| {
        config["bot"] = json!({ "localpart": account.0, "password": account.1 });
    });
    let output = reset(&bot);
    assert!(output.status.success(), "{output:?}");
    let new = identity(&bot, &alice).await;
    assert_ne!(new, known);
    bot.run();
    wait_until_connected(&mut bot, 2).await;
    assert_eq!(identity(&bot, &alice).await, new);
    bot.start_session(&alice, "website").await;
}
