//! config.yaml -> [`Config`]: typed, and checked as a whole, so that all problems are reported at once.
//!
//! `file` has the keys as serde structs and makes a [`Config`] of them, `values` parses each value, `outline` reads YAML and
//! the line of each value, and `document` reads that by serde and collects the problems.
//!
//! Invariant: no message shows a secret.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use matrix_sdk::ruma::{OwnedRoomOrAliasId, OwnedServerName, OwnedUserId};
use url::Url;

mod authorization;
pub(crate) mod document;
mod file;
mod host;
mod outline;
pub(crate) mod patience;
mod places;
mod roots;
pub(crate) mod values;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use self::authorization::{Authorization, MasterKey};
pub(crate) use self::document::{FileError, Problem, Problems};
use self::file::File;
pub(crate) use self::host::HostName;
pub(crate) use self::places::Places;
pub(crate) use self::roots::{Found, ProjectRoot, Seen};
use crate::{
    remote_control::{Project, ProjectName, SessionSettings},
    secret::{SecretText, Token},
};

/// Reading is allowed to the group, or to all.
const READABLE_BY_GROUP_OR_OTHERS: u32 = 0o044;

/// What to do where there is no config.yaml.
const MISSING: &str = "`rcbot init` writes one, or copy config.example.yaml to it and adapt it, or name another file with --config";

/// Everything that config.yaml says, with the defaults filled in.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The configuration file. Absolute.
    pub(crate) file: PathBuf,
    /// Where the homeserver's client-server API is. `http` or `https`, without user and password.
    pub(crate) homeserver_url: Url,
    /// The name of the homeserver, with which its user ids end.
    pub(crate) server_name: OwnedServerName,
    pub(crate) login: LoginMethod,
    /// The bot's own user, on this homeserver.
    pub(crate) bot_user: OwnedUserId,
    /// The name that the bot shows in rooms.
    pub(crate) display_name: String,
    /// The one room in which commands count.
    pub(crate) admin_room: OwnedRoomOrAliasId,
    /// The name of this host, where several share the admin room; each has a bot.
    pub(crate) host: Option<HostName>,
    /// The first word of every command: not empty, without white space or backticks.
    pub(crate) command_prefix: String,
    pub(crate) authorization: Authorization,
    pub(crate) encryption: Encryption,
    /// How many commands of one user are accepted within a minute.
    pub(crate) commands_per_minute: usize,
    /// How many sessions there may be at once. `None`: one for each project.
    pub(crate) max_sessions: Option<usize>,
    /// Older commands are ignored.
    pub(crate) max_command_age: Duration,
    /// Where the bot keeps its files. Absolute; may not exist yet.
    pub(crate) data_dir: PathBuf,
    /// The configured projects; at least one, unless there are roots.
    pub(crate) projects: ConfiguredProjects,
    /// Directories whose folders are projects too.
    pub(crate) project_roots: Vec<ProjectRoot>,
    warnings: Vec<Problem>,
}

/// How the bot logs in, with the credentials. `R` is the appservice's registration; in the configuration, the absolute path of
/// its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LoginMethod<R = PathBuf> {
    /// As an appservice's user, which the homeserver's operator has registered.
    Appservice(R),
    /// With the access token of a log-in that was made for the bot.
    AccessToken(Token),
    /// With the account's password.
    Password(SecretText),
}

pub(crate) type ConfiguredProjects = BTreeMap<ProjectName, ConfiguredProject>;

/// A project, and who may use it.
#[derive(Debug, Clone)]
pub(crate) struct ConfiguredProject {
    pub(crate) project: Project,
    /// The power level for this project, in place of [`Authorization::power_level`].
    pub(crate) power_level: Option<i64>,
    /// The events that ring for those who have the link of its session.
    pub(crate) notify: Vec<Notification>,
}

/// Events that those who have a session's link may want to know at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notification {
    /// The session ended without a stop, or is about to.
    Ended,
    /// It is cut off from its service.
    CutOff,
    /// The login of its program is about to end.
    Login,
    /// It ended because the host was restarted.
    Rebooted,
}

/// Which devices are trusted, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Encryption {
    pub(crate) devices: Devices,
    pub(crate) require_encrypted_commands: RequireEncryptedCommands,
}

/// Whose messages count, and who can read ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Devices {
    /// Only devices that their owner has signed.
    CrossSigned,
    /// Every device of the user, also one that an intruder has added.
    Any,
}

