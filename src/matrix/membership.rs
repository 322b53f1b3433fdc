//! The bot's memberships: it joins the admin room, follows its upgrades, declines every other invitation, and forgets the rooms
//! that it has left. The SDK keeps its data of each room in memory and on disk, so each unwanted invitation would add to that.
//!
//! A tombstone is one event, and moves all power to another room. So its sender must have the power to command and to send it,
//! by the old room's current state on the homeserver: a user who was banned since, or has left, moves nothing. And the new room
//! must name the old one as its predecessor.
//!
//! Invariant: a room is left by a plain request, never by the SDK, which also leaves the rooms that a room names as its
//! predecessors. A user who invites the bot could name the admin room.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::pending,
    time::{Duration, SystemTime},
};

use matrix_sdk::{
    Room, RoomState,
    ruma::{
        MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, UserId,
        api::{client::membership::leave_room, error::ErrorKind},
        events::{StateEventType, room::tombstone::RoomTombstoneEventContent},
    },
    sync::RoomUpdates,
};
use matrix_sdk_base::RoomStateFilter;
use serde::Deserialize;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::{Chain, Fault, IncomingEvent, Matrix, NoPower, RoomFacts, facts::CurrentState};
use crate::config::Authorization;

/// The bot's avatar, unless it has another one. Drawn by `docs/avatar.py`.
const AVATAR: &[u8] = include_bytes!("avatar.png");

/// How long setting the bot's name and avatar may take: nothing depends on them.
const PROFILE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the sync loop, and with it each command in the old admin room, waits until the bot has joined the new one: the
/// homeserver may wait long for that of the new room.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct OwnMembership {
    origin_server_ts: MilliSecondsSinceUnixEpoch,
}

impl Matrix {
    /// Joins the admin room if that is possible now: the bot was invited, or anyone may join. False: a retry may work, even
    /// without an invitation.
    pub(super) async fn join_admin_room(&self) -> bool {
        let Some(id) = self.find_admin_room().await else {
            return false;
        };
        match self.client.get_room(&id).map(|room| room.state()) {
            Some(RoomState::Joined) => self.note_join(&id).await,
            // To the SDK, a room from which the bot is banned is one that it left.
            Some(RoomState::Invited | RoomState::Knocked | RoomState::Left | RoomState::Banned)
            | None => self.try_to_join(&id).await,
        }
    }

    /// Logs a warning if the configured alias no longer leads to the admin room, once, after the first sync. Beside the sync
    /// loop, as the homeserver may wait long for that of the alias. Never ends.
    pub(super) async fn compare_alias(&self) -> Infallible {
        // After the sync loop has ended, nothing is left to do.
        drop(self.synced.subscribe().changed().await);
        let alias = <&RoomAliasId>::try_from(self.admin_room.configured());
        if let (Some(id), Ok(alias)) = (self.admin_room.id(), alias) {
            self.compare(alias, &id).await;
        }
        pending().await
    }

    async fn compare(&self, alias: &RoomAliasId, id: &RoomId) {
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

    /// Sets the bot's name, and an avatar where it has none. The bot works without them.
    ///
    /// A change makes the bot's membership in all rooms look as if it had joined now, and messages from while it was away would
    /// be ignored. So in a room that it is in already, the time of its join has to be known before.
    pub(super) async fn set_profile(&self) {
        let (account, name) = (self.client.account(), self.config.display_name.as_str());
        let setting = async {
            let shown = tokio::join!(account.get_display_name(), account.get_avatar_url());
            if let Ok(shown) = shown.0
                && shown.as_deref() != Some(name)
                && let Err(error) = account.set_display_name(Some(name)).await
            {
                warn!(%error, "display name not set");
            }
            if let (Ok(None), Ok(png)) = (shown.1, "image/png".parse())
                && let Err(error) = account.upload_avatar(&png, AVATAR.to_vec()).await
            {
                warn!(%error, "avatar not set");
            }
        };
        if timeout(PROFILE_TIMEOUT, setting).await.is_err() {
            warn!("display name or avatar not set in time");
        }
    }

    /// When the bot joined the room of this state. `None`: it has not.
    fn own_join(&self, state: &CurrentState) -> Result<Option<SystemTime>, Fault> {
        let own = self.own_user().as_str();
        let membership: Option<OwnMembership> = state.event(StateEventType::RoomMember, own)?;
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
            // So says Synapse.
            Err(error) if error.client_api_error_kind() == Some(&ErrorKind::BadState) => {
                warn!(room = %id, bot = %self.own_user(), "banned from the admin room: unban the bot, and invite it again");
                true
            }
            Err(error) => {
                let fault = Fault::from(error);
                warn!(room = %id, error = %Chain(&fault), "cannot join the admin room yet");
                false
            }
        }
    }

