//! One process: what identifies it, what `/proc` shows of it, and a handle that signals, waits for and reaps it and no other.

use std::{
    fmt, io,
    os::{
        fd::{AsFd as _, AsRawFd, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    process::ExitStatus,
    sync::OnceLock,
};

use procfs::{
    ProcError, WithCurrentSystemInfo as _,
    process::{Process, Stat},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
    },
};
use serde::{Deserialize, Serialize};
use tokio::io::{Interest, unix::AsyncFd};

/// Identifies one process of one boot of this host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessIdentity {
    pid: i32,
    /// Clock ticks since boot: field 22 of `/proc/<pid>/stat`, see `proc_pid_stat(5)`.
    pub(super) start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`: another one at each boot.
    boot_id: String,
}

/// Why a process cannot be looked at or watched. It is not an error if it has ended.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("cannot read the boot id of this host")]
    BootId(#[source] ProcError),
    #[error("cannot list the processes of this host")]
    List(#[source] ProcError),
    #[error("cannot look at process {pid}")]
    Look { pid: i32, source: ProcError },
    #[error("cannot watch process {pid}")]
    Watch { pid: i32, source: io::Error },
}

impl ProcessIdentity {
    /// The identity of the process that has this pid now. `None`: no such process, or a zombie.
    pub fn of(pid: i32) -> Result<Option<Self>, ProcessError> {
        let seen = look(pid)?.filter(|process| !process.ended);
        Ok(seen.map(|process| process.identity))
    }

    /// Whether this very process still runs: same pid, same start time, same boot, not a zombie.
    /// Fails when `/proc` cannot be read: "no" could then lose a process.
    pub fn is_alive(&self) -> Result<bool, ProcessError> {
        Ok(self.look()?.is_some_and(|process| !process.ended))
    }

    /// The pid, for people to read. It names this process only as long as that runs.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// This very process as it is now, even a zombie. `None`: it is over and reaped, even if its pid is reused.
    pub(super) fn look(&self) -> Result<Option<Seen>, ProcessError> {
        if boot_id()? != self.boot_id {
            return Ok(None);
        }
        Ok(look(self.pid)?.filter(|process| process.identity == *self))
    }

    /// An identity with the pid of this one and another start time, as a reused pid would have it.
    #[cfg(test)]
    pub(super) fn with_reused_pid(&self) -> Self {
        Self {
            start_time: self.start_time - 1,
            ..self.clone()
        }
    }
}

/// A process as one look showed it; a zombie too.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) identity: ProcessIdentity,
    pub(super) group: i32,
    /// Its session in the kernel's sense (setsid).
    pub(super) session: i32,
    /// A zombie: over, and only its exit status is left.
    pub(super) ended: bool,
    /// The status that wait(2) would give, as far as the kernel shows it to us; meaningful only for a zombie.
    pub(super) exit_status: Option<i32>,
    /// How much memory it has in use, in bytes.
    pub(super) memory: u64,
}

impl Seen {
    pub(super) fn new(stat: &Stat) -> Result<Self, ProcessError> {
        Ok(Self {
            identity: ProcessIdentity {
                pid: stat.pid,
                start_time: stat.starttime,
                boot_id: boot_id()?.to_owned(),
            },
            group: stat.pgrp,
            session: stat.session,
            // The first thread of a process may be a zombie while others run on.
            ended: matches!(stat.state, 'Z' | 'X' | 'x') && stat.num_threads <= 1,
            exit_status: stat.exit_code,
            memory: stat.rss_bytes().get(),
        })
    }

    /// Whether it leads a kernel session: of a spawned process and its descendants, the spawned one does.
    pub(crate) fn leads_session(&self) -> bool {
        self.session == self.identity.pid
    }
}

/// The process that has this pid now, even a zombie.
pub(super) fn look(pid: i32) -> Result<Option<Seen>, ProcessError> {
    // The handle is on one and the same process, so this cannot mix two of them.
    match Process::new(pid).and_then(|process| process.stat()) {
        Ok(stat) => Seen::new(&stat).map(Some),
        Err(ProcError::NotFound(_)) => Ok(None),
        Err(source) => Err(ProcessError::Look { pid, source }),
    }
}

/// The kernel's name for this boot of the host. It does not change while we run, so it is read once.
pub(crate) fn boot_id() -> Result<&'static str, ProcessError> {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    if let Some(known) = BOOT_ID.get() {
        return Ok(known);
    }
    let read = procfs::sys::kernel::random::boot_id().map_err(ProcessError::BootId)?;
    Ok(BOOT_ID.get_or_init(|| read))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// It ended, and only its parent knows how.
    Unknown,
}

/// Waits until this very process has ended, and reaps it if it is our child. Cancel safe.
///
/// The exit status of a child is known; the first caller gets it. That of another process (one that we adopted after a restart)
/// goes to its parent. We know it only if we see the zombie before the parent reaps it; otherwise it is [`Exit::Unknown`].
/// Since Linux 6.15 the ioctl `PIDFD_GET_INFO` with `PIDFD_INFO_EXIT` would give it to any holder of a pidfd, but neither
/// rustix nor nix has a safe wrapper for it.
/// Fails when the kernel gives no handle on the process. It is not an error if it is over already, or its pid is reused.
pub(crate) async fn exited(identity: &ProcessIdentity) -> Result<Exit, ProcessError> {
    let Some(process) = Handle::open(identity)? else {
        return Ok(Exit::Unknown);
    };
    process.ended().await?;
    if let Some(exit) = process.reap()? {
        return Ok(exit);
    }
    let zombie = identity.look()?.filter(|process| process.ended);
    let status = zombie.and_then(|process| process.exit_status);
    let status = status.map(ExitStatus::from_raw);
    Ok(status.map_or(Exit::Unknown, |status| {
        Exit::new(status.code(), status.signal())
    }))
}

impl Exit {
    fn new(code: Option<i32>, signal: Option<i32>) -> Self {
        let code = code.map(Self::Code);
        code.or(signal.map(Self::Signal)).unwrap_or(Self::Unknown)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(formatter, "exit code {code}"),
            Self::Signal(number) => match nix::sys::signal::Signal::try_from(number) {
                Ok(signal) => write!(formatter, "signal {number} ({signal})"),
                Err(_) => write!(formatter, "signal {number}"),
            },
            Self::Unknown => formatter.write_str("exit code unknown"),
        }
    }
}

/// A pidfd whose process was recognised after it was opened; see `pidfd_open(2)`.
#[derive(Debug)]
pub(super) struct Handle {
    pid: i32,
    fd: OwnedFd,
}

impl Handle {
    /// A handle on this very process, be it a zombie. `None`: it is over, and its pid is free or another's.
    pub(super) fn open(identity: &ProcessIdentity) -> Result<Option<Self>, ProcessError> {
        let pid = identity.pid();
        let Some(raw) = Pid::from_raw(pid).filter(|_| pid > 1) else {
            return Ok(None);
        };
        let fd = match pidfd_open(raw, PidfdFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(unwatched(pid, errno)),
        };
        // Checked after the handle was opened: before, the process could have been replaced in between.
        Ok(identity.look()?.map(|_| Self { pid, fd }))
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until the process has ended: it is a zombie, or not even that. Cancel safe. Runs within a tokio runtime only.
    pub(super) async fn ended(&self) -> Result<(), ProcessError> {
        let failed = |source| unwatched(self.pid, source);
        let fd = readable(self.fd.as_fd()).map_err(failed)?;
        loop {
            let mut ready = fd.readable().await.map_err(failed)?;
            if self.has_ended()? {
                return Ok(());
            }
            ready.clear_ready();
        }
    }

    pub(super) fn has_ended(&self) -> Result<bool, ProcessError> {
        let mut polled = [PollFd::new(&self.fd, PollFlags::IN)];
        let ready = poll(&mut polled, Some(&Timespec::default()));
        Ok(ready.map_err(|errno| unwatched(self.pid, errno))? > 0)
    }

    /// Sends a signal. It is not an error if the process has ended.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes the exit status of a child of ours. `None`: it is not our child, or was reaped before.
    fn reap(&self) -> Result<Option<Exit>, ProcessError> {
        let id = WaitId::PidFd(self.fd.as_fd());
        let status = match waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(status) => status,
            Err(Errno::CHILD) => None,
            Err(errno) => return Err(unwatched(self.pid, errno)),
        };
        Ok(status.map(|status| Exit::new(status.exit_status(), status.terminating_signal())))
    }
}

fn unwatched(pid: i32, source: impl Into<io::Error>) -> ProcessError {
    let source = source.into();
    ProcessError::Watch { pid, source }
}

/// Registers a descriptor of the kernel's (a pidfd, an inotify instance), to wait until it can be read. Runs within a tokio
/// runtime only.
#[expect(
    deprecated,
    reason = "deprecated because a type could swap its descriptor, which OwnedFd and BorrowedFd cannot; what replaces it is unsafe"
)]
pub(super) fn readable<D: AsRawFd>(descriptor: D) -> io::Result<AsyncFd<D>> {
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        Sandbox, eventually, find_by_environment, signal, within_deadline,
    };
    use super::*;

    #[tokio::test]
    async fn only_the_process_of_this_start_time_and_boot_is_alive() {
        let sandbox = Sandbox::new();
        let identity = sandbox.spawn("exec sleep 600");
        assert!(identity.is_alive().unwrap());
        let json = serde_json::to_string(&identity).unwrap();
        assert_eq!(
            serde_json::from_str::<ProcessIdentity>(&json).unwrap(),
            identity
        );
        let of_another_boot = ProcessIdentity {
            boot_id: "another boot".to_owned(),
            ..identity.clone()
        };
        for other in [identity.with_reused_pid(), of_another_boot] {
            assert!(!other.is_alive().unwrap(), "{other:?}");
        }
    }

    #[tokio::test]
    async fn a_zombie_is_dead() {
        let sandbox = Sandbox::new();
        let identity = sandbox.spawn("exit 0");
        eventually("it is a zombie", || {
            look(identity.pid()).unwrap().is_some_and(|it| it.ended)
        })
        .await;
        assert!(!identity.is_alive().unwrap());
        assert_eq!(ProcessIdentity::of(identity.pid()).unwrap(), None);
    }

    #[test]
    fn a_pid_without_a_process_has_no_identity() {
        // The kernel's greatest pid is 4,194,303.
        assert_eq!(ProcessIdentity::of(4_194_304).unwrap(), None);
    }

    #[tokio::test]
    async fn the_exit_code_of_a_child_is_known_and_the_child_reaped() {
        let sandbox = Sandbox::new();
        let identity = sandbox.spawn("exit 7");
        let exit = within_deadline(exited(&identity)).await.unwrap();
        assert_eq!(exit, Exit::Code(7));
        assert!(identity.look().unwrap().is_none());
        let again = within_deadline(exited(&identity)).await.unwrap();
        assert_eq!(again, Exit::Unknown);
    }

    #[tokio::test]
    async fn the_signal_that_ended_a_child_is_known() {
        let sandbox = Sandbox::new();
        let identity = sandbox.spawn("exec sleep 600");
        let (exit, ()) = tokio::join!(within_deadline(exited(&identity)), async {
            signal(&identity, rustix::process::Signal::KILL);
        });
        assert_eq!(exit.unwrap(), Exit::Signal(9));
    }

    #[tokio::test]
    async fn the_end_of_a_process_that_is_not_our_child_is_noticed() {
        let sandbox = Sandbox::new();
        let parent = sandbox.spawn("sleep 600 & echo $! > child; wait");
        let pid = || std::fs::read_to_string(sandbox.path("child")).unwrap_or_default();
        eventually("the child is there", || pid().ends_with('\n')).await;
        let pid = pid().trim().parse().unwrap();
        let child = ProcessIdentity::of(pid).unwrap().unwrap();
        let (exit, ()) = tokio::join!(within_deadline(exited(&child)), async {
            signal(&child, rustix::process::Signal::TERM);
        });
        // The shell may reap its child before we look.
        assert!(matches!(exit.unwrap(), Exit::Signal(15) | Exit::Unknown));
        assert!(!child.is_alive().unwrap());
        within_deadline(exited(&parent)).await.unwrap();
    }

    #[tokio::test]
    async fn a_reused_pid_is_over_at_once() {
        let sandbox = Sandbox::new();
        let other = sandbox.spawn("exec sleep 600");
        let exit = within_deadline(exited(&other.with_reused_pid())).await;
        assert_eq!(exit.unwrap(), Exit::Unknown);
        let (name, value) = sandbox.mark();
        assert_eq!(find_by_environment(name, value), [other]);
    }

    #[test]
    fn an_exit_reads_well() {
        assert_eq!(Exit::Code(1).to_string(), "exit code 1");
        assert_eq!(Exit::Signal(9).to_string(), "signal 9 (SIGKILL)");
        assert_eq!(Exit::Signal(40).to_string(), "signal 40");
        assert_eq!(Exit::Unknown.to_string(), "exit code unknown");
    }

    #[test]
    fn an_exit_has_a_stable_form_on_disk() {
        let written = serde_json::to_string(&[Exit::Code(1), Exit::Signal(9), Exit::Unknown]);
        assert_eq!(written.unwrap(), r#"[{"code":1},{"signal":9},"unknown"]"#);
    }
}
