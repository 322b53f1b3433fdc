//! Restarts: after growing delays, for as long as the session's time lasts, and only if that is wanted and can help.

use super::*;

const ON_EXIT: Terms = Terms {
    restart: Restart::OnExit,
    ..TERMS
};

/// Exits; the delay until its restart, if there is one.
fn delay(life: &mut Life) -> Option<Duration> {
    end(life, exited());
    life.awaits_restart().then(|| life.sleeps()).flatten()
}

/// Ends so; the notice of that, if there is one.
fn end(life: &mut Life, event: Event) -> Option<Notice> {
    life.on(event);
    match life.on(gone()).pop() {
        Some(Effect::Notify(notice @ Notice::Restarting { .. })) => Some(notice),
        Some(Effect::Finish(_) | Effect::Notify(Notice::Redact(_))) | None => None,
        other => panic!("{other:?}"),
    }
}

fn exits_because(cause: Cause) -> Event {
    Event::Exited(Exit::Code(1), Some(cause))
}

/// Restarts with a process.
fn restart(life: &mut Life) {
    assert_eq!(life.wake(), [Effect::Spawn]);
    life.on(Event::Spawned(process(2)));
}

#[test]
fn a_session_is_restarted_until_its_time_is_up_with_delays_up_to_five_minutes() {
    let mut life = Life::running(terms(Some(12 * HOUR), Restart::OnExit));
    let mut delays = vec![delay(&mut life).unwrap().as_secs()];
    while life.wake() == [Effect::Spawn] {
        life.on(Event::Spawned(process(2)));
        delays.extend(delay(&mut life).map(|delay| delay.as_secs()));
    }
    assert_eq!(delays[..8], [5, 10, 20, 40, 80, 160, 300, 300]);
    assert!(delays.len() > 100, "{}", delays.len());
    assert_eq!(life.elapsed, 12 * HOUR, "it waits no longer than it lasts");
}

#[test]
fn each_reason_to_try_again_is_reported_once() {
    let mut life = Life::running(ON_EXIT);
    let mut reported = Vec::new();
    for cause in [
        Cause::Network,
        Cause::Network,
        Cause::AlreadyServed,
        Cause::Network,
    ] {
        reported.push(end(&mut life, exits_because(cause)).is_some());
        restart(&mut life);
    }
    reported.push(end(&mut life, exited()).is_some());
    assert_eq!(reported, [true, false, true, false, true]);
    // A later requester is notified too.
    assert_eq!(life.on(asked_by("bob")), [Effect::Spawn]);
    life.on(Event::Spawned(process(3)));
    let notice = end(&mut life, exited());
    assert!(
        matches!(&notice, Some(Notice::Restarting { requests, .. }) if *requests == [request("bob")]),
        "{notice:?}"
    );
    // Once it ran well, the cause is new.
    restart(&mut life);
    life.show_and_deliver("again");
    life.pass(11 * MINUTE);
    assert!(end(&mut life, exits_because(Cause::Network)).is_some());
}

#[test]
fn endings_that_differ_only_in_numbers_are_one_reason() {
    let cause = || Some(Cause::Network);
    let endings: [fn(i32, Option<Cause>) -> Ending; 4] = [
        |number, cause| Ending::ExitedBeforeLink {
            exit: Exit::Code(number),
            cause,
        },
        |number, cause| Ending::Exited {
            exit: Exit::Code(number),
            cause,
        },
        |number, cause| Ending::NoLink {
            waited: MINUTE * number.unsigned_abs(),
            cause,
        },
        |number, _| Ending::CutOff {
            lasted: MINUTE * number.unsigned_abs(),
        },
    ];
    for ending in endings {
        assert_eq!(ending(1, cause()).in_short(), ending(2, cause()).in_short());
    }
}

#[test]
fn a_cause_that_needs_a_person_ends_it_at_once() {
    for cause in [
        Cause::NotLoggedIn,
        Cause::WorkspaceNotTrusted,
        Cause::Policy,
    ] {
        let mut life = Life::running(ON_EXIT);
        delay(&mut life);
        restart(&mut life);
        life.on(exits_because(cause));
        let outcome = finished(life.on(gone()));
        assert_eq!(outcome.ending.cause(), Some(cause));
    }
}

#[test]
fn a_cause_that_lapses_does_not_make_the_delays_grow() {
    let mut life = Life::running(ON_EXIT);
    let seconds = [Cause::AlreadyServed, Cause::AlreadyServed, Cause::Network].map(|cause| {
        end(&mut life, exits_because(cause));
        let delay = life.sleeps().unwrap();
        restart(&mut life);
        delay.as_secs()
    });
    assert_eq!(seconds, [60, 180, 5]);
}

