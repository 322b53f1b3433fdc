//! Runs a program that should end at once, and reads its output.

use std::{
    io::Read,
    os::fd::AsFd,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::io::ioctl_fionbio;
use tokio::{task::spawn_blocking, time::timeout};

/// How long it may take: `claude --version` takes half a second, and more on a busy host.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take to end when it is killed, and to be started at all: a program on a dead network file system does neither.
const KILL_WAIT: Duration = Duration::from_secs(1);

/// How often it is polled.
const PAUSE: Duration = Duration::from_millis(10);

/// How many bytes are read of each of its two outputs. They fit into a pipe, so that nobody needs to read while it runs.
const LONGEST: usize = 4096;

/// How much of a complaint is shown, in characters.
const LONGEST_COMPLAINT: usize = 200;

/// Why a program has no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotPrinted {
    #[error("{0}")]
    NotStarted(String),
    /// It timed out, and was killed.
    #[error("it had not ended after {} s", TIMEOUT.as_secs())]
    TooSlow,
    /// It failed: its exit code or signal, and the first line that it printed on standard error.
    #[error("{0}")]
    Failed(String),
}

/// What a program prints on its standard output, without white space around it.
pub(super) async fn printed_by(mut command: Command) -> Result<String, NotPrinted> {
    let running = spawn_blocking(move || run(&mut command, TIMEOUT));
    match timeout(TIMEOUT + KILL_WAIT, running).await {
        Ok(Ok(printed)) => printed,
        Ok(Err(error)) => Err(NotPrinted::NotStarted(error.to_string())),
        Err(_) => Err(NotPrinted::TooSlow),
    }
}

fn run(command: &mut Command, patience: Duration) -> Result<String, NotPrinted> {
    let not_started = |error: std::io::Error| NotPrinted::NotStarted(error.to_string());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(not_started)?;
    let deadline = Instant::now() + patience;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(not_started)? {
            break status;
        }
        if Instant::now() > deadline {
            child
                .kill()
                .and_then(|()| child.wait())
                .map_err(not_started)?;
            return Err(NotPrinted::TooSlow);
        }
        thread::sleep(PAUSE);
    };
    if status.success() {
        return Ok(read(child.stdout.take()).trim().to_owned());
    }
    Err(failed(status, &read(child.stderr.take())))
}

/// What is in the pipe. A child of the program may hold it open: nothing more is waited for.
fn read(pipe: Option<impl Read + AsFd>) -> String {
    let Some(mut pipe) = pipe.filter(|pipe| ioctl_fionbio(pipe, true).is_ok()) else {
        return String::new();
    };
    let mut printed = [0; LONGEST];
    let length = pipe.read(&mut printed).unwrap_or_default();
    let printed = printed.get(..length).unwrap_or_default();
    String::from_utf8_lossy(printed).into_owned()
}

fn failed(status: ExitStatus, errors: &str) -> NotPrinted {
    let how = match status.code() {
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    };
    let mut lines = errors.lines().map(str::trim);
    let Some(line) = lines.find(|line| !line.is_empty()) else {
        return NotPrinted::Failed(how);
    };
    let line = line.chars().filter(|each| !each.is_control());
    let complaint: String = line.take(LONGEST_COMPLAINT).collect();
    NotPrinted::Failed(format!("{how}: {complaint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn printed(script: &str) -> Result<String, NotPrinted> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        printed_by(command).await
    }

    #[tokio::test]
    async fn output_is_returned_on_success() {
        assert_eq!(printed("echo 2.1.197").await.unwrap(), "2.1.197");
        assert_eq!(printed("true; echo well >&2").await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_failed_program_is_reported_with_its_complaint() {
        for (script, expected) in [
            ("echo 2.1.197; exit 3", "exit code 3"),
            (
                "printf '\\n no \\033node\\nmore\\n' >&2; exit 127",
                "exit code 127: no node",
            ),
            ("kill -9 $$", "signal: 9 (SIGKILL)"),
        ] {
            let fault = printed(script).await.unwrap_err();
            assert_eq!(fault.to_string(), expected);
        }
        let fault = printed_by(Command::new("/nowhere/claude")).await;
        assert!(matches!(fault, Err(NotPrinted::NotStarted(_))), "{fault:?}");
    }

    #[tokio::test]
    async fn children_left_running_are_not_waited_for() {
        let left = "sleep 60 & echo $!";
        let pid = printed(left).await.unwrap();
        let sleeps = Command::new("kill").arg(&pid).status().unwrap();
        assert!(sleeps.success(), "it was waited for");
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let patience = Duration::from_millis(100);
        for script in ["echo 2.1.197; exec sleep 3600", "exec yes"] {
            let mut command = Command::new("sh");
            let printed = run(command.args(["-c", script]), patience);
            assert_eq!(printed, Err(NotPrinted::TooSlow));
        }
    }
}
