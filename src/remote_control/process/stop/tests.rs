use super::super::{
    exited, spawn,
    testing::{Sandbox, eventually, find_by_environment, signal, within_deadline},
};
use super::*;

const LONG: Duration = Duration::from_mins(10);
const SHORT: Duration = Duration::from_millis(200);

async fn stop_within_deadline(
    sandbox: &Sandbox,
    leader: Option<&ProcessIdentity>,
    grace: Duration,
) -> StopReport {
    within_deadline(stop(leader, sandbox.mark(), grace))
        .await
        .unwrap()
}

fn counts(report: StopReport) -> (usize, usize) {
    (report.processes, report.killed)
}

#[tokio::test]
async fn an_obedient_process_ends_long_before_its_grace_is_over() {
    let sandbox = Sandbox::new();
    let leader = sandbox.spawn("exec sleep 600");
    let report = stop_within_deadline(&sandbox, Some(&leader), LONG).await;
    assert_eq!(counts(report), (1, 0));
    assert!(!leader.is_alive().unwrap());
}

#[tokio::test]
async fn the_leader_is_left_for_its_watcher_to_reap() {
    let sandbox = Sandbox::new();
    let leader = sandbox.spawn("exec sleep 600");
    stop_within_deadline(&sandbox, Some(&leader), LONG).await;
    let exit = within_deadline(exited(&leader)).await.unwrap();
    assert_eq!(exit, super::super::Exit::Signal(15));
}

#[tokio::test]
async fn a_stop_with_a_watcher_that_reaps_at_once_ends_the_whole_group() {
    let sandbox = Sandbox::new();
    // The child tells its pid, and only once it ignores the signal.
    let child = "(trap '' TERM; sh -c 'echo $PPID' > child; while :; do sleep 600; done)";
    let leader = sandbox.spawn(&format!("{child} & wait"));
    let child = sandbox.process("child").await;
    let (report, exit) = tokio::join!(
        stop_within_deadline(&sandbox, Some(&leader), SHORT),
        within_deadline(exited(&leader)),
    );
    assert_eq!(exit.unwrap(), super::super::Exit::Signal(15));
    assert!(report.killed >= 1);
    assert!(!child.is_alive().unwrap());
}

#[tokio::test]
async fn a_process_that_ignores_sigterm_is_killed_after_its_grace() {
    let sandbox = Sandbox::new();
    let leader = sandbox.spawn("trap '' TERM; echo $$ > ready; while :; do sleep 600; done");
    sandbox.process("ready").await;
    let report = stop_within_deadline(&sandbox, Some(&leader), SHORT).await;
    assert!(report.killed >= 1);
    assert!(report.took >= SHORT);
    assert!(!leader.is_alive().unwrap());
}

#[tokio::test]
async fn grandchildren_that_called_setsid_are_ended() {
    let sandbox = Sandbox::new();
    let leader = sandbox
        .spawn("setsid sh -c 'echo $$ > grandchild; exec sleep 600' & setsid -f sleep 600; wait");
    let grandchild = sandbox.process("grandchild").await;
    let (name, value) = sandbox.mark();
    eventually("all run", || {
        let all = find_by_environment(name, value);
        all.len() == 3
    })
    .await;
    let report = stop_within_deadline(&sandbox, Some(&leader), LONG).await;
    assert_eq!(counts(report), (3, 0));
    assert!(!grandchild.is_alive().unwrap());
    assert_eq!(find_by_environment(name, value), []);
}

#[tokio::test]
async fn children_that_cleared_their_environment_are_ended_with_their_group() {
    let sandbox = Sandbox::new();
    let leader = sandbox.spawn("env -i /bin/sh -c 'echo $$ > child; exec sleep 600' & wait");
    let child = sandbox.process("child").await;
    stop_within_deadline(&sandbox, Some(&leader), LONG).await;
    assert!(!child.is_alive().unwrap());
}

#[tokio::test]
async fn a_child_that_left_the_group_and_its_environment_after_the_first_look_is_ended() {
    let sandbox = Sandbox::new();
    // On SIGTERM it becomes, with the same pid, a process that nothing but its identity tells from a stranger.
    let leader = sandbox.spawn(
        r#"sh -c 'trap "exec setsid env -i sh -c \"trap : TERM; echo x > left; while :; do sleep 1; done\"" TERM
           echo $$ > child; while :; do sleep 0.01; done' & wait"#,
    );
    let child = sandbox.process("child").await;
    // Long enough for a slow machine to start three programs.
    let report = stop_within_deadline(&sandbox, Some(&leader), Duration::from_secs(5)).await;
    assert!(sandbox.path("left").exists());
    assert!(!child.is_alive().unwrap());
    assert!(report.killed >= 1);
}

