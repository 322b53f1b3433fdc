//! Ends a process and all that came of it.

use std::{
    collections::HashMap,
    io,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    census::observe_all,
    identity::{IdentityError, Observed, ProcessIdentity},
    pidfd::{Pidfd, PidfdError},
};

/// How long a process may take to end after SIGKILL: the kernel has to free its memory, which takes seconds for very much of it.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// How often to look for processes that came meanwhile. Two looks do for an obedient tree, three for a stubborn one; what goes
/// on longer makes processes faster than they can be killed.
const ROUNDS: usize = 100;

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopReport {
    /// How many processes were ended; those that were over before are not counted.
    pub processes: usize,
    /// How many of them needed SIGKILL.
    pub killed: usize,
    /// From the call to the end of the last one.
    pub took: Duration,
}

/// Why processes are left.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// It does not even end by SIGKILL: it hangs in the kernel, on a dead network file system for example.
    #[error("process {pid} does not end after SIGKILL")]
    Unkillable {
        /// One of those that are left.
        pid: i32,
    },
    /// It may not be signalled: it runs as another user.
    #[error("not allowed to signal process {pid}")]
    Forbidden {
        /// One of those that are left.
        pid: i32,
        /// What the kernel says.
        source: io::Error,
    },
    /// New processes come faster than they can be ended.
    #[error("new processes keep coming, process {pid} is one of them")]
    Unending {
        /// One of those that are left.
        pid: i32,
    },
    /// The processes of this host cannot be looked at.
    #[error("cannot look for the processes to end")]
    Search(#[from] IdentityError),
    /// A process cannot be watched.
    #[error("cannot watch a process to end")]
    Watch(#[from] PidfdError),
    /// The runtime ends.
    #[error("interrupted while looking for the processes to end")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Ends every process that belongs to `leader` or carries `mark`, a name and its value, in its environment: SIGTERM (and
/// SIGCONT, for what is stopped), `grace`, SIGKILL; then looks again until nothing is left. It returns as soon as that is so.
///
/// To the leader belongs what is in its process group or its session, as long as it is certain that these numbers are
/// still the leader's. A process found once is remembered: it is ended also if it leaves the group and clears its
/// environment. No process is ever signalled by its pid.
///
/// Nothing is reaped here: children of ours remain as zombies, which are as good as gone, until
/// [`exited`](super::exited) reaps them.
///
/// # Errors
/// See [`StopError`]; with each of them something may be left.
pub async fn stop(
    leader: Option<&ProcessIdentity>,
    mark: (&str, &str),
    grace: Duration,
) -> Result<StopReport, StopError> {
    let started = Instant::now();
    let mut hunt = Hunt::new(leader, mark);
    for _ in 0..ROUNDS {
        hunt.search().await?;
        if hunt.alive().next().is_none() {
            return Ok(hunt.report(started.elapsed()));
        }
        let grace_left = grace.saturating_sub(started.elapsed());
        if grace_left.is_zero() {
            hunt.kill();
            hunt.wait(KILL_WAIT).await?;
            hunt.nothing_survived()?;
        } else {
            hunt.ask_to_end();
            hunt.wait(grace_left).await?;
        }
    }
    match hunt.alive().next() {
        Some((identity, _)) => Err(StopError::Unending {
            pid: identity.pid(),
        }),
        None => Ok(hunt.report(started.elapsed())),
    }
}

struct Hunt {
    scope: Scope,
    found: HashMap<ProcessIdentity, Member>,
}

/// What belongs to the hunt.
#[derive(Clone)]
struct Scope {
    mark: (String, String),
    leader: Option<ProcessIdentity>,
    /// Processes of the leader's session. As long as one of them is in it, the session's number cannot have become another's:
    /// the kernel gives no pid away that still names a group or a session, and none can enter an existing session.
    anchors: Vec<ProcessIdentity>,
}

struct Member {
    /// None: it has ended.
    pidfd: Option<Pidfd>,
    was_asked: bool,
    was_killed: bool,
    refusal: Option<io::Error>,
}

impl Hunt {
    fn new(leader: Option<&ProcessIdentity>, (name, value): (&str, &str)) -> Self {
        Self {
            scope: Scope {
                mark: (name.to_owned(), value.to_owned()),
                leader: leader.cloned(),
                anchors: leader.cloned().into_iter().collect(),
            },
            found: HashMap::new(),
        }
    }

    /// Looks for processes that belong to the hunt and are not known yet.
    async fn search(&mut self) -> Result<(), StopError> {
        let scope = self.scope.clone();
        let members = spawn_blocking(move || scope.members()).await??;
        for process in members {
            if self.found.contains_key(&process.identity) {
                continue;
            }
            let Some(pidfd) = Pidfd::open(&process.identity)? else {
                continue; // gone already
            };
            if self.scope.is_in_session(&process) {
                self.scope.anchors.push(process.identity.clone());
            }
            self.found.insert(process.identity, Member::new(pidfd));
        }
        Ok(())
    }

    fn alive(&self) -> impl Iterator<Item = (&ProcessIdentity, &Member)> {
        self.found
            .iter()
            .filter(|(_, member)| member.pidfd.is_some())
    }

    fn ask_to_end(&mut self) {
        for member in self.found.values_mut().filter(|member| !member.was_asked) {
            member.was_asked = true;
            member.send(Signal::TERM);
            // A stopped process acts on SIGTERM only when it goes on.
            member.send(Signal::CONT);
        }
    }

    fn kill(&mut self) {
        for member in self.found.values_mut() {
            member.was_killed |= member.pidfd.is_some();
            member.send(Signal::KILL);
        }
    }

    /// Waits until all that were found have ended, but no longer than `limit`.
    async fn wait(&mut self, limit: Duration) -> Result<(), StopError> {
        let all_ended = async {
            for pidfd in self.found.values().filter_map(|it| it.pidfd.as_ref()) {
                pidfd.ended().await?;
            }
            Ok::<_, PidfdError>(())
        };
        if let Ok(ended) = timeout(limit, all_ended).await {
            ended?;
        }
        for member in self.found.values_mut() {
            let Some(pidfd) = &member.pidfd else { continue };
            if pidfd.has_ended()? {
                member.pidfd = None;
            }
        }
        Ok(())
    }

    fn nothing_survived(&mut self) -> Result<(), StopError> {
        let survivor = self
            .found
            .iter_mut()
            .find(|(_, member)| member.pidfd.is_some());
        let Some((identity, member)) = survivor else {
            return Ok(());
        };
        let pid = identity.pid();
        Err(match member.refusal.take() {
            Some(source) => StopError::Forbidden { pid, source },
            None => StopError::Unkillable { pid },
        })
    }

    fn report(&self, took: Duration) -> StopReport {
        let killed = self.found.values().filter(|member| member.was_killed);
        StopReport {
            processes: self.found.len(),
            killed: killed.count(),
            took,
        }
    }
}

impl Member {
    fn new(pidfd: Pidfd) -> Self {
        Self {
            pidfd: Some(pidfd),
            was_asked: false,
            was_killed: false,
            refusal: None,
        }
    }

    /// A refusal counts only if the process is still there in the end.
    fn send(&mut self, signal: Signal) {
        if let Some(Err(refusal)) = self.pidfd.as_ref().map(|pidfd| pidfd.signal(signal)) {
            self.refusal = Some(refusal);
        }
    }
}

impl Scope {
    /// Every process that belongs to the hunt and has not ended, in one look at all processes.
    fn members(&self) -> Result<Vec<Observed>, IdentityError> {
        let (name, value) = &self.mark;
        let all = observe_all(name, value)?;
        // Looked at after the others: if the numbers are the leader's now, they were so all the while.
        let is_anchored = self.is_anchored(&all)?;
        let is_ours = |process: &Observed, is_marked: bool| {
            is_marked || (is_anchored && self.is_in_group_or_session(process))
        };
        let own_pid = i32::try_from(std::process::id()).ok();
        Ok(all
            .into_iter()
            .filter(|(process, is_marked)| !process.ended && is_ours(process, *is_marked))
            .map(|(process, _)| process)
            .filter(|process| Some(process.identity.pid()) != own_pid)
            .collect())
    }

    /// Whether the leader's pid still names the leader's group and session. A process that carries the mark and is in that
    /// session vouches for it too: the mark is handed down from the leader alone.
    fn is_anchored(&self, all: &[(Observed, bool)]) -> Result<bool, IdentityError> {
        let marked = all
            .iter()
            .filter(|(process, is_marked)| *is_marked && self.is_in_session(process))
            .map(|(process, _)| &process.identity);
        for anchor in self.anchors.iter().chain(marked) {
            let process = anchor.observe()?;
            if process.is_some_and(|process| self.is_in_session(&process)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_in_session(&self, process: &Observed) -> bool {
        let leader = self.leader.as_ref();
        leader.is_some_and(|leader| process.session == leader.pid() || process.identity == *leader)
    }

    fn is_in_group_or_session(&self, process: &Observed) -> bool {
        let leader = self.leader.as_ref();
        self.is_in_session(process) || leader.is_some_and(|it| process.group == it.pid())
    }
}

#[cfg(test)]
mod tests;