#[test]
fn a_first_start_that_was_only_too_early_is_tried_again_and_can_be_stopped() {
    for cause in [Cause::Network, Cause::AlreadyServed] {
        let mut life = Life::starting(TERMS);
        life.on(asked_by("bob"));
        let notice = end(&mut life, exits_because(cause));
        let waiting = ["alice", "bob"].map(request);
        assert!(
            matches!(&notice, Some(Notice::Restarting { requests, had_link: false, .. }) if *requests == waiting),
            "{notice:?}"
        );
        restart(&mut life);
        assert_eq!(end(&mut life, exits_because(cause)), None, "reported");
        // During an outage a program may also exit without a message.
        restart(&mut life);
        assert!(end(&mut life, exited()).is_some());
        restart(&mut life);
        let effects = life.on(Event::LinkShown(link("one")));
        assert_eq!(effects, [Effect::Deliver(0), Effect::Deliver(1)]);
    }
    let mut life = Life::starting(TERMS);
    end(&mut life, exits_because(Cause::Network));
    let outcome = finished(life.on(Event::StopRequested(request("bob"))));
    assert_eq!(outcome.deliveries, [delivery(0, "alice", None)]);
    let mut life = Life::starting(TERMS);
    end(&mut life, exits_because(Cause::Network));
    restart(&mut life);
    life.on(exits_because(Cause::NotLoggedIn));
    finished(life.on(gone()));
}

/// A session that brought back a conversation.
fn resumed() -> Life {
    let mut life = Life::begin(ON_EXIT);
    let (requests, now) = (vec![request("alice")], at(Duration::ZERO));
    life.session = Session::new(id(), Beginning::Resumed.into(), requests, &ON_EXIT, now);
    life.on(Event::Spawned(process(1)));
    life.show_and_deliver("one");
    life
}

#[test]
fn a_resumed_session_whose_conversation_is_over_does_not_come_back() {
    let done = || Event::Exited(Exit::Code(0), None);
    let mut life = resumed();
    life.on(done());
    assert_eq!(finished(life.on(gone())).ending, Ending::Completed);
    // If a session serves more than one conversation, this is a failure.
    let mut life = Life::running(ON_EXIT);
    assert!(end(&mut life, done()).is_some());
}

#[test]
fn a_resumed_session_comes_back_without_its_conversation_where_none_is_left() {
    let mut life = resumed();
    delay(&mut life);
    assert_eq!(life.session.start().beginning, Beginning::Resumed);
    restart(&mut life);
    assert!(end(&mut life, exits_because(Cause::NothingToResume)).is_some());
    assert_eq!(life.session.start().beginning, Beginning::Fresh);
    // A requester of the conversation is informed that there is none.
    let mut life = Life::starting(ON_EXIT);
    life.on(exits_because(Cause::NothingToResume));
    finished(life.on(gone()));
}

#[test]
fn a_session_that_ran_well_begins_again_with_the_shortest_delay() {
    let mut life = Life::running(ON_EXIT);
    for _ in 0..20 {
        assert_eq!(delay(&mut life), Some(Duration::from_secs(5)));
        restart(&mut life);
        life.show_and_deliver("again");
        life.pass(11 * MINUTE);
    }
    // A long time before its link does not count.
    let mut life = Life::running(ON_EXIT);
    delay(&mut life);
    restart(&mut life);
    life.pass(11 * MINUTE);
    assert_eq!(delay(&mut life), Some(Duration::from_secs(10)));
    // Nor does a short one with it.
    restart(&mut life);
    life.show_and_deliver("again");
    life.pass(10 * MINUTE);
    assert_eq!(delay(&mut life), Some(Duration::from_secs(20)));
}

#[test]
fn a_session_is_restarted_only_if_it_was_not_stopped_and_that_is_wanted() {
    let mut never = Life::running(TERMS);
    assert_eq!(delay(&mut never), None);

    let mut stopped = Life::stopping(ON_EXIT);
    assert_eq!(finished(stopped.on(gone())).ending, Ending::Stopped);

    let mut stopped_when_dead = Life::running(ON_EXIT);
    stopped_when_dead.on(exited());
    stopped_when_dead.on(Event::StopRequested(request("bob")));
    finished(stopped_when_dead.on(gone()));

    let mut expired = Life::running(terms(Some(MINUTE), Restart::OnExit));
    expired.wake();
    assert_eq!(finished(expired.on(gone())).ending, Ending::Expired);

    let mut expired_when_dead = Life::running(terms(Some(MINUTE), Restart::OnExit));
    expired_when_dead.pass(MINUTE);
    assert_eq!(delay(&mut expired_when_dead), None);
}

