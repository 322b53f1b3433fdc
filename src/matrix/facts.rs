//! What the homeserver says of the admin room and of a user in it, asked at this moment: never the cache of /sync, which can be
//! stale. Only the create event, which cannot change, is asked for once a connection.
//!
//! Invariant: what [`RoomFacts::power_of`] says of a user holds for commands and for tombstones alike. Missing evidence means no.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use matrix_sdk::{
    Client, Room,
    ruma::{
        OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId,
        api::{
            client::state::get_state_event_for_key::{self, v3::StateEventFormat},
            error::ErrorKind,
        },
        events::{
            StateEventType,
            room::{
                create::RoomCreateEventContent,
                join_rules::{JoinRule, RoomJoinRulesEventContent},
                member::{MembershipState, RoomMemberEventContent},
                power_levels::{
                    RoomPowerLevels, RoomPowerLevelsEventContent, RoomPowerLevelsSource,
                    UserPowerLevel,
                },
            },
        },
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::Fault;
use crate::config::Authorization;

/// What the homeserver says of the admin room, and of one user in it, at this moment.
#[derive(Debug, Clone)]
pub struct RoomFacts {
    /// The room's version, which decides by which rules power is reckoned.
    pub room_version: RoomVersionId,
    /// Who made the room, by the rules of its version.
    pub creators: Vec<OwnedUserId>,
    /// `None`: the homeserver says that there is no such event.
    pub power_levels: Option<Box<RoomPowerLevelsEventContent>>,
    /// Who may come in. Where there is no such event, only who is invited (specification, `m.room.join_rules`).
    pub join_rule: JoinRule,
    /// The user's membership. A user of whom there is no member event has left.
    pub membership: MembershipState,
    /// Whether the room is encrypted, or ever was.
    pub encrypted: bool,
}

/// The state events that decide about a room and one user in it, as the homeserver gives them. `None`: it says that there is
/// no such event.
#[derive(Debug)]
pub struct StateEvents {
    /// Every room has one: a homeserver that does not know it cannot be asked.
    pub create: CreateEvent,
    /// The power levels.
    pub power_levels: Option<RoomPowerLevelsEventContent>,
    /// Who may come in.
    pub join_rules: Option<RoomJoinRulesEventContent>,
    /// The user's membership.
    pub member: Option<RoomMemberEventContent>,
}

/// The event `m.room.create`, whole: from version 11 on, who made the room is its sender.
#[derive(Debug, Clone, Deserialize)]
pub struct CreateEvent {
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
#[expect(missing_docs, reason = "the names of the fields say it")]
pub enum NoPower {
    /// The user is not on the list `authorization.users`.
    NotListed,
    /// The user is not joined to the room.
    NotAMember,
    /// The user's power level is too low.
    PowerLevel { has: i64, needs: i64 },
    /// Others can join the room without an invitation, and no list names those who have power.
    NotInviteOnly { join_rule: String },
    /// The level that everybody in the room has is enough, and no list names those who have power.
    OpenToAllMembers {
        /// By `users_default` of the room's power levels.
        has: i64,
        needs: i64,
    },
    /// The bot does not know rooms of this version.
    UnknownVersion,
}

impl RoomFacts {
    /// What follows from these events, and from whether the room is encrypted, or ever was.
    pub fn from_state(events: StateEvents, encrypted: bool) -> Self {
        let StateEvents {
            create,
            power_levels,
            join_rules,
            member,
        } = events;
        Self {
            creators: create.creators(),
            room_version: create.content.room_version,
            power_levels: power_levels.map(Box::new),
            join_rule: join_rules.map_or(JoinRule::Invite, |it| it.join_rule),
            membership: member.map_or(MembershipState::Leave, |it| it.membership),
            encrypted,
        }
    }

    /// The power levels by the rules of the room's version. `None`: the bot does not know that version.
    pub fn levels(&self) -> Option<RoomPowerLevels> {
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

    /// The room's power levels, if they and the configuration give this user power over the room. `self` is what the
    /// homeserver says of the room and of this user.
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

/// The create events that the homeserver gave. A room has one, which never changes (specification, "Authorization rules", 1).
#[derive(Debug, Default)]
pub(super) struct CreateEvents(Mutex<HashMap<OwnedRoomId, CreateEvent>>);

impl CreateEvents {
    pub(super) async fn of(&self, room: &Room) -> Result<CreateEvent, Fault> {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known().get(room.room_id()) {
            return Ok(known.clone());
        }
        let kind = StateEventType::RoomCreate;
        let create = state_event(&room.client(), room.room_id(), kind, "").await?;
        // Every room has a create event: a homeserver that does not know it cannot be asked.
        let create: CreateEvent =
            create.ok_or_else(|| Fault::from(matrix_sdk::Error::InsufficientData))?;
        known().insert(room.room_id().to_owned(), create.clone());
        Ok(create)
    }
}

/// Asks the homeserver for all that decides about a command of this user. Who may come into the room decides nothing where a list
/// names those who have power.
pub(super) async fn facts(
    room: &Room,
    user: &UserId,
    authorization: &Authorization,
    create_events: &CreateEvents,
) -> Result<RoomFacts, Fault> {
    let join_rules = async {
        if authorization.users.is_empty() {
            content(room, StateEventType::RoomJoinRules, "").await
        } else {
            Ok(None)
        }
    };
    let (create, power_levels, join_rules, member, encrypted) = tokio::try_join!(
        create_events.of(room),
        content(room, StateEventType::RoomPowerLevels, ""),
        join_rules,
        content(room, StateEventType::RoomMember, user.as_str()),
        is_encrypted(room),
    )?;
    let events = StateEvents {
        create,
        power_levels,
        join_rules,
        member,
    };
    Ok(RoomFacts::from_state(events, encrypted))
}

/// The homeserver may withhold the encryption event; what the SDK has once seen encrypted stays so for it.
pub(super) async fn is_encrypted(room: &Room) -> Result<bool, Fault> {
    if room.encryption_state().is_encrypted() {
        return Ok(true);
    }
    let event: Option<Value> = content(room, StateEventType::RoomEncryption, "").await?;
    Ok(event.is_some())
}

pub(super) async fn content<T: DeserializeOwned>(
    room: &Room,
    kind: StateEventType,
    key: &str,
) -> Result<Option<T>, Fault> {
    state(
        &room.client(),
        room.room_id(),
        kind,
        key,
        StateEventFormat::Content,
    )
    .await
}

/// The event, whole, as [`content`] gives what it says.
pub(super) async fn state_event<T: DeserializeOwned>(
    client: &Client,
    room: &RoomId,
    kind: StateEventType,
    key: &str,
) -> Result<Option<T>, Fault> {
    state(client, room, kind, key, StateEventFormat::Event).await
}

/// `None`: the homeserver says that there is none. Anything but that and the event is an error.
async fn state<T: DeserializeOwned>(
    client: &Client,
    room: &RoomId,
    kind: StateEventType,
    key: &str,
    format: StateEventFormat,
) -> Result<Option<T>, Fault> {
    let mut request =
        get_state_event_for_key::v3::Request::new(room.to_owned(), kind, key.to_owned());
    request.format = format;
    match client.send(request).await {
        Ok(response) => serde_json::from_str(response.event_or_content.get())
            .map(Some)
            .map_err(|source| Fault::Nonsense {
                request: "a state event of a room",
                source,
            }),
        Err(error) if error.client_api_error_kind() == Some(&ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

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
            // As anybody may write it who makes a room; what the version does not know means nothing.
            let create = create(&json!({
                "room_version": version,
                "creator": "@carol:x.y",
                "additional_creators": ["@bob:x.y"],
            }));
            assert_eq!(create.creators(), creators, "{version}");
        }
    }

    #[test]
    fn events_that_are_not_there_open_a_room_to_nobody() {
        let events = StateEvents {
            create: create(&json!({})),
            power_levels: None,
            join_rules: None,
            member: None,
        };
        let facts = RoomFacts::from_state(events, false);
        assert_eq!(facts.room_version, RoomVersionId::V1);
        assert_eq!(facts.join_rule, JoinRule::Invite);
        assert_eq!(facts.membership, MembershipState::Leave);
        assert!(facts.power_levels.is_none());
    }
}
