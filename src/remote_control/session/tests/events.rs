//! Every event in every state: what matters, what came too late, and what would become too much.

use super::*;
use crate::remote_control::session::machine::MOST_LINKS;

/// Everything that can happen, by name.
fn events() -> [(&'static str, Event); 13] {
    let reason = String::new();
    [
        ("link", Event::LinkRequested(request("bob"))),
        ("resume", Event::ResumeRequested(request("bob"))),
        ("stop", Event::StopRequested(request("bob"))),
        ("extend", Event::ExtensionRequested(request("bob"), HOUR)),
        ("spawned", Event::Spawned(process(2))),
        (
            "not spawned",
            Event::NotSpawned(NotSpawned::Other { reason }),
        ),
        ("shown", Event::LinkShown(link("two"))),
        ("timed out", Event::LinkTimedOut(None)),
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
    // What matters in each state, besides what people ask for and what becomes of a delivery. A time that came is not due.
    let timely: [(Begin, &[&str]); 5] = [
        (Life::begin, &["spawned", "not spawned"]),
        (Life::starting, &["shown", "timed out", "exited"]),
        (Life::running, &["shown", "exited"]),
        (Life::stopping, &["gone"]),
        (Life::resting, &[]),
    ];
    let always = [
        "link",
        "resume",
        "stop",
        "extend",
        "delivered",
        "undeliverable",
    ];
    for (begin, timely) in timely {
        for (name, event) in events() {
            let mut life = begin(terms(None, Restart::OnExit));
            let before = life.session.clone();
            let said = format!("{name} in {:?}", before.state());
            let actions = life.on(event);
            if timely.contains(&name) || always.contains(&name) {
                assert_ne!(actions, [], "{said}");
            } else {
                assert_eq!(actions, [], "{said}");
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
    let mut withdrawn = Vec::new();
    for user in ["bob"].into_iter().chain(["alice"; 2 * MOST_LINKS]) {
        for action in life.on(Event::LinkRequested(request(user))) {
            match action {
                Action::Deliver(delivery, _) => {
                    let (number, receipt) = (delivery.number, "receipt".to_owned());
                    life.on(Event::Delivered { number, receipt });
                }
                Action::Withdraw(old) => withdrawn.extend(old),
                other => panic!("{other:?}"),
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
    let numbers = withdrawn.iter().map(|delivery| delivery.number);
    let oldest = (2..).take(MOST_LINKS);
    assert!(numbers.eq(oldest));
    assert_eq!(life.session.requester(), Some("alice"));
}
