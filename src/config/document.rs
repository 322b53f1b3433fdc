//! A file in YAML as serde structs, with all its problems: serde stops at the first, so that one is noted and removed, and the
//! rest is read again.
//!
//! Invariant: no message shows a line of the file, which may hold a secret.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};
use serde_path_to_error::Segment;
use serde_yaml::Value;

use super::{
    outline::{LARGEST, Outline, Place},
    values::{Kind, SHOWN, kind, not_wanted},
};

/// The most problems that are reported: each costs a reading of the file.
const MOST_PROBLEMS: usize = 100;

/// The value of a key, if it is there.
pub(crate) struct Given<K: Kind>(pub(crate) Option<K::Value>);

impl<K: Kind> Given<K> {
    pub(crate) fn or(self, default: K::Value) -> K::Value {
        self.0.unwrap_or(default)
    }
}

impl<K: Kind> Default for Given<K> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, K: Kind> Deserialize<'de> for Given<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = K::read(&Value::deserialize(deserializer)?);
        value
            .map(|value| Self(Some(value)))
            .map_err(D::Error::custom)
    }
}

/// A file while it is read.
pub(crate) struct Document<'a> {
    file: &'a Path,
    /// The folder that its relative paths are based on.
    folder: &'a Path,
    places: BTreeMap<String, Place>,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

/// Why a file that people write is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("there is no {path}: {remedy}")]
    Missing { path: PathBuf, remedy: &'static str },
    #[error("cannot read {path}: it must be a file that the user who runs rcbot may read")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Invalid(#[from] Problems),
}

impl FileError {
    pub(crate) fn unreadable(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Unreadable {
            path: path.to_owned(),
            source,
        }
    }
}

/// The text of a file; the beginning of one that is too large to be read. `remedy` is what to do where there is none.
pub(crate) fn text_of(path: &Path, remedy: &'static str) -> Result<String, FileError> {
    let mut text = String::new();
    let file = fs::File::open(path);
    let read = file.and_then(|file| file.take(LARGEST as u64 + 1).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(FileError::Missing {
            path: path.to_owned(),
            remedy,
        }),
        Err(error) => Err(FileError::unreadable(path)(error)),
    }
}

/// Reads a text as `F`, and converts it; `None` where something is missing or wrong.
pub(crate) fn read<F: DeserializeOwned, T>(
    file: &Path,
    folder: &Path,
    text: &str,
    convert: impl FnOnce(F, &Document<'_>) -> Option<T>,
) -> Result<T, Problems> {
    let outline = Outline::of(file, text);
    let document = Document {
        file,
        folder,
        places: outline.places,
        problems: RefCell::new(outline.problems),
        warnings: RefCell::default(),
    };
    let structs = outline.value.and_then(|value| document.structs(value));
    let value = structs.and_then(|structs| convert(structs, &document));
    let problems = document.problems.into_inner();
    match value {
        Some(value) if problems.is_empty() => Ok(value),
        Some(_) | None => Err(Problems::new(file, problems)),
    }
}

impl Document<'_> {
    /// `None`: there are too many problems, or one in an item of a list, without which the indices of the others would change.
    fn structs<F: DeserializeOwned>(&self, mut tree: Value) -> Option<F> {
        if tree.is_null() {
            self.note(None, "", "the file is empty");
        }
        for _ in 0..MOST_PROBLEMS {
            let error = match serde_path_to_error::deserialize(&tree) {
                Ok(structs) => return Some(structs),
                Err(error) => error,
            };
            let mut keys = error.path().iter();
            let path = match keys.len() {
                0 => String::new(),
                _ => error.path().to_string(),
            };
            let found = value_at(&mut tree, error.path().iter())?;
            let message = error.inner().to_string();
            let Some(Segment::Map { key }) = keys.next_back() else {
                self.problem(&path, in_our_words(&message, "", found));
                return None;
            };
            self.wrong_key(&path, key, in_our_words(&message, key, found));
            value_at(&mut tree, keys)?.as_mapping_mut()?.remove(key)?;
        }
        None
    }

    /// The value of a required key. If anything but a mapping stands in its place, that is reported already.
    pub(crate) fn required<K: Kind>(&self, path: &str, given: Given<K>) -> Option<K::Value> {
        let is_about_it = |problem: &Problem| problem.is_about(path);
        let is_reported = self.problems.borrow().iter().any(is_about_it);
        if given.0.is_none() && !is_reported {
            let message = K::read(&Value::Null).err()?;
            let wanted = message.strip_prefix("found nothing");
            let missing = wanted.map_or_else(|| format!(": {message}"), str::to_owned);
            self.problem(path, format!("missing{missing}"));
        }
        given.0
    }

    /// Whether a problem of anything in this value is noted.
    pub(crate) fn is_wrong_below(&self, path: &str) -> bool {
        let problems = self.problems.borrow();
        problems.iter().any(|problem| problem.is_below(path))
    }

    /// A path in the file as an absolute path.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.join(path)
    }

    /// One value, if it is valid.
    pub(crate) fn value<T>(
        &self,
        path: &str,
        value: &Value,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let refused = |message| self.problem(path, message);
        read(value).map_err(refused).ok()
    }

    /// The valid items of a list.
    pub(crate) fn list<K: Kind>(&self, path: &str, list: &Value) -> Vec<K::Value> {
        let Value::Sequence(items) = list else {
            self.problem(path, not_wanted(list, list_of(list)));
            return Vec::new();
        };
        let items = items.iter().enumerate();
        let items =
            items.map(|(index, item)| self.value(&format!("{path}[{index}]"), item, K::read));
        items.flatten().collect()
    }

    /// Whether there is such a key, with a valid value or not.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    /// The unquoted text of a value as written: serde reads 1.10 as 1.1.
    pub(crate) fn plain(&self, path: &str) -> Option<&str> {
        self.places.get(path)?.plain.as_deref()
    }

    /// Notes that the value of a key is wrong, or missing.
    pub(crate) fn problem(&self, path: &str, message: impl Into<String>) {
        self.note(self.line_of(path), path, message);
    }

    /// Notes that a key is wrong, or its value. `{password:hunter2}` is a key without a value: what follows the colon is not
    /// shown, as it may be secret.
    pub(crate) fn wrong_key(&self, path: &str, key: &str, message: impl Into<String>) {
        let Some((name, value)) = key.split_once([':', '=']) else {
            return self.problem(path, message);
        };
        let shown = path.strip_suffix(key).unwrap_or_default();
        let shown = format!("{shown}{name}");
        let message = if value.is_empty() {
            message.into()
        } else {
            "wants a colon and a space right after its name".to_owned()
        };
        self.note(self.line_of(path), &shown, message);
    }

    pub(crate) fn take_warnings(&self) -> Vec<Problem> {
        self.warnings.take()
    }

    /// Notes that the value of a key is allowed but doubtful.
    pub(crate) fn warning(&self, path: &str, message: impl Into<String>) {
        let warning = Problem::new(self.file, self.line_of(path), path, message);
        self.warnings.borrow_mut().push(warning);
    }

    fn note(&self, line: Option<usize>, path: &str, message: impl Into<String>) {
        let problem = Problem::new(self.file, line, path, message);
        self.problems.borrow_mut().push(problem);
    }

    /// A missing key is reported at the line of the mapping that lacks it; for the outermost one there is no line.
    pub(crate) fn line_of(&self, path: &str) -> Option<usize> {
        let place = |path: &str| self.places.get(path);
        let place = place(path).or_else(|| place(path.rsplit_once('.')?.0));
        place.map(|place| place.line)
    }
}

