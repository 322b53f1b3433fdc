//! What an earlier run left on disk, for those who look at it without a connection.

use std::{collections::BTreeMap, fs, path::Path, time::SystemTime};

use matrix_sdk::ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId, RoomOrAliasId};

use super::{
    Fault,
    admin_room::AdminRoom,
    client::{ADMIN_ROOM, IDENTITIES, STORE},
    device::{self, Authentication},
    identities,
    identity::OWN_IDENTITY,
};
use crate::{config::MasterKey, secret::Token};

/// The admin room in which the bot was last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRoom {
    /// It may be another one than the configuration names: an alias is believed once, and upgrades are followed.
    pub id: OwnedRoomId,
    /// Whether it was ever seen encrypted, or the room that it replaces was.
    pub was_encrypted: bool,
}

/// The admin room to which the configuration led, if it did so yet.
///
/// # Errors
/// [`Fault::File`], [`Fault::UnreadableFile`].
pub fn stored_admin_room(
    folder: &Path,
    configured: &RoomOrAliasId,
) -> Result<Option<StoredRoom>, Fault> {
    let path = folder.join(ADMIN_ROOM);
    let room = AdminRoom::load(path, configured.to_owned(), SystemTime::UNIX_EPOCH, false)?;
    let was_encrypted = room.was_encrypted();
    Ok(room.id().map(|id| StoredRoom { id, was_encrypted }))
}

/// The identities that the bot has seen, by user.
///
/// # Errors
/// [`Fault::File`], [`Fault::UnreadableFile`].
pub fn stored_identities(folder: &Path) -> Result<BTreeMap<OwnedUserId, MasterKey>, Fault> {
    Ok(identities::table(folder.join(IDENTITIES))?.all())
}

/// What an earlier run proved with whose device it was.
#[derive(Debug, Clone)]
pub enum StoredLogin {
    /// A token of the device's own.
    AccessToken(Token),
    /// The appservice's token, with this device named beside it: the homeserver logs in no appservice.
    IdentityAssertion(OwnedDeviceId),
}

impl StoredLogin {
    /// The device's own token, if it has one.
    #[must_use]
    pub fn into_token(self) -> Option<Token> {
        match self {
            Self::AccessToken(token) => Some(token),
            Self::IdentityAssertion(_) => None,
        }
    }
}

/// The log-in of the last run. `None`: there is none yet, or the configuration gives the token.
///
/// # Errors
/// [`Fault::File`].
pub fn stored_login(folder: &Path) -> Result<Option<StoredLogin>, Fault> {
    Ok(device::stored(folder)?.and_then(|session| {
        Some(match session.authentication? {
            Authentication::AccessToken { access_token } => StoredLogin::AccessToken(access_token),
            Authentication::IdentityAssertion => {
                StoredLogin::IdentityAssertion(session.device.meta.device_id)
            }
        })
    }))
}

/// Whether the store is there, with the device's keys and the identity's.
pub(super) fn has_store(folder: &Path) -> bool {
    folder.join(STORE).exists()
}

/// The public key of the bot's own identity, if its private keys are in the store: a start that found another one, or failed
/// before, leaves a store without.
#[must_use]
pub fn stored_own_identity(folder: &Path) -> Option<String> {
    fs::read_to_string(folder.join(STORE).join(OWN_IDENTITY)).ok()
}
