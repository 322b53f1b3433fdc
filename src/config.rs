//! config.yaml -> [`Config`]: typed, and checked as a whole, so that every problem is told in one go.
//!
//! [`Config::load`] reads the file, `check` says what each value must be, `section` reads mappings and notes problems,
//! `yaml` knows lines. A new key is a field here and a line where its mapping is read.
//!
//! Invariant: no message shows a secret.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use matrix_sdk::ruma::{OwnedRoomOrAliasId, OwnedServerName, OwnedUserId, UserId};
use url::Url;

mod authorization;
pub(crate) mod check;
mod host;
mod lenient;
mod limits;
mod login;
mod problem;
mod projects;
mod report;
pub(crate) mod section;
mod settings;
mod yaml;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use self::authorization::{Authorization, MasterKey, NotAKey};
pub use self::host::{HostName, InvalidHostName};
pub use self::lenient::Places;
pub use self::limits::Limits;
pub use self::login::LoginMethod;
pub(crate) use self::problem::Refusal;
pub use self::problem::{Problem, Problems};
pub use self::projects::ConfiguredProject;
pub(crate) use self::projects::usable_directory;
pub(crate) use self::yaml::Node;
use self::{
    login::Noted,
    section::{Section, UnknownKeys},
};
use crate::remote_control::ProjectName;

/// Reading is allowed to the group, or to all.
const READABLE_BY_GROUP_OR_OTHERS: u32 = 0o044;

/// Everything that config.yaml says, with the defaults filled in.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that says all this. Absolute.
    pub file: PathBuf,
    /// Where the homeserver's client-server API is. `http` or `https`, without user and password.
    pub homeserver_url: Url,
    /// The name in which the user ids of this homeserver end.
    pub server_name: OwnedServerName,
    /// How the bot logs in.
    pub login: LoginMethod,
    /// The bot's own user, on this homeserver.
    pub bot_user: OwnedUserId,
    /// The name that the bot shows in rooms.
    pub display_name: String,
    /// The one room in which commands count.
    pub admin_room: OwnedRoomOrAliasId,
    /// What this host is called, where several share the admin room; each has a bot.
    pub host: Option<HostName>,
    /// The first word of every command: not empty, without white space or backticks.
    pub command_prefix: String,
    /// Who may give commands.
    pub authorization: Authorization,
    /// Which devices are trusted, and with what.
    pub encryption: Encryption,
    /// How much is too much.
    pub limits: Limits,
    /// Older commands are not obeyed.
    pub max_command_age: Duration,
    /// Where the bot keeps its files. Absolute; may not exist yet.
    pub data_dir: PathBuf,
    /// What sessions can run in; at least one.
    pub projects: BTreeMap<ProjectName, ConfiguredProject>,
    warnings: Vec<Problem>,
}

/// Which devices are trusted, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encryption {
    /// Whose messages count, and who can read ours.
    pub devices: Devices,
    /// Whether a command must have been encrypted.
    pub require_encrypted_commands: RequireEncryptedCommands,
}

/// Whose messages count, and who can read ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// Only devices that their owner has signed.
    CrossSigned,
    /// Every device of the user, also one that an intruder has added.
    Any,
}

/// Whether a command must have been encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequireEncryptedCommands {
    /// Where the admin room is encrypted.
    Auto,
    /// In every room.
    Always,
    /// In no room.
    Never,
}

