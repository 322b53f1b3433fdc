//! What comes out of the forwarder, byte by byte, and what goes back.

use std::os::unix::fs::PermissionsExt as _;

use matrix_sdk::ruma::device_id;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{
    config::Config,
    matrix::{
        Registration, generate,
        login::testing::{self, read_until},
        write_new,
    },
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
        let folder = tempfile::tempdir().unwrap();
        let (homeserver, config) = testing::homeserver(folder.path()).await;
        let (appservice, as_token) = appservice(&config, folder.path());
        let device = device_id!("RCBOT+1").to_owned();
        let forwarder = Forwarder::start(appservice, device, folder.path()).unwrap();
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
}

/// The appservice of a configuration, and its token.
fn appservice(config: &Config, folder: &Path) -> (Appservice, String) {
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
async fn an_answer_flows_as_it_comes_and_whoever_hangs_up_is_hung_up_on() {
    let setting = Setting::new().await;
    let asking = tokio::spawn(setting.request("/x").send());
    let (mut stream, _) = setting.homeserver.accept().await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    let beginning = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello";
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
    let socket = setting.folder.path().join(SOCKET);
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
