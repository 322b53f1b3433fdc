//! What a link looks like, and where links are in the output of a session, as it comes.

use std::mem;

use memchr::{memchr, memmem};
use regex::Regex;
use regex_syntax::hir::{
    Hir,
    literal::{ExtractKind, Extractor},
};
use url::Url;
use vte::{Params, Parser, Perform};

use super::visible::{is_string_end, is_style};
use crate::link::Link;

const SCHEME: &str = "https://";

/// What can stand right after a host in a URL.
const HOST_ENDS: [char; 4] = ['/', '?', '#', ':'];

/// What prose puts after a URL, and no link ends with.
const CLOSING: [char; 10] = ['.', ',', ';', ':', '!', '?', ')', ']', '\'', '*'];

/// How much of the beginning of a pattern is looked at; no host is longer (RFC 1035: 253 bytes).
const LONGEST_PREFIX: usize = 300;

const ESCAPE: u8 = 0x1b;

/// Bytes of the longest run of characters that is looked at for a URL. Links have about 80.
const LONGEST_RUN: usize = 2048;

/// Bytes of an OSC control string that are held; the parser drops what comes beyond.
const LONGEST_OSC: usize = 2048;

/// The parser takes an OSC string for so many parameters apart at most, and drops the rest.
const MOST_OSC_PARAMETERS: usize = 16;

/// A regular expression for links, all of one host.
#[derive(Debug, Clone)]
pub struct LinkPattern {
    /// Matches a whole text or nothing.
    regex: Regex,
    host: String,
}

/// Why a text is no pattern for links.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// It is no regular expression.
    #[error("not a regular expression")]
    Syntax(#[source] Box<regex_syntax::Error>),
    /// It is a regular expression too large to be compiled.
    #[error("too large a regular expression")]
    TooLarge(#[source] Box<regex::Error>),
    /// It leaves open which host a link names, so a link to any host could be handed out.
    #[error(
        "must begin with https://, one host, and the '/', '?', '#' or ':' that ends it, \
         as in 'https://claude\\.ai/code/[a-z0-9_]+' (a dot of the host is '\\.')"
    )]
    NoHost,
    /// It begins with different hosts.
    #[error("must name one host, and names both {0} and {1}")]
    TwoHosts(String, String),
}

impl LinkPattern {
    /// Takes a regular expression for a pattern.
    ///
    /// # Errors
    /// When it does not compile, or does not say literally which host every link of it names.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        let syntax =
            regex_syntax::parse(pattern).map_err(|error| PatternError::Syntax(Box::new(error)))?;
        let host = host_of(&syntax)?;
        // Printed from what was parsed, because flags and comments in the text could swallow what is put around it.
        let regex = Regex::new(&format!(r"\A(?:{syntax})\z"))
            .map_err(|error| PatternError::TooLarge(Box::new(error)))?;
        Ok(Self { regex, host })
    }

    /// The host that every link names.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// A text with every URL of this host replaced, whether it is a link or only begins like one.
    #[must_use]
    pub fn blot_out(&self, text: &str) -> String {
        let start = format!("{SCHEME}{}", self.host);
        let mut pieces = text.split(&start);
        let mut blotted = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let rest = piece.find(char::is_whitespace).unwrap_or(piece.len());
            blotted.push_str("[link]");
            blotted.push_str(piece.get(rest..).unwrap_or_default());
        }
        blotted
    }

    /// The link that a text is, as a whole.
    fn link(&self, text: &str) -> Option<Link> {
        let is_match = self.regex.is_match(text);
        let link = is_match.then(|| Link::parse(text).ok()).flatten();
        link.filter(|link| link.host() == self.host)
    }

    /// The link that stands in prose, with the punctuation after it.
    fn link_in_prose(&self, text: &str) -> Option<Link> {
        self.link(text.trim_end_matches(CLOSING))
    }
}

/// A link in the output, and how it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// In the visible text.
    Shown(Link),
    /// As the target of a hyperlink (OSC 8) alone, under another text: so are the titles of attached conversations printed.
    Target(Link),
}

