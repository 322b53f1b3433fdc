//! The files of the Matrix folder, `data_dir/matrix`: their names and contents.
//!
//! Invariant: nothing here uses the SDK except for its ids, and nothing here needs a connection.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use matrix_sdk::{
    SessionMeta,
    ruma::{
        DeviceId, OwnedDeviceId, OwnedRoomId, OwnedRoomOrAliasId, OwnedUserId, RoomOrAliasId,
        UserId,
    },
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error as _},
};
use tracing::warn;

use super::Fault;
use crate::{atomic_file, config::MasterKey, secret::Token};

/// The log-in.
const SESSION: &str = "session.json";

/// The device's id, which is kept when the access token becomes invalid.
const DEVICE: &str = "device-id";

/// The public key of the bot's identity: in the store, so that it is deleted with the private keys.
const OWN_IDENTITY: &str = "store/identity";

const ADMIN_ROOM: &str = "admin-room.json";

/// The Matrix folder. Its files are only for the bot.
#[derive(Debug, Clone)]
pub(crate) struct MatrixFolder(PathBuf);

/// A log-in that survives restarts.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Session {
    #[serde(flatten)]
    pub(super) meta: SessionMeta,
    /// When the bot logged in. Earlier messages are ignored.
    pub(super) listening_since: SystemTime,
    /// `None`: the configuration gives a token.
    #[serde(flatten)]
    pub(crate) authentication: Option<Authentication>,
}

impl Session {
    pub(crate) fn device_id(&self) -> &DeviceId {
        &self.meta.device_id
    }

    /// The device's own token, if it has one.
    pub(crate) fn token(&self) -> Option<&Token> {
        match &self.authentication {
            Some(Authentication::AccessToken { access_token }) => Some(access_token),
            Some(Authentication::IdentityAssertion) | None => None,
        }
    }
}

/// How requests are authenticated as the device's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "authentication", rename_all = "snake_case")]
pub(crate) enum Authentication {
    /// The device's own token, from a log-in.
    AccessToken {
        #[serde(deserialize_with = "read_token", serialize_with = "write_token")]
        access_token: Token,
    },
    /// The appservice's token, together with user and device: the homeserver lets no appservice log in.
    IdentityAssertion,
}

/// The admin room in which the bot was last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredRoom {
    /// The configured id or alias. If the configuration has another one now, the rest is ignored.
    pub(crate) configured: OwnedRoomOrAliasId,
    /// It may differ from the configured one: an alias is resolved once, and upgrades are followed.
    pub(crate) room: OwnedRoomId,
    /// Whether it was ever seen encrypted, or the room that it replaces was.
    #[serde(default)]
    pub(crate) was_encrypted: bool,
}

impl MatrixFolder {
    /// The path need not exist yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn create(&self) -> Result<(), Fault> {
        atomic_file::create_folder(&self.0).map_err(|source| file_fault(&self.0, source))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The SDK's databases, with the private keys of the device and of the identity.
    pub(super) fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    pub(super) fn has_store(&self) -> bool {
        self.store().exists()
    }

    /// The key that restores the bot's identity on another device.
    pub(crate) fn recovery_key(&self) -> PathBuf {
        self.0.join("recovery-key")
    }

    pub(super) fn forget_recovery_key(&self) -> Result<(), Fault> {
        remove(&self.recovery_key())
    }

    /// The socket through which the SDK's requests go.
    pub(super) fn homeserver_socket(&self) -> PathBuf {
        self.0.join("homeserver.sock")
    }

    pub(super) fn counted_commands(&self) -> PathBuf {
        self.0.join("obeyed")
    }

    /// The users whose events made the SDK panic.
    pub(super) fn quarantine(&self) -> PathBuf {
        self.0.join("quarantine.json")
    }

    /// The rooms that the bot made for links, by user.
    pub(super) fn direct_messages(&self) -> Result<JsonMap<OwnedRoomId>, Fault> {
        self.json_map(
            "direct-messages.json",
            "delete it, and the bot makes new direct messages",
        )
    }

