//! Cut off from its service, and back.

use super::*;

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
