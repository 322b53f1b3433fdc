//! What a person would read in the output of a program.

use vte::{Params, Parser, Perform};

/// The text without escape sequences and control characters. Whatever moves the cursor or clears the screen becomes a line
/// break, so that words that do not stand together are not read together.
pub fn visible_text(bytes: &[u8]) -> String {
    let mut page = Page::default();
    Parser::new().advance(&mut page, bytes);
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
    /// A line break comes before the next character.
    is_broken: bool,
}

impl Page {
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

impl Perform for Page {
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
pub(super) fn is_style(intermediates: &[u8], action: char) -> bool {
    action == 'm' && intermediates.is_empty()
}

/// String Terminator: the end of a control string, itself nothing. See ECMA-48, 8.3.143.
pub(super) fn is_string_end(intermediates: &[u8], byte: u8) -> bool {
    byte == b'\\' && intermediates.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
