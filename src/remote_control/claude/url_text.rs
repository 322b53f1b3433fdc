//! Finds where a URL begins and ends in plain text that comes in pieces.

use std::sync::LazyLock;

use memchr::{memchr3, memmem::Finder};

const SCHEME: &[u8] = b"https://";

/// Bytes of the longest URL that is held; longer ones are none. Links have about 80.
const LONGEST_URL: usize = 2048;

/// Looks for `https://` faster than anything that looks at each byte.
static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(SCHEME));

/// A URL is a run of bytes that URLs can hold, from `https://` on. What stands before that in the same run must not look like
/// (the beginning of) another URL: in `https://evil.example/?u=https://claude.ai/x` only the first `https://` begins one.
#[derive(Debug)]
pub(super) struct UrlText {
    state: State,
    url: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No URL began in this run. So many bytes of the scheme came last.
    Before(usize),
    /// In a URL, which is held.
    Inside,
    /// In a run that can hold no link any more.
    Spoiled,
}

impl UrlText {
    pub(super) fn new() -> Self {
        Self {
            state: State::Before(0),
            url: Vec::new(),
        }
    }

    /// Takes the next piece of text; `found` gets each `https` URL whose end is in it.
    pub(super) fn push(&mut self, text: &[u8], mut found: impl FnMut(&str)) {
        let mut rest = text;
        while let Some((&byte, after)) = rest.split_first() {
            rest = match self.state {
                State::Inside => self.inside(rest, &mut found),
                State::Before(0) | State::Spoiled => self.skip(rest),
                State::Before(_) => {
                    self.step(byte);
                    after
                }
            };
        }
    }

    /// What comes next is no part of the same URL.
    pub(super) fn end(&mut self, mut found: impl FnMut(&str)) {
        if let Some(url) = self.pending() {
            found(url);
        }
        self.state = State::Before(0);
        self.url.clear();
    }

    /// The URL that has begun and not ended.
    pub(super) fn pending(&self) -> Option<&str> {
        let is_inside = self.state == State::Inside;
        is_inside.then(|| str::from_utf8(&self.url).ok()).flatten()
    }

    /// Takes the URL on; returns what comes after it.
    fn inside<'t>(&mut self, text: &'t [u8], found: impl FnMut(&str)) -> &'t [u8] {
        let end = text.iter().position(|byte| !is_of_url(*byte));
        let (more, after) = text.split_at(end.unwrap_or(text.len()));
        if self.url.len() + more.len() > LONGEST_URL {
            self.spoil();
        } else {
            self.url.extend_from_slice(more);
        }
        if end.is_some() {
            self.end(found);
        }
        after
    }

    /// Goes to the next place where a URL begins, or could begin with the next piece; returns what comes after it.
    fn skip<'t>(&mut self, text: &'t [u8]) -> &'t [u8] {
        let place = FINDER.find(text);
        let (before, rest) = text.split_at(place.unwrap_or(text.len()));
        let mut same_run = before;
        if let Some(end_of_last_run) = before.iter().rposition(|byte| !is_of_url(*byte)) {
            self.state = State::Before(0);
            same_run = before.get(end_of_last_run + 1..).unwrap_or_default();
        }
        // Of all that stands far before, only a character that spoils the run matters.
        let (far, near) = same_run.split_at(same_run.len().saturating_sub(SCHEME.len()));
        if memchr3(b'/', b'?', b'#', far).is_some() {
            self.spoil();
        }
        // The first byte of the scheme too: it tells whether a slash stands right before it.
        for byte in near.iter().chain(rest.first()) {
            self.step(*byte);
        }
        if place.is_some() && self.state != State::Spoiled {
            self.begin();
        }
        rest.get(SCHEME.len()..).unwrap_or_default()
    }

    /// Takes one byte before a URL.
    fn step(&mut self, byte: u8) {
        let State::Before(matched) = self.state else {
            return;
        };
        if SCHEME.get(matched) == Some(&byte) {
            self.state = State::Before(matched + 1);
            if matched + 1 == SCHEME.len() {
                self.begin();
            }
        } else if !is_of_url(byte) {
            self.state = State::Before(0);
        } else if matched > b"https:".len() || matches!(byte, b'/' | b'?' | b'#') {
            self.spoil();
        } else {
            self.state = State::Before(usize::from(byte == b'h'));
        }
    }

    fn begin(&mut self) {
        self.state = State::Inside;
        self.url.clear();
        self.url.extend_from_slice(SCHEME);
    }

    fn spoil(&mut self) {
        self.state = State::Spoiled;
        self.url.clear();
    }
}

