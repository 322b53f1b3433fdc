use std::sync::LazyLock;

use super::*;

mod properties;

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
