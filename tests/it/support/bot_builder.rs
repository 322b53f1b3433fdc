//! Builds a bot before it runs: its config.yaml, its projects, its admin room.

use std::{collections::BTreeMap, fs, path::Path, sync::Mutex};

use matrix_sdk::ruma::{OwnedRoomId, OwnedUserId, RoomVersionId, UserId};
use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    LOCALPART_WITHOUT_LOG_IN,
    bot::{Bot, standin_log},
    homeserver::{Homeserver, RecordFile, SERVER_NAME},
    person::{Person, random_text},
    proxy::Proxy,
    rooms::RoomOptions,
    standin::{STANDIN_LOG, standin_program},
};

/// The default of `RUST_LOG` in tests.
const LOG_FILTER: &str = "warn,matrix_sdk::http_client=off,rcbot=trace,audit=info";

/// Builds a bot: `bot().project("website", |project| project.standin("silent")).start(&admin)`.
#[derive(Debug)]
pub(crate) struct BotBuilder {
    folder: TempDir,
    user: OwnedUserId,
    config: Value,
    room: RoomOptions,
    shared_room: Option<OwnedRoomId>,
    log_filter: String,
    homeserver_files: Vec<RecordFile>,
}

#[derive(Debug)]
pub(crate) struct ProjectBuilder(Value);

impl BotBuilder {
    /// A bot with its own user on this homeserver.
    pub(crate) fn new(homeserver: &Homeserver) -> Self {
        let localpart = format!("rcbot-{}", random_text());
        let folder = TempDir::with_prefix("rcbot-test-").unwrap();
        let registration = homeserver.registrations().first().unwrap();
        let config = json!({
            "homeserver": { "url": homeserver.url(), "server_name": SERVER_NAME },
            "appservice": { "registration": registration },
            "bot": { "localpart": localpart },
            "admin_room": null,
            "authorization": {},
            // Tests type faster than people.
            "rate": { "commands_per_minute": 1_000 },
            "data_dir": "data",
            "sessions": {
                "command": [
                    standin_program(), "remote-control", "--settings", "{settings}", "--permission-mode", "{mode}", "--spawn={spawn}", "--name",
                    "{name} {project}@{host} {id}"
                ],
            },
            "projects": {},
        });
        let user = UserId::parse(format!("@{localpart}:{SERVER_NAME}")).unwrap();
        let room = RoomOptions {
            encrypted: true,
            ..RoomOptions::default()
        };
        Self {
            folder,
            user,
            config,
            room,
            shared_room: None,
            log_filter: LOG_FILTER.to_owned(),
            homeserver_files: homeserver.records(),
        }
    }

    pub(crate) fn user_id(&self) -> &UserId {
        &self.user
    }

    /// A bot whose appservice this homeserver does not log in, as with Matrix Authentication Service.
    pub(crate) fn without_log_in(self, homeserver: &Homeserver) -> Self {
        let [_, registration] = homeserver.registrations() else {
            panic!("such a homeserver has two registrations")
        };
        self.called(&format!("{LOCALPART_WITHOUT_LOG_IN}-{}", random_text()))
            .configure(|config| config["appservice"]["registration"] = json!(registration))
    }

    /// A bot with an existing account. `key`: `password` or `access_token`.
    pub(crate) fn account(self, localpart: &str, key: &str, secret: &str) -> Self {
        self.called(localpart).configure(|config| {
            config.as_object_mut().unwrap().remove("appservice");
            config["bot"][key] = json!(secret);
        })
    }

    fn called(mut self, localpart: &str) -> Self {
        self.config["bot"]["localpart"] = json!(localpart);
        self.user = UserId::parse(format!("@{localpart}:{SERVER_NAME}")).unwrap();
        self
    }

    /// Adds a project with its own directory. Without any there is one, `website`, with a well-behaved stand-in.
    pub(crate) fn project(
        mut self,
        name: &str,
        with: impl FnOnce(ProjectBuilder) -> ProjectBuilder,
    ) -> Self {
        let directory = self.folder.path().join("projects").join(name);
        fs::create_dir_all(&directory).unwrap();
        let log = standin_log(self.folder.path());
        let project = json!({ "directory": directory, "environment": { STANDIN_LOG: log } });
        self.config["projects"][name] = with(ProjectBuilder(project)).0;
        self
    }