/// Finds links in a stream of output that comes in pieces, cut anywhere, in constant memory.
///
/// A link counts once something was written that cannot be part of it, so it is whole or it is not there. Colours and hyperlinks
/// (SGR and OSC escape sequences) take no room: around a link or within it they change nothing. Every other
/// escape sequence and control character ends a link. What is printed again is found again.
pub struct LinkFinder {
    parser: Parser<LONGEST_OSC>,
    screen: Screen,
}

impl LinkFinder {
    /// Looks for links of this pattern.
    #[must_use]
    pub fn new(pattern: LinkPattern) -> Self {
        Self {
            parser: Parser::new_with_size(),
            screen: Screen {
                pattern,
                place: Place::Text,
                run: String::new(),
                hyperlink: None,
                found: Vec::new(),
            },
        }
    }

    /// Takes the next piece of output; returns what became certain with it, in order.
    #[must_use]
    pub fn push(&mut self, output: &[u8]) -> Vec<Sighting> {
        let mut rest = output;
        while !rest.is_empty() {
            let end = memchr(ESCAPE, rest).map_or(rest.len(), |escape| escape + 1);
            let (part, after) = rest.split_at(end);
            self.screen.enter(part);
            self.parse(part);
            if part.ends_with(&[ESCAPE]) {
                self.screen.place = Place::Escape;
            }
            rest = after;
        }
        mem::take(&mut self.screen.found)
    }

    /// Parses text up to the next escape character. What cannot hold a URL is passed over, as a flood is mostly that, and the
    /// parser takes its time for each character.
    fn parse(&mut self, part: &[u8]) {
        match around_plain_words(part) {
            Some((begin, end)) if self.screen.place == Place::Text => {
                self.parser.advance(&mut self.screen, begin);
                self.parser.advance(&mut self.screen, end);
            }
            Some(_) | None => self.parser.advance(&mut self.screen, part),
        }
    }

    /// The output has ended: whatever stands at its end is whole.
    #[must_use]
    pub fn finish(mut self) -> Vec<Sighting> {
        self.screen.close_hyperlink();
        self.screen.end_run();
        self.screen.found
    }
}

struct Screen {
    pattern: LinkPattern,
    place: Place,
    /// The characters before this place that URLs can hold; of a longer run, one more than count.
    run: String,
    hyperlink: Option<Hyperlink>,
    found: Vec<Sighting>,
}

/// Where in the output we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Text,
    /// Right after an escape character.
    Escape,
    /// In an escape sequence; or after one that the parser has dropped without a word, up to the next character.
    Sequence,
}

/// A hyperlink that was opened and not closed, to something that is a link.
#[derive(Debug)]
struct Hyperlink {
    target: Link,
    /// The target was shown in the hyperlink's own text.
    is_shown: bool,
}

impl Screen {
    /// The parser is about to get this.
    fn enter(&mut self, part: &[u8]) {
        if self.place != Place::Escape {
            return;
        }
        // Neither of CSI, OSC, ST. Of the control strings other than OSC, the parser tells nothing.
        if !part.starts_with(b"[") && !part.starts_with(b"]") && !part.starts_with(b"\\") {
            self.end_run();
        }
        self.place = Place::Sequence;
    }

    /// The URL in a run of characters that URLs can hold, from `https://` on. What stands before that must not look like (the
    /// beginning of) another URL: in `https://evil.example/?u=https://claude.ai/x` only the first `https://` begins one.
    fn url(&self) -> Option<&str> {
        let (before, url) = self.run.split_at(self.run.find(SCHEME)?);
        let is_part_of_another = before.contains(['/', '?', '#']);
        (!is_part_of_another && self.run.len() <= LONGEST_RUN).then_some(url)
    }

    /// What comes next is no part of the same URL.
    fn end_run(&mut self) {
        let link = self.url().and_then(|url| self.pattern.link_in_prose(url));
        self.run.clear();
        if let Some(link) = link {
            if let Some(hyperlink) = &mut self.hyperlink {
                hyperlink.is_shown |= hyperlink.target == link;
            }
            self.found.push(Sighting::Shown(link));
        }
    }

