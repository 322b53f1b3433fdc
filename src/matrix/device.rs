//! The bot's device on disk: its id, which stays the same ever after, and the log-in of the moment.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use matrix_sdk::{
    SessionMeta,
    ruma::{DeviceId, OwnedDeviceId},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use tracing::warn;

use super::{Fault, client::STORE};
use crate::{atomic_file, secret::Token};

/// The file with the device's id and access token, in the folder of Matrix.
const SESSION: &str = "session.json";

/// The file with the device's id alone, which stays when the access token is no longer good.
const DEVICE: &str = "device-id";

/// The bot's user on its device.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Device {
    /// Which user and device.
    #[serde(flatten)]
    pub(super) meta: SessionMeta,
    /// What was sent before was not sent to us.
    pub(super) listening_since: SystemTime,
}

/// A log-in that lasts over restarts.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Session {
    #[serde(flatten)]
    pub(super) device: Device,
    /// What proves that a request is the device's. Nothing, where the configuration gives a token.
    #[serde(flatten)]
    pub(super) authentication: Option<Authentication>,
}

/// What proves that a request is the device's.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(tag = "authentication", rename_all = "snake_case")]
pub(super) enum Authentication {
    /// A token of the device's own, which a log-in gave.
    AccessToken {
        /// The token.
        #[serde(deserialize_with = "read_token", serialize_with = "write_token")]
        access_token: Token,
    },
    /// The appservice's token, with user and device named beside it.
    IdentityAssertion,
}

/// The session of an earlier run, if there is one. One that makes no sense is as good as none: the device's id is kept by
/// itself, so that the bot logs in again as the same device.
pub(super) fn stored(folder: &Path) -> Result<Option<Session>, Fault> {
    let path = folder.join(SESSION);
    let Some(text) = read(&path)? else {
        return Ok(None);
    };
    Ok(serde_json::from_str(&text)
        .inspect_err(|_| warn!(path = %path.display(), "the log-in on disk makes no sense, logging in again"))
        .ok())
}

/// Whether there is a log-in with a token of the device's own.
pub(super) fn is_logged_in(folder: &Path) -> Result<bool, Fault> {
    let session = stored(folder)?;
    Ok(session.is_some_and(|session| {
        matches!(
            session.authentication,
            Some(Authentication::AccessToken { .. })
        )
    }))
}

/// Forgets the access token; where the device is gone too, also its keys, which are of no use any more. The identity comes
/// back with the recovery key.
pub(super) fn forget(folder: &Path, device_is_gone: bool) -> Result<(), Fault> {
    if device_is_gone {
        remove(&folder.join(DEVICE))?;
        let store = folder.join(STORE);
        match std::fs::remove_dir_all(&store) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_fault(&store, error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    // Last, so that a crash before leaves the token whose refusal leads here again.
    remove(&folder.join(SESSION))
}

fn remove(path: &Path) -> Result<(), Fault> {
    atomic_file::remove(path).map_err(|source| io_fault(path, source))
}

/// Writes down a log-in.
pub(super) fn store(folder: &Path, session: &Session) -> Result<(), Fault> {
    let path = folder.join(SESSION);
    let text = serde_json::to_vec(session).map_err(|error| io_fault(&path, error.into()))?;
    atomic_file::write(&path, &text).map_err(|source| io_fault(&path, source))
}

/// The device's id, which is written down before it is used: a crash between must not make a second device.
pub(super) fn id(folder: &Path) -> Result<OwnedDeviceId, Fault> {
    if let Some(id) = known_id(folder)? {
        return Ok(id);
    }
    let id = OwnedDeviceId::from(format!("RCBOT{:08X}", rand::random::<u32>()));
    set_id(folder, &id)?;
    Ok(id)
}

/// The device's id, if it has one yet.
pub(super) fn known_id(folder: &Path) -> Result<Option<OwnedDeviceId>, Fault> {
    let text = read(&folder.join(DEVICE))?;
    Ok(text.map(|id| id.trim().into()))
}

/// Writes down the device's id.
pub(super) fn set_id(folder: &Path, id: &DeviceId) -> Result<(), Fault> {
    let path = folder.join(DEVICE);
    atomic_file::write(&path, id.as_bytes()).map_err(|source| io_fault(&path, source))
}

fn read(path: &Path) -> Result<Option<String>, Fault> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_fault(path, source)),
    }
}

fn io_fault(path: &Path, source: io::Error) -> Fault {
    Fault::File {
        path: PathBuf::from(path),
        source,
    }
}

fn read_token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Token, D::Error> {
    Token::new(String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn write_token<S: Serializer>(token: &Token, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(token.expose())
}
