//! A bot that is killed at any moment loses no process and no request: the next one finds them all.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    bot::{Life, REQUESTERS, was_killed},
    support::{Sandbox, ledger::Ledger},
};

/// How often bots are killed at random.
const RANDOM_KILLS: usize = 200;

/// How many bots, each with a separate folder, are killed at the same time.
const LANES: usize = 4;

/// Counts what is left when all sessions are over.
#[track_caller]
fn assert_nothing_was_lost_or_doubled(sandbox: &Sandbox, sessions: usize) {
    assert!(sandbox.processes().is_empty(), "an orphan");
    assert!(!sandbox.session_file("session.json").exists());

    let mut links = BTreeMap::new();
    for record in sandbox.standin_records() {
        assert_eq!(record.event, "start");
        let second = links.insert(record.session_id, record.link);
        assert_eq!(second, None, "a session had two processes");
    }
    assert!(links.len() >= sessions);

    let ledger = Ledger::open(&sandbox.path("ledger"));
    let delivered = ledger.delivered();
    let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for ((session, _), (requester, link)) in &delivered {
        assert_eq!(links.get(session), Some(link), "another session's link");
        users.entry(session).or_default().push(requester);
    }
    assert_eq!(users.len(), links.len(), "a session without a delivery");
    for (session, mut users) in users {
        users.sort_unstable();
        assert_eq!(users, REQUESTERS, "lost or doubled in {session}");
    }
    assert!(delivered.into_keys().eq(ledger.redacted()));
}

#[test]
fn a_bot_killed_at_every_step_loses_no_process_and_no_delivery() {
    for step in 1.. {
        let sandbox = Sandbox::new();
        let mut life = Life {
            kill_at: Some(step),
            sessions: 1,
        };
        let was_killed = life.live(&sandbox);
        if was_killed {
            life.kill_at = None;
            assert!(!life.live(&sandbox));
        }
        assert_nothing_was_lost_or_doubled(&sandbox, 1);
        if !was_killed {
            eprintln!("killed at each of {} steps", step - 1);
            assert!(step > 10, "a walk has more steps than that");
            return;
        }
    }
}

#[test]
fn a_bot_killed_again_and_again_comes_to_an_end() {
    let sandbox = Sandbox::new();
    let mut lives = (1..).map(|step| Life {
        kill_at: Some(step),
        sessions: 1,
    });
    while lives.next().unwrap().live(&sandbox) {}
    assert_nothing_was_lost_or_doubled(&sandbox, 1);
}

#[test]
fn two_hundred_random_kills_lose_no_process_and_no_delivery() {
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    thread::scope(|scope| {
        for _ in 0..LANES {
            let random = StdRng::from_rng(&mut random);
            scope.spawn(|| kill_at_random(random));
        }
    });
}

fn kill_at_random(mut random: StdRng) {
    let sandbox = Sandbox::new();
    let whole_life = Instant::now();
    let once = Life {
        kill_at: None,
        sessions: 1,
    };
    assert!(!once.live(&sandbox));
    // A bot is killed within the time that a session takes here from start to end, so that each of its moments is tested.
    let whole_life = whole_life.elapsed();
    let endless = Life {
        kill_at: None,
        sessions: usize::MAX,
    };
    for _ in 0..RANDOM_KILLS.div_ceil(LANES) {
        let mut bot = endless.begin(&sandbox);
        thread::sleep(random.random_range(Duration::ZERO..whole_life));
        bot.kill().unwrap();
        assert!(was_killed(bot.wait().unwrap(), &sandbox));
    }
    let last = Life {
        kill_at: None,
        sessions: 0,
    };
    assert!(!last.live(&sandbox));
    let sessions = sandbox.standin_records().len();
    eprintln!("{sessions} sessions in this lane");
    assert_nothing_was_lost_or_doubled(&sandbox, 4);
}
