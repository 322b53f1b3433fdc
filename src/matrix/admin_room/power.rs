//! Who has power over the admin room: the one rule for those who command in it and those who move it.
//!
//! Missing evidence means no.

use matrix_sdk::ruma::{
    UserId,
    events::room::{
        join_rules::JoinRule,
        member::MembershipState,
        power_levels::{RoomPowerLevels, UserPowerLevel},
    },
};

use super::RoomFacts;
use crate::config::Authorization;

/// Why a user has no power over the admin room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoPower {
    /// The user is not on the list `authorization.users`.
    NotListed,
    /// The user is not joined to the room.
    NotAMember,
    /// The user's power level is too low.
    PowerLevel {
        /// What the user has.
        has: i64,
        /// What is needed.
        needs: i64,
    },
    /// Others can join the room without an invitation, and no list names those who have power.
    NotInviteOnly {
        /// The room's join rule.
        join_rule: String,
    },
    /// The level that everybody in the room has is enough, and no list names those who have power.
    OpenToAllMembers {
        /// What everybody has, by `users_default` of the room's power levels.
        has: i64,
        /// What is needed.
        needs: i64,
    },
    /// The bot does not know rooms of this version.
    UnknownVersion,
}

impl RoomFacts {
    /// The room's power levels, if they and the configuration give this user power over the room. `self` is what the
    /// homeserver says of the room and of this user.
    ///
    /// # Errors
    /// [`NoPower`], with the first reason that applies.
    pub fn power_of(
        &self,
        user: &UserId,
        authorization: &Authorization,
    ) -> Result<RoomPowerLevels, NoPower> {
        let needs = authorization.power_level;
        if !authorization.lets(user) {
            return Err(NoPower::NotListed);
        }
        // Neither a ban nor leaving takes anybody out of the power levels.
        if self.membership != MembershipState::Join {
            return Err(NoPower::NotAMember);
        }
        let levels = self.levels().ok_or(NoPower::UnknownVersion)?;
        match levels.for_user(user) {
            UserPowerLevel::Int(has) if i64::from(has) < needs => {
                let has = has.into();
                return Err(NoPower::PowerLevel { has, needs });
            }
            UserPowerLevel::Int(_) | UserPowerLevel::Infinite => {}
            // The enum is open: a kind of level that we do not know is none.
            _ => return Err(NoPower::UnknownVersion),
        }
        // Told only to those who have the level: nobody else can do anything about it.
        if authorization.users.is_empty() {
            self.keeps_others_out(&levels, needs)?;
        }
        Ok(levels)
    }

    /// A room that people join without an invitation, or that gives the level to all, says nothing about whom its
    /// administrators trust.
    fn keeps_others_out(&self, levels: &RoomPowerLevels, needs: i64) -> Result<(), NoPower> {
        // Knocking asks for an invitation. Whoever is in a space may come into a restricted room, and a space may be public.
        if !matches!(
            self.join_rule,
            JoinRule::Invite | JoinRule::Knock | JoinRule::Private
        ) {
            let join_rule = self.join_rule.as_str().to_owned();
            return Err(NoPower::NotInviteOnly { join_rule });
        }
        let has = i64::from(levels.users_default);
        if has >= needs {
            return Err(NoPower::OpenToAllMembers { has, needs });
        }
        Ok(())
    }
}
