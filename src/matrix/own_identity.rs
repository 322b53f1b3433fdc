//! The bot's own identity: cross-signing, the recovery key that restores it, and a new one where both are lost.
//!
//! A bot that is not cross-signed is ignored: clients should ignore its device (specification 1.18, MSC4153), and the SDK does
//! not send under the identity-based strategy either.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
};

use matrix_sdk::{
    Client,
    encryption::{
        CrossSigningResetAuthType, recovery::RecoveryError, secret_storage::SecretStorageError,
    },
    ruma::{
        DeviceId, UserId, api::client::keys::get_keys,
        events::secret_storage::key::SecretStorageKeyEventContent, serde::Raw,
    },
};
use matrix_sdk_base::crypto::secret_storage::SecretStorageKey;
use tracing::{info, warn};

use super::{
    Chain, Fault, MatrixFolder,
    client::build_client,
    fault::not_signed,
    folder,
    guard::Quarantine,
    login::{LoggedIn, Login, check_appservice, identity_refused, password_wanted},
    sync,
};
use crate::{config::Config, secret::SecretText};

/// The variable with the recovery key, for hosts that keep secrets outside of files.
pub(crate) const RECOVERY_KEY_VARIABLE: &str = "RCBOT_RECOVERY_KEY";

/// How many rounds of hashing a passphrase may take: it is the homeserver that names their number. Clients make half a million.
const MOST_ROUNDS: u64 = 5_000_000;

#[derive(Debug)]
pub(crate) struct RecoveryKey {
    text: SecretText,
    /// `None`: it is in the variable.
    file: Option<PathBuf>,
}

impl RecoveryKey {
    /// The recovery key from `variable`, the value of [`RECOVERY_KEY_VARIABLE`], or else from the file in `folder`. An empty
    /// value counts as none.
    pub(crate) fn find(
        variable: Option<&OsStr>,
        folder: &MatrixFolder,
    ) -> Result<Option<Self>, Fault> {
        let given = variable.and_then(OsStr::to_str);
        if let Some(text) = given.filter(|text| !text.is_empty()) {
            let text = text.into();
            return Ok(Some(Self { text, file: None }));
        }
        let file = folder.recovery_key();
        Ok(folder::read(&file)?.map(|text| Self {
            text: (&*String::from_utf8_lossy(&text)).into(),
            file: Some(file),
        }))
    }

    /// The same, with the variable of this process.
    pub(super) fn find_own(folder: &MatrixFolder) -> Result<Option<Self>, Fault> {
        Self::find(env::var_os(RECOVERY_KEY_VARIABLE).as_deref(), folder)
    }

    /// The file in which it was found, if it was not the variable.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Where it was found, for messages.
    pub(crate) fn origin(&self) -> String {
        match &self.file {
            Some(file) => format!("the file {}", file.display()),
            None => format!("the variable {RECOVERY_KEY_VARIABLE}"),
        }
    }

    /// Whether it is the key with this description, which the homeserver keeps with the secrets.
    pub(crate) fn fits(&self, mut description: SecretStorageKeyEventContent) -> bool {
        // The SDK tries the key as a passphrase first.
        let passphrase = &mut description.passphrase;
        passphrase.take_if(|it| u64::from(it.iterations) > MOST_ROUNDS);
        SecretStorageKey::from_account_data(self.expose(), description).is_ok()
    }

    /// The key itself: only for the SDK, which decrypts the secrets with it.
    fn expose(&self) -> &str {
        self.text.expose().trim()
    }
}

