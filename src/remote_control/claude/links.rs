//! Finds links in the output of a session, as it comes.

use std::mem;

use vte::{Params, Parser, Perform};

use super::{
    pattern::{LinkPattern, SCHEME},
    visible::{is_string_end, is_style},
};
use crate::link::Link;

const ESCAPE: u8 = 0x1b;

/// Bytes of the longest run of characters that is looked at for a URL. Links have about 80.
const LONGEST_RUN: usize = 2048;

/// Bytes of an OSC control string that are held; the parser drops what comes beyond.
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
                run: String::new(),
                hyperlink: None,
                found: Vec::new(),
            },
        }
    }

    /// Takes the next piece of output; returns what became certain with it, in order.
    #[must_use]
    pub fn push(&mut self, output: &[u8]) -> Vec<Sighting> {
        for part in output.split_inclusive(|byte| *byte == ESCAPE) {
            self.screen.enter(part);
            self.parser.advance(&mut self.screen, part);
            if part.ends_with(&[ESCAPE]) {
                self.screen.place = Place::Escape;
            }
        }
        mem::take(&mut self.screen.found)
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

/// The characters of RFC 3986: unreserved, the delimiters, and the percent sign.
fn is_of_url(character: char) -> bool {
    matches!(character, '!' | '#'..=';' | '=' | '?'..='[' | ']' | '_' | 'a'..='z' | '~')
}

#[cfg(test)]
mod tests;
