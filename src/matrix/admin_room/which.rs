//! Which room the admin room is, and since when the bot hears it.
//!
//! An alias is believed until the bot is in the room that it names. From then on the room's id counts, over restarts too: who
//! has the power over an alias, which may be another than over the room, must not be able to move the admin room.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use matrix_sdk::ruma::{OwnedRoomId, OwnedRoomOrAliasId, RoomId, RoomOrAliasId};
use serde::{Deserialize, Serialize};

use crate::{atomic_file, matrix::Fault};

/// The admin room, shared by all that hear and speak.
#[derive(Debug)]
pub(in crate::matrix) struct AdminRoom {
    path: PathBuf,
    configured: OwnedRoomOrAliasId,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    room: Option<OwnedRoomId>,
    /// What was sent before was not sent to us. Whoever joins a room again gets its latest events once more, also those
    /// that an earlier run has obeyed.
    listening_since: SystemTime,
}

/// What stands on disk.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// What the configuration said. If it says something else now, the rest does not count.
    configured: OwnedRoomOrAliasId,
    /// The room that it led to, perhaps by way of an upgrade.
    room: OwnedRoomId,
}

impl AdminRoom {
    /// Reads the file. `listening_since` counts until the time of the bot's join is known.
    pub(in crate::matrix) fn load(
        path: PathBuf,
        configured: OwnedRoomOrAliasId,
        listening_since: SystemTime,
    ) -> Result<Self, Fault> {
        let room = match fs::read(&path) {
            Ok(text) => {
                let stored: Stored =
                    serde_json::from_slice(&text).map_err(|_| Fault::UnreadableFile {
                        path: path.clone(),
                        remedy: "delete it, and the bot goes to the room that the configuration names",
                    })?;
                (stored.configured == configured).then_some(stored.room)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(Fault::File { path, source }),
        };
        Ok(Self {
            path,
            configured,
            now: Mutex::new(Now {
                room,
                listening_since,
            }),
        })
    }

    /// What the configuration says.
    pub(in crate::matrix) fn configured(&self) -> &RoomOrAliasId {
        &self.configured
    }

    /// The room, once the bot was in it.
    pub(in crate::matrix) fn id(&self) -> Option<OwnedRoomId> {
        self.now().room.clone()
    }

    /// Whether this is the room.
    pub(in crate::matrix) fn is(&self, room: &RoomId) -> bool {
        self.now().room.as_deref() == Some(room)
    }

    /// When the bot began to hear the room.
    pub(in crate::matrix) fn listening_since(&self) -> SystemTime {
        self.now().listening_since
    }

    /// The bot is in this room since then, and it is the admin room from now on. To be called before the next sync.
    pub(super) fn enter(&self, room: &RoomId, joined: SystemTime) -> Result<(), Fault> {
        if !self.is(room) {
            self.write(room)?;
        }
        *self.now() = Now {
            room: Some(room.to_owned()),
            listening_since: joined,
        };
        Ok(())
    }

    fn write(&self, room: &RoomId) -> Result<(), Fault> {
        let stored = Stored {
            configured: self.configured.clone(),
            room: room.to_owned(),
        };
        let written = serde_json::to_vec_pretty(&stored)
            .map_err(io::Error::from)
            .and_then(|text| atomic_file::write(&self.path, &text));
        written.map_err(|source| Fault::File {
            path: self.path.clone(),
            source,
        })
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::room_id;

    use super::*;

    fn load(path: &std::path::Path, configured: &str) -> Result<AdminRoom, Fault> {
        let configured = RoomOrAliasId::parse(configured).unwrap();
        AdminRoom::load(path.to_owned(), configured, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn the_room_that_was_entered_counts_as_long_as_the_configuration_says_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin-room.json");
        let (room, now) = (room_id!("!a:x.y"), SystemTime::now());
        let admin_room = load(&path, "#admins:x.y").unwrap();
        assert_eq!(admin_room.id(), None);
        admin_room.enter(room, now).unwrap();
        assert!(admin_room.is(room) && admin_room.listening_since() == now);

        assert!(load(&path, "#admins:x.y").unwrap().is(room));
        assert_eq!(load(&path, "#others:x.y").unwrap().id(), None);
        assert_eq!(load(&path, "!a:x.y").unwrap().id(), None);
    }

    #[test]
    fn a_room_that_cannot_be_written_down_is_not_entered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone/admin-room.json");
        let admin_room = load(&path, "#admins:x.y").unwrap();
        let entered = admin_room.enter(room_id!("!a:x.y"), SystemTime::now());
        assert!(matches!(entered, Err(Fault::File { .. })));
        assert_eq!(admin_room.id(), None);
    }

    #[test]
    fn a_file_that_makes_no_sense_is_no_reason_to_believe_the_alias_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin-room.json");
        fs::write(&path, "{ \"configured\": \"#admins:x.y\" }").unwrap();
        assert!(matches!(
            load(&path, "#admins:x.y"),
            Err(Fault::UnreadableFile { .. })
        ));
    }
}
