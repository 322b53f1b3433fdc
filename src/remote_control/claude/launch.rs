//! The command line and the environment of a session.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::Path,
};

use crate::secret::SecretText;

/// The variable that carries the session's id into every process of the session, by which they are found again.
pub const SESSION_ID_VARIABLE: &str = "RCBOT_SESSION_ID";

/// The variables of ours that a session gets. Others stay ours: secrets, and variables that switch Remote Control off.
const INHERITED: [&str; 11] = [
    "CLAUDE_CONFIG_DIR",
    "HOME",
    "LANG",
    "LOGNAME",
    "PATH",
    "SHELL",
    "SSH_AUTH_SOCK",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
];

/// Families of variables that a session gets as well.
const INHERITED_PREFIXES: [&str; 2] = ["LC_", "XDG_"];

/// A host's proxies and certificates, in upper or lower case. Sessions do not inherit them, as the address of a proxy may hold
/// a password: where they are needed, a project's own environment has to set them.
pub(crate) const NETWORK_VARIABLES: [&str; 5] = [
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
];

const PROGRAM: &str = "claude";

/// The verb of a server, and its other names.
const VERBS: [&str; 5] = ["remote-control", "rc", "remote", "sync", "bridge"];

/// The options that open Remote Control in a terminal, for the conversation there.
const IN_TERMINAL: [&str; 2] = ["--remote-control", "--rc"];

/// Fills in placeholders, such as `{project}`, in each word of a command line. Other text in braces is left as it is, and what
/// was filled in is not searched again.
///
/// A placeholder without a value becomes empty, and its word is trimmed. A word with nothing else is dropped (`{mode}`), and
/// with it the option before it (`--permission-mode`), or the option that it is the value of (`--spawn={spawn}`).
pub(crate) fn fill_in(command: &[String], values: &[(&str, Option<&str>)]) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut option_before = false;
    for word in command {
        let (filled, lacks_value) = fill_in_word(word, values);
        let is_option = word.starts_with('-') && word != "--";
        let is_empty = filled.is_empty() || is_option && filled.ends_with('=');
        let is_kept = !(lacks_value && is_empty);
        if is_kept {
            words.push(filled);
        } else if filled.is_empty() && option_before {
            words.pop();
        }
        option_before = is_kept && is_option && !word.contains('=');
    }
    words
}

/// Also whether a placeholder had no value.
fn fill_in_word(word: &str, values: &[(&str, Option<&str>)]) -> (String, bool) {
    let mut parts = word.split('{');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    let mut lacks_value = false;
    for part in parts {
        let known = values.iter().find_map(|(name, value)| {
            let rest = part.strip_prefix(name)?.strip_prefix('}')?;
            Some((*value, rest))
        });
        let (value, rest) = known.unwrap_or((Some("{"), part));
        lacks_value |= value.is_none();
        filled.extend([value.unwrap_or_default(), rest]);
    }
    if lacks_value {
        filled = filled.trim().to_owned();
    }
    (filled, lacks_value)
}

/// The complete environment of a session: what the allow-list lets through of `ours`, then `extra`, then the session's id,
/// which nothing overrides. A name that no environment can hold (empty, or with `=`) is left out.
pub(crate) fn environment(
    ours: impl IntoIterator<Item = (OsString, OsString)>,
    extra: &BTreeMap<String, SecretText>,
    session_id: &str,
) -> BTreeMap<OsString, OsString> {
    let is_inherited = |name: &str| {
        let mut prefixes = INHERITED_PREFIXES.iter();
        INHERITED.contains(&name) || prefixes.any(|prefix| name.starts_with(prefix))
    };
    let ours = ours.into_iter();
    let inherited = ours.filter(|(name, _)| name.to_str().is_some_and(is_inherited));
    let mut environment: BTreeMap<_, _> = inherited.collect();
    let can_be = |name: &str| !name.is_empty() && !name.contains('=');
    let extra = extra.iter().filter(|(name, _)| can_be(name));
    environment.extend(extra.map(|(name, value)| (name.into(), value.expose().into())));
    environment.insert(SESSION_ID_VARIABLE.into(), session_id.into());
    environment
}

/// The words of a command line, including those that a shell would split, each with the index of its argument.
fn words(command: &[String]) -> impl Iterator<Item = (usize, &str)> {
    let of_shell = ['\'', '"', ';', '&', '|', '(', ')'];
    command
        .iter()
        .enumerate()
        .flat_map(move |(place, argument)| {
            let words = argument.split_whitespace();
            words.map(move |word| (place, word.trim_matches(of_shell)))
        })
}

