//! Architecture rules, reported with file and line: what each part may import, where secrets leave their types, and where the
//! texts of `claude` are.
#![expect(
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

#[path = "tidy/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};

use source::{SourceFile, rust_files};

/// The parts of the crate, and which of its other modules each may import. A file of a nested part follows both rules.
const MAY_NAME: &[(&str, &str)] = &[
    ("link", ""),
    ("secret", ""),
    ("atomic_file", ""),
    ("regular_file", ""),
    ("data_dir", "atomic_file"),
    ("http", ""),
    ("shell", ""),
    ("private_socket", "atomic_file"),
    (
        "remote_control",
        "atomic_file link regular_file secret shell",
    ),
    ("remote_control::process", "regular_file"),
    ("remote_control::claude", "link regular_file secret shell"),
    ("config", "remote_control secret"),
    (
        "matrix",
        "atomic_file config http link private_socket secret",
    ),
    ("command", "config matrix remote_control"),
    (
        "check",
        "command config data_dir http matrix remote_control secret shell",
    ),
    (
        "bot",
        "check command config data_dir link matrix private_socket remote_control",
    ),
    (
        "cli",
        "atomic_file bot check command config data_dir http matrix remote_control shell",
    ),
];

/// What else a part must not import.
const MUST_NOT_NAME: &[(&str, &str)] = &[
    ("matrix", "crate::matrix::connect"),
    ("remote_control", "matrix_sdk"),
    ("remote_control::claude", OUTSIDE),
    ("command", OUTSIDE),
    ("check", "matrix_sdk::Client"),
];

/// Everything with I/O.
const OUTSIDE: &str = "std::fs std::process std::net std::thread tokio tracing nix rustix matrix_sdk::Client matrix_sdk::Room";

/// The only module there that reads files: those of `claude`.
const MAY_READ_FILES: &str = "remote_control::claude::prerequisites";

/// The files that may expose a secret, and for what.
const MAY_EXPOSE: &str = "
src/matrix/direct_message.rs: a link, for the encrypted message
src/matrix/link_picture.rs: a link, for its picture, which is as secret
src/remote_control/session.rs: a link, for the record on disk
src/remote_control/tasks.rs: a project's input, for the session
src/remote_control/claude/launch.rs: a project's variables, for the session
src/command/reply/confidential.rs: a session's output, for the encrypted message
src/matrix/folder.rs: the device's token, for its file
src/matrix/own_identity.rs: the recovery key, for the SDK that opens the secrets with it
src/matrix/login.rs: the token and the password, for requests and the log-in
src/matrix/homeserver.rs: the token of a single request
src/matrix/login/forwarder.rs: the device's token or the appservice's, for the SDK's requests
src/check/project.rs: a project's input, to see whether it answers the program's question
src/check/api.rs: a token, for questions to the homeserver
";

/// The folder that knows `claude`, and the file in it with the texts of `claude`.
const PROGRAM_FOLDER: &str = "src/remote_control/claude/";
const PROGRAM_TEXTS: &str = "src/remote_control/claude/texts.rs";

/// Asserts that a rule finds nothing; reports what it finds with file and line.
#[track_caller]
fn assert_none(rule: impl Fn(&SourceFile) -> Vec<(usize, String)>) {
    let found = rust_files("src").into_iter().flat_map(|file| {
        let found = rule(&file).into_iter();
        let found = found.map(|(line, what)| format!("{}:{line}: {what}", file.name));
        found.collect::<Vec<_>>()
    });
    let found: Vec<_> = found.collect();
    assert!(found.is_empty(), "{found:#?}");
}

