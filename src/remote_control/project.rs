//! A project: a named directory in which a session can run, how it runs there, and what a start may ask for.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    claude::LinkPattern,
    session::{Beginning, Restart, Terms},
};
use crate::secret::SecretText;

/// How long a project's name may be, in bytes: it is a folder's name, and typed by users.
const LONGEST_NAME: usize = 64;

/// How long a session's name may be, in characters: as much as the app's list shows.
const LONGEST_SESSION_NAME: usize = 60;

/// ASCII punctuation of names. Characters with a meaning for a shell are missing: some commands go through a shell, such as
/// those that run on another host through ssh.
const PUNCTUATION: &str = "-_.,:+/=#%!?";

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

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a project's name is up to {LONGEST_NAME} ASCII letters, digits, '-', '_' or '.', the first a letter or digit"
)]
pub struct InvalidProjectName;

impl ProjectName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ProjectName {
    type Error = InvalidProjectName;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let starts_well = name.starts_with(|first: char| first.is_ascii_alphanumeric());
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
    pub name: ProjectName,
    /// Where its sessions run. Absolute.
    pub directory: PathBuf,
    /// If not empty, the session starts with the bot, and these users get its link.
    pub deliver_to: Vec<String>,
    pub settings: SessionSettings,
    /// Whether it was found below a project root. Then `directory` has no symbolic links, and a session starts there only while
    /// that is so: it could lead anywhere.
    pub is_found: bool,
}

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

    pub(super) fn command_for(&self, beginning: Beginning) -> &[String] {
        match beginning {
            Beginning::Fresh => &self.command,
            Beginning::Resumed => &self.resume_command,
        }
    }

    /// The requested start, each value as the settings spell it.
    pub fn allow(&self, asked: &Start) -> Result<Start, NotAllowed> {
        let mut start = asked.clone();
        let command = self.command_for(start.beginning);
        if start.options.name.is_some() && !StartOption::Name.is_in(command) {
            return Err(NotAllowed {
                option: StartOption::Name,
                allowed: Vec::new(),
            });
        }
        for (option, value) in start.options.choices_mut() {
            let Some(value) = value else { continue };
            let choices = self.choices(start.beginning, option).iter();
            let allowed = choices.map(|choice| choice.value.clone());
            let found = allowed.clone().find(|it| it.eq_ignore_ascii_case(value));
            *value = found.ok_or_else(|| NotAllowed {
                option,
                allowed: allowed.collect(),
            })?;
        }
        Ok(start)
    }

    /// The start with the first allowed value of each option that it leaves open.
    pub fn complete(&self, start: &Start) -> Start {
        let mut start = start.clone();
        for (option, value) in start.options.choices_mut() {
            let first = self.choices(start.beginning, option).first();
            *value = value.take().or(first.map(|choice| choice.value.clone()));
        }
        start
    }

    /// The level that a user needs to start such a session, or to get its link. An option without a value counts with its
    /// highest level.
    /// Fails with an option whose value is not allowed any more.
    pub fn level(&self, start: &Start) -> Result<Option<i64>, StartOption> {
        let of = |option| {
            let mut choices = self.choices(start.beginning, option).iter();
            match start.options.get(option) {
                None => Ok(choices.filter_map(|choice| choice.level).max()),
                Some(value) => {
                    let choice = choices.find(|choice| choice.value == value);
                    choice.map(|choice| choice.level).ok_or(option)
                }
            }
        };
        Ok(of(StartOption::Mode)?.max(of(StartOption::Spawn)?))
    }

    /// The values of this option that may be requested and are filled in.
    fn choices(&self, beginning: Beginning, option: StartOption) -> &[Choice] {
        let choices = match option {
            StartOption::Mode => &self.permission_modes,
            StartOption::Spawn => &self.spawn,
            StartOption::Name => return &[],
        };
        if option.is_in(self.command_for(beginning)) {
            choices
        } else {
            &[]
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOption {
    Mode,
    /// Where new conversations of the session work.
    Spawn,
    Name,
}

impl StartOption {
    pub const ALL: [Self; 3] = [Self::Mode, Self::Spawn, Self::Name];

    /// The option's name, without dashes; also that of its placeholder in commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mode => "mode",
            Self::Spawn => "spawn",
            Self::Name => "name",
        }
    }

    /// Whether its placeholder is in one of these arguments.
    pub(crate) fn is_in(self, command: &[String]) -> bool {
        has_placeholder(command, self.name())
    }
}

