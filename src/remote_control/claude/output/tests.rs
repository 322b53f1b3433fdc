use std::sync::LazyLock;

use proptest::{prelude::*, sample::Index};

use super::*;

const PATTERN: &str = r"https://claude\.ai/code[/?][A-Za-z0-9_./?=&%~-]+";
const LINK: &str = "https://claude.ai/code?environment=env_01AbC";
const OTHER: &str = "https://claude.ai/code/session_01XyZ";
const READY: &str = "\u{b7}\u{2714}\u{fe0e}\u{b7} Ready";
const OWN: &str = "Code anywhere with the Claude mobile app or";

fn reader() -> OutputReader {
    static COMPILED: LazyLock<LinkPattern> = LazyLock::new(|| LinkPattern::new(PATTERN).unwrap());
    OutputReader::new(COMPILED.clone())
}

fn link(link: &str) -> Said {
    Said::Link(Link::parse(link).unwrap())
}

fn after(words: &str, link: &str) -> Said {
    Said::LinkAfter(Link::parse(link).unwrap(), words.to_owned())
}

const CONNECTED: Said = Said::Connection(Connection::Connected);
const ESCAPE: u8 = 0x1b;

fn event(text: &str) -> Said {
    Said::Event(text.to_owned())
}

fn read(output: &str) -> Vec<Said> {
    reader().push(output.as_bytes())
}

fn read_in_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Said> {
    let mut reader = reader();
    let said = pieces.into_iter().flat_map(|piece| reader.push(piece));
    let mut said: Vec<_> = said.collect();
    said.extend(reader.unfinished());
    said
}

fn is_link(said: &Said) -> bool {
    matches!(said, Said::Link(_) | Said::LinkAfter(..))
}

/// What the real program prints if stdout is not a terminal: blocks, each over the last one.
fn status_blocks(title: &str, doing: &str) -> String {
    let block = format!(
        "\u{b7}\u{2714}\u{fe0e}\u{b7} Connected \u{b7} website \u{b7} main\n    Capacity: 1/32 \u{b7} New sessions\n    \
         \x1b]8;;{OTHER}?from=cli\x07{title}\x1b]8;;\x07 {doing}\n\nContinue coding in the Claude mobile app or {LINK}\n\
         space to show QR code\n"
    );
    format!(
        "Enable Remote Control? (y/n) \n\u{b7}|\u{b7} Connecting \u{b7} website \u{b7} main\n\x1b[1A\x1b[J{block}\x1b[6A\x1b[J\
         [12:34:56] Error: Server unreachable for 10 minutes, giving up.\n{block}"
    )
}

fn said_by_status_blocks() -> Vec<Said> {
    vec![
        Said::Connection(Connection::Connecting),
        CONNECTED,
        link(LINK),
        event("Error: Server unreachable for 10 minutes, giving up."),
        CONNECTED,
        link(LINK),
    ]
}

#[test]
fn the_head_the_link_and_the_events_of_status_blocks_are_read() {
    let output = status_blocks("Fix the build", "Reading files");
    assert_eq!(read(&output), said_by_status_blocks());
}

#[test]
fn titles_and_activities_of_conversations_are_not_the_programs_messages() {
    for text in [
        OTHER.to_owned(),
        format!("{OWN} {OTHER}"),
        format!("\r\n{OWN} {OTHER}"),
        format!("\n\n{OWN} {OTHER}"),
        "\n\u{b7}|\u{b7} Reconnecting \u{b7} retrying in 8s".to_owned(),
        "\n[12:34:56] Error: Workspace not trusted.".to_owned(),
    ] {
        let output = status_blocks(&text, "Reading files");
        assert_eq!(read(&output), said_by_status_blocks(), "{text}");
    }
    for text in [
        OTHER.to_owned(),
        format!("{OWN} {OTHER}"),
        "[12:34:56] Error: no".to_owned(),
    ] {
        let output = status_blocks("Fix the build", &text);
        assert_eq!(read(&output), said_by_status_blocks(), "{text}");
    }
    // A single conversation has its title at the head, and its activity in a separate line.
    let title = format!("\u{b7}\u{2714}\u{fe0e}\u{b7} {OWN} {OTHER} \u{b7} website");
    let output =
        format!("{title}\n    Single session\n  {OTHER}\n\nContinue coding in the app or {LINK}\n");
    assert_eq!(read(&output), [CONNECTED, link(LINK)]);
    // Events may hold anything.
    let failed = format!("Session failed: {OWN} {OTHER} (1)");
    assert_eq!(read(&format!("[12:34:56] {failed}\n")), [event(&failed)]);
}