/// Why there is no [`Config`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no such file.
    #[error(
        "there is no {path}: `rcbot init` writes one, or copy config.example.yaml to it and adapt it, or name another file with --config"
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("cannot read {path}: it must be a file that the user who runs rcbot may read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file says something that cannot be.
    #[error(transparent)]
    Invalid(#[from] Problems),
}

impl Config {
    /// The power level that any command needs, those included that are about a project which says otherwise.
    #[must_use]
    pub fn least_power_level(&self) -> i64 {
        let of_projects = self.projects.values();
        let of_projects = of_projects.filter_map(|project| project.power_level);
        of_projects.fold(self.authorization.power_level, i64::min)
    }

    /// Reads and checks a file. Relative paths in it begin at the folder that it is in.
    ///
    /// # Errors
    /// With everything that is wrong, each with line, key, what was found and what is wanted.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let text = fs::read_to_string(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ConfigError::Missing {
                path: path.to_owned(),
            },
            _ => unreadable(error),
        })?;
        let mut config = Self::from_text(path, &text)?;
        let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode();
        if mode & READABLE_BY_GROUP_OR_OTHERS != 0
            && let Some(secret) = config.secret()
        {
            let message = format!("is readable by other users, and {secret}: chmod 600");
            let problem = Problem::new(path, None, String::new(), message);
            config.warnings.push(problem);
        }
        Ok(config)
    }

    /// Checks what a file says, or is to say.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_text(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let absolute = std::path::absolute(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let folder = absolute.parent().unwrap_or(&absolute);
        let config = Self::parse(path, text, folder)?;
        Ok(Self {
            file: absolute,
            ..config
        })
    }

    /// What in the file is nobody's business, or may be.
    fn secret(&self) -> Option<&'static str> {
        match self.login {
            LoginMethod::AccessToken(_) => return Some("bot.access_token is a secret"),
            LoginMethod::Password(_) => return Some("bot.password is a secret"),
            LoginMethod::Appservice { .. } => {}
        }
        let mut projects = self.projects.values();
        projects
            .any(|configured| !configured.project.settings.environment.is_empty())
            .then_some("what it puts into `environment` may be secret")
    }

    /// What is allowed and yet doubtful, such as an address without TLS.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// The projects in which no session can start as things are now, and why. It concerns them alone: a directory can come
    /// back while the bot runs, such as one on a disk that is mounted late.
    pub fn unusable_directories(&self) -> impl Iterator<Item = (&ProjectName, String)> {
        self.projects.iter().filter_map(|(name, configured)| {
            let why = usable_directory(&configured.project.directory).err()?;
            Some((name, why))
        })
    }

    fn parse(file: &Path, text: &str, folder: &Path) -> Result<Self, Problems> {
        let reader = |root: &mut Section<'_>| Self::read(root, folder);
        let (config, warnings) = section::read(file, text, UnknownKeys::Refused, reader)?;
        Ok(Self { warnings, ..config })
    }

    /// Reads all keys before it gives up on any.
    fn read(root: &mut Section<'_>, folder: &Path) -> Option<Self> {
        let (homeserver_url, server_name) = root.section("homeserver", read_homeserver);
        let (bot_user, display_name, secret) =
            root.section("bot", |bot| read_bot(bot, server_name.as_ref()));
        let login = login::read(root, secret, folder);
        let admin_room = root.required("admin_room", check::room);
        let host = root.optional("host", check::host);
        let command_prefix = root.or("command_prefix", "!rc".to_owned(), check::command_prefix);
        let authorization = root.section("authorization", authorization::read);
        let encryption = root.section("encryption", read_encryption);
        let limits = Limits::read(root);
        let max_command_age = root.or(
            "max_command_age",
            Duration::from_mins(2),
            check::positive_duration,
        );
        let data_dir = root.or("data_dir", default_data_dir(folder), check::path(folder));
        let built_in = root.noted("sessions", settings::built_in())?;
        let sessions = root.section("sessions", |sessions| settings::read(sessions, built_in));
        let projects = root.section("projects", |projects| {
            projects::read(projects, &sessions, folder)
        });
        Some(Self {
            file: PathBuf::new(),
            homeserver_url: homeserver_url?,
            server_name: server_name?,
            login: login?,
            bot_user: bot_user?,
            display_name,
            admin_room: admin_room?,
            host,
            command_prefix,
            authorization,
            encryption,
            limits,
            max_command_age,
            data_dir,
            projects: projects?,
            warnings: Vec::new(),
        })
    }
}

/// Where the bot keeps its files if nothing else is said, with the configuration in this folder.
fn default_data_dir(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn read_homeserver(homeserver: &mut Section<'_>) -> (Option<Url>, Option<OwnedServerName>) {
    let url = homeserver.required("url", check::homeserver_url);
    if url.as_ref().is_some_and(check::is_unprotected) {
        homeserver.warning(
            "url",
            "is http to another host: tokens go there in the clear; use https or 127.0.0.1",
        );
    }
    (url, homeserver.required("server_name", check::server_name))
}

fn read_bot(
    bot: &mut Section<'_>,
    server_name: Option<&OwnedServerName>,
) -> (
    Option<OwnedUserId>,
    String,
    Result<Option<LoginMethod>, Noted>,
) {
    let localpart = bot.or("localpart", "rcbot".to_owned(), check::localpart);
    let display_name = bot.or("display_name", "Remote Control".to_owned(), check::name);
    let user = server_name
        .and_then(|server| bot.noted("localpart", UserId::parse(format!("@{localpart}:{server}"))));
    (user, display_name, login::read_secret(bot))
}

fn read_encryption(encryption: &mut Section<'_>) -> Encryption {
    let devices = [
        ("cross_signed", Devices::CrossSigned),
        ("any", Devices::Any),
    ];
    let required = [
        ("auto", RequireEncryptedCommands::Auto),
        ("always", RequireEncryptedCommands::Always),
        ("never", RequireEncryptedCommands::Never),
    ];
    Encryption {
        devices: encryption.or("devices", Devices::CrossSigned, check::one_of(&devices)),
        require_encrypted_commands: encryption.or(
            "require_encrypted_commands",
            RequireEncryptedCommands::Auto,
            check::one_of(&required),
        ),
    }
}
