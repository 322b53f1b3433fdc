//! The admin room: which one it is, whether the bot is in it, whether it is encrypted, and what the bot may do there.

use matrix_sdk::ruma::{
    OwnedRoomId, OwnedRoomOrAliasId, OwnedUserId, RoomId,
    events::{
        MessageLikeEventType, StateEventType,
        room::{member::MembershipState, tombstone::RoomTombstoneEventContent},
    },
};
use serde_json::Value;

use super::{
    Found, Outcome,
    api::{Api, Asker, Trouble},
    host::unreadable,
};
use crate::{
    config::{HostName, RequireEncryptedCommands},
    http::Answer,
    matrix::{CurrentState, HOST_EVENT, HostEvent, Membership, RoomFacts},
};

pub(super) struct Room {
    id: OwnedRoomId,
    was_encrypted: bool,
}

pub(super) struct RoomState {
    pub(super) facts: RoomFacts,
    /// Everybody in it but the bot.
    pub(super) members: Vec<OwnedUserId>,
    /// What the bots of other hosts announce.
    hosts: Vec<HostEvent>,
    /// Where it was upgraded to.
    successor: Option<OwnedRoomId>,
}

/// Which room it is. If the bot was in it, that room counts, whatever an alias says now.
pub(super) async fn find(api: &Api<'_>) -> Found<Room> {
    let configured = &api.config.admin_room;
    let known = api.folder.admin_room(configured);
    if let Some(known) = known.map_err(|fault| unreadable(&fault))? {
        let (id, was_encrypted) = (known.room, known.was_encrypted);
        return Ok((judge_known(api, &id).await, Room { id, was_encrypted }));
    }
    let id = match OwnedRoomId::try_from(OwnedRoomOrAliasId::clone(configured)) {
        Ok(id) => Some(id),
        Err(_) => resolve(api).await?,
    };
    let Some(id) = id else {
        return Err(Outcome::failed(
            format!("no room has the address {configured}"),
            "give the room this address in its settings, or correct `admin_room` in config.yaml",
        ));
    };
    let outcome = Outcome::passed(if configured.as_str() == id.as_str() {
        id.to_string()
    } else {
        format!("{configured} is {id}")
    });
    let was_encrypted = false;
    Ok((outcome, Room { id, was_encrypted }))
}

/// The room that the bot was in.
async fn judge_known(api: &Api<'_>, known: &RoomId) -> Outcome {
    let configured = &api.config.admin_room;
    if configured.as_str() == known.as_str() {
        return Outcome::passed(known.as_str());
    }
    if configured.is_room_id() {
        return Outcome::passed(format!("{known}, to which the bot followed {configured}"));
    }
    match resolve(api).await {
        Ok(Some(other)) if other != known => Outcome::warning(
            format!("{configured} leads to {other} now, and the bot stays in {known}"),
            format!(
                "set `admin_room: \"{known}\"` in config.yaml, or \"{other}\" if commands are to count there, and restart the bot"
            ),
        ),
        Ok(Some(_)) => Outcome::passed(format!("{configured} is {known}")),
        Ok(None) => Outcome::passed(format!("{known}, to which {configured} led once")),
        Err(trouble) => trouble.into(),
    }
}

/// Where the configured alias leads. `None`: nowhere.
async fn resolve(api: &Api<'_>) -> Result<Option<OwnedRoomId>, Trouble> {
    let alias = api.config.admin_room.as_str();
    let path = ["client", "v3", "directory", "room", alias];
    api.find(Asker::Bot, &path, "/room_id").await
}

/// Whether the bot is in the room, and the room's state then. `synced`: what /sync said of the bot's rooms, if it answered.
pub(super) async fn judge_membership(
    api: &Api<'_>,
    room: &Room,
    synced: Option<&Value>,
) -> Found<RoomState> {
    let (id, bot) = (room.id.as_str(), api.bot());
    let path = ["client", "v3", "rooms", id, "state"];
    let read = |answer: &Answer| {
        let events: CurrentState = answer.part("")?;
        // A user who has left the room gets its state of that time.
        if !members(&events).any(|user| user == bot) {
            return Some(None);
        }
        RoomState::of(&events, api, room.was_encrypted).map(Some)
    };
    match api.send(Asker::Bot, &path, &[], None, read).await {
        Ok(Some(state)) => return Ok((Outcome::passed("joined"), state)),
        Err(trouble) if trouble.refusal().is_none() => return Err(trouble.into()),
        Ok(None) | Err(_) => {}
    }
    let is_invited =
        synced.map(|rooms| rooms.get("invite").is_some_and(|all| all.get(id).is_some()));
    Err(match is_invited {
        Some(true) => {
            Outcome::passed("invited; the bot joins when it runs: run it, and check again")
        }
        Some(false) => Outcome::failed(
            "the bot is neither in the room nor invited to it",
            format!(
                "invite {bot} to the room (if `admin_room` was changed, restart the bot before: it declines other invitations); \
                 if it is banned there, lift the ban first"
            ),
        ),
        None => Outcome::warning(
            "the bot is not in the room, and whether it is invited is unknown before it has run",
            format!("invite {bot} to the room, if that is not done; run the bot, and check again"),
        ),
    })
}

