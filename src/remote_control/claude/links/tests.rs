use std::sync::LazyLock;

use proptest::{prelude::*, sample::Index};

use super::*;

const PATTERN: &str = r"https://claude\.ai/code[/?][A-Za-z0-9_./?=&%~-]+";
const LINK: &str = "https://claude.ai/code?environment=env_01AbC";
const TITLE: &str = "https://claude.ai/code/session_01XyZ?from=cli";

fn finder() -> LinkFinder {
    static COMPILED: LazyLock<LinkPattern> = LazyLock::new(|| LinkPattern::new(PATTERN).unwrap());
    LinkFinder::new(COMPILED.clone())
}

fn shown(link: &str) -> Sighting {
    Sighting::Shown(Link::parse(link).unwrap())
}

fn target(link: &str) -> Sighting {
    Sighting::Target(Link::parse(link).unwrap())
}

fn find(output: &str) -> Vec<Sighting> {
    finder().push(output.as_bytes())
}

fn find_in_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Sighting> {
    let mut finder = finder();
    let mut found: Vec<_> = pieces
        .into_iter()
        .flat_map(|piece| finder.push(piece))
        .collect();
    found.extend(finder.finish());
    found
}

/// What the real program prints when it is no terminal: blocks, each over the last one.
fn status_blocks() -> String {
    format!(
        "\u{b7}|\u{b7} Connecting \u{b7} website \u{b7} main\n\x1b[1A\x1b[J\
         \u{b7}\u{2714}\u{fe0e}\u{b7} Connected \u{b7} website\n    Capacity: 1/32\n\
         \x1b]8;;{TITLE}\x07Fix the login\x1b]8;;\x07\n\n\
         Code anywhere with the Claude mobile app or {LINK}\nspace to show QR code\n"
    )
}

#[test]
fn the_link_and_the_titles_of_a_status_block_are_told_apart() {
    assert_eq!(find(&status_blocks()), [target(TITLE), shown(LINK)]);
}

#[test]
fn a_link_is_found_whole_wherever_the_output_is_cut() {
    let output = status_blocks();
    let expected = [target(TITLE), shown(LINK)];
    for cut in 0..=output.len() {
        let (head, tail) = output.as_bytes().split_at(cut);
        assert_eq!(find_in_pieces([head, tail]), expected, "{cut}");
    }
    assert_eq!(find_in_pieces(output.as_bytes().chunks(1)), expected);
}

#[test]
fn a_link_counts_only_once_its_end_was_written() {
    let mut finder = finder();
    assert_eq!(finder.push(LINK.as_bytes()), []);
    assert_eq!(finder.push(b"_more\x1b[0m"), []);
    assert_eq!(finder.push(b"\n"), [shown(&format!("{LINK}_more"))]);
}

#[test]
fn a_link_at_the_end_of_the_output_is_whole() {
    let mut finder = finder();
    assert_eq!(finder.push(LINK.as_bytes()), []);
    assert_eq!(finder.finish(), [shown(LINK)]);
}

#[test]
fn colours_glued_to_a_link_or_within_it_are_no_part_of_it() {
    let (head, tail) = LINK.split_at(30);
    for output in [
        format!("\x1b[1;36m{LINK}\x1b[0m\n"),
        format!("{head}\x1b[38;5;7m{tail}\x1b[0m \n"),
        format!("{head}\x1b]0;title\x07{tail}\n"),
        format!("{head}\x1b]0;title\x1b\\{tail}\n"),
    ] {
        assert_eq!(find(&output), [shown(LINK)], "{}", output.escape_debug());
    }
}

