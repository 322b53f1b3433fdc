//! `rcbot check` and the less common ways to log in: for each fault the failed line, and that its remedy fixes it.

use std::{fs, os::unix::fs::PermissionsExt as _};

use matrix_sdk::Client;

use crate::support::{
    checkup::{Checkup, commands},
    prelude::*,
};

const ACCOUNT: &str = "account";

/// An account for a bot.
struct Account {
    localpart: String,
    password: String,
}

impl Account {
    async fn register() -> Self {
        let (localpart, password) = (format!("account-{}", random_text()), random_text());
        let made = homeserver().register_user(&localpart, &password).await;
        made.unwrap();
        Self {
            localpart,
            password,
        }
    }

    /// Logs in by hand.
    async fn log_in(&self) -> Client {
        let client = Client::builder().homeserver_url(homeserver().url());
        let client = client.build().await.unwrap();
        let log_in = client
            .matrix_auth()
            .login_username(&self.localpart, &self.password);
        log_in.send().await.unwrap();
        client
    }
}

fn token_of(client: &Client) -> String {
    client.access_token().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_with_a_password_is_checked_without_a_log_in() {
    let (alice, account) = (person("alice").await, Account::register().await);
    let observer = account.log_in().await;
    let devices = async || observer.devices().await.unwrap().devices.len();
    let mut bot = bot()
        .account(&account.localpart, "password", &account.password)
        .prepare(&alice)
        .await;
    let checkup = Checkup::of(&bot);
    checkup.skipped("registration", "`bot.password`");
    checkup.passed(ACCOUNT, "the bot's first run logs in");
    checkup.skipped("sync", "\"bot's account\" comes first");
    assert_eq!(devices().await, 1, "no device was made");

    bot.run();
    bot.wait_until_ready(&alice).await;
    let checkup = Checkup::of(&bot);
    for name in [ACCOUNT, "server_name", "sync"] {
        checkup.passed(name, "");
    }
    assert_eq!(devices().await, 2, "no device was made");
    bot.start_session(&alice, "website").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_of_another_user_is_reported() {
    let (alice, account) = (person("alice").await, Account::register().await);
    let former = account.log_in().await;
    let bot = bot()
        .account(&account.localpart, "access_token", &token_of(&former))
        .prepare(&alice)
        .await;
    Checkup::of(&bot).passed("sync", "");
    former.logout().await.unwrap();
    let remedy = Checkup::of(&bot).failed(ACCOUNT, "not valid any more");
    assert_eq!(
        remedy,
        "log in once more, and put the new token into config.yaml"
    );
    let token = token_of(&account.log_in().await);
    bot.reconfigure(|config| config["bot"]["access_token"] = json!(token));
    Checkup::of(&bot).passed(ACCOUNT, "");

    bot.reconfigure(|config| config["bot"]["localpart"] = json!("somebody"));
    let remedy = Checkup::of(&bot).failed(ACCOUNT, "config.yaml names @somebody:");
    let key = format!("bot.localpart: {}", account.localpart);
    assert_eq!(commands(&remedy), [key.as_str()]);
    bot.reconfigure(|config| config["bot"]["localpart"] = json!(account.localpart));
    Checkup::of(&bot).passed(ACCOUNT, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_the_homeserver_does_not_log_in_is_seen_to_act_as_the_appservice() {
    let alice = person("alice").await;
    let mut bot = bot().without_log_in(homeserver()).prepare(&alice).await;
    // The bot's own copy of the registration does not say so: the homeserver's refusal does.
    let shared = homeserver().registrations()[1].clone();
    let text = fs::read_to_string(shared).unwrap();
    let copy = bot.data_dir().with_file_name("registration.yaml");
    fs::write(&copy, text.replace("io.element.msc4190: true", "")).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).unwrap();
    bot.reconfigure(|config| config["appservice"]["registration"] = json!(copy));
    Checkup::of(&bot).passed(ACCOUNT, "the bot's first run makes it");

    bot.run();
    bot.wait_until_ready(&alice).await;
    let devices = bot.devices(&alice).await;
    let checkup = Checkup::of(&bot);
    for name in ["server_name", ACCOUNT, "sync", "pinned_identities"] {
        checkup.passed(name, "");
    }
    checkup.passed("identity", "unlocks the bot's identity");
    assert_eq!(bot.devices(&alice).await, devices, "no device was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_without_password_login_is_reported_until_the_bot_has_a_token() {
    let (alice, account) = (person("alice").await, Account::register().await);
    let proxy = Proxy::start(homeserver()).await;
    let flows = json!({ "flows": [{ "type": "m.login.sso" }] });
    proxy
        .on(|request| request.method == "GET" && request.path.ends_with("/login"))
        .answer(Answer::json(200, &flows));
    let bot = bot()
        .through(&proxy)
        .account(&account.localpart, "password", &account.password)
        .prepare(&alice)
        .await;
    let remedy = Checkup::of(&bot).failed(ACCOUNT, "does not offer a log-in with a password");
    assert_eq!(commands(&remedy), ["bot.access_token", "bot.password"]);
    let token = token_of(&account.log_in().await);
    bot.reconfigure(|config| {
        let section = config["bot"].as_object_mut().unwrap();
        section.remove("password");
        section.insert("access_token".to_owned(), json!(token));
    });
    Checkup::of(&bot).passed("sync", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_log_in_on_disk_is_reported() {
    let alice = person("alice").await;
    let bot = bot().prepare(&alice).await;
    let file = bot.data_dir().join("matrix/session.json");
    // No user can read a folder as a file, not even root.
    fs::create_dir_all(&file).unwrap();
    let checkup = Checkup::of(&bot);
    let remedy = checkup.failed(ACCOUNT, "session.json");
    remedy.says("or move it away while no bot runs");
    checkup.skipped("sync", "\"bot's account\" comes first");
    fs::remove_dir(&file).unwrap();
    Checkup::of(&bot).passed(ACCOUNT, "the bot's first run makes it");
}