/// Whether a command must have been encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequireEncryptedCommands {
    /// Where the admin room is encrypted.
    Auto,
    /// In every room.
    Always,
    /// In no room.
    Never,
}

impl Config {
    /// The least power level of all commands, those about projects with another level included.
    pub(crate) fn least_power_level(&self) -> i64 {
        let of_projects = self.projects.values().map(|project| project.power_level);
        let of_roots = self.project_roots.iter().map(|root| root.power_level);
        let all = of_projects.chain(of_roots).flatten();
        all.fold(self.authorization.power_level, i64::min)
    }

    /// The power level for an unknown project, such as a folder that is gone: the highest that it may have needed.
    pub(crate) fn power_level_of_unknown(&self) -> i64 {
        let of_roots = self.project_roots.iter().map(|root| root.power_level);
        let of_root = |level: Option<i64>| level.unwrap_or(self.authorization.power_level);
        let highest = of_roots.map(of_root).max();
        highest.unwrap_or(self.authorization.power_level)
    }

    /// Reads and checks a file. Relative paths in it begin at the folder that it is in.
    /// The error has everything that is wrong, each with line, key, what was found and what is wanted.
    pub(crate) fn load(path: &Path) -> Result<Self, FileError> {
        let text = document::text_of(path, MISSING)?;
        let mut config = Self::from_text(path, &text)?;
        let metadata = fs::metadata(path).map_err(FileError::unreadable(path))?;
        if metadata.permissions().mode() & READABLE_BY_GROUP_OR_OTHERS != 0
            && let Some(secret) = config.secret()
        {
            let message = format!("is readable by other users, and {secret}: chmod 600");
            config.warnings.push(Problem::new(path, None, "", message));
        }
        Ok(config)
    }

    /// Checks the text of a file, or a draft of it.
    pub(crate) fn from_text(path: &Path, text: &str) -> Result<Self, FileError> {
        let absolute = std::path::absolute(path).map_err(FileError::unreadable(path))?;
        let folder = absolute.parent().unwrap_or(&absolute);
        let config = Self::parse(path, text, folder)?;
        Ok(Self {
            file: absolute,
            ..config
        })
    }

    /// The secret in the file, if it has or may have one.
    pub(crate) fn secret(&self) -> Option<&'static str> {
        match self.login {
            LoginMethod::AccessToken(_) => return Some("bot.access_token is a secret"),
            LoginMethod::Password(_) => return Some("bot.password is a secret"),
            LoginMethod::Appservice(_) => {}
        }
        let mut all = self.all_settings();
        all.any(|settings| !settings.environment.is_empty())
            .then_some("what it puts into `environment` may be secret")
    }

    /// Those of each project and root.
    pub(crate) fn all_settings(&self) -> impl Iterator<Item = &SessionSettings> {
        let of_projects = self.projects.values().map(|it| &it.project.settings);
        of_projects.chain(self.project_roots.iter().map(|root| &root.settings))
    }

    /// Warnings: what is allowed but doubtful, such as an address without TLS.
    pub(crate) fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// The projects and roots in which no session can start now, and why. Only they are affected: a directory can come back
    /// while the bot runs, such as one on a disk that is mounted late.
    pub(crate) fn unusable_directories(&self) -> Vec<(String, String)> {
        let projects = self.projects.iter();
        let projects = projects.map(|(name, it)| (name.to_string(), &it.project.directory));
        let roots = self.project_roots.iter();
        let roots = roots.map(|root| ("project_roots".to_owned(), &root.directory));
        let all = projects.chain(roots).map(|(name, directory)| {
            let asked = directory.clone();
            ((name, directory), move || usable_directory(&asked))
        });
        let unusable = patience::ask_all(all).filter_map(|((name, directory), answer)| {
            let silent = || Err(format!("{} does not answer", directory.display()));
            let why = answer.unwrap_or_else(silent).err()?;
            Some((name, why))
        });
        unusable.collect()
    }

    fn parse(file: &Path, text: &str, folder: &Path) -> Result<Self, Problems> {
        document::read(file, folder, text, File::into_config)
    }
}

/// Checks that a project's directory exists now.
pub(crate) fn usable_directory(path: &Path) -> Result<(), String> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(format!("{} is not a directory", path.display())),
        Err(error) => Err(format!("no directory at {} ({error})", path.display())),
    }
}
