//! "!rc ..." -> `Command` or `Misuse`.

use std::{fmt, iter, ops::RangeInclusive, time::Duration};

use crate::{
    config::HostName,
    remote_control::{InvalidSessionName, Options, ProjectName, SessionName, StartOption},
};

/// By how much a session can be extended at a time.
const EXTENSIONS: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(24 * 30);

/// How many lines of a log can be asked for.
const LINES: RangeInclusive<usize> = 1..=500;

/// How long a log can be followed, and the default.
const FOLLOWED: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_hours(1);
const USUALLY_FOLLOWED: Duration = Duration::from_mins(5);

/// The option that asks for it, without dashes.
const FOLLOW: &str = "follow";

/// What an option begins with: phones make one of two hyphens.
const DASHES: [char; 6] = [
    '-', '\u{2010}', '\u{2011}', '\u{2013}', '\u{2014}', '\u{2212}',
];

/// The quotes around a value of several words, as keyboards in several languages have them, and the sign around code, as our
/// answers show names. Any of a kind closes what another opens.
const QUOTES: [&[char]; 3] = [
    &[
        '"', '\u{201c}', '\u{201d}', '\u{201e}', '\u{201f}', '\u{ab}', '\u{bb}',
    ],
    &[
        '\'', '\u{2018}', '\u{2019}', '\u{201a}', '\u{201b}', '\u{2039}', '\u{203a}',
    ],
    &['`'],
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) verb: Verb,
    /// The project as it was typed, which need not exist, or a part of its name. `None`: the only one that can be meant; of
    /// [`Verb::Projects`], all; [`Verb::Help`] ignores it.
    pub(crate) project: Option<String>,
    /// The options as they were typed, which need not be allowed.
    pub(crate) options: Options,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Start,
    Resume,
    Stop,
    Extend(Duration),
    Logs(Excerpt),
    Status,
    Projects,
    Doctor,
    Help,
}

/// The part of a log that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Excerpt {
    /// How many of the last lines. `None`: the default.
    pub(crate) lines: Option<usize>,
    /// For how long new lines are shown too.
    pub(crate) follow: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// A project, with a session or without.
    Project,
    /// The session of a project: without one there is nothing to do.
    Session,
    /// The output of a project's session: where one has a session, only those count.
    Output,
    Host,
}

impl Verb {
    /// All of them, as they are without arguments.
    const ALL: [Self; 9] = [
        Self::Start,
        Self::Resume,
        Self::Stop,
        Self::Extend(Duration::ZERO),
        Self::Logs(Excerpt {
            lines: None,
            follow: None,
        }),
        Self::Status,
        Self::Projects,
        Self::Doctor,
        Self::Help,
    ];

    /// The name, target and options of a verb. A resumed session brings back one conversation, and spawns no others.
    fn form(self) -> (&'static str, Target, &'static [&'static str]) {
        match self {
            Self::Start => ("start", Target::Project, &["mode", "spawn", "name"]),
            Self::Resume => ("resume", Target::Project, &["mode", "name"]),
            Self::Stop => ("stop", Target::Session, &[]),
            Self::Extend(_) => ("extend", Target::Session, &[]),
            Self::Logs(_) => ("logs", Target::Output, &[FOLLOW]),
            Self::Status => ("status", Target::Host, &[]),
            Self::Projects => ("projects", Target::Host, &[]),
            Self::Doctor => ("doctor", Target::Host, &[]),
            Self::Help => ("help", Target::Host, &[]),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        self.form().0
    }

    pub(crate) fn target(self) -> Target {
        self.form().1
    }
}

/// As it is typed, in one way of several, without the prefix.
impl fmt::Display for Command {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.verb.name())?;
        if let Some(project) = &self.project {
            write!(formatter, " {project}")?;
        }
        let as_word = |time| {
            humantime::format_duration(time)
                .to_string()
                .replace(' ', "")
        };
        if let Verb::Extend(by) = self.verb {
            write!(formatter, " {}", as_word(by))?;
        }
        if let Verb::Logs(Excerpt { lines, follow }) = self.verb {
            if let Some(lines) = lines {
                write!(formatter, " {lines}")?;
            }
            if let Some(follow) = follow {
                write!(formatter, " --{FOLLOW} {}", as_word(follow))?;
            }
        }
        for option in StartOption::ALL {
            match self.options.get(option) {
                Some(value) if option == StartOption::Name => {
                    write!(formatter, " {option} \"{value}\"")?;
                }
                Some(value) => write!(formatter, " {option} {value}")?,
                None => {}
            }
        }
        Ok(())
    }
}