#[test]
fn whatever_else_stands_next_to_a_link_ends_it() {
    for end in [
        "\n",
        "\r\n",
        " ",
        "\t",
        "\"",
        ">",
        "|",
        "\u{b7}",
        "\0",
        "\x07",
        "\x08",
        "\x7f",
        "\x1b[K",
        "\x1b[1A\x1b[J",
        "\x1b[?25h",
        "\x1b[>4m",
        "\x1bM",
        "\x1b(B",
        "\x1bPx\x1b\\",
        "\x1b_x\x1b\\",
        "\x1b[1?5h",
        "\u{200b}",
        "\u{9b}",
    ] {
        let output = format!("{LINK}{end}x");
        assert_eq!(find(&output), [shown(LINK)], "{}", end.escape_debug());
    }
    assert_eq!(
        finder().push(format!("{LINK}.)\n").as_bytes()),
        [shown(LINK)]
    );
    assert_eq!(
        finder().push(&[LINK.as_bytes(), b"\xff"].concat()),
        [shown(LINK)]
    );
}

#[test]
fn a_link_is_found_whatever_other_than_a_url_stands_before_it() {
    for before in ["see ", "url=", "\"", "(", "\u{2502}", "h", "http", "https:"] {
        assert_eq!(
            find(&format!("{before}{LINK}\n")),
            [shown(LINK)],
            "{before}"
        );
    }
}

#[test]
fn a_run_that_is_too_long_has_no_link_and_takes_no_memory() {
    let mut finder = finder();
    for run in [
        format!("{LINK}/{}", "x".repeat(1 << 20)),
        "y".repeat(1 << 20),
    ] {
        assert_eq!(finder.push(run.as_bytes()), []);
        assert!(finder.screen.run.capacity() <= 2 * (LONGEST_RUN + 1));
        assert_eq!(finder.push(format!(" {LINK} ").as_bytes()), [shown(LINK)]);
    }
}

#[test]
fn the_characters_of_a_url_are_those_of_the_standard() {
    let of_url: String = ('\0'..='\u{ff}').filter(|it| is_of_url(*it)).collect();
    let standard =
        "!#$%&'()*+,-./0123456789:;=?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_abcdefghijklmnopqrstuvwxyz~";
    assert_eq!(of_url, standard);
}

#[test]
fn a_link_that_a_cursor_move_cuts_is_none() {
    let (head, tail) = LINK.split_at(20);
    assert_eq!(find(&format!("{head}\x1b[1A{tail}\n")), []);
    assert_eq!(find(&format!("{head}\n{tail}\n")), []);
}

#[test]
fn what_only_resembles_a_link_is_none() {
    for text in [
        "https://claude.ai.evil.example/code/session_x",
        "https://claude.ai@evil.example/code/session_x",
        "https://evil.example/?u=https://claude.ai/code/session_x",
        "evil.example/?u=https://claude.ai/code/session_x",
        "http://claude.ai/code/session_x",
        "claude.ai/code/session_x",
        "https://claude.ai/code",
        "https://claude.ai/code)",
        "(see https://claude.ai/code).",
        "https://code.claude.com/docs/en/remote-control",
        "//https://claude.ai/code/session_x",
        "https:/https://claude.ai/code/session_x",
        "?https://claude.ai/code/session_x",
        "#https://claude.ai/code/session_x",
    ] {
        assert_eq!(find(&format!("{text}\n")), [], "{text}");
        let hyperlink = format!("\x1b]8;;{text}\x07title\x1b]8;;\x07\n");
        assert_eq!(find(&hyperlink), [], "{text}");
    }
}

#[test]
fn a_hyperlink_that_shows_its_target_is_shown() {
    for (open, close) in [("\x07", "\x07"), ("\x1b\\", "\x1b\\")] {
        for (before, after) in [("", ""), ("\x1b[36m", "\x1b[0m"), ("go: ", " ")] {
            let output = format!("\x1b]8;id=1;{LINK}{open}{before}{LINK}{after}\x1b]8;;{close}\n");
            assert_eq!(find(&output), [shown(LINK)], "{}", output.escape_debug());
        }
    }
}

