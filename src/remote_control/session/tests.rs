//! What a session does about what happens, as tables: an event and a time go in, actions come out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;
use crate::remote_control::StopReport;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// How long the host is up when a test begins.
const BEGIN: Duration = Duration::from_hours(100);

const LINK_TIMEOUT: Duration = Duration::from_secs(30);

const TERMS: Terms = Terms {
    link_timeout: Some(LINK_TIMEOUT),
    max_duration: None,
    restart: Restart::Never,
};

/// A moment, counted from the begin of the test.
fn at(elapsed: Duration) -> Moment {
    Moment {
        wall: UNIX_EPOCH + BEGIN + elapsed,
        uptime: BEGIN + elapsed,
    }
}

/// A process that nobody looks for.
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

fn delivery(number: u32, requester: &str, receipt: Option<&str>) -> Delivery {
    Delivery {
        number,
        request: request(requester),
        also: Vec::new(),
        receipt: receipt.map(str::to_owned),
    }
}

/// A session with its terms and a clock that goes by hand.
struct Life {
    session: Session,
    terms: Terms,
    elapsed: Duration,
}

impl Life {
    /// Alice asked for it, and it is about to be spawned.
    fn begin(terms: Terms) -> Self {
        let requests = vec![request("alice")];
        let id = SessionId::random();
        let (session, actions) =
            Session::new(id, Beginning::Fresh, requests, &terms, at(Duration::ZERO));
        assert_eq!(actions, [Action::Spawn]);
        Self {
            session,
            terms,
            elapsed: Duration::ZERO,
        }
    }

    /// Its process runs.
    fn starting(terms: Terms) -> Self {
        let mut life = Self::begin(terms);
        let actions = life.on(Event::Spawned(process(1)));
        assert_eq!(actions, [Action::Watch(process(1))]);
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
        let actions = life.on(Event::StopRequested(request("carol")));
        assert_eq!(actions, [Action::EndTree(Some(process(1)))]);
        life
    }

    /// It ended by itself and is to come back.
    fn resting(terms: Terms) -> Self {
        let mut life = Self::running(terms);
        life.on(exited());
        life.on(gone());
        assert!(matches!(life.session.state(), State::Resting { .. }));
        life
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        self.session.on(event, &self.terms, at(self.elapsed))
    }

    fn pass(&mut self, time: Duration) -> &mut Self {
        self.elapsed += time;
        self
    }

    /// Lets time pass until the session wants to be woken, and wakes it.
    fn wake(&mut self) -> Vec<Action> {
        let wake = self.session.next_wake().expect("it wants to be woken");
        self.elapsed = self.elapsed.max(wake.saturating_sub(BEGIN));
        self.on(Event::TimeCame)
    }

    /// Shows a link, and delivers it to all who wait.
    fn show_and_deliver(&mut self, id: &str) {
        for action in self.on(Event::LinkShown(link(id))) {
            if let Action::Deliver(delivery, _) = action {
                let receipt = "receipt".to_owned();
                let number = delivery.number;
                self.on(Event::Delivered { number, receipt });
            }
        }
    }

    /// How long until it is woken.
    fn sleeps(&self) -> Option<Duration> {
        let wake = self.session.next_wake()?;
        Some(wake.saturating_sub(at(self.elapsed).uptime))
    }

