//! Gets the bot into the admin room.

use std::time::SystemTime;

use matrix_sdk::{
    RoomState,
    ruma::{
        MilliSecondsSinceUnixEpoch, OwnedRoomId, RoomAliasId, RoomId, api::error::ErrorKind,
        events::StateEventType,
    },
};
use serde::Deserialize;
use tracing::{debug, info, warn};

use crate::matrix::{Chain, Fault, Matrix, facts::state_event};

#[derive(Deserialize)]
struct OwnMembership {
    origin_server_ts: MilliSecondsSinceUnixEpoch,
}

impl Matrix {
    /// Joins the admin room if that is possible now: the bot was invited, or anyone may join. False: it may work later
    /// without anybody inviting the bot.
    pub(in crate::matrix) async fn join_admin_room(&self) -> bool {
        let Some(id) = self.find_admin_room().await else {
            return false;
        };
        match self.client.get_room(&id).map(|room| room.state()) {
            Some(RoomState::Joined) => self.note_join(&id).await,
            Some(RoomState::Banned) => {
                warn!(room = %id, "banned from the admin room");
                true
            }
            Some(RoomState::Invited | RoomState::Knocked | RoomState::Left) | None => {
                self.try_to_join(&id).await
            }
        }
    }

    /// Says so in the log if the configured alias no longer leads to the admin room.
    pub(in crate::matrix) async fn compare_alias(&self) {
        let Some(id) = self.admin_room.id() else {
            return;
        };
        let Ok(alias) = <&RoomAliasId>::try_from(self.admin_room.configured()) else {
            return;
        };
        match self.client.resolve_room_alias(alias).await {
            Ok(response) if response.room_id == id => {}
            Ok(response) => warn!(
                %alias, leads_to = %response.room_id, admin_room = %id,
                "the admin room's alias leads to another room now, where the bot does not follow it: if it should, name \
                 that room's id in the configuration"
            ),
            Err(error) => debug!(%alias, %error, "the admin room's alias cannot be looked up"),
        }
    }

    /// When the bot joined a room, as the homeserver has it. `None`: it has not.
    pub(in crate::matrix) async fn own_join(
        &self,
        id: &RoomId,
    ) -> Result<Option<SystemTime>, Fault> {
        let own = self.own_user().as_str();
        let kind = StateEventType::RoomMember;
        let membership: Option<OwnMembership> = state_event(&self.client, id, kind, own).await?;
        Ok(membership.and_then(|it| it.origin_server_ts.to_system_time()))
    }

    async fn try_to_join(&self, id: &RoomId) -> bool {
        match self.client.join_room_by_id(id).await {
            Ok(_) => {
                info!(room = %id, "joined the admin room");
                self.note_join(id).await
            }
            Err(error) if error.client_api_error_kind() == Some(&ErrorKind::Forbidden) => {
                info!(room = %id, bot = %self.own_user(), "waiting for an invitation to the admin room");
                true
            }
            Err(error) => {
                let fault = Fault::from(error);
                warn!(room = %id, error = %Chain(&fault), "cannot join the admin room yet");
                false
            }
        }
    }

    /// Notes when the bot joined: joining a room that one is in already changes nothing. False: it is not known yet.
    async fn note_join(&self, id: &RoomId) -> bool {
        let entered = match self.own_join(id).await {
            Ok(Some(joined)) => self.admin_room.enter(id, joined),
            Ok(None) => return false,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = &entered {
            warn!(room = %id, error = %Chain(fault), "the bot's join to the admin room not noted yet");
        }
        entered.is_ok()
    }

    /// The room that the bot was in before, else the one that the configuration names; an alias is looked up once it exists.
    async fn find_admin_room(&self) -> Option<OwnedRoomId> {
        if let Some(id) = self.admin_room.id() {
            return Some(id);
        }
        match <&RoomId>::try_from(self.admin_room.configured()) {
            Ok(id) => Some(id.to_owned()),
            Err(alias) => match self.client.resolve_room_alias(alias).await {
                Ok(response) => Some(response.room_id),
                Err(error) => {
                    let fault = Fault::from(error);
                    warn!(%alias, error = %Chain(&fault), "the admin room's alias cannot be looked up yet");
                    None
                }
            },
        }
    }
}
