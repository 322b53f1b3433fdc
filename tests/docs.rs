//! Compares README and docs/ with the program. The tests of src/config/ compare the reference of the configuration.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "shared with tidy.rs, which uses the rest")]
#[path = "tidy/source.rs"]
mod source;

use std::{collections::BTreeSet, fs, path::Path, sync::LazyLock};

use clap::CommandFactory as _;
use rcbot::{Topic, cli::Arguments, list_of_commands};
use regex::Regex;

use source::{SourceFile, rust_files};

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The texts in backticks in the first cell of each row of a page's tables.
fn first_cells(page: &str) -> Vec<String> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = rows.filter_map(|row| row.split(" | ").next());
    let in_backticks = |cell: &str| -> Vec<String> {
        let parts = cell.split('`').skip(1).step_by(2);
        parts.map(str::to_owned).collect()
    };
    cells.flat_map(in_backticks).collect()
}

/// The commands among these texts, with arguments, without the prefix.
fn commands(texts: &[String], prefix: &str) -> BTreeSet<String> {
    let commands = texts.iter().filter_map(|text| text.strip_prefix(prefix));
    commands.map(str::to_owned).collect()
}

#[test]
fn readme_lists_the_commands_that_help_lists() {
    let help = list_of_commands("!rc", &[], true).plain;
    let in_help: Vec<_> = help
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect();
    let in_help = commands(&in_help, "!rc ");
    assert!(in_help.len() >= 8, "{in_help:?}");
    let readme = read("README.md");
    let table = readme.split("## Commands").nth(1).unwrap();
    let table = table.split("\n\n").next().unwrap();
    assert_eq!(commands(&first_cells(table), "!rc "), in_help);
}

#[test]
fn readme_lists_the_commands_of_the_binary() {
    let binary = Arguments::command();
    let in_binary = binary
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let in_binary: BTreeSet<_> = in_binary
        .map(|command| command.get_name().to_owned())
        .collect();
    assert!(in_binary.len() >= 8, "{in_binary:?}");
    let in_readme: BTreeSet<_> = commands(&first_cells(&read("README.md")), "rcbot ")
        .iter()
        .map(|command| command.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(in_readme, in_binary);
}

/// Messages of homeservers, not of rcbot.
const OF_HOMESERVERS: [&str; 2] = ["M_EXCLUSIVE", "M_UNKNOWN_TOKEN"];

#[test]
fn every_message_in_the_troubleshooting_is_in_the_source() {
    let page = read("docs/troubleshooting.md");
    let mut messages = first_cells(&page);
    let in_lists = page.lines().filter_map(|line| line.strip_prefix("- `"));
    messages.extend(in_lists.filter_map(|line| Some(line.split_once('`')?.0.to_owned())));
    assert!(messages.len() > 30, "{messages:#?}");
    let said: Vec<_> = rust_files("src")
        .iter()
        .flat_map(SourceFile::literals)
        .map(|literal| with_gaps(&literal))
        .collect();
    messages.retain(|message| {
        let message = with_gaps(message);
        let message = message.trim_matches(['.', ' ']);
        assert!(message.len() > 5, "it could be part of anything: {message}");
        !OF_HOMESERVERS.contains(&message) && !said.iter().any(|said| said.contains(message))
    });
    assert!(messages.is_empty(), "said nowhere in src/: {messages:#?}");
}

#[test]
fn every_topic_has_an_anchor_in_the_troubleshooting() {
    let page = read("docs/troubleshooting.md");
    let places = page.split("<a id=\"").skip(1);
    let mut places: Vec<_> = places
        .filter_map(|rest| Some(rest.split_once('"')?.0))
        .collect();
    places.sort_unstable();
    let mut topics: Vec<_> = Topic::ALL.iter().map(|topic| topic.name()).collect();
    topics.sort_unstable();
    assert_eq!(places, topics);
}

/// Puts two dots in place of what varies: a name in braces in the source, a number in the docs.
fn with_gaps(text: &str) -> String {
    static GAP: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\{[^{}]*\}|[0-9]+").unwrap());
    GAP.replace_all(text, "..").replace('`', "")
}

#[test]
fn comments_and_tests_are_not_literals() {
    let text = "// \"a\"\nfn f() { g(\"b {c} \\\n    d\"); }\n#[cfg(test)]\nmod tests {\n    const E: &str = \"e\";\n}";
    let name = "src/x.rs".to_owned();
    let text = text.to_owned();
    let literals = SourceFile { name, text }.literals();
    assert_eq!(literals, ["\"b {c} d\""]);
    assert_eq!(with_gaps("`b` {c} 12"), "b .. ..");
}

#[test]
fn each_row_of_the_threat_model_has_a_test() {
    let page = read("docs/security.md");
    let table = page.split("## Against whom").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| "));
    // Without the head of the table, and the line below it.
    let rows: Vec<_> = rows.skip(2).collect();
    assert!(rows.len() >= 7, "{rows:#?}");
    let tests: String = rust_files("tests/it")
        .into_iter()
        .map(|file| file.text)
        .collect();
    for row in rows {
        let last_cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let name = last_cell.trim_matches('`');
        assert!(tests.contains(&format!("async fn {name}(")), "{row}");
    }
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    for page in [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/configuration.md",
        "docs/security.md",
        "docs/operations.md",
        "docs/troubleshooting.md",
        "docs/claude.md",
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
            // A picture, a script or a folder has no headings.
            if heading.is_empty() {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file);
                assert!(path.exists(), "{page}: {target}");
                continue;
            }
            let text = read(file.to_str().unwrap());
            let headings = text.lines().filter(|line| line.starts_with('#'));
            let mut anchors = headings.map(|line| {
                line.trim_start_matches(['#', ' '])
                    .to_lowercase()
                    .replace(' ', "-")
            });
            assert!(anchors.any(|anchor| anchor == heading), "{page}: {target}");
        }
    }
}

#[test]
fn the_files_that_the_page_about_claude_names_are_there() {
    let files = rust_files("src/remote_control");
    let page = read("docs/claude.md");
    let is_file = |text: &&str| Path::new(text).extension() == Some("rs".as_ref());
    for name in page.split('`').filter(is_file) {
        let is_it = |file: &SourceFile| Path::new(&file.name).ends_with(name);
        assert!(files.iter().any(is_it), "{name}");
    }
}
