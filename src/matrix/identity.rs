//! The bot's own identity: cross-signing, and the recovery key that brings it back.
//!
//! A bot that is not cross-signed goes unheard: clients are to ignore its device (specification 1.18, MSC4153), and we
//! could not send under the identity-based strategy ourselves.

use std::{
    env,
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
};

use matrix_sdk::{
    Client,
    encryption::{
        CrossSigningResetAuthType, identities::Device, recovery::RecoveryError,
        secret_storage::SecretStorageError,
    },
    ruma::{
        api::client::{
            keys::get_keys,
            uiaa::{AuthData, UiaaInfo},
        },
        events::secret_storage::key::SecretStorageKeyEventContent,
        serde::Raw,
    },
};
use matrix_sdk_base::crypto::secret_storage::SecretStorageKey;
use tracing::{info, warn};

use super::{Fault, MatrixFolder, folder, login::Login, quarantine::Quarantine, sync};

/// The variable that gives the recovery key where there is no file, for hosts that keep secrets elsewhere.
pub const RECOVERY_KEY_VARIABLE: &str = "RCBOT_RECOVERY_KEY";

/// What brings the identity back. It has no `Display`, and its `Debug` shows nothing.
pub struct RecoveryKey {
    text: String,
    origin: KeyOrigin,
}

/// Where a recovery key was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOrigin {
    /// The variable [`RECOVERY_KEY_VARIABLE`].
    Variable,
    /// This file.
    File(PathBuf),
}

impl fmt::Display for KeyOrigin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable => write!(formatter, "the variable {RECOVERY_KEY_VARIABLE}"),
            Self::File(path) => write!(formatter, "the file {}", path.display()),
        }
    }
}

impl RecoveryKey {
    /// The key for which this is the value of the variable [`RECOVERY_KEY_VARIABLE`], and this the file. The variable comes
    /// before the file; an empty one is none.
    ///
    /// # Errors
    /// [`Fault::File`].
    pub fn find(variable: Option<&OsStr>, file: &Path) -> Result<Option<Self>, Fault> {
        let given = variable.and_then(OsStr::to_str);
        if let Some(text) = given.filter(|text| !text.is_empty()) {
            return Ok(Some(Self {
                text: text.to_owned(),
                origin: KeyOrigin::Variable,
            }));
        }
        let text = folder::read(file)?;
        Ok(text.map(|text| Self {
            text: String::from_utf8_lossy(&text).into_owned(),
            origin: KeyOrigin::File(file.to_owned()),
        }))
    }

    /// Where it was found.
    #[must_use]
    pub fn origin(&self) -> &KeyOrigin {
        &self.origin
    }

    /// Whether it is the key with this description, which the homeserver keeps beside the secrets.
    #[must_use]
    pub fn fits(&self, description: SecretStorageKeyEventContent) -> bool {
        SecretStorageKey::from_account_data(self.expose(), description).is_ok()
    }

    /// The key itself: for the SDK, which opens the secrets with it, and nothing else.
    fn expose(&self) -> &str {
        self.text.trim()
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RecoveryKey(..)")
    }
}

/// Sees to it that the homeserver shows an identity of the bot whose keys are here, and this device signed by it.
///
/// The secrets are put into the homeserver's secret storage, under a key that is written to `folder`; a later device with an
/// empty store gets them back with it, or with the same key in the environment.
///
/// # Errors
/// [`Fault::IdentityLost`] where the homeserver knows an identity that neither store nor key gives us,
/// [`Fault::DeviceLost`] where only the device cannot be used any more, [`Fault::PasswordWanted`] where the homeserver takes an
/// identity for the password alone. What passes can be tried again: keys that were made and not taken are still there then.
pub(super) async fn ensure(
    client: &Client,
    quarantine: &Quarantine,
    login: &Login,
    folder: &MatrixFolder,
    store_is_new: bool,
) -> Result<(), Fault> {
    let key_file = folder.recovery_key();
    client
        .encryption()
        .wait_for_e2ee_initialization_tasks()
        .await;
    let variable = env::var_os(RECOVERY_KEY_VARIABLE);
    let recovery_key = RecoveryKey::find(variable.as_deref(), &key_file)?;
    let shown = Shown::ask(client).await?;
    if recovery_key.is_some() && !shown.has_device(client, store_is_new).await {
        return Err(Fault::DeviceLost);
    }
    if shown.master_key.is_none() {
        publish(client, login).await?;
    } else if shown.master_key != own_master_key(client).await? {
        // The store has yet to hear of it. It drops keys of its own that are of another identity.
        refresh(client).await?;
    }
    if !has_keys(client).await
        && let Some(key) = &recovery_key
    {
        warn!("the Matrix store has no identity, bringing it back with the recovery key");
        recover(client, quarantine, key).await?;
    }
    if !has_keys(client).await || !sign_device(client).await? {
        let user = client.user_id().map(ToString::to_string);
        return Err(Fault::IdentityLost {
            user: user.unwrap_or_default(),
            folder: folder.path().to_owned(),
            recovery_key: key_file,
        });
    }
    if recovery_key.is_none() || !has_secret_storage(client).await? {
        write_recovery_key(client, &key_file).await?;
    }
    note_identity(client, folder).await
}

