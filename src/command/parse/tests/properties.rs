//! What holds for every text, not for the chosen ones alone.

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
        "<b>", "`x`", "@room", "&lt;",
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
        Just(Verb::Logs),
        by.prop_map(Verb::Extend),
        Just(Verb::Status),
        Just(Verb::Doctor),
        Just(Verb::Help),
    ];
    (verb, project()).prop_map(|(verb, project)| Command {
        verb,
        project: project.filter(|_| verb.target() != Target::Host),
    })
}

/// The words that mean a command, as a person would type them.
fn spell(command: &Command) -> Vec<String> {
    let by = match command.verb {
        Verb::Extend(by) => Some(format!("{}s", by.as_secs())),
        _ => None,
    };
    let word = Some(command.verb.name().to_owned());
    [word, command.project.clone(), by]
        .into_iter()
        .flatten()
        .collect()
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
        spaces in prop::collection::vec(white_space(), 4),
        shout in any::<bool>(),
    ) {
        let mut words = spell(&command);
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
    fn what_is_said_about_misuse_is_harmless_html_whatever_was_typed(
        (prefix, text) in prefix_and_text(),
        known in prop::collection::vec("[a-z]{1,5}", 0..3),
    ) {
        let misuse = match parse(&prefix, &text) {
            Some(Err(misuse)) => misuse,
            Some(Ok(Command { project: Some(name), .. })) => Misuse::UnknownProject { name, known },
            Some(Ok(command)) => Misuse::Ambiguous { command: command.verb.name(), known },
            None => return Ok(()),
        };
        let said = reply::misuse(&prefix, &misuse);
        prop_assert!(is_harmless(&said.html), "{}", said.html);
    }
}

#[test]
fn what_counts_as_harmless_html_is_told_from_what_does_not() {
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
