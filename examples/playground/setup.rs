//! Sets the playground up and ends it.

use std::{
    fs::{self, File, Permissions},
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use matrix_sdk::{
    authentication::matrix::MatrixSession,
    ruma::{OwnedRoomId, OwnedUserId, UserId},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    bot::{self, RunningBot},
    homeserver::{Homeserver, SERVER_NAME},
    person::{self, CrossSigning, Person, random_text},
    processes::Mark,
    synapse::install_synapse,
};

/// The name of the admin's account.
const ADMIN: &str = "admin";

/// The name of the bot's account.
const BOT: &str = "rcbot";

/// The variable that marks the sessions with a stand-in; its value is the playground's folder.
const STANDIN_MARK: &str = "RCBOT_PLAYGROUND_STANDIN";

/// The same for sessions with the real `claude`.
const CLAUDE_MARK: &str = "RCBOT_PLAYGROUND_CLAUDE";

/// What sessions run.
#[derive(Debug, clap::Args)]
pub(crate) struct Sessions {
    /// Run the real `claude` from PATH in the current directory, instead of the stand-in. It must be logged in and have been
    /// trusted in this directory. Its session is left running at the end.
    #[arg(long = "claude", conflicts_with = "demo")]
    real_claude: bool,

    /// The directory that sessions run in; the project has its name.
    #[arg(long, conflicts_with = "demo")]
    directory: Option<PathBuf>,
}

/// A homeserver, an admin, a room and a bot.
#[derive(Debug)]
pub(crate) struct Playground {
    /// The admin's client.
    pub(crate) admin: Person,
    /// The room in which commands count.
    pub(crate) admin_room: OwnedRoomId,
    /// The bot's user.
    pub(crate) bot_user: OwnedUserId,
    bot: RunningBot,
    folder: PathBuf,
    admin_password: String,
    // Dropped last, in this order: the homeserver ends, then the lock of the playground is released.
    homeserver: Homeserver,
    _lock: File,
}

/// State for further runs. Written last: without this file, the set-up of a folder is incomplete.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    admin_password: String,
    admin_room: OwnedRoomId,
}

impl Playground {
    /// Creates what is missing and starts everything.
    pub(crate) async fn set_up(sessions: &Sessions, fresh: bool) -> Result<Self> {
        let begun = Instant::now();
        let target = target_folder()?;
        let folder = target.join("playground");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let lock = File::create(target.join("playground.lock"))?;
        if lock.try_lock().is_err() {
            bail!("another playground is running");
        }
        let python = install_synapse(&target, &progress)?;
        let saved = if fresh { None } else { read_saved(&folder) };
        if saved.is_none() {
            // Sessions of a deleted playground could no longer be ended, so end them first.
            mark(CLAUDE_MARK, &folder).kill_all();
            mark(STANDIN_MARK, &folder).kill_all();
            fs::remove_dir_all(&folder)?;
            fs::create_dir_all(&folder)?;
        }
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        let playground = Self::start(folder, lock, &python, saved, sessions).await;
        let playground = playground
            .context("`--fresh` starts over, in case an earlier run's files are the cause")?;
        progress(&format!(
            "ready after {:.1} s; the bot logs to {}",
            begun.elapsed().as_secs_f32(),
            playground.log().display()
        ));
        Ok(playground)
    }

    async fn start(
        folder: PathBuf,
        lock: File,
        python: &Path,
        saved: Option<Saved>,
        sessions: &Sessions,
    ) -> Result<Self> {
        progress("starting Synapse");
        let registration = folder.join("registration.yaml");
        let bot_user = UserId::parse(format!("@{BOT}:{SERVER_NAME}"))?;
        bot::write_registration(&registration, &bot_user)?;
        let homeserver = Homeserver::start(python, &folder.join("homeserver"), &[registration])?;

        progress("logging the admin in");
        let is_new = saved.is_none();
        let password = saved
            .as_ref()
            .map_or_else(random_text, |saved| saved.admin_password.clone());
        if is_new {
            homeserver.register_user(ADMIN, &password).await?;
        }
        let admin =
            log_in_persistently(&homeserver.url(), &password, &folder.join("admin")).await?;
        let admin_room = if let Some(saved) = saved {
            saved.admin_room
        } else {
            let room = admin.create_admin_room(&bot_user).await?;
            let known = admin.client().get_room(&room).context("no admin room")?;
            known.set_name("Admins".to_owned()).await?;
            room
        };

        progress("starting the bot");
        let config = folder.join("config.yaml");
        write_config(&config, &homeserver.url(), &admin_room, sessions)?;
        let mut bot = RunningBot::start(&config, &folder.join("bot.log"))?;
        tokio::select! {
            ready = admin_sees_bot(&admin, &admin_room, &bot_user) => ready?,
            error = bot.failed() => return Err(error),
        }
        if is_new {
            write_private(
                &folder.join("playground.json"),
                &serde_json::to_vec(&Saved {
                    admin_password: password.clone(),
                    admin_room: admin_room.clone(),
                })?,
            )?;
        }
        Ok(Self {
            admin,
            admin_room,
            bot_user,
            bot,
            folder,
            admin_password: password,
            homeserver,
            _lock: lock,
        })
    }

