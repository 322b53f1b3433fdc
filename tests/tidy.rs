//! The rules of the house, told with file and line. Reads the source as text and needs nothing but the standard library.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "shared with docs.rs, which uses the rest")]
#[path = "tidy/source.rs"]
mod source;

use std::fmt::Write as _;

use source::{SourceFile, rust_files, starts_with};

/// A part of the crate, and what its files may name besides the part itself.
struct Part {
    module: &'static str,
    /// Of this crate these modules and no others.
    may_name: &'static [&'static str],
    /// Of everything else all but these.
    must_not_name: &'static [&'static str],
}

/// What reaches beyond memory.
const OUTSIDE: &[&str] = &[
    "std::fs",
    "std::process",
    "std::net",
    "std::thread",
    "tokio",
    "tracing",
    "nix",
    "rustix",
    "matrix_sdk::Client",
    "matrix_sdk::Room",
];

/// Every file is of one of these, or of two where a part lies in another.
const PARTS: [Part; 14] = [
    part("link", &[], &[]),
    part("secret", &[], &[]),
    part("atomic_file", &[], &[]),
    part("data_dir", &["atomic_file"], &[]),
    part("private_socket", &["atomic_file"], &[]),
    part(
        "remote_control",
        &["atomic_file", "link", "secret"],
        &["matrix_sdk"],
    ),
    part("remote_control::process", &[], &[]),
    part("remote_control::claude", &["link", "secret"], OUTSIDE),
    part("config", &["remote_control", "secret"], &[]),
    part(
        "matrix",
        &["atomic_file", "config", "link", "private_socket", "secret"],
        &[],
    ),
    part("command", &["config", "matrix", "remote_control"], OUTSIDE),
    part(
        "check",
        &[
            "command",
            "config",
            "data_dir",
            "matrix",
            "remote_control",
            "secret",
        ],
        &["matrix_sdk::Client"],
    ),
    part(
        "bot",
        &[
            "check",
            "command",
            "config",
            "data_dir",
            "link",
            "matrix",
            "private_socket",
            "remote_control",
        ],
        &[],
    ),
    part(
        "cli",
        &[
            "bot",
            "check",
            "command",
            "config",
            "data_dir",
            "matrix",
            "remote_control",
        ],
        &[],
    ),
];

const fn part(
    module: &'static str,
    may_name: &'static [&'static str],
    must_not_name: &'static [&'static str],
) -> Part {
    Part {
        module,
        may_name,
        must_not_name,
    }
}

impl Part {
    fn has(&self, module: &str) -> bool {
        starts_with(module, self.module)
    }

    fn may_name(&self, path: &str) -> bool {
        let Some(module) = path.strip_prefix("crate::") else {
            return !self
                .must_not_name
                .iter()
                .any(|name| starts_with(path, name));
        };
        self.has(module) || self.may_name.iter().any(|name| starts_with(module, name))
    }
}

/// The files that may take a secret out of its type, and for what.
const MAY_EXPOSE: &[(&str, &str)] = &[
    (
        "src/matrix/direct_message.rs",
        "a link, for the encrypted message",
    ),
    (
        "src/matrix/link_picture.rs",
        "a link, for its picture, which is as secret",
    ),
    (
        "src/remote_control/session.rs",
        "a link, for the record on disk",
    ),
    (
        "src/remote_control/tasks.rs",
        "a project's input, for the session",
    ),
    (
        "src/remote_control/claude/launch.rs",
        "a project's variables, for the session",
    ),
    (
        "src/command/reply.rs",
        "a session's output, for the encrypted message",
    ),
    ("src/matrix/folder.rs", "the device's token, for its file"),
    (
        "src/matrix/own_identity.rs",
        "the recovery key, for the SDK that opens the secrets with it",
    ),
    (
        "src/matrix/login.rs",
        "the token and the password, for requests and the log-in",
    ),
    (
        "src/matrix/login/request.rs",
        "the token of a single request",
    ),
    (
        "src/matrix/login/appservice.rs",
        "the appservice's token, for its requests",
    ),
    (
        "src/check/project.rs",
        "a project's input, to see whether it answers the program's question",
    ),
    (
        "src/check/api.rs",
        "a token, for questions to the homeserver",
    ),
];

/// The one file with unsafe code.
const MAY_BE_UNSAFE: &str = "src/remote_control/process/spawn.rs";

