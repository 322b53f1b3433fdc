//! `rcbot check` and the users who may command: their pinned identities, and whether the bot can write to them.

use std::fs;

use crate::support::{
    checkup::{Checker, Checkup, binary, commands},
    prelude::*,
};

const NAME: &str = "pinned_identities";

#[tokio::test(flavor = "multi_thread")]
async fn another_identity_than_the_pinned_one_is_reported_until_the_operator_accepts_it() {
    let (alice, mut bot) = alice_and_bot().await;
    let user = alice.user_id();
    let checkup = Checkup::of(&bot);
    checkup.passed(NAME, "each is pinned when the bot first sees it");
    let remedy = checkup.warned("commanders", user.as_str());
    let users = commands(&remedy)[0].strip_prefix("users: ").unwrap();
    let users: Value = serde_yaml::from_str(users).unwrap();
    assert_eq!(users, json!([user]));
    bot.reconfigure(|config| config["authorization"]["users"] = users);
    Checkup::of(&bot).passed("commanders", user.as_str());
    bot.start_session(&alice, "website").await;
    Checkup::of(&bot).passed(NAME, "the identity of each is the pinned one");

    let new = alice.with_another_identity().await;
    let part = format!("another identity of {} than the bot knows", alice.user_id());
    let remedy = Checkup::of(&bot).failed(NAME, &part);
    // Without a terminal it says how to answer its question.
    let (checker, elsewhere) = (Checker::new(&bot.config_path()), std::env::temp_dir());
    let refused = checker.complaint(&binary(commands(&remedy)[0]), &elsewhere);
    let (_, command) = refused.split_once("To accept it: ").unwrap();
    let shown = new.master_key().await;
    command.trim_end().ends(&format!("--accept {shown}"));
    checker.shell(&binary(command), &elsewhere);
    Checkup::of(&bot).passed(NAME, "");

    let key_of_another = bot.identity(&alice).await;
    bot.reconfigure(|config| {
        config["authorization"]["users"] = json!({ alice.user_id(): key_of_another });
    });
    let remedy = Checkup::of(&bot).failed(NAME, "than config.yaml names");
    remedy.says("correct their key under `authorization.users`");
    bot.reconfigure(|config| config["authorization"]["users"] = json!({ alice.user_id(): shown }));
    Checkup::of(&bot).passed(NAME, "");

    fs::write(bot.data_dir().join("matrix/identities.json"), "[]").unwrap();
    let remedy = Checkup::of(&bot).failed(NAME, "identities.json is invalid");
    remedy.says("repair it, or delete it");
    remedy.says("stop the bot before that");
    bot.kill_9();
    fs::remove_file(bot.data_dir().join("matrix/identities.json")).unwrap();
    Checkup::of(&bot).passed(NAME, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_an_identity_or_with_a_malformed_key_is_reported_and_why_that_matters() {
    let alice = person("alice").await;
    let plain = person_without_identity("plain").await;
    let user = plain.user_id().to_owned();
    let proxy = Proxy::start(homeserver()).await;
    let bot = bot()
        .through(&proxy)
        .power_level(0)
        .invite(&user)
        .start(&alice)
        .await;
    let list = |users: Value| bot.reconfigure(|config| config["authorization"]["users"] = users);
    list(json!([alice.user_id(), user]));
    plain.join(bot.admin_room()).await;

    let part = format!("{user} has no cross-signing identity");
    let remedy = Checkup::of(&bot).warned(NAME, &part);
    remedy.says("sets up encryption");
    list(json!([user]));
    Checkup::of(&bot).failed(NAME, &part);
    bot.reconfigure(|config| config["encryption"] = json!({ "devices": "any" }));
    Checkup::of(&bot).passed(NAME, "");
    bot.reconfigure(|config| config["encryption"] = json!({}));
    plain.with_another_identity().await;
    Checkup::of(&bot).passed(NAME, "");

    list(json!([alice.user_id(), user]));
    let part = format!("a malformed key as the identity of {user}");
    proxy.on(Request::queries_keys).rewrite(move |_, answer| {
        answer["master_keys"][user.as_str()]["keys"] = json!({ "ed25519:malformed": 7 });
    });
    let remedy = Checkup::of(&bot).warned(NAME, &part);
    remedy.says("ask whoever runs the homeserver");
    remedy.lacks(alice.user_id().as_str());
}
