//! What holds for every output, not for the chosen ones alone.

use proptest::{prelude::*, sample::Index};

use super::*;

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
}
