//! docs/configuration.md compared with the existing keys.

use std::collections::BTreeSet;

use super::*;

const REFERENCE: &str = include_str!("../../../docs/configuration.md");

/// The sections of keys, as the reference writes them, and a configuration with an unknown key there.
const PLACES: [(&str, &str); 8] = [
    ("", "nonsense: 1\n"),
    ("homeserver.", "homeserver:\n  nonsense: 1\n"),
    ("appservice.", "appservice:\n  nonsense: 1\n"),
    ("bot.", "bot:\n  nonsense: 1\n"),
    ("authorization.", "authorization:\n  nonsense: 1\n"),
    ("encryption.", "encryption:\n  nonsense: 1\n"),
    ("rate.", "rate:\n  nonsense: 1\n"),
    ("sessions.", "sessions:\n  nonsense: 1\n"),
];

/// The known keys there, as the problem of the unknown key lists them.
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
    let mut keys = BTreeSet::new();
    for (place, text) in PLACES {
        let mut here = keys_at(text);
        here.retain(|key| place != "sessions." || is_common(key));
        keys.extend(here.iter().map(|key| format!("{place}{key}")));
    }
    let of_project = keys_at("projects:\n  website:\n    nonsense: 1\n");
    let common: BTreeSet<_> = of_project
        .iter()
        .filter(|key| keys.contains(&format!("sessions.{key}")))
        .cloned()
        .collect();
    let own = of_project.difference(&common);
    keys.extend(own.map(|key| format!("projects.NAME.{key}")));
    for section in [
        "homeserver",
        "appservice",
        "bot",
        "authorization",
        "encryption",
        "rate",
        "sessions",
        "projects",
    ] {
        assert!(keys.remove(section), "{section}");
    }
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
