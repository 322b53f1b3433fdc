//! YAML files with mistakes: a missing key, a value of another type, a typing error.

use proptest::{prelude::*, sample::Index};
use serde_yaml::{Mapping, Value};

/// Values of other types, none of which is valid everywhere.
const OTHER_VALUES: [&str; 5] = ["null", "-1", "some text", "[[]]", "{ x: y }"];

/// The characters of typing errors: those special in YAML, and letters.
const SLIPS: &str = "ax_1 .,:;-?*&!|>%@`'\"[]{}#~<\\/\t\n\u{e9}";

/// A file with one change in it.
pub(crate) struct Changed {
    /// The key that was changed, such as `bot.localpart`.
    pub(crate) key: String,
    /// What was done, for the message of a failed test.
    pub(crate) how: String,
    /// The file.
    pub(crate) text: String,
}

/// The file without one of its keys, for each key.
pub(crate) fn without_each_key(text: &str) -> Vec<Changed> {
    let leave_out = |values: &mut Mapping, key: &str| drop(values.remove(key));
    changed(text, "left out", leave_out)
}

/// The file with a value of another type in place of one of its values, for each value and type.
pub(crate) fn with_other_values(text: &str) -> Vec<Changed> {
    let all = OTHER_VALUES.map(|other| {
        let replace = |values: &mut Mapping, key: &str| values[key] = parse(other);
        changed(text, &format!("made {other}"), replace)
    });
    all.into_iter().flatten().collect()
}

/// The file with this change at one of its keys, for each key. The change gets the mapping that the key is in.
fn changed(text: &str, how: &str, change: impl Fn(&mut Mapping, &str)) -> Vec<Changed> {
    let root = parse(text);
    let at = |path: &Vec<String>| {
        let mut changed = root.clone();
        let (key, parents) = path.split_last().expect("a path has a key");
        let parents = parents.iter();
        let parent = parents.fold(&mut changed, |value, key| &mut value[key.as_str()]);
        change(parent.as_mapping_mut().expect("a mapping"), key);
        Changed {
            key: path.join("."),
            how: how.to_owned(),
            text: serde_yaml::to_string(&changed).unwrap(),
        }
    };
    paths(&root).iter().map(at).collect()
}

/// The text without its comments, and with a few characters left out, put in, replaced or swapped.
pub(crate) fn with_slips(text: &str) -> impl Strategy<Value = String> + use<> {
    let is_comment = |line: &&str| line.trim_start().starts_with('#');
    let lines = text.lines().filter(|line| !is_comment(line));
    let characters: Vec<char> = lines.flat_map(|line| line.chars().chain(['\n'])).collect();
    let slips: Vec<char> = SLIPS.chars().collect();
    let slip = (any::<Index>(), 0..4_u8, prop::sample::select(slips));
    prop::collection::vec(slip, 1..4).prop_map(move |slips| {
        let mut characters = characters.clone();
        for (at, kind, character) in slips {
            let length = characters.len();
            if length == 0 {
                break;
            }
            let at = at.index(length);
            match kind {
                0 => drop(characters.remove(at)),
                1 => characters.insert(at, character),
                2 => characters[at] = character,
                _ => characters.swap(at, (at + 1) % length),
            }
        }
        characters.into_iter().collect()
    })
}

/// A text that may be YAML: made of what YAML is made of.
pub(crate) fn yaml_like() -> impl Strategy<Value = String> {
    let pieces = [
        "key: ",
        "key:\n",
        "- ",
        "  ",
        "\n",
        "&a ",
        "*a",
        "<<: ",
        "? ",
        "!!int ",
        "!x ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "'",
        "\"",
        "|\n",
        ">-\n",
        "---\n",
        "...\n",
        "#",
        "1",
        "0x1f",
        "~",
        ".nan",
        "%YAML",
        "\t",
        "\u{feff}",
        "homeserver:\n",
        "users:\n",
        "as_token: ",
        "namespaces: ",
    ];
    let piece = prop_oneof![
        4 => prop::sample::select(pieces.map(str::to_owned).to_vec()),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn parse(text: &str) -> Value {
    serde_yaml::from_str(text).expect("the text is YAML")
}

/// The path of each key of the mappings, those within mappings included.
fn paths(value: &Value) -> Vec<Vec<String>> {
    let entries = value.as_mapping().into_iter().flatten();
    entries
        .flat_map(|(key, value)| {
            let key = key.as_str().expect("a key is a text").to_owned();
            let below = paths(value).into_iter().map({
                let key = key.clone();
                move |path| [vec![key.clone()], path].concat()
            });
            std::iter::once(vec![key]).chain(below.collect::<Vec<_>>())
        })
        .collect()
}
