//! Who may command: a `Permit`, or `Denied` with the reason.
//!
//! Invariant: this is the only maker of a [`Permit`], and missing evidence means no.

use std::collections::BTreeSet;

use matrix_sdk::ruma::{
    OwnedUserId, UserId,
    events::room::{
        member::MembershipState,
        power_levels::{RoomPowerLevels, RoomPowerLevelsSource, UserPowerLevel},
    },
};

use crate::{
    config::{Devices, RequireEncryptedCommands},
    matrix::{PowerLevels, RoomFacts, Trust},
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
    /// The command was not encrypted, and has to be.
    NotEncrypted,
    /// The command came from a device that its owner has not signed.
    UnsignedDevice,
    /// The user's identity is another one than before.
    IdentityChanged,
    /// Who encrypted the command cannot be told.
    UnknownDevice,
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
    check_power_level(sender, facts, policy.power_level)?;
    check_trust(trust, facts.encrypted, policy)?;
    Ok(Permit(sender.to_owned()))
}

fn check_power_level(sender: &UserId, facts: &RoomFacts, needs: i64) -> Result<(), Denied> {
    let rules = facts.room_version.rules().ok_or(Denied::NoFacts)?;
    let source = match &facts.power_levels {
        PowerLevels::Event(content) => RoomPowerLevelsSource::Original((**content).clone()),
        // The homeserver says that there is no such event: the specification's defaults hold.
        PowerLevels::Absent => RoomPowerLevelsSource::None,
    };
    let power_levels = RoomPowerLevels::new(source, &rules.authorization, facts.creators.clone());
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
        (Trust::IdentityChanged, _) => Err(Denied::IdentityChanged),
        (Trust::UnknownDevice, _) => Err(Denied::UnknownDevice),
        (Trust::UnsignedDevice, Devices::CrossSigned) => Err(Denied::UnsignedDevice),
    }
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::{
        Int, RoomVersionId, events::room::power_levels::RoomPowerLevelsEventContent, owned_user_id,
        user_id,
    };

    use super::*;

    fn alice() -> &'static UserId {
        user_id!("@alice:example.org")
    }

    fn policy() -> Policy {
        Policy {
            power_level: 100,
            users: BTreeSet::new(),
            devices: Devices::CrossSigned,
            require_encrypted_commands: RequireEncryptedCommands::Auto,
        }
    }

    fn facts(room_version: RoomVersionId, levels: Option<&[(&UserId, i32)]>) -> RoomFacts {
        let rules = room_version.rules().unwrap();
        let power_levels = levels.map_or(PowerLevels::Absent, |levels| {
            let mut content = RoomPowerLevelsEventContent::new(&rules.authorization);
            content.users = levels
                .iter()
                .map(|(user, level)| ((*user).to_owned(), Int::from(*level)))
                .collect();
            PowerLevels::Event(Box::new(content))
        });
        RoomFacts {
            room_version,
            creators: vec![owned_user_id!("@creator:example.org")],
            power_levels,
            membership: MembershipState::Join,
            encrypted: true,
        }
    }

    fn decide(sender: &UserId, facts: &RoomFacts) -> Result<(), Denied> {
        authorize(sender, Trust::CrossSigned, Some(facts), &policy()).map(|_| ())
    }

    #[test]
    fn the_power_level_of_the_room_decides() {
        let facts = facts(
            RoomVersionId::V10,
            Some(&[(alice(), 100), (user_id!("@bob:example.org"), 99)]),
        );
        assert_eq!(decide(alice(), &facts), Ok(()));
        for (user, has) in [
            (user_id!("@bob:example.org"), 99),
            (user_id!("@carol:example.org"), 0),
        ] {
            assert_eq!(
                decide(user, &facts),
                Err(Denied::PowerLevel { has, needs: 100 })
            );
        }
    }

    #[test]
    fn a_creator_of_version_12_has_infinite_power_and_stands_in_no_list() {
        let creator = user_id!("@creator:example.org");
        assert_eq!(
            decide(creator, &facts(RoomVersionId::V12, Some(&[]))),
            Ok(())
        );
        assert_eq!(
            decide(creator, &facts(RoomVersionId::V11, Some(&[]))),
            Err(Denied::PowerLevel { has: 0, needs: 100 }),
            "before version 12 a list without the creator takes the power away"
        );
    }

    #[test]
    fn without_a_power_levels_event_the_defaults_of_the_specification_hold() {
        let facts = facts(RoomVersionId::V10, None);
        assert_eq!(decide(user_id!("@creator:example.org"), &facts), Ok(()));
        assert_eq!(
            decide(alice(), &facts),
            Err(Denied::PowerLevel { has: 0, needs: 100 })
        );
    }

    #[test]
    fn missing_facts_mean_no() {
        assert_eq!(
            authorize(alice(), Trust::CrossSigned, None, &policy()),
            Err(Denied::NoFacts)
        );
        let mut unknown_version = facts(RoomVersionId::V10, Some(&[(alice(), 100)]));
        unknown_version.room_version = RoomVersionId::try_from("org.example.unknown").unwrap();
        assert_eq!(decide(alice(), &unknown_version), Err(Denied::NoFacts));
    }

    #[test]
    fn who_has_left_may_not_command() {
        for membership in [
            MembershipState::Leave,
            MembershipState::Ban,
            MembershipState::Invite,
        ] {
            let mut facts = facts(RoomVersionId::V10, Some(&[(alice(), 100)]));
            facts.membership = membership;
            assert_eq!(decide(alice(), &facts), Err(Denied::NotAMember));
        }
    }

    #[test]
    fn a_list_of_users_narrows_and_never_widens() {
        let mut policy = policy();
        policy.users.insert(alice().to_owned());
        let facts = facts(
            RoomVersionId::V10,
            Some(&[(user_id!("@bob:example.org"), 100)]),
        );
        let decide = |user| authorize(user, Trust::CrossSigned, Some(&facts), &policy).map(|_| ());
        assert_eq!(decide(user_id!("@bob:example.org")), Err(Denied::NotListed));
        assert_eq!(
            decide(alice()),
            Err(Denied::PowerLevel { has: 0, needs: 100 })
        );
    }

    #[test]
    fn how_a_command_was_encrypted_decides_as_configured() {
        use Devices::{Any, CrossSigned};
        use RequireEncryptedCommands::{Always, Auto, Never};
        let ok = Ok(());
        for (trust, room_encrypted, devices, require, expected) in [
            (Trust::CrossSigned, true, CrossSigned, Auto, ok.clone()),
            (
                Trust::UnsignedDevice,
                true,
                CrossSigned,
                Auto,
                Err(Denied::UnsignedDevice),
            ),
            (Trust::UnsignedDevice, true, Any, Auto, ok.clone()),
            (
                Trust::UnsignedDevice,
                true,
                CrossSigned,
                Never,
                Err(Denied::UnsignedDevice),
            ),
            (
                Trust::IdentityChanged,
                true,
                Any,
                Never,
                Err(Denied::IdentityChanged),
            ),
            (
                Trust::UnknownDevice,
                true,
                Any,
                Never,
                Err(Denied::UnknownDevice),
            ),
            (
                Trust::Plaintext,
                true,
                CrossSigned,
                Auto,
                Err(Denied::NotEncrypted),
            ),
            (Trust::Plaintext, true, CrossSigned, Never, ok.clone()),
            (Trust::Plaintext, false, CrossSigned, Auto, ok),
            (
                Trust::Plaintext,
                false,
                CrossSigned,
                Always,
                Err(Denied::NotEncrypted),
            ),
        ] {
            let mut facts = facts(RoomVersionId::V10, Some(&[(alice(), 100)]));
            facts.encrypted = room_encrypted;
            let policy = Policy {
                devices,
                require_encrypted_commands: require,
                ..policy()
            };
            let decision = authorize(alice(), trust, Some(&facts), &policy).map(|_| ());
            assert_eq!(
                decision, expected,
                "{trust:?} {room_encrypted} {devices:?} {require:?}"
            );
        }
    }
}