    /// The earlier rooms for links, by user.
    pub(super) fn replaced_direct_messages(&self) -> Result<JsonMap<Vec<OwnedRoomId>>, Fault> {
        self.json_map(
            "replaced-direct-messages.json",
            "delete it, and links that a killed bot sent to rooms which it has left since are not redacted",
        )
    }

    /// The identities of users: the first one seen, or the one that the operator accepted.
    pub(crate) fn pinned_identities(&self) -> Result<JsonMap<MasterKey>, Fault> {
        self.json_map(
            "identities.json",
            "it holds the pinned identities; repair it, or delete it, and the bot pins the identities that it sees next",
        )
    }

    fn json_map<V: DeserializeOwned>(
        &self,
        name: &str,
        remedy: &'static str,
    ) -> Result<JsonMap<V>, Fault> {
        let path = self.0.join(name);
        let values = read_json(&path, remedy)?.unwrap_or_default();
        Ok(JsonMap {
            path,
            values: Mutex::new(values),
        })
    }

    /// The log-in of the last run, if there is one. An unreadable one counts as none: the device's id is in a separate file, so
    /// the bot logs in again as the same device.
    pub(crate) fn session(&self) -> Result<Option<Session>, Fault> {
        let path = self.0.join(SESSION);
        let session = read(&path)?.map(|text| serde_json::from_slice(&text));
        Ok(session.and_then(|session| {
            session
                .inspect_err(|_| warn!(path = %path.display(), "the log-in on disk is unreadable, logging in again"))
                .ok()
        }))
    }

    pub(super) fn set_session(&self, session: &Session) -> Result<(), Fault> {
        write_json(&self.0.join(SESSION), session)
    }

    pub(super) fn device_id(&self) -> Result<Option<OwnedDeviceId>, Fault> {
        let text = read(&self.0.join(DEVICE))?;
        Ok(text.map(|id| String::from_utf8_lossy(&id).trim().into()))
    }

    /// The device's id, which is saved before it is used: a crash in between must not create a second device.
    pub(super) fn device_id_or_new(&self) -> Result<OwnedDeviceId, Fault> {
        if let Some(id) = self.device_id()? {
            return Ok(id);
        }
        let id = OwnedDeviceId::from(format!("RCBOT{:08X}", rand::random::<u32>()));
        self.set_device_id(&id)?;
        Ok(id)
    }

    pub(super) fn set_device_id(&self, id: &DeviceId) -> Result<(), Fault> {
        write(&self.0.join(DEVICE), id.as_bytes())
    }

    /// Forgets the access token, but not the device, which may log in again.
    pub(super) fn forget_session(&self) -> Result<(), Fault> {
        remove(&self.0.join(SESSION))
    }

    /// Forgets the log-in and the device with its keys. The recovery key restores the identity.
    pub(super) fn forget_device(&self) -> Result<(), Fault> {
        remove(&self.0.join(DEVICE))?;
        let store = self.store();
        match fs::remove_dir_all(&store) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(file_fault(&store, error));
            }
            Ok(()) | Err(_) => {}
        }
        // Last, so that a crash before leaves the token, whose refusal leads here again.
        self.forget_session()
    }

    /// The public key of the bot's own identity, if its private keys are in the store. A start that found another identity, or
    /// that failed earlier, leaves a store without it.
    pub(crate) fn own_identity(&self) -> Option<String> {
        fs::read_to_string(self.0.join(OWN_IDENTITY)).ok()
    }

    pub(super) fn set_own_identity(&self, key: &str) -> Result<(), Fault> {
        write(&self.0.join(OWN_IDENTITY), key.as_bytes())
    }

    /// The admin room that the configured id or alias led to, if any.
    pub(crate) fn admin_room(
        &self,
        configured: &RoomOrAliasId,
    ) -> Result<Option<StoredRoom>, Fault> {
        let stored: Option<StoredRoom> = read_json(
            &self.0.join(ADMIN_ROOM),
            "delete it, and the bot goes to the room that the configuration names",
        )?;
        Ok(stored.filter(|stored| stored.configured == configured))
    }

    pub(super) fn set_admin_room(&self, room: &StoredRoom) -> Result<(), Fault> {
        write_json(&self.0.join(ADMIN_ROOM), room)
    }
}

