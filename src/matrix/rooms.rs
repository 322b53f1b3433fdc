//! The bot's rooms: the admin room, with the time since when messages there count, and the direct messages for links.
//!
//! An alias is resolved until the bot is in the room. From then on the room's id counts, across restarts too: a user with power
//! over only the alias must not be able to move the admin room.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use matrix_sdk::ruma::{
    OwnedDeviceId, OwnedRoomId, OwnedRoomOrAliasId, OwnedUserId, RoomId, RoomOrAliasId, UserId,
};

use super::{
    Arrival, Fault, MatrixFolder,
    folder::{JsonMap, StoredRoom},
};
use crate::link::Link;

/// The admin room, shared by everything that receives and sends.
#[derive(Debug)]
pub(super) struct AdminRoom {
    folder: MatrixFolder,
    configured: OwnedRoomOrAliasId,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    room: Option<OwnedRoomId>,
    /// When the bot logged in, by its own clock, if its store is new: the first sync brings earlier messages again.
    logged_in: Option<SystemTime>,
    /// Earlier messages are ignored. A user who joins a room again gets its latest events again, also those that counted in an
    /// earlier run.
    listening_since: SystemTime,
    was_encrypted: bool,
    /// How the bot came there, until that is reported.
    arrival: Option<Arrival>,
}

impl AdminRoom {
    /// Reads the file. No message counts before [`Self::note_log_in`].
    pub(super) fn load(
        folder: &MatrixFolder,
        configured: OwnedRoomOrAliasId,
    ) -> Result<Self, Fault> {
        let stored = folder.admin_room(&configured)?;
        Ok(Self {
            folder: folder.clone(),
            configured,
            current: Mutex::new(Current {
                was_encrypted: stored.as_ref().is_some_and(|stored| stored.was_encrypted),
                room: stored.map(|stored| stored.room),
                logged_in: None,
                listening_since: SystemTime::now(),
                arrival: None,
            }),
        })
    }

    /// Notes when the bot logged in for this connection, which counts until the time of its join is known.
    pub(super) fn note_log_in(&self, time: SystemTime, store_is_new: bool) {
        let mut current = self.current();
        current.logged_in = store_is_new.then_some(time);
        current.listening_since = time;
    }

    pub(super) fn configured(&self) -> &RoomOrAliasId {
        &self.configured
    }

    /// The room, once the bot was in it.
    pub(super) fn id(&self) -> Option<OwnedRoomId> {
        self.current().room.clone()
    }

    pub(super) fn is(&self, room: &RoomId) -> bool {
        self.current().room.as_deref() == Some(room)
    }

    /// The room, also before the bot is in it. `None`: only an alias of it is known yet.
    pub(super) fn expected(&self) -> Option<OwnedRoomId> {
        let configured = <&RoomId>::try_from(&*self.configured).ok();
        self.id().or(configured.map(RoomId::to_owned))
    }

    pub(super) fn listening_since(&self) -> SystemTime {
        self.current().listening_since
    }

    pub(super) fn logged_in(&self) -> Option<SystemTime> {
        self.current().logged_in
    }

    /// Makes this room, joined at this time, the admin room. To be called before the next sync.
    pub(super) fn enter(&self, room: &RoomId, joined: SystemTime) -> Result<(), Fault> {
        let mut current = self.current();
        if current.room.as_deref() != Some(room) {
            self.write(room, current.was_encrypted)?;
            current.arrival = Some(match current.room.replace(room.to_owned()) {
                Some(_) => Arrival::Moved,
                None => Arrival::Joined,
            });
        }
        current.listening_since = joined;
        Ok(())
    }

    /// How the bot came into the room: once, as soon as this is true of the room.
    pub(super) fn take_arrival(&self, is_synced: impl Fn(&RoomId) -> bool) -> Option<Arrival> {
        let mut current = self.current();
        let is_synced = current.room.as_deref().is_some_and(is_synced);
        current.arrival.take_if(|_| is_synced)
    }

