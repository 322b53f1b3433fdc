//! Ends a process and its descendants.

use std::{
    collections::{HashMap, HashSet},
    io,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    cgroup::Cgroup,
    handle::{Handle, ProcessError, ProcessIdentity, Seen},
    survey::survey,
};

/// How long a process may take to end after SIGKILL: the kernel has to free its memory, which takes seconds if there is much.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// How many processes are waited for at a time, as each takes a descriptor; and how many of these are given up for one that is
/// needed.
const MOST_HANDLES: usize = 256;
const GIVEN_UP: usize = 8;

/// How often new processes may appear after all known ones have ended, before they are killed in spite of the grace: a process
/// that answers SIGTERM with a successor does so for ever.
const PATIENCE: usize = 10;

/// How often new processes may be found and stopped (SIGSTOP) before the known ones are killed.
const FREEZES: usize = 10;

/// How often new processes may appear altogether. Beyond that they appear faster than they can be killed.
const GENERATIONS: usize = 100;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StopReport {
    /// How many processes were ended; those that were over before are not counted.
    pub processes: usize,
    /// How many of them needed SIGKILL.
    pub killed: usize,
    /// From the call to the end of the last one.
    pub took: Duration,
}

/// Why processes are left. One of them is named.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// It does not even end on SIGKILL: it hangs in the kernel, on a dead network file system for example.
    #[error("process {pid} does not end after SIGKILL, it hangs in the kernel")]
    Unkillable { pid: i32 },
    #[error("process {pid} may not be signalled, it runs as another user")]
    Forbidden { pid: i32, source: io::Error },
    #[error("new processes come faster than they can be ended, process {pid} is one of them")]
    Unending { pid: i32 },
    /// The processes of this host cannot be looked at or watched.
    #[error("cannot find the processes to end")]
    Search(#[from] ProcessError),
    /// The runtime ends.
    #[error("interrupted while looking for the processes to end")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Ends every process that belongs to `leader` or carries `mark`, a name and its value, in its environment: SIGTERM (and
/// SIGCONT, for what is stopped), `grace`, SIGKILL; then looks again until nothing is left. It returns as soon as that is so.
///
/// At first only the leader gets SIGTERM: a server ends its children in order, and signs off from its service. The others get
/// it once the leader has ended, or half of the grace is over.
///
/// The processes of the leader are those in its process group or its session, as long as these numbers are certainly still the
/// leader's, and those in the cgroup that was created for it. A process found once is remembered: it is ended even if it leaves
/// the group and clears its environment. No process is ever signalled by its pid.
///
/// Processes that keep forking are first all stopped (SIGSTOP), then killed.
///
/// Nothing is reaped here: children of ours remain as zombies, which count as ended, until [`exited`](super::exited) reaps
/// them.
/// After each [`StopError`] something may be left.
pub(crate) async fn stop(
    leader: Option<&ProcessIdentity>,
    mark: (&str, &str),
    grace: Duration,
) -> Result<StopReport, StopError> {
    let started = Instant::now();
    let mut tree = ProcessTree::new(leader, mark);
    let (mut generations, mut freezes) = (0, 0);
    // The leader gets half of the grace, and then all of them the other half: also where this process got no processor meanwhile.
    let half = grace / 2;
    let mut all_asked: Option<Instant> = None;
    while generations <= GENERATIONS {
        let is_patient = generations < PATIENCE && !grace.is_zero();
        let means = if is_patient && started.elapsed() < half {
            Means::AskLeader
        } else if is_patient && all_asked.is_none_or(|asked| asked.elapsed() < half) {
            all_asked.get_or_insert_with(Instant::now);
            Means::Ask
        } else if freezes < FREEZES {
            Means::Freeze
        } else {
            Means::Kill
        };
        let found_new;
        (tree, found_new) = spawn_blocking(move || {
            let found_new = tree.look_and_signal(means)?;
            Ok::<_, ProcessError>((tree, found_new))
        })
        .await??;
        if tree.alive == 0 {
            return Ok(tree.report(started.elapsed()));
        }
        generations += usize::from(found_new);
        let waited = all_asked.unwrap_or(started).elapsed();
        match means {
            Means::AskLeader | Means::Ask => tree.wait(half.saturating_sub(waited)).await?,
            Means::Freeze if found_new => freezes += 1,
            Means::Freeze | Means::Kill => {
                freezes = 0;
                tree.wait(KILL_WAIT).await?;
                tree.nothing_survived()?;
            }
        }
    }
    Err(StopError::Unending {
        pid: tree.handles.first().map(Handle::pid).unwrap_or_default(),
    })
}

/// How processes are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    /// SIGTERM to the leader; if there is none, to all.
    AskLeader,
    /// SIGTERM to all.
    Ask,
    /// SIGSTOP to all, so that they cannot fork; SIGKILL, once no new ones are found.
    Freeze,
    /// SIGKILL to all.
    Kill,
}

