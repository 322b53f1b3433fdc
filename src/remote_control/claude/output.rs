//! Reads the program's stdout as it comes, line by line: its link, its connection, its events; and the text that a person sees.
//!
//! Invariant: titles, activities and output of conversations are none of these. Titles are hyperlinks in indented lines of the
//! status block, or follow the mark at its head; the program's own messages begin where a line begins.

use std::{mem, str::Utf8Error, time::Duration};

use serde::{Deserialize, Serialize};
use vte::{Params, Parser, Perform};

use super::{
    links::{LinkPattern, is_url_char},
    texts::{CONNECTING, CONVERSATION_IDS, DISCONNECTED, FAILED, OWN_LINES, RECONNECTING},
};
use crate::link::Link;

/// The head of the status block begins with a mark between two of them.
const DOT: char = '\u{b7}';

/// Bytes of the longest line that is looked at. Those of the program have less than 200.
const LONGEST_LINE: usize = 4096;

/// Bytes of a control string that are kept; the parser drops the rest.
const LONGEST_OSC: usize = 2048;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A link, in the program's own line, within the status block if there is one; or as a whole line, if there is none.
    Link(Link),
    /// A link in another line, as wrappers and other versions may print it, and the text before it. Also one in the own line
    /// outside of the block: that is a replay.
    LinkAfter(Link, String),
    /// What the head of the status block says of the connection.
    Connection(Connection),
    /// An event, without its time.
    Event(String),
}

/// The state of the program's connection to its service, as the head of its status block has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connection {
    /// There was none yet.
    Connecting,
    /// It is there, as far as the program knows.
    Connected,
    /// It is lost, and the program tries to get it back.
    Reconnecting {
        /// For how long it has been lost, if that is shown.
        disconnected: Option<Duration>,
    },
}

impl Connection {
    /// Parses the head of a status block, such as `·|· Reconnecting · retrying in 8s · disconnected 42s`. `None`: something
    /// else.
    ///
    /// What follows a tick may be the title of a conversation, and says nothing about the connection.
    pub(crate) fn of(head: &str) -> Option<Self> {
        let (mark, text) = head.strip_prefix(DOT)?.split_once(DOT)?;
        if mark.starts_with('\u{2714}') {
            return Some(Self::Connected);
        }
        let mut parts = text.split(DOT).map(str::trim);
        match parts.next()? {
            CONNECTING => Some(Self::Connecting),
            RECONNECTING => Some(Self::Reconnecting {
                disconnected: parts
                    .find_map(|part| part.strip_prefix(DISCONNECTED))
                    .and_then(|time| humantime::parse_duration(time).ok()),
            }),
            _ => None,
        }
    }
}

/// Reads a stream of output that comes in pieces, cut anywhere, in constant memory.
///
/// A line counts once it has ended, by a line break or a move of the cursor; so a link is complete or absent. Colours and
/// hyperlinks (SGR and OSC escape sequences) take no space: around a link or within it they change nothing, and the target of a
/// hyperlink does not matter.
pub struct OutputReader {
    parser: Parser<LONGEST_OSC>,
    page: Page,
    /// The beginning of a character that was cut. The parser would lose what follows one.
    held: Vec<u8>,
}

impl OutputReader {
    pub fn new(pattern: LinkPattern) -> Self {
        Self {
            parser: Parser::new_with_size(),
            page: Page {
                pattern,
                in_hyperlink: false,
                line: Line::default(),
                has_head: false,
                region: Region::Elsewhere,
                said: Vec::new(),
            },
            held: Vec::new(),
        }
    }

    /// Takes the next piece of output; returns what is now complete, in order.
    pub fn push(&mut self, output: &[u8]) -> Vec<Said> {
        let joined;
        let mut output = output;
        if !self.held.is_empty() {
            joined = [&self.held, output].concat();
            output = &joined;
        }
        let (whole, held) = output.split_at(output.len() - cut_character(output));
        self.held = held.to_vec();
        self.parser.advance(&mut self.page, whole);
        mem::take(&mut self.page.said)
    }