impl RoomState {
    /// `None`: it is not the state of a room.
    fn of(state: &CurrentState, api: &Api<'_>, was_encrypted: bool) -> Option<Self> {
        let tombstone = state.content(StateEventType::RoomTombstone, "");
        let tombstone: Option<RoomTombstoneEventContent> = tombstone.ok().flatten();
        let members: Vec<_> = members(state).filter(|user| *user != api.bot()).collect();
        let hosts = state.events(HOST_EVENT.into());
        let hosts = hosts.filter_map(|event| serde_json::from_str(event.json().get()).ok());
        Some(Self {
            // The bot is joined, and only joined users are judged.
            facts: RoomFacts::of(state, api.bot(), was_encrypted).ok()?,
            hosts: hosts
                .filter(|event: &HostEvent| members.contains(&event.bot))
                .collect(),
            members,
            successor: tombstone.map(|content| content.replacement_room),
        })
    }
}

fn members(state: &CurrentState) -> impl Iterator<Item = OwnedUserId> {
    let events = state.events(StateEventType::RoomMember);
    events.filter_map(|event| {
        let Membership { membership } = event.get_field("content").ok()??;
        let user = event.get_field("state_key").ok()??;
        (membership == MembershipState::Join).then_some(user)
    })
}

pub(super) fn judge_upgrade(api: &Api<'_>, state: &RoomState) -> Outcome {
    let Some(successor) = &state.successor else {
        return Outcome::passed("the room was not upgraded");
    };
    let bot = api.bot();
    Outcome::warning(
        format!("the room was upgraded to {successor}, and the bot is still in the old one"),
        format!(
            "invite {bot} to {successor} while the bot is running; it follows the upgrade if somebody made it who may command. Otherwise \
             set `admin_room: \"{successor}\"` in config.yaml, and restart the bot"
        ),
    )
}

pub(super) fn judge_encryption(api: &Api<'_>, state: &RoomState) -> Outcome {
    let remedy = "turn on encryption in the room's settings";
    match (
        state.facts.encrypted,
        api.config.encryption.require_encrypted_commands,
    ) {
        (true, _) => Outcome::passed("on"),
        (false, RequireEncryptedCommands::Always) => Outcome::failed(
            "off, and `encryption.require_encrypted_commands` is always, so that no command counts",
            remedy,
        ),
        (false, RequireEncryptedCommands::Auto | RequireEncryptedCommands::Never) => {
            Outcome::warning(
                "off, so that an administrator's access token is enough to give commands",
                remedy,
            )
        }
    }
}

pub(super) fn judge_power(api: &Api<'_>, state: &RoomState) -> Outcome {
    let (bot, facts) = (api.bot(), &state.facts);
    let Some(levels) = facts.levels() else {
        return Outcome::failed(
            format!(
                "the bot does not know rooms of version {}",
                facts.room_version
            ),
            "install a newer rcbot, or use a room of an older version",
        );
    };
    let kind = if facts.encrypted {
        MessageLikeEventType::RoomEncrypted
    } else {
        MessageLikeEventType::RoomMessage
    };
    if levels.user_can_send_message(bot, kind.clone()) {
        return Outcome::passed("the bot may send messages");
    }
    let needs = levels.for_message(kind);
    Outcome::failed(
        format!("the bot may not send messages, which takes power level {needs}"),
        format!("give {bot} power level {needs} in the room's settings"),
    )
}

/// Whether the bots of several hosts in the room can be distinguished.
pub(super) fn judge_hosts(api: &Api<'_>, state: &RoomState) -> Outcome {
    let others = &state.hosts;
    let names = others.iter().map(|it| it.announcement.host.as_str());
    let names: Vec<_> = names.collect();
    let Some(own) = &api.config.host else {
        return judge_nameless(&names);
    };
    let mut others = others.iter();
    if let Some(same) = others.find(|it| it.announcement.host == own.as_str()) {
        return Outcome::failed(
            format!(
                "{} calls its host {own} too, so both execute each command to it",
                same.bot
            ),
            "set `host` in config.yaml to a name that no other host has, and restart the bot",
        );
    }
    let bot = api.bot();
    let kind = StateEventType::from(HOST_EVENT);
    let levels = state.facts.levels();
    if let Some(levels) = levels.filter(|levels| !levels.user_can_send_state(bot, kind.clone())) {
        let needs = levels.for_state(kind);
        // At 0 anybody in the room could announce hosts.
        let enough = i64::from(levels.users_default).saturating_add(1).max(1);
        return Outcome::failed(
            format!(
                "the bot may not announce this host: state events of the type {HOST_EVENT} take power level {needs}"
            ),
            format!(
                "in the room's `m.room.power_levels` (in Element: `/devtools`) set \"{HOST_EVENT}\": {enough} under `events`, \
                 give {bot} power level {enough}, and restart the bot; {needs} would let it kick and ban too"
            ),
        );
    }
    let beside = if names.is_empty() {
        "the only one so far".to_owned()
    } else {
        format!("beside {}", names.join(", "))
    };
    Outcome::passed(format!("this one is {own}, {beside}"))
}

/// Without a name in the configuration a host is not announced, so that the other bots do not know of it.
fn judge_nameless(names: &[&str]) -> Outcome {
    if names.is_empty() {
        return Outcome::passed("only this one");
    }
    Outcome::failed(
        format!(
            "other bots share this room ({}), and this one has no host name, so a command may be answered twice",
            names.join(", ")
        ),
        format!(
            "set `host` in config.yaml to a name that no other host has, such as `host: {}`, and restart the bot",
            HostName::of_system()
        ),
    )
}
