//! What comes out of the forwarder, byte by byte, and what goes back.

use std::os::unix::fs::PermissionsExt as _;

use matrix_sdk::ruma::device_id;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{
    config::Config,
    matrix::{
        Registration, generate,
        login::{
            Appservice,
            request::testing::{self, read_until},
        },
        write_new,
    },
    secret::Token,
};

/// A homeserver that a test plays, and the SDK's side of a forwarder to it.
struct Setting {
    homeserver: TcpListener,
    forwarder: Forwarder,
    http: Client,
    folder: tempfile::TempDir,
    as_token: String,
}

impl Setting {
    async fn new() -> Self {
        Self::with(|appservice| Credential::Appservice(Box::new(appservice))).await
    }

    async fn with(credential: impl FnOnce(Appservice) -> Credential) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (homeserver, config) = testing::homeserver(folder.path()).await;
        let (appservice, as_token) = appservice(&config, folder.path());
        let credential = credential(appservice);
        let device = device_id!("RCBOT+1").to_owned();
        let matrix = MatrixFolder::new(folder.path().to_owned());
        let quarantine = Arc::new(Quarantine::load(&matrix).unwrap());
        let forwarder = Forwarder::start(&config, credential, device, &matrix, quarantine).unwrap();
        Self {
            as_token,
            homeserver,
            http: forwarder.http_client().unwrap(),
            forwarder,
            folder,
        }
    }

    fn request(&self, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", Forwarder::homeserver());
        self.http.post(url)
    }

    /// What the SDK gets for a request when the homeserver says this, and the first line of what the homeserver was asked.
    async fn answer(&self, request: reqwest::RequestBuilder, said: &str) -> (String, Answer) {
        let answer = tokio::spawn(request.send());
        let (mut stream, _) = self.homeserver.accept().await.unwrap();
        let asked = read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(said.as_bytes()).await.unwrap();
        let first = asked.lines().next().unwrap().to_owned();
        (first, answer.await.unwrap().unwrap())
    }
}

type Answer = reqwest::Response;

