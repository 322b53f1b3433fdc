//! docs/configuration.md compared with the existing keys.

use std::collections::BTreeSet;

use super::*;

const REFERENCE: &str = include_str!("../../../docs/configuration.md");

const SECTIONS: [&str; 7] = [
    "homeserver",
    "appservice",
    "bot",
    "authorization",
    "encryption",
    "rate",
    "sessions",
];

/// The known keys beside an unknown one, as its problem lists them.
fn keys_at(text: &str) -> BTreeSet<String> {
    let said = problems_of(text);
    let list = said.split("the keys here are ").nth(1).unwrap();
    let list = list.lines().next().unwrap();
    list.replace(" and ", ", ")
        .split(", ")
        .map(|key| key.trim().to_owned())
        .collect()
}

/// Whether the section `sessions` takes a key of a project.
fn is_common(key: &str) -> bool {
    !problems_of(&format!("sessions:\n  {key}: 1\n")).contains("is a key of a project")
}

/// Every key, as the reference writes it.
fn all_keys() -> BTreeSet<String> {
    let mut keys = keys_at("nonsense: 1\n");
    for section in SECTIONS {
        assert!(keys.remove(section), "{section}");
        let mut here = keys_at(&format!("{section}:\n  nonsense: 1\n"));
        here.retain(|key| section != "sessions" || is_common(key));
        keys.extend(here.iter().map(|key| format!("{section}.{key}")));
    }
    assert!(keys.remove("projects"));
    let mut own = keys_at("projects:\n  website:\n    nonsense: 1\n");
    own.retain(|key| !keys.contains(&format!("sessions.{key}")));
    keys.extend(own.iter().map(|key| format!("projects.NAME.{key}")));
    keys
}

#[test]
fn the_example_names_every_key() {
    let lines: Vec<_> = EXAMPLE
        .lines()
        .map(|line| line.trim_start().trim_start_matches("# "))
        .collect();
    for key in all_keys() {
        let name = key.rsplit('.').next().unwrap();
        let begin = format!("{name}:");
        assert!(lines.iter().any(|line| line.starts_with(&begin)), "{key}");
    }
}

#[test]
fn the_reference_has_every_key_and_no_other() {
    let rows = REFERENCE
        .lines()
        .filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeSet<_> = rows
        .filter_map(|row| row.split_once('`'))
        .map(|(key, _)| key.to_owned())
        .collect();
    assert_eq!(documented, all_keys());
}
