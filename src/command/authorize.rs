//! Who may command: a `Permit`, or `Denied` with the reason.
//!
//! Invariant: this is the only maker of a [`Permit`], and missing evidence means no.

use matrix_sdk::ruma::{OwnedUserId, UserId};

use crate::{
    config::{Authorization, Config, ConfiguredProject, Devices, RequireEncryptedCommands},
    matrix::{NoPower, RoomFacts, Trust},
    remote_control::Start,
};

/// A power level that nobody has: the highest that Matrix knows.
pub(crate) const NOBODY: i64 = (1 << 53) - 1;

/// What the configuration requires of a sender.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) authorization: Authorization,
    pub(crate) devices: Devices,
    pub(crate) require_encrypted_commands: RequireEncryptedCommands,
}

impl Policy {
    /// What is required of a user who gives a command about no project.
    pub(crate) fn of_no_project(config: &Config) -> Self {
        Self::with_level(config, config.authorization.power_level)
    }

    /// What is required of a user who commands a project or gets its link. `None`: it left the configuration or its root.
    pub(crate) fn of_project(config: &Config, project: Option<&ConfiguredProject>) -> Self {
        let level = match project {
            Some(project) => project.power_level,
            None => Some(config.power_level_of_unknown()),
        };
        Self::with_level(config, level.unwrap_or(config.authorization.power_level))
    }

    /// What is required of a user who starts such a session of a project, or gets its link: also the level of its options, or
    /// [`NOBODY`] where they are not allowed any more.
    pub(crate) fn of_session(
        config: &Config,
        project: Option<&ConfiguredProject>,
        start: &Start,
    ) -> Self {
        let mut policy = Self::of_project(config, project);
        let level = &mut policy.authorization.power_level;
        if let Some(configured) = project {
            let of_options = configured.project.settings.level(start);
            let of_options = of_options.unwrap_or(Some(NOBODY)).unwrap_or(*level);
            *level = (*level).max(of_options);
        }
        policy
    }

    /// What any command requires: an invalid one is about no known project.
    pub(crate) fn of_any(config: &Config) -> Self {
        Self::with_level(config, config.least_power_level())
    }

    fn with_level(config: &Config, power_level: i64) -> Self {
        let authorization = Authorization {
            power_level,
            ..config.authorization.clone()
        };
        Self {
            authorization,
            devices: config.encryption.devices,
            require_encrypted_commands: config.encryption.require_encrypted_commands,
        }
    }
}

/// Proof that a requester may command, judged a moment ago. Made by [`authorize`] only.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Permit {
    requester: OwnedUserId,
    power_level: i64,
}

impl Permit {
    pub(crate) fn requester(&self) -> &UserId {
        &self.requester
    }

    /// The power level that was required of them.
    pub(crate) fn power_level(&self) -> i64 {
        self.power_level
    }
}

/// Why a sender may not command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denied {
    NoPower(NoPower),
    NotEncrypted,
    UnsignedDevice,
    /// The user's identity is not the pinned one.
    IdentityChanged,
    UnknownDevice,
    /// The command was redacted, or the homeserver shows another event in its place.
    Redacted,
    Replayed,
    TooOld,
    /// The record of executed commands cannot be written.
    NotRecorded,
    /// The homeserver did not give all the facts: the first request that failed, if one did.
    NoFacts(Option<String>),
}

/// `facts` is what the homeserver says of the room *now*.
pub(crate) fn authorize(
    sender: &UserId,
    trust: Trust,
    facts: &RoomFacts,
    policy: &Policy,
) -> Result<Permit, Denied> {
    let power = facts.power_of(sender, &policy.authorization);
    power.map_err(Denied::NoPower)?;
    check_trust(trust, facts.encrypted, policy)?;
    Ok(Permit {
        requester: sender.to_owned(),
        power_level: policy.authorization.power_level,
    })
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
        (Trust::Gone, _) => Err(Denied::Redacted),
        (Trust::Replayed, _) => Err(Denied::Replayed),
        (Trust::TooOld, _) => Err(Denied::TooOld),
        (Trust::IdentityChanged, _) => Err(Denied::IdentityChanged),
        (Trust::UnknownDevice, _) => Err(Denied::UnknownDevice),
        (Trust::UnsignedDevice, Devices::CrossSigned) => Err(Denied::UnsignedDevice),
    }
}

#[cfg(test)]
mod tests;
