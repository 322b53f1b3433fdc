//! Cut off from its service, and back; and complaints of a running program.

use super::*;
use crate::remote_control::claude::{LinkPattern, Quote};

const SECOND: Duration = Duration::from_secs(1);

fn connected() -> Event {
    Event::Connection(Connection::Connected)
}

fn reconnecting(seconds: u32) -> Event {
    Event::Connection(Connection::Reconnecting {
        disconnected: Some(seconds * SECOND),
    })
}

fn cut_off(lasts: Duration, restart: Restart) -> Effect {
    Effect::Notify(Notice::CutOff { lasts, restart })
}

/// Runs for an hour, and then loses its service.
fn lost(terms: Terms) -> Life {
    let mut life = Life::running(terms);
    life.on(connected());
    assert_eq!(life.pass(HOUR).on(reconnecting(0)), []);
    life
}

#[test]
fn a_cut_off_and_the_reconnection_are_each_reported_once() {
    let mut life = lost(TERMS);
    assert_eq!(life.sleeps(), Some(LIMIT));
    assert_eq!(life.wake(), [cut_off(LIMIT, Restart::Never)]);
    assert_eq!(life.session.next_wake(&life.terms), None);
    assert!(life.session.is_cut_off());
    assert_eq!(life.pass(HOUR).on(reconnecting(4200)), []);
    let after = HOUR + LIMIT;
    assert_eq!(
        life.on(connected()),
        [Effect::Notify(Notice::Reconnected { after })]
    );
    assert_eq!(life.on(connected()), []);
    assert!(!life.session.is_cut_off());
}

#[test]
fn a_cut_off_from_before_the_host_was_booted_delays_no_report_of_another() {
    let mut life = lost(terms(None, Restart::OnExit));
    assert_eq!(life.wake(), [cut_off(LIMIT, Restart::OnExit)]);
    let up = |time| Moment {
        wall: UNIX_EPOCH + BEGIN + 2 * HOUR,
        uptime: time,
    };
    assert_eq!(life.restore(None, true, up(MINUTE)), [Effect::EndTree]);
    let terms = life.terms;
    let mut on = |event, time| life.session.on(event, &terms, up(time));
    on(gone(), MINUTE);
    assert_eq!(on(Event::TimeCame, 2 * MINUTE), [Effect::Spawn]);
    on(Event::Spawned(process(2)), 2 * MINUTE);
    on(Event::LinkShown(link("one")), 2 * MINUTE);
    on(reconnecting(0), 3 * MINUTE);
    let report = on(Event::TimeCame, 3 * MINUTE + LIMIT);
    assert_eq!(report, [cut_off(LIMIT, Restart::OnExit)]);
}

#[test]
fn a_short_interruption_is_not_reported() {
    let mut life = lost(terms(None, Restart::OnExit));
    assert_eq!(life.pass(9 * MINUTE).on(connected()), []);
    assert_eq!(life.session.next_wake(&life.terms), None);
}

#[test]
fn the_time_that_the_program_claims_counts_as_far_as_it_is_possible() {
    let mut life = Life::running(TERMS);
    life.pass(HOUR).on(reconnecting(9 * 60));
    assert_eq!(life.sleeps(), Some(MINUTE));
    let said = life.session.connection(at(life.elapsed).uptime);
    let disconnected = Some(9 * MINUTE);
    assert_eq!(said, Some(Connection::Reconnecting { disconnected }));
    // It had its link a minute ago.
    let mut life = Life::running(TERMS);
    life.pass(MINUTE).on(reconnecting(u32::MAX));
    assert_eq!(life.sleeps(), Some(9 * MINUTE));
}

#[test]
fn contradictory_claims_cause_few_notices() {
    let mut life = lost(TERMS);
    life.wake();
    life.on(connected());
    let mut notices = 0;
    for _ in 0..3600 {
        life.pass(SECOND).on(reconnecting(86_400));
        if life.session.next_wake(&life.terms) <= Some(at(life.elapsed).uptime) {
            notices += life.on(Event::TimeCame).len();
        }
        notices += life.on(connected()).len();
    }
    assert!(notices <= 12, "{notices} in an hour");
}

