//! Whatever a session prints: the same links are found however the output is cut, none before its end was written, all of
//! them of the pattern's host; and a link after it is found.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rcbot::remote_control::{
    LinkPattern,
    claude::{OutputReader, Said, visible_text},
};

/// The default pattern, and one that leaves nearly everything to the check of the host.
static PATTERNS: LazyLock<[LinkPattern; 2]> = LazyLock::new(|| {
    [
        r"https://claude\.ai/code[/?][A-Za-z0-9_./?=&%~-]+",
        r"(?s)https://claude\.ai[/?#:].*",
    ]
    .map(|pattern| LinkPattern::new(pattern).unwrap())
});

/// Ends whatever sequence is under way (ECMA-48: CAN), a hyperlink, and the line.
const BACK_TO_TEXT: &[u8] = b"\x18\x1b]8;;\x07\n";

const OWN_LINE: &str =
    "Code anywhere with the Claude mobile app or https://claude.ai/code?environment=env_0123456789";
const LINK: &str = "https://claude.ai/code?environment=env_0123456789";

fuzz_target!(|output: &[u8]| {
    for pattern in &*PATTERNS {
        let whole = find(pattern, &[output]);
        for said in &whole {
            let (Said::Link(link) | Said::LinkAfter(link, _)) = said else {
                continue;
            };
            assert_eq!(link.host(), "claude.ai");
            assert!(
                ["/", "?", "#", ":"]
                    .iter()
                    .any(|end| link.starts_with(&format!("https://claude.ai{end}")))
            );
        }
        let bytes: Vec<_> = output.chunks(1).collect();
        assert_eq!(find(pattern, &bytes), whole);
        let (head, tail) = output.split_at(place_to_cut(output));
        assert_eq!(find(pattern, &[head, tail]), whole);

        let mut reader = OutputReader::new(pattern.clone());
        let early = reader.push(head);
        assert_eq!(early[..], whole[..early.len()]);
        drop(reader.push(BACK_TO_TEXT));
        assert_eq!(reader.push(OWN_LINE.as_bytes()), []);
        let [Said::Link(link)] = &reader.push(b"\n")[..] else {
            panic!("the link after the noise");
        };
        assert!(link.is(LINK));

        let shown = pattern.blot_out(&visible_text(output));
        assert!(!shown.contains("https://claude.ai"));
    }
});

fn find(pattern: &LinkPattern, pieces: &[&[u8]]) -> Vec<Said> {
    let mut reader = OutputReader::new(pattern.clone());
    let mut said: Vec<_> = pieces.iter().flat_map(|piece| reader.push(piece)).collect();
    said.extend(reader.unfinished());
    said
}

/// Any place, and the same for the same output.
fn place_to_cut(output: &[u8]) -> usize {
    let sum: usize = output.iter().map(|byte| usize::from(*byte)).sum();
    sum % (output.len() + 1)
}