#[test]
fn an_own_line_outside_of_the_block_is_a_replay() {
    let head = "\u{b7}\u{2714}\u{b7} Connected\n";
    let words = format!("{OWN} ");
    for between in [
        "\x1b[3A\x1b[J",
        "[12:34:56] an event\n",
        &format!("\n{OWN} {LINK}\n"),
    ] {
        let output = format!("{head}{between}{OWN} {OTHER}\n");
        assert_eq!(
            read(&output).last(),
            Some(&after(&words, OTHER)),
            "{between:?}"
        );
    }
    let output = format!("{head}{OWN} {LINK}\n\x1b[2A\x1b[J{head}    any\n\n{OWN} {OTHER}\n");
    assert_eq!(read(&output).last(), Some(&link(OTHER)));
}

#[test]
fn output_of_a_failed_conversation_is_not_the_programs_message() {
    let head = "\u{b7}\u{2714}\u{b7} Connected\n";
    let failed = "Session failed: one";
    let lines = format!("{OWN} {OTHER}\n[12:34:56] Error: Workspace not trusted.");
    let block = format!("{head}{OWN} {LINK}\n");
    for last in [format!("see {OTHER} cse_1"), "no more cse_1".to_owned()] {
        let output = format!(
            "{block}\x1b[2A\x1b[J[12:34:56] {failed}\n{lines}\n{last}\n[12:34:57] next\n{block}"
        );
        assert_eq!(
            read(&output),
            [
                CONNECTED,
                link(LINK),
                event(failed),
                event("next"),
                CONNECTED,
                link(LINK)
            ],
            "{last}"
        );
    }
}

#[test]
fn the_same_is_read_wherever_the_output_is_cut() {
    let output = status_blocks("Fix the build", "Reading files");
    let expected = said_by_status_blocks();
    for cut in 0..=output.len() {
        let (head, tail) = output.as_bytes().split_at(cut);
        assert_eq!(read_in_pieces([head, tail]), expected, "{cut}");
    }
    assert_eq!(read_in_pieces(output.as_bytes().chunks(1)), expected);
}

#[test]
fn a_link_counts_only_once_its_line_has_ended() {
    let mut reader = reader();
    assert_eq!(reader.push(format!("{OWN} {LINK}").as_bytes()), []);
    assert_eq!(reader.push(b"_more\x1b[0m"), []);
    assert_eq!(reader.unfinished(), Some(link(&format!("{LINK}_more"))));
    assert_eq!(reader.push(b"\n"), [link(&format!("{LINK}_more"))]);
    assert_eq!(reader.unfinished(), None);
}

#[test]
fn a_line_with_only_a_link_counts_as_the_own_one_unless_there_is_a_status_block() {
    for output in [
        format!("{LINK}\n"),
        format!("{LINK} \r\n"),
        format!("\x1b[1;36m{LINK}\x1b[0m\n"),
        format!("{LINK}\x1b[K\n"),
    ] {
        assert_eq!(read(&output), [link(LINK)], "{}", output.escape_debug());
    }
    let output = format!("\u{b7}|\u{b7} Connecting\n{LINK}\n");
    assert_eq!(read(&output)[1..], [after("", LINK)]);
}

#[test]
fn a_link_in_another_line_is_reported_with_the_words_before_it() {
    for (before, rest) in [
        ("see ", ""),
        ("url=", ""),
        ("{\"url\": \"", "\"}"),
        ("(", ")."),
        ("\u{2502} ", " \u{2502}"),
        ("  ", ""),
        ("2026-08-01T12:00:00Z INFO link: ", " (new)"),
    ] {
        let output = format!("{before}{LINK}{rest}\n");
        assert_eq!(read(&output), [after(before, LINK)], "{output}");
    }
    let hyperlink = format!("\x1b]8;;{LINK}\x07{LINK}\x1b]8;;\x07\n");
    assert_eq!(read(&hyperlink), [after("", LINK)]);
}