#[test]
fn a_session_that_is_stuck_is_restarted_where_that_is_wanted() {
    let mut life = lost(terms(None, Restart::OnExit));
    assert_eq!(life.wake(), [cut_off(LIMIT, Restart::OnExit)]);
    assert_eq!(life.sleeps(), Some(MINUTE), "the program may give up first");
    assert_eq!(life.wake(), [Effect::EndTree]);
    let effects = life.on(gone());
    let ending = Ending::CutOff {
        lasted: LIMIT + MINUTE,
    };
    assert!(
        matches!(effects.last(), Some(Effect::Notify(Notice::Restarting { ending: it, .. })) if *it == ending),
        "{effects:?}"
    );
    // The next process has shown nothing yet.
    life.wake();
    assert_eq!(life.session.connection(BEGIN), None);
    // It ran well before, so that this is no second failure in a row.
    life.on(Event::Spawned(process(2)));
    life.on(Event::LinkShown(link("two")));
    life.pass(HOUR).on(reconnecting(0));
    life.wake();
    life.wake();
    life.on(gone());
    assert_eq!(life.sleeps(), Some(5 * SECOND));
}

#[test]
fn a_session_that_is_cut_off_ends_with_its_time_all_the_same() {
    let mut life = lost(terms(Some(HOUR + MINUTE), Restart::OnExit));
    assert!(matches!(
        life.wake()[..],
        [Effect::Notify(Notice::EndsSoon { .. })]
    ));
    assert_eq!(life.wake(), [Effect::EndTree]);
    assert_eq!(finished(life.on(gone())).ending, Ending::Expired);
}

#[test]
fn what_is_known_of_the_connection_is_kept_over_a_restart_of_the_bot() {
    let mut life = lost(TERMS);
    life.wake();
    let record = serde_json::to_string(&life.session).unwrap();
    life.session = serde_json::from_str(&record).unwrap();
    life.restore(None, false, at(life.elapsed));
    assert_eq!(life.on(reconnecting(600)), [], "reported already");
    assert!(life.session.is_cut_off());
    assert_eq!(life.on(connected()).len(), 1);
}

fn quote(line: &str) -> Quote {
    Quote::new(
        line,
        &LinkPattern::new("https://claude\\.ai/code/.+").unwrap(),
    )
}

fn unknown(line: &str) -> Event {
    Event::Complained(Cause::Unknown, quote(line))
}

fn complained(cause: Cause, line: &str, in_room: bool) -> [Effect; 1] {
    [Effect::Notify(Notice::Complained {
        cause,
        quote: quote(line),
        in_room,
    })]
}

#[test]
fn each_complaint_is_quoted_once_and_the_room_is_notified_of_the_first() {
    let mut life = Life::starting(TERMS);
    let moon = |in_room| complained(Cause::Unknown, "Error: moon 1", in_room);
    // A requester who waits for the link is quoted it too.
    assert_eq!(life.on(unknown("Error: moon 1")), moon(false));
    life.show_and_deliver("one");
    assert_eq!(life.on(unknown("Error: moon 2")), []);
    let sun = "Error: sun";
    assert_eq!(life.on(unknown(sun)), complained(Cause::Unknown, sun, true));
    assert_eq!(
        life.on(unknown("Error: star")),
        complained(Cause::Unknown, "Error: star", false)
    );
    for letter in 'a'..='z' {
        life.on(unknown(&format!("Error: {letter}")));
    }
    assert_eq!(life.on(unknown("Error: zz")), [], "enough");
    let mut stopping = Life::stopping(TERMS);
    assert_eq!(stopping.on(unknown("Error: end")), []);
}

#[test]
fn the_complaint_of_an_end_is_quoted_and_not_again_after_a_restart() {
    let mut life = Life::running(terms(None, Restart::OnExit));
    let moon = || unknown("Error: moon");
    life.on(Event::Exited(Exit::Code(1), Some(Cause::Unknown)));
    assert_eq!(
        life.on(moon()),
        complained(Cause::Unknown, "Error: moon", false)
    );
    life.on(gone());
    life.wake();
    life.on(Event::Spawned(process(2)));
    assert_eq!(life.on(moon()), []);
}

#[test]
fn what_keeps_conversations_from_starting_is_reported_once_for_each_process() {
    let mut life = Life::running(terms(None, Restart::OnExit));
    for process_id in [2, 3] {
        let reported = complained(Cause::ProgramGone, "gone 1", true);
        let program_gone = |line| Event::Complained(Cause::ProgramGone, quote(line));
        assert_eq!(life.on(program_gone("gone 1")), reported);
        assert_eq!(life.on(program_gone("gone for good")), []);
        life.on(exited());
        life.on(gone());
        life.wake();
        life.on(Event::Spawned(process(process_id)));
        life.on(Event::LinkShown(link("two")));
    }
}