/// How a command line runs `claude`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Invocation {
    /// It runs a server, by its first word.
    Direct,
    /// It runs a server by way of another program, such as a shell.
    Wrapped,
    /// It opens Remote Control in a terminal, which a session does not have.
    InTerminal,
    Other,
}

impl Invocation {
    /// What a command line runs. Any program that is given `remote-control` counts as `claude`; the verb's other names are too
    /// common for that.
    pub(crate) fn of(command: &[String]) -> Self {
        let parts: Vec<_> = words(command).collect();
        let is_program = |word: &str| Path::new(word).file_name() == Some(OsStr::new(PROGRAM));
        let program = parts.iter().position(|(_, word)| is_program(word));
        let program_is_first = program
            .and_then(|index| parts.get(index))
            .is_none_or(|(place, _)| *place == 0);
        for (place, word) in parts.iter().skip(program.unwrap_or(0) + 1) {
            if VERBS.first() == Some(word) || program.is_some() && VERBS.contains(word) {
                let is_whole_word = command.get(*place).is_some_and(|whole| whole == word);
                return if program_is_first && is_whole_word {
                    Self::Direct
                } else {
                    Self::Wrapped
                };
            }
            if program.is_some() && IN_TERMINAL.contains(word) {
                return Self::InTerminal;
            }
        }
        Self::Other
    }

    pub(crate) fn serves(self) -> bool {
        matches!(self, Self::Direct | Self::Wrapped)
    }
}

/// A harmful option of a server's command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HarmfulOption {
    /// It prints every message of every conversation.
    Verbose,
    /// It is refused: a sandbox is a matter of settings.
    Sandbox,
}

impl HarmfulOption {
    /// Looks only after the verb.
    pub(crate) fn of(command: &[String]) -> Option<Self> {
        let mut options = words(command).skip_while(|(_, word)| !VERBS.contains(word));
        options.find_map(|(_, option)| match option {
            "--verbose" | "-v" => Some(Self::Verbose),
            "--sandbox" | "--no-sandbox" => Some(Self::Sandbox),
            _ => None,
        })
    }
}

