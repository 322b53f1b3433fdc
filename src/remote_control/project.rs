//! A project: a named directory in which a session can run, and how it runs there.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    claude::LinkPattern,
    options::Choice,
    session::{Restart, Terms},
};
use crate::secret::SecretText;

/// How long a project's name may be, in bytes: it is a folder's name, and typed by users.
const LONGEST_NAME: usize = 64;

/// How long a process has for an orderly end before it is killed, unless its project says otherwise. The program gives its
/// conversations up to 30 s and then signs off from its service: without that the service refuses the next start for minutes.
pub const STOP_GRACE: Duration = Duration::from_secs(45);

/// How long a session may be cut off from its service before that is announced and it is restarted, unless its project says
/// otherwise. The program itself gives up then, if it is not stuck.
pub const RECONNECT_LIMIT: Duration = Duration::from_mins(10);

/// How large each of a session's output files may become, in bytes, unless its project says otherwise. The program repaints
/// its screen all the time, about 30 MB a day: this holds the last hours of it.
pub const MAX_OUTPUT: u64 = 8 * 1024 * 1024;

/// The name of a project: ASCII letters, digits, `-`, `_`, `.`, beginning with a letter or digit. Safe as a folder's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct ProjectName(String);

/// A text that cannot name a project.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a project's name is up to {LONGEST_NAME} ASCII letters, digits, '-', '_' or '.', the first a letter or digit"
)]
pub struct InvalidProjectName;

impl ProjectName {
    /// The name as users type it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ProjectName {
    type Error = InvalidProjectName;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let starts_well = name
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric());
        (starts_well && name.len() <= LONGEST_NAME && name.bytes().all(known))
            .then_some(Self(name))
            .ok_or(InvalidProjectName)
    }
}

impl std::str::FromStr for ProjectName {
    type Err = InvalidProjectName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::try_from(name.to_owned())
    }
}

impl fmt::Display for ProjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// One project of the configuration, checked.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its name.
    pub name: ProjectName,
    /// Where its sessions run. Absolute.
    pub directory: PathBuf,
    /// If not empty, the session starts with the bot, and these users get its link.
    pub deliver_to: Vec<String>,
    /// How its sessions run.
    pub settings: SessionSettings,
    /// Whether it was found below a project root. Then `directory` has no symbolic links, and a session starts there only while
    /// that is so: it could lead anywhere.
    pub is_found: bool,
}

/// How sessions run.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// The program and its arguments; never empty. Filled in are `{project}`, `{host}` and `{id}`, and the options of the
    /// start: `{mode}`, `{spawn}` and `{name}`.
    pub command: Vec<String>,
    /// The same, to bring back the last conversation.
    pub resume_command: Vec<String>,
    /// The permission modes that a start may ask for, where the command has `{mode}`. The first is the default.
    pub permission_modes: Vec<Choice>,
    /// The spawn modes, likewise.
    pub spawn: Vec<Choice>,
    /// A file with settings of the program, for `{settings}` in both commands. Absolute.
    pub settings: Option<PathBuf>,
    /// Variables of the process, besides those of the allow-list.
    pub environment: BTreeMap<String, SecretText>,
    /// What the process reads on its standard input, then end of file.
    pub stdin: SecretText,
    /// What a link looks like.
    pub link_pattern: LinkPattern,
    /// How long a process may run without showing its link.
    pub link_timeout: Duration,
    /// How long a process has between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
    /// How long a session may be cut off from its service before that is announced and `restart` applies.
    pub reconnect_limit: Duration,
    /// How long a session may last; `None`: until it is stopped.
    pub max_duration: Option<Duration>,
    /// How large each of a session's output files may become, in bytes.
    pub max_output: u64,
    /// Whether a session that ended unexpectedly is restarted.
    pub restart: Restart,
}

impl SessionSettings {
    pub(super) fn terms(&self) -> Terms {
        Terms {
            link_timeout: Some(self.link_timeout),
            max_duration: self.max_duration,
            reconnect_limit: Some(self.reconnect_limit),
            restart: self.restart,
        }
    }
}
