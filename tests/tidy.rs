//! The rules of the house, told with file and line. Reads the source as text and needs nothing but the standard library.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "tidy/source.rs"]
mod source;

use std::fmt::Write as _;

use source::{SourceFile, rust_files, starts_with};

/// A file has one job; a longer one has two.
const MOST_LINES: usize = 420;

/// Where the modules stand that a file's own may not name: the file's module, then what it must not name.
const IMPORTS: [(&str, &[&str]); 7] = [
    (
        "matrix",
        &[
            "crate::command",
            "crate::remote_control",
            "crate::bot",
            "crate::cli",
        ],
    ),
    (
        "remote_control",
        &[
            "crate::matrix",
            "crate::command",
            "crate::config",
            "crate::bot",
            "crate::cli",
            "matrix_sdk",
        ],
    ),
    (
        "remote_control::process",
        &[
            "crate::remote_control::claude",
            "crate::remote_control::session",
            "crate::remote_control::store",
            "crate::remote_control::tasks",
            "crate::remote_control::observe",
            "crate::remote_control::project",
            "crate::link",
        ],
    ),
    (
        "remote_control::claude",
        &[
            "std::fs",
            "std::process",
            "std::net",
            "std::thread",
            "tokio",
            "tracing",
            "nix",
            "rustix",
            "crate::remote_control::process",
        ],
    ),
    (
        "command",
        &[
            "std::fs",
            "std::process",
            "std::net",
            "std::thread",
            "tokio",
            "tracing",
            "matrix_sdk::Client",
            "matrix_sdk::Room",
            "crate::bot",
            "crate::cli",
        ],
    ),
    ("check", &["crate::bot", "crate::cli", "matrix_sdk::Client"]),
    ("link", &["crate"]),
];

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
        "src/matrix/sent_link.rs",
        "a link's picture, for the encrypted attachment",
    ),
    (
        "src/remote_control/session.rs",
        "a link, for the record on disk",
    ),
    (
        "src/command/reply.rs",
        "a session's output, for the encrypted message",
    ),
    ("src/matrix/device.rs", "the device's token, for its file"),
    (
        "src/matrix/identity.rs",
        "the recovery key, for the SDK that opens the secrets with it",
    ),
    ("src/matrix/login.rs", "the device's token, for the SDK"),
    (
        "src/matrix/login/access_token.rs",
        "the configured token, for its requests",
    ),
    (
        "src/matrix/login/password.rs",
        "the configured password, for the log-in",
    ),
    (
        "src/matrix/login/appservice.rs",
        "the appservice's token, for its requests",
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
            for (module, forbidden) in IMPORTS {
                let is_ours = starts_with(&file.module(), module)
                    && !starts_with(&path, &format!("crate::{module}"));
                for name in forbidden
                    .iter()
                    .filter(|name| is_ours && starts_with(&path, name))
                {
                    found.add(&file, line, &format!("{module} must not name {name}"));
                }
            }
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
fn no_file_is_too_long() {
    let mut found = Findings::default();
    for file in ["src", "tests", "examples"]
        .into_iter()
        .flat_map(rust_files)
    {
        let lines = file.text.lines().count();
        if lines >= MOST_LINES {
            found.add(
                &file,
                lines,
                &format!("{lines} lines, and {MOST_LINES} are too many: split it by job"),
            );
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
    assert!(
        starts_with("crate::bot::desk", "crate::bot") && !starts_with("crate::both", "crate::bot")
    );
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
