//! Any number of requests at the same time: one process, one answer for each, and no undefined state.

use std::{collections::BTreeSet, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rcbot::remote_control::{Notice, Phase};

use tokio::time::Instant;

use crate::support::{DEADLINE, Sandbox, owner::Owner};

/// How many interleavings of starts and a stop are tried.
const INTERLEAVINGS: usize = 25;

#[tokio::test]
async fn fifty_concurrent_starts_make_one_process_and_fifty_equal_answers() {
    let sandbox = Sandbox::new();
    let mut owner = Owner::restore(&sandbox, sandbox.project(""));
    // Some before the process exists, some while it looks for its link, some when that is known; all of them know one another
    // or not.
    for _ in 0..15 {
        owner.start("alice");
        owner.start("bob");
    }
    assert!(owner.handle_next(DEADLINE).await, "it is spawned");
    for number in 0..10 {
        owner.start(&format!("user {number}"));
    }
    let link = owner.link(11).await;
    for _ in 0..10 {
        owner.start("carol");
    }

    assert_eq!(owner.answered.len(), 50);
    let of = |user: &str| {
        let all = owner.answered.iter();
        all.filter(|request| request.requester == user).count()
    };
    assert_eq!((of("alice"), of("carol")), (15, 10));
    assert!(owner.delivered.iter().all(|(_, _, other)| *other == link));
    let [started] = &sandbox.standin_records()[..] else {
        panic!("{:?}", sandbox.standin_records())
    };
    assert!(link.is(&started.link));
    assert_eq!(sandbox.processes().len(), 1);

    let deliveries = owner.delivered.len();
    assert_eq!(owner.stop_and_wait().await.deliveries.len(), deliveries);
    assert_eq!(owner.redacted.len(), deliveries);
}

#[tokio::test]
async fn a_start_racing_a_stop_ends_in_one_defined_state() {
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let sandbox = Sandbox::new();
    let mut owner = Owner::restore(&sandbox, sandbox.project("fork=1"));
    let start = time_of_a_start(&mut owner).await;
    // A machine can be slower, or faster, than it was then.
    let mut longest = start * 3 / 2;
    let mut phases = BTreeSet::new();
    for _ in 0..INTERLEAVINGS {
        owner.start("alice");
        pass(&mut owner, random.random_range(Duration::ZERO..longest)).await;
        phases.insert(format!("{:?}", owner.phase()));
        longest = if owner.phase() == Some(Phase::Running) {
            longest * 4 / 5
        } else {
            longest * 5 / 4
        };
        owner.stop("bob");
        pass(&mut owner, random.random_range(Duration::ZERO..start / 10)).await;
        owner.start("carol");
        settle(&mut owner).await;
        check(&mut owner, &sandbox).await;
    }
    assert!(phases.len() >= 2, "stopped only at {phases:?}");
}

/// How long it takes here until a link is known.
async fn time_of_a_start(owner: &mut Owner) -> Duration {
    let begin = Instant::now();
    owner.start("alice");
    owner.link(0).await;
    let time = begin.elapsed();
    owner.stop_and_wait().await;
    owner.delivered.clear();
    owner.redacted.clear();
    time
}

/// Lets things happen for a while.
async fn pass(owner: &mut Owner, time: Duration) {
    let until = Instant::now() + time;
    while owner
        .handle_next(until.saturating_duration_since(Instant::now()))
        .await
    {}
}

/// Waits until nothing is under way any more.
async fn settle(owner: &mut Owner) {
    owner
        .until("no change under way", |owner| match owner.phase() {
            None | Some(Phase::Running) => Some(()),
            Some(Phase::Starting | Phase::Stopping | Phase::AwaitingRestart) => None,
        })
        .await;
}

/// All users got one answer, and the state is as the answers say. Ends what is left.
async fn check(owner: &mut Owner, sandbox: &Sandbox) {
    owner.forget_slow_stops();
    let [first, ..] = &owner.notices[..] else {
        panic!("the stop has no answer")
    };
    let refused = match first {
        // Carol came too early.
        Notice::RefusedWhileStopping(request) => {
            assert_eq!(request.requester, "carol");
            assert_eq!(owner.notices.len(), 2);
            true
        }
        Notice::Over { .. } => {
            assert_eq!(owner.notices.len(), 1);
            false
        }
        other => panic!("{other:?}"),
    };
    owner
        .notices
        .retain(|notice| matches!(notice, Notice::Over { .. }));
    let outcome = owner.outcome().await;
    let askers: Vec<_> = outcome
        .stop_requests
        .iter()
        .map(|it| &it.requester)
        .collect();
    assert_eq!(askers, ["bob"]);
    let of_alice: Vec<_> = outcome
        .deliveries
        .iter()
        .map(|it| &it.request.requester)
        .collect();
    assert_eq!(of_alice, ["alice"]);
    assert_eq!(outcome.had_link, !owner.redacted.is_empty());

    let delivered: Vec<_> = owner
        .delivered
        .drain(..)
        .map(|(_, it, _)| it.requester)
        .collect();
    let alice = outcome.had_link.then_some("alice");
    let carol = (!refused).then_some("carol");
    assert!(
        alice
            .into_iter()
            .chain(carol)
            .eq(delivered.iter().map(String::as_str))
    );
    if refused {
        assert_eq!(owner.phase(), None);
    } else {
        sandbox.wait_for_processes(2);
        assert_eq!(owner.stop_and_wait().await.report.unwrap().processes, 2);
    }
    assert!(sandbox.processes().is_empty());
    owner.redacted.clear();
}
