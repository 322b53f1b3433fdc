//! The bot's own identity: cross-signing, and the recovery key that brings it back.
//!
//! A bot that is not cross-signed goes unheard: clients are to ignore its device (specification 1.18, MSC4153), and we
//! could not send under the identity-based strategy ourselves.

use std::{
    env,
    ffi::OsStr,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use matrix_sdk::{
    Client,
    encryption::CrossSigningResetAuthType,
    ruma::{
        api::client::keys::get_keys, events::secret_storage::key::SecretStorageKeyEventContent,
    },
};
use matrix_sdk_base::crypto::secret_storage::SecretStorageKey;
use tracing::{info, warn};

use super::{Fault, login::Login, sync};
use crate::atomic_file;

/// The file with the recovery key, in the folder of Matrix.
pub const RECOVERY_KEY_FILE: &str = "recovery-key";

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
        match fs::read_to_string(file) {
            Ok(text) => Ok(Some(Self {
                text,
                origin: KeyOrigin::File(file.to_owned()),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Fault::File {
                path: file.to_owned(),
                source,
            }),
        }
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

/// Sees to it that the bot has an identity and that this device is signed by it.
///
/// The SDK makes an identity at the first log-in. The secrets are then put into the homeserver's secret storage, under a
/// key that is written to `folder`; a later device with an empty store gets them back with it, or with the same key in the
/// environment.
///
/// # Errors
/// [`Fault::IdentityLost`] where the homeserver knows an identity that neither store nor key gives us,
/// [`Fault::DeviceLost`] where only the device cannot be used any more.
pub(super) async fn ensure(
    client: &Client,
    folder: &Path,
    store_is_new: bool,
) -> Result<(), Fault> {
    let key_file = folder.join(RECOVERY_KEY_FILE);
    client
        .encryption()
        .wait_for_e2ee_initialization_tasks()
        .await;
    let variable = env::var_os(RECOVERY_KEY_VARIABLE);
    let recovery_key = RecoveryKey::find(variable.as_deref(), &key_file)?;
    if recovery_key.is_some() && !has_device_keys(client, store_is_new).await? {
        return Err(Fault::DeviceLost);
    }
    if !is_complete(client).await? {
        if let Some(key) = &recovery_key {
            warn!("the Matrix store has no identity, bringing it back with the recovery key");
            recover(client, key).await?;
        } else {
            // The first try may have failed with the homeserver. Where an identity exists already, this does nothing.
            client
                .encryption()
                .bootstrap_cross_signing_if_needed(None)
                .await?;
        }
    }
    if is_complete(client).await? {
        if recovery_key.is_none() || !has_secret_storage(client).await? {
            write_recovery_key(client, &key_file).await?;
        }
        return Ok(());
    }
    let user = client
        .user_id()
        .map(ToString::to_string)
        .unwrap_or_default();
    Err(Fault::IdentityLost {
        user,
        folder: folder.to_owned(),
        recovery_key: key_file,
    })
}

/// Replaces the bot's identity by a new one, and the recovery key with it. For a client whose requests need no interactive
/// authentication, or none that the log-in cannot give.
///
/// # Errors
/// [`Fault`]s of the homeserver; then this can be tried again.
pub(super) async fn replace(client: &Client, login: &Login, folder: &Path) -> Result<(), Fault> {
    let encryption = client.encryption();
    encryption.wait_for_e2ee_initialization_tasks().await;
    // A new device's keys are uploaded with its first sync, and only a device that the homeserver knows can be signed.
    sync::once(client).await?;
    if let Some(unfinished) = encryption.reset_cross_signing().await? {
        let auth = match (unfinished.auth_type(), client.user_id()) {
            (CrossSigningResetAuthType::Uiaa(asked), Some(user)) => {
                login.interactive_auth(user, asked)
            }
            (CrossSigningResetAuthType::Uiaa(_) | CrossSigningResetAuthType::OAuth(_), _) => None,
        };
        let auth = auth.ok_or(Fault::IdentityNotReplaced)?;
        unfinished.auth(Some(auth)).await?;
    }
    if !is_complete(client).await? {
        return Err(Fault::IdentityNotReplaced);
    }
    write_recovery_key(client, &folder.join(RECOVERY_KEY_FILE)).await
}

/// Whether store and homeserver agree on this device's keys: the store may have been lost, or the device deleted and made
/// again by a log-in. A new store may have keys that are still to be uploaded.
async fn has_device_keys(client: &Client, store_is_new: bool) -> Result<bool, Fault> {
    let (Some(user), Some(device)) = (client.user_id(), client.device_id()) else {
        return Ok(false);
    };
    let mut request = get_keys::v3::Request::new();
    request
        .device_keys
        .insert(user.to_owned(), vec![device.to_owned()]);
    let response = client.send(request).await?;
    let published = response
        .device_keys
        .get(user)
        .and_then(|devices| devices.get(device));
    let Some(published) = published else {
        return Ok(store_is_new);
    };
    let published = published.deserialize().map_err(|source| Fault::Nonsense {
        request: "the keys of a device",
        source,
    })?;
    let ours = client.encryption().ed25519_key().await;
    Ok(ours.is_some_and(|ours| published.keys.values().any(|key| *key == ours)))
}

async fn is_complete(client: &Client) -> Result<bool, Fault> {
    let encryption = client.encryption();
    let has_keys = encryption
        .cross_signing_status()
        .await
        .is_some_and(|status| status.is_complete());
    if !has_keys {
        return Ok(false);
    }
    if is_device_signed(client).await? {
        return Ok(true);
    }
    // Right after the identity is made, the store has yet to hear of the signature.
    if let Some(user) = client.user_id() {
        encryption.request_user_identity(user).await?;
    }
    is_device_signed(client).await
}

async fn is_device_signed(client: &Client) -> Result<bool, Fault> {
    let device = client.encryption().get_own_device().await;
    let device = device.map_err(matrix_sdk::Error::from)?;
    Ok(device.is_some_and(|device| device.is_cross_signed_by_owner()))
}

/// A recovery key that was given beforehand opens nothing yet: the identity is new, and gets a key of its own.
async fn has_secret_storage(client: &Client) -> Result<bool, Fault> {
    let storage = client.encryption().secret_storage();
    let enabled = storage.is_enabled().await;
    enabled.map_err(|error| Fault::SecretStorage(Box::new(error)))
}

async fn write_recovery_key(client: &Client, path: &Path) -> Result<(), Fault> {
    let store = client
        .encryption()
        .secret_storage()
        .create_secret_store()
        .await
        .map_err(|error| Fault::SecretStorage(Box::new(error)))?;
    let key = store.secret_storage_key();
    atomic_file::write(path, key.as_bytes()).map_err(|source| Fault::File {
        path: path.to_owned(),
        source,
    })?;
    info!(path = %path.display(), "recovery key written: keep a copy of it in a safe place");
    Ok(())
}

async fn recover(client: &Client, key: &RecoveryKey) -> Result<(), Fault> {
    // A new device's keys are uploaded with its first sync, and only a device that the homeserver knows can be signed.
    sync::once(client).await?;
    client
        .encryption()
        .recovery()
        .recover(key.expose())
        .await
        .map_err(|error| Fault::Recovery {
            origin: key.origin.to_string(),
            source: Box::new(error),
        })
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_recovery_key_in_the_variable_comes_before_the_one_in_the_file() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join(RECOVERY_KEY_FILE);
        let find = |variable: Option<&str>| {
            let key = RecoveryKey::find(variable.map(OsStr::new), &file).unwrap();
            key.map(|key| (key.expose().to_owned(), key.origin().clone()))
        };
        let given = Some(("given".to_owned(), KeyOrigin::Variable));
        assert_eq!(find(Some("given")), given);
        assert_eq!(find(None), None);
        assert_eq!(find(Some("")), None);
        fs::write(&file, "written\n").unwrap();
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
