//! `rcbot check` with a real homeserver: for each fault the failed line, and that its remedy mends it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    thread,
};

use matrix_sdk::ruma::api::client::keys::get_keys;
use serde_json::json;

use crate::support::{
    appservice::Tokens,
    bot::Bot,
    checkup::{Checker, Checkup, commands},
    eventually, homeserver,
    person::Person,
    proxy::{Answer, Proxy},
};

async fn alice() -> Person {
    Person::register(homeserver(), "alice").await.unwrap()
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
        .configure(|config| config["authorization"]["users"] = json!([alice.user_id()]))
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
        "put your copy of the recovery key at {}, or into the variable RCBOT_RECOVERY_KEY; if it is lost, stop the bot, \
         `rcbot reset-identity --config {}`, and start the bot again",
        file.display(),
        bot.config_path().display()
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

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_not_the_homeservers_is_told() {
    let alice = alice().await;
    let proxy = Proxy::start(homeserver()).await;
    let builder = Bot::builder(homeserver()).through(&proxy);
    let bot = builder.prepare(&alice).await;
    assert_eq!(Checkup::of(&bot).outcome("homeserver"), "passed");
    let versions = Answer::json(200, &json!({ "versions": ["v1.11"] }));
    proxy
        .on(|request| request.path.ends_with("/versions"))
        .answer(versions.header("date", "Sat, 01 Jan 2000 00:00:00 GMT"));
    let remedy = Checkup::of(&bot).expect("homeserver", "warning", "ahead of the homeserver's");
    assert!(remedy.starts_with("set the time"), "{remedy}");
}
