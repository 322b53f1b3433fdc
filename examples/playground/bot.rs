//! rcbot itself: under another name, this program is rcbot's command line.

use std::{
    env,
    fs::File,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use matrix_sdk::ruma::UserId;
use rustix::process::{Pid, Signal, kill_process};

/// The name under which this program is rcbot.
pub(crate) const NAME: &str = "rcbot";

/// How long the bot may take to exit; it leaves its sessions running and needs under two seconds.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// How often its exit is polled.
const POLL: Duration = Duration::from_millis(50);

/// The running bot. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct RunningBot(Child);

impl RunningBot {
    /// Starts it on a config.yaml. It logs to a file; the terminal is for the conversation.
    pub(crate) fn start(config: &Path, log: &Path) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        let process = Command::new(env::current_exe()?)
            .arg0(NAME)
            .args(["run", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C in the terminal is for the playground.
            .process_group(0)
            .spawn();
        Ok(Self(process.context("cannot start the bot")?))
    }

    /// Waits for the bot to exit, which it should not without being asked.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        match self.exit().await {
            Ok(status) => anyhow!("the bot ended ({status})"),
            Err(error) => error,
        }
    }

    /// Asks it to exit and waits until it has.
    pub(crate) async fn end(mut self) -> Result<()> {
        // The pid cannot be reused before it is waited for.
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        let ended = tokio::time::timeout(END_TIMEOUT, self.exit()).await;
        ended.context("the bot does not exit")??;
        Ok(())
    }

    async fn exit(&mut self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for RunningBot {
    fn drop(&mut self) {
        // Does nothing if it has exited.
        self.0.kill().ok();
    }
}

/// Writes a registration with fresh tokens where there is none yet.
pub(crate) fn write_registration(path: &Path, bot: &UserId) -> Result<()> {
    if !path.exists() {
        rcbot::write_registration(path, &rcbot::generate_registration(bot, false))?;
    }
    Ok(())
}
