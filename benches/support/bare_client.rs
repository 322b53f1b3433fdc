//! A bare matrix-sdk client: it accepts invitations and echoes messages. Like the bot, it is a separate process, with its
//! stores in SQLite.

use std::{
    ffi::OsString,
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use matrix_sdk::{
    Client, Room,
    authentication::matrix::MatrixSession,
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

/// The arguments of the client's process.
#[derive(Debug)]
pub(crate) struct Order {
    url: String,
    localpart: String,
    password: String,
    folder: PathBuf,
}

/// Parses the arguments; `None` if they are not for the bare client.
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

/// Syncs forever.
pub(crate) async fn run(order: Order) -> Result<()> {
    let client = Client::builder()
        .homeserver_url(&order.url)
        // It has to stay behind its proxy, also if the homeserver announces another address.
        .respect_login_well_known(false)
        .sqlite_store(&order.folder, None)
        .build()
        .await?;
    let session = order.folder.join("session.json");
    if let Ok(text) = fs::read(&session) {
        let session: MatrixSession = serde_json::from_slice(&text)?;
        client.restore_session(session).await?;
    } else {
        client
            .matrix_auth()
            .login_username(&order.localpart, &order.password)
            .send()
            .await?;
        let logged_in = client.matrix_auth().session().context("not logged in")?;
        fs::write(session, serde_json::to_vec(&logged_in)?)?;
    }
    client.add_event_handler(echo);
    loop {
        let answer = client
            .sync_once(SyncSettings::new().timeout(LONG_POLL))
            .await?;
        for room in answer.rooms.invited.keys() {
            client.join_room_by_id(room).await?;
        }
    }
}

async fn echo(event: OriginalSyncRoomMessageEvent, room: Room) {
    let MessageType::Text(content) = event.content.msgtype else {
        return;
    };
    if event.sender == room.own_user_id() {
        return;
    }
    // Not within the sync loop, like the bot.
    tokio::spawn(async move {
        let echo = RoomMessageEventContent::notice_plain(content.body);
        room.send(echo).await.unwrap();
    });
}

/// A bare client. Killed when dropped.
#[derive(Debug)]
pub(crate) struct BareClient {
    user: OwnedUserId,
    program: PathBuf,
    arguments: [OsString; 5],
    process: Option<Child>,
    _folder: TempDir,
}

impl BareClient {
    /// Registers its account and starts its process, which uses the homeserver at this address.
    pub(crate) async fn start(homeserver: &Homeserver, url: &str) -> Result<Self> {
        let localpart = format!("bare-{}", random_text());
        let password = random_text();
        homeserver.register_user(&localpart, &password).await?;
        let folder = TempDir::with_prefix("rcbot-bench-")?;
        // A copy, or its memory would count as shared with the benchmark's.
        let program = folder.path().join("bare-client");
        fs::copy(std::env::current_exe()?, &program)?;
        let store = folder.path().join("store");
        let mut client = Self {
            user: UserId::parse(format!("@{localpart}:{SERVER_NAME}"))?,
            program,
            arguments: [
                ORDER.into(),
                url.into(),
                localpart.into(),
                password.into(),
                store.into(),
            ],
            process: None,
            _folder: folder,
        };
        client.run()?;
        Ok(client)
    }

    pub(crate) fn run(&mut self) -> Result<()> {
        let process = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .spawn();
        self.process = Some(process.context("the bare client does not start")?);
        Ok(())
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have exited already; either way it is reaped.
            process.kill().ok();
            process.wait().ok();
        }
    }

    pub(crate) fn user_id(&self) -> &UserId {
        &self.user
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.as_ref().unwrap().id().cast_signed()
    }

    /// An encrypted room of it and this person, in which both can decrypt messages.
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
        self.kill();
    }
}
