//! A text in YAML: its value as serde has it, and what serde does not report: the line of each value, how it was written, and
//! errors for what it reads silently: anchors, tags, and keys that are not text.
//!
//! Invariant: nothing here knows which keys there are, or what they mean; no message shows a value.

use std::{collections::BTreeMap, path::Path};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput};
use serde_yaml::{Mapping, Value};

use super::Problem;

/// The largest text that is read, in bytes.
pub(super) const LARGEST: usize = 1024 * 1024;

const DEEPEST: usize = 64;

/// The value of a text, and its parts by their paths, such as `projects.website.command[0]`. The path of the whole is empty.
#[derive(Default)]
pub(super) struct Outline {
    /// `None`: it cannot be used, which is reported.
    pub(super) value: Option<Value>,
    pub(super) places: BTreeMap<String, Place>,
    pub(super) problems: Vec<Problem>,
}

pub(super) struct Place {
    /// The line of the key, counted from 1.
    pub(super) line: usize,
    /// The text as written, if without quotes: serde reads 1.10 as 1.1.
    pub(super) plain: Option<String>,
}

impl Outline {
    pub(super) fn of(file: &Path, text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut reader = Reader {
            file,
            parser: Parser::new_from_str(text),
            outline: Self::default(),
        };
        match reader.read(text) {
            Ok(value) => reader.outline.value = value,
            Err(unreadable) => reader.outline.problems.push(unreadable),
        }
        reader.outline
    }
}

/// A text while it is read. Methods fail where the rest of it is unreadable.
struct Reader<'a, 't> {
    file: &'a Path,
    parser: Parser<'t, StrInput<'t>>,
    outline: Outline,
}

