//! Each reason to refuse, and what is not one.

use std::{collections::BTreeMap, path::Path};

use matrix_sdk::ruma::{
    Int, RoomVersionId,
    events::room::{
        join_rules::{JoinRule, Restricted},
        member::MembershipState,
        power_levels::RoomPowerLevelsEventContent,
    },
    owned_user_id, user_id,
};

use super::*;
use crate::remote_control::{Beginning, Options};

fn alice() -> &'static UserId {
    user_id!("@alice:example.org")
}

fn bob() -> &'static UserId {
    user_id!("@bob:example.org")
}

fn creator() -> &'static UserId {
    user_id!("@creator:example.org")
}

fn too_low(has: i64) -> Result<(), Denied> {
    Err(Denied::NoPower(NoPower::PowerLevel { has, needs: 100 }))
}

fn policy() -> Policy {
    Policy {
        authorization: Authorization {
            power_level: 100,
            users: BTreeMap::new(),
        },
        devices: Devices::CrossSigned,
        require_encrypted_commands: RequireEncryptedCommands::Auto,
    }
}

fn facts(room_version: RoomVersionId, levels: Option<&[(&UserId, i32)]>) -> RoomFacts {
    let rules = room_version.rules().unwrap();
    let power_levels = levels.map(|levels| {
        let mut content = RoomPowerLevelsEventContent::new(&rules.authorization);
        content.users = levels
            .iter()
            .map(|(user, level)| ((*user).to_owned(), Int::from(*level)))
            .collect();
        Box::new(content)
    });
    RoomFacts {
        room_version,
        creators: vec![owned_user_id!("@creator:example.org")],
        power_levels,
        join_rule: JoinRule::Invite,
        membership: MembershipState::Join,
        encrypted: true,
    }
}

fn decide_by(policy: &Policy, sender: &UserId, facts: &RoomFacts) -> Result<(), Denied> {
    authorize(sender, Trust::CrossSigned, facts, policy).map(drop)
}

fn decide(sender: &UserId, facts: &RoomFacts) -> Result<(), Denied> {
    decide_by(&policy(), sender, facts)
}

/// With a list of users that has only Alice.
fn decide_listed(sender: &UserId, facts: &RoomFacts) -> Result<(), Denied> {
    let mut policy = policy();
    policy.authorization.users.insert(alice().to_owned(), None);
    decide_by(&policy, sender, facts)
}

#[test]
fn the_power_level_of_the_room_decides() {
    let levels: &[_] = &[(alice(), 100), (bob(), 99)];
    let facts = facts(RoomVersionId::V10, Some(levels));
    assert_eq!(decide(alice(), &facts), Ok(()));
    assert_eq!(decide(bob(), &facts), too_low(99));
    assert_eq!(decide(user_id!("@carol:example.org"), &facts), too_low(0));
}

#[test]
fn a_creator_of_version_12_has_infinite_power_and_stands_in_no_list() {
    let decide_in = |version| decide(creator(), &facts(version, Some(&[])));
    assert_eq!(decide_in(RoomVersionId::V12), Ok(()));
    assert_eq!(
        decide_in(RoomVersionId::V11),
        too_low(0),
        "before version 12 a list without the creator takes the power away"
    );
}