/// Gives the bot a new device and a new identity, whose recovery key replaces the old one in `folder`. People's clients will
/// say that the bot's identity has changed. No bot may run on the folder meanwhile.
/// After a fault of the homeserver or of our files this can be retried. It fails without a change where the bot has only a
/// token, or the homeserver asks an appservice for a password too.
pub(crate) async fn reset_identity(
    config: &Config,
    login: &Login,
    folder: &MatrixFolder,
) -> Result<(), Fault> {
    folder.create()?;
    match login {
        Login::AccessToken(_) => return Err(password_wanted()),
        Login::Appservice(registration) => check_appservice(config, registration, folder).await?,
        Login::Password(_) => {}
    }
    let quarantine = Arc::new(Quarantine::load(folder)?);
    if folder.session()?.is_some() {
        // It may have other keys than the store, or none; clients do not trust a device whose keys change.
        let old = LoggedIn::new(config, login, folder, Arc::clone(&quarantine)).await?;
        let client = build_client(&old, config, folder).await?;
        client.restore_session(old.matrix_session()).await?;
        if let Err(fault) = old.delete_device(&client, folder).await {
            warn!(error = %Chain(&fault), "the bot's old device stays on the homeserver");
        }
    }
    folder.forget_device()?;
    let mut new = LoggedIn::new(config, login, folder, Arc::clone(&quarantine)).await?;
    if let Login::Appservice(registration) = login {
        let quarantine = Arc::clone(&quarantine);
        new = new
            .by_appservice(config, registration, folder, quarantine)
            .await?;
    }
    let client = build_client(&new, config, folder).await?;
    client.restore_session(new.matrix_session()).await?;
    let own_identity = OwnIdentity {
        client: &client,
        user: &config.bot_user,
        device: new.device(),
        login,
        folder,
        quarantine: &quarantine,
    };
    let replaced = own_identity.replace().await;
    if let Err(error) = client.pause().await {
        warn!(%error, "the Matrix stores were not closed in order");
    }
    replaced?;
    info!(user = %config.bot_user, "the bot has a new identity");
    Ok(())
}

/// The identity of a bot that is logged in.
pub(super) struct OwnIdentity<'a> {
    pub(super) client: &'a Client,
    pub(super) user: &'a UserId,
    pub(super) device: &'a DeviceId,
    pub(super) login: &'a Login,
    pub(super) folder: &'a MatrixFolder,
    pub(super) quarantine: &'a Quarantine,
}

