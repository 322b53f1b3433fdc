//! Who may command: a `Permit`, or `Denied` with the reason.
//!
//! Invariant: this is the only maker of a [`Permit`], and missing evidence means no.

use std::collections::BTreeSet;

use matrix_sdk::ruma::{
    OwnedUserId, UserId,
    events::room::{
        join_rules::JoinRule,
        member::MembershipState,
        power_levels::{RoomPowerLevels, UserPowerLevel},
    },
};

use crate::{
    config::{Config, Devices, RequireEncryptedCommands},
    matrix::{RoomFacts, Trust},
    remote_control::ProjectName,
};

/// What the configuration asks of a sender.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The power level that a sender needs in the admin room.
    pub power_level: i64,
    /// If not empty: only these, and still with the power level.
    pub users: BTreeSet<OwnedUserId>,
    /// Whose messages count.
    pub devices: Devices,
    /// Whether a command must have been encrypted.
    pub require_encrypted_commands: RequireEncryptedCommands,
}

impl Policy {
    /// What is asked of whoever commands a project or gets its link; without one, of whoever commands at all.
    #[must_use]
    pub fn of(config: &Config, project: Option<&ProjectName>) -> Self {
        let of_project = project
            .and_then(|name| config.projects.get(name))
            .and_then(|project| project.power_level);
        Self {
            power_level: of_project.unwrap_or(config.authorization.power_level),
            users: config.authorization.users.keys().cloned().collect(),
            devices: config.encryption.devices,
            require_encrypted_commands: config.encryption.require_encrypted_commands,
        }
    }
}

/// Proof that a requester may command, judged a moment ago. Made by [`authorize`] alone.
#[derive(Debug, PartialEq, Eq)]
pub struct Permit(OwnedUserId);

impl Permit {
    /// Who may command.
    #[must_use]
    pub fn requester(&self) -> &UserId {
        &self.0
    }
}

/// Why a sender may not command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// The user is not on the list `authorization.users`.
    NotListed,
    /// The user is not joined to the admin room.
    NotAMember,
    /// The user's power level is too low.
    PowerLevel {
        /// What the user has.
        has: i64,
        /// What the command needs.
        needs: i64,
    },
    /// Anybody can come into the admin room, and no list says who may command.
    PublicRoom,
    /// The level that everybody in the room has is enough, and no list says who may command.
    OpenToAllMembers {
        /// What everybody has, by `users_default` of the room's power levels.
        has: i64,
        /// What the command needs.
        needs: i64,
    },
    /// The command was not encrypted, and has to be.
    NotEncrypted,
    /// The command came from a device that its owner has not signed.
    UnsignedDevice,
    /// The user's identity is another one than before.
    IdentityChanged,
    /// Who encrypted the command cannot be told.
    UnknownDevice,
    /// The command was taken back.
    TakenBack,
    /// The same encrypted message was obeyed before.
    Replayed,
    /// The command has waited too long.
    TooOld,
    /// That the command is obeyed cannot be written down.
    NotRecorded,
    /// The homeserver did not tell all that the decision needs.
    NoFacts,
}

/// Decides about one command.
///
/// `facts` is what the homeserver says of the room *now*; `None` where it did not answer, or not with sense.
///
/// # Errors
/// [`Denied`], with the first reason that applies.
pub fn authorize(
    sender: &UserId,
    trust: Trust,
    facts: Option<&RoomFacts>,
    policy: &Policy,
) -> Result<Permit, Denied> {
    if !policy.users.is_empty() && !policy.users.contains(sender) {
        return Err(Denied::NotListed);
    }
    let facts = facts.ok_or(Denied::NoFacts)?;
    if facts.membership != MembershipState::Join {
        return Err(Denied::NotAMember);
    }
    let power_levels = facts.levels().ok_or(Denied::NoFacts)?;
    check_power_level(sender, &power_levels, policy.power_level)?;
    // Told only to those who have the level: nobody else can do anything about it.
    if policy.users.is_empty() {
        check_room(facts, &power_levels, policy.power_level)?;
    }
    check_trust(trust, facts.encrypted, policy)?;
    Ok(Permit(sender.to_owned()))
}

fn check_power_level(
    sender: &UserId,
    power_levels: &RoomPowerLevels,
    needs: i64,
) -> Result<(), Denied> {
    match power_levels.for_user(sender) {
        UserPowerLevel::Int(has) if i64::from(has) < needs => Err(Denied::PowerLevel {
            has: has.into(),
            needs,
        }),
        UserPowerLevel::Int(_) | UserPowerLevel::Infinite => Ok(()),
        // The enum is open: a kind of level that we do not know is none.
        _ => Err(Denied::NoFacts),
    }
}

/// Whether the room itself keeps others out. One that is public, or that gives the level to all, says nothing about who
/// its administrators trust.
fn check_room(facts: &RoomFacts, power_levels: &RoomPowerLevels, needs: i64) -> Result<(), Denied> {
    if facts.join_rule == JoinRule::Public {
        return Err(Denied::PublicRoom);
    }
    let has = i64::from(power_levels.users_default);
    if has >= needs {
        return Err(Denied::OpenToAllMembers { has, needs });
    }
    Ok(())
}

fn check_trust(trust: Trust, room_encrypted: bool, policy: &Policy) -> Result<(), Denied> {
    let encryption_needed = match policy.require_encrypted_commands {
        RequireEncryptedCommands::Always => true,
        RequireEncryptedCommands::Auto => room_encrypted,
        RequireEncryptedCommands::Never => false,
    };
    match (trust, policy.devices) {
        (Trust::Plaintext, _) if encryption_needed => Err(Denied::NotEncrypted),
        (Trust::Plaintext | Trust::CrossSigned, _) | (Trust::UnsignedDevice, Devices::Any) => {
            Ok(())
        }
        (Trust::Gone, _) => Err(Denied::TakenBack),
        (Trust::Replayed, _) => Err(Denied::Replayed),
        (Trust::TooOld, _) => Err(Denied::TooOld),
        (Trust::IdentityChanged, _) => Err(Denied::IdentityChanged),
        (Trust::UnknownDevice, _) => Err(Denied::UnknownDevice),
        (Trust::UnsignedDevice, Devices::CrossSigned) => Err(Denied::UnsignedDevice),
    }
}

#[cfg(test)]
mod tests;
