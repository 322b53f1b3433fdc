//! What a link looks like.

use regex::Regex;
use regex_syntax::hir::{
    Hir,
    literal::{ExtractKind, Extractor},
};
use url::Url;

use crate::link::Link;

pub(super) const SCHEME: &str = "https://";

/// What can stand right after a host in a URL.
const HOST_ENDS: [char; 4] = ['/', '?', '#', ':'];

/// Punctuation that prose puts after a URL, and that no link ends with.
const CLOSING: [char; 10] = ['.', ',', ';', ':', '!', '?', ')', ']', '\'', '*'];

/// How much of the beginning of a pattern is looked at; no host is longer (RFC 1035: 253 bytes).
const LONGEST_PREFIX: usize = 300;

/// A regular expression for links, all of one host.
#[derive(Debug, Clone)]
pub struct LinkPattern {
    /// Matches a whole text or nothing.
    regex: Regex,
    host: String,
}

#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    #[error("not a regular expression")]
    Syntax(#[source] Box<regex_syntax::Error>),
    #[error("too large a regular expression")]
    TooLarge(#[source] Box<regex::Error>),
    /// It leaves open which host a link names, so a link to any host could be handed out.
    #[error(
        "must begin with https://, one host, and the '/', '?', '#' or ':' that ends it, \
         as in 'https://claude\\.ai/code/[a-z0-9_]+' (a dot of the host is '\\.')"
    )]
    NoHost,
    #[error("must name one host, and names both {0} and {1}")]
    TwoHosts(String, String),
}

impl LinkPattern {
    /// Fails when it does not compile, or does not literally name the host of all its links.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        let syntax =
            regex_syntax::parse(pattern).map_err(|error| PatternError::Syntax(Box::new(error)))?;
        let host = host_of(&syntax)?;
        // Printed from the parsed pattern, because flags and comments in the text could swallow what is put around it.
        let regex = Regex::new(&format!(r"\A(?:{syntax})\z"))
            .map_err(|error| PatternError::TooLarge(Box::new(error)))?;
        Ok(Self { regex, host })
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// A text with every URL of this host replaced, whether it is a link or only begins like one.
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

    /// The link, if the whole text is one.
    fn link(&self, text: &str) -> Option<Link> {
        let is_match = self.regex.is_match(text);
        let link = is_match.then(|| Link::parse(text).ok()).flatten();
        link.filter(|link| link.host() == self.host)
    }

    /// The link in a word of prose, and its text, without the punctuation after it. What is before it in the word must not
    /// begin another URL: in `https://evil.example/?u=https://claude.ai/x` only the first `https://` begins one.
    pub(super) fn link_in_prose<'w>(&self, word: &'w str) -> Option<(&'w str, Link)> {
        let (before, url) = word.split_at(word.find(SCHEME)?);
        let is_part_of_another = before.contains(['/', '?', '#']);
        let url = (!is_part_of_another).then_some(url)?;
        let url = url.trim_end_matches(CLOSING);
        Some((url, self.link(url)?))
    }
}

/// The characters of RFC 3986: unreserved, the delimiters, and the percent sign.
pub(super) fn is_url_char(character: char) -> bool {
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

/// The host that a text begins with, if it is complete.
fn host_at_start(text: &str) -> Option<&str> {
    let (host, _) = text.strip_prefix(SCHEME)?.split_once(HOST_ENDS)?;
    let url = Url::parse(&format!("{SCHEME}{host}/")).ok()?;
    (url.host_str() == Some(host)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATTERN: &str = r"https://claude\.ai/code[/?][A-Za-z0-9_./?=&%~-]+";

    #[test]
    fn the_characters_of_a_url_are_those_of_the_standard() {
        let of_url: String = ('\0'..='\u{ff}').filter(|it| is_url_char(*it)).collect();
        let standard =
            "!#$%&'()*+,-./0123456789:;=?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_abcdefghijklmnopqrstuvwxyz~";
        assert_eq!(of_url, standard);
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
    fn what_does_not_compile_is_distinguished() {
        let broken = LinkPattern::new(r"https://claude\.ai/(");
        assert!(matches!(broken, Err(PatternError::Syntax(_))));
        let huge = LinkPattern::new(r"https://claude\.ai/\w{1000}{1000}");
        assert!(matches!(huge, Err(PatternError::TooLarge(_))));
    }

    #[test]
    fn a_link_is_the_whole_text_without_the_punctuation_after_it() {
        let pattern = LinkPattern::new(PATTERN).unwrap();
        let link = |text: &str| Some(pattern.link_in_prose(text)?.1.expose().to_owned());
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
}
