//! Follows the admin room when it is upgraded: a tombstone in it names the room that takes its place.
//!
//! A tombstone is one event, and moves all power to another room. So its sender must be one who may command and may send it, by
//! the old room's state as the homeserver gives it now: who was banned since, or has left, moves nothing. And the new room must
//! name the old one as its predecessor.

use matrix_sdk::{
    Room, RoomState,
    ruma::{
        OwnedRoomId, OwnedUserId, RoomId, UserId,
        events::{StateEventType, room::tombstone::RoomTombstoneEventContent},
    },
    sync::SyncResponse,
};
use serde::Deserialize;
use tracing::{info, warn};

use super::{
    Chain, Fault, Heard, Matrix, NoPower, RoomFacts,
    facts::{create_event, facts, is_encrypted, state_event},
};
use crate::config::Authorization;

#[derive(Deserialize)]
struct Tombstone {
    sender: OwnedUserId,
    content: RoomTombstoneEventContent,
}

/// What the sync loop knows of upgrades.
#[derive(Debug, Default)]
pub(super) struct Upgrades {
    asked: Asked,
    /// The room to go to once the bot is invited there, or that may be such a one.
    awaited: Option<OwnedRoomId>,
    /// The new admin room, until a sync has brought it and it can be spoken to.
    arriving: Option<OwnedRoomId>,
}

/// What the homeserver was asked of the admin room's upgrade.
#[derive(Debug, Default, PartialEq, Eq)]
enum Asked {
    /// Nothing yet: it is to be asked whatever the SDK knows, as the bot may have been away.
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
    /// Its sender may command, and not send a tombstone.
    MayNotSendIt,
    /// The new room says nothing of the old one, so whoever made it may have nothing to do with that.
    NotItsSuccessor,
    /// The old room is encrypted, and commands had to be.
    NotEncrypted,
}

/// What keeps the bot in the old room.
enum Stays {
    /// For good.
    Refused(Refusal),
    /// Until it is invited to this room.
    NotInvited(OwnedRoomId),
    /// Until the homeserver can be asked.
    Fault(Fault),
}

impl<F: Into<Fault>> From<F> for Stays {
    fn from(fault: F) -> Self {
        Self::Fault(fault.into())
    }
}

impl Upgrades {
    /// Follows the admin room if it was upgraded. To be called after each sync. Gives back the room, if any, that takes its place
    /// once the bot is in it.
    pub(super) async fn after_sync(
        &mut self,
        matrix: &Matrix,
        answer: &SyncResponse,
    ) -> Option<OwnedRoomId> {
        let has_arrived = |room: &mut OwnedRoomId| answer.rooms.joined.contains_key(room);
        if self.arriving.take_if(has_arrived).is_some() {
            matrix.inbox.hand_over(Heard::AdminRoomMoved).await;
        }
        let room = matrix.joined_admin_room().ok()?;
        let successor = room.successor_room().map(|successor| successor.room_id);
        let is_invited = self.awaited.is_some() && !answer.rooms.invited.is_empty();
        let asked = Asked::About(successor.clone());
        if is_invited || self.asked != asked {
            self.asked = asked;
            self.look(matrix, &room, successor).await;
        }
        self.awaited.clone()
    }

    async fn look(&mut self, matrix: &Matrix, room: &Room, successor: Option<OwnedRoomId>) {
        let old = room.room_id();
        self.awaited = None;
        match follow(matrix, room).await {
            Ok(None) => {}
            Ok(Some(new)) => {
                info!(from = %old, room = %new, "the admin room was upgraded, and the bot followed");
                self.arriving = Some(new);
                // The new room may have been upgraded too.
                self.asked = Asked::Nothing;
            }
            Err(Stays::Refused(reason)) => {
                warn!(room = %old, ?reason, "the upgrade of the admin room is not followed, it stays the admin room");
            }
            Err(Stays::NotInvited(new)) => {
                warn!(room = %old, %new, bot = %matrix.own_user(), "the admin room was upgraded: invite the bot to the new room");
                self.awaited = Some(new);
            }
            Err(Stays::Fault(fault)) => {
                warn!(room = %old, error = %Chain(&fault), "cannot tell yet whether the admin room was upgraded");
                self.asked = Asked::Nothing;
                self.awaited = successor;
            }
        }
    }
}