impl OwnIdentity<'_> {
    /// Ensures that the homeserver shows an identity of the bot whose private keys are here, and this device signed by it.
    ///
    /// The secrets are put into the homeserver's secret storage, under a key that is written to the folder. A later device with
    /// an empty store restores them with it, or with the same key in the environment.
    ///
    /// [`Fault::DeviceLost`]: only the device cannot be used any more. After a fault that may pass this can be retried: keys
    /// that were made and not uploaded are still there then.
    pub(super) async fn ensure(&self, store_is_new: bool) -> Result<(), Fault> {
        let encryption = self.client.encryption();
        encryption.wait_for_e2ee_initialization_tasks().await;
        let recovery_key = RecoveryKey::find_own(self.folder)?;
        let shown = self.query_keys().await?;
        if recovery_key.is_some() && !self.has_device(&shown, store_is_new).await {
            return Err(Fault::DeviceLost);
        }
        if shown.master_key.is_none() {
            self.publish().await?;
        } else if shown.master_key != self.master_key().await? {
            // The store does not know it yet. It drops its private keys if they are of another identity.
            self.refresh().await?;
        }
        if !self.has_keys().await
            && let Some(key) = &recovery_key
        {
            warn!("the Matrix store has no identity, bringing it back with the recovery key");
            self.recover(key).await?;
        }
        if !self.has_keys().await || !self.sign_device().await? {
            return Err(self.identity_lost());
        }
        // A key that was given beforehand decrypts nothing yet: the identity is new, and gets its own key.
        if recovery_key.is_none() || !encryption.secret_storage().is_enabled().await? {
            self.write_recovery_key().await?;
        }
        self.save_identity().await
    }

    /// Replaces the identity and the recovery key. For a client whose requests need no interactive authentication, or only what
    /// the log-in can give. After a fault this can be retried.
    async fn replace(&self) -> Result<(), Fault> {
        let encryption = self.client.encryption();
        encryption.wait_for_e2ee_initialization_tasks().await;
        self.upload_device().await?;
        if let Some(unfinished) = encryption.reset_cross_signing().await? {
            let CrossSigningResetAuthType::Uiaa(asked) = unfinished.auth_type() else {
                return Err(identity_refused());
            };
            let proof = self.login.auth_data(self.user, asked)?;
            unfinished.auth(Some(proof)).await?;
        }
        // It brings back no other identity than the old one. After a fault below, the next start would take it for that of the
        // new one, and write none.
        self.folder.forget_recovery_key()?;
        if !self.has_keys().await || !self.sign_device().await? {
            return Err(identity_refused());
        }
        self.write_recovery_key().await?;
        self.save_identity().await
    }

    /// Uploads the public keys of the identity. Creates the keys if there are none.
    async fn publish(&self) -> Result<(), Fault> {
        let encryption = self.client.encryption();
        let Err(error) = encryption.bootstrap_cross_signing(None).await else {
            return Ok(());
        };
        let Some(asked) = error.as_uiaa_response() else {
            return Err(error.into());
        };
        let proof = self.login.auth_data(self.user, asked)?;
        let published = encryption.bootstrap_cross_signing(Some(proof)).await;
        published.map_err(|error| match error.as_uiaa_response() {
            Some(_) => identity_refused(),
            None => error.into(),
        })
    }

    async fn recover(&self, key: &RecoveryKey) -> Result<(), Fault> {
        self.upload_device().await?;
        let recovery = self.client.encryption().recovery();
        let recovered = recovery.recover(key.expose()).await;
        recovered.map_err(|error| match error {
            // The homeserver failed, not the key.
            RecoveryError::Sdk(error)
            | RecoveryError::SecretStorage(SecretStorageError::Sdk(error)) => error.into(),
            error => Fault::for_operator_by(
                format!(
                    "the recovery key in {} does not bring back the bot's identity",
                    key.origin()
                ),
                error,
            ),
        })
    }

    fn identity_lost(&self) -> Fault {
        Fault::for_operator(format!(
            "the homeserver knows a cross-signing identity of {} whose keys are not in {}: bring back the file {}, which was \
             written when the identity was made, or give its content in {RECOVERY_KEY_VARIABLE}. If it is lost, `rcbot \
             reset-identity --config` and the path of your config.yaml makes a new identity while no bot runs; people's \
             clients will warn of it",
            self.user,
            self.folder.path().display(),
            self.folder.recovery_key().display()
        ))
    }

    /// A new device's keys are uploaded with its first sync, and only a device that the homeserver knows can be signed.
    async fn upload_device(&self) -> Result<(), Fault> {
        sync::once(self.client, self.quarantine).await
    }

    /// Asks the homeserver, as the store knows only keys of ours that it made itself.
    async fn query_keys(&self) -> Result<PublishedKeys, Fault> {
        let mut request = get_keys::v3::Request::new();
        let devices = vec![self.device.to_owned()];
        request.device_keys.insert(self.user.to_owned(), devices);
        let answer = self.client.send(request).await?;
        let master_key = answer.master_keys.get(self.user);
        let master_key = master_key.map(Raw::deserialize).transpose()?;
        let devices = answer.device_keys.get(self.user);
        let device = devices.and_then(|devices| devices.get(self.device));
        let device = device.map(Raw::deserialize).transpose()?;
        Ok(PublishedKeys {
            master_key: master_key.and_then(|key| key.keys.into_values().next()),
            device: device.map(|device| device.keys.into_values().collect()),
        })
    }

    /// Whether store and homeserver agree on this device's keys: the store may have been lost, or the device deleted and made
    /// again by a log-in. A new store may have keys that are still to be uploaded.
    async fn has_device(&self, shown: &PublishedKeys, store_is_new: bool) -> bool {
        let Some(keys) = &shown.device else {
            return store_is_new;
        };
        let ours = self.client.encryption().ed25519_key().await;
        ours.is_some_and(|ours| keys.contains(&ours))
    }

    /// Updates the store with what the homeserver shows of the bot.
    async fn refresh(&self) -> Result<(), Fault> {
        let encryption = self.client.encryption();
        encryption.request_user_identity(self.user).await?;
        Ok(())
    }

    /// Whether the private keys of the identity are here.
    async fn has_keys(&self) -> bool {
        let status = self.client.encryption().cross_signing_status().await;
        status.is_some_and(|status| status.is_complete())
    }

    /// The public key of the identity, as the store knows it.
    async fn master_key(&self) -> Result<Option<String>, Fault> {
        let encryption = self.client.encryption();
        let identity = encryption.get_user_identity(self.user).await?;
        let key = identity.and_then(|identity| identity.master_key().get_first_key());
        Ok(key.map(|key| key.to_base64()))
    }

    /// Saves beside the store which identity's keys it holds.
    async fn save_identity(&self) -> Result<(), Fault> {
        let key = self.master_key().await?;
        self.folder.set_own_identity(&key.unwrap_or_default())
    }

    /// Ensures that the identity has signed this device: the upload of the signature may have failed when that was made.
    async fn sign_device(&self) -> Result<bool, Fault> {
        if self.is_device_signed().await? {
            return Ok(true);
        }
        // Right after the identity is made, the store does not have the signature yet.
        self.refresh().await?;
        if self.is_device_signed().await? {
            return Ok(true);
        }
        if let Some(device) = self.client.encryption().get_own_device().await? {
            device.verify().await.map_err(not_signed)?;
            self.refresh().await?;
        }
        self.is_device_signed().await
    }

    async fn is_device_signed(&self) -> Result<bool, Fault> {
        let device = self.client.encryption().get_own_device().await?;
        Ok(device.is_some_and(|device| device.is_cross_signed_by_owner()))
    }

    async fn write_recovery_key(&self) -> Result<(), Fault> {
        let storage = self.client.encryption().secret_storage();
        let store = storage.create_secret_store().await;
        let store = store.map_err(|error| match error {
            SecretStorageError::Sdk(error) => error.into(),
            error => Fault::fatal(
                "the bot's identity cannot be put into the homeserver's secret storage",
                error,
            ),
        })?;
        let path = self.folder.recovery_key();
        folder::write(&path, store.secret_storage_key().as_bytes())?;
        info!(path = %path.display(), "recovery key written: keep a copy of it in a safe place");
        Ok(())
    }
}

