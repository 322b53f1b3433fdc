//! The state of a room and of a user in it, fetched from the homeserver at this moment, in one answer: never from the cache of
//! /sync, which can be stale.
//!
//! Invariant: [`RoomFacts::power_of`] decides for commands and for tombstones alike. Missing evidence means no.

use matrix_sdk::{
    Client,
    ruma::{
        OwnedUserId, RoomId, RoomVersionId, UserId,
        api::client::state::get_state_events,
        events::{
            AnyStateEvent, StateEventType,
            room::{
                create::RoomCreateEventContent,
                join_rules::{JoinRule, RoomJoinRulesEventContent},
                member::MembershipState,
                power_levels::{
                    RoomPowerLevels, RoomPowerLevelsEventContent, RoomPowerLevelsSource,
                    UserPowerLevel,
                },
            },
        },
        serde::Raw,
    },
};
use serde::{Deserialize, de::DeserializeOwned};

use super::Fault;
use crate::config::Authorization;

/// The state of the admin room, and of one user in it, as the homeserver shows it at this moment.
#[derive(Debug, Clone)]
pub(crate) struct RoomFacts {
    /// The room's version, which decides how power levels are computed.
    pub room_version: RoomVersionId,
    /// The creators of the room, by the rules of its version.
    pub creators: Vec<OwnedUserId>,
    /// `None`: the homeserver says that there is no such event.
    pub power_levels: Option<Box<RoomPowerLevelsEventContent>>,
    /// Who may join. Without such an event, only invited users may (specification, `m.room.join_rules`).
    pub join_rule: JoinRule,
    /// The user's membership. A user without a member event has left.
    pub membership: MembershipState,
    /// Whether the room is encrypted, or ever was.
    pub encrypted: bool,
}

/// All state of a room at one moment, as the homeserver gives it.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct CurrentState(pub(super) Vec<Raw<AnyStateEvent>>);

impl CurrentState {
    /// Fetches it from the homeserver.
    pub(super) async fn of(client: &Client, room: &RoomId) -> Result<Self, Fault> {
        let request = get_state_events::v3::Request::new(room.to_owned());
        Ok(Self(client.send(request).await?.room_state))
    }

    pub(crate) fn events(&self, kind: StateEventType) -> impl Iterator<Item = &Raw<AnyStateEvent>> {
        let has_type = move |event: &&Raw<AnyStateEvent>| {
            text(event, "type").is_some_and(|it| StateEventType::from(it) == kind)
        };
        self.0.iter().filter(has_type)
    }

    /// The content of the event of this type and with this state key. `None`: there is no such event.
    pub(crate) fn content<T: DeserializeOwned>(
        &self,
        kind: StateEventType,
        key: &str,
    ) -> Result<Option<T>, Fault> {
        let event: Option<Content<T>> = self.event(kind, key)?;
        Ok(event.map(|event| event.content))
    }

    /// The whole event.
    pub(super) fn event<T: DeserializeOwned>(
        &self,
        kind: StateEventType,
        key: &str,
    ) -> Result<Option<T>, Fault> {
        let mut events = self.events(kind);
        let event = events.find(|event| text(event, "state_key").as_deref() == Some(key));
        let event = event.map(|event| serde_json::from_str(event.json().get()));
        event.transpose().map_err(Fault::InvalidState)
    }

    /// Every room has a create event. Without it nothing can be concluded.
    pub(super) fn create(&self) -> Result<CreateEvent, Fault> {
        let create = self.event(StateEventType::RoomCreate, "")?;
        create.ok_or_else(|| matrix_sdk::Error::InsufficientData.into())
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.events(StateEventType::RoomEncryption)
            .any(|event| text(event, "state_key").as_deref() == Some(""))
    }
}

fn text(event: &Raw<AnyStateEvent>, field: &str) -> Option<String> {
    event.get_field(field).ok().flatten()
}

#[derive(Deserialize)]
struct Content<T> {
    content: T,
}