struct ProcessTree {
    mark: (String, String),
    leader: Option<ProcessIdentity>,
    cgroups: Vec<Cgroup>,
    found: HashMap<ProcessIdentity, Member>,
    /// How many were alive in the last survey.
    alive: usize,
    /// Those of processes that are waited for.
    handles: Vec<Handle>,
}

#[derive(Default)]
struct Member {
    was_asked: bool,
    was_killed: bool,
    /// The error of a signal; it counts only if the process is still there in the end.
    refusal: Option<io::Error>,
}

impl ProcessTree {
    fn new(leader: Option<&ProcessIdentity>, (name, value): (&str, &str)) -> Self {
        Self {
            mark: (name.to_owned(), value.to_owned()),
            leader: leader.cloned(),
            cgroups: Cgroup::all(value, leader),
            found: HashMap::new(),
            alive: 0,
            handles: Vec::new(),
        }
    }

    /// Finds all processes to end and signals them. Returns whether there were new ones.
    fn look_and_signal(&mut self, means: Means) -> Result<bool, ProcessError> {
        self.handles.clear();
        let alive = self.members()?;
        self.alive = alive.len();
        let is_new = |identity| !self.found.contains_key(identity);
        let found_new = alive.iter().any(is_new);
        let leader = self.leader.as_ref().filter(|leader| alive.contains(leader));
        let only_asked = leader.filter(|_| means == Means::AskLeader).cloned();
        let asks = matches!(means, Means::AskLeader | Means::Ask);
        let kills = means == Means::Kill || means == Means::Freeze && !found_new;
        if kills {
            self.cgroups.iter().for_each(Cgroup::kill);
        }
        for identity in &alive {
            let member = self.found.entry(identity.clone()).or_default();
            let is_others_turn = only_asked.as_ref().is_some_and(|leader| leader != identity);
            let is_one_too_many = member.was_asked && self.handles.len() >= MOST_HANDLES;
            if is_others_turn || asks && is_one_too_many {
                continue;
            }
            let handle = Handle::open(identity).or_else(|_| {
                let kept = self.handles.len().saturating_sub(GIVEN_UP);
                self.handles.truncate(kept);
                Handle::open(identity)
            });
            let Some(handle) = handle? else {
                continue; // gone already
            };
            let signals: &[Signal] = match means {
                Means::AskLeader | Means::Ask if member.was_asked => &[],
                // A stopped process acts on SIGTERM only when it is continued.
                Means::AskLeader | Means::Ask => &[Signal::TERM, Signal::CONT],
                Means::Freeze if !kills => &[Signal::STOP],
                Means::Freeze | Means::Kill => &[Signal::KILL],
            };
            member.was_asked |= asks;
            member.was_killed |= kills;
            for signal in signals {
                if let Err(refusal) = handle.signal(*signal) {
                    member.refusal = Some(refusal);
                }
            }
            if self.handles.len() < MOST_HANDLES {
                self.handles.push(handle);
            }
        }
        Ok(found_new)
    }