/// One thing in a file that is wrong, or worth a warning. Displayed as `file:line: key: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    file: PathBuf,
    line: Option<usize>,
    key: String,
    message: String,
}

impl Problem {
    /// A problem with the file as a whole has no line and an empty key.
    pub(crate) fn new(
        file: &Path,
        line: Option<usize>,
        key: &str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            file: file.to_owned(),
            line,
            key: key.to_owned(),
            message: message.into(),
        }
    }

    /// Whether it is about the value of a key, or about one around it.
    fn is_about(&self, path: &str) -> bool {
        is_in(path, &self.key)
    }

    /// Whether it is about the value of a key, or about one in this.
    fn is_below(&self, path: &str) -> bool {
        is_in(&self.key, path)
    }
}

fn is_in(path: &str, outer: &str) -> bool {
    let rest = path.strip_prefix(outer);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(formatter, "{line}:")?;
        }
        if !self.key.is_empty() {
            write!(formatter, " {}:", self.key)?;
        }
        write!(formatter, " {}", self.message)
    }
}

/// Everything that is wrong in one file. Displayed as a header and a line for each problem, in the file's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problems {
    file: PathBuf,
    list: Vec<Problem>,
}

impl Problems {
    /// Whether one is about the value of a key, or about one around it.
    pub(super) fn are_about(&self, path: &str) -> bool {
        self.list.iter().any(|problem| problem.is_about(path))
    }

    pub(crate) fn new(file: &Path, mut list: Vec<Problem>) -> Self {
        list.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        Self {
            file: file.to_owned(),
            list,
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.list.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(formatter, "{} has {count} {noun}", self.file.display())?;
        self.list
            .iter()
            .try_for_each(|problem| write!(formatter, "\n{problem}"))
    }
}

impl std::error::Error for Problems {}

fn value_at<'v, 'p>(
    tree: &'v mut Value,
    mut path: impl Iterator<Item = &'p Segment>,
) -> Option<&'v mut Value> {
    path.try_fold(tree, |value, segment| match segment {
        Segment::Map { key } => value.get_mut(key.as_str()),
        Segment::Seq { index } => value.get_mut(*index),
        Segment::Enum { .. } | Segment::Unknown => None,
    })
}

/// Replaces serde's message, which shows the value and thus perhaps a secret; one of [`Given`] is in our words already.
fn in_our_words(message: &str, key: &str, found: &Value) -> String {
    match message.rsplit_once(", expected ") {
        Some((says, expected)) if says.starts_with("unknown field ") => {
            let known: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
            format!("unknown key; {}", suggestion(key, known))
        }
        Some((says, "a sequence")) if says.starts_with("invalid type: ") => {
            not_wanted(found, list_of(found))
        }
        Some((says, expected @ "a path, or a mapping")) if says.starts_with("invalid type: ") => {
            not_wanted(found, expected)
        }
        Some((says, _)) if says.starts_with("invalid type: ") => {
            let kind = kind(found);
            format!("found {kind}, wanted a mapping: indented lines of `key: value`")
        }
        Some(_) | None => message.to_owned(),
    }
}

/// The list that was probably meant. An empty one would not be: for `authorization.users` it means everybody.
fn list_of(found: &Value) -> String {
    match found {
        Value::String(text) if !text.is_empty() && text.len() <= SHOWN => {
            format!("a list, such as [{text:?}]")
        }
        _ => "a list in square brackets".to_owned(),
    }
}

fn suggestion(key: &str, mut known: Vec<&str>) -> String {
    // One slip in three letters is a misspelling; more is another word.
    let is_near = |distance: &usize| *distance <= key.len().div_ceil(3);
    let distances = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(key, name), name));
    if let Some((_, name)) = distances.min().filter(|(distance, _)| is_near(distance)) {
        return format!("did you mean `{name}`?");
    }
    known.sort_unstable();
    format!("the keys here are {}", known.join(", "))
}
