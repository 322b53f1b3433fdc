//! The bot's own identity: cross-signing, and the recovery key that brings it back.
//!
//! A bot that is not cross-signed goes unheard: clients are to ignore its device (specification 1.18, MSC4153), and we
//! could not send under the identity-based strategy ourselves.

use std::{env, fs, io, path::Path};

use matrix_sdk::{
    Client, encryption::CrossSigningResetAuthType, ruma::api::client::keys::get_keys,
};
use tracing::{info, warn};

use super::{Fault, login::Login, sync};
use crate::atomic_file;

/// The file with the recovery key, in the folder of Matrix.
pub const RECOVERY_KEY_FILE: &str = "recovery-key";

/// The variable that gives the recovery key where there is no file, for hosts that keep secrets elsewhere.
pub const RECOVERY_KEY_VARIABLE: &str = "RCBOT_RECOVERY_KEY";

/// What brings the identity back. It has no `Display`, and its `Debug` shows nothing.
struct RecoveryKey {
    text: String,
    /// Where it was found.
    origin: String,
}

impl RecoveryKey {
    /// The variable comes before the file.
    fn find(file: &Path) -> Result<Option<Self>, Fault> {
        if let Some(text) = env::var(RECOVERY_KEY_VARIABLE)
            .ok()
            .filter(|text| !text.is_empty())
        {
            return Ok(Some(Self {
                text,
                origin: format!("the variable {RECOVERY_KEY_VARIABLE}"),
            }));
        }
        match fs::read_to_string(file) {
            Ok(text) => Ok(Some(Self {
                text,
                origin: format!("the file {}", file.display()),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Fault::File {
                path: file.to_owned(),
                source,
            }),
        }
    }

    /// The key itself: for the SDK, which opens the secrets with it, and nothing else.
    fn expose(&self) -> &str {
        self.text.trim()
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
    let recovery_key = RecoveryKey::find(&key_file)?;
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
            origin: key.origin.clone(),
            source: Box::new(error),
        })
}
