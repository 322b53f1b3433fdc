//! A matrix-sdk client with nothing around it: it joins where it is invited, and says back what it hears. A process of its
//! own, as the bot is, with its stores in SQLite, as the bot's are.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use matrix_sdk::{
    Client, Room,
    config::SyncSettings,
    ruma::{
        OwnedRoomId, OwnedUserId, UserId,
        events::room::message::{
            MessageType, OriginalSyncRoomMessageEvent, RoomMessageEventContent,
        },
    },
};
use tempfile::TempDir;

use crate::support::{
    eventually,
    homeserver::{Homeserver, SERVER_NAME},
    person::{Person, random_text},
};

/// The argument by which the benchmark starts itself as the bare client.
const ORDER: &str = "--bare-client";

/// How long the homeserver may hold a request open.
const LONG_POLL: Duration = Duration::from_secs(30);

/// What the client's process is told.
#[derive(Debug)]
pub(crate) struct Order {
    url: String,
    localpart: String,
    password: String,
    folder: PathBuf,
}

/// The order in these arguments, if there is one.
pub(crate) fn order(arguments: &[String]) -> Option<Order> {
    let [first, url, localpart, password, folder] = arguments else {
        return None;
    };
    (first == ORDER).then(|| Order {
        url: url.clone(),
        localpart: localpart.clone(),
        password: password.clone(),
        folder: PathBuf::from(folder),
    })
}

/// Syncs for ever.
pub(crate) async fn run(order: Order) -> Result<()> {
    let client = Client::builder()
        .homeserver_url(&order.url)
        .sqlite_store(&order.folder, None)
        .build()
        .await?;
    client
        .matrix_auth()
        .login_username(&order.localpart, &order.password)
        .send()
        .await?;
    client.add_event_handler(say_back);
    loop {
        let answer = client
            .sync_once(SyncSettings::new().timeout(LONG_POLL))
            .await?;
        for room in answer.rooms.invited.keys() {
            client.join_room_by_id(room).await?;
        }
    }
}

async fn say_back(event: OriginalSyncRoomMessageEvent, room: Room) {
    let MessageType::Text(content) = event.content.msgtype else {
        return;
    };
    if event.sender == room.own_user_id() {
        return;
    }
    // Not within the sync loop: the bot does not do that either.
    tokio::spawn(async move {
        let echo = RoomMessageEventContent::notice_plain(content.body);
        room.send(echo).await.unwrap();
    });
}

/// A running bare client. Killed when dropped.
#[derive(Debug)]
pub(crate) struct BareClient {
    user: OwnedUserId,
    process: Child,
    _folder: TempDir,
}

impl BareClient {
    /// Makes its account and starts its process.
    pub(crate) async fn start(homeserver: &Homeserver) -> Result<Self> {
        let localpart = format!("bare-{}", random_text());
        let password = random_text();
        homeserver.register_user(&localpart, &password).await?;
        let folder = TempDir::with_prefix("rcbot-bench-")?;
        // A copy, or its memory would count as shared with the benchmark's.
        let program = folder.path().join("bare-client");
        fs::copy(std::env::current_exe()?, &program)?;
        let process = Command::new(program)
            .args([ORDER, &homeserver.url(), &localpart, &password])
            .arg(folder.path().join("store"))
            .stdin(Stdio::null())
            .spawn()
            .context("the bare client does not start")?;
        Ok(Self {
            user: UserId::parse(format!("@{localpart}:{SERVER_NAME}"))?,
            process,
            _folder: folder,
        })
    }

    /// Its user.
    pub(crate) fn user_id(&self) -> &UserId {
        &self.user
    }

    /// Its process.
    pub(crate) fn pid(&self) -> i32 {
        self.process.id().cast_signed()
    }

    /// An encrypted room of it and this person, in which what is said can be read by both.
    pub(crate) async fn meet(&self, person: &Person) -> Result<OwnedRoomId> {
        let room = person.create_admin_room(&self.user).await?;
        eventually("the bare client joins", async || {
            let members = person.members(&room).await.ok()?;
            (members.get(self.user.as_str())? == "join").then_some(())
        })
        .await;
        eventually("the bare client has published its keys", async || {
            let encryption = person.client().encryption();
            encryption.request_user_identity(&self.user).await.ok()?;
            let devices = encryption.get_user_devices(&self.user).await.ok()?;
            devices.devices().next().map(|_| ())
        })
        .await;
        Ok(room)
    }
}

impl Drop for BareClient {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is reaped.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