/// Replaces the bot's identity by a new one, and the recovery key with it. For a client whose requests need no interactive
/// authentication, or none that the log-in cannot give.
///
/// # Errors
/// [`Fault`]s of the homeserver; then this can be tried again.
pub(super) async fn replace(
    client: &Client,
    quarantine: &Quarantine,
    login: &Login,
    folder: &MatrixFolder,
) -> Result<(), Fault> {
    let encryption = client.encryption();
    encryption.wait_for_e2ee_initialization_tasks().await;
    // A new device's keys are uploaded with its first sync, and only a device that the homeserver knows can be signed.
    sync::once(client, quarantine).await?;
    if let Some(unfinished) = encryption.reset_cross_signing().await? {
        let CrossSigningResetAuthType::Uiaa(asked) = unfinished.auth_type() else {
            return Err(Fault::IdentityRefused);
        };
        let proof = prove(client, login, asked)?;
        unfinished.auth(Some(proof)).await?;
    }
    if !has_keys(client).await || !sign_device(client).await? {
        return Err(Fault::IdentityRefused);
    }
    write_recovery_key(client, &folder.recovery_key()).await?;
    note_identity(client, folder).await
}

/// Gives the homeserver the keys of the identity, which are made if there are none.
async fn publish(client: &Client, login: &Login) -> Result<(), Fault> {
    let encryption = client.encryption();
    let Err(error) = encryption.bootstrap_cross_signing(None).await else {
        return Ok(());
    };
    let fault = Fault::from(error);
    let Some(asked) = fault.interactive_auth() else {
        return Err(fault);
    };
    let proof = prove(client, login, asked)?;
    let published = encryption.bootstrap_cross_signing(Some(proof)).await;
    published.map_err(|error| {
        let fault = Fault::from(error);
        if fault.interactive_auth().is_some() {
            return Fault::IdentityRefused;
        }
        fault
    })
}

/// What a homeserver wants that asks who the bot is once more.
fn prove(client: &Client, login: &Login, asked: &UiaaInfo) -> Result<AuthData, Fault> {
    match login {
        Login::Password(_) => {
            let user = client.user_id();
            let proof = user.and_then(|user| login.interactive_auth(user, asked));
            proof.ok_or(Fault::IdentityRefused)
        }
        Login::Appservice(_) | Login::AccessToken(_) => Err(Fault::PasswordWanted),
    }
}

/// What the homeserver shows of the bot, to whoever asks.
struct Shown {
    /// The key of the identity.
    master_key: Option<String>,
    /// The keys of this device.
    device: Option<Vec<String>>,
}

impl Shown {
    /// Asks past the store, which knows of our own what it has made itself.
    async fn ask(client: &Client) -> Result<Self, Fault> {
        let (Some(user), Some(device)) = (client.user_id(), client.device_id()) else {
            return Ok(Self {
                master_key: None,
                device: None,
            });
        };
        let mut request = get_keys::v3::Request::new();
        request
            .device_keys
            .insert(user.to_owned(), vec![device.to_owned()]);
        let answer = client.send(request).await?;
        let nonsense = |source| Fault::Nonsense {
            request: "the bot's own keys",
            source,
        };
        let master_key = answer.master_keys.get(user).map(Raw::deserialize);
        let master_key = master_key.transpose().map_err(nonsense)?;
        let devices = answer.device_keys.get(user);
        let device = devices.and_then(|devices| devices.get(device));
        let device = device.map(Raw::deserialize).transpose().map_err(nonsense)?;
        Ok(Self {
            master_key: master_key.and_then(|key| key.keys.into_values().next()),
            device: device.map(|device| device.keys.into_values().collect()),
        })
    }

    /// Whether store and homeserver agree on this device's keys: the store may have been lost, or the device deleted and made
    /// again by a log-in. A new store may have keys that are still to be uploaded.
    async fn has_device(&self, client: &Client, store_is_new: bool) -> bool {
        let Some(keys) = &self.device else {
            return store_is_new;
        };
        let ours = client.encryption().ed25519_key().await;
        ours.is_some_and(|ours| keys.contains(&ours))
    }
}

/// Lets the store hear what the homeserver shows of the bot.
async fn refresh(client: &Client) -> Result<(), Fault> {
    if let Some(user) = client.user_id() {
        client.encryption().request_user_identity(user).await?;
    }
    Ok(())
}

