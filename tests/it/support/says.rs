//! Short assertions on texts. A failed one shows the whole text.

use std::{borrow::Cow, process::Output};

use serde_json::Value;

use super::{event::Event, person::Person};

/// Anything with a text: a message, a remedy, a log, the output of a program.
pub(crate) trait Says {
    fn text(&self) -> Cow<'_, str>;

    /// Asserts that the text contains `part`.
    #[track_caller]
    fn says(&self, part: &str) {
        let text = self.text();
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }

    /// Asserts that the text does not contain `part`.
    #[track_caller]
    fn lacks(&self, part: &str) {
        let text = self.text();
        assert!(!text.contains(part), "{part:?} is in: {text}");
    }

    #[track_caller]
    fn begins(&self, part: &str) {
        let text = self.text();
        assert!(text.starts_with(part), "{part:?} does not begin: {text}");
    }

    #[track_caller]
    fn ends(&self, part: &str) {
        let text = self.text();
        assert!(text.ends_with(part), "{part:?} does not end: {text}");
    }

    /// Asserts that the text is exactly this.
    #[track_caller]
    fn is(&self, text: &str) {
        assert_eq!(self.text(), text);
    }
}

impl Says for str {
    fn text(&self) -> Cow<'_, str> {
        self.into()
    }
}

/// The text of a message; empty for another event.
impl Says for Event {
    fn text(&self) -> Cow<'_, str> {
        self.body().unwrap_or_default().into()
    }
}

/// What a program printed, on stdout and stderr.
impl Says for Output {
    fn text(&self) -> Cow<'_, str> {
        let both = [&self.stdout[..], &self.stderr].concat();
        String::from_utf8(both).unwrap().into()
    }
}

impl Person {
    /// An event that this person has seen, as the homeserver has it now: still encrypted, or with its content redacted away.
    pub(crate) async fn stored(&self, event: &impl AsRef<Event>) -> Value {
        let event = event.as_ref();
        let stored = self.event_from_server(&event.room, &event.id).await;
        stored.unwrap()
    }
}
