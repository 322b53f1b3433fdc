//! Runs a program that should end at once, and takes what it prints.

use std::{
    io::Read as _,
    process::{Child, Command, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{ioctl_fionbio, retry_on_intr},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::task::spawn_blocking;

/// How long it may take: `claude --version` takes half a second, and more on a busy host.
const PATIENCE: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// How much is read of what it prints, in bytes. It fits into a pipe, so that nobody needs to read while it runs.
const LONGEST: usize = 4096;

/// What a program prints on its standard output, without white space around it. `None`: it cannot be run, fails, or does
/// not end in time, and then it is killed.
pub(super) async fn printed_by(mut command: Command) -> Option<String> {
    spawn_blocking(move || run(&mut command, &PATIENCE))
        .await
        .ok()?
}

fn run(command: &mut Command, patience: &Timespec) -> Option<String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    if !ends_in_time(&child, patience) {
        // It may have ended by now; either way it is reaped.
        child.kill().ok();
    }
    let status = child.wait().ok()?;
    let mut stdout = child.stdout.take()?;
    // What it left running may hold the pipe open: nothing more is waited for.
    ioctl_fionbio(&stdout, true).ok()?;
    let mut printed = [0; LONGEST];
    let length = stdout.read(&mut printed).unwrap_or_default();
    let printed = printed.get(..length).unwrap_or_default();
    let text = String::from_utf8_lossy(printed);
    status.success().then(|| text.trim().to_owned())
}

fn ends_in_time(child: &Child, patience: &Timespec) -> bool {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(handle) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
        return false;
    };
    let mut ended = [PollFd::new(&handle, PollFlags::IN)];
    retry_on_intr(|| poll(&mut ended, Some(patience))).is_ok_and(|events| events > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn printed(script: &str) -> Option<String> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        printed_by(command).await
    }

    #[tokio::test]
    async fn what_is_printed_is_taken_if_all_went_well() {
        assert_eq!(printed("echo 2.1.197").await.as_deref(), Some("2.1.197"));
        assert_eq!(printed("true").await.as_deref(), Some(""));
        assert_eq!(printed("echo 2.1.197; exit 1").await, None);
        let command = Command::new("/nowhere/claude");
        assert_eq!(printed_by(command).await, None);
    }

    #[tokio::test]
    async fn what_a_program_leaves_running_is_not_waited_for() {
        let left = "sleep 60 & echo $!";
        let pid = printed(left).await.unwrap();
        let sleeps = Command::new("kill").arg(&pid).status().unwrap();
        assert!(sleeps.success(), "it was waited for");
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        for script in ["echo 2.1.197; exec sleep 3600", "exec yes"] {
            let mut command = Command::new("sh");
            assert_eq!(run(command.args(["-c", script]), &patience), None);
        }
    }
}