    /// Adds a project root, `src`, with these folders. See [`Bot::root`].
    pub(crate) fn root(mut self, folders: &[impl AsRef<Path>]) -> Self {
        let root = self.folder.path().join("src");
        for folder in folders {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let log = standin_log(self.folder.path());
        let root = json!({ "directory": root, "environment": { STANDIN_LOG: log } });
        self.config["project_roots"] = json!([root]);
        self
    }

    /// Whether the admin room that [`Self::start`] makes is encrypted; the default is yes.
    pub(crate) fn encrypted_admin_room(mut self, encrypted: bool) -> Self {
        self.room.encrypted = encrypted;
        self
    }

    /// The version of the admin room; the default is the server's.
    pub(crate) fn room_version(mut self, version: RoomVersionId) -> Self {
        self.room.version = Some(version);
        self
    }

    /// Gives the admin room an alias, by which config.yaml names it.
    pub(crate) fn admin_room_by_alias(mut self) -> Self {
        let alias = format!("admins-{}", random_text());
        self.config["admin_room"] = json!(format!("#{alias}:{SERVER_NAME}"));
        self.room.alias = Some(alias);
        self
    }

    /// Overrides keys of the admin room's `m.room.power_levels`.
    pub(crate) fn power_levels(mut self, levels: Value) -> Self {
        self.room.power_levels = Some(levels);
        self
    }

    /// Shares the admin room of another bot.
    pub(crate) fn beside(mut self, bot: &Bot) -> Self {
        self.shared_room = Some(bot.admin_room().to_owned());
        self
    }

    /// Invites somebody to the admin room, with this power level.
    pub(crate) fn member(mut self, person: &Person, level: i64) -> Self {
        let levels = self.room.power_levels.get_or_insert_with(|| json!({}));
        levels["users"][person.user_id().as_str()] = json!(level);
        self.invite(person.user_id())
    }

    pub(crate) fn invite(mut self, user: &UserId) -> Self {
        self.room.invite.push(user.to_owned());
        self
    }

    /// The content of the admin room's `m.room.create`.
    pub(crate) fn creation(mut self, content: Value) -> Self {
        self.room.creation = Some(content);
        self
    }

    pub(crate) fn power_level(self, level: i64) -> Self {
        self.configure(|config| config["authorization"]["power_level"] = json!(level))
    }

    pub(crate) fn configure(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    /// Sets `RUST_LOG`.
    pub(crate) fn log_filter(mut self, filter: &str) -> Self {
        filter.clone_into(&mut self.log_filter);
        self
    }

    /// Puts a proxy between the bot and its homeserver.
    pub(crate) fn through(self, proxy: &Proxy) -> Self {
        self.configure(|config| config["homeserver"]["url"] = json!(proxy.url()))
    }

    /// Makes the admin room in this person's name, starts the bot and waits until it can receive commands.
    pub(crate) async fn start(self, admin: &Person) -> Bot {
        let mut bot = self.prepare(admin).await;
        bot.run();
        bot.wait_until_ready(admin).await;
        bot
    }

    /// Makes the admin room, with the bot invited, and all files, and starts nothing.
    pub(crate) async fn prepare(mut self, admin: &Person) -> Bot {
        let has_root = self.config.get("project_roots").is_some();
        if self.config["projects"].as_object().unwrap().is_empty() && !has_root {
            self = self.project("website", |project| project);
        }
        let admin_room = if let Some(room) = self.shared_room {
            admin.invite(&room, &self.user).await.unwrap();
            room
        } else {
            self.room.invite.push(self.user.clone());
            admin.create_room(self.room).await.unwrap()
        };
        if self.config["admin_room"].is_null() {
            self.config["admin_room"] = json!(admin_room);
        }
        let bot = Bot {
            folder: self.folder,
            user: self.user,
            admin_room,
            log_filter: self.log_filter,
            homeserver_files: self.homeserver_files,
            program: env!("CARGO_BIN_EXE_rcbot").into(),
            known_to: Mutex::default(),
            variables: BTreeMap::new(),
            arguments: Vec::new(),
            process: None,
        };
        bot.write_config(&self.config);
        bot
    }
}

impl ProjectBuilder {
    /// Sets `RCBOT_STANDIN`, how the stand-in misbehaves: see tests/fixtures/claude.
    pub(crate) fn standin(mut self, words: &str) -> Self {
        self.0["environment"]["RCBOT_STANDIN"] = json!(words);
        self
    }

    pub(crate) fn environment(mut self, name: &str, value: impl Serialize) -> Self {
        self.0["environment"][name] = json!(value);
        self
    }

    pub(crate) fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0[key] = value.into();
        self
    }
}
