//! Collects the problems and warnings of one file while it is read, and finds the line of each.

use std::path::{Path, PathBuf};

use super::{
    problem::{Problem, Problems},
    yaml::{self, KeyPath},
};

/// The problems and warnings found so far.
pub(crate) struct Report {
    file: PathBuf,
    text: String,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Report {
    pub(crate) fn new(file: &Path, text: &str) -> Self {
        Self {
            file: file.to_owned(),
            text: text.to_owned(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(crate) fn problem(&mut self, path: &KeyPath, message: impl Into<String>) {
        let line = self.line_of(path, 0);
        self.problems.push(Problem::new(
            &self.file,
            line,
            path.to_string(),
            message.into(),
        ));
    }

    pub(crate) fn warning(&mut self, path: &KeyPath, message: impl Into<String>) {
        let line = self.line_of(path, 0);
        self.warnings.push(Problem::new(
            &self.file,
            line,
            path.to_string(),
            message.into(),
        ));
    }

    /// A key stands in its mapping for the nth time, counted from 0.
    pub(crate) fn repeated_key(&mut self, path: &KeyPath, nth: usize) {
        let line = self.line_of(path, nth);
        let first = self
            .line_of(path, 0)
            .map(|line| format!(" in line {line}"))
            .unwrap_or_default();
        let message = format!("given twice, first{first}; remove or rename one of them");
        self.problems
            .push(Problem::new(&self.file, line, path.to_string(), message));
    }

    pub(crate) fn empty_file(&mut self) {
        let message = "the file is empty".to_owned();
        self.problems
            .push(Problem::new(&self.file, None, String::new(), message));
    }

    pub(crate) fn not_yaml(&mut self, error: &serde_yaml::Error) {
        let line = error.location().map(|location| location.line());
        let cause = error.to_string();
        let needs_quotes = cause.contains("cannot start any token");
        let remedy = if needs_quotes {
            "; indent with spaces, and put a value that begins with @ in quotes"
        } else {
            ""
        };
        self.problems.push(Problem::new(
            &self.file,
            line,
            String::new(),
            format!("not YAML: {cause}{remedy}"),
        ));
    }

    /// The value and the warnings, or all problems. A value that is not there has a problem noted about it.
    pub(crate) fn conclude<T>(self, value: Option<T>) -> Result<(T, Vec<Problem>), Problems> {
        match value {
            Some(value) if self.problems.is_empty() => Ok((value, self.warnings)),
            Some(_) | None => Err(Problems::new(&self.file, self.problems)),
        }
    }

    /// A key that is missing is said to be where the mapping begins that lacks it; for the outermost one that says nothing.
    fn line_of(&self, path: &KeyPath, nth: usize) -> Option<usize> {
        let mapping = path.parent().filter(|parent| *parent != KeyPath::default());
        yaml::line_of(&self.text, path, nth)
            .or_else(|| mapping.and_then(|mapping| yaml::line_of(&self.text, &mapping, 0)))
    }
}