/// The bot's public keys, as the homeserver shows them to anybody.
struct PublishedKeys {
    master_key: Option<String>,
    device: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::events::secret_storage::key::PassPhrase;
    use tempfile::TempDir;

    use super::*;

    fn find(variable: Option<&str>, folder: &Path) -> Result<Option<RecoveryKey>, Fault> {
        let folder = MatrixFolder::new(folder.to_owned());
        RecoveryKey::find(variable.map(OsStr::new), &folder)
    }

    #[test]
    fn a_recovery_key_in_the_variable_comes_before_the_one_in_the_file() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("recovery-key");
        let find = |variable| {
            let key = find(variable, folder.path()).unwrap()?;
            Some((key.expose().to_owned(), key.file().map(Path::to_owned)))
        };
        let given = Some(("given".to_owned(), None));
        assert_eq!(find(Some("given")), given);
        assert_eq!(find(None), None);
        assert_eq!(find(Some("")), None);
        std::fs::write(&file, "written\n").unwrap();
        let written = Some(("written".to_owned(), Some(file)));
        assert_eq!(find(None), written);
        assert_eq!(find(Some("")), written);
        assert_eq!(find(Some("given")), given);
    }

    #[test]
    fn a_recovery_key_that_cannot_be_read_is_not_taken_for_none() {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("recovery-key")).unwrap();
        let found = find(None, folder.path());
        assert!(matches!(found, Err(Fault::File { .. })), "{found:?}");
    }

    /// With as many rounds this would take hours.
    #[test]
    fn the_homeserver_cannot_make_a_recovery_key_be_hashed_for_hours() {
        let key = SecretStorageKey::new();
        let mut description = key.event_content().clone();
        let text = key.to_base58();
        description.passphrase = Some(PassPhrase::new("salt".to_owned(), u32::MAX.into()));
        let key = find(Some(&text), Path::new("/")).unwrap().unwrap();
        assert!(key.fits(description));
    }

    #[test]
    fn a_recovery_key_is_not_shown() {
        let key = find(Some("given"), Path::new("/")).unwrap();
        assert!(!format!("{key:?}").contains("given"));
    }
}
