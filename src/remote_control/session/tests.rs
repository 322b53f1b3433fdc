//! How a session reacts to events, as tables: an event and a time go in, effects come out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;
use crate::remote_control::{Notice, Outcome, StopReport};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// How long the host is up when a test begins.
const BEGIN: Duration = Duration::from_hours(100);

const LINK_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a session may be cut off.
const LIMIT: Duration = Duration::from_mins(10);

const TERMS: Terms = Terms {
    link_timeout: Some(LINK_TIMEOUT),
    max_duration: None,
    reconnect_limit: Some(LIMIT),
    restart: Restart::Never,
};

/// A moment, counted from the begin of the test.
fn at(elapsed: Duration) -> Moment {
    Moment {
        wall: UNIX_EPOCH + BEGIN + elapsed,
        uptime: BEGIN + elapsed,
    }
}

/// Any process.
fn process(pid: i32) -> ProcessIdentity {
    let json = serde_json::json!({ "pid": pid, "start_time": 1, "boot_id": "boot" });
    serde_json::from_value(json).unwrap()
}

fn request(requester: &str) -> Request {
    Request {
        requester: requester.to_owned(),
        reference: format!("asked by {requester}"),
    }
}

fn link(id: &str) -> Link {
    Link::parse(&format!("https://claude.ai/code/{id}")).unwrap()
}

fn exited() -> Event {
    Event::Exited(Exit::Code(1), None)
}

fn gone() -> Event {
    Event::TreeGone(REPORT)
}

const REPORT: StopReport = StopReport {
    processes: 1,
    killed: 0,
    took: Duration::ZERO,
};

fn id() -> SessionId {
    SessionId::from("session".to_owned())
}

fn asked_by(requester: &str) -> Event {
    Event::LinkRequested(request(requester), Beginning::Fresh.into())
}

fn redact(delivery: Delivery) -> Effect {
    let session = id();
    Effect::Notify(Notice::Redact(Redaction { session, delivery }))
}

fn refused(requester: &str) -> Effect {
    Effect::Notify(Notice::RefusedWhileStopping(request(requester)))
}

/// Bob moved the end, and those who have the link are informed.
fn extended(holders: &[&str], left: Option<Duration>) -> Effect {
    let request = request("bob");
    Effect::Notify(Notice::Extended {
        request,
        holders: holders.iter().map(ToString::to_string).collect(),
        left,
    })
}

/// Alice is warned that ten minutes are left.
fn warning() -> Effect {
    Effect::Notify(Notice::EndsSoon {
        holders: ["alice".to_owned()].into(),
        left: 10 * MINUTE,
    })
}

fn delivery(number: u32, requester: &str, receipt: Option<&str>) -> Delivery {
    Delivery {
        number,
        request: request(requester),
        also: Vec::new(),
        receipt: receipt.map(str::to_owned),
    }
}

/// A session with its terms and a clock that the test moves.
struct Life {
    session: Session,
    terms: Terms,
    elapsed: Duration,
}

impl Life {
    /// Alice asked for it, and it is about to be spawned.
    fn begin(terms: Terms) -> Self {
        let requests = vec![request("alice")];
        let now = at(Duration::ZERO);
        let session = Session::new(id(), Beginning::Fresh.into(), requests, &terms, now);
        Self {
            session,
            terms,
            elapsed: Duration::ZERO,
        }
    }

    /// Its process runs.
    fn starting(terms: Terms) -> Self {
        let mut life = Self::begin(terms);
        let effects = life.on(Event::Spawned(process(1)));
        assert_eq!(effects, [Effect::Watch]);
        life
    }

    /// Alice has the link.
    fn running(terms: Terms) -> Self {
        let mut life = Self::starting(terms);
        life.show_and_deliver("one");
        life
    }

    /// It is being ended by request.
    fn stopping(terms: Terms) -> Self {
        let mut life = Self::running(terms);
        let effects = life.on(Event::StopRequested(request("carol")));
        assert_eq!(effects, [Effect::EndTree]);
        life
    }