/// Whether a command gives the program a terminal, where it asks more, and first whether it may trust the directory.
pub(crate) fn gives_terminal(command: &[String]) -> bool {
    let mut programs = words(command).filter_map(|(_, word)| Path::new(word).file_name());
    programs.any(|program| program == "script" || program == "unbuffer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(word: &str) -> String {
        let values = [
            ("project", Some("website")),
            ("host", Some("{id}")),
            ("id", Some("4711")),
        ];
        fill_in(&[word.to_owned()], &values).remove(0)
    }

    #[test]
    fn an_option_without_a_value_vanishes_with_its_flag() {
        let command = "p --permission-mode {mode} --spawn={spawn} --flag -- {mode} --name|{name} {project}|{name}|end";
        let filled = |values: &[(&str, Option<&str>)]| {
            let words = command.replace(['|', ' '], "\u{1f}");
            let words = words.replace("{name}\u{1f}{project}", "{name} {project}");
            let words: Vec<_> = words.split('\u{1f}').map(str::to_owned).collect();
            fill_in(&words, values).join("|")
        };
        assert_eq!(
            filled(&[
                ("mode", Some("plan")),
                ("spawn", Some("worktree")),
                ("name", Some("fix {mode}; it")),
                ("project", Some("website")),
            ]),
            "p|--permission-mode|plan|--spawn=worktree|--flag|--|plan|--name|fix {mode}; it website|fix {mode}; it|end"
        );
        assert_eq!(
            filled(&[
                ("mode", None),
                ("spawn", None),
                ("name", None),
                ("project", Some("website")),
            ]),
            "p|--flag|--|--name|website|end"
        );
    }

    #[test]
    fn placeholders_are_filled_in_once_and_all_else_is_left_as_it_is() {
        for (word, filled) in [
            ("{project}@{host} {id}", "website@{id} 4711"),
            ("--name={project}{project}", "--name=websitewebsite"),
            ("{{id}}", "{4711}"),
            ("{pro{project}", "{prowebsite"),
        ] {
            assert_eq!(fill(word), filled);
        }
        for word in [
            "", "{", "}", "{}", "{user}", "{ id }", "{ID}", "a{b", "é{ü}",
        ] {
            assert_eq!(fill(word), word);
        }
    }

    fn pairs<T: From<&'static str>>(pairs: &[(&'static str, &'static str)]) -> Vec<(T, T)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    #[test]
    fn only_the_allow_list_of_our_environment_gets_through() {
        let allowed = pairs(&[
            ("HOME", "/home/x"),
            ("LC_ALL", "C"),
            ("PATH", "/bin"),
            ("XDG_RUNTIME_DIR", "/run/user/1"),
        ]);
        let kept_back = pairs(&[
            ("ANTHROPIC_API_KEY", "sk"),
            ("CLAUDE_CODE_OAUTH_TOKEN", "t"),
            ("DISABLE_TELEMETRY", "1"),
            ("HOMER", "1"),
            ("HTTPS_PROXY", "http://user:password@proxy:3128"),
            ("JOURNAL_STREAM", "9:1"),
            ("LCX", "1"),
            ("MY_HOME", "1"),
            ("NOTIFY_SOCKET", "/run/systemd/notify"),
            ("WATCHDOG_USEC", "30000000"),
            ("path", "1"),
        ]);
        let ours = allowed.iter().chain(&kept_back).cloned();
        let mut environment = environment(ours, &BTreeMap::new(), "4711");
        let id: OsString = SESSION_ID_VARIABLE.into();
        assert_eq!(environment.remove(&id), Some("4711".into()));
        assert_eq!(environment, allowed.into_iter().collect());
    }

    #[test]
    fn the_project_overrides_what_is_inherited_and_nothing_overrides_the_session_id() {
        let ours = pairs(&[("HOME", "/home/x"), (SESSION_ID_VARIABLE, "outer")]);
        let extra = [
            ("", "x"),
            ("EXTRA", "a=b"),
            ("HOME", "/srv"),
            ("RCBOT_SESSION_ID", "forged"),
            ("RCBOT_SESSION_ID=forged", "x"),
        ];
        let extra = extra.map(|(name, value)| (name.to_owned(), value.into()));
        let environment = environment(ours, &extra.into(), "4711");
        let expected = pairs(&[
            ("EXTRA", "a=b"),
            ("HOME", "/srv"),
            (SESSION_ID_VARIABLE, "4711"),
        ]);
        assert_eq!(environment, expected.into_iter().collect());
    }

    #[test]
    fn a_server_is_distinguished_from_all_else_that_a_command_line_can_run() {
        for (command, expected) in [
            (&["claude", "remote-control"][..], Invocation::Direct),
            (
                &["/usr/bin/claude", "--model", "x", "rc", "--name", "y"],
                Invocation::Direct,
            ),
            (&["claude", "remote"], Invocation::Direct),
            (&["claude", "sync"], Invocation::Direct),
            (
                &[
                    "claude",
                    "bridge",
                    "--remote-control-session-name-prefix",
                    "x",
                ],
                Invocation::Direct,
            ),
            (&["stand-in", "remote-control"], Invocation::Direct),
            (
                &["bash", "-lc", "exec claude 'remote-control' --name x; true"],
                Invocation::Wrapped,
            ),
            (
                &["bash", "-lc", "cd /srv && claude rc"],
                Invocation::Wrapped,
            ),
            (
                &["script", "-qefc", "claude remote-control", "/dev/null"],
                Invocation::Wrapped,
            ),
            (
                &["env", "X=1", "claude", "remote-control"],
                Invocation::Wrapped,
            ),
            (&["serve", "claude-remote-control"], Invocation::Other),
            (
                &["claude", "--remote-control", "website"],
                Invocation::InTerminal,
            ),
            (&["claude", "--rc"], Invocation::InTerminal),
            (
                &["bash", "-c", "claude --remote-control"],
                Invocation::InTerminal,
            ),
            (&["claude"], Invocation::Other),
            (&["git", "remote"], Invocation::Other),
            (&["git", "--remote-control"], Invocation::Other),
            (&["sleep", "60"], Invocation::Other),
            (&[], Invocation::Other),
        ] {
            let words: Vec<_> = command.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(Invocation::of(&words), expected, "{command:?}");
        }
    }

    #[test]
    fn harmful_options_are_found_only_after_the_verb() {
        for (command, expected) in [
            (
                "claude remote-control --verbose",
                Some(HarmfulOption::Verbose),
            ),
            ("claude rc -v", Some(HarmfulOption::Verbose)),
            (
                "claude remote-control --sandbox",
                Some(HarmfulOption::Sandbox),
            ),
            ("bash -v -c claude remote-control", None),
            ("claude remote-control --name verbose", None),
        ] {
            let words: Vec<_> = command.split(' ').map(str::to_owned).collect();
            assert_eq!(HarmfulOption::of(&words), expected, "{command}");
        }
        let in_shell =
            ["bash", "-lc", "exec claude remote-control --no-sandbox"].map(str::to_owned);
        assert_eq!(HarmfulOption::of(&in_shell), Some(HarmfulOption::Sandbox));
    }
}