    /// Bytes were skipped: the rest of the line in which the gap ends means nothing.
    pub(crate) fn skip(&mut self) {
        self.parser = Parser::new_with_size();
        self.held.clear();
        self.page.in_hyperlink = false;
        self.page.leave_block();
        self.page.line = Line {
            is_lost: true,
            ..Line::default()
        };
    }

    /// What the unfinished last line says, if it is complete.
    pub fn unfinished(&self) -> Option<Said> {
        self.page.judge()
    }
}

/// How many bytes at the end begin a character (UTF-8) that goes on.
fn cut_character(text: &[u8]) -> usize {
    let begins_one = |count: &usize| {
        let end = text.get(text.len() - count..).unwrap_or_default();
        let is_cut = |error: Utf8Error| error.valid_up_to() == 0 && error.error_len().is_none();
        str::from_utf8(end).is_err_and(is_cut)
    };
    (1..=text.len().min(3)).find(begins_one).unwrap_or(0)
}

/// The part of the output that a line is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Region {
    /// Below a head, up to the link: in the status block.
    Block,
    /// In what a conversation printed before it failed, which may be several lines.
    Failure,
    Elsewhere,
}

struct Page {
    pattern: LinkPattern,
    in_hyperlink: bool,
    line: Line,
    /// Whether there was a head, so that the program is known to show a status block.
    has_head: bool,
    region: Region,
    said: Vec<Said>,
}

/// The line that is being written.
#[derive(Default)]
struct Line {
    /// Of a longer line, the first character beyond the limit is kept.
    text: String,
    /// Its first character stands in a hyperlink.
    begins_in_hyperlink: bool,
    /// The cursor was moved to its beginning from the middle of another: its column is unknown.
    is_torn: bool,
    /// Its beginning was skipped.
    is_lost: bool,
}

impl Line {
    /// True for the program's own messages, but not for titles and activities of conversations.
    fn begins_on_the_left(&self) -> bool {
        !self.is_torn && !self.text.starts_with(' ') && !self.begins_in_hyperlink
    }

    fn is_head(&self) -> bool {
        self.begins_on_the_left() && !self.is_lost && self.text.starts_with(DOT)
    }

    fn ends_with_id(&self) -> bool {
        let last = self.text.split_whitespace().next_back().unwrap_or_default();
        CONVERSATION_IDS.iter().any(|begin| last.starts_with(begin))
    }
}

impl Page {
    fn end_line(&mut self) {
        let said = self.judge();
        self.has_head |= self.line.is_head();
        self.region = self.region_after(said.as_ref());
        self.said.extend(said);
        self.line = Line::default();
    }

    fn leave_block(&mut self) {
        if self.region == Region::Block {
            self.region = Region::Elsewhere;
        }
    }

    fn region_after(&self, said: Option<&Said>) -> Region {
        let fails = matches!(said, Some(Said::Event(event)) if event.starts_with(FAILED));
        let fails = fails && self.has_head;
        let ends_block = matches!(said, Some(Said::Event(_) | Said::Link(_)));
        if self.line.is_head() {
            Region::Block
        } else if (fails || self.region == Region::Failure) && !self.line.ends_with_id() {
            Region::Failure
        } else if ends_block || self.region == Region::Failure {
            Region::Elsewhere
        } else {
            self.region
        }
    }

    /// The cursor moves, or something is erased. `keeps_column`: the cursor is no farther to the right after that.
    fn tear_line(&mut self, keeps_column: bool) {
        let is_torn = self.line.is_torn || !self.line.text.is_empty() || !keeps_column;
        let is_lost = self.line.is_lost;
        self.end_line();
        (self.line.is_torn, self.line.is_lost) = (is_torn, is_lost);
    }

