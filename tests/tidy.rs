//! The rules of the house, told with file and line: what each part may name, and where secrets leave their types.
#![expect(
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

#[path = "tidy/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};

use source::{SourceFile, rust_files};

/// The parts of the crate, and which of its other modules each may name. A file may be of two, where one lies in the other.
const MAY_NAME: &[(&str, &str)] = &[
    ("link", ""),
    ("secret", ""),
    ("atomic_file", ""),
    ("data_dir", "atomic_file"),
    ("http", ""),
    ("private_socket", "atomic_file"),
    ("remote_control", "atomic_file link secret"),
    ("remote_control::process", ""),
    ("remote_control::claude", "link secret"),
    ("config", "remote_control secret"),
    (
        "matrix",
        "atomic_file config http link private_socket secret",
    ),
    ("command", "config matrix remote_control"),
    (
        "check",
        "command config data_dir http matrix remote_control secret",
    ),
    (
        "bot",
        "check command config data_dir link matrix private_socket remote_control",
    ),
    (
        "cli",
        "bot check command config data_dir http matrix remote_control",
    ),
];

/// The folders whose files do not name one another in a circle, whatever is between.
const WITHOUT_CIRCLES: &[&str] = &["matrix"];

/// What else a part must not name.
const MUST_NOT_NAME: &[(&str, &str)] = &[
    ("matrix", "crate::matrix::connect"),
    ("remote_control", "matrix_sdk"),
    ("remote_control::claude", OUTSIDE),
    ("command", OUTSIDE),
    ("check", "matrix_sdk::Client"),
];

/// What reaches beyond memory.
const OUTSIDE: &str = "std::fs std::process std::net std::thread tokio tracing nix rustix matrix_sdk::Client matrix_sdk::Room";

/// The one module there that reads files, which are the program's.
const MAY_READ_FILES: &str = "remote_control::claude::prerequisites";

/// The files that may take a secret out of its type, and for what.
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
src/matrix/login/forwarder.rs: the device's token, for the SDK's requests
src/matrix/login/appservice.rs: the appservice's token, for its requests
src/check/project.rs: a project's input, to see whether it answers the program's question
src/check/api.rs: a token, for questions to the homeserver
";

/// The one file with unsafe code.
const MAY_BE_UNSAFE: &str = "src/remote_control/process/spawn.rs: a call between fork and exec";