    /// Records when the bot joined: joining a room again changes nothing. False: it is not known yet.
    async fn note_join(&self, id: &RoomId) -> bool {
        let state = CurrentState::of(&self.client, id).await;
        let entered = match state.and_then(|state| self.own_join(&state)) {
            Ok(Some(joined)) => self.admin_room.enter(id, joined),
            Ok(None) => return false,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = &entered {
            warn!(room = %id, error = %Chain(fault), "the bot's join to the admin room not noted yet");
        }
        entered.is_ok()
    }

    /// The room that the bot was in before, else the one that the configuration names; an alias is resolved once it exists.
    async fn find_admin_room(&self) -> Option<OwnedRoomId> {
        if let Some(id) = self.admin_room.expected() {
            return Some(id);
        }
        let alias = <&RoomAliasId>::try_from(self.admin_room.configured()).ok()?;
        match self.client.resolve_room_alias(alias).await {
            Ok(response) => Some(response.room_id),
            Err(error) => {
                warn!(%alias, error = %Chain(&error), "the admin room's alias cannot be looked up yet");
                None
            }
        }
    }
}

impl Matrix {
    /// Runs after each sync, beside the sync loop, one room at a time: a flood of invitations waits. Never ends.
    pub(super) async fn decline_and_forget(&self) -> Fault {
        let unwanted = RoomStateFilter::INVITED | RoomStateFilter::LEFT | RoomStateFilter::BANNED;
        let mut synced = self.synced.subscribe();
        // The homeserver is asked once for each: the next sync removes the room from the list, or a retry would not help.
        let mut settled: HashMap<OwnedRoomId, RoomState> = HashMap::new();
        while synced.changed().await.is_ok() {
            let successor = synced.borrow_and_update().clone();
            let Some(admin_room) = self.admin_room.expected() else {
                // The alias cannot be resolved yet, so any invitation may be to the admin room.
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

    /// Leaves only this room, or declines the invitation to it.
    pub(super) async fn leave(&self, room: &RoomId) -> Result<(), Fault> {
        let request = leave_room::v3::Request::new(room.to_owned());
        self.client.send(request).await?;
        Ok(())
    }
}

#[derive(Deserialize)]
struct Tombstone {
    sender: OwnedUserId,
    content: RoomTombstoneEventContent,
}

/// What the sync loop knows of upgrades.
#[derive(Debug, Default)]
pub(super) struct Upgrades {
    asked: Asked,
    /// The new room, or a candidate, for which the bot waits for an invitation.
    awaited: Option<OwnedRoomId>,
}

/// What the homeserver was asked about an upgrade of the admin room.
#[derive(Debug, Default, PartialEq, Eq)]
enum Asked {
    /// Nothing yet: it has to be asked whatever the SDK knows, as the bot may have been away.
    #[default]
    Nothing,
    /// It was asked when the SDK knew of this successor.
    About(Option<OwnedRoomId>),
}

/// Why a tombstone is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    /// Its sender may not command.
    NoPower(NoPower),
    /// Its sender may command, but not send a tombstone.
    MayNotSendIt,
    /// The new room does not name the old one, so its creator may have nothing to do with that.
    NotItsSuccessor,
    /// The old room is encrypted, so that commands had to be, and the new one is not.
    NotEncrypted,
}

/// Why the bot stays in the old room.
enum NotFollowed {
    Refused(Refusal),
    /// The bot is not invited to this room yet.
    NotInvited(OwnedRoomId),
    /// The homeserver cannot be asked yet.
    Fault(Fault),
    /// It does not join the new room in time. It may do so later.
    Slow,
}

impl<F: Into<Fault>> From<F> for NotFollowed {
    fn from(fault: F) -> Self {
        Self::Fault(fault.into())
    }
}

impl Upgrades {
    /// Follows an upgrade of the admin room. To be called after each sync. Returns the room, if any, that replaces it once the
    /// bot is in it.
    pub(super) async fn after_sync(
        &mut self,
        matrix: &Matrix,
        rooms: &RoomUpdates,
    ) -> Option<OwnedRoomId> {
        let is_synced = |room: &RoomId| rooms.joined.contains_key(room);
        if let Some(arrival) = matrix.admin_room.take_arrival(is_synced) {
            let arrived = IncomingEvent::InAdminRoom(arrival);
            matrix.inbox.hand_over(arrived).await;
        }
        let room = matrix.joined_admin_room().ok()?;
        let successor = room.successor_room().map(|successor| successor.room_id);
        let is_invited = self.awaited.is_some() && !rooms.invited.is_empty();
        let asked = Asked::About(successor.clone());
        if is_invited || self.asked != asked {
            self.asked = asked;
            self.check(matrix, &room, successor).await;
        }
        self.awaited.clone()
    }

    fn ask_again(&mut self, successor: Option<OwnedRoomId>) {
        self.asked = Asked::Nothing;
        self.awaited = successor;
    }

    async fn check(&mut self, matrix: &Matrix, room: &Room, successor: Option<OwnedRoomId>) {
        let old = room.room_id();
        self.awaited = None;
        match follow(matrix, room).await {
            Ok(None) => {}
            Ok(Some(new)) => {
                info!(from = %old, room = %new, "the admin room was upgraded, and the bot followed");
                // The new room may have been upgraded too.
                self.asked = Asked::Nothing;
            }
            Err(NotFollowed::Refused(reason)) => {
                warn!(room = %old, ?reason, "the upgrade of the admin room is not followed, it stays the admin room");
            }
            Err(NotFollowed::NotInvited(new)) => {
                warn!(room = %old, %new, bot = %matrix.own_user(), "the admin room was upgraded: invite the bot to the new room");
                self.awaited = Some(new);
            }
            Err(NotFollowed::Fault(fault)) => {
                warn!(room = %old, error = %Chain(&fault), "cannot tell yet whether the admin room was upgraded");
                self.ask_again(successor);
            }
            Err(NotFollowed::Slow) => {
                warn!(room = %old, "the homeserver does not join the new admin room in time, trying again");
                self.ask_again(successor);
            }
        }
    }
}

/// Makes the room that a tombstone names the admin room. `None`: there is no tombstone.
async fn follow(matrix: &Matrix, old: &Room) -> Result<Option<OwnedRoomId>, NotFollowed> {
    let client = &matrix.client;
    let state = CurrentState::of(client, old.room_id()).await?;
    let tombstone = state.event(StateEventType::RoomTombstone, "")?;
    let Some(Tombstone { sender, content }) = tombstone else {
        return Ok(None);
    };
    let was_encrypted = matrix.admin_room.was_encrypted() || old.encryption_state().is_encrypted();
    let facts = RoomFacts::of(&state, &sender, was_encrypted)?;
    may_move(&sender, &facts, &matrix.config.authorization).map_err(NotFollowed::Refused)?;
    let new = content.replacement_room;
    let was_joined = client.get_room(&new).map(|room| room.state()) == Some(RoomState::Joined);
    if !was_joined {
        // Room ids of version 12 name no server, so a server in the room is named too.
        let via = [sender.server_name().to_owned()];
        let joining = client.join_room_by_id_or_alias((&*new).into(), &via);
        let joined = timeout(JOIN_TIMEOUT, joining).await;
        if let Err(error) = joined.map_err(|_| NotFollowed::Slow)? {
            let fault = Fault::from(error);
            let may_pass = fault.is_passing() || fault.is_logged_out();
            return Err(if may_pass {
                NotFollowed::Fault(fault)
            } else {
                NotFollowed::NotInvited(new)
            });
        }
    }
    let entered = enter(matrix, (old, &facts), &new).await;
    if !was_joined && matches!(entered, Err(NotFollowed::Refused(_))) {
        matrix.leave(&new).await?;
    }
    entered.map(|()| Some(new))
}

/// Makes a joined room the admin room, if it replaces the old one.
async fn enter(
    matrix: &Matrix,
    (old, facts): (&Room, &RoomFacts),
    new: &RoomId,
) -> Result<(), NotFollowed> {
    let room = matrix.client.get_room(new).ok_or(Fault::NotInAdminRoom)?;
    let state = CurrentState::of(&matrix.client, new).await?;
    let predecessor = state.create()?.content.predecessor;
    if predecessor.is_none_or(|it| it.room_id != old.room_id()) {
        return Err(NotFollowed::Refused(Refusal::NotItsSuccessor));
    }
    let is_encrypted = state.is_encrypted() || room.encryption_state().is_encrypted();
    if facts.encrypted && !is_encrypted {
        return Err(NotFollowed::Refused(Refusal::NotEncrypted));
    }
    let joined = matrix.own_join(&state)?.ok_or(Fault::NotInAdminRoom)?;
    Ok(matrix.admin_room.enter(new, joined)?)
}

/// Whether a tombstone of this user moves the admin room. The power to send one is not enough: a room may give that to
/// moderators, and the creator of the new room has all power there.
fn may_move(
    sender: &UserId,
    facts: &RoomFacts,
    authorization: &Authorization,
) -> Result<(), Refusal> {
    let levels = facts.power_of(sender, authorization);
    let levels = levels.map_err(Refusal::NoPower)?;
    if levels.user_can_send_state(sender, StateEventType::RoomTombstone) {
        Ok(())
    } else {
        Err(Refusal::MayNotSendIt)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use matrix_sdk::ruma::{
        RoomVersionId,
        events::{
            TimelineEventType,
            room::{
                join_rules::JoinRule, member::MembershipState,
                power_levels::RoomPowerLevelsEventContent,
            },
        },
        owned_user_id, user_id,
    };

    use super::*;

    fn with_level(power_level: i64) -> Authorization {
        Authorization {
            power_level,
            users: BTreeMap::new(),
        }
    }

    /// A room with an administrator, a moderator, and a creator who is in no list.
    fn room(version: RoomVersionId, tombstone: Option<i32>) -> RoomFacts {
        let rules = version.rules().unwrap();
        let mut content = RoomPowerLevelsEventContent::new(&rules.authorization);
        content.users = [
            (owned_user_id!("@admin:x.y"), 100.into()),
            (owned_user_id!("@moderator:x.y"), 50.into()),
        ]
        .into();
        content.events.remove(&TimelineEventType::RoomTombstone);
        if let Some(level) = tombstone {
            content
                .events
                .insert(TimelineEventType::RoomTombstone, level.into());
        }
        RoomFacts {
            room_version: version,
            creators: vec![owned_user_id!("@creator:x.y")],
            power_levels: Some(Box::new(content)),
            join_rule: JoinRule::Invite,
            membership: MembershipState::Join,
            encrypted: true,
        }
    }

    #[test]
    fn only_power_to_command_and_to_send_a_tombstone_moves_the_admin_room() {
        let (admin, moderator, creator, member) = (
            user_id!("@admin:x.y"),
            user_id!("@moderator:x.y"),
            user_id!("@creator:x.y"),
            user_id!("@member:x.y"),
        );
        let (v10, v12) = (RoomVersionId::V10, RoomVersionId::V12);
        for (user, version, tombstone, needs, expected) in [
            (admin, &v10, None, 100, true),
            (admin, &v10, Some(100), 100, true),
            // The power to command may not be enough to send a tombstone.
            (admin, &v12, Some(150), 100, false),
            (creator, &v12, Some(150), 100, true),
            (creator, &v10, None, 100, false),
            // State events need 50 by default, and that is not enough to command.
            (moderator, &v10, None, 100, false),
            (moderator, &v10, None, 50, true),
            (moderator, &v10, Some(100), 50, false),
            (member, &v10, None, 100, false),
            (member, &v10, Some(0), 100, false),
            // A level that everybody has proves nothing.
            (member, &v10, Some(0), 0, false),
        ] {
            let facts = room(version.clone(), tombstone);
            let moves = may_move(user, &facts, &with_level(needs)).is_ok();
            assert_eq!(moves, expected, "{user} {version} {tombstone:?} {needs}");
        }
    }

    #[test]
    fn a_user_who_left_or_was_banned_moves_nothing_whatever_the_power_levels_say() {
        for membership in [MembershipState::Leave, MembershipState::Ban] {
            let mut facts = room(RoomVersionId::V12, None);
            facts.membership = membership;
            for user in [user_id!("@admin:x.y"), user_id!("@creator:x.y")] {
                let refusal = Refusal::NoPower(NoPower::NotAMember);
                assert_eq!(may_move(user, &facts, &with_level(100)), Err(refusal));
            }
        }
    }

    #[test]
    fn where_users_are_named_nobody_else_moves_the_room() {
        let facts = room(RoomVersionId::V12, None);
        let mut named = with_level(100);
        named.users.insert(owned_user_id!("@admin:x.y"), None);
        assert_eq!(may_move(user_id!("@admin:x.y"), &facts, &named), Ok(()));
        let refusal = Refusal::NoPower(NoPower::NotListed);
        assert_eq!(
            may_move(user_id!("@creator:x.y"), &facts, &named),
            Err(refusal)
        );
    }

    #[test]
    fn a_room_of_an_unknown_version_is_moved_by_nobody() {
        let mut facts = room(RoomVersionId::V12, None);
        facts.room_version = RoomVersionId::try_from("org.example.unknown").unwrap();
        let refusal = Refusal::NoPower(NoPower::UnknownVersion);
        let creator = user_id!("@creator:x.y");
        assert_eq!(may_move(creator, &facts, &with_level(0)), Err(refusal));
    }
}