#[test]
fn a_room_that_is_not_invite_only_is_refused_unless_the_users_are_listed() {
    let mut facts = facts(RoomVersionId::V12, Some(&[(alice(), 100)]));
    for rule in [JoinRule::Invite, JoinRule::Private, JoinRule::Knock] {
        facts.join_rule = rule;
        assert_eq!(decide(alice(), &facts), Ok(()));
    }
    let custom = serde_json::json!({ "join_rule": "org.example.open" });
    for rule in [
        JoinRule::Public,
        JoinRule::Restricted(Restricted::default()),
        JoinRule::KnockRestricted(Restricted::default()),
        serde_json::from_value(custom).unwrap(),
    ] {
        let join_rule = rule.as_str().to_owned();
        facts.join_rule = rule;
        for user in [alice(), creator()] {
            let join_rule = join_rule.clone();
            let denied = Denied::NoPower(NoPower::NotInviteOnly { join_rule });
            assert_eq!(decide(user, &facts), Err(denied));
        }
        assert_eq!(
            decide(bob(), &facts),
            too_low(0),
            "a user without the level learns nothing of the room"
        );
        assert_eq!(decide_listed(alice(), &facts), Ok(()));
        let denied = Denied::NoPower(NoPower::NotListed);
        assert_eq!(decide_listed(creator(), &facts), Err(denied));
    }
}

#[test]
fn a_room_that_gives_the_level_to_all_is_refused_unless_the_users_are_listed() {
    for version in [RoomVersionId::V11, RoomVersionId::V12] {
        let mut facts = facts(version, Some(&[(alice(), 100)]));
        let set_default = |facts: &mut RoomFacts, level: i32| {
            if let Some(content) = &mut facts.power_levels {
                content.users_default = level.into();
            }
        };
        set_default(&mut facts, 99);
        assert_eq!(decide(alice(), &facts), Ok(()));
        set_default(&mut facts, 100);
        for user in [alice(), bob()] {
            let open = Denied::NoPower(NoPower::OpenToAllMembers {
                has: 100,
                needs: 100,
            });
            assert_eq!(decide(user, &facts), Err(open));
        }
        assert_eq!(decide_listed(alice(), &facts), Ok(()));
    }
}

#[test]
fn a_level_that_everybody_has_without_any_event_is_refused_too() {
    let facts = facts(RoomVersionId::V10, None);
    let mut policy = policy();
    policy.authorization.power_level = 0;
    let open = Denied::NoPower(NoPower::OpenToAllMembers { has: 0, needs: 0 });
    assert_eq!(decide_by(&policy, alice(), &facts), Err(open));
}

#[test]
fn without_a_power_levels_event_the_defaults_of_the_specification_hold() {
    let facts = facts(RoomVersionId::V10, None);
    assert_eq!(decide(creator(), &facts), Ok(()));
    assert_eq!(decide(alice(), &facts), too_low(0));
}

#[test]
fn a_room_of_an_unknown_version_gives_nobody_power() {
    let mut unknown_version = facts(RoomVersionId::V10, Some(&[(alice(), 100)]));
    unknown_version.room_version = RoomVersionId::try_from("org.example.unknown").unwrap();
    let denied = Denied::NoPower(NoPower::UnknownVersion);
    assert_eq!(decide(alice(), &unknown_version), Err(denied));
}

#[test]
fn a_user_who_has_left_may_not_command() {
    for membership in [
        MembershipState::Leave,
        MembershipState::Ban,
        MembershipState::Invite,
    ] {
        let mut facts = facts(RoomVersionId::V10, Some(&[(alice(), 100)]));
        facts.membership = membership;
        assert_eq!(
            decide(alice(), &facts),
            Err(Denied::NoPower(NoPower::NotAMember))
        );
    }
}

#[test]
fn a_list_of_users_narrows_and_never_widens() {
    let facts = facts(RoomVersionId::V10, Some(&[(bob(), 100)]));
    let not_listed = Denied::NoPower(NoPower::NotListed);
    assert_eq!(decide_listed(bob(), &facts), Err(not_listed));
    assert_eq!(decide_listed(alice(), &facts), too_low(0));
}

