//! Reads mappings key by key, and notes everything that is wrong on the way instead of stopping at the first.
//!
//! Invariant: a key that nobody asked for is a problem, so a misspelt key can never pass for one that was not given.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    path::Path,
};

use super::{
    problem::{Problem, Problems, Refusal},
    report::Report,
    yaml::{self, KeyPath, Node},
};

/// What becomes of a key that nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnknownKeys {
    /// It is a mistake.
    Refused,
    /// It is meant for another program that reads the same file.
    Ignored,
}

/// Reads a text whose outermost value is a mapping. `reader` gives `None` where something that it needs is missing or
/// wrong. With the value come the warnings.
pub(crate) fn read<T>(
    file: &Path,
    text: &str,
    unknown_keys: UnknownKeys,
    reader: impl FnOnce(&mut Section<'_>) -> Option<T>,
) -> Result<(T, Vec<Problem>), Problems> {
    let mut report = Report::new(file, text);
    let root = match yaml::parse(text) {
        Ok(root) => root,
        Err(error) => {
            report.not_yaml(&error);
            return report.conclude(None);
        }
    };
    if root == Node::Nothing {
        report.empty_file();
    }
    let place = Place {
        path: KeyPath::default(),
        unknown_keys,
    };
    let value = Section::open(&mut report, Some(&root), place, reader);
    report.conclude(value)
}

/// Where a mapping stands, and how strictly it is read.
struct Place {
    path: KeyPath,
    unknown_keys: UnknownKeys,
}

/// A mapping while it is read.
pub(crate) struct Section<'a> {
    report: &'a mut Report,
    place: Place,
    /// `None` where there is no mapping. That has been said once, so none of its keys is called missing.
    entries: Option<&'a [(String, Node)]>,
    /// The keys that were asked for.
    known: BTreeSet<&'a str>,
}