/// Whether the placeholder of this name is in one of these arguments.
pub(crate) fn has_placeholder(command: &[String], name: &str) -> bool {
    let placeholder = format!("{{{name}}}");
    command.iter().any(|word| word.contains(&placeholder))
}

/// As users type it.
impl fmt::Display for StartOption {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "--{}", self.name())
    }
}

/// The options of a start as they were requested, or those that a session runs with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    pub mode: Option<String>,
    pub spawn: Option<String>,
    pub name: Option<SessionName>,
}

impl Options {
    pub fn get(&self, option: StartOption) -> Option<&str> {
        match option {
            StartOption::Mode => self.mode.as_deref(),
            StartOption::Spawn => self.spawn.as_deref(),
            StartOption::Name => self.name.as_ref().map(SessionName::as_str),
        }
    }

    /// The options whose values are choices of the settings.
    fn choices_mut(&mut self) -> [(StartOption, &mut Option<String>); 2] {
        [
            (StartOption::Mode, &mut self.mode),
            (StartOption::Spawn, &mut self.spawn),
        ]
    }

    /// Whether a session with the options `running` meets a request for these.
    pub(super) fn are_met_by(&self, running: &Self) -> bool {
        let mut all = StartOption::ALL.into_iter();
        all.all(|option| {
            let asked = self.get(option);
            asked.is_none() || asked == running.get(option)
        })
    }
}

/// A session's name: one line that is safe to show, and to pass to a program as an argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct SessionName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a session's name is 1 to {LONGEST_SESSION_NAME} letters, digits, spaces and {PUNCTUATION}, and no word of it begins with a dash"
)]
pub struct InvalidSessionName;

impl SessionName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SessionName {
    type Error = InvalidSessionName;

    fn try_from(text: String) -> Result<Self, InvalidSessionName> {
        let words: Vec<_> = text.split_whitespace().collect();
        let name = words.join(" ");
        // No word of it may become an option either, in case a shell splits the name.
        let is_option = |word: &&str| word.starts_with('-') && (word.len() > 1 || words.len() == 1);
        let fits = (1..=LONGEST_SESSION_NAME).contains(&name.chars().count());
        (fits && !words.iter().any(is_option) && name.chars().all(is_allowed_in_names))
            .then_some(Self(name))
            .ok_or(InvalidSessionName)
    }
}

fn is_allowed_in_names(character: char) -> bool {
    match character {
        ' ' => true,
        ascii if ascii.is_ascii() => ascii.is_ascii_alphanumeric() || PUNCTUATION.contains(ascii),
        // Names are shown in quotes.
        '“' | '”' | '„' | '‟' | '«' | '»' => false,
        other => !other.is_control() && !other.is_whitespace() && !is_invisible(other),
    }
}

/// Invisible characters can change how the text around them is shown, such as marks of its direction.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
    )
}

impl fmt::Display for SessionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A value that may be requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The value, as the program knows it.
    pub value: String,
    /// The level that a requester needs for it. It belongs to the caller and means nothing here.
    pub level: Option<i64>,
}

/// What a start requests, or what a session runs with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    pub beginning: Beginning,
    /// The requested options; the others are as the project's settings say. Unknown for a session from before there were
    /// options, or whose record was lost.
    #[serde(default)]
    pub options: Options,
}

impl From<Beginning> for Start {
    fn from(beginning: Beginning) -> Self {
        Self {
            beginning,
            options: Options::default(),
        }
    }
}