async fn read_json(answer: Answer) -> Value {
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

fn json(status: &str, header: &str, body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    // Each on a connection of its own, so that none waits for the one before.
    format!(
        "HTTP/1.1 {status}\r\n{header}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// The appservice of a configuration, and its token.
fn appservice(config: &Config, folder: &std::path::Path) -> (Appservice, String) {
    let registration = folder.join("registration.yaml");
    write_new(&registration, &generate(&config.bot_user).unwrap()).unwrap();
    let registration = Registration::load(&registration, &config.bot_user).unwrap();
    let appservice = Appservice::new(config, &registration).unwrap();
    (appservice, registration.as_token.expose().to_owned())
}

#[tokio::test]
async fn a_request_goes_out_in_the_name_of_user_and_device_with_the_appservices_token() {
    let setting = Setting::new().await;
    let request = setting
        .request("/_matrix/client/v3/sync?since=a%20b")
        .bearer_auth(setting.forwarder.placeholder())
        .header("x-of-the-sdk", "kept")
        .body("the body");
    let answer = tokio::spawn(request.send());
    let (mut stream, _) = setting.homeserver.accept().await.unwrap();
    let asked = read_until(&mut stream, "the body").await;
    let (first, headers) = asked.split_once("\r\n").unwrap();
    assert_eq!(
        first,
        "POST /base/_matrix/client/v3/sync?since=a%20b&user_id=%40rcbot%3Aexample.org&device_id=RCBOT%2B1 HTTP/1.1"
    );
    let headers = headers.to_lowercase();
    let authorization = format!("authorization: bearer {}\r\n", setting.as_token);
    assert!(headers.contains(&authorization), "{headers}");
    assert!(headers.contains("x-of-the-sdk: kept\r\n"), "{headers}");
    assert!(headers.contains(&format!(
        "host: {}\r\n",
        setting.homeserver.local_addr().unwrap()
    )));
    assert_eq!(headers.matches("authorization:").count(), 1);

    let said =
        "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    stream.write_all(said.as_bytes()).await.unwrap();
    let answer = answer.await.unwrap().unwrap();
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(answer.text().await.unwrap(), "{}");
}

#[tokio::test]
async fn a_request_of_a_device_that_is_logged_in_goes_out_with_its_own_token() {
    let token = |_| Credential::Token(Token::new("the_token".to_owned()).unwrap());
    let setting = Setting::with(token).await;
    let request = setting
        .request("/x?y=z")
        .bearer_auth(setting.forwarder.placeholder());
    let asking = tokio::spawn(request.send());
    let (mut stream, _) = setting.homeserver.accept().await.unwrap();
    let asked = read_until(&mut stream, "\r\n\r\n").await.to_lowercase();
    assert!(
        asked.starts_with("post /base/x?y=z http/1.1\r\n"),
        "{asked}"
    );
    assert!(
        asked.contains("authorization: bearer the_token\r\n"),
        "{asked}"
    );
    asking.abort();
}

#[tokio::test]
async fn what_users_send_comes_by_user_and_the_homeserver_sees_its_own_tokens_only() {
    let setting = Setting::new().await;
    let key = "nqOvzeuGWT/sRx3h7+MHoInYj3Uk2LD/unI9kDYcHwk";
    let content = json!({
        "algorithm": "m.olm.v1.curve25519-aes-sha2", "sender_key": key, "ciphertext": { key: {} },
    });
    let event =
        |sender| json!({ "type": "m.room.encrypted", "sender": sender, "content": content });
    let events = [event("@a:x"), event("@b:x")];
    let said = json!({ "next_batch": "b", "rooms": {}, "to_device": { "events": events } });
    let said = json("200 OK", "content-type: application/json\r\n", &said);
    let sync = |since: &str| {
        let query = if since.is_empty() {
            String::new()
        } else {
            format!("since={since}&")
        };
        let url = format!(
            "{}/_matrix/client/v3/sync?{query}timeout=0",
            Forwarder::homeserver()
        );
        setting.http.get(url)
    };
    for (since, query) in [("", ""), ("s1", "since=s1&")] {
        let (asked, part) = setting.answer(sync(since), &said).await;
        let expected = format!("GET /base/_matrix/client/v3/sync?{query}timeout=0 HTTP/1.1");
        assert_eq!(asked, expected);
        let part = read_json(part).await;
        assert_eq!(part["to_device"]["events"], json!([events[0]]));
        assert!(part.get("rooms").is_none());

        // The next part is here already; another client that has the token asks for all once more.
        let token = part["next_batch"].as_str().unwrap();
        let part = read_json(sync(token).send().await.unwrap()).await;
        assert_eq!(part["next_batch"], "b");
        assert_eq!(part["to_device"]["events"], json!([events[1]]));
        let (asked, _) = setting.answer(sync(token), &said).await;
        assert_eq!(asked, expected);
    }
}

#[tokio::test]
async fn a_homeserver_is_left_alone_for_five_minutes_at_most() {
    let setting = Setting::new().await;
    for (header, body, header_then, body_then) in [
        ("retry-after: 86400\r\n", 86_400_000, Some("300"), 300_000),
        ("retry-after: 7\r\n", 7_000, Some("7"), 7_000),
        ("retry-after: Fri, 31 Dec 9999 23:59:59 GMT\r\n", 1, None, 1),
    ] {
        let said = json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "no", "retry_after_ms": body });
        for status in [429, 400, 503] {
            let said = json(&format!("{status} No"), header, &said);
            let (_, answer) = setting.answer(setting.request("/x"), &said).await;
            assert_eq!(answer.status(), status);
            let wait = answer.headers().get("retry-after");
            assert_eq!(wait.map(|wait| wait.to_str().unwrap()), header_then);
            let body = read_json(answer).await;
            assert_eq!(body["retry_after_ms"], body_then);
        }
    }
}

#[tokio::test]
async fn a_request_without_a_token_goes_out_without_one_and_one_with_a_strangers_does_not() {
    let setting = Setting::new().await;
    let stranger = setting.request("/x").bearer_auth("somebody").send().await;
    assert!(stranger.unwrap_err().is_request());

    let asking = tokio::spawn(setting.request("/_matrix/client/versions").send());
    let (mut stream, _) = setting.homeserver.accept().await.unwrap();
    let asked = read_until(&mut stream, "\r\n\r\n").await;
    assert!(
        asked.starts_with("POST /base/_matrix/client/versions HTTP/1.1\r\n"),
        "{asked}"
    );
    assert!(!asked.to_lowercase().contains("authorization"), "{asked}");
    asking.abort();
}

#[tokio::test]
async fn a_page_of_a_proxy_is_no_answer() {
    let setting = Setting::new().await;
    for page in [
        "200 OK\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\npage",
        "200 OK\r\ncontent-length: 0\r\n\r\n",
        "204 No Content\r\n\r\n",
        "302 Found\r\nlocation: /maintenance\r\ncontent-length: 0\r\n\r\n",
        "308 Permanent Redirect\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
    ] {
        let asking = tokio::spawn(setting.request("/x").send());
        let (mut stream, _) = setting.homeserver.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        let said = format!(
            "HTTP/1.1 {}",
            page.replacen("\r\n", "\r\nconnection: close\r\n", 1)
        );
        stream.write_all(said.as_bytes()).await.unwrap();
        drop(stream);
        let answer = asking.await.unwrap().unwrap();
        assert_eq!(answer.status(), 502, "{page}");
        assert_eq!(answer.text().await.unwrap(), "", "{page}");
    }
}

#[tokio::test]
async fn an_answer_flows_as_it_comes_and_whoever_hangs_up_is_hung_up_on() {
    let setting = Setting::new().await;
    let asking = tokio::spawn(setting.request("/x").send());
    let (mut stream, _) = setting.homeserver.accept().await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    let beginning =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\nhello";
    stream.write_all(beginning.as_bytes()).await.unwrap();
    let mut answer = asking.await.unwrap().unwrap();
    assert_eq!(
        answer.chunk().await.unwrap().unwrap(),
        "hello",
        "before the rest is there"
    );
    drop(answer);
    assert_eq!(
        stream.read(&mut [0]).await.unwrap(),
        0,
        "the homeserver sees it"
    );

    // The same while no answer is there yet, as when a long poll is given up.
    let asking = tokio::spawn(setting.request("/x").send());
    let (mut stream, _) = setting.homeserver.accept().await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    asking.abort();
    assert_eq!(
        stream.read(&mut [0]).await.unwrap(),
        0,
        "the homeserver sees it"
    );
}

#[tokio::test]
async fn a_homeserver_that_is_away_or_hangs_up_is_a_fault_of_the_network() {
    let setting = Setting::new().await;
    let asking = tokio::spawn(setting.request("/x").send());
    let (stream, _) = setting.homeserver.accept().await.unwrap();
    drop(stream);
    assert!(asking.await.unwrap().unwrap_err().is_request());

    let request = setting.request("/x");
    drop(setting.homeserver);
    assert!(request.send().await.unwrap_err().is_request());
}

#[tokio::test]
async fn the_socket_is_the_owners_alone_and_its_end_is_the_forwarders() {
    let setting = Setting::new().await;
    let socket = setting.folder.path().join("homeserver.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!format!("{:?}", setting.forwarder).contains(&setting.as_token));

    drop(setting.forwarder);
    let url = format!("{}/x", Forwarder::homeserver());
    assert!(
        setting
            .http
            .get(&url)
            .send()
            .await
            .unwrap_err()
            .is_connect()
    );
    // What is left of it does not keep the next one from listening.
    assert!(socket.exists());
    tokio::task::spawn_blocking(|| ()).await.unwrap();
    PrivateSocket::listen(&socket).unwrap();
}