/// Whether a path is one of these, or below one.
fn is_below(path: &str, these: &str) -> bool {
    let below = |one: &str| {
        path.strip_prefix(one)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    these.split_whitespace().any(below)
}

/// The paths in a file that break the rules of its parts.
fn forbidden_paths(file: &SourceFile) -> Vec<(usize, String)> {
    let module = file.module();
    let is_of = |(part, _): &&(&str, &str)| is_below(&module, part);
    let parts: Vec<_> = MAY_NAME.iter().filter(is_of).collect();
    // They import all parts and do nothing themselves.
    let names_all = ["lib", "main"].contains(&module.as_str());
    if parts.is_empty() && !names_all {
        return vec![(1, "list in tests/tidy.rs what it may import".to_owned())];
    }
    let must_not = |path: &str| {
        let reads_files = is_below(&module, MAY_READ_FILES) && is_below(path, "std::fs");
        let mut rules = MUST_NOT_NAME.iter().filter(is_of);
        !reads_files && rules.any(|(_, these)| is_below(path, these))
    };
    let may = |path: &str| {
        let within = |named: &str, (part, these): &(&str, &str)| {
            is_below(named, part) || is_below(named, these)
        };
        let of_crate = path.strip_prefix("crate::");
        of_crate.is_none_or(|named| parts.iter().all(|part| within(named, part)))
    };
    let mut found = file.paths();
    found.retain(|(_, path)| !may(path) || must_not(path));
    found
}

#[test]
fn modules_import_only_what_they_may() {
    assert_none(forbidden_paths);
}

/// The files of matrix/ that import each other in a cycle, and those that import these. Its mod.rs imports and re-exports all.
fn in_cycles(files: &[SourceFile]) -> Vec<String> {
    let files = files.iter().filter(|file| !file.is_test());
    let (root, files): (Vec<_>, Vec<_>) = files.partition(|file| file.module() == "matrix");
    let exported: Vec<_> = root.iter().flat_map(|file| file.paths()).collect();
    let modules: Vec<_> = files
        .iter()
        .map(|file| format!("crate::{}", file.module()))
        .collect();
    let module_of = |path: &str| {
        let found = modules.iter().filter(|module| is_below(path, module));
        found.max_by_key(|module| module.len())
    };
    let leads_to = |path: &str| {
        let name = path.strip_prefix("crate::matrix::")?.split("::").next();
        let mut exported = exported.iter().map(|(_, path)| path);
        let from = exported.find(|path| path.rsplit("::").next() == name);
        module_of(path).or_else(|| module_of(&format!("crate::matrix::{}", from?)))
    };
    let edges = modules.iter().zip(&files).map(|(module, file)| {
        let named = file.paths().into_iter();
        let named = named.filter_map(|(_, path)| leads_to(&path));
        let named: BTreeSet<_> = named.filter(|other| *other != module).collect();
        (module, named)
    });
    let mut edges: BTreeMap<_, _> = edges.collect();
    // A file that imports none of the remaining ones is in no cycle.
    loop {
        let left: BTreeSet<_> = edges.keys().copied().collect();
        edges.retain(|_, named| !named.is_disjoint(&left));
        if edges.len() == left.len() {
            return edges.into_keys().cloned().collect();
        }
    }
}

#[test]
fn no_files_of_matrix_import_each_other_in_a_cycle() {
    let found = in_cycles(&rust_files("src/matrix"));
    assert!(found.is_empty(), "{found:#?}");
}

/// The lines that expose a secret in a file that is not in the list `but`.
fn exposes(file: &SourceFile, but: &str) -> Vec<(usize, String)> {
    let name = format!("{}: ", file.name);
    if but.lines().any(|line| line.starts_with(&name)) {
        return Vec::new();
    }
    let code = file.code();
    let lines = code.lines().zip(1..);
    let lines = lines.filter(|(line, _)| line.contains(".expose()"));
    lines.map(|(line, at)| (at, line.to_owned())).collect()
}

#[test]
fn only_listed_files_expose_secrets() {
    assert_none(|file| exposes(file, MAY_EXPOSE));
}

#[test]
fn no_text_of_claude_is_outside_of_its_folder() {
    let files = rust_files(PROGRAM_FOLDER);
    let texts = files.iter().find(|file| file.name == PROGRAM_TEXTS);
    let texts = texts.unwrap().literals().into_iter().map(|text| {
        let text = text.trim_matches('"').replace("\\\"", "\"");
        text.to_lowercase()
    });
    let parts: Vec<_> = texts.collect();
    let sentences = parts.iter().flat_map(|text| text.split(" * "));
    // Texts of fewer than three words are too common.
    let sentences = sentences.filter(|text| text.split_whitespace().count() >= 3);
    let sentences: Vec<_> = sentences.collect();
    assert!(sentences.len() > 50, "{sentences:?}");
    assert_none(|file| {
        let literals = file.literals().into_iter();
        let literals = literals.filter(|_| !file.name.starts_with(PROGRAM_FOLDER));
        let holds = |text: &String| sentences.iter().any(|it| text.to_lowercase().contains(it));
        literals.filter(holds).map(|text| (1, text)).collect()
    });
}

#[test]
fn every_file_has_a_head_and_every_folder_an_invariant() {
    assert_none(|file| {
        let lines = file.text.lines();
        let head: String = lines.take_while(|line| line.starts_with("//!")).collect();
        let folder = file.name.trim_end_matches("mod.rs").trim_end_matches(".rs");
        let leads =
            file.name.ends_with("mod.rs") || rust_files(folder).iter().any(|file| !file.is_test());
        let lacks = |what: &&str| !file.is_test() && !head.contains(what);
        let wanted = ["//! ", "Invariant"]
            .into_iter()
            .take(1 + usize::from(leads));
        let lacking = wanted.filter(lacks);
        lacking
            .map(|what| (1, format!("its head lacks `{what}`")))
            .collect()
    });
}

#[test]
fn the_rules_find_violations() {
    let file = |name: &str, text: &str| SourceFile {
        name: name.to_owned(),
        text: text.to_owned(),
    };
    let text = "use crate::{link::Link, bot::{self, Bot}};\n// crate::cli\n\"crate::cli\";super::super::cli::y('\"', 'a');\n\
        fn f<'a>() { tokio::run(\"\\\"crate::cli\") }\n#[cfg(test)]\nmod tests { use crate::cli; }";
    let found = forbidden_paths(&file("src/matrix/inbox.rs", text));
    let found = found.iter().map(|(line, path)| format!("{line} {path}"));
    let wanted = "1 crate::bot, 1 crate::bot::self, 1 crate::bot::Bot, 3 crate::cli::y";
    assert_eq!(found.collect::<Vec<_>>().join(", "), wanted);
    for (name, text, count) in [
        ("command/parse", "use std::{fmt, fs::{self, read}, io};", 3),
        ("command/parse", "crate::configuration::x", 1),
        (
            "remote_control/process/exit",
            "use super::super::store; use super::stop;",
            1,
        ),
        (
            "remote_control/store",
            "use matrix_sdk::ruma; use super::process::stop;",
            1,
        ),
        ("new", "", 1),
    ] {
        let file = file(&format!("src/{name}.rs"), text);
        assert_eq!(forbidden_paths(&file).len(), count, "{name}: {text}");
    }
    let mut files = [
        file("src/matrix/mod.rs", "mod b; pub use b::{B, c::C};"),
        file("src/matrix/b.rs", "use super::d::D;"),
        file("src/matrix/b/c.rs", "fn f() {}"),
        file("src/matrix/d.rs", "fn f() { crate::matrix::C; }"),
    ];
    assert!(in_cycles(&files).is_empty());
    files[3].text = "use crate::{matrix::{e, B}, x};".to_owned();
    let cycle = ["crate::matrix::b", "crate::matrix::d"];
    assert_eq!(in_cycles(&files), cycle);
    let file = file("src/x.rs", "// link.expose()\nlink.expose();");
    assert_eq!(exposes(&file, MAY_EXPOSE).len(), 1);
    assert!(exposes(&file, "src/x.rs: why").is_empty());
}
