//! Source files as text, and the paths that their code names.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file of this crate.
pub(crate) struct SourceFile {
    /// From the crate's folder on.
    pub(crate) name: String,
    /// All of it.
    pub(crate) text: String,
    /// The text with comments and literals blanked out, at the same places.
    code: String,
}

impl SourceFile {
    pub(crate) fn new(name: String, text: String) -> Self {
        let code = blank_out(&text);
        Self { name, text, code }
    }

    /// Its module, from the crate on: `remote_control::process::stop`.
    pub(crate) fn module(&self) -> String {
        let path = self.name.trim_start_matches("src/").trim_end_matches(".rs");
        let path = path.strip_suffix("/mod").unwrap_or(path);
        if path == "lib" {
            String::new()
        } else {
            path.replace('/', "::")
        }
    }

    pub(crate) fn leads_a_folder(&self) -> bool {
        let Some(folder) = self
            .name
            .strip_suffix("mod.rs")
            .or(self.name.strip_suffix(".rs"))
        else {
            return false;
        };
        self.name.ends_with("mod.rs")
            || rust_files(folder)
                .iter()
                .any(|file| !file.name.ends_with("tests.rs") && !file.name.contains("/tests/"))
    }

    /// Whether a line, from 1 on, is of a test: tests stand last in a file, or in one of their own.
    pub(crate) fn is_test(&self, line: usize) -> bool {
        let is_file_of_tests = self.name.ends_with("tests.rs")
            || self.name.contains("/tests/")
            || self.name.ends_with("testing.rs");
        is_file_of_tests || self.inline_tests().is_some_and(|first| line >= first)
    }

    fn inline_tests(&self) -> Option<usize> {
        let lines: Vec<&str> = self.code.lines().collect();
        let begins = |pair: &[&str]| matches!(pair, ["#[cfg(test)]", next] if next.starts_with("mod tests {"));
        lines.windows(2).position(begins).map(|index| index + 2)
    }

    pub(crate) fn lines_with(&self, part: &str) -> Vec<usize> {
        let lines = self.code.lines().enumerate();
        lines
            .filter(|(_, line)| line.contains(part))
            .map(|(index, _)| index + 1)
            .collect()
    }

    /// The texts of the string literals, each in one line; those of tests are left out.
    pub(crate) fn literals(&self) -> Vec<String> {
        let is_file_of_tests = self.is_test(1);
        let tests = self.inline_tests().unwrap_or(usize::MAX);
        let (mut literals, mut rest, mut line) = (Vec::new(), self.text.as_str(), 1);
        while let Some(first) = rest.chars().next() {
            let length = literal_or_comment(rest).unwrap_or(first.len_utf8());
            let (piece, after) = rest.split_at(length);
            let is_text = piece.starts_with(['"', 'r']) && length > 1;
            if is_text && !is_file_of_tests && line < tests {
                let lines = piece.split("\\\n").enumerate();
                let lines = lines.map(|(number, line)| match number {
                    0 => line,
                    _ => line.trim_start(),
                });
                literals.push(lines.collect());
            }
            line += piece.matches('\n').count();
            rest = after;
        }
        literals
    }

    /// Every path in the code with its line, `super` resolved and braces expanded.
    pub(crate) fn absolute_paths(&self) -> Vec<(usize, String)> {
        let mut paths = Vec::new();
        let mut rest = self.code.as_str();
        while let Some(start) = rest.find(|c: char| c.is_alphabetic() || c == '_') {
            let (skipped, path) = rest.split_at(start);
            let is_of_something_else = skipped.ends_with("::") || skipped.ends_with('\'');
            let mut names = Vec::new();
            let after = expand(path, String::new(), &mut names);
            let line = self.code.len() - path.len();
            let line = self
                .code
                .get(..line)
                .unwrap_or_default()
                .matches('\n')
                .count()
                + 1;
            let names = names
                .into_iter()
                .filter(|name| name.contains("::") && !is_of_something_else);
            paths.extend(names.map(|name| (line, self.resolve(&name, line))));
            rest = after;
        }
        paths
    }

    fn resolve(&self, path: &str, line: usize) -> String {
        let mut module = self.module();
        if self.inline_tests().is_some_and(|first| line >= first) {
            module.push_str("::tests");
        }
        let mut rest = path.trim_start_matches("self::");
        if rest == path && !path.starts_with("super::") {
            return path.to_owned();
        }
        while let Some(above) = rest.strip_prefix("super::") {
            rest = above;
            module.truncate(module.rfind("::").unwrap_or(0));
        }
        let all = ["crate", &module, rest];
        all.into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("::")
    }
}

/// Takes the path that the text begins with, expands its braces, and returns what comes after it.
fn expand<'t>(text: &'t str, mut before: String, names: &mut Vec<String>) -> &'t str {
    let is_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let (name, rest) = text.split_at(text.find(|c| !is_of_name(c)).unwrap_or(text.len()));
    before.push_str(name);
    let Some(after) = rest.strip_prefix("::") else {
        names.push(before);
        return rest;
    };
    before.push_str("::");
    if after.starts_with(is_of_name) {
        return expand(after, before, names);
    }
    let Some(mut group) = after.strip_prefix('{') else {
        // A glob, or the generic arguments of a call.
        names.push(before);
        return after;
    };
    loop {
        group = group.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        if let Some(after) = group.strip_prefix('}') {
            return after;
        }
        if !group.starts_with(is_of_name) {
            return group;
        }
        group = expand(group, before.clone(), names);
        // `as` gives another name to what was named.
        if let Some(renamed) = group.trim_start().strip_prefix("as ") {
            group = renamed.trim_start_matches(is_of_name);
        }
    }
}

/// Whether a path is this one or below it.
pub(crate) fn starts_with(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Puts spaces in place of comments and the insides of literals; lines stay where they are.
fn blank_out(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = literal_or_comment(rest).unwrap_or(0);
        if length == 0 {
            code.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            continue;
        }
        let (blanked, after) = rest.split_at(length);
        code.extend(blanked.chars().map(|c| if c == '\n' { c } else { ' ' }));
        rest = after;
    }
    code
}

/// How long the comment or literal is that the text begins with.
fn literal_or_comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if let Some(raw) = text.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        let inside = raw.trim_start_matches('#').strip_prefix('"')?;
        return Some(inside.find(&end)? + 1 + hashes + 1 + end.len());
    }
    if text.starts_with('"') {
        return end_of_quoted(text, '"');
    }
    // A lifetime has no second quote; a character has it right after.
    let mut characters = text.strip_prefix('\'')?.chars();
    let is_character = characters.next()? == '\\' || characters.next()? == '\'';
    is_character.then(|| end_of_quoted(text, '\''))?
}

fn end_of_quoted(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    for (index, character) in text.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if character == quote => return Some(index + 1),
            _ => {}
        }
    }
    None
}

/// All Rust files below a folder of this crate, in the order of their names.
pub(crate) fn rust_files(folder: &str) -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(&root.join(folder), &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let name = path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        SourceFile::new(name, fs::read_to_string(&path).unwrap())
    };
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}