impl<'t> Reader<'_, 't> {
    fn read(&mut self, text: &str) -> Result<Option<Value>, Problem> {
        if text.len() > LARGEST {
            let message = "is larger than 1 MiB, which no such file is";
            return Err(Problem::new(self.file, None, "", message));
        }
        let is_control = |c: char| c.is_control() && !"\t\n\r\u{85}".contains(c);
        if let Some((before, _)) = text.split_once(is_control) {
            let line = before.matches('\n').count() + 1;
            return Err(self.about(line, "", "holds a control character; remove it"));
        }
        let Some((event, line)) = self.next()? else {
            return Ok(Some(Value::Null));
        };
        let value = self.value(event, line, "", 0)?;
        // The end of the document.
        self.next()?;
        match self.next()? {
            Some((_, line)) => Err(self.about(line, "", "there is more than one document")),
            None => Ok(value),
        }
    }

    /// What comes next, and its line. `None`: what is around it ends.
    fn next(&mut self) -> Result<Option<(Event<'t>, usize)>, Problem> {
        use Event::{
            DocumentEnd, DocumentStart, MappingEnd, Nothing, SequenceEnd, StreamEnd, StreamStart,
        };
        let next = self
            .parser
            .by_ref()
            .find(|event| !matches!(event, Ok((Nothing | StreamStart | DocumentStart(_), _))));
        let next = next.transpose();
        let next = next.map_err(|error| not_yaml(self.file, &error))?;
        let next = next.filter(|(event, _)| {
            !matches!(event, SequenceEnd | MappingEnd | DocumentEnd | StreamEnd)
        });
        Ok(next.map(|(event, span)| (event, span.start.line())))
    }

    /// A value with all that is in it. `None`: it cannot be used, which is reported.
    fn value(
        &mut self,
        event: Event<'t>,
        line: usize,
        path: &str,
        depth: usize,
    ) -> Result<Option<Value>, Problem> {
        self.refuse_marks(&event, line, path);
        if depth > DEEPEST {
            return Err(self.about(line, "", "values lie too deep in one another"));
        }
        let plain = match &event {
            Event::Scalar(text, ScalarStyle::Plain, ..) => Some(text.to_string()),
            _ => None,
        };
        let place = Place { line, plain };
        let places = &mut self.outline.places;
        places.entry(path.to_owned()).or_insert(place);
        Ok(match event {
            Event::Scalar(text, ScalarStyle::Plain, _, None) => self.plain_value(&text, line, path),
            Event::Scalar(text, _, _, None) => Some(text.into_owned().into()),
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                while let Some((item, line)) = self.next()? {
                    let path = format!("{path}[{}]", items.len());
                    let item = self.value(item, line, &path, depth + 1)?;
                    // Without it, the indices of the others would change.
                    items.push(item.unwrap_or(Value::Null));
                }
                Some(items.into())
            }
            Event::MappingStart(..) => Some(self.mapping(path, depth + 1)?.into()),
            // An alias, or a text with a tag.
            _ => None,
        })
    }

    fn mapping(&mut self, path: &str, depth: usize) -> Result<Mapping, Problem> {
        let mut mapping = Mapping::new();
        while let Some((key, line)) = self.next()? {
            let key = self.value(key, line, path, depth)?;
            let Some(Value::String(key)) = key else {
                if key.is_some() {
                    self.report(line, path, "a key must be a text; put it in quotes");
                }
                if let Some((value, _)) = self.next()? {
                    self.value(value, line, path, depth)?;
                }
                continue;
            };
            let path = match path {
                "" => key.clone(),
                path => format!("{path}.{key}"),
            };
            if mapping.contains_key(&key)
                && let Some(Place { line: first, .. }) = self.outline.places.get(&path)
            {
                let message =
                    format!("given twice, first in line {first}; remove or rename one of them");
                self.report(line, &path, message);
            }
            let Some((value, _)) = self.next()? else {
                break;
            };
            if let Some(value) = self.value(value, line, &path, depth)? {
                mapping.entry(key.into()).or_insert(value);
            }
        }
        Ok(mapping)
    }

    /// A text without quotes may be a value of another type, if it is a word of ASCII characters.
    fn plain_value(&mut self, text: &str, line: usize, path: &str) -> Option<Value> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Some(text.into());
        }
        let is_number = |c: char| c.is_ascii_digit() || "+-".contains(c);
        // An item of a list, as `---` is more than a text elsewhere, and no text is no value.
        match serde_yaml::from_str(&format!("- {text}")) {
            Ok((value @ (Value::Null | Value::Bool(_) | Value::Number(_)),)) => Some(value),
            Err(_) if text.starts_with(is_number) => {
                self.report(line, path, "a number as large as this must be in quotes");
                None
            }
            Ok(_) | Err(_) => Some(text.into()),
        }
    }

    /// Refuses aliases, anchors and tags: a typing error in the first digit of an identity's key could make it one of them.
    fn refuse_marks(&mut self, event: &Event<'_>, line: usize, path: &str) {
        let message = match event {
            Event::Alias(_) => "a text that begins with * must be in quotes",
            Event::Scalar(_, _, 1.., _)
            | Event::SequenceStart(1.., _)
            | Event::MappingStart(1.., _) => "a text that begins with & must be in quotes",
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => "a text that begins with ! must be in quotes",
            _ => return,
        };
        self.report(line, path, message);
    }

    fn report(&mut self, line: usize, path: &str, message: impl Into<String>) {
        let problem = self.about(line, path, message);
        self.outline.problems.push(problem);
    }

    fn about(&self, line: usize, path: &str, message: impl Into<String>) -> Problem {
        Problem::new(self.file, Some(line), path, message)
    }
}

fn not_yaml(file: &Path, error: &ScanError) -> Problem {
    let remedy = if error.info().contains("unexpected character") {
        "; indent with spaces, and put a value that begins with @ in quotes"
    } else {
        ""
    };
    let (line, column) = (error.marker().line(), error.marker().col() + 1);
    let message = format!("not YAML: {} in column {column}{remedy}", error.info());
    Problem::new(file, Some(line), "", message)
}