/// Asserts that nothing was found, which is told with its file and its line.
#[track_caller]
fn assert_none(look: impl Fn(&SourceFile) -> Vec<(usize, String)>) {
    let found = rust_files("src").into_iter().flat_map(|file| {
        let found = look(&file).into_iter();
        let told = found.map(|(line, what)| format!("{}:{line}: {what}", file.name));
        told.collect::<Vec<_>>()
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

/// What breaks the rules for the parts that a file is of.
fn misnamed(file: &SourceFile) -> Vec<(usize, String)> {
    let module = file.module();
    let parts: Vec<_> = MAY_NAME
        .iter()
        .filter(|(part, _)| is_below(&module, part))
        .collect();
    // They name the parts and do nothing themselves.
    let names_all = ["lib", "main"].contains(&module.as_str());
    if parts.is_empty() && !names_all {
        return vec![(1, "say in tests/tidy.rs what it may name".to_owned())];
    }
    let must_not = |path: &str| {
        if is_below(&module, MAY_READ_FILES) && is_below(path, "std::fs") {
            return false;
        }
        let rules = MUST_NOT_NAME
            .iter()
            .filter(|(part, _)| is_below(&module, part));
        rules.into_iter().any(|(_, these)| is_below(path, these))
    };
    let may = |path: &str| {
        let of_crate = path.strip_prefix("crate::");
        let within = |named: &str, (part, these): &(&str, &str)| {
            is_below(named, part) || is_below(named, these)
        };
        of_crate.is_none_or(|named| parts.iter().all(|part| within(named, part)))
    };
    let mut found = file.paths();
    found.retain(|(_, path)| !may(path) || must_not(path));
    found
}

/// Where code has this part of a line, but for the files of a list.
fn lines_with(file: &SourceFile, part: &str, but: &str) -> Vec<(usize, String)> {
    if but
        .lines()
        .any(|line| line.starts_with(&format!("{}: ", file.name)))
    {
        return Vec::new();
    }
    let code = file.code();
    let lines = code
        .lines()
        .zip(1..)
        .filter(|(line, _)| line.contains(part));
    lines
        .map(|(line, number)| (number, line.to_owned()))
        .collect()
}

#[test]
fn modules_name_only_what_they_may_know() {
    assert_none(misnamed);
}

/// The files of a folder that name one another in a circle, and those above them. Its mod.rs names all and hands out their names.
fn in_circles(folder: &str, files: &[SourceFile]) -> Vec<String> {
    let root = format!("crate::{folder}");
    let within = |path: &str| path.strip_prefix(&format!("{root}::")).map(str::to_owned);
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let is_root = |file: &&SourceFile| file.module() == folder;
    let handed_out: Vec<_> = files
        .iter()
        .filter(is_root)
        .flat_map(SourceFile::paths)
        .map(|(_, path)| path)
        .collect();
    for file in files
        .iter()
        .filter(|file| !is_root(file) && !file.is_test())
    {
        let Some(module) = within(&format!("crate::{}", file.module())) else {
            continue;
        };
        let paths = file.paths().into_iter();
        let paths = paths.filter_map(|(_, path)| within(&path));
        names.insert(module, paths.collect());
    }
    let modules: Vec<_> = names.keys().cloned().collect();
    let deepest = |path: &str| {
        let found = modules.iter().filter(|module| is_below(path, module));
        found.max_by_key(|module| module.len())
    };
    let leads_to = |path: &String| {
        let handed_out = handed_out
            .iter()
            .find(|one| one.rsplit("::").next() == path.split("::").next());
        deepest(path).or_else(|| deepest(handed_out?))
    };
    let mut edges: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (module, named) in &names {
        let others = named
            .iter()
            .filter_map(leads_to)
            .filter(|other| *other != module);
        edges.insert(module, others.collect());
    }
    // Whoever names none that is left is in no circle.
    while let Some(free) = edges.iter().find(|(_, named)| named.is_empty()) {
        let free = *free.0;
        edges.remove(free);
        for named in edges.values_mut() {
            named.retain(|named| *named != free);
        }
    }
    edges.into_keys().cloned().collect()
}

#[test]
fn no_files_name_one_another_in_a_circle() {
    for folder in WITHOUT_CIRCLES {
        let found = in_circles(folder, &rust_files(&format!("src/{folder}")));
        assert!(found.is_empty(), "{folder}: {found:#?}");
    }
}

#[test]
fn a_secret_leaves_its_type_in_few_places_and_unsafe_code_is_in_one() {
    assert_none(|file| lines_with(file, ".expose()", MAY_EXPOSE));
    assert_none(|file| lines_with(file, "unsafe ", MAY_BE_UNSAFE));
}

/// The folder that knows the program, and the file in it with the program's sentences.
const PROGRAM_FOLDER: &str = "src/remote_control/claude/";
const PROGRAM_TEXTS: &str = "src/remote_control/claude/texts.rs";

/// The sentences of the program: of fewer than three words nobody can say whose they are.
fn sentences(file: &SourceFile) -> Vec<String> {
    let literals = file.literals().into_iter();
    let texts = literals.flat_map(|text| {
        let text = text.trim_matches('"').replace("\\\"", "\"").to_lowercase();
        text.split(" * ").map(str::to_owned).collect::<Vec<_>>()
    });
    let is_sentence = |text: &String| text.split_whitespace().count() >= 3;
    texts.filter(is_sentence).collect()
}

/// The literals outside of the program's folder that hold one of its sentences.
fn foreign_words(file: &SourceFile, sentences: &[String]) -> Vec<(usize, String)> {
    if file.name.starts_with(PROGRAM_FOLDER) {
        return Vec::new();
    }
    let literals = file.literals().into_iter();
    let holds = |text: &String| sentences.iter().any(|it| text.to_lowercase().contains(it));
    literals.filter(holds).map(|text| (1, text)).collect()
}

#[test]
fn no_sentence_of_the_program_stands_outside_of_its_folder() {
    let files = rust_files(PROGRAM_FOLDER);
    let texts = files.iter().find(|file| file.name == PROGRAM_TEXTS);
    let sentences = sentences(texts.unwrap());
    assert!(sentences.len() > 50, "{sentences:?}");
    assert_none(|file| foreign_words(file, &sentences));
}

#[test]
fn every_file_says_what_it_is_and_every_folder_what_it_does_not_know() {
    assert_none(|file| {
        let documentation = file.text.lines().take_while(|line| line.starts_with("//!"));
        let documentation = documentation.collect::<String>();
        let folder = file.name.trim_end_matches("mod.rs").trim_end_matches(".rs");
        let leads =
            file.name.ends_with("mod.rs") || rust_files(folder).iter().any(|file| !file.is_test());
        let lacks = |what: &str| !file.is_test() && !documentation.contains(what);
        let mut found = Vec::new();
        if lacks("//! ") {
            found.push((
                1,
                "begins without a `//!` that says what the file is".to_owned(),
            ));
        }
        if leads && lacks("Invariant") {
            found.push((
                1,
                "leads a folder without an `Invariant` that says what it does not know".to_owned(),
            ));
        }
        found
    });
}

#[test]
fn the_rules_find_what_breaks_them() {
    let file = |name: &str, text: &str| SourceFile {
        name: name.to_owned(),
        text: text.to_owned(),
    };
    let text = "use crate::{link::Link, bot::{self, Bot}};\n// crate::cli\n\"crate::cli\";super::super::cli::y('\"', 'a');\n\
        fn f<'a>() { tokio::run(\"\\\"crate::cli\") }\n#[cfg(test)]\nmod tests { use crate::cli; }";
    let found = misnamed(&file("src/matrix/inbox.rs", text));
    let found: Vec<_> = found
        .iter()
        .map(|(line, path)| format!("{line} {path}"))
        .collect();
    assert_eq!(
        found,
        [
            "1 crate::bot",
            "1 crate::bot::self",
            "1 crate::bot::Bot",
            "3 crate::cli::y"
        ]
    );
    let found = |name, text| misnamed(&file(name, text)).len();
    assert_eq!(
        found(
            "src/command/parse.rs",
            "use std::{fmt, fs::{self, read}, io};"
        ),
        3
    );
    assert_eq!(found("src/command/parse.rs", "crate::configuration::x"), 1);
    assert_eq!(
        found(
            "src/remote_control/process/exit.rs",
            "use super::super::store; use super::stop;"
        ),
        1
    );
    assert_eq!(
        found(
            "src/remote_control/store.rs",
            "use matrix_sdk::ruma; use super::process::stop;"
        ),
        1
    );
    assert_eq!(found("src/new.rs", ""), 1);
    let circle = [
        file("src/a/mod.rs", "mod b; pub use b::{B, c::C};"),
        file("src/a/b.rs", "use super::d::D;"),
        file("src/a/b/c.rs", "fn f() {}"),
        file("src/a/d.rs", "fn f() { crate::a::C; }"),
    ];
    assert!(in_circles("a", &circle).is_empty());
    let circle = circle.map(|it| match it.name.as_str() {
        "src/a/d.rs" => file("src/a/d.rs", "use crate::{a::{e, B}, x};"),
        _ => it,
    });
    assert_eq!(in_circles("a", &circle), ["b", "d"]);
    let exposes = file("src/x.rs", "// link.expose()\nlink.expose();");
    assert_eq!(lines_with(&exposes, ".expose()", MAY_EXPOSE).len(), 1);
    assert!(lines_with(&exposes, ".expose()", "src/x.rs: why").is_empty());
    let texts = file(
        "",
        "(\"no * could be found\", \"\\\"Sure?\\\" got no answer\", \"Remote Control\")",
    );
    let sentences = sentences(&texts);
    assert_eq!(sentences, ["could be found", "\"sure?\" got no answer"]);
    let says = file(
        "src/x.rs",
        "// could be found\nf(\"It Could \\\n  be found\")",
    );
    assert_eq!(foreign_words(&says, &sentences).len(), 1);
}