#[tokio::test]
async fn what_is_left_of_a_dead_leader_is_found_by_the_mark() {
    let sandbox = Sandbox::new();
    let leader = sandbox.spawn("sleep 600 & echo $! > child");
    let child = sandbox.process("child").await;
    within_deadline(exited(&leader)).await.unwrap();
    let report = stop_within_deadline(&sandbox, Some(&leader), LONG).await;
    assert_eq!(counts(report), (1, 0));
    assert!(!child.is_alive().unwrap());
}

#[tokio::test]
async fn what_carries_the_mark_vouches_for_the_session_of_a_dead_leader() {
    let sandbox = Sandbox::new();
    let leader = sandbox.spawn("sleep 600 & env -i /bin/sleep 600 & echo $! > child");
    let child = sandbox.process("child").await;
    within_deadline(exited(&leader)).await.unwrap();
    let report = stop_within_deadline(&sandbox, Some(&leader), LONG).await;
    assert_eq!(counts(report), (2, 0));
    assert!(!child.is_alive().unwrap());
}

#[tokio::test]
async fn what_is_left_of_a_zombie_leader_is_found_by_its_group() {
    let sandbox = Sandbox::new();
    let leader = sandbox.spawn("env -i /bin/sleep 600 & echo $! > child");
    let child = sandbox.process("child").await;
    eventually("the leader is over", || !leader.is_alive().unwrap()).await;
    let report = stop_within_deadline(&sandbox, Some(&leader), LONG).await;
    assert_eq!(counts(report), (1, 0));
    assert!(!child.is_alive().unwrap());
}

#[tokio::test]
async fn a_stopped_process_is_ended_too() {
    let sandbox = Sandbox::new();
    let leader = sandbox.spawn("exec sleep 600");
    signal(&leader, Signal::STOP);
    let report = stop_within_deadline(&sandbox, Some(&leader), LONG).await;
    assert_eq!(counts(report), (1, 0));
}

#[tokio::test]
async fn a_reused_pid_is_not_signalled() {
    let (sandbox, stranger) = (Sandbox::new(), Sandbox::new());
    let other = stranger.spawn("sleep 600 & exec sleep 600");
    let reused = other.with_reused_pid();
    let (name, value) = stranger.mark();
    let all = || find_by_environment(name, value);
    eventually("both run", || all().len() == 2).await;
    let report = stop_within_deadline(&sandbox, Some(&reused), SHORT).await;
    assert_eq!(counts(report), (0, 0));
    assert!(other.is_alive().unwrap());
    assert_eq!(all().len(), 2);
}

#[tokio::test]
async fn a_stop_with_nothing_to_end_returns_at_once() {
    let sandbox = Sandbox::new();
    let report = stop_within_deadline(&sandbox, None, LONG).await;
    assert_eq!(counts(report), (0, 0));
}

#[tokio::test]
async fn a_process_that_forks_as_fast_as_it_can_is_ended_with_all_that_it_made() {
    let sandbox = Sandbox::new();
    // A bounded bomb: children fork as well, in sessions of their own, until there were 1000 altogether.
    let bomb = "import mmap, os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.alarm(600)
made = mmap.mmap(-1, 4096)
for number in range(3): os.fork()
while True:
    if made[0] * 256 + made[1] < 1000 and os.fork() == 0:
        os.setsid()
        made[1] = (made[1] + 1) % 256
        made[0] += made[1] == 0
    elif made[0] * 256 + made[1] > 999: signal.pause()";
    let mut launch = sandbox.launch("");
    launch.program = "python3".to_owned();
    launch.arguments = vec!["-c".to_owned(), bomb.to_owned()];
    let leader = spawn(&launch).unwrap();
    let (name, value) = sandbox.mark();
    eventually("it has forked", || {
        find_by_environment(name, value).len() > 100
    })
    .await;
    stop_within_deadline(&sandbox, Some(&leader), SHORT).await;
    assert_eq!(find_by_environment(name, value), []);
}

#[tokio::test]
async fn a_process_that_answers_with_a_successor_is_killed() {
    let sandbox = Sandbox::new();
    // The signal is blocked from the first moment of each successor, so that none is lost: a handler of Python's forgets what
    // comes while it forks.
    let script = "import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print(os.getpid(), file=open('ready', 'w'))
while True:
    signal.alarm(600)
    signal.sigwait([signal.SIGTERM])
    if os.fork(): os._exit(0)";
    let mut launch = sandbox.launch("");
    launch.program = "python3".to_owned();
    launch.arguments = vec!["-c".to_owned(), script.to_owned()];
    let leader = spawn(&launch).unwrap();
    sandbox.process("ready").await;
    let report = stop_within_deadline(&sandbox, Some(&leader), LONG).await;
    assert!(report.killed >= 1);
    let (name, value) = sandbox.mark();
    assert_eq!(find_by_environment(name, value), []);
}
