//! Every event in every state: what matters, what came too late, and what would become too much.

use super::*;
use crate::remote_control::{Options, SessionName, session::life::MOST_LINKS};

/// Everything that can happen, by name.
fn events() -> [(&'static str, Event); 14] {
    let reason = String::new();
    [
        ("link", asked_by("bob")),
        ("not ended", Event::NotEnded(reason.clone())),
        ("stop", Event::StopRequested(request("bob"))),
        ("extend", Event::ExtensionRequested(request("bob"), HOUR)),
        ("spawned", Event::Spawned(process(2))),
        (
            "not spawned",
            Event::NotSpawned(NotSpawned::Other { reason }),
        ),
        ("shown", Event::LinkShown(link("two"))),
        ("timed out", Event::NoLink(None)),
        ("connected", Event::Connection(Connection::Connected)),
        ("exited", exited()),
        ("gone", gone()),
        ("time", Event::TimeCame),
        (
            "delivered",
            Event::Delivered {
                number: 0,
                receipt: "new".to_owned(),
            },
        ),
        ("undeliverable", Event::Undeliverable { number: 0 }),
    ]
}

#[test]
fn an_event_that_comes_too_late_changes_nothing() {
    // What matters in each state, besides what people ask for. A time that came is not due.
    let of_delivery = ["delivered", "undeliverable"];
    let timely: [(Begin, &[&str], &[&str]); 5] = [
        (Life::begin, &["spawned", "not spawned"], &of_delivery),
        (
            Life::starting,
            &["shown", "timed out", "connected", "exited"],
            &of_delivery,
        ),
        (
            Life::running,
            &["shown", "connected", "exited"],
            &of_delivery,
        ),
        (Life::stopping, &["gone"], &of_delivery),
        // Its deliveries have started again, under other numbers.
        (Life::awaiting_restart, &[], &[]),
    ];
    let always = ["link", "not ended", "stop", "extend"];
    for (begin, timely, of_delivery) in timely {
        for (name, event) in events() {
            let mut life = begin(terms(None, Restart::OnExit));
            let before = life.session.clone();
            let said = format!("{name} in {:?}", before.state());
            let effects = life.on(event);
            if [timely, of_delivery, &always].concat().contains(&name) {
                assert!(!effects.is_empty() || life.session != before, "{said}");
            } else {
                assert_eq!(effects, [], "{said}");
                assert_eq!(life.session, before, "{said}");
            }
        }
    }
    let mut life = Life::running(TERMS);
    assert_eq!(life.on(Event::LinkShown(link("one"))), [], "known already");
}

#[test]
fn a_requester_keeps_so_many_messages_with_the_link_and_no_more() {
    let mut life = Life::running(TERMS);
    let mut redacted = Vec::new();
    for user in ["bob"].into_iter().chain(["alice"; 2 * MOST_LINKS]) {
        // Nothing is redacted before the next one is there, which would have to wait for that.
        let effects = life.on(asked_by(user));
        let [Effect::Deliver(number)] = effects[..] else {
            panic!("{effects:?}");
        };
        // Said again, with the picture.
        for receipt in ["receipt", "longer receipt"] {
            let receipt = receipt.to_owned();
            for effect in life.on(Event::Delivered { number, receipt }) {
                match effect {
                    Effect::Notify(Notice::Redact(old)) => redacted.push(old.delivery),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    let of = |user: &str| {
        let all = life.session.deliveries().iter();
        all.filter(|delivery| delivery.request.requester == user)
            .count()
    };
    // Hers, the first of all, and his.
    assert_eq!((of("alice"), of("bob")), (MOST_LINKS + 1, 1));
    let numbers = redacted.iter().map(|delivery| delivery.number);
    let oldest = (2..).take(MOST_LINKS);
    assert!(numbers.eq(oldest));
    assert_eq!(life.session.requester(), Some("alice"));
}

#[test]
fn a_request_for_other_options_is_refused_with_those_of_the_session() {
    let options = |mode: &str, name: Option<&str>| Options {
        mode: Some(mode.to_owned()),
        spawn: None,
        name: name.map(|name| SessionName::try_from(name.to_owned()).unwrap()),
    };
    let has = options("plan", Some("it"));
    for begin in [
        Life::begin,
        Life::starting,
        Life::running,
        Life::awaiting_restart,
    ] {
        let restart = Restart::OnExit;
        let mut life = begin(Terms { restart, ..TERMS });
        life.session.start.options = has.clone();
        let before = life.session.clone();
        let mut ask = |options| {
            let beginning = Beginning::Fresh;
            let start = Start { beginning, options };
            life.on(Event::LinkRequested(request("bob"), start))
        };
        for other in [options("default", None), options("plan", Some("other"))] {
            let (request, options) = (request("bob"), has.clone());
            let refused = Effect::Notify(Notice::OtherOptions { request, options });
            assert_eq!(ask(other), [refused]);
        }
        ask(options("plan", None));
        assert_ne!(life.session, before, "it has what was asked for");
    }
}