    /// It ended unexpectedly and waits for its restart.
    fn awaiting_restart(terms: Terms) -> Self {
        let mut life = Self::running(terms);
        life.on(exited());
        life.on(gone());
        assert!(life.awaits_restart());
        life
    }

    fn awaits_restart(&self) -> bool {
        matches!(self.session.state(), State::AwaitingRestart { .. })
    }

    fn on(&mut self, event: Event) -> Vec<Effect> {
        self.session.on(event, &self.terms, at(self.elapsed))
    }

    fn pass(&mut self, time: Duration) -> &mut Self {
        self.elapsed += time;
        self
    }

    /// Lets time pass until the session wants to be woken, and wakes it.
    fn wake(&mut self) -> Vec<Effect> {
        let wake = self.session.next_wake(&self.terms);
        let wake = wake.expect("it wants to be woken");
        self.elapsed = self.elapsed.max(wake.saturating_sub(BEGIN));
        let effects = self.on(Event::TimeCame);
        let is_over = matches!(effects.last(), Some(Effect::Finish(_)));
        assert!(
            is_over || self.sleeps() != Some(Duration::ZERO),
            "woken without end"
        );
        effects
    }

    /// Shows a link, and delivers it to all who wait.
    fn show_and_deliver(&mut self, id: &str) {
        for effect in self.on(Event::LinkShown(link(id))) {
            if let Effect::Deliver(number) = effect {
                let receipt = "receipt".to_owned();
                self.on(Event::Delivered { number, receipt });
            }
        }
    }

    /// How long until it is woken.
    fn sleeps(&self) -> Option<Duration> {
        let wake = self.session.next_wake(&self.terms)?;
        Some(wake.saturating_sub(at(self.elapsed).uptime))
    }

    /// To whom this delivery is.
    fn requester(&self, number: u32) -> &str {
        &self.session.delivery(number).unwrap().request.requester
    }

    /// How many requests this delivery answers.
    fn requests(&self, number: u32) -> usize {
        let delivery = self.session.delivery(number);
        delivery.map_or(0, |delivery| delivery.requests().count())
    }

    fn restore(
        &mut self,
        found: Option<ProcessIdentity>,
        booted: bool,
        now: Moment,
    ) -> Vec<Effect> {
        self.session.restore(found, booted, &self.terms, now)
    }
}

fn terms(max_duration: Option<Duration>, restart: Restart) -> Terms {
    Terms {
        max_duration,
        restart,
        ..TERMS
    }
}

#[track_caller]
fn finished(effects: Vec<Effect>) -> Outcome {
    let mut effects = effects;
    let Some(Effect::Finish(outcome)) = effects.pop() else {
        panic!("not finished: {effects:?}")
    };
    // Every link that may have arrived is redacted first.
    let invalid = outcome.deliveries.iter().filter(|_| outcome.had_link);
    let redacted: Vec<_> = invalid.cloned().map(redact).collect();
    assert_eq!(effects, redacted);
    outcome
}

/// Makes a session in one of the states.
type Begin = fn(Terms) -> Life;

#[test]
fn a_link_request_is_answered_in_every_state() {
    let terms = terms(None, Restart::OnExit);
    let expected: [(Begin, Vec<Effect>); 5] = [
        (Life::begin, vec![]),
        (Life::starting, vec![]),
        (Life::running, vec![Effect::Deliver(1)]),
        (Life::stopping, vec![refused("bob")]),
        (Life::awaiting_restart, vec![Effect::Spawn]),
    ];
    for (begin, effects) in expected {
        let mut life = begin(terms);
        assert_eq!(life.on(asked_by("bob")), effects);
    }
}

