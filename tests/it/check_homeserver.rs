//! `rcbot check` with a real homeserver: for each fault the failed line, and that its remedy fixes it.

use std::fs;

use matrix_sdk::ruma::api::client::keys::get_keys;

use crate::support::{
    appservice::Tokens,
    checkup::{Checker, Checkup, commands},
    device::{account, log_in},
    homeserver::SERVER_NAME,
    prelude::*,
};

/// The checks that depend on the admin room.
const OF_THE_ROOM: [&str; 4] = ["membership", "power", "encryption", "access"];

#[tokio::test(flavor = "multi_thread")]
async fn a_running_bot_passes_is_not_changed_and_its_secrets_are_not_shown() {
    let (alice, proxy) = (person("alice").await, Proxy::start(homeserver()).await);
    let bot = bot()
        .through(&proxy)
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
    let of_homeserver = ["homeserver", "server_name", "account", "room", "sync"];
    for name in of_homeserver.iter().chain(&OF_THE_ROOM) {
        checkup.passed(name, "");
    }
    checkup.passed("identity", "unlocks the bot's identity");
    checkup.passed("room", bot.admin_room().as_str());
    checkup.passed("commanders", alice.user_id().as_str());
    checkup.passed("checked_as", "environment: the bot's");
    assert_eq!(devices().await, before, "no device was made");

    let link = bot.start_session(&alice, "website").await;
    let said = format!("{:?}", Checkup::of(&bot));
    let key = fs::read_to_string(bot.data_dir().join("matrix/recovery-key")).unwrap();
    let tokens = Tokens::shared();
    for secret in [&tokens.appservice, &tokens.homeserver, &link.link, &key] {
        said.lacks(secret.as_str());
    }

    // Nothing is concluded from state that the homeserver does not return.
    for (answer, part, begin) in [
        (
            Answer::refusal(429, "M_LIMIT_EXCEEDED"),
            "/state: the homeserver answers 429 M_LIMIT_EXCEEDED",
            "check again in a minute",
        ),
        (
            Answer::json(200, &json!({})),
            "/state: the answer is not what Matrix prescribes",
            "look this request up",
        ),
        (
            Answer::error_page(404),
            "/state: 404 Not Found (this is not the answer of a homeserver)",
            "let the reverse proxy pass all requests below `/_matrix`",
        ),
    ] {
        proxy.on(Request::reads_state).answer(answer);
        let checkup = Checkup::of(&bot);
        let remedy = checkup.failed("membership", part);
        remedy.begins(begin);
        checkup.skipped("commanders", "\"admin room membership\" comes first");
        proxy.be_honest();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_run_nothing_is_made_and_nothing_fails() {
    let alice = person("alice").await;
    let mut bot = bot().prepare(&alice).await;
    for _ in 0..2 {
        let checkup = Checkup::of(&bot);
        checkup.passed("homeserver", "");
        checkup.passed("account", "the bot's first run makes it");
        checkup.skipped("sync", "\"bot's account\" comes first");
        assert!(!bot.data_dir().exists());
    }
    let checker = Checker::new(&bot.config_path())
        .environment("SSL_CERT_FILE", "/dev/null")
        .environment("SSL_CERT_DIR", "/dev/null");
    let checkup = checker.run();
    let remedy = checkup.failed("homeserver", "No CA certificates");
    remedy.says("`ca-certificates`");
    checkup.skipped("account", "\"homeserver\" comes first");

    let file = bot.data_dir().join("matrix/session.json");
    // No user can read a folder as a file, not even root.
    fs::create_dir_all(&file).unwrap();
    let checkup = Checkup::of(&bot);
    let remedy = checkup.failed("account", "session.json");
    remedy.says("or move it away while no bot runs");
    checkup.skipped("sync", "\"bot's account\" comes first");
    fs::remove_dir_all(bot.data_dir()).unwrap();
    bot.run();
    bot.wait_until_ready(&alice).await;
    Checkup::of(&bot).passed("sync", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_that_the_homeserver_refuses_is_reported() {
    let (alice, account) = (person("alice").await, account().await);
    let (localpart, password) = &account;
    let proxy = Proxy::start(homeserver()).await;
    let flows = json!({ "flows": [{ "type": "m.login.sso" }] });
    proxy
        .on(|request| request.method == "GET" && request.path.ends_with("/login"))
        .answer(Answer::json(200, &flows));
    let bot = bot()
        .through(&proxy)
        .account(localpart, "password", password)
        .prepare(&alice)
        .await;
    let remedy = Checkup::of(&bot).failed("account", "does not offer a log-in with a password");
    assert_eq!(commands(&remedy), ["bot.access_token", "bot.password"]);
    let log_in_as = |localpart: &str, token: &str| {
        let section = json!({ "localpart": localpart, "access_token": token });
        bot.reconfigure(|config| config["bot"] = section);
    };
    let former = log_in(&account).await;
    log_in_as(localpart, &former.access_token().unwrap());
    Checkup::of(&bot).passed("sync", "");
    former.logout().await.unwrap();
    let remedy = Checkup::of(&bot).failed("account", "not valid any more");
    remedy.is("log in once more, and put the new token into config.yaml");

    let token = log_in(&account).await.access_token().unwrap();
    log_in_as("somebody", &token);
    let remedy = Checkup::of(&bot).failed("account", "config.yaml names @somebody:");
    let key = format!("bot.localpart: {localpart}");
    assert_eq!(commands(&remedy), [key.as_str()]);
    log_in_as(localpart, &token);
    Checkup::of(&bot).passed("account", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_page_of_a_reverse_proxy_is_distinguished_from_a_wrong_address_or_clock() {
    let (alice, proxy) = (person("alice").await, Proxy::start(homeserver()).await);
    let bot = bot().through(&proxy).prepare(&alice).await;
    let (page, json) = (Answer::error_page, |status| {
        Answer::json(status, &json!({ "error": "x" }))
    });
    let limited = Answer::refusal(429, "M_LIMIT_EXCEEDED");
    let (start, wait) = ("start the homeserver", "check again in a minute");
    let let_pass = "let the reverse proxy or firewall";
    let (not_matrix, correct) = ("not a Matrix client-server API", "correct `homeserver.url`");
    for (answer, part, remedy) in [
        (page(502), "versions: 502 Bad Gateway (the reverse", start),
        (page(503), "503 Service Unavailable (the reverse", start),
        (json(504), "504 Gateway Timeout (the reverse", start),
        (
            page(500),
            "500 Internal Server Error",
            "look this request up",
        ),
        (page(429), "429 Too Many Requests (from a reverse", wait),
        (limited, "the homeserver answers 429", wait),
        (page(401), "401 Unauthorized (from a reverse", let_pass),
        (page(403), "403 Forbidden (from a reverse", let_pass),
        (page(404), not_matrix, correct),
        (page(200), not_matrix, correct),
        (json(200), not_matrix, correct),
    ] {
        let versions = proxy.on(|request| request.path.ends_with("/versions"));
        versions.answer(answer);
        let shown = Checkup::of(&bot).failed("homeserver", part);
        shown.begins(remedy);
        proxy.be_honest();
    }
    Checkup::of(&bot).passed("homeserver", "");
    // Of another time.
    let versions = Answer::json(200, &json!({ "versions": ["v1.11"] }));
    proxy
        .on(|request| request.path.ends_with("/versions"))
        .answer(versions.header("date", "Sat, 01 Jan 2000 00:00:00 GMT"));
    let remedy = Checkup::of(&bot).warned("homeserver", "ahead of the homeserver's");
    remedy.begins("set the time");
    bot.reconfigure(|config| config["homeserver"]["url"] = json!("http://127.0.0.1:9"));
    let remedy = Checkup::of(&bot).failed("homeserver", "does not answer (");
    remedy.says("correct `homeserver.url`");
}

/// How Conduit and its forks answer for an unknown user.
fn no_such_user(status: u16, code: &str) -> Answer {
    let body = json!({ "errcode": code, "error": "User does not exist" });
    Answer::json(status, &body)
}

#[tokio::test(flavor = "multi_thread")]
async fn other_homeservers_answers_for_a_valid_token_without_a_user_yet_are_understood() {
    let (alice, proxy) = (person("alice").await, Proxy::start(homeserver()).await);
    let bot = bot().through(&proxy).prepare(&alice).await;
    for (of_sender, of_bot) in [
        // Conduit creates no user for `sender_localpart`.
        (
            Some(no_such_user(403, "M_FORBIDDEN")),
            no_such_user(403, "M_FORBIDDEN"),
        ),
        // Tuwunel 1.4.6
        (None, no_such_user(404, "M_NOT_FOUND")),
    ] {
        let asks_as_bot = |request: &Request| request.query("user_id").is_some();
        if let Some(of_sender) = of_sender {
            proxy
                .on(move |request| request.path.ends_with("/whoami") && !asks_as_bot(request))
                .answer(of_sender);
        }
        proxy
            .on(move |request| request.path.ends_with("/whoami") && asks_as_bot(request))
            .answer(of_bot);
        let checkup = Checkup::of(&bot);
        checkup.passed("server_name", SERVER_NAME);
        checkup.passed("account", "the bot's first run makes it");
        proxy.be_honest();
    }
    // An unknown token is still reported as one.
    proxy
        .on(|request| request.path.ends_with("/whoami"))
        .answer(Answer::refusal(401, "M_UNKNOWN_TOKEN"));
    Checkup::of(&bot).failed("account", "does not know the appservice's token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_that_lets_no_appservice_sync_without_a_device_is_asked_as_the_bots_device() {
    let (alice, proxy) = (person("alice").await, Proxy::start(homeserver()).await);
    for without_log_in in [false, true] {
        let mut bot = bot().through(&proxy);
        if without_log_in {
            bot = bot.without_log_in(homeserver());
        }
        let mut bot = bot.start(&alice).await;
        let user = bot.user_id().to_string();
        let syncs_without_device = move |request: &Request| {
            let names_bot = request.query("user_id").as_ref() == Some(&user);
            request.is_sync() && names_bot && request.query("device_id").is_none()
        };
        // Conduit, Tuwunel 1.4.6, Continuwuity.
        for answer in [
            Answer::new(500, "application/json", ""),
            Answer::refusal(500, "M_UNKNOWN"),
            Answer::refusal(403, "M_FORBIDDEN"),
        ] {
            proxy.be_honest();
            proxy.on(syncs_without_device.clone()).answer(answer);
            Checkup::of(&bot).passed("sync", "");
        }
        bot.kill_9();
        let file = bot.data_dir().join("matrix/session.json");
        let log_in = fs::read_to_string(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let checkup = Checkup::of(&bot);
        checkup.skipped("sync", "the bot has no device yet");
        checkup.passed("access", "");
        // An expired log-in counts as none.
        let other = log_in.replace("\"access_token\": \"", "\"access_token\": \"x");
        let other = other.replace("\"device_id\": \"", "\"device_id\": \"x");
        assert_ne!(other, log_in);
        fs::write(&file, other).unwrap();
        let checkup = Checkup::of(&bot);
        checkup.skipped("sync", "the bot has no device yet");
        checkup.passed("account", "");
        proxy.be_honest();
    }
}