    fn open_hyperlink(&mut self, target: &str) {
        self.close_hyperlink();
        self.hyperlink = self.pattern.link(target).map(|target| Hyperlink {
            target,
            is_shown: false,
        });
    }

    fn close_hyperlink(&mut self) {
        let Some(open) = &self.hyperlink else { return };
        let is_begun = self.url().is_some_and(|url| open.target.starts_with(url));
        if self.url().is_some_and(|url| open.target.is(url)) {
            // The text is the target, so this is where it ends, whatever stands next to it.
            self.end_run();
        }
        // A text that is the beginning of its target goes on in the next hyperlink, as programs print it that break lines.
        let closed = self.hyperlink.take();
        if let Some(hyperlink) = closed.filter(|it| !it.is_shown && !is_begun) {
            self.found.push(Sighting::Target(hyperlink.target));
        }
    }
}

impl Perform for Screen {
    fn print(&mut self, character: char) {
        if mem::replace(&mut self.place, Place::Text) != Place::Text || !is_of_url(character) {
            self.end_run();
        }
        if is_of_url(character) && self.run.len() <= LONGEST_RUN {
            self.run.push(character);
        }
    }

    fn execute(&mut self, _: u8) {
        self.end_run();
    }

    fn csi_dispatch(&mut self, _: &Params, intermediates: &[u8], _: bool, action: char) {
        if !is_style(intermediates, action) {
            self.end_run();
        }
        self.place = Place::Text;
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], _: bool, byte: u8) {
        if !is_string_end(intermediates, byte) {
            self.end_run();
        }
        self.place = Place::Text;
    }

    fn osc_dispatch(&mut self, parameters: &[&[u8]], _: bool) {
        self.place = Place::Text;
        let [b"8", _, target @ ..] = parameters else {
            return;
        };
        let target = target.join(&b';');
        let is_cut = parameters.len() == MOST_OSC_PARAMETERS || target.len() + 1 >= LONGEST_OSC / 2;
        match str::from_utf8(&target) {
            Ok(target) if !target.is_empty() && !is_cut && target.chars().all(is_of_url) => {
                self.open_hyperlink(target);
            }
            _ => self.close_hyperlink(),
        }
    }
}

/// The text up to its first white space and from its last on, if no URL begins in between. No run of characters reaches over
/// white space, and outside of escape sequences no character changes what the next one means.
fn around_plain_words(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let first = text.iter().position(is_space)?;
    let last = text.iter().rposition(is_space)?;
    let between = text.get(first + 1..last)?;
    if memmem::find(between, SCHEME.as_bytes()).is_some() {
        return None;
    }
    Some((text.get(..=first)?, text.get(last..)?))
}

/// The characters of RFC 3986: unreserved, the delimiters, and the percent sign.
fn is_of_url(character: char) -> bool {
    matches!(character, '!' | '#'..=';' | '=' | '?'..='[' | ']' | '_' | 'a'..='z' | '~')
}

/// The one host that all texts of a pattern begin with.
fn host_of(syntax: &Hir) -> Result<String, PatternError> {
    let prefixes = Extractor::new()
        .kind(ExtractKind::Prefix)
        .limit_literal_len(LONGEST_PREFIX)
        .extract(syntax);
    // None: the text may begin with anything.
    let literals = prefixes.literals().ok_or(PatternError::NoHost)?;
    let mut hosts = literals.iter().map(|literal| {
        let text = str::from_utf8(literal.as_bytes()).ok();
        text.and_then(host_at_start).ok_or(PatternError::NoHost)
    });
    let host = hosts.next().ok_or(PatternError::NoHost)??;
    for other in hosts {
        let other = other?;
        if other != host {
            return Err(PatternError::TwoHosts(host.to_owned(), other.to_owned()));
        }
    }
    Ok(host.to_owned())
}

/// The host that a text begins with, if it is there as a whole.
fn host_at_start(text: &str) -> Option<&str> {
    let (host, _) = text.strip_prefix(SCHEME)?.split_once(HOST_ENDS)?;
    let url = Url::parse(&format!("{SCHEME}{host}/")).ok()?;
    (url.host_str() == Some(host)).then_some(host)
}

#[cfg(test)]
mod tests;
