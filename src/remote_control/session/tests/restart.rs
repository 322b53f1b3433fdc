//! Coming back: with growing rests, not for ever, and only where that is wanted.

use super::*;

const ON_EXIT: Terms = Terms {
    restart: Restart::OnExit,
    ..TERMS
};

/// Ends by itself; the rest that it takes, if it is to come back.
fn rest(life: &mut Life) -> Option<Duration> {
    life.on(exited());
    match life.on(gone()).pop() {
        Some(Effect::Tell(Notice::Restarting {
            ending: Ending::Exited { .. } | Ending::ExitedBeforeLink { .. },
            rest,
        })) => Some(rest),
        Some(Effect::Finish(_)) => None,
        other => panic!("{other:?}"),
    }
}

/// Comes back with a process.
fn come_back(life: &mut Life) {
    assert_eq!(life.wake(), [Effect::Spawn]);
    life.on(Event::Spawned(process(2)));
}

#[test]
fn a_session_comes_back_with_rests_that_double_and_is_given_up_after_five() {
    let mut life = Life::running(ON_EXIT);
    let mut rests = Vec::new();
    let outcome = loop {
        life.pass(MINUTE).on(exited());
        let effects = life.on(gone());
        if let Some(Effect::Tell(Notice::Restarting { rest, .. })) = effects.last() {
            let rest = *rest;
            assert_eq!(life.sleeps(), Some(rest));
            rests.push(rest.as_secs());
            come_back(&mut life);
            life.show_and_deliver("again");
        } else {
            break finished(effects);
        }
    };
    assert_eq!(rests, [5, 10, 20, 40, 80]);
    assert_eq!(outcome.restarts, 5);
    assert!(matches!(outcome.ending, Ending::Exited { .. }));
}

#[test]
fn a_session_that_ran_well_begins_again_with_the_shortest_rest() {
    let mut life = Life::running(ON_EXIT);
    for _ in 0..20 {
        assert_eq!(rest(&mut life), Some(Duration::from_secs(5)));
        come_back(&mut life);
        life.show_and_deliver("again");
        life.pass(11 * MINUTE);
    }
    // Long before its link is not well.
    let mut life = Life::running(ON_EXIT);
    rest(&mut life);
    come_back(&mut life);
    life.pass(11 * MINUTE);
    assert_eq!(rest(&mut life), Some(Duration::from_secs(10)));
}

#[test]
fn a_session_comes_back_only_if_it_ended_by_itself_and_that_is_wanted() {
    let mut never = Life::running(TERMS);
    assert_eq!(rest(&mut never), None);

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
    assert_eq!(rest(&mut expired_when_dead), None);
}

#[test]
fn a_first_start_that_failed_does_not_come_back() {
    assert_eq!(rest(&mut Life::starting(ON_EXIT)), None);

    let mut silent = Life::starting(ON_EXIT);
    silent.on(Event::LinkTimedOut(None));
    finished(silent.on(gone()));

    let reason = || NotSpawned::Other {
        reason: String::new(),
    };
    let mut not_spawned = Life::begin(ON_EXIT);
    finished(not_spawned.on(Event::NotSpawned(reason())));
    // Once it ran, that is a reason to try again.
    let mut resting = Life::resting(ON_EXIT);
    resting.wake();
    let effects = resting.on(Event::NotSpawned(reason()));
    let ten_seconds = Duration::from_secs(10);
    let expected = Effect::Tell(Notice::Restarting {
        ending: Ending::NotSpawned(reason()),
        rest: ten_seconds,
    });
    assert_eq!(effects.last(), Some(&expected));
}

#[test]
fn a_session_that_comes_back_has_a_new_link_for_each_requester_and_takes_the_old_ones_back() {
    let mut life = Life::running(ON_EXIT);
    life.on(asked_by("alice"));
    life.on(asked_by("bob"));
    life.on(exited());
    let effects = life.on(gone());
    let is_redaction = |effect: &&Effect| matches!(effect, Effect::Tell(Notice::Redact(_)));
    assert_eq!(effects.iter().filter(is_redaction).count(), 3);
    come_back(&mut life);
    let effects = life.on(Event::LinkShown(link("two")));
    assert_eq!(
        effects,
        [deliver(3, "alice", "two"), deliver(4, "bob", "two")]
    );
    // The one that she has had an answer to, and the one that she waits for.
    assert_eq!(life.requests(3), 2);
}

#[test]
fn a_request_ends_the_rest() {
    let mut life = Life::resting(ON_EXIT);
    let effects = life.on(asked_by("bob"));
    assert_eq!(effects, [Effect::Spawn]);
    assert_eq!(life.session.next_wake(), None);
    // The alarm of the rest comes too late.
    assert_eq!(life.pass(HOUR).on(Event::TimeCame), []);
}

#[test]
fn a_session_that_came_back_has_the_whole_time_for_its_link() {
    let mut life = Life::resting(ON_EXIT);
    life.pass(HOUR);
    assert_eq!(life.on(Event::TimeCame), [Effect::Spawn]);
    life.on(Event::Spawned(process(2)));
    let deadline = BEGIN + HOUR + LINK_TIMEOUT;
    assert!(
        matches!(life.session.state(), State::Starting { deadline: it, .. } if *it == deadline)
    );
}

#[test]
fn who_wants_the_last_conversation_back_gets_it_from_a_rest_alone() {
    let resume = || Event::LinkRequested(request("bob"), Beginning::Resumed);
    let mut resting = Life::resting(ON_EXIT);
    assert_eq!(resting.on(resume()), [Effect::Spawn]);
    assert_eq!(resting.session.beginning(), Beginning::Resumed);
    let mut running = Life::running(ON_EXIT);
    running.on(resume());
    assert_eq!(running.session.beginning(), Beginning::Fresh);
}

#[test]
fn a_session_whose_time_is_up_does_not_come_back() {
    let ending = |effects| finished(effects).ending;
    let terms = terms(Some(HOUR), Restart::OnExit);
    let resting = || {
        let mut life = Life::running(terms);
        life.pass(59 * MINUTE).pass(Duration::from_secs(58));
        assert!(rest(&mut life).is_some());
        life
    };
    // During the rest.
    assert_eq!(ending(resting().wake()), Ending::Expired);
    let asked = |life: &mut Life| life.on(asked_by("bob"));
    assert_eq!(asked(&mut resting()), [Effect::Spawn], "in time");
    assert_eq!(ending(asked(resting().pass(MINUTE))), Ending::Expired);
    // While nobody was here, or the host was down.
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
            rest(&mut life);
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
