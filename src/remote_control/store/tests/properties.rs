//! What holds for every record: of every session that can be, of a damaged disk, of any file that lies in a record's place.

use std::time::Duration;

use proptest::{prelude::*, sample::Index};
use serde_json::{Value, json};

use super::*;
use crate::{
    link::Link,
    remote_control::{
        Cause, Exit, NotSpawned, ProcessIdentity, Status, StopReport,
        session::{Action, Beginning, Event, Moment, Request, Restart, Terms},
    },
};

const TERMS: Terms = Terms {
    link_timeout: Duration::from_secs(30),
    max_duration: Some(Duration::from_hours(12)),
    restart: Restart::OnExit,
};

fn at(seconds: u32) -> Moment {
    let since = Duration::from_secs(seconds.into());
    Moment {
        wall: UNIX_EPOCH + Duration::from_hours(24 * 365 * 56) + since,
        uptime: Duration::from_hours(100) + since,
    }
}

fn request(number: u8) -> Request {
    Request {
        requester: format!("@user{number}:example.org"),
        reference: format!("${number}"),
    }
}

/// One of everything that can happen; of a few people, processes, links and deliveries.
fn event(kind: u8, number: u8) -> Event {
    let request = request(number);
    let process = json!({ "pid": number, "start_time": 1, "boot_id": "boot" });
    match kind % 12 {
        0 => Event::LinkRequested(request),
        1 => Event::StopRequested(request),
        2 => Event::ExtensionRequested(request, Duration::from_hours(24 * 30)),
        3 => Event::Spawned(serde_json::from_value(process).unwrap()),
        4 => Event::NotSpawned(NotSpawned::Other {
            reason: format!("\"{number}\n"),
        }),
        5 => Event::LinkShown(Link::parse(&format!("https://claude.ai/code/{number}")).unwrap()),
        6 => Event::LinkTimedOut(Some(Cause::ConsentAsked)),
        7 => Event::Exited(Exit::Code(i32::from(number)), None),
        8 => Event::TreeGone(StopReport {
            processes: 1,
            killed: 0,
            took: Duration::ZERO,
        }),
        9 => Event::TimeCame,
        10 => Event::Delivered {
            number: number.into(),
            receipt: format!("!room $event{number}"),
        },
        _ => Event::Undeliverable {
            number: number.into(),
        },
    }
}

/// A record of whatever can become of a session, until it is over.
fn record() -> impl Strategy<Value = Record> {
    // The first events are those of a good life, more often than not.
    let good = prop::sample::select(vec![
        vec![],
        vec![(3, 0)],
        vec![(3, 0), (5, 0)],
        vec![(3, 0), (5, 0), (10, 0)],
        vec![(3, 0), (5, 0), (7, 0), (8, 0)],
    ]);
    let events = prop::collection::vec((0..12_u8, 0..3_u8), 0..8);
    let waits = prop::collection::vec(0..50_000_u32, 16);
    (good, events, waits)
        .prop_map(|(good, events, waits)| record_of(&[good, events].concat(), &waits))
}

/// The record of a session that went through these events, with so many seconds before each; until it is over.
fn record_of(events: &[(u8, u8)], waits: &[u32]) -> Record {
    let requests = vec![request(0)];
    let (mut session, _) = Session::new(
        SessionId::random(),
        Beginning::Fresh,
        requests,
        &TERMS,
        at(0),
    );
    let mut record = Record::new(None, Vec::new());
    let mut now = 0;
    for ((kind, number), wait) in events.iter().zip(waits) {
        now += wait;
        let before = session.clone();
        for action in session.on(event(*kind, *number), &TERMS, at(now)) {
            match action {
                Action::Finish(_) => {
                    record.session = Some(before);
                    return record;
                }
                Action::Withdraw(old) => {
                    let withdrawals = old.into_iter().map(|delivery| Withdrawal {
                        session: before.id().clone(),
                        delivery,
                    });
                    record.withdrawals.extend(withdrawals);
                }
                _ => {}
            }
        }
    }
    record.session = Some(session);
    record
}

/// What may stand anywhere in a damaged record.
fn other_values() -> [Value; 13] {
    [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(4.5),
        json!(u32::MAX),
        json!(1_u64 << 50),
        json!(u64::MAX),
        json!(f64::MAX),
        json!(""),
        json!("https://claude.ai/code/session_x"),
        json!([]),
        json!({}),
    ]
}