/// The part of a member event that counts. The other fields are the member's own, and may be invalid.
#[derive(Deserialize)]
pub(crate) struct Membership {
    pub(crate) membership: MembershipState,
}

/// The whole event `m.room.create`: from version 11 on, its sender is the creator.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct CreateEvent {
    sender: OwnedUserId,
    pub(super) content: RoomCreateEventContent,
}

impl CreateEvent {
    /// Before version 11 the content names the creator, and from version 12 on there may be several.
    fn creators(&self) -> Vec<OwnedUserId> {
        let Some(rules) = self.content.room_version.rules() else {
            return Vec::new();
        };
        let rules = rules.authorization;
        if !rules.use_room_create_sender {
            #[expect(deprecated, reason = "rooms of those versions are still there")]
            return self.content.creator.iter().cloned().collect();
        }
        let mut creators = vec![self.sender.clone()];
        if rules.additional_room_creators {
            creators.extend_from_slice(&self.content.additional_creators);
        }
        creators
    }
}

/// Why a user has no power over the admin room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoPower {
    /// The user is not on the list `authorization.users`.
    NotListed,
    NotAMember,
    PowerLevel {
        has: i64,
        needs: i64,
    },
    /// Others can join the room without an invitation, and no list names those who have power.
    NotInviteOnly {
        join_rule: String,
    },
    /// The level that everybody in the room has is enough, and no list names those who have power.
    OpenToAllMembers {
        /// By `users_default` of the room's power levels.
        has: i64,
        needs: i64,
    },
    /// The bot does not support rooms of this version.
    UnknownVersion,
}

impl RoomFacts {
    /// From the state of a room, for this user. `was_encrypted`: whether the room was ever seen encrypted, as the homeserver
    /// may withhold the event.
    pub(crate) fn of(
        state: &CurrentState,
        user: &UserId,
        was_encrypted: bool,
    ) -> Result<Self, Fault> {
        let create = state.create()?;
        let member: Option<Membership> =
            state.content(StateEventType::RoomMember, user.as_str())?;
        let join_rules = state.content(StateEventType::RoomJoinRules, "");
        let join_rules: Option<RoomJoinRulesEventContent> =
            // An unreadable rule keeps nobody out. Where a list names those who have power, it does not matter.
            join_rules.unwrap_or(Some(RoomJoinRulesEventContent::new(JoinRule::Public)));
        Ok(Self {
            creators: create.creators(),
            room_version: create.content.room_version,
            power_levels: state.content(StateEventType::RoomPowerLevels, "")?,
            join_rule: join_rules.map_or(JoinRule::Invite, |it| it.join_rule),
            membership: member.map_or(MembershipState::Leave, |it| it.membership),
            encrypted: was_encrypted || state.is_encrypted(),
        })
    }

    /// The power levels by the rules of the room's version. `None`: the bot does not support that version.
    pub(crate) fn levels(&self) -> Option<RoomPowerLevels> {
        let rules = self.room_version.rules()?;
        let source = match &self.power_levels {
            Some(content) => RoomPowerLevelsSource::Original((**content).clone()),
            // The specification's defaults hold.
            None => RoomPowerLevelsSource::None,
        };
        Some(RoomPowerLevels::new(
            source,
            &rules.authorization,
            self.creators.clone(),
        ))
    }

