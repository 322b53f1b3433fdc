//! Declines every invitation but those to the admin room and to the room that takes its place, and forgets the rooms that the bot
//! has left: the SDK keeps what it knows of each in memory and on disk, and whoever invites the bot would add one each time.
//!
//! Invariant: a room is left by a plain request, never by the SDK, which leaves the rooms too that a room names as its
//! predecessors. Whoever invites the bot could name the admin room.

use std::collections::HashMap;

use matrix_sdk::{
    Room, RoomState,
    ruma::{OwnedRoomId, RoomId, api::client::membership::leave_room},
};
use matrix_sdk_base::RoomStateFilter;
use tracing::{debug, info};

use super::{Chain, Fault, Matrix};

impl Matrix {
    /// Works after each sync, beside the sync loop, one room at a time: whoever sends thousands of invitations waits. Never ends.
    pub(super) async fn decline_and_forget(&self) -> Fault {
        let unwanted = RoomStateFilter::INVITED | RoomStateFilter::LEFT | RoomStateFilter::BANNED;
        let mut synced = self.synced.subscribe();
        // The homeserver is asked once for each: the next sync takes the room from the list, or it will never be done.
        let mut settled: HashMap<OwnedRoomId, RoomState> = HashMap::new();
        while synced.changed().await.is_ok() {
            let successor = synced.borrow_and_update().clone();
            let Some(admin_room) = self.admin_room.expected() else {
                // An alias leads to it that cannot be looked up yet, so any invitation may be the one to it.
                continue;
            };
            let rooms = self.client.rooms_filtered(unwanted);
            settled.retain(|id, _| rooms.iter().any(|room| room.room_id() == id));
            for room in rooms {
                let id = room.room_id();
                let is_kept = id == admin_room || successor.as_deref() == Some(id);
                if is_kept || settled.get(id) == Some(&room.state()) {
                    continue;
                }
                if let Err(fault) = self.decline_or_forget(&room).await {
                    debug!(room = %id, error = %Chain(&fault), "room not left or not forgotten");
                    if fault.is_passing() || fault.is_logged_out() {
                        break;
                    }
                }
                settled.insert(id.to_owned(), room.state());
            }
        }
        Fault::Panicked
    }

    async fn decline_or_forget(&self, room: &Room) -> Result<(), Fault> {
        if room.state() != RoomState::Invited {
            return Ok(room.forget().await?);
        }
        let details = room.invite_details().await;
        let inviter = details.map_or_else(|_| "unknown".to_owned(), |it| it.inviter_id.to_string());
        self.leave(room.room_id()).await?;
        info!(room = %room.room_id(), %inviter, "invitation declined");
        Ok(())
    }

    /// Leaves a room, or declines the invitation to it, and nothing else.
    pub(super) async fn leave(&self, room: &RoomId) -> Result<(), Fault> {
        let request = leave_room::v3::Request::new(room.to_owned());
        self.client.send(request).await?;
        Ok(())
    }
}
