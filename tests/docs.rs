//! What README and docs/ say against what the program has. Reads both as text, and needs nothing but the standard library.
//! The configuration's reference is compared where the configuration is read.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::Path};

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// What stands between backticks in the first cell of each row of a page's tables.
fn first_cells(page: &str) -> Vec<String> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = rows.filter_map(|row| row.split(" | ").next());
    let in_backticks = |cell: &str| -> Vec<String> {
        let parts = cell.split('`').skip(1).step_by(2);
        parts.map(str::to_owned).collect()
    };
    cells.flat_map(in_backticks).collect()
}

/// The commands of a text, each with what it takes, without the prefix.
fn commands(texts: &[String], prefix: &str) -> BTreeSet<String> {
    let commands = texts.iter().filter_map(|text| text.strip_prefix(prefix));
    commands.map(str::to_owned).collect()
}

#[test]
fn readme_lists_the_commands_that_help_lists() {
    let source = read("src/command/reply.rs");
    let help = source.split("pub fn help(").nth(1).unwrap();
    let help = help.split("\n}").next().unwrap();
    let in_help: Vec<_> = help
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect();
    let readme = read("README.md");
    let table = readme.split("## Commands").nth(1).unwrap();
    let table = table.split("\n\n").next().unwrap();
    assert_eq!(
        commands(&first_cells(table), "!rc "),
        commands(&in_help, "{prefix} ")
    );
}

#[test]
fn readme_lists_the_commands_of_the_binary() {
    let source = read("src/cli.rs");
    let variants = source.split("enum Command {").nth(1).unwrap();
    let variants = variants.split("\n}").next().unwrap();
    let in_source: BTreeSet<_> = variants
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(char::is_uppercase))
        .map(|line| kebab(line.split(['(', ' ', '{', ',']).next().unwrap()))
        .collect();
    let in_readme: BTreeSet<_> = commands(&first_cells(&read("README.md")), "rcbot ")
        .iter()
        .map(|command| command.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(in_readme, in_source);
}

/// `ResetIdentity` as it is typed.
fn kebab(name: &str) -> String {
    let mut typed = String::new();
    for character in name.chars() {
        if character.is_uppercase() && !typed.is_empty() {
            typed.push('-');
        }
        typed.extend(character.to_lowercase());
    }
    typed
}

#[test]
fn every_message_in_the_troubleshooting_is_one_that_is_said() {
    let said = all_text_in("src").replace('`', "");
    let mut unknown = Vec::new();
    for message in first_cells(&read("docs/troubleshooting.md")) {
        // Two dots stand for what differs each time.
        let is_said = message
            .split("..")
            .all(|part| said.contains(part.trim()) || is_error_code(part.trim()));
        if !is_said {
            unknown.push(message);
        }
    }
    assert!(unknown.is_empty(), "said nowhere in src/: {unknown:#?}");
}

/// The homeserver's own words.
fn is_error_code(text: &str) -> bool {
    text.starts_with("M_")
}

#[test]
fn each_row_of_the_threat_model_has_a_test() {
    let page = read("docs/security.md");
    let table = page.split("## Against whom").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| "));
    // The head of the table, and the line below it.
    let rows: Vec<_> = rows.skip(2).collect();
    assert!(rows.len() >= 7, "{rows:#?}");
    let tests = all_text_in("tests/it");
    for row in rows {
        let last_cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let name = last_cell.trim_matches('`');
        assert!(tests.contains(&format!("async fn {name}(")), "{row}");
    }
}

/// All files below a folder as one text, in which a string that goes over several lines stands in one.
fn all_text_in(folder: &str) -> String {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    let mut all = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(path).unwrap();
                let mut lines = text.split("\\\n");
                all.push_str(lines.next().unwrap());
                for line in lines {
                    all.push_str(line.trim_start());
                }
            }
        }
    }
    all
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    for page in [
        "README.md",
        "docs/configuration.md",
        "docs/security.md",
        "docs/operations.md",
        "docs/troubleshooting.md",
        "docs/development.md",
    ] {
        let folder = Path::new(page).parent().unwrap();
        for target in read(page).split("](").skip(1) {
            let target = target.split(')').next().unwrap();
            if target.starts_with("http") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() {
                page.into()
            } else {
                folder.join(file)
            };
            let text = read(file.to_str().unwrap());
            let headings = text.lines().filter(|line| line.starts_with('#'));
            let mut anchors = headings.map(|line| {
                line.trim_start_matches(['#', ' '])
                    .to_lowercase()
                    .replace(' ', "-")
            });
            assert!(
                heading.is_empty() || anchors.any(|anchor| anchor == heading),
                "{page}: {target}"
            );
        }
    }
}