    /// Every process to end that has not ended, in one survey of all processes.
    fn members(&self) -> Result<Vec<ProcessIdentity>, ProcessError> {
        let (name, value) = &self.mark;
        let all = survey([name])?.into_iter().map(|(process, [found])| {
            let is_marked = found.is_some_and(|found| found == value.as_str());
            (process, is_marked)
        });
        let all: Vec<_> = all.collect();
        // Checked after the survey: if the numbers are the leader's now, they were so all the while; and a process seen before
        // with one of these pids is still that process.
        let anchor = self.anchor(&all)?;
        let in_cgroup: HashSet<i32> = self.cgroups.iter().flat_map(Cgroup::pids).collect();
        let own_pid = i32::try_from(std::process::id()).ok();
        let is_ours = |process: &Seen, is_marked: bool| {
            is_marked
                || anchor.is_some_and(|leader| [process.session, process.group].contains(&leader))
                || in_cgroup.contains(&process.identity.pid())
                || self.found.contains_key(&process.identity)
        };
        Ok(all
            .into_iter()
            .filter(|(process, is_marked)| !process.ended && is_ours(process, *is_marked))
            .map(|(process, _)| process.identity)
            .filter(|identity| Some(identity.pid()) != own_pid)
            .collect())
    }

    /// The leader's pid, if it still identifies the leader's group and session. A process in that session that carries the mark
    /// proves that, as only the leader hands the mark down; so does one that was found before. As long as one of them is in it,
    /// the session's number cannot be reused: the kernel does not reuse a pid that still names a group or a session, and no
    /// process can enter an existing session.
    fn anchor(&self, all: &[(Seen, bool)]) -> Result<Option<i32>, ProcessError> {
        let Some(leader) = &self.leader else {
            return Ok(None);
        };
        for (process, is_marked) in all {
            let is_member = *is_marked
                || process.identity == *leader
                || self.found.contains_key(&process.identity);
            if is_member
                && process.session == leader.pid()
                && let Some(process) = process.identity.look()?
                && process.session == leader.pid()
            {
                return Ok(Some(leader.pid()));
            }
        }
        Ok(None)
    }

    /// Waits until those with a handle have ended, but no longer than `limit`.
    async fn wait(&self, limit: Duration) -> Result<(), ProcessError> {
        let all_ended = async {
            for handle in &self.handles {
                handle.ended().await?;
            }
            Ok(())
        };
        timeout(limit, all_ended).await.unwrap_or(Ok(()))
    }

    fn nothing_survived(&mut self) -> Result<(), StopError> {
        for handle in &self.handles {
            if handle.has_ended()? {
                continue;
            }
            let pid = handle.pid();
            let mut members = self.found.iter_mut();
            let survivor = members.find(|(identity, _)| identity.pid() == pid);
            let refusal = survivor.and_then(|(_, member)| member.refusal.take());
            return Err(refusal.map_or(StopError::Unkillable { pid }, |source| {
                StopError::Forbidden { pid, source }
            }));
        }
        Ok(())
    }

    /// The report once nothing is left.
    fn report(&self, took: Duration) -> StopReport {
        self.cgroups.iter().for_each(Cgroup::remove);
        let killed = self.found.values().filter(|member| member.was_killed);
        StopReport {
            processes: self.found.len(),
            killed: killed.count(),
            took,
        }
    }
}

#[cfg(test)]
mod tests {
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
    async fn a_process_that_ends_on_sigterm_takes_no_grace_and_is_left_for_its_watcher_to_reap() {
        let sandbox = Sandbox::new();
        let leader = sandbox.spawn("exec sleep 600");
        let report = stop_within_deadline(&sandbox, Some(&leader), LONG).await;
        assert_eq!(counts(report), (1, 0));
        assert!(!leader.is_alive().unwrap());
        let exit = within_deadline(exited(&leader)).await.unwrap();
        assert_eq!(exit, super::super::Exit::Signal(15));
    }

    /// A leader with a child that records when it gets SIGTERM. `on_asked`: what the leader does then.
    async fn leader_with_child(sandbox: &Sandbox, on_asked: &str) -> ProcessIdentity {
        let child =
            "trap 'touch child-asked; exit' TERM; echo $$ > child; while :; do sleep 0.01; done";
        std::fs::write(sandbox.path("child.sh"), child).unwrap();
        let leader = sandbox.spawn(&format!(
            "trap '{on_asked}' TERM; sh child.sh & while :; do sleep 0.01; done"
        ));
        sandbox.process("child").await;
        leader
    }