    /// The room's power levels, if they and the configuration give this user power over the room. `self` must be the facts
    /// about this user.
    pub(crate) fn power_of(
        &self,
        user: &UserId,
        authorization: &Authorization,
    ) -> Result<RoomPowerLevels, NoPower> {
        let needs = authorization.power_level;
        if !authorization.lets(user) {
            return Err(NoPower::NotListed);
        }
        // A user who left or was banned is still in the power levels.
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
            // The enum is non-exhaustive: an unknown kind of level gives no power.
            _ => return Err(NoPower::UnknownVersion),
        }
        // Last, so that only users with the level see it: nobody else can change it.
        if authorization.users.is_empty() {
            self.keeps_others_out(&levels, needs)?;
        }
        Ok(levels)
    }

    /// If users can join without an invitation, or all have the level, the room does not show whom its administrators trust.
    fn keeps_others_out(&self, levels: &RoomPowerLevels, needs: i64) -> Result<(), NoPower> {
        // A knock asks for an invitation. The members of a space may join a restricted room, and a space may be public.
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

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::user_id;
    use serde_json::{Value, json};

    use super::*;

    fn alice() -> &'static UserId {
        user_id!("@alice:x.y")
    }

    fn create(content: &Value) -> CreateEvent {
        let event = json!({ "sender": "@alice:x.y", "content": content });
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn the_version_of_a_room_decides_who_its_creators_are() {
        for (version, creators) in [
            ("1", vec!["@carol:x.y"]),
            ("10", vec!["@carol:x.y"]),
            ("11", vec!["@alice:x.y"]),
            ("12", vec!["@alice:x.y", "@bob:x.y"]),
            ("org.example.unknown", vec![]),
        ] {
            // The creator can set any field; one that the version does not define is ignored.
            let create = create(&json!({
                "room_version": version,
                "creator": "@carol:x.y",
                "additional_creators": ["@bob:x.y"],
            }));
            assert_eq!(create.creators(), creators, "{version}");
        }
    }

    fn state(events: Value) -> CurrentState {
        serde_json::from_value(events).unwrap()
    }

    fn create_event() -> Value {
        json!({ "type": "m.room.create", "state_key": "", "sender": "@alice:x.y", "content": {} })
    }

    #[test]
    fn missing_events_open_a_room_to_nobody() {
        let facts = RoomFacts::of(&state(json!([create_event()])), alice(), false).unwrap();
        assert_eq!(facts.room_version, RoomVersionId::V1);
        assert_eq!(facts.join_rule, JoinRule::Invite);
        assert_eq!(facts.membership, MembershipState::Leave);
        assert!(facts.power_levels.is_none());
        RoomFacts::of(&state(json!([])), alice(), false).unwrap_err();
    }

    #[test]
    fn a_room_is_encrypted_if_its_state_says_so_or_ever_did() {
        let encryption = |key: &str| json!({ "type": "m.room.encryption", "state_key": key, "sender": "@alice:x.y", "content": {} });
        for (events, was_encrypted, expected) in [
            (json!([create_event()]), false, false),
            (json!([create_event()]), true, true),
            (json!([create_event(), encryption("")]), false, true),
            (json!([create_event(), encryption("else")]), false, false),
        ] {
            let facts = RoomFacts::of(&state(events), alice(), was_encrypted);
            assert_eq!(facts.unwrap().encrypted, expected);
        }
    }

    #[test]
    fn unreadable_events_open_a_room_to_nobody() {
        let event = |kind: &str, key: &str, content: Value| json!({ "type": kind, "state_key": key, "sender": "@alice:x.y", "content": content });
        let facts =
            |event: Value| RoomFacts::of(&state(json!([create_event(), event])), alice(), false);
        facts(event("m.room.power_levels", "", json!({ "users": 7 }))).unwrap_err();
        facts(event(
            "m.room.member",
            "@alice:x.y",
            json!({ "membership": 7 }),
        ))
        .unwrap_err();
        let open = facts(event("m.room.join_rules", "", json!({ "join_rule": 7 }))).unwrap();
        assert_eq!(open.join_rule, JoinRule::Public);
        // The member's own choice.
        let named = json!({ "membership": "join", "displayname": 7 });
        let named = facts(event("m.room.member", "@alice:x.y", named)).unwrap();
        assert_eq!(named.membership, MembershipState::Join);
        // Another state key: not about the room.
        let elsewhere = facts(event(
            "m.room.power_levels",
            "elsewhere",
            json!({ "users": 7 }),
        ));
        assert!(elsewhere.unwrap().power_levels.is_none());
    }
}