    /// Whether the room was ever seen encrypted, or the one that it replaces was: an encrypted room stays so (specification,
    /// "m.room.encryption"), whatever a homeserver shows later.
    pub(super) fn was_encrypted(&self) -> bool {
        self.current().was_encrypted
    }

    pub(super) fn note_encrypted(&self) -> Result<(), Fault> {
        // Locked while it is written: the room must not change in between.
        let mut current = self.current();
        if let Some(room) = current.room.as_deref().filter(|_| !current.was_encrypted) {
            self.write(room, true)?;
            current.was_encrypted = true;
        }
        Ok(())
    }

    fn write(&self, room: &RoomId, was_encrypted: bool) -> Result<(), Fault> {
        self.folder.set_admin_room(&StoredRoom {
            configured: self.configured.clone(),
            room: room.to_owned(),
            was_encrypted,
        })
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many replaced rooms are kept for each user.
const MOST_REPLACED: usize = 8;

/// The direct message of each user. Stored by the bot, as `m.direct` is too easily wrong.
#[derive(Debug)]
pub(super) struct DirectMessages {
    current: JsonMap<OwnedRoomId>,
    /// The rooms before, which were no longer confidential. They may hold earlier links.
    replaced: JsonMap<Vec<OwnedRoomId>>,
    room_keys: Mutex<HashMap<OwnedRoomId, LinkKey>>,
}

/// What a room's key was made for: a link, and the devices that could read it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LinkKey {
    pub(super) link: Link,
    pub(super) readers: Readers,
}

/// Devices with their keys, and whether their owner has signed them.
pub(super) type Readers = BTreeSet<(OwnedUserId, OwnedDeviceId, Option<String>, bool)>;

impl DirectMessages {
    pub(super) fn load(folder: &MatrixFolder) -> Result<Self, Fault> {
        Ok(Self {
            current: folder.direct_messages()?,
            replaced: folder.replaced_direct_messages()?,
            room_keys: Mutex::default(),
        })
    }

    /// The room to which links to this user go.
    pub(super) fn with(&self, user: &UserId) -> Option<OwnedRoomId> {
        self.current.get(user)
    }

    /// The rooms to which links to this user went before.
    pub(super) fn replaced(&self, user: &UserId) -> Vec<OwnedRoomId> {
        self.replaced.get(user).unwrap_or_default()
    }

    /// What the room's key was made for, if that is known. It is unknown until the next message has been sent.
    pub(super) fn take_key(&self, room: &RoomId) -> Option<LinkKey> {
        self.room_keys().remove(room)
    }

    pub(super) fn set_key(&self, room: &RoomId, key: LinkKey) {
        self.room_keys().insert(room.to_owned(), key);
    }