#[test]
fn a_hyperlink_ends_where_its_target_ends() {
    let output = format!("\x1b]8;;{LINK}\x07{LINK}\x1b]8;;\x07glued");
    assert_eq!(find(&output), [shown(LINK)]);
}

#[test]
fn a_link_over_two_hyperlinks_is_shown_once() {
    let (head, tail) = LINK.split_at(30);
    let output = format!("\x1b]8;id=1;{LINK}\x07{head}\x1b]8;id=1;{LINK}\x07{tail}\x1b]8;;\x07\n");
    assert_eq!(find(&output), [shown(LINK)]);
}

#[test]
fn a_hyperlink_that_is_never_closed_is_a_target_at_the_end() {
    let mut finder = finder();
    let output = format!("\x1b]8;;{TITLE}\x07Fix the login");
    assert_eq!(finder.push(output.as_bytes()), []);
    assert_eq!(finder.finish(), [target(TITLE)]);
}

#[test]
fn a_character_that_is_cut_does_not_end_a_link() {
    // What is cancelled leaves the parser where it takes characters.
    for cut in [&b"\x1b\x18\xc2\xc2"[..], b"\x1b\x18\xe2\x1b[m"] {
        let mut finder = finder();
        assert_eq!(finder.push(cut), []);
        assert_eq!(finder.push(format!("\n{LINK}\x1b").as_bytes()), []);
        assert_eq!(finder.push(b"[36mmore\n"), [shown(&format!("{LINK}more"))]);
    }
    let hyperlink = format!("\x1b]8;;{TITLE}\x07Fix the login\x1b]8;;\x07\n");
    let found = find_in_pieces([&b"\x1b\x18\xe2"[..], hyperlink.as_bytes()]);
    assert_eq!(found, [target(TITLE)]);
}

#[test]
fn a_target_that_the_parser_has_cut_is_none() {
    for target in [
        format!("{LINK}{}", "x".repeat(2 * LONGEST_OSC)),
        format!("{LINK}{};", ";x".repeat(20)),
    ] {
        assert_eq!(
            find(&format!("\x1b]8;;{target}\x07title\x1b]8;;\x07\n")),
            []
        );
    }
}

#[test]
fn a_link_is_found_after_whatever_noise() {
    for noise in [
        "x".repeat(1 << 20),
        format!("https://{}", "y".repeat(1 << 20)),
        "https://".repeat(1 << 17),
        "\x1b[1;2;3".repeat(1 << 16),
        "\x1b[?1h\u{e9}".repeat(1 << 16),
    ] {
        assert_eq!(find(&format!("{noise}\x1b[0K\n{LINK}\n")), [shown(LINK)]);
    }
    let unfinished = format!("\x1b]0;{}", "z;".repeat(1 << 20));
    assert_eq!(find(&format!("{unfinished}\x07{LINK}\n")), [shown(LINK)]);
}

#[test]
fn the_host_of_a_pattern_is_known() {
    for (pattern, host) in [
        (PATTERN, "claude.ai"),
        (r"^https://claude\.ai/code/x$", "claude.ai"),
        (r"https://claude\.ai[/?]code", "claude.ai"),
        (r"https://claude\.ai(?:/code|\?code=)\w+", "claude.ai"),
        (r"https://localhost:8443/\w+", "localhost"),
        (r"(?x) https://claude\.ai/ \w+ # any", "claude.ai"),
    ] {
        assert_eq!(LinkPattern::new(pattern).unwrap().host(), host, "{pattern}");
    }
}

#[test]
fn a_pattern_must_name_its_host_to_the_end() {
    for pattern in [
        "",
        ".*",
        r"https://",
        r"https://claude\.ai",
        r"https://claude.ai/code/\w+",
        r"https://claude\.ai\w*/code",
        r"https://claude\.ai.*",
        r"https://(?:claude\.ai/)?\w+",
        r"https://[a-z.]+/code",
        r"http://claude\.ai/code/\w+",
        r"(?i)https://claude\.ai/code/\w+",
        r"https?://claude\.ai/code/\w+",
        r".*https://claude\.ai/code/\w+",
        r"https://claude\.ai/|x",
        r"https://claude\.ai@evil\.example/\w+",
        r"https://CLAUDE\.AI/\w+",
    ] {
        let refused = LinkPattern::new(pattern);
        assert!(matches!(refused, Err(PatternError::NoHost)), "{pattern}");
    }
}

