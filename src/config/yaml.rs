//! A text in YAML as a tree in which every value knows its key and its line. serde's readers of YAML keep neither those nor
//! numbers as they were written.
//!
//! Invariant: nothing here knows which keys there are, or what they mean.

use std::vec::IntoIter;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

/// How deep values may lie in one another.
const DEEPEST: usize = 64;

/// What a value is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// No value, or `null`.
    Nothing,
    /// A number, `true` or `false`, as it was written.
    Plain(String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the text; a key can stand in it twice.
    Map(Vec<(String, Node)>),
    /// A value with a tag of its own (`!rc`): nearly always a text that lacks its quotes.
    Tagged(String),
}

/// A value, and where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// `projects.website.command[0]`; empty for the whole text.
    pub(crate) path: String,
    /// That of its key, counted from 1.
    pub(crate) line: usize,
}

impl Node {
    /// Reads the text as one document. A text without any value is [`Value::Nothing`].
    pub(crate) fn parse(text: &str) -> Result<Self, ScanError> {
        let events = Parser::new_from_str(text).collect::<Result<Vec<_>, _>>()?;
        let is_content = |event: &Event<'_>| match event {
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => false,
            Event::Alias(_)
            | Event::Scalar(..)
            | Event::SequenceStart(..)
            | Event::SequenceEnd
            | Event::MappingStart(..)
            | Event::MappingEnd => true,
        };
        let events: Vec<_> = events
            .into_iter()
            .filter(|(event, _)| is_content(event))
            .collect();
        let mut events = events.into_iter();
        let root = match events.next() {
            Some(event) => {
                let line = event.1.start.line();
                build(event, &mut events, String::new(), line, 0)?
            }
            None => Self {
                value: Value::Nothing,
                path: String::new(),
                line: 1,
            },
        };
        match events.next() {
            None => Ok(root),
            Some((_, span)) => Err(fault(span, "there is more than one document")),
        }
    }

    /// The value at a path, the first where there are two.
    pub(crate) fn find(&self, path: &str) -> Option<&Self> {
        if self.path == path {
            return Some(self);
        }
        match &self.value {
            Value::List(items) => items.iter().find_map(|item| item.find(path)),
            Value::Map(entries) => entries.iter().find_map(|(_, node)| node.find(path)),
            Value::Nothing | Value::Plain(_) | Value::Text(_) | Value::Tagged(_) => None,
        }
    }
}

impl Value {
    /// What it is, without what it says.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Plain(_) | Self::Text(_) | Self::Tagged(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }

    /// The value of a key of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else {
            return None;
        };
        let mut entries = entries.iter();
        let entry = entries.find(|(name, _)| name == key);
        entry.map(|(_, node)| &node.value)
    }
}

type Spot<'t> = (Event<'t>, Span);

fn build<'t>(
    (event, span): Spot<'t>,
    events: &mut IntoIter<Spot<'t>>,
    path: String,
    line: usize,
    depth: usize,
) -> Result<Node, ScanError> {
    if depth > DEEPEST {
        return Err(fault(span, "values lie too deep in one another"));
    }
    // A key of an identity whose first digit was mistyped would be the name of a value that is not there.
    if let Event::Scalar(_, _, 1.., _)
    | Event::SequenceStart(1.., _)
    | Event::MappingStart(1.., _) = event
    {
        return Err(fault(span, "a text that begins with & must be in quotes"));
    }
    let value = match event {
        Event::Scalar(text, style, _, tag) => match tag {
            Some(tag) if !tag.is_yaml_core_schema() => Value::Tagged(tag.to_string()),
            Some(_) => Value::Text(text.into_owned()),
            None => scalar(text.into_owned(), style),
        },
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            while let Some(item) = events.next().filter(|(it, _)| *it != Event::SequenceEnd) {
                let (path, line) = (format!("{path}[{}]", items.len()), item.1.start.line());
                items.push(build(item, events, path, line, depth + 1)?);
            }
            Value::List(items)
        }
        Event::MappingStart(..) => {
            let mut entries = Vec::new();
            while let Some((key, span)) = events.next().filter(|(it, _)| *it != Event::MappingEnd) {
                let (Event::Scalar(key, ..), Some(value)) = (key, events.next()) else {
                    return Err(fault(span, "a key must be a text"));
                };
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}{key}");
                let value = build(value, events, path, span.start.line(), depth + 1)?;
                entries.push((key.into_owned(), value));
            }
            Value::Map(entries)
        }
        Event::Alias(_) => return Err(fault(span, "write out what * stands for")),
        Event::Nothing
        | Event::StreamStart
        | Event::StreamEnd
        | Event::DocumentStart(_)
        | Event::DocumentEnd
        | Event::SequenceEnd
        | Event::MappingEnd => return Err(fault(span, "a value is missing")),
    };
    Ok(Node { value, path, line })
}

/// As the core schema of YAML 1.2 has it.
fn scalar(text: String, style: ScalarStyle) -> Value {
    let looks_like_number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    let is_number = looks_like_number
        && (text.parse::<f64>().is_ok()
            || [("0x", 16), ("0o", 8)].into_iter().any(|(prefix, radix)| {
                let digits = text.strip_prefix(prefix);
                digits.is_some_and(|digits| u64::from_str_radix(digits, radix).is_ok())
            }));
    match text.as_str() {
        _ if style != ScalarStyle::Plain => Value::Text(text),
        "" | "~" | "null" | "Null" | "NULL" => Value::Nothing,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" | ".inf" | "-.inf" | ".nan" => {
            Value::Plain(text)
        }
        _ if is_number => Value::Plain(text),
        _ => Value::Text(text),
    }
}

fn fault(span: Span, info: &str) -> ScanError {
    ScanError::new_str(span.start, info)
}