/// Whether the private keys of the identity are here.
async fn has_keys(client: &Client) -> bool {
    let status = client.encryption().cross_signing_status().await;
    status.is_some_and(|status| status.is_complete())
}

/// The public key of the identity, as the store knows it.
async fn own_master_key(client: &Client) -> Result<Option<String>, Fault> {
    let Some(user) = client.user_id() else {
        return Ok(None);
    };
    let identity = client.encryption().get_user_identity(user).await;
    let identity = identity.map_err(matrix_sdk::Error::from)?;
    let key = identity.and_then(|identity| identity.master_key().get_first_key());
    Ok(key.map(|key| key.to_base64()))
}

/// Writes down whose keys the store holds, beside them.
async fn note_identity(client: &Client, folder: &MatrixFolder) -> Result<(), Fault> {
    let key = own_master_key(client).await?.unwrap_or_default();
    folder.set_own_identity(&key)
}

/// Sees to it that this device is signed by the identity: the upload of the signature may have failed when that was made.
async fn sign_device(client: &Client) -> Result<bool, Fault> {
    if is_device_signed(client).await? {
        return Ok(true);
    }
    // Right after the identity is made, the store has yet to hear of the signature.
    refresh(client).await?;
    if is_device_signed(client).await? {
        return Ok(true);
    }
    if let Some(device) = own_device(client).await? {
        device.verify().await?;
        refresh(client).await?;
    }
    is_device_signed(client).await
}

async fn own_device(client: &Client) -> Result<Option<Device>, Fault> {
    let device = client.encryption().get_own_device().await;
    Ok(device.map_err(matrix_sdk::Error::from)?)
}

async fn is_device_signed(client: &Client) -> Result<bool, Fault> {
    let device = own_device(client).await?;
    Ok(device.is_some_and(|device| device.is_cross_signed_by_owner()))
}

/// A recovery key that was given beforehand opens nothing yet: the identity is new, and gets a key of its own.
async fn has_secret_storage(client: &Client) -> Result<bool, Fault> {
    let storage = client.encryption().secret_storage();
    Ok(storage.is_enabled().await?)
}

async fn write_recovery_key(client: &Client, path: &Path) -> Result<(), Fault> {
    let storage = client.encryption().secret_storage();
    let store = storage.create_secret_store().await.map_err(not_stored)?;
    let key = store.secret_storage_key();
    folder::write(path, key.as_bytes())?;
    info!(path = %path.display(), "recovery key written: keep a copy of it in a safe place");
    Ok(())
}

fn not_stored(error: SecretStorageError) -> Fault {
    match error {
        SecretStorageError::Sdk(error) => error.into(),
        error => Fault::SecretStorage(Box::new(error)),
    }
}

async fn recover(client: &Client, quarantine: &Quarantine, key: &RecoveryKey) -> Result<(), Fault> {
    // A new device's keys are uploaded with its first sync, and only a device that the homeserver knows can be signed.
    sync::once(client, quarantine).await?;
    let recovered = client.encryption().recovery().recover(key.expose()).await;
    recovered.map_err(|error| match error {
        // It is the homeserver that failed, and not the key.
        RecoveryError::Sdk(error)
        | RecoveryError::SecretStorage(SecretStorageError::Sdk(error)) => error.into(),
        error => Fault::Recovery {
            origin: key.origin.to_string(),
            source: Box::new(error),
        },
    })
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_recovery_key_in_the_variable_comes_before_the_one_in_the_file() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("recovery-key");
        let find = |variable: Option<&str>| {
            let key = RecoveryKey::find(variable.map(OsStr::new), &file).unwrap();
            key.map(|key| (key.expose().to_owned(), key.origin().clone()))
        };
        let given = Some(("given".to_owned(), KeyOrigin::Variable));
        assert_eq!(find(Some("given")), given);
        assert_eq!(find(None), None);
        assert_eq!(find(Some("")), None);
        std::fs::write(&file, "written\n").unwrap();
        let written = Some(("written".to_owned(), KeyOrigin::File(file.clone())));
        assert_eq!(find(None), written);
        assert_eq!(find(Some("")), written);
        assert_eq!(find(Some("given")), given);
    }

    #[test]
    fn a_recovery_key_that_cannot_be_read_is_not_taken_for_none() {
        let folder = TempDir::new().unwrap();
        let found = RecoveryKey::find(None, folder.path());
        assert!(matches!(found, Err(Fault::File { .. })), "{found:?}");
    }

    #[test]
    fn a_recovery_key_is_not_shown() {
        let key = RecoveryKey::find(Some(OsStr::new("given")), Path::new("/")).unwrap();
        assert_eq!(format!("{:?}", key.unwrap()), "RecoveryKey(..)");
    }
}
