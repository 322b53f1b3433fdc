//! The admin room: whether the bot is in it, whether it is encrypted, and what the bot may do there.

use std::collections::BTreeMap;

use matrix_sdk::ruma::{
    OwnedRoomId, OwnedUserId, RoomId,
    events::{
        MessageLikeEventType,
        room::member::{MembershipState, RoomMemberEventContent},
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Blocked, Outcome, Report,
    api::{Api, Asker, Trouble},
    commanders::{self, ACCESS, COMMANDERS, IDENTITIES},
    homeserver::unexpected,
    hosts::{self, HOSTS},
    which_room::{ROOM, UPGRADE, look_at_upgrade},
};
use crate::{
    config::RequireEncryptedCommands,
    matrix::{RoomFacts, StateEvents, StoredRoom},
};

pub(super) const MEMBERSHIP: &str = "admin room membership";
pub(super) const ENCRYPTION: &str = "admin room encryption";
pub(super) const POWER: &str = "bot's power";

/// All that stands on the admin room, for those who cannot try it.
pub(super) const ALL: [&str; 9] = [
    ROOM, MEMBERSHIP, UPGRADE, ENCRYPTION, POWER, ACCESS, COMMANDERS, IDENTITIES, HOSTS,
];

#[derive(Debug, Deserialize)]
struct JoinedRooms {
    joined_rooms: Vec<OwnedRoomId>,
}

#[derive(Debug, Deserialize)]
struct JoinedMembers {
    joined: BTreeMap<String, Value>,
}

/// Looks at a room. `rooms` is what /sync said of it, where it could be asked.
pub(super) async fn look(
    report: &mut Report,
    api: &Api<'_>,
    room: &StoredRoom,
    rooms: Option<&Value>,
) -> Result<(), Blocked> {
    look_at_membership(report, api, &room.room, rooms).await?;
    look_at_upgrade(report, api, &room.room).await;
    let (mut facts, members) = match ask_for_facts(api, &room.room).await {
        Ok(known) => known,
        Err(trouble) => {
            report.add(ACCESS, unexpected(&trouble));
            return Err("the homeserver does not tell what it knows of the room");
        }
    };
    facts.encrypted |= room.was_encrypted;
    report.add(ENCRYPTION, judge_encryption(api, &facts));
    report.add(POWER, judge_power(api, &facts));
    commanders::look(report, api, &facts, &members).await;
    hosts::look(report, api, &room.room, &facts, &members).await;
    Ok(())
}

async fn look_at_membership(
    report: &mut Report,
    api: &Api<'_>,
    room: &RoomId,
    rooms: Option<&Value>,
) -> Result<(), Blocked> {
    const NOT_YET: Blocked = "the bot is not in the admin room yet; run the bot, and check again";
    let bot = api.bot();
    let is_invited = rooms.map(|rooms| {
        rooms
            .pointer("/invite")
            .is_some_and(|all| all.get(room.as_str()).is_some())
    });
    let (outcome, then) = match (joined_rooms(api).await, is_invited) {
        (Err(trouble), _) => (
            unexpected(&trouble),
            Err("the homeserver does not tell in which rooms the bot is"),
        ),
        (Ok(joined), _) if joined.iter().any(|joined| joined == room) => {
            (Outcome::passed("joined"), Ok(()))
        }
        (Ok(_), Some(true)) => (
            Outcome::passed("invited; the bot joins when it runs"),
            Err(NOT_YET),
        ),
        (Ok(_), Some(false)) => (
            Outcome::failed(
                "the bot is neither in the room nor invited to it",
                format!("invite {bot} to the room; if it is banned there, lift the ban first"),
            ),
            Err("the bot is not in the admin room"),
        ),
        (Ok(_), None) => (
            Outcome::warning(
                "the bot is not in the room, and whether it is invited cannot be told before it has run",
                format!(
                    "invite {bot} to the room, if that is not done; run the bot, and check again"
                ),
            ),
            Err(NOT_YET),
        ),
    };
    report.step(MEMBERSHIP, outcome, then)
}

pub(super) async fn joined_rooms(api: &Api<'_>) -> Result<Vec<OwnedRoomId>, Trouble> {
    let path = ["client", "v3", "joined_rooms"];
    let answer: JoinedRooms = api.get(Asker::Bot, &path, &[]).await?;
    Ok(answer.joined_rooms)
}

/// What decides about the commands of everybody in the room, and who is in it.
async fn ask_for_facts(
    api: &Api<'_>,
    room: &RoomId,
) -> Result<(RoomFacts, Vec<OwnedUserId>), Trouble> {
    let of_room = ["client", "v3", "rooms", room.as_str()];
    let create = [&of_room[..], &["state", "m.room.create", ""]].concat();
    let events = StateEvents {
        // Every room has one.
        create: api.get(Asker::Bot, &create, &[("format", "event")]).await?,
        power_levels: state(api, room, "m.room.power_levels").await?,
        join_rules: state(api, room, "m.room.join_rules").await?,
        // Only members are judged.
        member: Some(RoomMemberEventContent::new(MembershipState::Join)),
    };
    let encryption: Option<Value> = state(api, room, "m.room.encryption").await?;
    let path = [&of_room[..], &["joined_members"]].concat();
    let members: JoinedMembers = api.get(Asker::Bot, &path, &[]).await?;
    let facts = RoomFacts::from_state(events, encryption.is_some());
    let users = members.joined.keys();
    let users = users.filter_map(|user| OwnedUserId::try_from(user.as_str()).ok());
    Ok((facts, users.filter(|user| *user != api.bot()).collect()))
}

fn judge_encryption(api: &Api<'_>, facts: &RoomFacts) -> Outcome {
    let remedy = "turn on encryption in the room's settings";
    match (
        facts.encrypted,
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

fn judge_power(api: &Api<'_>, facts: &RoomFacts) -> Outcome {
    let bot = api.bot();
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

/// The content of a state event; `None` where the homeserver says that there is no such event.
pub(super) async fn state<T: DeserializeOwned>(
    api: &Api<'_>,
    room: &RoomId,
    kind: &str,
) -> Result<Option<T>, Trouble> {
    let path = ["client", "v3", "rooms", room.as_str(), "state", kind, ""];
    api.find(Asker::Bot, &path, &[("format", "content")]).await
}
