//! A file in YAML: what each value is, where it stands, and everything that is wrong with it.
//!
//! serde structs say which keys there are. What is wrong is noted, be it a value, an unknown key or a text in place of a
//! mapping, and the reading goes on, so that all of it is told at once: serde's readers of YAML end at the first fault.
//!
//! Invariant: no message shows a line of the file, which may hold a secret.

use std::{cell::RefCell, path::Path};

use saphyr_parser::ScanError;
use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeOwned, IntoDeserializer, Visitor,
        value::{self, MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};

use super::{
    problem::{Problem, Problems, Refusal},
    yaml::{Node, Value},
};

/// The path of a value, if its key is there.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Given(Option<String>);

impl Given {
    pub(crate) fn is_there(&self) -> bool {
        self.0.is_some()
    }
}

/// What becomes of a key that the structs do not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnknownKeys {
    /// It is a mistake.
    Refused,
    /// It is meant for another program that reads the same file.
    Ignored,
}

/// A file while it is read.
pub(crate) struct Document<'a> {
    file: &'a Path,
    root: Node,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

/// Reads a text as `F`, and makes of that what is wanted; `None` where something is missing or wrong. With it come the
/// warnings.
pub(crate) fn read<F: DeserializeOwned, T>(
    file: &Path,
    text: &str,
    unknown_keys: UnknownKeys,
    convert: impl FnOnce(F, &Document<'_>) -> Option<T>,
) -> Result<(T, Vec<Problem>), Problems> {
    let root = match Node::parse(text) {
        Ok(root) => root,
        Err(error) => return Err(Problems::new(file, vec![not_yaml(file, &error)])),
    };
    let document = Document {
        file,
        root,
        problems: RefCell::default(),
        warnings: RefCell::default(),
    };
    if matches!(document.root.value, Value::Nothing) {
        let problem = document.about(None, "", "the file is empty".to_owned());
        document.problems.borrow_mut().push(problem);
    }
    let reader = Reader {
        document: &document,
        node: &document.root,
        unknown_keys,
    };
    let value = match F::deserialize(reader) {
        Ok(given) => convert(given, &document),
        Err(error) => {
            document.problem("", error.to_string());
            None
        }
    };
    let problems = document.problems.into_inner();
    match value {
        Some(value) if problems.is_empty() => Ok((value, document.warnings.into_inner())),
        Some(_) | None => Err(Problems::new(file, problems)),
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
    Problem::new(file, Some(line), String::new(), message)
}

impl Document<'_> {
    fn find(&self, given: &Given) -> Option<&Node> {
        self.root.find(given.0.as_deref()?)
    }

    /// The value of a key, if it is there and right.
    pub(crate) fn optional<T>(
        &self,
        given: &Given,
        read: impl FnOnce(&Value) -> Result<T, Refusal>,
    ) -> Option<T> {
        let node = self.find(given)?;
        self.accept(node, read)
    }

    /// The value of a key, or the default, which stands in for a wrong value too, so that reading goes on.
    pub(crate) fn or<T>(
        &self,
        given: &Given,
        default: T,
        read: impl FnOnce(&Value) -> Result<T, Refusal>,
    ) -> T {
        self.optional(given, read).unwrap_or(default)
    }

    /// The value of a key that must be there.
    pub(crate) fn required<T>(
        &self,
        key: &str,
        given: &Given,
        read: impl Fn(&Value) -> Result<T, Refusal>,
    ) -> Option<T> {
        let section = key.rsplit_once('.').map_or("", |(section, _)| section);
        if !given.is_there() && self.can_have_keys(section) {
            let refusal = read(&Value::Nothing).err()?;
            self.problem(key, refusal.of_missing());
        }
        self.optional(given, read)
    }

    /// Whether something can be missing there. Where anything but a mapping stands, that has been said.
    pub(crate) fn can_have_keys(&self, section: &str) -> bool {
        let nodes = [Some(&self.root), self.root.find(section)];
        nodes.into_iter().flatten().all(|node| match node.value {
            Value::Nothing | Value::Map(_) => true,
            Value::Plain(_) | Value::Text(_) | Value::List(_) | Value::Tagged(_) => false,
        })
    }

    /// The items of a list that are right; none where the key is not there.
    pub(crate) fn list<T>(
        &self,
        given: &Given,
        read: impl Fn(&Value) -> Result<T, Refusal>,
    ) -> Vec<T> {
        let node = self.find(given);
        match node.map(|node| (node, &node.value)) {
            Some((_, Value::List(items))) => {
                let items = items.iter();
                items.filter_map(|item| self.accept(item, &read)).collect()
            }
            Some((node, other)) => {
                self.note(node, Refusal::wanted("a list, such as []").of(other));
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// The entries of a mapping that are right; `None` where there is no mapping.
    pub(crate) fn entries<T>(
        &self,
        given: &Given,
        read: impl Fn(&str, &Value) -> Result<T, Refusal>,
    ) -> Option<Vec<T>> {
        let node = self.find(given)?;
        let Value::Map(entries) = &node.value else {
            return None;
        };
        let entries = entries.iter();
        let read = |(key, node): &(String, Node)| self.accept(node, |value| read(key, value));
        Some(entries.filter_map(read).collect())
    }

    /// Notes that the value of a key is wrong, or missing.
    pub(crate) fn problem(&self, path: &str, message: impl Into<String>) {
        let problem = self.about(self.line_of(path), path, message.into());
        self.problems.borrow_mut().push(problem);
    }

    /// Notes that the value of a key is allowed and yet doubtful.
    pub(crate) fn warning(&self, path: &str, message: impl Into<String>) {
        let warning = self.about(self.line_of(path), path, message.into());
        self.warnings.borrow_mut().push(warning);
    }

    fn accept<T>(&self, node: &Node, read: impl FnOnce(&Value) -> Result<T, Refusal>) -> Option<T> {
        let refused = |refusal: Refusal| self.note(node, refusal.of(&node.value));
        read(&node.value).map_err(refused).ok()
    }

    fn note(&self, node: &Node, message: String) {
        let problem = self.about(Some(node.line), &node.path, message);
        self.problems.borrow_mut().push(problem);
    }

    fn about(&self, line: Option<usize>, path: &str, message: String) -> Problem {
        Problem::new(self.file, line, path.to_owned(), message)
    }

    /// A key that is missing is said to be where the mapping begins that lacks it; for the outermost one that says nothing.
    pub(crate) fn line_of(&self, path: &str) -> Option<usize> {
        let line = |path: &str| Some(self.root.find(path)?.line);
        line(path).or_else(|| line(path.rsplit_once('.')?.0))
    }
}

/// What serde reads from: structs of keys, whose values are their paths.
#[derive(Clone, Copy)]
struct Reader<'a> {
    document: &'a Document<'a>,
    node: &'a Node,
    unknown_keys: UnknownKeys,
}

impl<'a> Reader<'a> {
    /// The entries of a mapping, each key once.
    fn entries(self) -> Vec<(&'a str, Self)> {
        let mut once = Vec::<(&str, Self)>::new();
        match &self.node.value {
            Value::Map(entries) => {
                for (key, node) in entries {
                    match once.iter().find(|(known, _)| known == key) {
                        None => once.push((key, Self { node, ..self })),
                        Some((_, first)) => {
                            let line = first.node.line;
                            let message = format!(
                                "given twice, first in line {line}; remove or rename one of them"
                            );
                            self.document.note(node, message);
                        }
                    }
                }
            }
            Value::Nothing => {}
            // What it says is not shown: in place of `environment` it may be a secret.
            Value::Plain(_) | Value::Text(_) | Value::List(_) | Value::Tagged(_) => {
                let kind = self.node.value.kind();
                let message =
                    format!("found {kind}, wanted a mapping: indented lines of `key: value`");
                self.document.note(self.node, message);
            }
        }
        once
    }
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_borrowed_str(&self.node.path)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        let (known, unknown): (Vec<_>, Vec<_>) = self
            .entries()
            .into_iter()
            .partition(|(key, _)| keys.contains(key));
        if self.unknown_keys == UnknownKeys::Refused {
            for (key, reader) in unknown {
                let message = format!("unknown key; {}", suggestion(key, keys));
                self.document.note(reader.node, message);
            }
        }
        visitor.visit_map(MapDeserializer::new(known.into_iter()))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_map(MapDeserializer::new(self.entries().into_iter()))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let items = match &self.node.value {
            Value::List(items) => items.as_slice(),
            other @ (Value::Nothing
            | Value::Plain(_)
            | Value::Text(_)
            | Value::Map(_)
            | Value::Tagged(_)) => {
                let refusal = Refusal::wanted("a list, such as []");
                self.document.note(self.node, refusal.of(other));
                &[]
            }
        };
        visitor.visit_seq(SeqDeserializer::new(
            items.iter().map(|node| Self { node, ..self }),
        ))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct enum
        identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, value::Error> for Reader<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

fn suggestion(key: &str, known: &[&str]) -> String {
    // One slip in three letters is a misspelling; more is another word.
    let is_near = |distance: &usize| *distance <= key.len().div_ceil(3);
    let distances = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(key, name), name));
    if let Some((_, name)) = distances.min().filter(|(distance, _)| is_near(distance)) {
        return format!("did you mean `{name}`?");
    }
    let mut known = known.to_vec();
    known.sort_unstable();
    format!("the keys here are {}", known.join(", "))
}