    fn room_keys(&self) -> MutexGuard<'_, HashMap<OwnedRoomId, LinkKey>> {
        self.room_keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Links to this user go to another room from now on.
    pub(super) fn replace(&self, user: &UserId, room: &RoomId) -> Result<(), Fault> {
        if let Some(before) = self.current.get(user) {
            let mut replaced = self.replaced(user);
            replaced.push(before);
            let surplus = replaced.len().saturating_sub(MOST_REPLACED);
            self.replaced.insert(user, replaced.split_off(surplus))?;
        }
        self.current.insert(user, room.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::{room_id, user_id};

    use super::*;

    fn load(folder: &tempfile::TempDir, configured: &str) -> Result<AdminRoom, Fault> {
        let configured = RoomOrAliasId::parse(configured).unwrap();
        let folder = MatrixFolder::new(folder.path().to_owned());
        AdminRoom::load(&folder, configured)
    }

    #[test]
    fn the_entered_room_counts_while_the_configuration_stays_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (room, now) = (room_id!("!a:x.y"), SystemTime::now());
        let admin_room = load(&folder, "#admins:x.y").unwrap();
        assert_eq!(admin_room.id(), None);
        admin_room.enter(room, now).unwrap();
        assert!(admin_room.is(room) && admin_room.listening_since() == now);
        assert_eq!(admin_room.take_arrival(|_| false), None);
        assert_eq!(admin_room.take_arrival(|_| true), Some(Arrival::Joined));
        assert_eq!(admin_room.take_arrival(|_| true), None);

        // After a restart, being there already is not an arrival.
        let restarted = load(&folder, "#admins:x.y").unwrap();
        restarted.enter(room, now).unwrap();
        assert_eq!(restarted.take_arrival(|_| true), None);
        assert!(load(&folder, "#admins:x.y").unwrap().is(room));
        assert_eq!(load(&folder, "#others:x.y").unwrap().id(), None);
        assert_eq!(load(&folder, "!a:x.y").unwrap().id(), None);
    }

    #[test]
    fn an_arrival_is_reported_on_a_later_connection_too() {
        let folder = tempfile::tempdir().unwrap();
        let (room, now) = (room_id!("!a:x.y"), SystemTime::now());
        let admin_room = load(&folder, "#admins:x.y").unwrap();
        admin_room.enter(room, now).unwrap();
        // The connection is lost before the sync that brings the room.
        admin_room.note_log_in(SystemTime::UNIX_EPOCH, false);
        admin_room.enter(room, now).unwrap();
        assert_eq!(admin_room.listening_since(), now);
        assert_eq!(admin_room.take_arrival(|_| true), Some(Arrival::Joined));
    }

    #[test]
    fn a_room_that_was_encrypted_stays_so_over_restarts_and_upgrades() {
        let folder = tempfile::tempdir().unwrap();
        let admin_room = load(&folder, "#admins:x.y").unwrap();
        admin_room
            .enter(room_id!("!a:x.y"), SystemTime::now())
            .unwrap();
        assert!(!load(&folder, "#admins:x.y").unwrap().was_encrypted());
        admin_room.note_encrypted().unwrap();
        let admin_room = load(&folder, "#admins:x.y").unwrap();
        assert!(admin_room.was_encrypted());
        admin_room
            .enter(room_id!("!b:x.y"), SystemTime::now())
            .unwrap();
        assert!(load(&folder, "#admins:x.y").unwrap().was_encrypted());
        assert!(!load(&folder, "#others:x.y").unwrap().was_encrypted());
    }

    #[test]
    fn a_room_that_cannot_be_saved_is_not_entered() {
        let folder = tempfile::tempdir().unwrap();
        let admin_room = load(&folder, "#admins:x.y").unwrap();
        drop(folder);
        let entered = admin_room.enter(room_id!("!a:x.y"), SystemTime::now());
        assert!(matches!(entered, Err(Fault::File { .. })));
        assert_eq!(admin_room.id(), None);
    }

    #[test]
    fn the_latest_of_the_replaced_direct_messages_stay_known() {
        let folder = tempfile::tempdir().unwrap();
        let folder = MatrixFolder::new(folder.path().to_owned());
        let (alice, bob) = (user_id!("@alice:x.y"), user_id!("@bob:x.y"));
        let rooms: Vec<_> = (0..=MOST_REPLACED + 1)
            .map(|number| RoomId::parse(format!("!{number}:x.y")).unwrap())
            .collect();
        let known = DirectMessages::load(&folder).unwrap();
        for room in &rooms {
            known.replace(alice, room).unwrap();
        }
        let (current, replaced) = rooms.split_last().unwrap();
        for known in [known, DirectMessages::load(&folder).unwrap()] {
            assert_eq!(known.with(alice).as_ref(), Some(current));
            assert_eq!(known.replaced(alice), replaced[1..]);
            assert!(known.with(bob).is_none() && known.replaced(bob).is_empty());
        }
    }

    #[test]
    fn an_invalid_file_does_not_make_the_alias_count_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin-room.json");
        std::fs::write(path, "{ \"configured\": \"#admins:x.y\" }").unwrap();
        assert!(matches!(
            load(&folder, "#admins:x.y"),
            Err(Fault::UnreadableFile { .. })
        ));
    }
}
