//! A project: a named directory in which a session can run, and how it runs there.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    claude::LinkPattern,
    session::{Restart, Terms},
};

/// How long a project's name may be, in bytes: it is a folder's name, and part of what people type.
const LONGEST_NAME: usize = 64;

/// How long a process has to end in good order before it is killed, unless its project says otherwise.
pub const STOP_GRACE: Duration = Duration::from_secs(10);

/// How large each of a session's output files may become, in bytes, unless its project says otherwise. The program repaints
/// its screen all the time, about 30 MB a day: this holds the last hours of it.
pub const MAX_OUTPUT: u64 = 8 * 1024 * 1024;

/// The name of a project: ASCII letters, digits, `-`, `_`, `.`, beginning with a letter or digit. Safe as a folder's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectName(String);

/// A text that cannot name a project.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a project's name is up to {LONGEST_NAME} ASCII letters, digits, '-', '_' or '.', the first a letter or digit"
)]
pub struct InvalidProjectName;

impl ProjectName {
    /// The name as people type it.
    #[must_use]
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

impl From<ProjectName> for String {
    fn from(name: ProjectName) -> Self {
        name.0
    }
}

impl fmt::Display for ProjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// One project of the configuration, checked.
#[derive(Clone)]
pub struct Project {
    /// Its name.
    pub name: ProjectName,
    /// Where its sessions run. Absolute.
    pub directory: PathBuf,
    /// The program and its arguments; never empty. `{project}`, `{host}` and `{id}` are filled in.
    pub command: Vec<String>,
    /// The same, to bring back the last conversation.
    pub resume_command: Vec<String>,
    /// Set in the child besides the allow-list. May hold secrets.
    pub environment: BTreeMap<String, String>,
    /// What the process reads on its standard input, then end of file. May hold secrets.
    pub stdin: String,
    /// What a link looks like.
    pub link_pattern: LinkPattern,
    /// How long a process may run without showing its link.
    pub link_timeout: Duration,
    /// How long a process has between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
    /// How long a session may last; `None`: until it is stopped.
    pub max_duration: Option<Duration>,
    /// How large each of a session's output files may become, in bytes.
    pub max_output: u64,
    /// Whether a session that ended by itself is brought back.
    pub restart: Restart,
    /// If not empty, the session starts with us, and these get its link.
    pub autostart_for: Vec<String>,
}

impl fmt::Debug for Project {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names every field, so that a new one is not forgotten; of the environment the names alone, and nothing of the input.
        let Self {
            name,
            directory,
            command,
            resume_command,
            environment,
            stdin,
            link_pattern,
            link_timeout,
            stop_grace,
            max_duration,
            max_output,
            restart,
            autostart_for,
        } = self;
        formatter
            .debug_struct("Project")
            .field("name", name)
            .field("directory", directory)
            .field("command", command)
            .field("resume_command", resume_command)
            .field("environment", &environment.keys())
            .field("stdin", &format_args!("{} bytes", stdin.len()))
            .field("link_pattern", link_pattern)
            .field("link_timeout", link_timeout)
            .field("stop_grace", stop_grace)
            .field("max_duration", max_duration)
            .field("max_output", max_output)
            .field("restart", restart)
            .field("autostart_for", autostart_for)
            .finish()
    }
}

impl Project {
    /// What the settings say about the life of a session.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms {
            link_timeout: Some(self.link_timeout),
            max_duration: self.max_duration,
            restart: self.restart,
        }
    }
}