/// Makes the room that a tombstone names the admin room. `None`: there is no tombstone.
async fn follow(matrix: &Matrix, old: &Room) -> Result<Option<OwnedRoomId>, Stays> {
    let (client, kind) = (&matrix.client, StateEventType::RoomTombstone);
    let tombstone = state_event(client, old.room_id(), kind, "").await?;
    let Some(Tombstone { sender, content }) = tombstone else {
        return Ok(None);
    };
    let facts = facts(old, &sender).await?;
    may_move(&sender, &facts, &matrix.config.authorization).map_err(Stays::Refused)?;
    let new = content.replacement_room;
    let was_joined = client.get_room(&new).map(|room| room.state()) == Some(RoomState::Joined);
    if !was_joined {
        // Room ids of version 12 name no server, so one that is in the room is named besides.
        let via = [sender.server_name().to_owned()];
        if let Err(error) = client.join_room_by_id_or_alias((&*new).into(), &via).await {
            let fault = Fault::from(error);
            let may_pass = fault.is_passing() || fault.is_logged_out();
            return Err(if may_pass {
                Stays::Fault(fault)
            } else {
                Stays::NotInvited(new)
            });
        }
    }
    let entered = enter(matrix, old, &new).await;
    if !was_joined && matches!(entered, Err(Stays::Refused(_))) {
        matrix.leave(&new).await?;
    }
    entered.map(|()| Some(new))
}

/// Makes a room that the bot is in the admin room, if it takes the old one's place.
async fn enter(matrix: &Matrix, old: &Room, new: &RoomId) -> Result<(), Stays> {
    let room = matrix.client.get_room(new).ok_or(Fault::NotInAdminRoom)?;
    let predecessor = create_event(&room).await?.content.predecessor;
    if predecessor.is_none_or(|it| it.room_id != old.room_id()) {
        return Err(Stays::Refused(Refusal::NotItsSuccessor));
    }
    let was_encrypted = matrix.admin_room.was_encrypted() || is_encrypted(old).await?;
    if was_encrypted && !is_encrypted(&room).await? {
        return Err(Stays::Refused(Refusal::NotEncrypted));
    }
    let joined = matrix.own_join(new).await?.ok_or(Fault::NotInAdminRoom)?;
    Ok(matrix.admin_room.enter(new, joined)?)
}

/// Whether a tombstone of this user moves the admin room. The power to send one is not enough: a room may give that to
/// moderators, and whoever makes the new room has all power there.
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

    /// A room with an administrator, a moderator, and a creator who stands in no list.
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
    fn only_who_may_send_a_tombstone_and_command_moves_the_admin_room() {
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
            // Who may command may not always send a tombstone.
            (admin, &v12, Some(150), 100, false),
            (creator, &v12, Some(150), 100, true),
            (creator, &v10, None, 100, false),
            // State events need 50 where nothing else is said, and that is not enough to command.
            (moderator, &v10, None, 100, false),
            (moderator, &v10, None, 50, true),
            (moderator, &v10, Some(100), 50, false),
            (member, &v10, None, 100, false),
            (member, &v10, Some(0), 100, false),
            // A level that everybody has says nothing.
            (member, &v10, Some(0), 0, false),
        ] {
            let facts = room(version.clone(), tombstone);
            let moves = may_move(user, &facts, &with_level(needs)).is_ok();
            assert_eq!(moves, expected, "{user} {version} {tombstone:?} {needs}");
        }
    }

    #[test]
    fn who_has_left_or_was_banned_moves_nothing_whatever_the_power_levels_say() {
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
