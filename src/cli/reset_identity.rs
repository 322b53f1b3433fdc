//! `rcbot reset-identity`: a new identity for the bot, where the old one is beyond recovery.

use anyhow::{Context as _, Result, ensure};

use super::{ConfigFile, block_on, confirm, load_config, load_login, print};
use crate::{
    data_dir::{DataDir, MATRIX},
    matrix::{self, MatrixFolder},
    shell,
};

const WARNING: &str = "The bot gets a new device and a new cross-signing identity. Everybody's client will say that the bot's \
                       identity has changed, as if somebody posed as the bot: tell them before. The old recovery key is of no \
                       use afterwards. Sessions go on.";

/// What `rcbot reset-identity` takes.
#[derive(Debug, clap::Args)]
pub(super) struct ResetIdentity {
    #[command(flatten)]
    config: ConfigFile,
    /// Do it without a question.
    #[arg(long)]
    yes: bool,
}

pub(super) fn reset_identity(arguments: &ResetIdentity) -> Result<()> {
    let config = load_config(&arguments.config.path)?;
    let login = load_login(&config)?;
    let data_dir = DataDir::open(&config.data_dir)?;
    if !arguments.yes {
        print(WARNING)?;
        let otherwise = format!(
            "aborted, nothing was changed. To do it without a question: rcbot reset-identity --config {} --yes",
            shell::word(&config.file)
        );
        let is_wanted = confirm("Reset the bot's identity?", &otherwise)?;
        ensure!(is_wanted, "aborted, nothing was changed");
    }
    let folder = MatrixFolder::new(data_dir.path().join(MATRIX));
    block_on(async {
        matrix::reset_identity(&config, &login, &folder)
            .await
            .context("the identity is not reset")
    })?;
    print(&format!(
        "The bot has a new identity. Its recovery key is in {}: keep a copy of it in a safe place. Now start the bot.",
        folder.recovery_key().display()
    ))
}
