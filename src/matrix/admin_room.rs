//! The admin room: which one it is stands in `which`, and `join` gets the bot into it.
//!
//! Invariant: nothing here knows commands or who may give them.

mod join;
mod which;

use matrix_sdk::{Room, RoomState};

pub(super) use which::AdminRoom;

use super::{Fault, Matrix};

impl Matrix {
    pub(super) fn joined_admin_room(&self) -> Result<Room, Fault> {
        let room = self
            .admin_room
            .id()
            .and_then(|id| self.client.get_room(&id));
        let room = room.filter(|room| room.state() == RoomState::Joined);
        room.ok_or(Fault::NotInAdminRoom)
    }
}