#[test]
fn modules_name_only_what_they_may_know() {
    let mut found = Findings::default();
    for file in rust_files("src") {
        for (line, path) in file.absolute_paths() {
            for part in PARTS.iter().filter(|part| part.has(&file.module())) {
                if !part.may_name(&path) {
                    found.add(
                        &file,
                        line,
                        &format!("{} must not name {path}", part.module),
                    );
                }
            }
        }
    }
    found.assert_none();
}

#[test]
fn every_module_is_of_a_part() {
    let mut found = Findings::default();
    for file in rust_files("src") {
        // They name the parts and do nothing themselves.
        let names_all = ["src/lib.rs", "src/main.rs"].contains(&file.name.as_str());
        if !names_all && !PARTS.iter().any(|part| part.has(&file.module())) {
            found.add(&file, 1, "say in tests/tidy.rs what it may name");
        }
    }
    found.assert_none();
}

#[test]
fn a_secret_leaves_its_type_in_few_places() {
    let mut found = Findings::default();
    for file in rust_files("src") {
        let may = MAY_EXPOSE.iter().any(|(name, _)| *name == file.name);
        for line in file.lines_with(".expose()") {
            if !may && !file.is_test(line) {
                found.add(&file, line, "a secret is exposed here");
            }
        }
    }
    found.assert_none();
}

#[test]
fn unsafe_code_is_in_one_place() {
    let mut found = Findings::default();
    for file in rust_files("src")
        .into_iter()
        .filter(|file| file.name != MAY_BE_UNSAFE)
    {
        for line in file.lines_with("unsafe ") {
            found.add(&file, line, "unsafe code");
        }
    }
    found.assert_none();
}

#[test]
fn every_file_says_what_it_is_and_every_folder_what_it_does_not_know() {
    let mut found = Findings::default();
    for file in rust_files("src")
        .into_iter()
        .filter(|file| !file.is_test(1))
    {
        if !file.text.starts_with("//! ") {
            found.add(
                &file,
                1,
                "begins without a `//!` that says what the file is",
            );
        }
        let documentation = file.text.lines().take_while(|line| line.starts_with("//!"));
        if file.leads_a_folder()
            && !documentation
                .into_iter()
                .any(|line| line.contains("Invariant"))
        {
            found.add(
                &file,
                1,
                "leads a folder without an `Invariant` that says what it does not know or do",
            );
        }
    }
    found.assert_none();
}

#[test]
fn the_rules_find_what_breaks_them() {
    let file = |name: &str, text: &str| SourceFile::new(name.to_owned(), text.to_owned());
    let names = |name: &str, text: &str| -> Vec<String> {
        file(name, text)
            .absolute_paths()
            .into_iter()
            .map(|(line, path)| format!("{line} {path}"))
            .collect()
    };
    let text = "use crate::{link::Link, remote_control::{self, Session}};\n// crate::bot\n\"crate::cli\";super::super::x::y();";
    assert_eq!(
        names("src/matrix/inbox.rs", text),
        [
            "1 crate::link::Link",
            "1 crate::remote_control::self",
            "1 crate::remote_control::Session",
            "3 crate::x::y"
        ]
    );
    let tests = "use super::stop;\n#[cfg(test)]\nmod tests {\n    use super::super::spawn;\n}";
    assert_eq!(
        names("src/remote_control/process/exit.rs", tests),
        [
            "1 crate::remote_control::process::stop",
            "4 crate::remote_control::process::spawn"
        ]
    );
    assert_eq!(
        names("src/a/mod.rs", "pub use b::C;\nr#\"x::y\"#;'\"';'a: d::e"),
        ["1 b::C", "2 d::e"]
    );
    assert!(starts_with("bot::queue", "bot") && !starts_with("both", "bot"));
    let pure = part("command", &["config"], &["std::fs"]);
    assert!(pure.has("command::parse") && !pure.has("commands"));
    for path in [
        "crate::command::parse",
        "crate::config::Config",
        "std::fmt",
        "regex::Regex",
    ] {
        assert!(pure.may_name(path), "{path}");
    }
    for path in [
        "crate::bot",
        "crate::configuration",
        "crate::a_new_module::x",
        "std::fs::read",
    ] {
        assert!(!pure.may_name(path), "{path}");
    }
    assert!(file("src/x.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n}").is_test(3));
    assert_eq!(
        file("src/x.rs", "// link.expose()\nlink.expose();").lines_with(".expose()"),
        [2]
    );
}

/// What breaks a rule.
#[derive(Default)]
struct Findings(String);

impl Findings {
    fn add(&mut self, file: &SourceFile, line: usize, what: &str) {
        writeln!(self.0, "{}:{line}: {what}", file.name).unwrap();
    }

    #[track_caller]
    fn assert_none(&self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}