#[test]
fn colours_and_hyperlinks_around_a_link_or_within_it_are_no_part_of_it() {
    let (begin, rest) = LINK.split_at(30);
    for output in [
        format!("{OWN} \x1b[1;36m{LINK}\x1b[0m\n"),
        format!("\x1b[2m{OWN} {begin}\x1b[38;5;7m{rest}\x1b[0m \n"),
        format!("{OWN} {begin}\x1b]0;title\x07{rest}\n"),
        format!("{OWN} \x1b]8;id=1;{OTHER}\x1b\\{begin}\x1b]8;;\x1b\\{rest}\n"),
    ] {
        assert_eq!(read(&output), [link(LINK)], "{}", output.escape_debug());
    }
}

#[test]
fn a_link_cut_by_a_line_break_or_a_cursor_move_is_ignored() {
    let (begin, rest) = LINK.split_at(20);
    for between in ["\x1b[1A", "\n", "\r", "\x1b[3C", "\x1bM"] {
        assert_eq!(read(&format!("{OWN} {begin}{between}{rest}\n")), []);
    }
}

#[test]
fn no_own_line_begins_where_the_cursor_has_moved_to() {
    for begin in ["x\x1b[1A", "\x1b[4C", "\x1b[3;9H", "x\x1b[K\x1b[J"] {
        let output = format!("{begin}{OWN} {LINK}\n");
        assert_eq!(
            read(&output),
            [after(&format!("{OWN} "), LINK)],
            "{output:?}"
        );
    }
}

#[test]
fn what_only_resembles_a_link_is_ignored() {
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
        assert_eq!(read(&format!("{OWN} {text}\n")), [], "{text}");
        let hyperlink = format!("\x1b]8;;{LINK}\x07title\x1b]8;;\x07\n");
        assert_eq!(
            read(&hyperlink),
            [],
            "where a hyperlink leads to does not matter"
        );
    }
}

#[test]
fn a_line_that_is_too_long_says_nothing_and_takes_no_memory() {
    let mut reader = reader();
    for line in [
        format!("{OWN} {LINK}/{}", "x".repeat(1 << 20)),
        "y ".repeat(1 << 20),
    ] {
        assert_eq!(reader.push(line.as_bytes()), []);
        assert!(reader.page.line.text.capacity() <= 2 * (LONGEST_LINE + 4));
        let own = format!("\n{OWN} {LINK}\n");
        assert_eq!(reader.push(own.as_bytes()), [link(LINK)]);
    }
}

#[test]
fn a_link_is_found_after_whatever_noise() {
    for noise in [
        "x".repeat(1 << 20),
        "https://".repeat(1 << 17),
        "\x1b[1;2;3".repeat(1 << 16),
        "\x1b[?1h\u{e9}".repeat(1 << 16),
        "plain words\n".repeat(1 << 16),
        format!("\x1b]0;{}\x07", "z;".repeat(1 << 20)),
    ] {
        let output = format!("{noise}\x1b[0K\n{OWN} {LINK}\n");
        assert_eq!(read(&output), [link(LINK)]);
    }
}

#[test]
fn what_is_left_of_a_line_after_a_gap_says_nothing() {
    let own = format!("{OWN} {LINK}\n");
    let mut reader = reader();
    assert_eq!(reader.push(&own.as_bytes()[..60]), []);
    reader.skip();
    assert_eq!(reader.push(own.as_bytes()), []);
    assert_eq!(reader.push(own.as_bytes()), [link(LINK)]);
    reader.skip();
    assert_eq!(reader.push(format!("x\r\x1b[A{OWN} {LINK}").as_bytes()), []);
    assert_eq!(reader.unfinished(), None);
}

fn reconnecting(seconds: impl Into<Option<u64>>) -> Connection {
    let disconnected = seconds.into().map(Duration::from_secs);
    Connection::Reconnecting { disconnected }
}

