//! `rcbot check` and the bot's own identity: for each fault the failed line, and that its remedy fixes it.

use std::fs;

use matrix_sdk::reqwest::Method;

use crate::support::{
    appservice::Tokens,
    checkup::{Checker, Checkup, binary, commands},
    host::set_mode,
    prelude::*,
};

const NAME: &str = "identity";

/// The recovery key of no bot.
const ANOTHER_KEY: &str = "EsTR mwqJ JoXZ 8dKN F8hP 9tpv FGT3 ZvCn tYCy Kq4e 8FJh Hrdm";

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_recovery_key_can_be_given_by_a_variable_or_replaced_with_the_identity() {
    let (alice, mut bot) = alice_and_bot().await;
    let file = bot.data_dir().join("matrix/recovery-key");
    let copy = fs::read_to_string(&file).unwrap();
    assert!(bot.terminate().await.success());
    bot.lose_keys();
    bot.lose_recovery_key();
    let remedy = Checkup::of(&bot).failed(NAME, "neither its keys nor");
    remedy.says("or into the variable RCBOT_RECOVERY_KEY");
    let checker = Checker::new(&bot.config_path());
    let with_key = checker
        .clone()
        .environment("RCBOT_RECOVERY_KEY", copy.trim());
    let checkup = with_key.run();
    checkup.passed(NAME, "the variable RCBOT_RECOVERY_KEY unlocks");

    remedy.says("if it is lost, stop the bot, `rcbot reset-identity --config /");
    remedy.ends(", and start it");
    let elsewhere = std::env::temp_dir();
    let refused = checker.complaint(&binary(commands(&remedy)[0]), &elsewhere);
    let (_, command) = refused.split_once("without a question: ").unwrap();
    checker.shell(&binary(command), &elsewhere);
    Checkup::of(&bot).passed(NAME, "");
    bot.run();
    bot.wait_until_ready(&alice).await;
    Checkup::of(&bot).passed(NAME, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_readable_wrong_or_missing_recovery_key_and_lost_secrets_are_reported() {
    let (alice, mut bot) = alice_and_bot().await;
    let matrix = bot.data_dir().join("matrix");
    let file = matrix.join("recovery-key");
    let copy = fs::read_to_string(&file).unwrap();

    set_mode(&file, 0o644);
    let remedy = Checkup::of(&bot).failed(NAME, "other users of this host can read");
    Checker::new(&file).shell(commands(&remedy)[0], &matrix);
    Checkup::of(&bot).passed(NAME, "");

    let put_back = format!(
        "put your copy of the recovery key at {}, or into the variable RCBOT_RECOVERY_KEY; if it is lost, stop the bot, \
         `rcbot reset-identity --config {}`, and start it",
        file.display(),
        bot.config_path().display()
    );
    fs::write(&file, ANOTHER_KEY).unwrap();
    assert_eq!(
        Checkup::of(&bot).failed(NAME, "does not open the secrets"),
        put_back
    );
    fs::write(&file, &copy).unwrap();
    Checkup::of(&bot).passed(NAME, "");

    fs::remove_file(&file).unwrap();
    let remedy = Checkup::of(&bot).warned(NAME, "there is no");
    assert_eq!(remedy, "restart the bot, which writes a recovery key");
    bot.restart(&alice).await;
    until("a recovery key", || file.exists()).await;
    Checkup::of(&bot).passed(NAME, "");

    // The homeserver no longer keeps the secrets.
    let before = fs::read_to_string(&file).unwrap();
    let user = bot.user_id();
    let path = format!("user/{user}/account_data/m.secret_storage.default_key");
    bot.call(Method::PUT, &path, &json!({})).await;
    let remedy = Checkup::of(&bot).warned(NAME, "keeps no secrets");
    remedy.is("restart the bot, which stores them and writes a new key");
    bot.restart(&alice).await;
    until("a new recovery key", || {
        fs::read_to_string(&file).is_ok_and(|now| now != before)
    })
    .await;
    Checkup::of(&bot).passed(NAME, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_an_identity_is_warned_of_until_the_bot_has_run() {
    let alice = person("alice").await;
    let mut bot = bot().prepare(&alice).await;
    let register = json!({
        "type": "m.login.application_service",
        "username": bot.user_id().localpart(),
        "inhibit_login": true,
    });
    let token = Tokens::shared().appservice;
    homeserver()
        .call(Method::POST, "register", &token, &register)
        .await;
    let matrix = bot.data_dir().join("matrix");
    let file = matrix.join("recovery-key");
    fs::create_dir_all(&matrix).unwrap();
    fs::write(&file, ANOTHER_KEY).unwrap();
    set_mode(&file, 0o600);
    let remedy = Checkup::of(&bot).warned(NAME, "the homeserver knows no identity of");
    assert_eq!(remedy, "run the bot, which makes one");
    bot.run();
    bot.wait_until_connected(1).await;
    Checkup::of(&bot).passed(NAME, "");
}