    fn judge(&self) -> Option<Said> {
        let line = &self.line;
        let text = line.text.trim_end();
        if text.is_empty() || text.len() > LONGEST_LINE || line.is_lost {
            return None;
        }
        let is_of_program = line.begins_on_the_left();
        if line.is_head() {
            return Connection::of(text).map(Said::Connection);
        }
        if self.region == Region::Failure {
            return None;
        }
        if is_of_program && let Some(event) = event(text) {
            return Some(Said::Event(event.to_owned()));
        }
        let (url, found) = self.link_in(text)?;
        let is_alone = !self.has_head && text == url;
        let is_in_place = self.region == Region::Block || !self.has_head;
        let is_own = is_in_place && OWN_LINES.iter().any(|begin| text.starts_with(begin));
        if is_of_program && (is_own && text.ends_with(url) || is_alone) {
            Some(Said::Link(found))
        } else if !self.has_head || is_of_program {
            let words = text.split(url).next().unwrap_or_default();
            Some(Said::LinkAfter(found, words.to_owned()))
        } else {
            None
        }
    }

    /// The first link in a text, and the part of the text that it is.
    fn link_in<'t>(&self, text: &'t str) -> Option<(&'t str, Link)> {
        let mut words = text.split(|character| !is_url_char(character));
        words.find_map(|word| self.pattern.link_in_prose(word))
    }
}

/// The text after the time of an event, as in `[12:34:56] Error: ..`.
fn event(line: &str) -> Option<&str> {
    let (time, event) = line.strip_prefix('[')?.split_once("] ")?;
    let is_of_time = |byte: u8| byte == b':' || byte.is_ascii_digit();
    (time.len() == 8 && time.bytes().all(is_of_time)).then_some(event)
}

impl Perform for Page {
    fn print(&mut self, character: char) {
        if self.line.text.is_empty() {
            self.line.begins_in_hyperlink = self.in_hyperlink;
        }
        if self.line.text.len() <= LONGEST_LINE {
            self.line.text.push(character);
        }
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\n' => self.end_line(),
            b'\r' if !self.line.is_lost => self.end_line(),
            // It takes space, or at least ends a word.
            _ if self.line.text.len() <= LONGEST_LINE => self.line.text.push(' '),
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, _: &Params, intermediates: &[u8], _: bool, action: char) {
        if !is_style(intermediates, action) {
            self.tear_line(matches!(action, 'A' | 'B' | 'J' | 'K' | 'h' | 'l'));
            // A block that is painted over has ended.
            if action == 'A' {
                self.leave_block();
            }
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], _: bool, byte: u8) {
        if !is_string_end(intermediates, byte) {
            self.tear_line(false);
        }
    }

    fn osc_dispatch(&mut self, parameters: &[&[u8]], _: bool) {
        if let [b"8", _, target @ ..] = parameters {
            self.in_hyperlink = target.iter().any(|part| !part.is_empty());
        }
    }
}

/// The text that a person sees in the output, without escape sequences and control characters. Moving the cursor or clearing
/// the screen becomes a line break, so that words that do not stand together are not read together.
pub fn visible_text(bytes: &[u8]) -> String {
    let mut visible = Visible::default();
    Parser::new().advance(&mut visible, bytes);
    visible.text
}

#[derive(Default)]
struct Visible {
    text: String,
    /// A line break comes before the next character.
    is_broken: bool,
}

impl Visible {
    fn push(&mut self, character: char) {
        if self.is_broken
            && character != '\n'
            && !self.text.is_empty()
            && !self.text.ends_with('\n')
        {
            self.text.push('\n');
        }
        self.is_broken = false;
        self.text.push(character);
    }
}

impl Perform for Visible {
    fn print(&mut self, character: char) {
        if !character.is_control() {
            self.push(character);
        }
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\n' | b'\t' => self.push(char::from(byte)),
            b'\r' => self.is_broken = true,
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, _: &Params, intermediates: &[u8], _: bool, action: char) {
        self.is_broken |= !is_style(intermediates, action);
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], _: bool, byte: u8) {
        self.is_broken |= !is_string_end(intermediates, byte);
    }
}

/// Select Graphic Rendition: colours and the like, which take no room. See ECMA-48, 8.3.117.
fn is_style(intermediates: &[u8], action: char) -> bool {
    action == 'm' && intermediates.is_empty()
}

/// String Terminator: the end of a control string, itself nothing. See ECMA-48, 8.3.143.
fn is_string_end(intermediates: &[u8], byte: u8) -> bool {
    byte == b'\\' && intermediates.is_empty()
}

#[cfg(test)]
mod tests;
