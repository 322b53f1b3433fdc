//! What holds for every record: of every session that can be, and of a file that was cut.

use std::time::{Duration, UNIX_EPOCH};

use proptest::{prelude::*, sample::Index};
use serde_json::json;

use super::*;
use crate::{
    link::Link,
    remote_control::{
        Cause, Exit, NotSpawned, Notice, StopReport,
        session::{Beginning, Effect, Event, Moment, Request, Restart, SessionId, Terms},
    },
};

const TERMS: Terms = Terms {
    link_timeout: Some(Duration::from_secs(30)),
    reconnect_limit: None,
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
    match kind % 13 {
        12 => Event::LinkRequested(request, Beginning::Resumed.into()),
        0 => Event::LinkRequested(request, Beginning::Fresh.into()),
        1 => Event::StopRequested(request),
        2 => Event::ExtensionRequested(request, Duration::from_hours(24 * 30)),
        3 => Event::Spawned(serde_json::from_value(process).unwrap()),
        4 => Event::NotSpawned(NotSpawned::Other {
            reason: format!("\"{number}\n"),
        }),
        5 => Event::LinkShown(Link::parse(&format!("https://claude.ai/code/{number}")).unwrap()),
        6 => Event::NoLink(Some(Cause::ConsentAsked)),
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
    let events = prop::collection::vec((0..13_u8, 0..3_u8), 0..8);
    let waits = prop::collection::vec(0..50_000_u32, 16);
    (good, events, waits)
        .prop_map(|(good, events, waits)| record_of(&[good, events].concat(), &waits))
}

/// The record of a session that went through these events, with so many seconds before each; until it is over.
fn record_of(events: &[(u8, u8)], waits: &[u32]) -> Record {
    let requests = vec![request(0)];
    let mut session = Session::new(
        SessionId::random(),
        Beginning::Fresh.into(),
        requests,
        &TERMS,
        at(0),
    );
    let mut record = Record::default();
    let mut now = 0;
    for ((kind, number), wait) in events.iter().zip(waits) {
        now += wait;
        let before = session.clone();
        for effect in session.on(event(*kind, *number), &TERMS, at(now)) {
            match effect {
                Effect::Finish(_) => {
                    record.session = Some(before);
                    return record;
                }
                Effect::Tell(Notice::Redact(old)) => record.add_redaction(old),
                _ => {}
            }
        }
    }
    record.session = Some(session);
    record
}

#[track_caller]
fn assert_shows_nothing(reason: &str) {
    let shown = ["claude.ai", "user", "event"]
        .into_iter()
        .find(|part| reason.contains(part));
    assert!(shown.is_none(), "{reason}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_record_of_every_session_comes_back_as_it_was(record in record()) {
        let text = serde_json::to_vec_pretty(&record).unwrap();
        let parsed = parse(&text).map_err(|Unreadable(reason)| TestCaseError::fail(reason))?;
        prop_assert_eq!(parsed, record);
    }

    #[test]
    fn a_record_that_was_cut_is_refused(record in record(), length in any::<Index>()) {
        let text = serde_json::to_vec(&record).unwrap();
        let refused = parse(&text[..length.index(text.len())]);
        assert_shows_nothing(&refused.map(|_| ()).unwrap_err().0);
    }
}