#[test]
fn a_pattern_names_one_host() {
    let pattern = r"https://(?:claude\.ai|evil\.example)/code/\w+";
    assert!(matches!(
        LinkPattern::new(pattern),
        Err(PatternError::TwoHosts(one, other)) if one == "claude.ai" && other == "evil.example"
    ));
}

#[test]
fn what_does_not_compile_is_told_apart() {
    let broken = LinkPattern::new(r"https://claude\.ai/(");
    assert!(matches!(broken, Err(PatternError::Syntax(_))));
    let huge = LinkPattern::new(r"https://claude\.ai/\w{1000}{1000}");
    assert!(matches!(huge, Err(PatternError::TooLarge(_))));
}

#[test]
fn a_link_is_the_whole_text_without_the_punctuation_after_it() {
    let pattern = LinkPattern::new(PATTERN).unwrap();
    let link = |text: &str| Some(pattern.link_in_prose(text)?.expose().to_owned());
    let whole = "https://claude.ai/code/session_01AbC?from=cli";
    for after in ["", ".", ",", ")", ").", "?", "!", "...", "]", "**"] {
        assert_eq!(link(&format!("{whole}{after}")).as_deref(), Some(whole));
    }
}

#[test]
fn what_goes_on_after_the_match_is_no_link() {
    let pattern = LinkPattern::new(PATTERN).unwrap();
    for text in [
        "https://claude.ai/code",
        "https://claude.ai/code)",
        "https://claude.ai/code/.",
        "https://claude.ai/code?",
        "https://claude.ai/code/x#fragment",
        "https://claude.ai/code/x+y",
        "https://claude.ai.evil.example/code/x",
        "https://claude.ai@evil.example/code/x",
        "https://claude.ai:443@evil.example/code/x",
        "https://code.claude.com/docs/x",
    ] {
        assert!(pattern.link_in_prose(text).is_none(), "{text}");
    }
}

#[test]
fn the_host_of_a_link_is_checked_even_if_the_pattern_lets_others_through() {
    let pattern = LinkPattern::new(r"https://claude\.ai:\S+").unwrap();
    assert!(pattern.link("https://claude.ai:443/code/x").is_some());
    assert!(pattern.link("https://claude.ai:x@evil.example/").is_none());
}

// What holds for every output, not for the chosen ones alone.

/// Takes no room on the screen.
fn invisible() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "\x1b[m",
        "\x1b[1;38;5;12m",
        "\x1b]0;a title; with https://claude.ai/code/session_no\x07",
        "\x1b]8;;https://example.org/\x1b\\",
        "\x1b]8;;\x07",
    ])
}

/// What cannot be in a URL, or ends whatever stands on the screen.
fn boundary() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "\n",
        " ",
        "\x1b[2A\x1b[J",
        "\u{2714}",
        "\r",
        "\x1b[1?5h\"",
    ])
}