    /// What another client needs to log in as the admin.
    pub(crate) fn log_in_elsewhere(&self) -> String {
        format!(
            "Log in at {} as {ADMIN} with the password {}, and then type /verify here.",
            self.homeserver.url(),
            self.admin_password
        )
    }

    /// Signs the admin's current devices, as people do in a client's settings.
    pub(crate) async fn verify_devices(&self) -> Result<()> {
        let encryption = self.admin.client().encryption();
        let admin = self.admin.user_id();
        encryption.request_user_identity(admin).await?;
        for device in encryption.get_user_devices(admin).await?.devices() {
            if !device.is_cross_signed_by_owner() {
                device.verify().await?;
                progress(&format!("verified the device {}", device.device_id()));
            }
        }
        Ok(())
    }

    /// The living processes of the stand-in's sessions.
    pub(crate) fn session_processes(&self) -> usize {
        mark(STANDIN_MARK, &self.folder).processes().len()
    }

    /// Ends the bot and the stand-ins; a real `claude` keeps running for its user.
    pub(crate) async fn end(self) -> Result<()> {
        let ended = self.bot.end().await;
        if mark(STANDIN_MARK, &self.folder).kill_all() > 0 {
            progress("a session was still running and was ended, as its claude was a stand-in");
        }
        if !mark(CLAUDE_MARK, &self.folder).processes().is_empty() {
            progress(
                "a session of the real claude goes on; to end it, run this again with --claude and type: !rc stop",
            );
        }
        ended
    }

    fn log(&self) -> PathBuf {
        self.folder.join("bot.log")
    }
}

/// Logs the admin in with a device that keeps everything in `folder`, and is the same device next time.
async fn log_in_persistently(url: &str, password: &str, folder: &Path) -> Result<Person> {
    let client = person::builder(url)
        .sqlite_store(folder, None)
        .build()
        .await?;
    let session = folder.join("session.json");
    if let Ok(text) = fs::read(&session) {
        let logged_in = serde_json::from_slice::<MatrixSession>(&text)?;
        client.restore_session(logged_in).await?;
        return Person::begin(client, password, CrossSigning::Without).await;
    }
    let login = client.matrix_auth().login_username(ADMIN, password);
    login.send().await?;
    let logged_in = client.matrix_auth().session();
    let logged_in = logged_in.context("no session after the log-in")?;
    let person = Person::begin(client, password, CrossSigning::SetUp).await?;
    fs::write(&session, serde_json::to_vec(&logged_in)?)?;
    Ok(person)
}

fn mark<'a>(name: &'a str, folder: &'a Path) -> Mark<'a> {
    Mark {
        name,
        value: folder.as_os_str(),
    }
}

/// Shows a step of the set-up.
pub(crate) fn progress(step: &str) {
    eprintln!("· {step}");
}

/// Cargo's target folder: this program is in its `<profile>/examples`.
fn target_folder() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program
        .ancestors()
        .nth(3)
        .context("this program must run from cargo's target folder")?
        .to_owned())
}

fn read_saved(folder: &Path) -> Option<Saved> {
    serde_json::from_slice(&fs::read(folder.join("playground.json")).ok()?).ok()
}

fn write_config(
    path: &Path,
    url: &str,
    admin_room: &OwnedRoomId,
    sessions: &Sessions,
) -> Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    let standin = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/claude");
    let (claude, mark) = if sessions.real_claude {
        (Path::new("claude"), CLAUDE_MARK)
    } else {
        (standin.as_path(), STANDIN_MARK)
    };
    let (project, directory) = match &sessions.directory {
        Some(directory) => {
            let directory = std::path::absolute(directory)?;
            let name = directory.file_name().context("a project needs a name")?;
            (name.to_string_lossy().into_owned(), directory.clone())
        }
        None if sessions.real_claude => ("here".to_owned(), std::env::current_dir()?),
        None => ("website".to_owned(), folder.join("website")),
    };
    fs::create_dir_all(&directory)?;
    let config = json!({
        "homeserver": { "url": url, "server_name": SERVER_NAME },
        "appservice": { "registration": "registration.yaml" },
        "bot": { "localpart": BOT },
        "admin_room": admin_room,
        "data_dir": "data",
        "sessions": {
            "command": [claude, "remote-control", "--spawn=same-dir", "--name", "{project}@{host} {id}"],
        },
        "projects": { project: { "directory": directory, "environment": { mark: folder } } },
    });
    write_private(path, serde_yaml::to_string(&config)?.as_bytes())
}

fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(content)?)
}

/// Waits until the bot has joined, with a device that the admin's client can encrypt to.
async fn admin_sees_bot(admin: &Person, admin_room: &OwnedRoomId, bot: &UserId) -> Result<()> {
    const DEADLINE: Duration = Duration::from_secs(30);
    let joined = async {
        while admin
            .members(admin_room)
            .await?
            .get(bot.as_str())
            .is_none_or(|membership| membership != "join")
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        admin.wait_for_signed_device_of(bot).await;
        Ok(())
    };
    tokio::time::timeout(DEADLINE, joined)
        .await
        .context("the bot did not join the admin room")?
}
