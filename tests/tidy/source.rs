//! Source files as text: their code, string literals and paths.

use std::{fs, path::Path, sync::LazyLock};

use regex::Regex;

/// Comments, and the literals of strings and characters. A lifetime has no second quote.
static NOT_CODE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r###"(?s)//[^\n]*|r##".*?"##|r#".*?"#|r"[^"]*"|"(?:\\.|[^"\\])*"|'(?:\\[^']+|\\'|[^'\\])'"###).unwrap()
});

/// A file of this crate.
pub(crate) struct SourceFile {
    /// The path from the crate's folder.
    pub(crate) name: String,
    pub(crate) text: String,
}

impl SourceFile {
    /// Whether the whole file is for tests.
    pub(crate) fn is_test(&self) -> bool {
        let names = ["tests.rs", "testing.rs"];
        self.name.contains("/tests/") || names.iter().any(|name| self.name.ends_with(name))
    }

    /// The text without tests, which are last in a file, or in a separate one.
    pub(crate) fn text_without_tests(&self) -> &str {
        let tests = "#[cfg(test)]\nmod tests {";
        let inline = self.text.split(tests).next().unwrap_or_default();
        if self.is_test() { "" } else { inline }
    }

    /// The same without comments and literals, with the same line numbers.
    pub(crate) fn code(&self) -> String {
        let blank = |found: &regex::Captures<'_>| "\n".repeat(found[0].matches('\n').count());
        NOT_CODE
            .replace_all(self.text_without_tests(), blank)
            .into_owned()
    }

    /// The texts of the string literals, each in one line.
    pub(crate) fn literals(&self) -> Vec<String> {
        static CONTINUED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\\\n\s*").unwrap());
        let found = NOT_CODE.find_iter(self.text_without_tests());
        let texts = found
            .map(|literal| literal.as_str())
            .filter(|text| text.starts_with(['"', 'r']));
        texts
            .map(|text| CONTINUED.replace_all(text, "").into_owned())
            .collect()
    }

    /// Its module path: `remote_control::process::stop`.
    pub(crate) fn module(&self) -> String {
        let path = self.name.trim_start_matches("src/").trim_end_matches(".rs");
        let path = path.strip_suffix("/mod").unwrap_or(path);
        path.replace('/', "::")
    }

    /// Every path in the code with its line, `super` resolved and braces expanded.
    pub(crate) fn paths(&self) -> Vec<(usize, String)> {
        static TOKEN: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r"\w+(?:::\w+)*(?:::)?|[{}]").unwrap());
        let code = self.code();
        let (mut found, mut groups, mut before) = (Vec::new(), Vec::new(), String::new());
        for token in TOKEN.find_iter(&code) {
            match token.as_str() {
                "{" => groups.push(std::mem::take(&mut before)),
                "}" => drop(groups.pop()),
                path => {
                    before = if path.ends_with("::") {
                        path.to_owned()
                    } else {
                        String::new()
                    };
                    let path = groups.concat() + path.trim_end_matches("::");
                    if path.contains("::") {
                        let line = code[..token.start()].matches('\n').count() + 1;
                        found.push((line, self.resolve(&path)));
                    }
                }
            }
        }
        found
    }

    fn resolve(&self, path: &str) -> String {
        let (mut module, mut rest) = (self.module(), path.trim_start_matches("self::"));
        if rest == path && !path.starts_with("super::") {
            return path.to_owned();
        }
        while let Some(above) = rest.strip_prefix("super::") {
            rest = above;
            module.truncate(module.rfind("::").unwrap_or(0));
        }
        let separator = if module.is_empty() { "" } else { "::" };
        format!("crate::{module}{separator}{rest}")
    }
}

/// All Rust files below a folder of this crate, in the order of their names.
pub(crate) fn rust_files(folder: &str) -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for entry in fs::read_dir(root.join(folder)).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        if path.is_dir() {
            files.extend(rust_files(&name));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            files.push(SourceFile { name, text });
        }
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    files
}
