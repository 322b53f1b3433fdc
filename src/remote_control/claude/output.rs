//! Finds links in the output of a session, as it comes.

use std::mem;

use memchr::memchr;
use vte::{Params, Parser, Perform};

use super::{
    pattern::LinkPattern,
    url_text::UrlText,
    visible::{is_string_end, is_style},
};
use crate::link::Link;

const ESCAPE: u8 = 0x1b;

/// Bytes of an OSC control string that are held; the parser drops what comes beyond. A link has about 80.
const LONGEST_OSC: usize = 2048;

/// The parser takes an OSC string for so many parameters apart at most, and drops the rest.
const MOST_OSC_PARAMETERS: usize = 16;

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
                text: UrlText::new(),
                hyperlink: None,
                found: Vec::new(),
            },
        }
    }

    /// Takes the next piece of output; returns what became certain with it, in order.
    #[must_use]
    pub fn push(&mut self, output: &[u8]) -> Vec<Sighting> {
        let mut rest = output;
        while let Some((&byte, after)) = rest.split_first() {
            if self.screen.place == Place::Text && byte != ESCAPE {
                // Plain text passes the parser by, which would take it apart into characters.
                let end = memchr(ESCAPE, rest).unwrap_or(rest.len());
                let (text, escape) = rest.split_at(end);
                self.screen.text(text);
                rest = escape;
            } else if self.screen.place == Place::Text
                && let Some((is_style, after)) = control_sequence(rest)
            {
                self.screen.control_sequence(is_style);
                rest = after;
            } else {
                self.parse(byte);
                rest = after;
            }
        }
        mem::take(&mut self.screen.found)
    }

    /// Takes one byte of or after an escape sequence.
    fn parse(&mut self, byte: u8) {
        self.screen.enter(byte);
        self.parser.advance(&mut self.screen, &[byte]);
        if byte == ESCAPE {
            // The parser may have printed first what was left of a character that the escape cuts.
            self.screen.place = Place::Escape;
        } else if self.screen.place == Place::Text && !byte.is_ascii() {
            // It may hold this byte as the beginning of a character, and would print it with the next sequence.
            self.parser = Parser::new_with_size();
        }
    }

    /// The output has ended: whatever stands at its end is whole.
    #[must_use]
    pub fn finish(mut self) -> Vec<Sighting> {
        self.screen.close_hyperlink();
        self.screen.end_url();
        self.screen.found
    }
}

struct Screen {
    pattern: LinkPattern,
    place: Place,
    text: UrlText,
    hyperlink: Option<Hyperlink>,
    found: Vec<Sighting>,
}

/// Where in the output we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In plain text, with nothing begun in the parser.
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
    /// The parser is about to get this byte, of or around an escape sequence.
    fn enter(&mut self, byte: u8) {
        let is_invisible = matches!(byte, b'[' | b']' | b'\\');
        if self.place == Place::Escape && !is_invisible {
            // Control strings other than OSC end without a word as well.
            self.end_url();
        }
        self.place = if byte == ESCAPE {
            Place::Escape
        } else {
            Place::Sequence
        };
    }

    fn control_sequence(&mut self, is_style: bool) {
        if !is_style {
            self.end_url();
        }
    }

    fn text(&mut self, text: &[u8]) {
        let Self {
            pattern,
            text: urls,
            hyperlink,
            found,
            ..
        } = self;
        urls.push(text, |url| show(url, pattern, hyperlink.as_mut(), found));
    }

    fn end_url(&mut self) {
        let Self {
            pattern,
            text: urls,
            hyperlink,
            found,
            ..
        } = self;
        urls.end(|url| show(url, pattern, hyperlink.as_mut(), found));
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
        let pending = self.text.pending();
        let is_begun = pending.is_some_and(|url| open.target.starts_with(url));
        if pending.is_some_and(|url| open.target.is(url)) {
            // The text is the target, so this is where it ends, whatever stands next to it.
            self.end_url();
        }
        // A text that is the beginning of its target goes on in the next hyperlink, as programs print it that break lines.
        let closed = self.hyperlink.take();
        if let Some(hyperlink) = closed.filter(|it| !it.is_shown && !is_begun) {
            self.found.push(Sighting::Target(hyperlink.target));
        }
    }
}

/// A plain control sequence (CSI) that a text begins with, and what comes after it: the parser would tell the same, and takes
/// five times as long. See ECMA-48, 5.4; what is cut or not plain is left to the parser.
fn control_sequence(text: &[u8]) -> Option<(bool, &[u8])> {
    let sequence = text.strip_prefix(b"\x1b[")?;
    let parameters = sequence
        .iter()
        .position(|byte| !(b'0'..=b'?').contains(byte))?;
    let (parameters, action) = sequence.split_at(parameters);
    let (&action, after) = action.split_first()?;
    let is_private = parameters.iter().any(|byte| (b'<'..=b'?').contains(byte));
    (b'@'..=b'~')
        .contains(&action)
        .then_some((action == b'm' && !is_private, after))
}

fn show(
    url: &str,
    pattern: &LinkPattern,
    hyperlink: Option<&mut Hyperlink>,
    found: &mut Vec<Sighting>,
) {
    let Some(link) = pattern.link_in_prose(url) else {
        return;
    };
    if let Some(hyperlink) = hyperlink {
        hyperlink.is_shown |= hyperlink.target == link;
    }
    found.push(Sighting::Shown(link));
}

impl Perform for Screen {
    fn print(&mut self, character: char) {
        // The parser prints only what follows a sequence that it dropped.
        self.end_url();
        self.place = Place::Text;
        if let Ok(byte) = u8::try_from(character) {
            self.text(&[byte]);
        }
    }

    fn execute(&mut self, _: u8) {
        self.end_url();
    }

    fn csi_dispatch(&mut self, _: &Params, intermediates: &[u8], _: bool, action: char) {
        self.control_sequence(is_style(intermediates, action));
        self.place = Place::Text;
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], _: bool, byte: u8) {
        if !is_string_end(intermediates, byte) {
            self.end_url();
        }
        self.place = Place::Text;
    }

    fn osc_dispatch(&mut self, parameters: &[&[u8]], ended_by_bell: bool) {
        if ended_by_bell {
            self.place = Place::Text;
        }
        let [b"8", _, target @ ..] = parameters else {
            return;
        };
        let target = target.join(&b';');
        let is_cut = parameters.len() == MOST_OSC_PARAMETERS || target.len() + 1 >= LONGEST_OSC / 2;
        match str::from_utf8(&target) {
            Ok(target) if !target.is_empty() && !is_cut => self.open_hyperlink(target),
            _ => self.close_hyperlink(),
        }
    }
}

#[cfg(test)]
mod tests;