#[test]
fn the_head_of_the_status_block_shows_the_connection() {
    for (head, connection) in [
        ("·|· Connecting", Some(Connection::Connecting)),
        (
            "·/· Connecting · website · main",
            Some(Connection::Connecting),
        ),
        ("·✔︎· Ready", Some(Connection::Connected)),
        (
            "·✔︎· Connected · website · main",
            Some(Connection::Connected),
        ),
        ("·✔· Connected", Some(Connection::Connected)),
        ("·|· Reconnecting", Some(reconnecting(None))),
        (
            "·-· Reconnecting · retrying in 2.0s · disconnected 42s",
            Some(reconnecting(42)),
        ),
        (
            "·\\· Reconnecting · retrying in 8s · disconnected 1m 5s",
            Some(reconnecting(65)),
        ),
        (
            "·\\· Reconnecting · retrying in 8s · disconnected 2h",
            Some(reconnecting(7200)),
        ),
        (
            "·|· Reconnecting · disconnected for ever",
            Some(reconnecting(None)),
        ),
        ("·|· Updating", None),
        ("Reconnecting · disconnected 42s", None),
        ("", None),
        ("··", None),
    ] {
        assert_eq!(Connection::of(head), connection, "{head}");
    }
}

#[test]
fn the_title_of_a_conversation_is_no_state_of_the_connection() {
    for title in [
        "Reconnecting · disconnected 9h",
        "·|· Reconnecting",
        "Connecting",
    ] {
        assert_eq!(
            Connection::of(&format!("·✔︎· {title} · website")),
            Some(Connection::Connected)
        );
    }
}

#[test]
fn escapes_are_not_visible() {
    for (bytes, text) in [
        (&b"plain\ttext\n"[..], "plain\ttext\n"),
        (b"\x1b[1mbo\x1b[0;31mld\x1b[0m", "bold"),
        (b"\x1b]8;;https://a.b/c\x07title\x1b]8;;\x07", "title"),
        (b"\x1b]0;window title\x1b\\text", "text"),
        (b"one\x1b[2A\x1b[Jtwo", "one\ntwo"),
        (b"\x1b[2J\x1b[Hone\n\x1b[2Ktwo", "one\ntwo"),
        (b"10 %\r20 %\r\n", "10 %\n20 %\n"),
        (b"a\0b\x7fc\x08d", "abcd"),
        (b"\xff caf\xc3\xa9", "\u{fffd} caf\u{e9}"),
        (b"\x1bPdevice\x1b\\x", "x"),
    ] {
        assert_eq!(visible_text(bytes), text, "{}", bytes.escape_ascii());
    }
}

// Properties of every output, not only of the chosen ones.

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

