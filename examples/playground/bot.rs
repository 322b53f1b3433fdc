//! rcbot itself, run in this process through its library.

use std::{fs::File, path::Path, time::Duration};

use anyhow::{Context, Result, anyhow};
use matrix_sdk::ruma::UserId;
use rcbot::{
    config::Config,
    data_dir::DataDir,
    matrix::{self, Login},
};
use tokio::{sync::oneshot, task::JoinHandle};
use tracing_subscriber::EnvFilter;

/// How long the bot may take to end; it leaves its sessions alone and needs under two seconds.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// The bot, running.
#[derive(Debug)]
pub(crate) struct RunningBot {
    task: JoinHandle<Result<()>>,
    shutdown: oneshot::Sender<()>,
}

impl RunningBot {
    /// Starts it on a config.yaml.
    pub(crate) fn start(config: &Path) -> Result<Self> {
        let config = Config::load(config)?;
        let login = Login::load(&config)?;
        let data_dir = DataDir::open(&config.data_dir)?;
        let (shutdown, requested) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            // Dropped is as good as sent: then nobody is left to run for.
            let shutdown = async { drop(requested.await) };
            Ok(Box::pin(rcbot::bot::run(config, login, &data_dir, shutdown)).await?)
        });
        Ok(Self { task, shutdown })
    }

    /// Waits for the bot to end by itself, which it should not.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        match (&mut self.task).await {
            Ok(Ok(())) => anyhow!("the bot ended"),
            Ok(Err(error)) => error.context("the bot ended"),
            Err(error) => anyhow!(error).context("the bot ended"),
        }
    }

    /// Asks it to end and waits until it did.
    pub(crate) async fn end(self) -> Result<()> {
        // Nobody listens where it has ended already; its task says why.
        self.shutdown.send(()).ok();
        tokio::time::timeout(END_TIMEOUT, self.task)
            .await
            .context("the bot does not end")??
    }
}

/// Writes a registration with fresh tokens where there is none yet.
pub(crate) fn write_registration(path: &Path, bot: &UserId) -> Result<()> {
    if !path.exists() {
        matrix::write_new(path, &matrix::generate(bot, false))?;
    }
    Ok(())
}

/// Sends the log to a file, `RUST_LOG` permitting; the terminal is for the conversation.
pub(crate) fn log_to(path: &Path) -> Result<()> {
    let file = File::options().create(true).append(true).open(path)?;
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,rcbot=info,audit=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(file)
        .init();
    Ok(())
}