#[test]
fn a_first_start_that_failed_does_not_come_back() {
    assert_eq!(delay(&mut Life::starting(ON_EXIT)), None);

    let mut silent = Life::starting(ON_EXIT);
    silent.on(Event::NoLink(None));
    finished(silent.on(gone()));

    let reason = || NotSpawned::Other {
        reason: String::new(),
    };
    let mut not_spawned = Life::begin(ON_EXIT);
    finished(not_spawned.on(Event::NotSpawned(reason())));
    // Once it ran, that is a reason to try again.
    let mut waiting = Life::awaiting_restart(ON_EXIT);
    waiting.wake();
    let effects = waiting.on(Event::NotSpawned(reason()));
    let expected = Effect::Notify(Notice::Restarting {
        ending: Ending::NotSpawned(reason()),
        delay: Duration::from_secs(10),
        had_link: true,
        requests: Vec::new(),
    });
    assert_eq!(effects.last(), Some(&expected));
}

#[test]
fn a_restarted_session_has_a_new_link_for_each_requester_and_redacts_the_old_ones() {
    let mut life = Life::running(ON_EXIT);
    let (number, receipt) = (1, "receipt".to_owned());
    life.on(asked_by("alice"));
    life.on(Event::Delivered { number, receipt });
    for user in ["alice", "bob", "bob"] {
        life.on(asked_by(user));
    }
    life.on(exited());
    let effects = life.on(gone());
    assert!(
        matches!(effects.last(), Some(Effect::Notify(Notice::Restarting { requests, .. })) if requests.is_empty()),
        "she has had her answer, and they get theirs with the link: {effects:?}"
    );
    let is_redaction = |effect: &&Effect| matches!(effect, Effect::Notify(Notice::Redact(_)));
    assert_eq!(effects.iter().filter(is_redaction).count(), 4);
    restart(&mut life);
    let effects = life.on(Event::LinkShown(link("two")));
    assert_eq!(effects, [Effect::Deliver(4), Effect::Deliver(5)]);
    assert_eq!([4, 5].map(|it| life.requester(it)), ["alice", "bob"]);
    // One that she has had an answer to, and the one that she waits for; and both of his.
    assert_eq!([4, 5].map(|it| life.requests(it)), [2, 2]);
}

#[test]
fn the_last_conversation_is_resumed_only_at_a_restart() {
    let resume = || Event::LinkRequested(request("bob"), Beginning::Resumed.into());
    let mut waiting = Life::awaiting_restart(ON_EXIT);
    waiting.session.start.options.spawn = Some("worktree".to_owned());
    assert_eq!(waiting.on(resume()), [Effect::Spawn]);
    // With an option that the command of a resume lacks, it would not be allowed any more.
    assert_eq!(*waiting.session.start(), Beginning::Resumed.into());
    let mut running = Life::running(ON_EXIT);
    running.on(resume());
    assert_eq!(running.session.start().beginning, Beginning::Fresh);
}

#[test]
fn a_session_whose_time_is_up_does_not_come_back() {
    let ending = |effects| finished(effects).ending;
    let terms = terms(Some(HOUR), Restart::OnExit);
    let waiting = || {
        let mut life = Life::running(terms);
        life.pass(59 * MINUTE).pass(Duration::from_secs(58));
        assert!(delay(&mut life).is_some());
        life
    };
    // While it waits.
    assert_eq!(ending(waiting().wake()), Ending::Expired);
    let asked = |life: &mut Life| life.on(asked_by("bob"));
    assert_eq!(asked(&mut waiting()), [Effect::Spawn], "in time");
    assert_eq!(ending(asked(waiting().pass(MINUTE))), Ending::Expired);
    // While no bot ran, or the host was down.
    let wall = |elapsed| UNIX_EPOCH + BEGIN + elapsed;
    let later = |uptime| Moment {
        wall: wall(20 * HOUR),
        uptime,
    };
    let mut spawning = Life::begin(terms);
    let effects = spawning.restore(None, false, later(BEGIN + 20 * HOUR));
    assert_eq!(ending(effects), Ending::Expired);
    for begin in [
        |terms| Life::begin(terms),
        |terms| {
            let mut life = Life::running(terms);
            delay(&mut life);
            life
        },
    ] as [Begin; 2]
    {
        let mut life = begin(terms);
        let mut effects = life.restore(None, true, later(MINUTE));
        if effects.is_empty() {
            let now = later(MINUTE);
            effects = life.session.on(Event::TimeCame, &life.terms, now);
        }
        assert_eq!(ending(effects), Ending::Expired);
    }
}