#[test]
fn a_stop_request_leads_to_the_end_from_every_state() {
    let terms = terms(None, Restart::OnExit);
    let expected: [(Begin, Vec<Effect>, Event); 4] = [
        (
            Life::begin,
            vec![],
            Event::NotSpawned(NotSpawned::Other {
                reason: String::new(),
            }),
        ),
        (Life::starting, vec![Effect::EndTree], gone()),
        (Life::running, vec![Effect::EndTree], gone()),
        (Life::stopping, vec![], gone()),
    ];
    for (begin, effects, last) in expected {
        let mut life = begin(terms);
        assert_eq!(life.on(Event::StopRequested(request("bob"))), effects);
        let outcome = finished(life.on(last));
        assert!(outcome.stop_requests.contains(&request("bob")));
    }
    let outcome = finished(Life::awaiting_restart(terms).on(Event::StopRequested(request("bob"))));
    assert_eq!(outcome.ending, Ending::Stopped);
    assert_eq!(outcome.report, None);
    // The operator ends it once more, while no bot runs.
    let mut life = Life::stopping(terms);
    life.session.end(Ending::Stopped);
    assert_eq!(finished(life.on(gone())).stop_requests, [request("carol")]);
}

#[test]
fn a_process_that_is_spawned_during_a_stop_is_ended_too() {
    let mut life = Life::begin(TERMS);
    life.on(Event::StopRequested(request("bob")));
    let effects = life.on(Event::Spawned(process(1)));
    assert_eq!(effects, [Effect::EndTree]);
    assert_eq!(life.session.process(), Some(&process(1)));
    assert_eq!(finished(life.on(gone())).ending, Ending::Stopped);
}

#[test]
fn all_who_wait_get_the_link_when_it_is_shown() {
    let mut life = Life::starting(TERMS);
    life.on(asked_by("bob"));
    let effects = life.on(Event::LinkShown(link("one")));
    assert_eq!(effects, [Effect::Deliver(0), Effect::Deliver(1)]);
    assert_eq!([0, 1].map(|it| life.requester(it)), ["alice", "bob"]);
    assert_eq!(life.session.link(), Some(&link("one")));
}

#[test]
fn a_process_that_shows_no_link_in_time_is_ended_with_its_cause() {
    let mut life = Life::starting(TERMS);
    life.pass(LINK_TIMEOUT);
    let effects = life.on(Event::NoLink(Some(Cause::ConsentAsked)));
    assert_eq!(effects, [Effect::EndTree]);
    // Too late.
    assert_eq!(life.on(Event::LinkShown(link("one"))), []);
    let outcome = finished(life.on(gone()));
    let ending = Ending::NoLink {
        waited: LINK_TIMEOUT,
        cause: Some(Cause::ConsentAsked),
    };
    assert_eq!(outcome.ending, ending);
    assert_eq!(outcome.deliveries, [delivery(0, "alice", None)]);
    assert!(!outcome.had_link);
}

#[test]
fn a_process_that_exited_has_its_tree_ended_before_that_is_reported() {
    let mut life = Life::running(TERMS);
    assert_eq!(life.on(exited()), [Effect::EndTree]);
    let outcome = finished(life.on(gone()));
    let ending = Ending::Exited {
        exit: Exit::Code(1),
        cause: None,
    };
    assert_eq!(outcome.ending, ending);
    assert_eq!(outcome.deliveries, [delivery(0, "alice", Some("receipt"))]);
    assert!(outcome.had_link);
}

#[test]
fn another_link_replaces_the_first_for_each_requester_once() {
    let mut life = Life::running(TERMS);
    life.on(asked_by("alice"));
    life.on(asked_by("bob"));
    let effects = life.on(Event::LinkShown(link("two")));
    let expected = [
        redact(delivery(0, "alice", Some("receipt"))),
        redact(delivery(1, "alice", None)),
        redact(delivery(2, "bob", None)),
        Effect::Deliver(3),
        Effect::Deliver(4),
    ];
    assert_eq!(effects, expected);
    assert_eq!([3, 4].map(|it| life.requester(it)), ["alice", "bob"]);
    assert_eq!(life.session.link(), Some(&link("two")));
    assert_eq!(life.session.delivery(0), None);
    // The one that she has had an answer to, and the one that she waits for.
    assert_eq!(life.requests(3), 2);
}

