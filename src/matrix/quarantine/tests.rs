//! What is handed to the SDK, in which parts, and whose events are not.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const KEY: &str = "nqOvzeuGWT/sRx3h7+MHoInYj3Uk2LD/unI9kDYcHwk";

fn quarantine() -> (TempDir, Quarantine) {
    let folder = TempDir::new().unwrap();
    let quarantine = Quarantine::load(&MatrixFolder::new(folder.path().to_owned())).unwrap();
    (folder, quarantine)
}

fn event(sender: &str) -> Value {
    let content = json!({
        "algorithm": "m.olm.v1.curve25519-aes-sha2", "sender_key": KEY, "ciphertext": { KEY: {} },
    });
    json!({ "type": "m.room.encrypted", "sender": sender, "content": content })
}

fn answer(senders: &[&str]) -> Bytes {
    let events: Vec<Value> = senders.iter().map(|sender| event(sender)).collect();
    let rooms = json!({ "join": { "!r:x": {} } });
    let answer = json!({ "next_batch": "b", "rooms": rooms, "to_device": { "events": events } });
    answer.to_string().into()
}

/// The token with which the SDK asks next, who sent what it got, and whether it got the rest.
fn read(part: &Bytes) -> (String, Vec<String>, bool) {
    let part: Value = serde_json::from_slice(part).unwrap();
    let events = part["to_device"]["events"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let senders = events.iter().map(|event| text(&event["sender"]));
    (
        text(&part["next_batch"]),
        senders.collect(),
        part.get("rooms").is_some(),
    )
}

/// All that the SDK gets of an answer, by the senders of each part.
fn parts(quarantine: &Quarantine, answer: Bytes) -> Vec<Vec<String>> {
    let mut part = quarantine.sync_answer("a", answer);
    let mut parts = Vec::new();
    loop {
        let (token, senders, is_last) = read(&part);
        parts.push(senders);
        if is_last {
            assert_eq!(token, "b");
            assert!(!quarantine.holds_more());
            return parts;
        }
        assert_eq!(honest(&token), "a");
        assert!(quarantine.holds_more());
        part = quarantine.next_part(&token).unwrap();
    }
}

#[test]
fn what_several_users_sent_is_handed_out_by_user_and_the_rest_comes_last() {
    let (_folder, quarantine) = quarantine();
    let parts = parts(&quarantine, answer(&["@a:x", "@b:x", "@a:x", "@c:x"]));
    assert_eq!(parts, [vec!["@a:x", "@a:x"], vec!["@b:x"], vec!["@c:x"]]);
    assert!(quarantine.next_part("a").is_none());
}

#[test]
fn an_answer_of_which_all_is_dropped_is_not_taken_for_an_empty_one() {
    let (_folder, quarantine) = quarantine();
    let event = json!({ "type": "m.dummy", "sender": "@m:x", "content": {} });
    let flood = json!({ "next_batch": "b", "to_device": { "events": [event] } });
    quarantine.sync_answer("a", flood.to_string().into());
    assert!(quarantine.settle());
    let empty = json!({ "next_batch": "c", "to_device": { "events": [] } });
    quarantine.sync_answer("b", empty.to_string().into());
    assert!(!quarantine.settle());
}

#[test]
fn what_one_user_sent_is_handed_out_as_it_came() {
    let (_folder, quarantine) = quarantine();
    let answer = answer(&["@a:x", "@a:x"]);
    let handed_out = quarantine.sync_answer("a", answer.clone());
    assert_eq!(handed_out.as_ptr(), answer.as_ptr());
}

#[test]
fn after_a_panic_nothing_of_that_user_is_handed_out_in_this_life_and_the_next() {
    let (folder, quarantine) = quarantine();
    let senders = ["@a:x", "@m:x", "@b:x"];
    let (token, ..) = read(&quarantine.sync_answer("a", answer(&senders)));
    quarantine.next_part(&token).unwrap();
    let fault = quarantine.blame();
    assert!(
        matches!(&fault, Fault::SetAside { user } if user == "@m:x"),
        "{fault}"
    );
    let next = Quarantine::load(&MatrixFolder::new(folder.path().to_owned())).unwrap();
    for quarantine in [quarantine, next] {
        assert_eq!(parts(&quarantine, answer(&senders)), [["@a:x"], ["@b:x"]]);
        assert_eq!(
            parts(&quarantine, answer(&["@m:x"])),
            [Vec::<String>::new()]
        );
    }
}

#[test]
fn a_panic_that_cannot_be_written_down_is_known_to_the_run_and_to_its_next_connection() {
    let (folder, quarantine) = quarantine();
    drop(folder);
    let senders = ["@m:x", "@b:x"];
    let (token, ..) = read(&quarantine.sync_answer("a", answer(&senders)));
    assert!(matches!(quarantine.blame(), Fault::SetAside { .. }));
    quarantine.start_over();
    assert!(quarantine.next_part(&token).is_none());
    assert_eq!(parts(&quarantine, answer(&senders)), [["@b:x"]]);
}

#[test]
fn a_panic_at_nobodys_events_is_not_survived() {
    let (_folder, quarantine) = quarantine();
    assert!(matches!(quarantine.blame(), Fault::Panicked));
    quarantine.sync_answer("a", answer(&["@m:x"]));
    quarantine.settle();
    assert!(matches!(quarantine.blame(), Fault::Panicked));
    quarantine.sync_answer("a", answer(&["@m:x"]));
    assert!(quarantine.next_part("b").is_none());
    assert!(matches!(quarantine.blame(), Fault::Panicked));
}

#[test]
fn whoever_does_it_again_waits_longer_and_nobody_waits_for_ever() {
    let (_folder, quarantine) = quarantine();
    let mut state = quarantine.state();
    let begin = SystemTime::now();
    state.note_offence("@m:x".to_owned(), begin);
    assert!(!state.takes_from("@m:x", begin));
    assert!(!state.takes_from("@m:x", begin - HOUR));
    assert!(state.takes_from("@m:x", begin + FIRST_TIME));
    let again = begin + FIRST_TIME;
    state.note_offence("@m:x".to_owned(), again);
    assert!(!state.takes_from("@m:x", again + 10 * HOUR));
    assert!(state.takes_from("@m:x", again + FURTHER_TIMES));
}

#[test]
fn an_attacker_with_many_accounts_keeps_strangers_out_and_nobody_else() {
    let (_folder, quarantine) = quarantine();
    let mut state = quarantine.state();
    let begin = SystemTime::now();
    for number in 0..2_000 {
        state.note_offence(format!("@{number}:x"), begin);
    }
    assert_eq!(state.offenders.len(), MOST_OFFENDERS);
    assert!(state.is_besieged(begin));
    assert!(
        state.takes_from("@stranger:x", begin),
        "not known who is one"
    );
    state.acquaintances = Some(BTreeSet::from(["@alice:x".to_owned()]));
    assert!(state.takes_from("@alice:x", begin));
    assert!(!state.takes_from("@stranger:x", begin));
    assert!(state.takes_from("@stranger:x", begin + FIRST_TIME));
}

#[test]
fn a_flood_of_what_is_dropped_leaves_few_lines() {
    let (_folder, quarantine) = quarantine();
    let mut state = quarantine.state();
    for number in 0..1_000 {
        let (user, what) = (format!("@{number}:x"), "m.dummy".to_owned());
        state.tell(Dropped { user, what });
    }
    assert_eq!(state.told.len(), MOST_LINES);
}
