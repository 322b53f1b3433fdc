//! The admin room: its facts as the homeserver gives them now, and what is said there.
//!
//! Which room it is stands in `which`; `join` gets the bot into it, and `upgrade` follows it to another.
//!
//! Invariant: what `power` says of a user holds for commands and for tombstones alike. Whether a command counts is decided
//! elsewhere; whose word moves the admin room is decided here, as nobody could be asked about that in a room that is no longer
//! the right one.

mod join;
mod power;
mod upgrade;
mod which;

use matrix_sdk::{
    Client, Room, RoomState,
    ruma::{
        EventId, OwnedEventId, OwnedTransactionId, OwnedUserId, RoomId, RoomVersionId, UserId,
        api::{
            client::state::get_state_event_for_key::{self, v3::StateEventFormat},
            error::ErrorKind,
        },
        events::{
            StateEventType,
            relation::{InReplyTo, Reply, Thread},
            room::{
                create::RoomCreateEventContent,
                join_rules::{JoinRule, RoomJoinRulesEventContent},
                member::{MembershipState, RoomMemberEventContent},
                message::Relation,
                power_levels::{
                    RoomPowerLevels, RoomPowerLevelsEventContent, RoomPowerLevelsSource,
                },
            },
        },
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use power::NoPower;
pub(super) use upgrade::Upgrades;
pub(super) use which::AdminRoom;

use super::{Fault, Matrix, Message, Sound};

/// What the homeserver says of the admin room, and of one user in it, at this moment.
#[derive(Debug, Clone)]
pub struct RoomFacts {
    /// The room's version, which decides by which rules power is reckoned.
    pub room_version: RoomVersionId,
    /// Who made the room, by the rules of its version.
    pub creators: Vec<OwnedUserId>,
    /// The power levels.
    pub power_levels: PowerLevels,
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
#[derive(Debug, Deserialize)]
pub struct CreateEvent {
    sender: OwnedUserId,
    content: RoomCreateEventContent,
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

impl RoomFacts {
    /// What follows from these events, and from whether the room is encrypted, or ever was.
    #[must_use]
    pub fn from_state(events: StateEvents, encrypted: bool) -> Self {
        Self {
            creators: events.create.creators(),
            room_version: events.create.content.room_version,
            power_levels: events.power_levels.map_or(PowerLevels::Absent, |content| {
                PowerLevels::Event(Box::new(content))
            }),
            join_rule: events
                .join_rules
                .map_or(JoinRule::Invite, |content| content.join_rule),
            membership: events
                .member
                .map_or(MembershipState::Leave, |member| member.membership),
            encrypted,
        }
    }

    /// The power levels by the rules of the room's version. `None`: the bot does not know that version.
    #[must_use]
    pub fn levels(&self) -> Option<RoomPowerLevels> {
        let rules = self.room_version.rules()?;
        let source = match &self.power_levels {
            PowerLevels::Event(content) => RoomPowerLevelsSource::Original((**content).clone()),
            // The homeserver says that there is no such event: the specification's defaults hold.
            PowerLevels::Absent => RoomPowerLevelsSource::None,
        };
        Some(RoomPowerLevels::new(
            source,
            &rules.authorization,
            self.creators.clone(),
        ))
    }
}

/// The event `m.room.power_levels`.
#[derive(Debug, Clone)]
pub enum PowerLevels {
    /// It exists.
    Event(Box<RoomPowerLevelsEventContent>),
    /// The homeserver says that there is none.
    Absent,
}

impl Matrix {
    /// Asks the homeserver for all that decides about a command of this user. Never from the cache of /sync, which can
    /// be stale.
    ///
    /// # Errors
    /// [`Fault`]: nothing is known, and nothing may be concluded.
    pub async fn room_facts(&self, user: &UserId) -> Result<RoomFacts, Fault> {
        let mut facts = facts(&self.admin_room()?, user).await?;
        if facts.encrypted {
            self.admin_room.note_encrypted()?;
        }
        facts.encrypted |= self.admin_room.was_encrypted();
        Ok(facts)
    }

    /// Says something in the admin room; where it answers a message, as a reply, and in the message's thread if it was
    /// sent in one.
    ///
    /// # Errors
    /// [`Fault`], when the homeserver did not take it.
    pub async fn say(&self, notice: Notice<'_>, answered: Option<&ReplyTo>) -> Result<(), Fault> {
        let mut content = notice.content(Sound::Silent);
        content.relates_to = answered.map(ReplyTo::relation);
        self.send(&self.admin_room()?, content, notice.transaction)
            .await?;
        Ok(())
    }

    /// Shows in the admin room that the bot is about to say something, for some seconds, or no longer.
    ///
    /// # Errors
    /// [`Fault`], when the homeserver did not take it.
    pub async fn show_typing(&self, typing: bool) -> Result<(), Fault> {
        Ok(self.admin_room()?.typing_notice(typing).await?)
    }

    pub(super) fn admin_room(&self) -> Result<Room, Fault> {
        let room = self
            .admin_room
            .id()
            .and_then(|id| self.client.get_room(&id))
            .filter(|room| room.state() == RoomState::Joined);
        room.ok_or(Fault::NotInAdminRoom)
    }
}

/// What the bot says to people that is no link.
#[derive(Debug, Clone, Copy)]
pub struct Notice<'a> {
    /// For clients without HTML.
    pub plain: &'a str,
    /// The same in HTML.
    pub html: &'a str,
    /// The same for each try to say it, so that it is said once.
    pub transaction: &'a OwnedTransactionId,
}

/// What an answer needs to know of the message that it answers. Survives a restart as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyTo {
    event_id: OwnedEventId,
    thread: Option<OwnedEventId>,
}

impl ReplyTo {
    pub(super) fn event(event_id: OwnedEventId) -> Self {
        Self {
            event_id,
            thread: None,
        }
    }

    /// The message that is answered.
    #[must_use]
    pub fn event_id(&self) -> &EventId {
        &self.event_id
    }

    pub(super) fn relation<C>(&self) -> Relation<C> {
        match &self.thread {
            Some(root) => Relation::Thread(Thread::reply(root.clone(), self.event_id.clone())),
            None => Relation::Reply(Reply::new(InReplyTo::new(self.event_id.clone()))),
        }
    }
}

impl From<&Message> for ReplyTo {
    fn from(message: &Message) -> Self {
        Self {
            event_id: message.event_id.clone(),
            thread: message.thread.clone(),
        }
    }
}

async fn facts(room: &Room, user: &UserId) -> Result<RoomFacts, Fault> {
    let (client, id) = (room.client(), room.room_id());
    let (create, power_levels, join_rules, member, encrypted) = tokio::try_join!(
        create_event(room),
        state_content::<RoomPowerLevelsEventContent>(
            &client,
            id,
            StateEventType::RoomPowerLevels,
            ""
        ),
        state_content::<RoomJoinRulesEventContent>(&client, id, StateEventType::RoomJoinRules, ""),
        state_content::<RoomMemberEventContent>(
            &client,
            id,
            StateEventType::RoomMember,
            user.as_str()
        ),
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

async fn create_event(room: &Room) -> Result<CreateEvent, Fault> {
    let kind = StateEventType::RoomCreate;
    let client = room.client();
    let create = state_event(&client, room.room_id(), kind, "", StateEventFormat::Event).await?;
    // Every room has a create event: a homeserver that does not know it cannot be asked.
    create.ok_or_else(|| Fault::from(matrix_sdk::Error::InsufficientData))
}

/// The homeserver may withhold the encryption event; what the SDK has once seen encrypted stays so for it.
async fn is_encrypted(room: &Room) -> Result<bool, Fault> {
    if room.encryption_state().is_encrypted() {
        return Ok(true);
    }
    let content: Option<serde_json::Value> = state_content(
        &room.client(),
        room.room_id(),
        StateEventType::RoomEncryption,
        "",
    )
    .await?;
    Ok(content.is_some())
}

async fn state_content<T: DeserializeOwned>(
    client: &Client,
    room: &RoomId,
    kind: StateEventType,
    key: &str,
) -> Result<Option<T>, Fault> {
    state_event(client, room, kind, key, StateEventFormat::Content).await
}

/// `None`: the homeserver says that there is no such event. Anything but that and the event is an error.
pub(super) async fn state_event<T: DeserializeOwned>(
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
        assert!(matches!(facts.power_levels, PowerLevels::Absent));
    }
}
