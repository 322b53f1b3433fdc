//! The line of each value of a text in YAML, which serde does not report; and errors for what serde reads silently: anchors,
//! tags, and keys that are not text.
//!
//! Invariant: nothing here knows which keys there are, or what they mean; no message shows a value.

use std::{collections::BTreeMap, path::Path};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};
use serde_yaml::Value;

use super::Problem;

/// How deep values may be nested.
const DEEPEST: usize = 64;

/// The values of a text by their paths, such as `projects.website.command[0]`. The path of the whole is empty.
pub(super) struct Outline<'a> {
    file: &'a Path,
    places: BTreeMap<String, Place>,
    problems: Vec<Problem>,
}

struct Place {
    /// The line of the key, counted from 1.
    line: usize,
    /// The text as written, if without quotes: serde reads 1.10 as 1.1.
    plain: Option<String>,
}

/// The parser's events, each with its line; or why the rest is unreadable.
type Events<'e, 't> = &'e mut dyn Iterator<Item = Result<(Event<'t>, usize), Problem>>;

impl<'a> Outline<'a> {
    pub(super) fn of(file: &'a Path, text: &str) -> (Self, Vec<Problem>) {
        let mut outline = Self {
            file,
            places: BTreeMap::new(),
            problems: Vec::new(),
        };
        let rest = outline.read(text);
        let mut problems = std::mem::take(&mut outline.problems);
        problems.extend(rest.err());
        (outline, problems)
    }

    pub(super) fn line(&self, path: &str) -> Option<usize> {
        self.places.get(path).map(|place| place.line)
    }

    pub(super) fn plain(&self, path: &str) -> Option<&str> {
        self.places.get(path)?.plain.as_deref()
    }

    /// Stops where the rest is unreadable.
    fn read(&mut self, text: &str) -> Result<(), Problem> {
        let is_control = |c: char| c.is_control() && !"\t\n\r\u{85}".contains(c);
        if let Some((before, _)) = text.split_once(is_control) {
            let line = before.matches('\n').count() + 1;
            return Err(self.about(line, "", "holds a control character; remove it"));
        }
        let file = self.file;
        let mut events = Parser::new_from_str(text).filter_map(|event| match event {
            Ok((
                Event::Nothing
                | Event::StreamStart
                | Event::StreamEnd
                | Event::DocumentStart(_)
                | Event::DocumentEnd,
                _,
            )) => None,
            Ok((event, span)) => Some(Ok((event, span.start.line()))),
            Err(error) => Some(Err(not_yaml(file, &error))),
        });
        if let Some((event, line)) = events.next().transpose()? {
            self.value(&event, line, "", 0, &mut events)?;
        }
        match events.next().transpose()? {
            Some((_, line)) => Err(self.about(line, "", "there is more than one document")),
            None => Ok(()),
        }
    }

    /// Adds a value with all that is in it.
    fn value<'t>(
        &mut self,
        event: &Event<'t>,
        line: usize,
        path: &str,
        depth: usize,
        events: Events<'_, 't>,
    ) -> Result<(), Problem> {
        self.refuse_marks(event, line, path);
        if depth > DEEPEST {
            return Err(self.about(line, "", "values lie too deep in one another"));
        }
        let mut plain = None;
        if let Event::Scalar(text, ScalarStyle::Plain, ..) = event {
            let is_number = |c: char| c.is_ascii_digit() || "+-".contains(c);
            if text.starts_with(is_number) && serde_yaml::from_str::<Value>(text).is_err() {
                let message = "a number as large as this must be in quotes";
                self.problems.push(self.about(line, path, message));
            }
            plain = Some(text.to_string());
        }
        let place = Place { line, plain };
        self.places.entry(path.to_owned()).or_insert(place);
        if let Event::SequenceStart(..) = event {
            let mut length = 0;
            while let Some((item, line)) = next_in(events)? {
                let path = format!("{path}[{length}]");
                self.value(&item, line, &path, depth + 1, events)?;
                length += 1;
            }
        } else if let Event::MappingStart(..) = event {
            let mut keys = BTreeMap::new();
            while let Some((key, line)) = next_in(events)? {
                self.refuse_marks(&key, line, path);
                let path = self.key(key, line, path, &mut keys)?;
                if let Some((value, _)) = next_in(events)? {
                    self.value(&value, line, &path, depth + 1, events)?;
                }
            }
        }
        Ok(())
    }

    /// The path of its value. `keys`: those before it, and their lines.
    fn key(
        &mut self,
        event: Event<'_>,
        line: usize,
        path: &str,
        keys: &mut BTreeMap<String, usize>,
    ) -> Result<String, Problem> {
        let is_text = |plain: &str| matches!(serde_yaml::from_str(plain), Ok(Value::String(_)));
        let key = match event {
            Event::Scalar(text, style, ..) if style != ScalarStyle::Plain || is_text(&text) => text,
            _ => return Err(self.about(line, path, "a key must be a text; put it in quotes")),
        };
        let dot = if path.is_empty() { "" } else { "." };
        let path = format!("{path}{dot}{key}");
        if let Some(first) = keys.insert(key.into_owned(), line) {
            let message =
                format!("given twice, first in line {first}; remove or rename one of them");
            self.problems.push(self.about(line, &path, message));
        }
        Ok(path)
    }

    /// Refuses aliases, anchors and tags: a typing error in the first digit of an identity's key could make it one of them.
    fn refuse_marks(&mut self, event: &Event<'_>, line: usize, path: &str) {
        let message = match event {
            Event::Alias(_) => "a text that begins with * must be in quotes".to_owned(),
            Event::Scalar(_, _, 1.., _)
            | Event::SequenceStart(1.., _)
            | Event::MappingStart(1.., _) => {
                "a text that begins with & must be in quotes".to_owned()
            }
            Event::Scalar(_, _, _, Some(tag))
            | Event::SequenceStart(_, Some(tag))
            | Event::MappingStart(_, Some(tag)) => {
                format!("found {tag} without quotes, which YAML takes for a tag; put it in quotes")
            }
            _ => return,
        };
        self.problems.push(self.about(line, path, message));
    }

    fn about(&self, line: usize, path: &str, message: impl Into<String>) -> Problem {
        Problem::new(self.file, Some(line), path.to_owned(), message.into())
    }
}

/// What comes next in a list or a mapping, unless that ends.
fn next_in<'t>(events: Events<'_, 't>) -> Result<Option<(Event<'t>, usize)>, Problem> {
    let next = events.next().transpose()?;
    Ok(next.filter(|(event, _)| !matches!(event, Event::SequenceEnd | Event::MappingEnd)))
}

fn not_yaml(file: &Path, error: &ScanError) -> Problem {
    let remedy = if error.info().contains("unexpected character") {
        "; indent with spaces, and put a value that begins with @ in quotes"
    } else {
        ""
    };
    let (line, column) = (error.marker().line(), error.marker().col() + 1);
    let message = format!("not YAML: {} in column {column}{remedy}", error.info());
    Problem::new(file, Some(line), String::new(), message)
}
