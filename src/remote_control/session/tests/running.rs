//! Cut off from its service, and back; and what it complains of while it goes on.

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
    Effect::Tell(Notice::CutOff { lasts, restart })
}

/// Runs for an hour, and then loses its service.
fn lost(terms: Terms) -> Life {
    let mut life = Life::running(terms);
    life.on(connected());
    assert_eq!(life.pass(HOUR).on(reconnecting(0)), []);
    life
}

#[test]
fn people_hear_once_that_it_is_cut_off_and_once_that_it_is_back() {
    let mut life = lost(TERMS);
    assert_eq!(life.sleeps(), Some(LIMIT));
    assert_eq!(life.wake(), [cut_off(LIMIT, Restart::Never)]);
    assert_eq!(life.session.next_wake(&life.terms), None);
    assert!(life.session.is_cut_off());
    assert_eq!(life.pass(HOUR).on(reconnecting(4200)), []);
    let after = HOUR + LIMIT;
    assert_eq!(
        life.on(connected()),
        [Effect::Tell(Notice::Reconnected { after })]
    );
    assert_eq!(life.on(connected()), []);
    assert!(!life.session.is_cut_off());
}

#[test]
fn a_short_interruption_is_nobodys_concern() {
    let mut life = lost(terms(None, Restart::OnExit));
    assert_eq!(life.pass(9 * MINUTE).on(connected()), []);
    assert_eq!(life.session.next_wake(&life.terms), None);
}

#[test]
fn the_time_that_the_program_tells_counts_as_far_as_it_is_possible() {
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
fn a_program_that_claims_one_thing_and_another_makes_few_words() {
    let mut life = lost(TERMS);
    life.wake();
    life.on(connected());
    let mut told = 0;
    for _ in 0..3600 {
        life.pass(SECOND).on(reconnecting(86_400));
        if life.session.next_wake(&life.terms) <= Some(at(life.elapsed).uptime) {
            told += life.on(Event::TimeCame).len();
        }
        told += life.on(connected()).len();
    }
    assert!(told <= 12, "{told} in an hour");
}

#[test]
fn a_session_that_is_stuck_is_restarted_where_that_is_wanted() {
    let mut life = lost(terms(None, Restart::OnExit));
    assert_eq!(life.wake(), [cut_off(LIMIT, Restart::OnExit)]);
    assert_eq!(life.sleeps(), Some(MINUTE), "it may give up by itself");
    assert_eq!(life.wake(), [Effect::EndTree(Some(process(1)))]);
    let effects = life.on(gone());
    let ending = Ending::CutOff {
        lasted: LIMIT + MINUTE,
    };
    assert!(
        matches!(effects.last(), Some(Effect::Tell(Notice::Restarting { ending: it, .. })) if *it == ending),
        "{effects:?}"
    );
    // The next process has said nothing yet.
    life.wake();
    assert_eq!(life.session.connection(BEGIN), None);
}

#[test]
fn a_session_that_is_cut_off_ends_with_its_time_all_the_same() {
    let mut life = lost(terms(Some(HOUR + MINUTE), Restart::OnExit));
    assert!(matches!(
        life.wake()[..],
        [Effect::Tell(Notice::EndsSoon { .. })]
    ));
    assert_eq!(life.wake(), [Effect::EndTree(Some(process(1)))]);
    assert_eq!(finished(life.on(gone())).ending, Ending::Expired);
}

#[test]
fn what_is_known_of_the_connection_is_kept_over_a_restart_of_the_bot() {
    let mut life = lost(TERMS);
    life.wake();
    let record = serde_json::to_string(&life.session).unwrap();
    life.session = serde_json::from_str(&record).unwrap();
    life.restore(None, false, at(life.elapsed));
    assert_eq!(life.on(reconnecting(600)), [], "told already");
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

fn told(cause: Cause, line: &str, in_room: bool) -> [Effect; 1] {
    [Effect::Tell(Notice::Complained {
        cause,
        quote: quote(line),
        in_room,
        requesters: vec!["alice".to_owned()],
    })]
}

#[test]
fn each_complaint_is_quoted_once_and_the_room_hears_of_the_first() {
    let mut life = Life::starting(TERMS);
    let moon = |in_room| told(Cause::Unknown, "Error: moon 1", in_room);
    // Whoever waits hears soon what comes of it.
    assert_eq!(life.on(unknown("Error: moon 1")), moon(false));
    life.show_and_deliver("one");
    assert_eq!(life.on(unknown("Error: moon 2")), []);
    let sun = "Error: sun";
    assert_eq!(life.on(unknown(sun)), told(Cause::Unknown, sun, true));
    assert_eq!(
        life.on(unknown("Error: star")),
        told(Cause::Unknown, "Error: star", false)
    );
    for letter in 'a'..='z' {
        life.on(unknown(&format!("Error: {letter}")));
    }
    assert_eq!(life.on(unknown("Error: zz")), [], "enough");
    life.on(Event::StopRequested(request("carol")));
    assert_eq!(life.on(unknown("Error: end")), []);
}

#[test]
fn what_it_ends_of_is_quoted_and_what_was_quoted_before_a_restart_is_not() {
    let mut life = Life::running(terms(None, Restart::OnExit));
    let moon = || unknown("Error: moon");
    life.on(Event::Exited(Exit::Code(1), Some(Cause::Unknown)));
    assert_eq!(life.on(moon()), told(Cause::Unknown, "Error: moon", false));
    life.on(gone());
    life.wake();
    life.on(Event::Spawned(process(2)));
    assert_eq!(life.on(moon()), []);
}

#[test]
fn that_conversations_cannot_start_is_told_once_for_each_process() {
    let mut life = Life::running(terms(None, Restart::OnExit));
    for process_id in [2, 3] {
        let gone_is_told = told(Cause::ProgramGone, "gone 1", true);
        let program_gone = |line| Event::Complained(Cause::ProgramGone, quote(line));
        assert_eq!(life.on(program_gone("gone 1")), gone_is_told);
        assert_eq!(life.on(program_gone("gone for good")), []);
        life.on(exited());
        life.on(gone());
        life.wake();
        life.on(Event::Spawned(process(process_id)));
        life.on(Event::LinkShown(link("two")));
    }
}
