//! How long a session lasts: by the time since boot, whatever the wall clock does.

use super::*;

fn lasting(duration: Duration) -> Terms {
    terms(Some(duration), Restart::Never)
}

#[test]
fn those_who_have_the_link_are_warned_ten_minutes_before_the_end_and_once() {
    let mut life = Life::running(lasting(HOUR));
    // One with two messages counts once, and one who waits for theirs not yet.
    for user in ["alice", "bob"] {
        life.on(asked_by(user));
    }
    let receipt = "second".to_owned();
    life.on(Event::Delivered { number: 1, receipt });
    assert_eq!(life.sleeps(), Some(50 * MINUTE));
    let warning = warning();
    assert_eq!(life.wake(), [warning]);
    assert_eq!(life.on(Event::TimeCame), [], "warned already");
    assert_eq!(life.sleeps(), Some(10 * MINUTE));
    assert_eq!(life.wake(), [Effect::EndTree]);
    assert_eq!(finished(life.on(gone())).ending, Ending::Expired);
}

#[test]
fn a_session_no_longer_than_the_warning_ends_without_one() {
    for duration in [Duration::from_secs(1), WARNING] {
        let mut life = Life::running(lasting(duration));
        assert_eq!(life.sleeps(), Some(duration));
        assert_eq!(life.wake(), [Effect::EndTree]);
    }
}

#[test]
fn a_session_without_an_end_is_never_woken() {
    let mut life = Life::running(TERMS);
    assert_eq!(life.session.next_wake(&life.terms), None);
    assert_eq!(life.session.time_left(BEGIN), None);
    assert_eq!(life.pass(10_000 * HOUR).on(Event::TimeCame), []);
    let effects = life.on(Event::ExtensionRequested(request("bob"), HOUR));
    assert_eq!(effects, [extended(&["alice"], None)]);
    assert_eq!(life.session.next_wake(&life.terms), None);
}

#[test]
fn an_extension_moves_the_end_from_where_it_was() {
    let mut life = Life::running(lasting(HOUR));
    life.pass(30 * MINUTE);
    let extension = Event::ExtensionRequested(request("bob"), 2 * HOUR);
    let left = 2 * HOUR + 30 * MINUTE;
    let answer = extended(&["alice"], Some(left));
    assert_eq!(life.on(extension), [answer]);
    assert_eq!(life.sleeps(), left.checked_sub(WARNING));
    // The timer of before it was moved.
    assert_eq!(life.pass(30 * MINUTE).on(Event::TimeCame), []);
}

#[test]
fn an_extension_after_the_warning_brings_another_warning() {
    let mut life = Life::running(lasting(HOUR));
    assert!(matches!(
        life.wake()[..],
        [Effect::Notify(Notice::EndsSoon { .. })]
    ));
    life.on(Event::ExtensionRequested(request("bob"), HOUR));
    assert_eq!(life.sleeps(), Some(HOUR));
    assert!(matches!(
        life.wake()[..],
        [Effect::Notify(Notice::EndsSoon { .. })]
    ));
    // So short that its requester knows that it ends soon.
    life.on(Event::ExtensionRequested(request("bob"), MINUTE));
    life.pass(5 * MINUTE);
    life.on(Event::ExtensionRequested(request("bob"), MINUTE));
    assert_eq!(life.wake(), [Effect::EndTree]);
}

#[test]
fn an_extension_is_refused_while_stopping_and_kept_before_the_link() {
    let mut life = Life::stopping(lasting(HOUR));
    let refusal = refused("bob");
    let extension = || Event::ExtensionRequested(request("bob"), HOUR);
    assert_eq!(life.on(extension()), [refusal]);
    let mut life = Life::starting(lasting(HOUR));
    let answer = extended(&[], Some(2 * HOUR));
    assert_eq!(life.on(extension()), [answer]);
    life.show_and_deliver("one");
    assert_eq!(life.sleeps(), (2 * HOUR).checked_sub(WARNING));
}

#[test]
fn a_jump_of_the_wall_clock_moves_nothing() {
    let jumps: [fn(SystemTime) -> SystemTime; 2] = [|wall| wall + 1000 * HOUR, |_| UNIX_EPOCH];
    for jump in jumps {
        let mut life = Life::running(lasting(HOUR));
        let jumped = |elapsed| {
            let moment = at(elapsed);
            Moment {
                wall: jump(moment.wall),
                ..moment
            }
        };
        let mut on = |elapsed| {
            life.session
                .on(Event::TimeCame, &life.terms, jumped(elapsed))
        };
        assert_eq!(on(MINUTE), []);
        let warning = warning();
        assert_eq!(on(50 * MINUTE), [warning]);
        assert_eq!(on(59 * MINUTE), []);
        assert_eq!(on(HOUR), [Effect::EndTree]);
    }
    // Nor does it for a bot that is restarted on the same boot.
    let mut life = Life::running(lasting(HOUR));
    let now = Moment {
        wall: UNIX_EPOCH,
        uptime: BEGIN + MINUTE,
    };
    life.restore(None, false, now);
    assert_eq!(life.session.time_left(now.uptime), Some(59 * MINUTE));
}

#[test]
fn the_end_is_carried_over_a_boot_by_the_wall_clock() {
    let mut life = Life::running(lasting(9 * HOUR));
    life.on(Event::ExtensionRequested(request("bob"), HOUR));
    // The host was down for an hour, and is up for a minute.
    let now = Moment {
        wall: UNIX_EPOCH + BEGIN + 2 * HOUR,
        uptime: MINUTE,
    };
    life.restore(None, true, now);
    assert_eq!(life.session.time_left(now.uptime), Some(8 * HOUR));
    let later = Moment {
        wall: UNIX_EPOCH + BEGIN + 20 * HOUR,
        uptime: MINUTE,
    };
    life.restore(None, true, later);
    assert_eq!(life.session.time_left(later.uptime), Some(Duration::ZERO));
    // A host whose clock begins at the epoch.
    let earlier = Moment {
        wall: UNIX_EPOCH,
        uptime: MINUTE,
    };
    life.restore(None, true, earlier);
    assert_eq!(life.session.time_left(earlier.uptime), Some(10 * HOUR));
}

#[test]
fn a_wall_clock_that_a_boot_has_set_back_gives_no_session_more_time_than_it_had() {
    let mut life = Life::running(lasting(10 * HOUR));
    // No battery keeps the clock, and it is not synchronized yet.
    let now = Moment {
        wall: UNIX_EPOCH,
        uptime: MINUTE,
    };
    life.restore(None, true, now);
    assert_eq!(life.session.time_left(now.uptime), Some(10 * HOUR));
}
