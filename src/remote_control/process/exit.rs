//! Waits for the end of a process and says how it ended.

use std::{fmt, os::unix::process::ExitStatusExt, process::ExitStatus};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::{
    identity::{IdentityError, ProcessIdentity},
    pidfd::{Pidfd, PidfdError},
};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It ended by itself, with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It ended, and the kernel told somebody else how.
    Unknown,
}

/// Why the end of a process cannot be waited for.
#[derive(Debug, thiserror::Error)]
#[error("cannot wait for the end of process {pid}")]
pub struct ExitError {
    pid: i32,
    source: PidfdError,
}

/// Waits until this very process has ended, and reaps it if it is a child of ours. Cancel safe.
///
/// How a child ended is known: one caller, the first, gets it. How another process ended (one that we adopted after a restart)
/// the kernel tells its parent. We know it only if we see the zombie before the parent reaps it; otherwise it is
/// [`Exit::Unknown`]. Since Linux 6.15 the ioctl `PIDFD_GET_INFO` with `PIDFD_INFO_EXIT` would tell it to any holder of a pidfd,
/// but neither rustix nor nix has a safe wrapper for it.
///
/// # Errors
/// When the kernel gives no handle on the process. That it is over already is no error, nor that its pid is another's now.
pub async fn exited(identity: &ProcessIdentity) -> Result<Exit, ExitError> {
    wait(identity).await.map_err(|source| ExitError {
        pid: identity.pid(),
        source,
    })
}

async fn wait(identity: &ProcessIdentity) -> Result<Exit, PidfdError> {
    let Some(process) = Pidfd::open(identity)? else {
        return Ok(Exit::Unknown);
    };
    process.ended().await?;
    match process.reap()? {
        Some(status) => Ok(status
            .exit_status()
            .map(Exit::Code)
            .or_else(|| status.terminating_signal().map(Exit::Signal))
            .unwrap_or(Exit::Unknown)),
        None => Ok(seen_in_zombie(identity)?),
    }
}

fn seen_in_zombie(identity: &ProcessIdentity) -> Result<Exit, IdentityError> {
    let zombie = identity.observe()?.filter(|process| process.ended);
    let Some(raw) = zombie.and_then(|process| process.exit_status) else {
        return Ok(Exit::Unknown);
    };
    let status = ExitStatus::from_raw(raw);
    let exit = status.code().map(Exit::Code);
    Ok(exit
        .or_else(|| status.signal().map(Exit::Signal))
        .unwrap_or(Exit::Unknown))
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(formatter, "exit code {code}"),
            Self::Signal(number) => match Signal::try_from(number) {
                Ok(signal) => write!(formatter, "signal {number} ({signal})"),
                Err(_) => write!(formatter, "signal {number}"),
            },
            Self::Unknown => formatter.write_str("unknown exit status"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        Sandbox, eventually, find_by_environment, signal, within_deadline,
    };
    use super::*;

    #[tokio::test]
    async fn the_exit_code_of_a_child_is_known() {
        let sandbox = Sandbox::new();
        let identity = sandbox.spawn("exit 7");
        let exit = within_deadline(exited(&identity)).await.unwrap();
        assert_eq!(exit, Exit::Code(7));
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
    async fn an_ended_child_is_reaped() {
        let sandbox = Sandbox::new();
        let identity = sandbox.spawn("exit 0");
        within_deadline(exited(&identity)).await.unwrap();
        assert!(identity.observe().unwrap().is_none());
        let again = within_deadline(exited(&identity)).await.unwrap();
        assert_eq!(again, Exit::Unknown);
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
        assert_eq!(Exit::Unknown.to_string(), "unknown exit status");
    }

    #[test]
    fn an_exit_has_a_stable_form_on_disk() {
        let written = serde_json::to_string(&[Exit::Code(1), Exit::Signal(9), Exit::Unknown]);
        assert_eq!(written.unwrap(), r#"[{"code":1},{"signal":9},"unknown"]"#);
    }
}
