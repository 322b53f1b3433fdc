//! Replaces the bot's identity, where neither its keys nor the recovery key are left.

use std::sync::Arc;

use tracing::{info, warn};

use super::{
    Chain, Fault, MatrixFolder,
    client::build_client,
    identity,
    login::{LoggedIn, Login, check_appservice},
    quarantine::Quarantine,
};
use crate::config::Config;

/// Gives the bot a new device and a new identity, whose recovery key replaces the old one in `folder`. People's clients will
/// say that the bot's identity has changed. No bot may run on the folder meanwhile.
///
/// # Errors
/// [`Fault`]s of the homeserver and of our files; then this can be tried again. [`Fault::PasswordWanted`] where the bot has only
/// a token, and [`Fault::NoIdentityAssertion`] where the homeserver asks an appservice for a password too; then nothing is done.
pub async fn reset_identity(
    config: &Config,
    login: &Login,
    folder: &MatrixFolder,
) -> Result<(), Fault> {
    if matches!(login, Login::AccessToken(_)) {
        return Err(Fault::PasswordWanted);
    }
    folder.create()?;
    if let Login::Appservice(registration) = login {
        check_appservice(config, registration, folder).await?;
    }
    let quarantine = Arc::new(Quarantine::load(folder)?);
    leave_old_device(config, login, folder, &quarantine).await?;
    let logged_in = LoggedIn::new(config, login, folder, Arc::clone(&quarantine)).await?;
    let logged_in = match login {
        Login::Appservice(registration) => {
            logged_in
                .by_appservice(config, registration, folder, Arc::clone(&quarantine))
                .await?
        }
        Login::AccessToken(_) | Login::Password(_) => logged_in,
    };
    let client = build_client(&logged_in, config, folder).await?;
    client.restore_session(logged_in.matrix_session()).await?;
    let replaced = identity::replace(&client, &quarantine, login, folder).await;
    if let Err(error) = client.pause().await {
        warn!(%error, "the Matrix stores were not closed in order");
    }
    replaced?;
    info!(user = %config.bot_user, "the bot has a new identity");
    Ok(())
}

/// The old device may have other keys than the store, or none; clients do not believe a device whose keys change.
async fn leave_old_device(
    config: &Config,
    login: &Login,
    folder: &MatrixFolder,
    quarantine: &Arc<Quarantine>,
) -> Result<(), Fault> {
    if folder.session()?.is_some() {
        let logged_in = LoggedIn::new(config, login, folder, Arc::clone(quarantine)).await?;
        let client = build_client(&logged_in, config, folder).await?;
        client.restore_session(logged_in.matrix_session()).await?;
        if let Err(fault) = logged_in.delete_device(&client, folder).await {
            warn!(error = %Chain(&fault), "the bot's old device stays on the homeserver");
        }
    }
    folder.forget_device()
}
