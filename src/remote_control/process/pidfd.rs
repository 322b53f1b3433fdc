//! A handle on one process: what is signalled or waited for through it is that process, whatever becomes of its pid.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use super::{
    identity::{IdentityError, ProcessIdentity},
    readiness::readable,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open,
        pidfd_send_signal, waitid,
    },
};

/// Why a process cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum PidfdError {
    /// The kernel gives no handle on the process.
    #[error("cannot watch process {pid}")]
    Watch {
        /// The process.
        pid: i32,
        /// Why not.
        source: io::Error,
    },
    /// The process cannot be recognised.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// A pidfd whose process was recognised after it was opened; see `pidfd_open(2)`.
#[derive(Debug)]
pub(super) struct Pidfd {
    pid: i32,
    fd: OwnedFd,
}

impl Pidfd {
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// A handle on this very process, be it a zombie. `None`: it is over, and its pid is free or another's.
    pub(super) fn open(identity: &ProcessIdentity) -> Result<Option<Self>, PidfdError> {
        let pid = identity.pid();
        let failed = |source| PidfdError::Watch { pid, source };
        let Some(raw) = Pid::from_raw(pid).filter(|_| pid > 1) else {
            return Ok(None);
        };
        let fd = match pidfd_open(raw, PidfdFlags::NONBLOCK) {
            Err(Errno::SRCH) => return Ok(None),
            opened => opened.map_err(|errno| failed(errno.into()))?,
        };
        // Looked at before the handle was opened, the process could have been replaced in between.
        if identity.observe()?.is_none() {
            return Ok(None);
        }
        Ok(Some(Self { pid, fd }))
    }

    /// Waits until the process has ended: it is a zombie, or not even that. Cancel safe. Runs within a tokio runtime only.
    pub(super) async fn ended(&self) -> Result<(), PidfdError> {
        let failed = |source| self.failed(source);
        let fd = readable(self.fd.as_fd()).map_err(failed)?;
        loop {
            let mut ready = fd.readable().await.map_err(failed)?;
            if self.has_ended()? {
                return Ok(());
            }
            ready.clear_ready();
        }
    }

    /// Whether the process has ended.
    pub(super) fn has_ended(&self) -> Result<bool, PidfdError> {
        let mut polled = [PollFd::new(&self.fd, PollFlags::IN)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let ready = poll(&mut polled, Some(&at_once)).map_err(|errno| self.failed(errno.into()))?;
        Ok(ready > 0)
    }

    /// Sends a signal. To a process that has ended it is sent in vain, which is no error.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes the exit status of a child of ours. `None`: it is not our child, or was reaped before.
    pub(super) fn reap(&self) -> Result<Option<WaitIdStatus>, PidfdError> {
        let id = WaitId::PidFd(self.fd.as_fd());
        match waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Err(Errno::CHILD) => Ok(None),
            waited => waited.map_err(|errno| self.failed(errno.into())),
        }
    }

    fn failed(&self, source: io::Error) -> PidfdError {
        PidfdError::Watch {
            pid: self.pid,
            source,
        }
    }
}