/// A record in which some values are others, or gone.
fn damaged_record() -> impl Strategy<Value = Value> {
    let other = prop::sample::select(other_values().to_vec());
    let damage = (any::<Index>(), prop::option::of(other));
    (record(), prop::collection::vec(damage, 1..4)).prop_map(|(record, damages)| {
        let mut root = serde_json::to_value(&record).unwrap();
        for (at, other) in damages {
            let mut pointers = Vec::new();
            collect_pointers(&root, String::new(), &mut pointers);
            let pointer = at.get(&pointers);
            let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
            match (other, root.pointer_mut(parent)) {
                (Some(other), _) => *root.pointer_mut(pointer).unwrap() = other,
                (None, Some(Value::Object(entries))) => drop(entries.remove(key)),
                (None, Some(Value::Array(items))) => drop(items.pop()),
                (None, _) => root = Value::Null,
            }
        }
        root
    })
}

fn collect_pointers(value: &Value, pointer: String, pointers: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(entries) => entries
            .iter()
            .map(|(key, value)| (key.clone(), value))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, value)| (index.to_string(), value))
            .collect(),
        _ => Vec::new(),
    };
    for (key, value) in below {
        collect_pointers(value, format!("{pointer}/{key}"), pointers);
    }
    pointers.push(pointer);
}

/// Lets a session that came from disk meet everything that can happen next.
fn live_on(session: &Session) {
    let process: ProcessIdentity =
        serde_json::from_value(json!({ "pid": 1, "start_time": 1, "boot_id": "x" })).unwrap();
    for (found, booted) in [(None, false), (None, true), (Some(process), true)] {
        let mut resumed = session.clone();
        drop(resumed.resume(found, booted, &TERMS, at(1)));
        for kind in 0..12 {
            let mut session = resumed.clone();
            drop(session.on(event(kind, 0), &TERMS, at(2)));
            drop(session.on(event(0, 1), &TERMS, at(3)));
            std::hint::black_box(session.next_wake());
        }
    }
}

#[track_caller]
fn assert_shows_nothing(reason: &str) {
    let shown = ["claude.ai", "user", "event"]
        .into_iter()
        .find(|part| reason.contains(part));
    assert!(shown.is_none(), "{reason}");
}

/// Asserts that a damaged record is refused in words that show nothing of it, or that of a session that can be shown and go on.
fn assert_refused_or_sound(damaged: &Value) {
    let record = match parse(&serde_json::to_vec(damaged).unwrap()) {
        Ok(record) => record,
        Err(reason) => return assert_shows_nothing(&reason),
    };
    let status = Status::of(&name(), record.session.as_ref(), Duration::from_hours(100));
    if let Some(session) = status.session {
        let year_10000 = UNIX_EPOCH + Duration::from_hours(24 * 2_932_897);
        assert!(
            session.since < year_10000,
            "no calendar has {:?}",
            session.since
        );
    }
    record.session.iter().for_each(live_on);
}

#[test]
fn a_record_with_one_damaged_value_is_refused_or_of_a_session_that_can_go_on() {
    let good_life = [(3, 0), (5, 0), (10, 0), (0, 1), (7, 0), (8, 0)];
    for length in 0..=good_life.len() {
        let record = serde_json::to_value(record_of(&good_life[..length], &[1; 6])).unwrap();
        let mut pointers = Vec::new();
        collect_pointers(&record, String::new(), &mut pointers);
        for pointer in pointers {
            for other in other_values() {
                let mut damaged = record.clone();
                *damaged.pointer_mut(&pointer).unwrap() = other;
                assert_refused_or_sound(&damaged);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_record_of_every_session_comes_back_as_it_was(record in record()) {
        let text = serde_json::to_vec_pretty(&record).unwrap();
        prop_assert_eq!(parse(&text).map_err(TestCaseError::fail)?, record);
    }

    #[test]
    fn a_damaged_record_is_refused_or_of_a_session_that_can_go_on(damaged in damaged_record()) {
        assert_refused_or_sound(&damaged);
    }

    #[test]
    fn a_record_that_was_cut_is_refused(record in record(), length in any::<Index>()) {
        let text = serde_json::to_vec(&record).unwrap();
        let refused = parse(&text[..length.index(text.len())]);
        assert_shows_nothing(&refused.map(|_| ()).unwrap_err());
    }

    #[test]
    fn whatever_lies_in_a_records_place_is_set_aside_and_kept(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            r#"[{}\[\]":, a-z0-9]{0,60}"#.prop_map(String::into_bytes),
        ],
    ) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_owned()).unwrap();
        let path = store.project_folder(&name()).unwrap().join(RECORD);
        fs::write(&path, &bytes).unwrap();
        let peeked = Store::peek(folder.path()).unwrap();
        prop_assert!(matches!(&peeked[..], [(_, None)]));
        let found = store.load_all().unwrap();
        prop_assert!(matches!(&found[..], [(_, Found::Unreadable)]));
        let kept = fs::read_dir(path.parent().unwrap()).unwrap().next().unwrap().unwrap();
        prop_assert_eq!(fs::read(kept.path()).unwrap(), bytes);
    }
}