/// Whole pieces of other output: after each of them the parser is where it was before.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let known = [
        "https://claude.ai/code",
        "https://claude.ai/code)",
        "https://claude.ai.evil.example/code/session_x ",
        "evil.example/?u=https://claude.ai/code/session_x ",
        "https://",
        "http",
        "\x1b[31m",
        "\x1b[2A\x1b[J",
        "\x1b[1;2;3;4;5;6;7;8;9;10;11;12;13;14;15;16;17;18;19;20;21;22;23;24;25;26;27;28;29;30;31;32;33;34m",
        "\x1b(B",
        "\x1b]0;title\x07",
        "\x1b]8;;https://example.org/\x07",
        "\x1b]8;;\x1b\\",
        "\x1bPq#0\x1b\\",
        "\x1b_x\x1b\\",
        "\u{2714}\u{fe0e}",
    ];
    let piece = prop_oneof![
        prop::sample::select(known.map(|text| text.as_bytes().to_vec()).to_vec()),
        // Bytes of every kind, but none that begins a sequence.
        prop::collection::vec(prop_oneof![0..ESCAPE, ESCAPE + 1..=u8::MAX], 0..8),
        // A sequence of any kind, cancelled (ECMA-48: CAN) wherever it had come to.
        prop::collection::vec(prop_oneof![0..ESCAPE, ESCAPE + 1..=u8::MAX], 0..8)
            .prop_map(|bytes| [&[ESCAPE][..], &bytes[..], b"\x18"].concat()),
    ];
    prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

/// URLs of `claude.ai` and of hosts that pose as it, whole and in pieces.
fn look_alikes() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "https://",
        "http://",
        "//",
        "claude.ai",
        "claude\u{3002}ai",
        "claude%2eai",
        "evil.example",
        ".evil.example",
        "@",
        ":",
        ":443",
        "/",
        "\\",
        "?",
        "#",
        "/code/",
        "/code?environment=env_1",
        "session_x",
        "%40",
        "..",
        "\u{ff0f}",
        "\t",
        " ",
        "\n",
        "\x1b]8;;",
        "\x07",
        "\x1b\\",
        "\x1b[m",
        "\x1b[K",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..16)
        .prop_map(|pieces| pieces.concat().into_bytes())
}