/// Why a text that addresses the bot is not a command, or cannot be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Misuse {
    UnknownCommand {
        word: String,
        /// The text with the command that may have been meant, without the prefix.
        meant: Option<String>,
    },
    Edited,
    TooManyWords {
        command: &'static str,
    },
    /// A session cannot be extended by this time.
    HowLong,
    /// This number of lines cannot be shown.
    HowManyLines,
    /// A log cannot be followed for this time.
    HowLongToFollow,
    /// The command takes other options, or none.
    UnknownOption {
        command: &'static str,
        name: String,
        known: &'static [&'static str],
    },
    RepeatedOption(&'static str),
    OptionWithoutValue(StartOption),
    /// A quote begins the value and none ends it.
    OpenQuote(StartOption),
    InvalidName(InvalidSessionName),
    /// The project's settings do not allow this value, or the option as a whole.
    NotAllowed {
        option: StartOption,
        value: String,
        allowed: Vec<String>,
        project: ProjectName,
    },
    UnknownProject {
        name: String,
        /// The projects that exist: by name, or as `project@host` where there are several hosts.
        known: Vec<String>,
        /// How many more there are, on hosts that announce only a digest of their names.
        more: usize,
    },
    /// None of this name is visible, but some project roots cannot be read now.
    RootsUnreadable {
        name: String,
    },
    UnknownHost {
        name: String,
        known: Vec<String>,
    },
    /// The bot of the host that is meant does not run, or does not reach the homeserver.
    HostDoesNotAnswer(HostName),
    /// No project has the session that the command is about.
    NothingRuns,
    Ambiguous {
        command: &'static str,
        /// Those, as above.
        known: Vec<String>,
        more: usize,
    },
}

/// Parses the text of a message. `None`: it does not begin with the prefix as a separate word, so it is not meant for us.
///
/// Prefix and command may be in any case, as phones begin sentences with a capital; names of projects not. [`addressed_host`]
/// finds the host.
pub(crate) fn parse(prefix: &str, text: &str) -> Option<Result<Command, Misuse>> {
    let (first, rest) = first_word(text);
    if first.is_empty() || !first.eq_ignore_ascii_case(prefix) {
        return None;
    }
    let (word, rest) = first_word(rest);
    // The prefix without a command asks for help.
    let word = Some(word).filter(|word| !word.is_empty());
    Some(parse_command(word.unwrap_or(Verb::Help.name()), rest))
}

/// The host that a command addresses: what follows an `@` in one of its words, as in `!rc start website@build1`.
pub(crate) fn addressed_host(text: &str) -> Option<&str> {
    let (_prefix, rest) = first_word(text);
    let (_command, rest) = first_word(rest);
    let arguments = Arguments::of(rest);
    arguments.words.iter().find_map(|word| without_host(word).1)
}

/// The name that was probably meant: the only one that begins so, else the nearest.
pub(crate) fn nearest<'n>(typed: &str, names: &[&'n str]) -> Option<&'n str> {
    let typed = typed.to_lowercase();
    let mut beginning = names
        .iter()
        .filter(|name| name.to_lowercase().starts_with(&typed));
    if let (Some(name), None) = (beginning.next(), beginning.next()) {
        return Some(name);
    }
    // One slip in three letters is a misspelling; more is another word.
    let length = typed.chars().count();
    let slips = length.div_ceil(3);
    let distances = names.iter().filter_map(|name| {
        let lower = name.to_lowercase();
        // A message may be one word of 64 KiB, and a comparison takes as long as both lengths multiplied.
        let is_comparable = lower.chars().count().abs_diff(length) <= slips;
        is_comparable.then(|| (strsim::damerau_levenshtein(&typed, &lower), *name))
    });
    let (distance, name) = distances.min()?;
    (distance <= slips).then_some(name)
}

