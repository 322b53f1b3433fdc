//! `rcbot check` with a real homeserver: for each fault the failed line, and that its remedy mends it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    thread,
};

use matrix_sdk::ruma::api::client::keys::get_keys;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    appservice::Tokens,
    bot::Bot,
    checkup::{Checker, Checkup, commands},
    eventually, homeserver,
    homeserver::SERVER_NAME,
    person::Person,
    program::rcbot,
    run_to_end, start_homeserver,
};

async fn alice() -> Person {
    Person::register(homeserver(), "alice").await.unwrap()
}

/// Lets the bot's registration be another one: the shared one with changes.
fn change_registration(bot: &Bot, change: impl FnOnce(&mut Value)) {
    let shared = homeserver().registrations().first().unwrap();
    let mut registration = serde_yaml::from_str(&fs::read_to_string(shared).unwrap()).unwrap();
    change(&mut registration);
    let path = bot.data_dir().with_file_name("registration.yaml");
    fs::write(&path, serde_yaml::to_string(&registration).unwrap()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    bot.reconfigure(|config| config["appservice"]["registration"] = json!(path));
}

/// What stands on the admin room.
const OF_THE_ROOM: [&str; 5] = [
    "admin room membership",
    "bot's power",
    "admin room encryption",
    "admin room access",
    "who may command",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_runs_is_found_well_and_left_as_it_is() {
    let alice = alice().await;
    let bot = Bot::builder(homeserver())
        .admin_room_by_alias()
        .start(&alice)
        .await;
    let devices = || async {
        let mut request = get_keys::v3::Request::new();
        request
            .device_keys
            .insert(bot.user_id().to_owned(), Vec::new());
        let answer = alice.client().send(request).await.unwrap();
        answer.device_keys[bot.user_id()].len()
    };
    let before = devices().await;
    let checkup = Checkup::of(&bot);
    let of_homeserver = [
        "homeserver",
        "token",
        "server name",
        "bot's user",
        "admin room",
        "sync",
    ];
    for name in of_homeserver.iter().chain(&OF_THE_ROOM) {
        assert_eq!(checkup.outcome(name), "passed", "{checkup:?}");
    }
    checkup.expect("identity and recovery key", "passed", "opens the secrets");
    checkup.expect("admin room", "passed", bot.admin_room().as_str());
    checkup.expect("who may command", "passed", alice.user_id().as_str());
    checkup.expect("log-in", "passed", "as the appservice's user");
    checkup.expect("running bot", "passed", "runs with this data directory");
    assert_eq!(devices().await, before, "no device was made");
    bot.start_session(&alice, "website").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_run_nothing_is_made_and_nothing_fails() {
    let alice = alice().await;
    let mut bot = Bot::builder(homeserver()).prepare(&alice).await;
    let checkup = Checkup::of(&bot);
    checkup.expect("bot's user", "passed", "the bot's first run makes it");
    checkup.expect("sync", "skipped", "run the bot, and check again");
    let again = Checkup::of(&bot);
    again.expect("bot's user", "passed", "the bot's first run makes it");
    assert!(!bot.data_dir().exists());
    bot.run();
    bot.wait_until_ready(&alice).await;
    assert_eq!(Checkup::of(&bot).outcome("sync"), "passed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_of_the_homeserver_is_told() {
    let alice = alice().await;
    let bot = Bot::builder(homeserver()).prepare(&alice).await;
    let address = |url: &str| bot.reconfigure(|config| config["homeserver"]["url"] = json!(url));
    address("http://127.0.0.1:9");
    let remedy = Checkup::of(&bot).expect("homeserver", "failed", "does not answer (");
    assert!(remedy.contains("correct `homeserver.url`"), "{remedy}");
    address(&something_else());
    Checkup::of(&bot).expect("homeserver", "failed", "is no Matrix homeserver");
    address(&homeserver().url());
    Checkup::of(&bot).expect("homeserver", "passed", "up to Matrix v1.");
}

/// A web server that is no homeserver.
fn something_else() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            let page = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
            stream.write_all(page.as_bytes()).unwrap();
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_root_certificates_is_told_before_the_bot_fails_there() {
    let alice = alice().await;
    let bot = Bot::builder(homeserver()).prepare(&alice).await;
    let checker = Checker::new(&bot.config_path())
        .environment("SSL_CERT_FILE", "/dev/null")
        .environment("SSL_CERT_DIR", "/dev/null");
    let checkup = checker.run();
    let remedy = checkup.expect("homeserver", "failed", "No CA certificates");
    assert!(remedy.contains("`ca-certificates`"), "{remedy}");
    checkup.expect("token", "skipped", "this host can make no requests");
    assert_eq!(Checkup::of(&bot).outcome("homeserver"), "passed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_the_homeserver_does_not_have_is_told_until_it_has_it() {
    let folder = TempDir::with_prefix("rcbot-test-").unwrap();
    let mut homeserver = start_homeserver(&folder.path().join("homeserver")).unwrap();
    let config = folder.path().join("config.yaml");
    let url = homeserver.url();
    let configure = |localpart: &str| {
        let config_text = json!({
            "homeserver": { "url": url, "server_name": SERVER_NAME },
            "bot": { "localpart": localpart },
            "admin_room": "#admins:rcbot.test",
            "projects": { "website": { "directory": "." } },
        });
        fs::write(&config, config_text.to_string()).unwrap();
    };
    configure("remote");
    write_registration(folder.path());
    let checker = Checker::new(&config);
    let remedy = checker.run().expect("token", "failed", "does not know it");
    assert!(
        remedy.starts_with("give the homeserver a copy of /"),
        "{remedy}"
    );
    let copy = homeserver.registrations()[0].clone();
    let ours = folder.path().join("registration.yaml");
    fs::copy(&ours, &copy).unwrap();
    homeserver.start_again().unwrap();
    let checkup = checker.run();
    checkup.expect("token", "passed", "@remote-appservice:rcbot.test");
    assert_eq!(checkup.outcome("bot's user"), "passed");

    // A new name for the bot, here and not yet there.
    configure("remote-2");
    let text = fs::read_to_string(&ours).unwrap();
    fs::write(&ours, text.replace("'@remote:", "'@remote-2:")).unwrap();
    let checkup = checker.run();
    let remedy = checkup.expect(
        "bot's user",
        "failed",
        "does not let the appservice act as @remote-2:rcbot.test",
    );
    assert!(
        remedy.starts_with("give the homeserver a new copy of /"),
        "{remedy}"
    );
    fs::copy(&ours, &copy).unwrap();
    homeserver.start_again().unwrap();
    assert_eq!(checker.run().outcome("bot's user"), "passed");

    // A new name for the sender, here and not yet there.
    let text = fs::read_to_string(&ours).unwrap();
    fs::write(&ours, text.replace("-appservice'", "-sender'")).unwrap();
    let remedy = checker
        .run()
        .expect("token", "warning", "another `sender_localpart`");
    assert!(
        remedy.starts_with("give the homeserver a new copy of /"),
        "{remedy}"
    );
    fs::copy(&ours, &copy).unwrap();
    homeserver.start_again().unwrap();
    checker
        .run()
        .expect("token", "passed", "@remote-sender:rcbot.test");
}

fn write_registration(folder: &Path) {
    let output = run_to_end(rcbot(folder).arg("registration").current_dir(folder));
    assert!(output.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_server_name_is_told_with_the_right_one() {
    let alice = alice().await;
    let bot = Bot::builder(homeserver()).start(&alice).await;
    let name = |name: &str| {
        bot.reconfigure(|config| config["homeserver"]["server_name"] = json!(name));
        change_registration(&bot, |registration| {
            let regex = format!("@rcbot-[a-z-]+:{}", regex::escape(name));
            registration["namespaces"]["users"][0]["regex"] = json!(regex);
        });
    };
    name("example.org");
    let remedy = Checkup::of(&bot).expect("server name", "failed", "calls itself rcbot.test");
    assert_eq!(commands(&remedy)[0], "homeserver.server_name: rcbot.test");
    name("rcbot.test");
    assert_eq!(Checkup::of(&bot).outcome("server name"), "passed");
    assert_eq!(Checkup::of(&bot).outcome("sync"), "passed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_with_the_senders_name_cannot_sync() {
    let alice = alice().await;
    let bot = Bot::builder(homeserver()).start(&alice).await;
    let sender = "_rcbot_appservice";
    let own = bot.user_id().localpart().to_owned();
    bot.reconfigure(|config| config["bot"]["localpart"] = json!(sender));
    change_registration(&bot, |registration| {
        registration["sender_localpart"] = json!("other");
        registration["namespaces"]["users"][0]["regex"] = json!("@.*:rcbot\\.test");
    });
    let checkup = Checkup::of(&bot);
    checkup.expect("token", "warning", "another `sender_localpart`");
    let remedy = checkup.expect("sync", "failed", "500");
    assert!(
        remedy.starts_with("set `bot.localpart` in config.yaml to another name"),
        "{remedy}"
    );
    bot.reconfigure(|config| config["bot"]["localpart"] = json!(own));
    assert_eq!(Checkup::of(&bot).outcome("sync"), "passed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_key_that_is_lost_or_wrong_or_open_is_told() {
    const NAME: &str = "identity and recovery key";
    let alice = alice().await;
    let mut bot = Bot::builder(homeserver()).start(&alice).await;
    let matrix = bot.data_dir().join("matrix");
    let file = matrix.join("recovery-key");
    let copy = fs::read_to_string(&file).unwrap();

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let remedy = Checkup::of(&bot).expect(NAME, "failed", "other users of this host can read");
    Checker::new(&file).shell(commands(&remedy)[0], &matrix);
    assert_eq!(Checkup::of(&bot).outcome(NAME), "passed");

    let put_back = format!(
        "put your copy of the recovery key at {}, or into the variable RCBOT_RECOVERY_KEY; if it is lost, `rcbot reset-identity`",
        file.display()
    );
    fs::write(
        &file,
        "EsTR mwqJ JoXZ 8dKN F8hP 9tpv FGT3 ZvCn tYCy Kq4e 8FJh Hrdm",
    )
    .unwrap();
    assert_eq!(
        Checkup::of(&bot).expect(NAME, "failed", "does not open the secrets"),
        put_back
    );
    fs::write(&file, &copy).unwrap();
    assert_eq!(Checkup::of(&bot).outcome(NAME), "passed");

    fs::remove_file(&file).unwrap();
    let remedy = Checkup::of(&bot).expect(NAME, "warning", "there is no");
    assert_eq!(remedy, "start the bot again, which writes a recovery key");
    bot.restart(&alice).await;
    eventually("a recovery key", async || file.exists().then_some(())).await;
    assert_eq!(Checkup::of(&bot).outcome(NAME), "passed");

    let copy = fs::read_to_string(&file).unwrap();
    bot.kill_9();
    fs::remove_dir_all(&matrix).unwrap();
    assert_eq!(
        Checkup::of(&bot).expect(NAME, "failed", "neither its keys nor"),
        put_back
    );
    fs::create_dir(&matrix).unwrap();
    fs::write(&file, copy).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(Checkup::of(&bot).outcome(NAME), "passed");
    bot.run();
    bot.wait_until_ready(&alice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_a_report() {
    let alice = alice().await;
    let bot = Bot::builder(homeserver()).start(&alice).await;
    let link = bot.start_session(&alice, "website").await;
    let said = format!("{:?}", Checkup::of(&bot));
    let key = fs::read_to_string(bot.data_dir().join("matrix/recovery-key")).unwrap();
    let tokens = Tokens::shared();
    for secret in [&tokens.appservice, &tokens.homeserver, &link.link, &key] {
        assert!(!said.contains(secret.as_str()), "{said}");
    }
}
