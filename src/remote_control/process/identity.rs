//! The identity of a process. A pid is reused; a pid with its start time and its boot is not.

use std::{io, sync::OnceLock};

use procfs::{
    ProcError, WithCurrentSystemInfo as _,
    process::{Process, Stat},
};
use serde::{Deserialize, Serialize};

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
#[expect(missing_docs, reason = "the names of the fields say it")]
pub enum ProcessError {
    /// The kernel does not give its boot id.
    #[error("cannot read the boot id of this host")]
    BootId(#[source] ProcError),
    /// `/proc` cannot be listed.
    #[error("cannot list the processes of this host")]
    List(#[source] ProcError),
    /// A process exists and `/proc` does not show it.
    #[error("cannot look at process {pid}")]
    Look { pid: i32, source: ProcError },
    /// The kernel gives no handle on the process.
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
    /// Its process group.
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

#[cfg(test)]
mod tests {
    use super::super::testing::{Sandbox, eventually};
    use super::*;

    #[tokio::test]
    async fn a_running_process_is_alive_and_survives_a_round_trip_through_json() {
        let sandbox = Sandbox::new();
        let identity = sandbox.spawn("exec sleep 600");
        assert!(identity.is_alive().unwrap());
        let json = serde_json::to_string(&identity).unwrap();
        assert_eq!(
            serde_json::from_str::<ProcessIdentity>(&json).unwrap(),
            identity
        );
    }

    #[tokio::test]
    async fn a_reused_pid_is_not_alive() {
        let sandbox = Sandbox::new();
        let identity = sandbox.spawn("exec sleep 600");
        assert!(!identity.with_reused_pid().is_alive().unwrap());
    }

    #[tokio::test]
    async fn a_process_of_another_boot_is_not_alive() {
        let sandbox = Sandbox::new();
        let mut identity = sandbox.spawn("exec sleep 600");
        identity.boot_id = "another boot".to_owned();
        assert!(!identity.is_alive().unwrap());
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
}
