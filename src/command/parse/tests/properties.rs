//! Properties of every text, not only of chosen ones.

use proptest::prelude::*;

use super::*;
use crate::command::reply;

/// A prefix as the configuration takes it: a word without white space, control characters or backticks.
fn prefix() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("!rc".to_owned()),
        1 => r"[^\s\p{Cc}`]{1,6}",
    ]
}

/// A text that may be meant for the bot: words of commands, words like them, and words of any kind.
fn text(prefix: &str) -> impl Strategy<Value = String> + use<> {
    let known = [
        "start", "Stop", "resume", "extend", "logs", "status", "doctor", "HELP", "website", "2h",
        "<b>", "`x`", "@room", "&lt;", "--mode", "--name=", "--x", "—spawn", "“a", "b”", "'", "=",
    ];
    let word = prop_oneof![
        Just(prefix.to_owned()),
        prop::sample::select(known.map(str::to_owned).to_vec()),
        ".{0,12}",
    ];
    let begin = prop_oneof![Just(prefix.to_owned()), word.clone()];
    (begin, prop::collection::vec((white_space(), word), 0..5)).prop_map(|(first, rest)| {
        let rest = rest.into_iter().flat_map(|(space, word)| [space, word]);
        std::iter::once(first).chain(rest).collect()
    })
}

fn prefix_and_text() -> impl Strategy<Value = (String, String)> {
    prefix().prop_flat_map(|prefix| (Just(prefix.clone()), text(&prefix)))
}

fn white_space() -> impl Strategy<Value = String> {
    r"[ \t\r\n\u{a0}\u{3000}]{1,3}"
}

fn project() -> impl Strategy<Value = Option<String>> {
    prop::option::of("[A-Za-z0-9][A-Za-z0-9._-]{0,20}")
}

fn a_command() -> impl Strategy<Value = Command> {
    let (shortest, longest) = (EXTENSIONS.start().as_secs(), EXTENSIONS.end().as_secs());
    let by = (shortest..=longest).prop_map(Duration::from_secs);
    let verb = prop_oneof![
        Just(Verb::Start),
        Just(Verb::Resume),
        Just(Verb::Stop),
        excerpt().prop_map(Verb::Logs),
        by.prop_map(Verb::Extend),
        Just(Verb::Status),
        Just(Verb::Doctor),
        Just(Verb::Help),
    ];
    // A bare number is the number of lines of a log.
    let is_number = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
    (verb, project(), options()).prop_map(move |(verb, project, options)| Command {
        verb,
        project: project.filter(|name| match verb {
            Verb::Logs(_) => !is_number(name),
            _ => verb.target() != Target::Host,
        }),
        options: match verb {
            Verb::Start => options,
            Verb::Resume => Options {
                spawn: None,
                ..options
            },
            _ => Options::default(),
        },
    })
}

fn excerpt() -> impl Strategy<Value = Excerpt> {
    let (shortest, longest) = (FOLLOWED.start().as_secs(), FOLLOWED.end().as_secs());
    let follow = (shortest..=longest).prop_map(Duration::from_secs);
    let both = (prop::option::of(LINES), prop::option::of(follow));
    both.prop_map(|(lines, follow)| Excerpt { lines, follow })
}

fn options() -> impl Strategy<Value = Options> {
    let value = || prop::option::of("[A-Za-z0-9][A-Za-z0-9_-]{0,20}");
    let name = prop::option::of("[A-Za-z0-9éб🦀-]{1,12}( [a-z0-9#.,:!?@é’-]{1,9}){0,3}");
    (value(), value(), name).prop_map(|(mode, spawn, name)| Options {
        mode,
        spawn,
        name: name.and_then(|name| SessionName::try_from(name).ok()),
    })
}

/// The words of the options, in any of the ways in which people and their keyboards write them.
fn spell_options(options: &Options, dashes: &str, quotes: (char, char), sign: bool) -> Vec<String> {
    let spelt = StartOption::ALL.into_iter().filter_map(|option| {
        let value = options.get(option)?;
        let value = match (option, quotes) {
            (StartOption::Name, (open, close)) => format!("{open}{value}{close}"),
            (StartOption::Mode | StartOption::Spawn, _) => value.to_owned(),
        };
        let flag = format!("{dashes}{}", option.name());
        Some(if sign {
            vec![format!("{flag}={value}")]
        } else {
            vec![flag, value]
        })
    });
    spelt.flatten().collect()
}