/// The output, cut at these places.
fn pieces<'o>(output: &'o [u8], cuts: &[Index]) -> Vec<&'o [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(output.len() + 1)).collect();
    cuts.sort_unstable();
    let ends = cuts.iter().copied().chain([output.len()]);
    let begins = [0].into_iter().chain(cuts.iter().copied());
    begins
        .zip(ends)
        .map(|(begin, end)| &output[begin..end])
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_link_is_found_whole_with_escapes_around_and_within_and_cut_anywhere(
        id in "[A-Za-z0-9_]{1,30}",
        escapes in prop::collection::vec((any::<Index>(), invisible()), 0..6),
        before in boundary(),
        after in boundary(),
        cuts in prop::collection::vec(any::<Index>(), 0..6),
    ) {
        let link = format!("https://claude.ai/code?environment=env_{id}");
        let mut output = link.clone();
        let mut escapes: Vec<_> = escapes.iter().map(|(at, text)| (at.index(link.len() + 1), *text)).collect();
        escapes.sort_unstable();
        for (at, escape) in escapes.into_iter().rev() {
            output.insert_str(at, escape);
        }
        let output = format!("noise{before}{output}{after}noise").into_bytes();
        prop_assert_eq!(find_in_pieces(pieces(&output, &cuts)), [shown(&link)]);
    }

    #[test]
    fn the_pieces_of_arbitrary_output_do_not_matter(
        output in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..4),
                Just(LINK.as_bytes().to_vec()),
                Just(b"\x1b".to_vec()),
                Just(b"\x1b[".to_vec()),
                Just(b"\x1b]8;;".to_vec()),
                Just(b"\x07".to_vec()),
                Just(b"\x1b\\".to_vec()),
                Just(b"https".to_vec()),
                Just(b" ".to_vec()),
            ],
            0..30,
        ),
        cut in any::<Index>(),
    ) {
        let output = output.concat();
        let whole = find_in_pieces([&output[..]]);
        prop_assert_eq!(&find_in_pieces(output.chunks(1)), &whole);
        if !output.is_empty() {
            let (head, tail) = output.split_at(cut.index(output.len()));
            prop_assert_eq!(&find_in_pieces([head, tail]), &whole);
        }
    }

    #[test]
    fn noise_around_a_link_does_not_matter(
        before in noise(),
        id in "[A-Za-z0-9_]{30}",
        after in noise(),
        cuts in prop::collection::vec(any::<Index>(), 0..6),
    ) {
        let link = format!("https://claude.ai/code/session_{id}");
        let output = [&before, &b"\n"[..], link.as_bytes(), b"\n", &after].concat();
        let found = find_in_pieces(pieces(&output, &cuts));
        let times = found.iter().filter(|sighting| **sighting == shown(&link)).count();
        prop_assert_eq!(times, 1, "{}: {:?}", output.escape_ascii(), found);
    }

    #[test]
    fn a_link_is_not_taken_before_its_end_was_written(
        before in noise(),
        head in "[A-Za-z0-9_]{1,20}",
        invisible in invisible(),
        tail in "[A-Za-z0-9_]{1,20}",
        end in boundary(),
        cuts in prop::collection::vec(any::<Index>(), 0..6),
    ) {
        let mut finder = finder();
        let begin = [&before, &b"\nhttps://claude.ai/code?environment=env_"[..], head.as_bytes(), invisible.as_bytes()].concat();
        let mut found: Vec<_> = pieces(&begin, &cuts).into_iter().flat_map(|piece| finder.push(piece)).collect();
        found.extend(finder.push(tail.as_bytes()));
        let begun = format!("https://claude.ai/code?environment=env_{head}");
        let is_ours = |sighting: &Sighting| matches!(sighting, Sighting::Shown(link) if link.starts_with(&begun));
        prop_assert!(!found.iter().any(is_ours), "{}: {:?}", begin.escape_ascii(), found);
        prop_assert_eq!(finder.push(end.as_bytes()), [shown(&format!("{begun}{tail}"))]);
    }

    #[test]
    fn every_link_names_the_host_of_the_pattern(
        output in look_alikes(),
        pattern in prop::sample::select(vec![PATTERN, r"https://claude\.ai[/?#:].*", r"(?s)https://claude\.ai:.+"]),
    ) {
        let mut finder = LinkFinder::new(LinkPattern::new(pattern).unwrap());
        let mut found = finder.push(&output);
        found.extend(finder.finish());
        for Sighting::Shown(link) | Sighting::Target(link) in found {
            let url = url::Url::parse(link.expose()).unwrap();
            prop_assert_eq!((url.scheme(), url.host_str()), ("https", Some("claude.ai")));
            prop_assert!(url.username().is_empty() && url.password().is_none());
            // Readers that know less of URLs than the parser come to the same host.
            let rest = link.expose().strip_prefix("https://claude.ai").unwrap();
            prop_assert!(rest.starts_with(['/', '?', '#', ':']), "{}", link.expose());
        }
    }
    #[test]
    fn the_links_of_a_text_are_one_for_each_run_that_can_have_one(
        fragments in prop::collection::vec(
            prop::sample::select(vec![
                "https://claude.ai/code/", "https://", "https:/", "http", "h", "/", "?u=", "#", "x.", "evil.example", " ", "\n",
                "\u{2026}",
            ]),
            0..12,
        ),
        cuts in prop::collection::vec(any::<Index>(), 0..6),
    ) {
        let text = fragments.concat();
        // The same, read off a text that is there as a whole.
        let pattern = LinkPattern::new(PATTERN).unwrap();
        let link_of_run = |run: &str| {
            let (before, after) = run.split_once("https://")?;
            let begins = !before.contains(['/', '?', '#']);
            begins.then(|| pattern.link_in_prose(&format!("https://{after}")))?.map(Sighting::Shown)
        };
        let runs = text.split(|character| !is_of_url(character));
        let expected: Vec<_> = runs.filter_map(link_of_run).collect();
        prop_assert_eq!(find_in_pieces(pieces(text.as_bytes(), &cuts)), expected);
    }
}