    #[tokio::test]
    async fn the_leader_ends_before_the_rest_gets_sigterm() {
        let sandbox = Sandbox::new();
        let in_its_way = "sleep 0.5; test -e child-asked || touch undisturbed; exit";
        let leader = leader_with_child(&sandbox, in_its_way).await;
        let report = stop_within_deadline(&sandbox, Some(&leader), LONG).await;
        assert_eq!(report.killed, 0);
        assert!(sandbox.path("undisturbed").exists());
        assert!(
            sandbox.path("child-asked").exists(),
            "the child's turn comes"
        );
    }

    #[tokio::test]
    async fn the_rest_gets_sigterm_after_half_of_the_grace_if_the_leader_stays() {
        let sandbox = Sandbox::new();
        let leader = leader_with_child(&sandbox, ":").await;
        let report = stop_within_deadline(&sandbox, Some(&leader), Duration::from_secs(4)).await;
        assert!(sandbox.path("child-asked").exists());
        assert!(report.killed >= 1);
    }

    #[tokio::test]
    async fn a_stop_with_a_watcher_that_reaps_at_once_ends_the_whole_group() {
        let sandbox = Sandbox::new();
        // The child writes its pid only once it ignores the signal.
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
        let leader = sandbox.spawn(
            "setsid sh -c 'echo $$ > grandchild; exec sleep 600' & setsid -f sleep 600; wait",
        );
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
    async fn a_child_that_left_the_group_and_its_environment_after_the_first_look_is_ended() {
        let sandbox = Sandbox::new();
        // On SIGTERM it becomes, with the same pid, a process that only its identity distinguishes from a stranger.
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
    async fn children_that_cleared_their_environment_are_ended_with_their_group() {
        let sandbox = Sandbox::new();
        let leader = sandbox.spawn("env -i /bin/sh -c 'echo $$ > child; exec sleep 600' & wait");
        let child = sandbox.process("child").await;
        stop_within_deadline(&sandbox, Some(&leader), LONG).await;
        assert!(!child.is_alive().unwrap());
    }

    #[tokio::test]
    async fn what_is_left_of_a_leader_is_ended() {
        for (script, is_reaped, processes) in [
            // The one with the mark keeps the session ours.
            (
                "sleep 600 & env -i /bin/sleep 600 & echo $! > child",
                true,
                2,
            ),
            // The zombie keeps the group ours.
            ("env -i /bin/sleep 600 & echo $! > child", false, 1),
        ] {
            let sandbox = Sandbox::new();
            let leader = sandbox.spawn(script);
            let child = sandbox.process("child").await;
            if is_reaped {
                within_deadline(exited(&leader)).await.unwrap();
            }
            eventually("the leader is over", || !leader.is_alive().unwrap()).await;
            let report = stop_within_deadline(&sandbox, Some(&leader), LONG).await;
            assert_eq!(counts(report), (processes, 0));
            assert!(!child.is_alive().unwrap());
        }
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
        for leader in [Some(&reused), None] {
            let report = stop_within_deadline(&sandbox, leader, LONG).await;
            assert_eq!(counts(report), (0, 0));
        }
        assert!(other.is_alive().unwrap());
        assert_eq!(all().len(), 2);
    }

    #[tokio::test]
    async fn a_process_that_forks_as_fast_as_it_can_is_ended_with_all_that_it_made() {
        let sandbox = Sandbox::new();
        // A bounded bomb: children fork as well, in new sessions. Each fork takes a byte of 1000, so that none is counted twice
        // or not at all, however many fork at once.
        let bomb = "import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.alarm(600)
left, full = os.pipe()
os.write(full, bytes(1000))
os.close(full)
for number in range(3): os.fork()
while os.read(left, 1):
    if os.fork() == 0: os.setsid()
while True: signal.pause()";
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
        // The signal is blocked from the first moment of each successor, so that none is lost: a Python handler forgets what
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
}