/// The words that mean a command, as a person would type them.
fn spell(command: &Command) -> Vec<String> {
    let seconds = |time: Duration| format!("{}s", time.as_secs());
    let rest = match command.verb {
        Verb::Extend(by) => vec![seconds(by)],
        Verb::Logs(Excerpt { lines, follow }) => {
            let lines = lines.map(|lines| lines.to_string());
            let follow = follow.map(|follow| format!("--follow={}", seconds(follow)));
            lines.into_iter().chain(follow).collect()
        }
        _ => Vec::new(),
    };
    let word = command.verb.name().to_owned();
    let first = [Some(word), command.project.clone()].into_iter().flatten();
    first.chain(rest).collect()
}

/// Whether this is text with line breaks, paragraphs, lists and well-formed code in it, and no other HTML.
fn is_harmless(html: &str) -> bool {
    let blocks = ["<br>", "<p>", "</p>", "<ul>", "</ul>", "<li>", "</li>"];
    let inline = blocks
        .iter()
        .fold(html.to_owned(), |html, block| html.replace(block, ""));
    let mut in_code = false;
    for (index, piece) in inline.split('<').enumerate() {
        let text = match (index, in_code) {
            (0, _) => Some(piece),
            (_, false) => piece.strip_prefix("code>"),
            (_, true) => piece.strip_prefix("/code>"),
        };
        in_code ^= index > 0;
        if text.is_none_or(|text| text.contains('>') || !has_whole_references(text)) {
            return false;
        }
    }
    !in_code
}

/// Whether each `&` begins a character reference.
fn has_whole_references(text: &str) -> bool {
    let known = ["amp;", "lt;", "gt;"];
    let mut after = text.split('&').skip(1);
    after.all(|rest| known.iter().any(|name| rest.starts_with(name)))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_well_formed_command_is_understood_however_it_is_spaced(
        command in a_command(),
        spaces in prop::collection::vec(white_space(), 10),
        shout in any::<bool>(),
        dashes in prop::sample::select(vec!["--", "—", "–", "-"]),
        quotes in prop::sample::select(vec![('"', '"'), ('“', '”'), ('„', '‟'), ('«', '»'), ('”', '”')]),
        sign in any::<bool>(),
        options_first in any::<bool>(),
    ) {
        let mut words = spell(&command);
        let options = spell_options(&command.options, dashes, quotes, sign);
        let at = if options_first { 1 } else { words.len() };
        words.splice(at..at, options);
        if shout {
            words[0] = words[0].to_uppercase();
        }
        let words = words.iter().zip(&spaces).map(|(word, space)| format!("{space}{word}"));
        let text = format!("!rc{} ", words.collect::<String>());
        prop_assert_eq!(parse("!rc", &text), Some(Ok(command)), "{:?}", text);
    }

    #[test]
    fn only_a_text_with_the_prefix_as_its_first_word_is_meant_for_the_bot(
        (prefix, text) in prefix_and_text(),
        glued in r"[^\s]{1,3}",
    ) {
        let addresses = text.trim().split(char::is_whitespace).next().is_some_and(|first| {
            first.eq_ignore_ascii_case(&prefix)
        });
        prop_assert_eq!(parse(&prefix, &text).is_some(), addresses);
        prop_assert_eq!(parse(&prefix, &format!("{prefix}{glued} start")), None);
        prop_assert_eq!(parse(&prefix, &format!("{glued}{prefix} start")), None);
    }

    #[test]
    fn replies_to_misuse_are_harmless_html_for_any_text(
        (prefix, text) in prefix_and_text(),
        known in prop::collection::vec("[a-z]{1,5}", 0..3),
        more in 0_usize..3,
    ) {
        let misuse = match parse(&prefix, &text) {
            Some(Err(misuse)) => misuse,
            Some(Ok(Command { project: Some(name), .. })) => Misuse::UnknownProject { name, known, more },
            Some(Ok(command)) => Misuse::Ambiguous { command: command.verb.name(), known, more },
            None => return Ok(()),
        };
        let said = reply::misuse(&prefix, &misuse);
        prop_assert!(is_harmless(&said.html), "{}", said.html);
    }
}

#[test]
fn harmless_html_is_distinguished_from_other_html() {
    for (html, harmless) in [
        ("a &amp; <code>b</code><br>c", true),
        ("<ul><li>a <code>b</code></li></ul>", true),
        ("<ul><li onclick=\"a\">b</li></ul>", false),
        ("<b>a</b>", false),
        ("a > b", false),
        ("a & b", false),
        ("<code>a", false),
        ("</code>a<code>", false),
        ("<code>a<code>b</code></code>", false),
        ("<a href=\"https://a.b\">c</a>", false),
    ] {
        assert_eq!(is_harmless(html), harmless, "{html}");
    }
}