/// An `@` with nothing after it names no host.
fn without_host(word: &str) -> (&str, Option<&str>) {
    match word.split_once('@') {
        Some((word, host)) => (word, Some(host).filter(|host| !host.is_empty())),
        None => (word, None),
    }
}

fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_once(char::is_whitespace).unwrap_or((text, ""))
}

/// The words after a command.
struct Arguments<'t> {
    words: Vec<&'t str>,
    /// Each by its name as it was typed.
    options: Vec<(&'t str, Option<Word<'t>>)>,
}

#[derive(Clone, Copy)]
enum Word<'t> {
    Plain(&'t str),
    /// The name of an option, without its dashes.
    Option(&'t str),
    /// The text between quotes is one word, without them.
    Quoted(&'t str),
}

impl<'t> Arguments<'t> {
    /// An option takes the next word as its value, after white space or an `=`. The time of `--follow` can be left out, so
    /// there the word has to begin with a digit.
    fn of(mut text: &'t str) -> Self {
        let (mut words, mut options) = (Vec::new(), Vec::new());
        let mut unclosed = [false; QUOTES.len()];
        let all = iter::from_fn(|| Word::take(&mut text, &mut unclosed));
        let mut all = all.peekable();
        while let Some(word) = all.next() {
            let name = match word {
                Word::Plain(text) | Word::Quoted(text) => {
                    words.push(text);
                    continue;
                }
                Word::Option(name) => name,
            };
            let is_value = |word: &Word<'_>| match word {
                Word::Option(_) => false,
                Word::Plain(text) | Word::Quoted(text) => {
                    let is_time = text.starts_with(|sign: char| sign.is_ascii_digit());
                    is_time || !name.eq_ignore_ascii_case(FOLLOW)
                }
            };
            options.push((name, all.next_if(is_value)));
        }
        Self { words, options }
    }
}

impl<'t> Word<'t> {
    /// Takes the first word off a text. `unclosed`: of which kinds no quote closes another any more.
    fn take(text: &mut &'t str, unclosed: &mut [bool; QUOTES.len()]) -> Option<Self> {
        *text = text.trim_start();
        if let Some((quoted, rest)) = in_quotes(text, unclosed) {
            *text = rest;
            return Some(Self::Quoted(quoted));
        }
        let is_option = text.starts_with(DASHES);
        let ends = |sign: char| sign.is_whitespace() || is_option && sign == '=';
        let (word, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
        *text = rest.strip_prefix('=').unwrap_or(rest);
        if is_option {
            return Some(Self::Option(word.trim_start_matches(DASHES)));
        }
        Some(Self::Plain(word)).filter(|_| !word.is_empty())
    }
}

/// The text in the quotes that a text begins with, and the rest. A quote ends at the end of a word, so that it may hold
/// apostrophes. Where there is no such end, there is none further on: a text full of quotes is not searched again for each.
fn in_quotes<'t>(text: &'t str, unclosed: &mut [bool; QUOTES.len()]) -> Option<(&'t str, &'t str)> {
    let mut signs = text.chars();
    let first = signs.next()?;
    let mut kinds = QUOTES.into_iter().zip(unclosed);
    let (kind, unclosed) = kinds.find(|(kind, _)| kind.contains(&first))?;
    if *unclosed {
        return None;
    }
    let quoted = signs.as_str();
    let mut closing = quoted.match_indices(kind);
    let found = closing.find_map(|(at, quote)| {
        let (inner, rest) = (quoted.get(..at)?, quoted.get(at + quote.len()..)?);
        let ends_word = rest.is_empty() || rest.starts_with(char::is_whitespace);
        ends_word.then_some((inner, rest))
    });
    *unclosed = found.is_none();
    found
}

fn parse_options(verb: Verb, given: &[(&str, Option<Word<'_>>)]) -> Result<Options, Misuse> {
    let (command, _, known) = verb.form();
    let mut options = Options::default();
    for (name, value) in given {
        let mut all = StartOption::ALL.into_iter();
        let option = all.find(|option| {
            option.name().eq_ignore_ascii_case(name) && known.contains(&option.name())
        });
        let option = option.ok_or_else(|| Misuse::UnknownOption {
            command,
            name: (*name).to_owned(),
            known,
        })?;
        if options.get(option).is_some() {
            return Err(Misuse::RepeatedOption(option.name()));
        }
        let text = match value {
            Some(Word::Plain(text)) if text.starts_with(|sign| QUOTES.concat().contains(&sign)) => {
                return Err(Misuse::OpenQuote(option));
            }
            Some(Word::Plain(text) | Word::Quoted(text)) => text.trim().to_owned(),
            Some(Word::Option(_)) | None => String::new(),
        };
        if text.is_empty() {
            return Err(Misuse::OptionWithoutValue(option));
        }
        match option {
            StartOption::Mode => options.mode = Some(text),
            StartOption::Spawn => options.spawn = Some(text),
            StartOption::Name => {
                let name = SessionName::try_from(text).map_err(Misuse::InvalidName)?;
                options.name = Some(name);
            }
        }
    }
    Ok(options)
}

/// Removes `--follow` from the options, and parses its time.
fn parse_follow(options: &mut Vec<(&str, Option<Word<'_>>)>) -> Result<Option<Duration>, Misuse> {
    let follows = options.extract_if(.., |(name, _)| name.eq_ignore_ascii_case(FOLLOW));
    let mut times = follows.map(|(_, value)| match value {
        Some(Word::Plain(time) | Word::Quoted(time)) => humantime::parse_duration(time.trim()).ok(),
        Some(Word::Option(_)) | None => Some(USUALLY_FOLLOWED),
    });
    match (times.next(), times.next()) {
        (None, _) => Ok(None),
        (Some(time), None) => {
            let time = time.filter(|time| FOLLOWED.contains(time));
            Ok(Some(time.ok_or(Misuse::HowLongToFollow)?))
        }
        (Some(_), Some(_)) => Err(Misuse::RepeatedOption(FOLLOW)),
    }
}

/// How many lines these words ask for, and the words before that.
fn parse_lines<'w, 't>(words: &'w [&'t str]) -> Result<(Option<usize>, &'w [&'t str]), Misuse> {
    let is_number = |word: &&str| word.bytes().all(|byte| byte.is_ascii_digit());
    match words {
        [project @ .., number] if is_number(number) => {
            let lines = number.parse().ok();
            let lines = lines.filter(|lines| LINES.contains(lines));
            Ok((Some(lines.ok_or(Misuse::HowManyLines)?), project))
        }
        [_, _] => Err(Misuse::HowManyLines),
        other => Ok((None, other)),
    }
}

fn parse_command(word: &str, rest: &str) -> Result<Command, Misuse> {
    let mut all = Arguments::of(rest);
    let words = all.words.iter().map(|word| without_host(word).0);
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    let arguments = words.as_slice();
    let mut verbs = Verb::ALL.into_iter();
    let Some(verb) = verbs.find(|verb| verb.name().eq_ignore_ascii_case(word)) else {
        let meant = nearest(word, &Verb::ALL.map(Verb::name));
        let rest = rest.split_whitespace();
        let meant = meant.map(|verb| [verb].into_iter().chain(rest).collect::<Vec<_>>().join(" "));
        let word = word.to_owned();
        return Err(Misuse::UnknownCommand { word, meant });
    };
    let (verb, arguments) = match verb {
        Verb::Extend(_) => {
            let (duration, project) = arguments.split_last().ok_or(Misuse::HowLong)?;
            let by = humantime::parse_duration(duration).ok();
            let by = by.filter(|by| EXTENSIONS.contains(by));
            (Verb::Extend(by.ok_or(Misuse::HowLong)?), project)
        }
        Verb::Logs(_) => {
            let follow = parse_follow(&mut all.options)?;
            let (lines, project) = parse_lines(arguments)?;
            (Verb::Logs(Excerpt { lines, follow }), project)
        }
        Verb::Start
        | Verb::Resume
        | Verb::Stop
        | Verb::Status
        | Verb::Projects
        | Verb::Doctor
        | Verb::Help => (verb, arguments),
    };
    let options = parse_options(verb, &all.options)?;
    // The list of commands answers a question about one of them too.
    let takes_word = verb.target() != Target::Host || matches!(verb, Verb::Projects | Verb::Help);
    let project = match arguments {
        [] => None,
        [project] if takes_word => Some((*project).to_owned()),
        _ => {
            let command = verb.name();
            return Err(Misuse::TooManyWords { command });
        }
    };
    Ok(Command {
        verb,
        project,
        options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    mod properties;

    fn command(verb: Verb, project: Option<&str>) -> Command {
        let project = project.map(str::to_owned);
        Command {
            verb,
            project,
            options: Options::default(),
        }
    }

    /// What comes of the words after `!rc`. A command is the same once it is written out.
    #[track_caller]
    fn read(arguments: &str) -> Result<Command, Misuse> {
        let read = parse("!rc", &format!("!rc {arguments}")).unwrap();
        if let Ok(command) = &read {
            let again = parse("!rc", &format!("!rc {command}"));
            assert_eq!(again, Some(Ok(command.clone())), "{arguments}");
        }
        read
    }

    #[test]
    fn options_are_read_as_people_and_phones_type_them_and_each_slip_has_its_line() {
        let options = |mode: &str, spawn: &str, name: &str| {
            let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            Ok(Options {
                mode: given(mode),
                spawn: given(spawn),
                name: given(name).map(|name| SessionName::try_from(name).unwrap()),
            })
        };
        let mode = || options("plan", "", "");
        let name = |name| options("", "", name);
        let unknown = |command, name: &str, known| {
            let name = name.to_owned();
            Err(Misuse::UnknownOption {
                command,
                name,
                known,
            })
        };
        let of_start = |name| unknown("start", name, Verb::Start.form().2);
        let no_name = || Err(Misuse::OptionWithoutValue(StartOption::Name));
        let no_mode = || Err(Misuse::OptionWithoutValue(StartOption::Mode));
        let open = || Err(Misuse::OpenQuote(StartOption::Name));
        let invalid = || Err(Misuse::InvalidName(InvalidSessionName));
        let twice = Err(Misuse::RepeatedOption("mode"));
        let too_many = Err(Misuse::TooManyWords { command: "start" });
        let check = |arguments: &str, expected: Result<Options, Misuse>| {
            let options = read(arguments).map(|command| {
                assert_eq!(command.project.as_deref(), Some("website"), "{arguments}");
                command.options
            });
            assert_eq!(options, expected, "{arguments}");
        };
        for arguments in [
            "start website --mode plan --spawn worktree --name \"fix the build\"",
            "start --name=\"fix the build\" website --mode=plan --spawn=worktree",
            "start —mode plan –spawn worktree website —name “fix the build”",
            "start website --Mode=plan --SPAWN worktree --name=„fix  the\nbuild‟",
        ] {
            check(arguments, options("plan", "worktree", "fix the build"));
        }
        for (arguments, expected) in [
            ("start website --mode plan", mode()),
            ("resume website --mode plan", mode()),
            ("start website --mode “plan”", mode()),
            ("start `website` --mode `plan`", mode()),
            ("start website --name fix", name("fix")),
            ("start website --name « fix it »", name("fix it")),
            ("start website --name 'fix it'", name("fix it")),
            ("start website --name “don’t ask @bob”", invalid()),
            ("start website --name ‘don’t ask’", name("don’t ask")),
            ("start website --name \"a - b\"", name("a - b")),
            ("start website --name \"-x\"", invalid()),
            (
                "start website --name \"a --permission-mode bypassPermissions\"",
                invalid(),
            ),
            ("start website --name \"$(id)\"", invalid()),
            ("start website --name \"it's; id\"", invalid()),
            ("start website --name \"a\u{202e}b\"", invalid()),
            ("start website --name \"a\u{7}b\"", invalid()),
            ("start website --name \"fix the build", open()),
            ("start website --name “fix the build", open()),
            ("start website --name", no_name()),
            ("start website --name \"\"", no_name()),
            ("start website --mode", no_mode()),
            ("start website --mode=", no_mode()),
            ("start website --mode --spawn worktree", no_mode()),
            ("start website --mode plan --mode=plan", twice),
            ("start website --model opus", of_start("model")),
            ("start website -- x", of_start("")),
            ("start website --follow", of_start("follow")),
            (
                "resume website --spawn x",
                unknown("resume", "spawn", &["mode", "name"]),
            ),
            ("stop website --force", unknown("stop", "force", &[])),
            ("status --mode plan", unknown("status", "mode", &[])),
            ("logs a --mode plan", unknown("logs", "mode", &[FOLLOW])),
            ("start website --name fix it", too_many),
        ] {
            check(arguments, expected);
        }
        let long = |count| format!("!rc start --name \"{}\"", "ä".repeat(count));
        assert!(parse("!rc", &long(60)).unwrap().is_ok());
        assert_eq!(
            parse("!rc", &long(61)),
            Some(Err(Misuse::InvalidName(InvalidSessionName)))
        );
    }

    #[test]
    fn a_log_is_asked_for_by_lines_and_time_and_each_slip_has_its_line() {
        let excerpt = |lines, seconds: Option<u64>| {
            let follow = seconds.map(Duration::from_secs);
            Ok(Excerpt { lines, follow })
        };
        let many = || Err(Misuse::HowManyLines);
        let long = || Err(Misuse::HowLongToFollow);
        let five_minutes = || excerpt(None, Some(300));
        let minus = Err(Misuse::UnknownOption {
            command: "logs",
            name: "5".to_owned(),
            known: &[FOLLOW],
        });
        let too_many = Err(Misuse::TooManyWords { command: "logs" });
        let twice = Err(Misuse::RepeatedOption(FOLLOW));
        let web = Some("web");
        for (arguments, project, expected) in [
            ("logs", None, excerpt(None, None)),
            ("logs web", web, excerpt(None, None)),
            ("logs web 100", web, excerpt(Some(100), None)),
            ("logs 100", None, excerpt(Some(100), None)),
            ("logs 7 100", Some("7"), excerpt(Some(100), None)),
            ("logs web 500", web, excerpt(Some(500), None)),
            ("logs web --follow 5m", web, five_minutes()),
            ("logs web —follow 5m", web, five_minutes()),
            ("logs web --FOLLOW=90s", web, excerpt(None, Some(90))),
            ("logs web --follow", web, five_minutes()),
            ("logs --follow web", web, five_minutes()),
            (
                "logs --follow 1h web@b 20",
                web,
                excerpt(Some(20), Some(3600)),
            ),
            ("logs web 0", None, many()),
            ("logs web 501", None, many()),
            ("logs web 99999999999999999999999", None, many()),
            ("logs web -5", None, minus),
            ("logs web many", None, many()),
            ("logs web site 10", None, too_many),
            ("logs web --follow 5", None, long()),
            ("logs web --follow 9s", None, long()),
            ("logs web --follow 2h", None, long()),
            ("logs web --follow 5m --follow 6m", None, twice),
        ] {
            let shown = read(arguments).map(|command| {
                assert_eq!(command.project.as_deref(), project, "{arguments}");
                match command.verb {
                    Verb::Logs(excerpt) => excerpt,
                    other => panic!("{other:?}"),
                }
            });
            assert_eq!(shown, expected, "{arguments}");
        }
        let host = addressed_host("!rc logs --follow website@build1");
        assert_eq!(host, Some("build1"));
    }

    #[test]
    fn a_host_is_addressed_beside_the_options_and_not_within_their_values() {
        for (text, host) in [
            ("!rc start website@build1 --name \"a@b\"", Some("build1")),
            ("!rc start --mode plan website@build1", Some("build1")),
            ("!rc start website --name a@build1", None),
            ("!rc start website --name=“ask me@build1 now”", None),
            ("!rc start website@", None),
        ] {
            assert_eq!(addressed_host(text), host, "{text}");
        }
    }

    /// Everybody in the room can send such texts, and each is read also in the bot's loop.
    #[test]
    fn a_text_takes_no_longer_than_it_is_long() {
        for (word, space) in [("\"a", " "), ("'a", "\t"), ("“a ‘b", " "), ("--x=\"a", " ")] {
            let text = format!("!rc start {}", [word, space].concat().repeat(20_000));
            assert!(parse("!rc", &text).unwrap().is_err(), "{word}");
            assert_eq!(addressed_host(&text), None, "{word}");
        }
        let names: Vec<_> = (0..1_000)
            .map(|number| format!("website-{number}"))
            .collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        assert_eq!(nearest(&"website".repeat(100_000), &names), None);
        assert_eq!(nearest("websiet-999", &names), Some("website-999"));
    }

    #[test]
    fn a_text_is_a_command_a_misuse_or_not_for_us() {
        let is = |verb, project: &str| {
            Some(Ok(command(
                verb,
                Some(project).filter(|name| !name.is_empty()),
            )))
        };
        let too_many = |command| Some(Err(Misuse::TooManyWords { command }));
        let how_long = || Some(Err(Misuse::HowLong));
        let unknown = |word: &str, meant: Option<&str>| {
            Some(Err(Misuse::UnknownCommand {
                word: word.to_owned(),
                meant: meant.map(str::to_owned),
            }))
        };
        for (text, expected) in [
            ("!rc start", is(Verb::Start, "")),
            ("  !rc   start\twebsite ", is(Verb::Start, "website")),
            ("!RC Start website", is(Verb::Start, "website")),
            ("!rc start @build1", is(Verb::Start, "")),
            ("!rc start ../etc", is(Verb::Start, "../etc")),
            ("!rc stop", is(Verb::Stop, "")),
            ("!rc stop api-2.x", is(Verb::Stop, "api-2.x")),
            (
                "!rc extend 2h",
                is(Verb::Extend(Duration::from_hours(2)), ""),
            ),
            (
                "!rc extend website 90m",
                is(Verb::Extend(Duration::from_mins(90)), "website"),
            ),
            ("!rc extend", how_long()),
            ("!rc extend website", how_long()),
            ("!rc extend 1s", how_long()),
            ("!rc extend 900d", how_long()),
            ("!rc extend a b 2h", too_many("extend")),
            ("!rc resume", is(Verb::Resume, "")),
            (
                "!rc logs website",
                is(Verb::Logs(Excerpt::default()), "website"),
            ),
            ("!rc status", is(Verb::Status, "")),
            ("!rc projects", is(Verb::Projects, "")),
            ("!rc Projects web", is(Verb::Projects, "web")),
            ("!rc projects a b", too_many("projects")),
            ("!rc doctor", is(Verb::Doctor, "")),
            ("!rc help", is(Verb::Help, "")),
            ("!rc help start", is(Verb::Help, "start")),
            ("!rc", is(Verb::Help, "")),
            ("!rc strat", unknown("strat", Some("start"))),
            ("!rc Strat website", unknown("Strat", Some("start website"))),
            ("!rc dance", unknown("dance", None)),
            ("!rc st", unknown("st", None)),
            (
                "!rc strat a@b --name “c d”",
                unknown("strat", Some("start a@b --name “c d”")),
            ),
            ("!rc start a b", too_many("start")),
            ("!rc status now", too_many("status")),
            ("", None),
            ("hello", None),
            ("!rcstart", None),
            ("!rcx start", None),
            ("please !rc start", None),
        ] {
            assert_eq!(parse("!rc", text), expected, "{text:?}");
            if let Some(Ok(command)) = &expected {
                assert_eq!(parse("!rc", &format!("!rc {command}")), expected);
            }
        }
    }
}