impl<'a> Section<'a> {
    /// The value of a key, if it is there and right.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        check: impl FnOnce(&Node) -> Result<T, Refusal>,
    ) -> Option<T> {
        let node = self.get(key)?;
        self.accept(&self.place.path.key(key), node, check)
    }

    /// The value of a key, or the default. The default stands in for a wrong value too, so that reading goes on.
    pub(crate) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        check: impl FnOnce(&Node) -> Result<T, Refusal>,
    ) -> T {
        self.optional(key, check).unwrap_or(default)
    }

    /// The value of a key that must be there.
    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        check: impl FnOnce(&Node) -> Result<T, Refusal>,
    ) -> Option<T> {
        if self.entries.is_none() || self.get(key).is_some() {
            return self.optional(key, check);
        }
        self.noted(key, check(&Node::Nothing).map_err(Refusal::of_missing))
    }

    /// The items of a list that are right; none where the key is not there.
    pub(crate) fn list<T>(
        &mut self,
        key: &'static str,
        check: impl Fn(&Node) -> Result<T, Refusal>,
    ) -> Vec<T> {
        let path = self.place.path.key(key);
        let items = match self.get(key) {
            None => [].as_slice(),
            Some(Node::List(items)) => items,
            Some(other) => {
                self.problem(key, Refusal::wanted("a list, such as []").of(other));
                return Vec::new();
            }
        };
        let items = items.iter().enumerate();
        items
            .filter_map(|(index, item)| self.accept(&path.item(index), item, &check))
            .collect()
    }

    /// The mappings of a list.
    pub(crate) fn list_of_sections<T>(
        &mut self,
        key: &'static str,
        mut reader: impl FnMut(&mut Section<'_>) -> T,
    ) -> Vec<T> {
        let items = self.list(key, |item| Ok(item.clone()));
        let read_item = |(index, item): (usize, Node)| {
            let place = self.place.item(key, index);
            Section::open(self.report, Some(&item), place, &mut reader)
        };
        items.into_iter().enumerate().map(read_item).collect()
    }

    /// The mapping of a key; an empty one where the key is not there, so that its required keys are missed.
    pub(crate) fn section<T>(
        &mut self,
        key: &'static str,
        reader: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let node = self.get(key).or(self.entries.map(|_| &Node::Nothing));
        let place = self.place.key(key);
        Section::open(self.report, node, place, reader)
    }

    /// Whether the value of a key is a mapping.
    pub(crate) fn is_mapping(&mut self, key: &'static str) -> bool {
        matches!(self.get(key), Some(Node::Map(_)))
    }

    /// Every key of this mapping, whatever it is called, with a mapping as its value.
    pub(crate) fn each_section<T>(
        &mut self,
        mut reader: impl FnMut(&str, &mut Section<'_>) -> T,
    ) -> Vec<T> {
        let read_entry = |(key, node): &(String, Node)| {
            let place = self.place.key(key);
            Section::open(self.report, Some(node), place, |section| {
                reader(key, section)
            })
        };
        let entries = first_of_each(self.entries.unwrap_or_default());
        self.known
            .extend(entries.iter().map(|(key, _)| key.as_str()));
        entries.into_iter().map(read_entry).collect()
    }

    /// Every key of this mapping, whatever it is called, whose value is right.
    pub(crate) fn each<T>(
        &mut self,
        check: impl Fn(&str, &Node) -> Result<T, Refusal>,
    ) -> BTreeMap<String, T> {
        let entries = first_of_each(self.entries.unwrap_or_default());
        self.known
            .extend(entries.iter().map(|(key, _)| key.as_str()));
        let accept = |(key, node): &(String, Node)| {
            let value = self.accept(&self.place.path.key(key), node, |node| check(key, node))?;
            Some((key.clone(), value))
        };
        entries.into_iter().filter_map(accept).collect()
    }

    /// Whether there is such a key, whatever its value.
    pub(crate) fn has(&self, key: &str) -> bool {
        let mut entries = self.entries.unwrap_or_default().iter();
        entries.any(|(name, _)| name == key)
    }

    /// Whether this is a mapping without any key.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_some_and(<[_]>::is_empty)
    }

    /// What was made of a key's value; an error is noted.
    pub(crate) fn noted<T, E: Display>(&mut self, key: &str, result: Result<T, E>) -> Option<T> {
        result
            .map_err(|error| self.problem(key, error.to_string()))
            .ok()
    }

    /// Notes that the value of a key is wrong.
    pub(crate) fn problem(&mut self, key: &str, message: impl Into<String>) {
        self.report.problem(&self.place.path.key(key), message);
    }

    /// Notes that this mapping as a whole is wrong.
    pub(crate) fn problem_here(&mut self, message: impl Into<String>) {
        self.report.problem(&self.place.path, message);
    }

    /// Notes that the value of a key is doubtful.
    pub(crate) fn warning(&mut self, key: &str, message: impl Into<String>) {
        self.report.warning(&self.place.path.key(key), message);
    }

    fn open<T>(
        report: &mut Report,
        node: Option<&Node>,
        place: Place,
        reader: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let entries = match node {
            None => None,
            Some(Node::Nothing) => Some([].as_slice()),
            Some(Node::Map(entries)) => Some(entries.as_slice()),
            Some(other) => {
                // What it is instead is not shown: in place of `environment` it may be a secret.
                let message = format!(
                    "found {}, wanted a mapping: indented lines of `key: value`",
                    other.kind()
                );
                report.problem(&place.path, message);
                None
            }
        };
        let mut section = Section {
            report,
            place,
            entries,
            known: BTreeSet::new(),
        };
        let value = reader(&mut section);
        section.note_repeated_keys();
        section.note_unknown_keys();
        value
    }

    fn get(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.insert(key);
        let (_, node) = self.entries?.iter().find(|(name, _)| name == key)?;
        Some(node)
    }

    fn accept<T>(
        &mut self,
        path: &KeyPath,
        node: &Node,
        check: impl FnOnce(&Node) -> Result<T, Refusal>,
    ) -> Option<T> {
        check(node)
            .map_err(|refusal| self.report.problem(path, refusal.of(node)))
            .ok()
    }

    fn note_repeated_keys(&mut self) {
        let mut counts = BTreeMap::<&str, usize>::new();
        for (key, _) in self.entries.unwrap_or_default() {
            let nth = counts.entry(key).and_modify(|nth| *nth += 1).or_default();
            if *nth > 0 {
                self.report.repeated_key(&self.place.path.key(key), *nth);
            }
        }
    }

    fn note_unknown_keys(&mut self) {
        if self.place.unknown_keys == UnknownKeys::Ignored {
            return;
        }
        for (key, _) in first_of_each(self.entries.unwrap_or_default()) {
            if !self.known.contains(key.as_str()) {
                let message = format!("unknown key; {}", suggestion(key, &self.known));
                self.problem(key, message);
            }
        }
    }
}

impl Place {
    fn key(&self, key: &str) -> Self {
        Self {
            path: self.path.key(key),
            unknown_keys: self.unknown_keys,
        }
    }

    fn item(&self, key: &str, index: usize) -> Self {
        Self {
            path: self.path.key(key).item(index),
            unknown_keys: self.unknown_keys,
        }
    }
}

/// The entries without those whose key stood there before.
fn first_of_each(entries: &[(String, Node)]) -> Vec<&(String, Node)> {
    let mut seen = BTreeSet::new();
    entries.iter().filter(|(key, _)| seen.insert(key)).collect()
}

fn suggestion(key: &str, known: &BTreeSet<&str>) -> String {
    // One slip in three letters is a misspelling; more is another word.
    let is_near = |distance: &usize| *distance <= key.len().div_ceil(3);
    let distances = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(key, name), name));
    match distances.min().filter(|(distance, _)| is_near(distance)) {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!(
            "the keys here are {}",
            known.iter().copied().collect::<Vec<_>>().join(", ")
        ),
    }
}