/// One value for each user, in a file. A value is on disk before [`Self::get`] returns it.
#[derive(Debug)]
pub(crate) struct JsonMap<V> {
    path: PathBuf,
    values: Mutex<BTreeMap<OwnedUserId, V>>,
}

impl<V: Clone + Serialize> JsonMap<V> {
    pub(super) fn get(&self, user: &UserId) -> Option<V> {
        self.values().get(user).cloned()
    }

    pub(crate) fn all(&self) -> BTreeMap<OwnedUserId, V> {
        self.values().clone()
    }

    pub(super) fn insert(&self, user: &UserId, value: V) -> Result<(), Fault> {
        let mut values = self.values();
        let mut changed = values.clone();
        changed.insert(user.to_owned(), value);
        write_json(&self.path, &changed)?;
        *values = changed;
        Ok(())
    }

    fn values(&self) -> MutexGuard<'_, BTreeMap<OwnedUserId, V>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None` where there is no file. `remedy` says what to do about an unreadable one.
fn read_json<T: DeserializeOwned>(path: &Path, remedy: &'static str) -> Result<Option<T>, Fault> {
    let value = read(path)?.map(|text| serde_json::from_slice(&text));
    value.transpose().map_err(|_| Fault::UnreadableFile {
        path: path.to_owned(),
        remedy,
    })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Fault> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| file_fault(path, error.into()))?;
    write(path, &text)
}

/// `None` where there is no file.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Fault> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(file_fault(path, source)),
    }
}

pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), Fault> {
    atomic_file::write(path, content).map_err(|source| file_fault(path, source))
}

fn remove(path: &Path) -> Result<(), Fault> {
    atomic_file::remove(path).map_err(|source| file_fault(path, source))
}

pub(super) fn file_fault(path: &Path, source: io::Error) -> Fault {
    Fault::File {
        path: path.to_owned(),
        source,
    }
}

fn read_token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Token, D::Error> {
    Token::new(String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn write_token<S: Serializer>(token: &Token, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(token.expose())
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::{device_id, user_id};

    use super::*;

    #[test]
    fn a_device_has_its_id_before_it_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let matrix = MatrixFolder::new(folder.path().to_owned());
        let id = matrix.device_id_or_new().unwrap();
        assert_eq!(matrix.device_id_or_new().unwrap(), id);
        // As an operator writes it.
        fs::write(folder.path().join(DEVICE), "RCBOT1\n").unwrap();
        assert_eq!(matrix.device_id_or_new().unwrap(), device_id!("RCBOT1"));
        drop(folder);
        assert!(matches!(matrix.device_id_or_new(), Err(Fault::File { .. })));
    }

    #[test]
    fn a_log_in_is_kept_while_the_store_of_its_device_cannot_be_removed() {
        let folder = tempfile::tempdir().unwrap();
        let matrix = MatrixFolder::new(folder.path().to_owned());
        fs::write(folder.path().join(SESSION), "{}").unwrap();
        fs::write(matrix.store(), "no folder").unwrap();
        assert!(matches!(matrix.forget_device(), Err(Fault::File { .. })));
        assert!(folder.path().join(SESSION).exists());
    }

    #[test]
    fn a_value_that_cannot_be_saved_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let matrix = MatrixFolder::new(folder.path().to_owned());
        let rooms = matrix.direct_messages().unwrap();
        drop(folder);
        let (user, room) = (
            user_id!("@alice:x.y"),
            OwnedRoomId::try_from("!a:x.y").unwrap(),
        );
        assert!(matches!(rooms.insert(user, room), Err(Fault::File { .. })));
        assert_eq!(rooms.get(user), None);
    }
}
