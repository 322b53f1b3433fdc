//! The problems of a file that people write: all at once, each with its place and what is wanted there.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// One thing in a file that is wrong, or worth a warning. Displayed as `file:line: key: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
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
    pub(super) fn is_about(&self, path: &str) -> bool {
        is_in(path, &self.key)
    }

    /// Whether it is about the value of a key, or about one in this.
    pub(super) fn is_below(&self, path: &str) -> bool {
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
pub struct Problems {
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