    fn restore(
        &mut self,
        found: Option<ProcessIdentity>,
        booted: bool,
        now: Moment,
    ) -> Vec<Action> {
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
fn finished(actions: Vec<Action>) -> Outcome {
    match <[Action; 1]>::try_from(actions) {
        Ok([Action::Finish(outcome)]) => outcome,
        other => panic!("not finished: {other:?}"),
    }
}

/// What each state is, and what becomes of it.
type Begin = fn(Terms) -> Life;

#[test]
fn a_link_request_is_answered_in_every_state() {
    let terms = terms(None, Restart::OnExit);
    let bob = || delivery(1, "bob", None);
    let expected: [(Begin, Vec<Action>); 5] = [
        (Life::begin, vec![Action::Save]),
        (Life::starting, vec![Action::Save]),
        (Life::running, vec![Action::Deliver(bob(), link("one"))]),
        (
            Life::stopping,
            vec![Action::RefuseWhileStopping(request("bob"))],
        ),
        (Life::resting, vec![Action::Spawn]),
    ];
    for (begin, actions) in expected {
        let mut life = begin(terms);
        assert_eq!(life.on(Event::LinkRequested(request("bob"))), actions);
    }
}

#[test]
fn a_stop_request_leads_to_the_end_from_every_state() {
    let terms = terms(None, Restart::OnExit);
    let expected: [(Begin, Vec<Action>, Event); 4] = [
        (
            Life::begin,
            vec![Action::Save],
            Event::NotSpawned(NotSpawned::Other {
                reason: String::new(),
            }),
        ),
        (
            Life::starting,
            vec![Action::EndTree(Some(process(1)))],
            gone(),
        ),
        (
            Life::running,
            vec![Action::EndTree(Some(process(1)))],
            gone(),
        ),
        (Life::stopping, vec![Action::Save], gone()),
    ];
    for (begin, actions, last) in expected {
        let mut life = begin(terms);
        assert_eq!(life.on(Event::StopRequested(request("bob"))), actions);
        let outcome = finished(life.on(last));
        assert!(outcome.stop_requests.contains(&request("bob")));
    }
    let outcome = finished(Life::resting(terms).on(Event::StopRequested(request("bob"))));
    assert_eq!(outcome.ending, Ending::Stopped);
    assert_eq!(outcome.report, None);
}

#[test]
fn a_process_that_comes_to_be_during_a_stop_is_ended_too() {
    let mut life = Life::begin(TERMS);
    life.on(Event::StopRequested(request("bob")));
    let actions = life.on(Event::Spawned(process(1)));
    assert_eq!(actions, [Action::EndTree(Some(process(1)))]);
    assert_eq!(finished(life.on(gone())).ending, Ending::Stopped);
}

#[test]
fn all_who_wait_get_the_link_when_it_is_shown() {
    let mut life = Life::starting(TERMS);
    life.on(Event::LinkRequested(request("bob")));
    let actions = life.on(Event::LinkShown(link("one")));
    let expected = [
        Action::Deliver(delivery(0, "alice", None), link("one")),
        Action::Deliver(delivery(1, "bob", None), link("one")),
        Action::Save,
    ];
    assert_eq!(actions, expected);
}

#[test]
fn a_process_that_shows_no_link_in_time_is_ended_with_its_cause() {
    let mut life = Life::starting(TERMS);
    let actions = life.on(Event::LinkTimedOut(Some(Cause::ConsentAsked)));
    assert_eq!(actions, [Action::EndTree(Some(process(1)))]);
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
fn a_process_that_ended_by_itself_has_its_tree_ended_before_that_is_told() {
    let mut life = Life::running(TERMS);
    assert_eq!(life.on(exited()), [Action::EndTree(Some(process(1)))]);
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
fn another_link_takes_the_place_of_the_first_for_each_requester_once() {
    let mut life = Life::running(TERMS);
    life.on(Event::LinkRequested(request("alice")));
    life.on(Event::LinkRequested(request("bob")));
    let actions = life.on(Event::LinkShown(link("two")));
    // The one that she has had an answer to, and the one that she waits for.
    let for_both_requests = Delivery {
        also: vec![request("alice")],
        ..delivery(3, "alice", None)
    };
    let expected = [
        Action::Withdraw(vec![
            delivery(0, "alice", Some("receipt")),
            delivery(1, "alice", None),
            delivery(2, "bob", None),
        ]),
        Action::Deliver(for_both_requests, link("two")),
        Action::Deliver(delivery(4, "bob", None), link("two")),
    ];
    assert_eq!(actions, expected);
    assert!(!life.session.wants(0) && life.session.wants(3));
}

#[test]
fn a_delivery_that_is_refused_leaves_the_session_for_a_next_try() {
    let mut life = Life::starting(TERMS);
    life.on(Event::LinkShown(link("one")));
    let actions = life.on(Event::Undeliverable { number: 0 });
    assert_eq!(actions, [Action::Save]);
    assert!(life.session.deliveries().is_empty());
    let actions = life.on(Event::LinkRequested(request("alice")));
    let again = Action::Deliver(delivery(1, "alice", None), link("one"));
    assert_eq!(actions, [again]);
}

mod events;
mod life_span;
mod restart;
mod restored;

#[test]
fn what_a_requester_asks_for_while_a_link_is_under_way_is_answered_by_the_same_message() {
    let mut life = Life::starting(TERMS);
    assert_eq!(
        life.on(Event::LinkRequested(request("alice"))),
        [Action::Save]
    );
    let actions = life.on(Event::LinkShown(link("one")));
    let for_both_requests = Delivery {
        also: vec![request("alice")],
        ..delivery(0, "alice", None)
    };
    assert_eq!(actions[0], Action::Deliver(for_both_requests, link("one")));
    assert_eq!(life.session.requests(0).len(), 2);
    let later = Event::LinkRequested(request("alice"));
    assert_eq!(life.on(later), [Action::Save]);
    assert_eq!(life.session.requests(0).len(), 3);
}