#[test]
fn a_delivery_that_is_refused_leaves_the_session_for_a_next_try() {
    let mut life = Life::starting(TERMS);
    life.on(Event::LinkShown(link("one")));
    assert_eq!(life.on(Event::Undeliverable { number: 0 }), []);
    assert!(life.session.deliveries().is_empty());
    let effects = life.on(asked_by("alice"));
    assert_eq!(effects, [Effect::Deliver(1)]);
}

mod events;
mod life_span;
mod restart;
mod restored;
mod running;

#[test]
fn what_a_requester_asks_for_while_a_link_is_under_way_is_answered_by_the_same_message() {
    let mut life = Life::starting(TERMS);
    assert_eq!(life.on(asked_by("alice")), []);
    let effects = life.on(Event::LinkShown(link("one")));
    assert_eq!(effects, [Effect::Deliver(0)]);
    assert_eq!(life.requests(0), 2);
    assert_eq!(life.on(asked_by("alice")), []);
    assert_eq!(life.requests(0), 3);
}

#[test]
fn a_stop_that_fails_is_reported_to_its_requesters_until_it_succeeds() {
    let not_ended = |requesters: &[&str]| {
        let requests = requesters.iter().copied().map(request).collect();
        let reason = "it is root's".to_owned();
        Effect::Notify(Notice::NotEnded { requests, reason })
    };
    let fails = || Event::NotEnded("it is root's".to_owned());
    let stop = || Event::StopRequested(request("bob"));
    let mut life = Life::stopping(TERMS);
    assert_eq!(life.on(fails()), [not_ended(&["carol"])]);
    assert_eq!(life.sleeps(), None, "it is not said to take a while");
    assert_eq!(life.on(stop()), [not_ended(&["bob"])]);
    assert_eq!(finished(life.on(gone())).stop_requests.len(), 2);
    // Nobody asked.
    let mut life = Life::running(terms(None, Restart::OnExit));
    life.on(exited());
    assert_eq!(life.on(fails()), [not_ended(&[])]);
    life.on(gone());
    life.wake();
    life.on(Event::Spawned(process(2)));
    assert_eq!(life.on(stop()), [Effect::EndTree]);
    // Of a process that came up too late, and whose end is not reported.
    let mut life = Life::awaiting_restart(terms(None, Restart::OnExit));
    assert_eq!(life.on(fails()), [not_ended(&[])]);
    life.wake();
    life.on(Event::Spawned(process(2)));
    assert_eq!(life.on(stop()), [Effect::EndTree]);
}

#[test]
fn a_slow_stop_is_reported_to_its_requesters_after_two_seconds_and_once() {
    let mut life = Life::stopping(TERMS);
    assert_eq!(life.sleeps(), Some(Duration::from_secs(2)));
    let second = Duration::from_secs(1);
    life.pass(second).on(Event::StopRequested(request("bob")));
    assert_eq!(life.sleeps(), Some(second));
    let shutting_down = |who: &[&str]| {
        let requests = who.iter().copied().map(request).collect();
        [Effect::Notify(Notice::ShuttingDown(requests))]
    };
    assert_eq!(life.wake(), shutting_down(&["carol", "bob"]));
    assert_eq!(life.session.next_wake(&life.terms), None);
    // A later requester is notified too.
    life.pass(MINUTE).on(Event::StopRequested(request("alice")));
    assert_eq!(life.wake(), shutting_down(&["alice"]));
    assert_eq!(finished(life.on(gone())).stop_requests.len(), 3);
    // A requester of the link gets another answer.
    let mut life = Life::starting(TERMS);
    life.on(Event::StopRequested(request("bob")));
    assert_eq!(life.wake(), shutting_down(&["bob"]));
}
