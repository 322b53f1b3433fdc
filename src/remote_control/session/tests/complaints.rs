//! What it complains of while it goes on.

use super::*;
use crate::remote_control::claude::{LinkPattern, Quote};

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