/// A requested option is not allowed by the project's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAllowed {
    pub option: StartOption,
    /// The allowed values. Empty for a name, or if the option itself is not allowed.
    pub allowed: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn settings(command: &str) -> SessionSettings {
        let choice = |value: &str, level| Choice {
            value: value.to_owned(),
            level,
        };
        SessionSettings {
            command: words(command),
            resume_command: words("claude --continue {mode}"),
            permission_modes: vec![
                choice("plan", None),
                choice("acceptEdits", Some(60)),
                choice("bypassPermissions", Some(100)),
            ],
            spawn: vec![choice("same-dir", None), choice("worktree", Some(75))],
            settings: None,
            environment: BTreeMap::new(),
            stdin: "".into(),
            link_pattern: LinkPattern::new(r"https://claude\.ai/[a-z]+").unwrap(),
            link_timeout: Duration::ZERO,
            stop_grace: Duration::ZERO,
            reconnect_limit: Duration::ZERO,
            max_duration: None,
            max_output: 0,
            restart: Restart::Never,
        }
    }

    fn start(beginning: Beginning, mode: Option<&str>, spawn: Option<&str>) -> Start {
        let [mode, spawn] = [mode, spawn].map(|value| value.map(str::to_owned));
        let name = None;
        Start {
            beginning,
            options: Options { mode, spawn, name },
        }
    }

    #[test]
    fn a_name_is_no_path_no_option_and_no_end_of_a_quotation() {
        let longest = "x".repeat(LONGEST_NAME);
        for name in ["website", "api-2.x", "0_", &longest] {
            assert!(name.parse::<ProjectName>().is_ok(), "{name}");
        }
        let too_long = format!("{longest}x");
        for name in ["", ".", "..", ".id", "-x", "a/b", "a b", &too_long] {
            assert!(name.parse::<ProjectName>().is_err(), "{name}");
        }
        let session = |name: &str| SessionName::try_from(name.to_owned());
        assert_eq!(session(" fix -  it ").unwrap().as_str(), "fix - it");
        for name in [
            "",
            "-",
            "a -b",
            "a\u{201c}b",
            "a\u{ab}b",
            "a\"b",
            "a\u{202e}b",
        ] {
            assert!(session(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_first_of_what_is_allowed_is_the_default_where_the_command_has_a_place_for_it() {
        use Beginning::{Fresh, Resumed};
        let all = settings("claude {mode} {spawn}");
        let complete = |settings: &SessionSettings, start: Start| settings.complete(&start);
        let defaults = start(Fresh, Some("plan"), Some("same-dir"));
        assert_eq!(complete(&all, Fresh.into()), defaults);
        assert_eq!(
            complete(&all, Resumed.into()),
            start(Resumed, Some("plan"), None)
        );
        let none = settings("claude");
        assert_eq!(complete(&none, Fresh.into()), start(Fresh, None, None));
        let asked = start(Fresh, Some("BYPASSPERMISSIONS"), None);
        let allowed = start(Fresh, Some("bypassPermissions"), None);
        assert_eq!(all.allow(&asked), Ok(allowed));
        for (settings, asked, option, allowed) in [
            (
                &all,
                start(Fresh, Some("x"), None),
                StartOption::Mode,
                &["plan", "acceptEdits", "bypassPermissions"][..],
            ),
            (&none, asked, StartOption::Mode, &[]),
            (
                &all,
                start(Resumed, None, Some("worktree")),
                StartOption::Spawn,
                &[],
            ),
        ] {
            let allowed = allowed.iter().map(|value| (*value).to_owned()).collect();
            assert_eq!(settings.allow(&asked), Err(NotAllowed { option, allowed }));
        }
        let mut named = Start::from(Fresh);
        named.options.name = SessionName::try_from("x".to_owned()).ok();
        assert!(all.allow(&named).is_err() && settings("claude {name}").allow(&named).is_ok());
    }

    #[test]
    fn a_session_needs_the_level_of_its_options_and_the_highest_where_they_are_not_known() {
        use Beginning::{Fresh, Resumed};
        let settings = settings("claude {mode} {spawn}");
        for (start, level) in [
            (start(Fresh, Some("plan"), Some("same-dir")), Ok(None)),
            (start(Fresh, Some("plan"), Some("worktree")), Ok(Some(75))),
            (
                start(Fresh, Some("bypassPermissions"), Some("worktree")),
                Ok(Some(100)),
            ),
            (start(Resumed, Some("plan"), None), Ok(None)),
            (start(Fresh, None, Some("same-dir")), Ok(Some(100))),
            (start(Fresh, Some("gone"), None), Err(StartOption::Mode)),
        ] {
            assert_eq!(settings.level(&start), level, "{start:?}");
        }
    }
}
