//! The admin room: joining it, its facts as the homeserver gives them now, and what is said there.

use matrix_sdk::{
    Client, Room, RoomState,
    ruma::{
        EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedTransactionId,
        OwnedUserId, RoomId, RoomOrAliasId, RoomVersionId, UserId,
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
                message::{Relation, RoomMessageEventContent},
                power_levels::RoomPowerLevelsEventContent,
            },
        },
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracing::{info, warn};

use super::{Chain, Fault, Matrix, Message};

/// What the homeserver says of the admin room, and of one user in it, at this moment.
#[derive(Debug, Clone)]
pub struct RoomFacts {
    /// The room's version, which decides by which rules power is reckoned.
    pub room_version: RoomVersionId,
    /// Who made the room: the sender of its create event, and from version 12 on those whom that event names besides.
    pub creators: Vec<OwnedUserId>,
    /// The power levels.
    pub power_levels: PowerLevels,
    /// Who may come in. Where there is no such event, only who is invited (specification, `m.room.join_rules`).
    pub join_rule: JoinRule,
    /// The user's membership. A user of whom there is no member event has left.
    pub membership: MembershipState,
    /// Whether the room is encrypted. Once seen encrypted, always encrypted.
    pub encrypted: bool,
}

/// The event `m.room.power_levels`.
#[derive(Debug, Clone)]
pub enum PowerLevels {
    /// It exists.
    Event(Box<RoomPowerLevelsEventContent>),
    /// The homeserver says that there is none.
    Absent,
}

#[derive(Deserialize)]
struct CreateEvent {
    sender: OwnedUserId,
    content: RoomCreateEventContent,
}

#[derive(Deserialize)]
struct OwnMembership {
    origin_server_ts: MilliSecondsSinceUnixEpoch,
}

impl Matrix {
    /// Asks the homeserver for all that decides about a command of this user. Never from the cache of /sync, which can
    /// be stale.
    ///
    /// # Errors
    /// [`Fault`]: nothing is known, and nothing may be concluded.
    pub async fn room_facts(&self, user: &UserId) -> Result<RoomFacts, Fault> {
        let room = self.admin_room()?;
        let (client, id) = (room.client(), room.room_id());
        let (create, power_levels, join_rules, member, encrypted) = tokio::try_join!(
            state_event::<CreateEvent>(
                &client,
                id,
                StateEventType::RoomCreate,
                "",
                StateEventFormat::Event
            ),
            state_content::<RoomPowerLevelsEventContent>(
                &client,
                id,
                StateEventType::RoomPowerLevels,
                ""
            ),
            state_content::<RoomJoinRulesEventContent>(
                &client,
                id,
                StateEventType::RoomJoinRules,
                ""
            ),
            state_content::<RoomMemberEventContent>(
                &client,
                id,
                StateEventType::RoomMember,
                user.as_str()
            ),
            is_encrypted(&room),
        )?;
        // Every room has a create event: a homeserver that does not know it cannot be asked.
        let create = create.ok_or_else(|| Fault::from(matrix_sdk::Error::InsufficientData))?;
        let mut creators = vec![create.sender];
        creators.extend(create.content.additional_creators);
        Ok(RoomFacts {
            room_version: create.content.room_version,
            creators,
            power_levels: power_levels.map_or(PowerLevels::Absent, |content| {
                PowerLevels::Event(Box::new(content))
            }),
            join_rule: join_rules.map_or(JoinRule::Invite, |content| content.join_rule),
            membership: member.map_or(MembershipState::Leave, |member| member.membership),
            encrypted,
        })
    }

    /// Says something in the admin room; where it answers a message, as a reply, and in the message's thread if it was
    /// sent in one.
    ///
    /// # Errors
    /// [`Fault`], when the homeserver did not take it.
    pub async fn say(&self, notice: Notice<'_>, answered: Option<&ReplyTo>) -> Result<(), Fault> {
        let mut content = RoomMessageEventContent::notice_html(notice.plain, notice.html);
        content.relates_to = answered.map(ReplyTo::relation);
        let room = self.admin_room()?;
        let send = || {
            room.send(content.clone())
                .with_transaction_id(notice.transaction.clone())
        };
        match send().await.map_err(Fault::from) {
            Err(Fault::IdentityChanged { users }) => {
                self.let_read(&users).await?;
                send().await?;
            }
            result => drop(result?),
        }
        Ok(())
    }

    pub(super) fn admin_room(&self) -> Result<Room, Fault> {
        let room = self
            .admin_room_id()
            .and_then(|id| self.client().get_room(id))
            .filter(|room| room.state() == RoomState::Joined);
        room.ok_or(Fault::NotInAdminRoom)
    }

    /// Joins the admin room if that is possible now: the bot was invited, or anyone may join. False: it may work later
    /// without anybody inviting the bot.
    pub(super) async fn join_admin_room(&self) -> bool {
        let Some(id) = self.find_admin_room().await else {
            return false;
        };
        match self.client().get_room(&id).map(|room| room.state()) {
            Some(RoomState::Joined) => self.note_join(&id).await,
            Some(RoomState::Banned) => {
                warn!(room = %id, "banned from the admin room");
                true
            }
            Some(RoomState::Invited | RoomState::Knocked | RoomState::Left) | None => {
                self.try_to_join(&id).await
            }
        }
    }

    async fn try_to_join(&self, id: &RoomId) -> bool {
        match self.client().join_room_by_id(id).await {
            Ok(_) => {
                info!(room = %id, "joined the admin room");
                self.note_join(id).await
            }
            Err(error) if error.client_api_error_kind() == Some(&ErrorKind::Forbidden) => {
                info!(room = %id, bot = %self.own_user(), "waiting for an invitation to the admin room");
                true
            }
            Err(error) => {
                let fault = Fault::from(error);
                warn!(room = %id, error = %Chain(&fault), "cannot join the admin room yet");
                false
            }
        }
    }

    /// Looks up when the bot joined, as the homeserver has it: joining a room that one is in already changes nothing. False:
    /// it is not known yet.
    async fn note_join(&self, id: &RoomId) -> bool {
        let own = self.own_user().as_str();
        let kind = StateEventType::RoomMember;
        match state_event(self.client(), id, kind, own, StateEventFormat::Event).await {
            Ok(Some(OwnMembership { origin_server_ts })) => {
                if let Some(joined) = origin_server_ts.to_system_time() {
                    self.listening_since().set(joined);
                }
                true
            }
            Ok(None) => false,
            Err(fault) => {
                warn!(room = %id, error = %Chain(&fault), "time of the bot's join not known yet");
                false
            }
        }
    }

    /// The admin room's id; an alias is looked up once it exists.
    async fn find_admin_room(&self) -> Option<OwnedRoomId> {
        if let Some(id) = self.admin_room_id() {
            return Some(id.to_owned());
        }
        let id = match <&RoomId>::try_from(self.configured_admin_room()) {
            Ok(id) => id.to_owned(),
            Err(alias) => match self.client().resolve_room_alias(alias).await {
                Ok(response) => response.room_id,
                Err(error) => {
                    let fault = Fault::from(error);
                    warn!(%alias, error = %Chain(&fault), "the admin room's alias cannot be looked up yet");
                    return None;
                }
            },
        };
        Some(self.set_admin_room(id).to_owned())
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

    fn relation<C>(&self) -> Relation<C> {
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

/// The homeserver may withhold the encryption event; a room that was encrypted once stays so.
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

/// The admin room as the configuration names it.
pub(super) type Configured = RoomOrAliasId;
