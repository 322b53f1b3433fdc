//! rcbot itself: this program under another name is rcbot's command line.

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
use rcbot::matrix;
use rustix::process::{Pid, Signal, kill_process};

/// The name under which this program is rcbot.
pub(crate) const NAME: &str = "rcbot";

/// How long the bot may take to end; it leaves its sessions alone and needs under two seconds.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is looked whether it has ended.
const POLL: Duration = Duration::from_millis(50);

/// The bot, running. Dropping it kills it.
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

    /// Waits for the bot to end by itself, which it should not.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        match self.exit().await {
            Ok(status) => anyhow!("the bot ended ({status})"),
            Err(error) => error,
        }
    }

    /// Asks it to end and waits until it did.
    pub(crate) async fn end(mut self) -> Result<()> {
        // Its process is there as long as nobody has waited for it.
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        let ended = tokio::time::timeout(END_TIMEOUT, self.exit()).await;
        ended.context("the bot does not end")??;
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
        // After its end this does nothing.
        self.0.kill().ok();
    }
}

/// Writes a registration with fresh tokens where there is none yet.
pub(crate) fn write_registration(path: &Path, bot: &UserId) -> Result<()> {
    if !path.exists() {
        matrix::write_new(path, &matrix::generate(bot, false))?;
    }
    Ok(())
}