/// Whole pieces of other output: after each of them the parser is where it was before.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let known = [
        "https://claude.ai/code",
        "https://claude.ai.evil.example/code/session_x ",
        "https://",
        "\x1b[31m",
        "\x1b[2A\x1b[J",
        "\x1b(B",
        "\x1b]0;title\x07",
        "\x1b]8;;\x1b\\",
        "\x1bPq#0\x1b\\",
        "\x1b_x\x1b\\",
        "\n\u{b7}\u{2714}\u{fe0e}\u{b7} Ready\n",
        "[12:34:56] Error: x",
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
        "Code anywhere with ",
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
    fn the_own_line_is_read_with_escapes_in_it_and_cut_anywhere(
        id in "[A-Za-z0-9_]{1,30}",
        escapes in prop::collection::vec((any::<Index>(), invisible()), 0..6),
        cuts in prop::collection::vec(any::<Index>(), 0..6),
    ) {
        let url = format!("https://claude.ai/code?environment=env_{id}");
        let mut own = format!("{OWN} {url}");
        let mut escapes: Vec<_> = escapes.iter().map(|(at, text)| (1 + at.index(own.len()), *text)).collect();
        escapes.sort_unstable();
        for (at, escape) in escapes.into_iter().rev() {
            own.insert_str(at, escape);
        }
        let output = format!("noise\n{own}\nnoise").into_bytes();
        prop_assert_eq!(read_in_pieces(pieces(&output, &cuts)), [link(&url)]);
    }

    #[test]
    fn the_pieces_of_arbitrary_output_do_not_matter(
        output in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..4),
                Just(LINK.as_bytes().to_vec()),
                Just(OWN.as_bytes().to_vec()),
                Just(b"\x1b".to_vec()),
                Just(b"\x1b[".to_vec()),
                Just(b"\x1b]8;;".to_vec()),
                Just(b"\x07".to_vec()),
                Just(b"\x1b\\".to_vec()),
                Just(b"https".to_vec()),
                Just("\n\u{b7}".as_bytes().to_vec()),
                Just(b"\n[12:34:56] ".to_vec()),
                Just(b" ".to_vec()),
            ],
            0..30,
        ),
        cut in any::<Index>(),
    ) {
        let output = output.concat();
        let whole = read_in_pieces([&output[..]]);
        prop_assert_eq!(&read_in_pieces(output.chunks(1)), &whole);
        if !output.is_empty() {
            let (head, tail) = output.split_at(cut.index(output.len()));
            prop_assert_eq!(&read_in_pieces([head, tail]), &whole);
        }
    }

    #[test]
    fn noise_around_the_own_line_does_not_matter(
        before in noise(),
        id in "[A-Za-z0-9_]{30}",
        after in noise(),
        cuts in prop::collection::vec(any::<Index>(), 0..6),
    ) {
        let url = format!("https://claude.ai/code/session_{id}");
        let own = format!("\x1b]8;;\x07\n{READY}\n{OWN} {url}\n");
        let output = [&before, own.as_bytes(), &after].concat();
        let said = read_in_pieces(pieces(&output, &cuts));
        let times = said.iter().filter(|said| **said == link(&url)).count();
        prop_assert_eq!(times, 1, "{}: {:?}", output.escape_ascii(), said);
    }

    #[test]
    fn a_link_is_not_taken_before_its_end_was_written(
        before in noise(),
        begin in "[A-Za-z0-9_]{1,20}",
        invisible in invisible(),
        rest in "[A-Za-z0-9_]{1,20}",
        cuts in prop::collection::vec(any::<Index>(), 0..6),
    ) {
        let mut reader = reader();
        let url = format!("https://claude.ai/code?environment=env_{begin}");
        let own = format!("\x1b]8;;\x07\n{READY}\n{OWN} {url}{invisible}");
        let output = [&before, own.as_bytes()].concat();
        let mut said: Vec<_> = pieces(&output, &cuts).into_iter().flat_map(|piece| reader.push(piece)).collect();
        said.extend(reader.push(rest.as_bytes()));
        let is_ours = |said: &Said| matches!(said, Said::Link(link) if link.starts_with(&url));
        prop_assert!(!said.iter().any(is_ours), "{}: {:?}", output.escape_ascii(), said);
        prop_assert_eq!(reader.push(b"\n"), [link(&format!("{url}{rest}"))]);
    }

    #[test]
    fn every_link_names_the_host_of_the_pattern(
        output in look_alikes(),
        pattern in prop::sample::select(vec![PATTERN, r"https://claude\.ai[/?#:].*", r"(?s)https://claude\.ai:.+"]),
    ) {
        let mut reader = OutputReader::new(LinkPattern::new(pattern).unwrap());
        let mut said = reader.push(&output);
        said.extend(reader.unfinished());
        for said in said {
            let (Said::Link(link) | Said::LinkAfter(link, _)) = said else { continue };
            let url = url::Url::parse(link.expose()).unwrap();
            prop_assert_eq!((url.scheme(), url.host_str()), ("https", Some("claude.ai")));
            prop_assert!(url.username().is_empty() && url.password().is_none());
            // Readers that know less of URLs than the parser come to the same host.
            let rest = link.expose().strip_prefix("https://claude.ai").unwrap();
            prop_assert!(rest.starts_with(['/', '?', '#', ':']), "{}", link.expose());
        }
    }

    #[test]
    fn no_title_is_ever_a_link_whatever_it_is(title in "[ -~\u{a0}-\u{2fff}]{0,40}", tail in prop::sample::select(vec!["", OTHER])) {
        let said = read(&status_blocks(&format!("{title}{tail}"), "Reading files"));
        let links: Vec<_> = said.into_iter().filter(is_link).collect();
        prop_assert_eq!(links, [link(LINK), link(LINK)]);
    }
}
