//! The options of a start: permission mode, spawn mode and a name, and what a project's settings allow of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{SessionSettings, session::Beginning};

/// How long a session's name may be, in characters: as much as the app's list shows.
const LONGEST_NAME: usize = 60;

/// ASCII punctuation of names. Characters with a meaning for a shell are missing: some commands go through a shell, such as
/// those that run on another host through ssh.
const PUNCTUATION: &str = "-_.,:+/=#%!?";

/// An option of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOption {
    /// The permission mode.
    Mode,
    /// Where new conversations of the session work.
    Spawn,
    /// What the session is called.
    Name,
}

impl StartOption {
    /// Each of them.
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
#[expect(missing_docs, reason = "the names of the fields say it")]
pub struct Options {
    pub mode: Option<String>,
    pub spawn: Option<String>,
    pub name: Option<SessionName>,
}

impl Options {
    /// The value of an option, if it has one.
    pub fn get(&self, option: StartOption) -> Option<&str> {
        match option {
            StartOption::Mode => self.mode.as_deref(),
            StartOption::Spawn => self.spawn.as_deref(),
            StartOption::Name => self.name.as_ref().map(SessionName::as_str),
        }
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

/// A text that cannot name a session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a session's name is 1 to {LONGEST_NAME} letters, digits, spaces and {PUNCTUATION}, and no word of it begins with a dash"
)]
pub struct InvalidSessionName;

impl SessionName {
    /// The name.
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
        let fits = (1..=LONGEST_NAME).contains(&name.chars().count());
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

/// What a start requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Which command it runs.
    pub beginning: Beginning,
    /// The requested options; the others are as the project's settings say.
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
    /// The option.
    pub option: StartOption,
    /// The allowed values. Empty for a name, or if the option itself is not allowed.
    pub allowed: Vec<String>,
}

impl SessionSettings {
    pub(super) fn command_for(&self, beginning: Beginning) -> &[String] {
        match beginning {
            Beginning::Fresh => &self.command,
            Beginning::Resumed => &self.resume_command,
        }
    }

    /// The requested start, each value as the settings spell it.
    pub fn allow(&self, asked: &Start) -> Result<Start, NotAllowed> {
        let Start { beginning, options } = asked;
        let choose = |option| {
            let choices = self.choices(*beginning, option);
            let Some(wanted) = options.get(option) else {
                return Ok(None);
            };
            let mut values = choices.iter().map(|choice| &choice.value);
            match values.find(|value| value.eq_ignore_ascii_case(wanted)) {
                Some(value) => Ok(Some(value.clone())),
                None => Err(NotAllowed {
                    option,
                    allowed: choices.iter().map(|choice| choice.value.clone()).collect(),
                }),
            }
        };
        let command = self.command_for(*beginning);
        if options.name.is_some() && !StartOption::Name.is_in(command) {
            return Err(NotAllowed {
                option: StartOption::Name,
                allowed: Vec::new(),
            });
        }
        Ok(Start {
            beginning: *beginning,
            options: Options {
                mode: choose(StartOption::Mode)?,
                spawn: choose(StartOption::Spawn)?,
                name: options.name.clone(),
            },
        })
    }

    /// The start with the first allowed value of each option that it leaves open.
    pub fn complete(&self, start: &Start) -> Start {
        let Start { beginning, options } = start;
        let or_first = |option| {
            let first = || self.choices(*beginning, option).first();
            let given = options.get(option);
            given.map_or_else(
                || Some(first()?.value.clone()),
                |value| Some(value.to_owned()),
            )
        };
        Start {
            beginning: *beginning,
            options: Options {
                mode: or_first(StartOption::Mode),
                spawn: or_first(StartOption::Spawn),
                name: options.name.clone(),
            },
        }
    }

    /// The level that a user needs to start such a session, or to get its link. An option without a value counts with its
    /// highest level.
    /// Fails with an option whose value is not allowed any more.
    pub fn level(&self, start: &Start) -> Result<Option<i64>, StartOption> {
        let of = |option| {
            let mut choices = self.choices(start.beginning, option).iter();
            match start.options.get(option) {
                None => Ok(choices.filter_map(|choice| choice.level).max()),
                Some(value) => match choices.find(|choice| choice.value == value) {
                    Some(choice) => Ok(choice.level),
                    None => Err(option),
                },
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::remote_control::{LinkPattern, Restart};

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
            permission_modes: vec![choice("plan", None), choice("bypassPermissions", Some(100))],
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
                &["plan", "bypassPermissions"][..],
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