/// The characters of RFC 3986: unreserved, the delimiters, and the percent sign.
fn is_of_url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%')
        || matches!(byte, b':' | b'/' | b'?' | b'#' | b'[' | b']' | b'@')
        || matches!(byte, b'!'..=b',' | b';' | b'=') && byte != b'"'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn urls(pieces: &[&[u8]]) -> Vec<String> {
        let (mut text, mut urls) = (UrlText::new(), Vec::new());
        for piece in pieces {
            text.push(piece, |url| urls.push(url.to_owned()));
        }
        text.end(|url| urls.push(url.to_owned()));
        urls
    }

    #[test]
    fn urls_are_found_in_prose() {
        for (text, url) in [
            ("see https://a.b/c now", "https://a.b/c"),
            ("url=https://a.b/c\n", "https://a.b/c"),
            ("\"https://a.b/c\"", "https://a.b/c"),
            ("(https://a.b/c)", "https://a.b/c)"),
            ("\u{2502}https://a.b/c\u{2502}", "https://a.b/c"),
            ("hhttps://a.b/c", "https://a.b/c"),
            ("httphttps://a.b/c", "https://a.b/c"),
            ("https:https://a.b/c", "https://a.b/c"),
        ] {
            assert_eq!(urls(&[text.as_bytes()]), [url], "{text}");
        }
    }

    #[test]
    fn a_url_within_a_url_is_none_of_its_own() {
        for text in [
            "http://evil.example/?u=https://a.b/c",
            "evil.example/?u=https://a.b/c",
            "//https://a.b/c",
            "https:/https://a.b/c",
            "?https://a.b/c",
        ] {
            assert_eq!(urls(&[text.as_bytes()]), [""; 0], "{text}");
        }
        let nested = "https://evil.example/?u=https://a.b/c";
        assert_eq!(urls(&[nested.as_bytes()]), [nested]);
    }

    #[test]
    fn a_url_that_is_too_long_is_none_and_takes_no_memory() {
        let mut text = UrlText::new();
        text.push(SCHEME, |_| panic!());
        for _ in 0..10_000 {
            text.push(&[b'x'; 1000], |_| panic!());
        }
        assert!(text.url.capacity() <= 2 * LONGEST_URL);
        text.push(b" https://a.b/c", |_| panic!());
        assert_eq!(text.pending(), Some("https://a.b/c"));
    }

    #[test]
    fn the_characters_of_a_url_are_those_of_the_standard() {
        let of_url: Vec<u8> = (0..=u8::MAX).filter(|byte| is_of_url(*byte)).collect();
        let standard = b"!#$%&'()*+,-./0123456789:;=?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_abcdefghijklmnopqrstuvwxyz~";
        assert_eq!(of_url, standard);
    }

    fn fragments() -> impl Strategy<Value = Vec<u8>> {
        let fragment = prop_oneof![
            Just("https://"),
            Just("https:/"),
            Just("http"),
            Just("h"),
            Just("/"),
            Just("?u="),
            Just("?u=evil.example"),
            Just("#"),
            Just("x."),
            Just("evil.example"),
            Just(" "),
            Just("\n"),
            Just("\u{2026}"),
        ];
        prop::collection::vec(fragment, 0..12).prop_map(|all| all.concat().into_bytes())
    }

    /// The same, read off a text that is there as a whole.
    fn urls_of_runs(text: &[u8]) -> Vec<String> {
        let url_of_run = |run: &[u8]| {
            let run = str::from_utf8(run).unwrap();
            let (before, after) = run.split_once("https://")?;
            let begins = !before.contains(['/', '?', '#']);
            begins.then(|| format!("https://{after}"))
        };
        let runs = text.split(|byte| !is_of_url(*byte));
        runs.filter_map(url_of_run).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_pieces_do_not_matter(text in fragments(), cut in 0..100_usize) {
            let whole = urls(&[&text]);
            let (head, tail) = text.split_at(cut.min(text.len()));
            prop_assert_eq!(&urls(&[head, tail]), &whole);
            let bytes: Vec<_> = text.chunks(1).collect();
            prop_assert_eq!(&urls(&bytes), &whole);
        }

        #[test]
        fn the_urls_of_a_text_are_one_for_each_run_that_can_have_one(text in fragments(), cut in 0..100_usize) {
            let (head, tail) = text.split_at(cut.min(text.len()));
            prop_assert_eq!(urls(&[head, tail]), urls_of_runs(&text));
        }
    }
}