#[test]
fn a_session_needs_the_level_of_its_project_and_of_its_options_and_an_unknown_project_the_highest()
{
    let text = "homeserver: { url: http://127.0.0.1:1, server_name: x.y }
admin_room: \"#admins:x.y\"
authorization: { power_level: 50 }
sessions: { permission_modes: [default, plan: 60, bypassPermissions: 100] }
projects:
  api: { directory: /srv/api, power_level: 75 }
  website: { directory: /srv/website, power_level: 40 }
project_roots: [{ directory: /home, power_level: 80 }]
";
    let config = Config::from_text(Path::new("/config.yaml"), text).unwrap();
    let level = |policy: Policy| policy.authorization.power_level;
    assert_eq!(level(Policy::of_any(&config)), 40);
    assert_eq!(level(Policy::of_no_project(&config)), 50);
    for (project, other, modes) in [
        (Some("api"), 75, [75, 75, 100, NOBODY]),
        (Some("website"), 40, [40, 60, 100, NOBODY]),
        (None, 80, [80, 80, 80, 80]),
    ] {
        let configured = project.and_then(|name| config.projects.get(&name.parse().unwrap()));
        assert_eq!(configured.is_some(), project.is_some());
        assert_eq!(level(Policy::of_project(&config, configured)), other);
        let of_modes = ["default", "plan", "bypassPermissions", "gone"].map(|mode| {
            let start = Start {
                beginning: Beginning::Fresh,
                options: Options {
                    mode: Some(mode.to_owned()),
                    ..Options::default()
                },
            };
            level(Policy::of_session(&config, configured, &start))
        });
        assert_eq!(of_modes, modes, "{project:?}");
    }
}

#[test]
fn redacted_and_replayed_commands_are_refused_under_every_setting() {
    for devices in [Devices::CrossSigned, Devices::Any] {
        for require_encrypted_commands in [
            RequireEncryptedCommands::Auto,
            RequireEncryptedCommands::Always,
            RequireEncryptedCommands::Never,
        ] {
            let policy = Policy {
                devices,
                require_encrypted_commands,
                ..policy()
            };
            let facts = facts(RoomVersionId::V12, Some(&[(alice(), 100)]));
            let decide = |trust| authorize(alice(), trust, &facts, &policy).map(|_| ());
            assert_eq!(decide(Trust::Gone), Err(Denied::Redacted));
            assert_eq!(decide(Trust::Replayed), Err(Denied::Replayed));
            assert_eq!(decide(Trust::TooOld), Err(Denied::TooOld));
        }
    }
}

#[test]
fn how_a_command_was_encrypted_decides_as_configured() {
    use Devices::{Any, CrossSigned};
    use RequireEncryptedCommands::{Always, Auto, Never};
    use Trust::{IdentityChanged, Plaintext, UnknownDevice, UnsignedDevice};
    let unsigned = || Err(Denied::UnsignedDevice);
    let plain = || Err(Denied::NotEncrypted);
    let changed = Err(Denied::IdentityChanged);
    let unknown = Err(Denied::UnknownDevice);
    for (trust, room_encrypted, devices, require, expected) in [
        (Trust::CrossSigned, true, CrossSigned, Auto, Ok(())),
        (UnsignedDevice, true, Any, Auto, Ok(())),
        (Plaintext, true, CrossSigned, Never, Ok(())),
        (Plaintext, false, CrossSigned, Auto, Ok(())),
        (UnsignedDevice, true, CrossSigned, Auto, unsigned()),
        (UnsignedDevice, true, CrossSigned, Never, unsigned()),
        (IdentityChanged, true, Any, Never, changed),
        (UnknownDevice, true, Any, Never, unknown),
        (Plaintext, true, CrossSigned, Auto, plain()),
        (Plaintext, false, CrossSigned, Always, plain()),
    ] {
        let mut facts = facts(RoomVersionId::V10, Some(&[(alice(), 100)]));
        facts.encrypted = room_encrypted;
        let policy = Policy {
            devices,
            require_encrypted_commands: require,
            ..policy()
        };
        let decision = authorize(alice(), trust, &facts, &policy).map(|_| ());
        assert_eq!(
            decision, expected,
            "{trust:?} {room_encrypted} {devices:?} {require:?}"
        );
    }
}
