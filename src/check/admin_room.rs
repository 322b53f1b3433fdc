//! The admin room: whether the bot is in it, whether it is encrypted, and what the bot may do there.

use matrix_sdk::ruma::{
    OwnedRoomId, OwnedUserId, RoomId,
    events::{
        MessageLikeEventType,
        room::member::{MembershipState, RoomMemberEventContent},
    },
};
use serde::de::DeserializeOwned;
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

/// Looks at a room, of which /sync gave `sync`.
pub(super) async fn look(
    report: &mut Report,
    api: &Api<'_>,
    room: &StoredRoom,
    sync: &Value,
) -> Result<(), Blocked> {
    look_at_membership(report, api, &room.id, sync).await?;
    look_at_upgrade(report, api, &room.id).await;
    let (mut facts, members) = match ask_for_facts(api, &room.id).await {
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
    hosts::look(report, api, &room.id, &facts, &members).await;
    Ok(())
}

async fn look_at_membership(
    report: &mut Report,
    api: &Api<'_>,
    room: &RoomId,
    sync: &Value,
) -> Result<(), Blocked> {
    let bot = api.bot();
    let has = |kind: &str| {
        sync.pointer(&format!("/rooms/{kind}"))
            .is_some_and(|all| all.get(room.as_str()).is_some())
    };
    let joined = match joined_rooms(api).await {
        Ok(joined) => joined,
        Err(trouble) => {
            report.add(MEMBERSHIP, unexpected(&trouble));
            return Err("the homeserver does not tell in which rooms the bot is");
        }
    };
    let (outcome, blocked) = if joined.iter().any(|joined| joined == room) {
        (Outcome::passed("joined"), None)
    } else if has("invite") {
        (
            Outcome::passed("invited; the bot joins when it runs"),
            Some("the bot is not in the admin room yet; run the bot, and check again"),
        )
    } else {
        (
            Outcome::failed(
                "the bot is neither in the room nor invited to it",
                format!("invite {bot} to the room; if it is banned there, lift the ban first"),
            ),
            Some("the bot is not in the admin room"),
        )
    };
    report.add(MEMBERSHIP, outcome);
    blocked.map_or(Ok(()), Err)
}

pub(super) async fn joined_rooms(api: &Api<'_>) -> Result<Vec<OwnedRoomId>, Trouble> {
    let path = ["client", "v3", "joined_rooms"];
    let answer = api.get(Asker::Bot, &path, &[]).await?;
    field(&answer, "joined_rooms").ok_or(Trouble::Nonsense)
}

/// What decides about the commands of everybody in the room, and who is in it.
async fn ask_for_facts(
    api: &Api<'_>,
    room: &RoomId,
) -> Result<(RoomFacts, Vec<OwnedUserId>), Trouble> {
    let create = state(api, room, "m.room.create", "", "event").await?;
    let events = StateEvents {
        create: create.ok_or(Trouble::Nonsense)?,
        power_levels: state(api, room, "m.room.power_levels", "", "content").await?,
        join_rules: state(api, room, "m.room.join_rules", "", "content").await?,
        // Only members are judged.
        member: Some(RoomMemberEventContent::new(MembershipState::Join)),
    };
    let encryption: Option<Value> = state(api, room, "m.room.encryption", "", "content").await?;
    let path = ["client", "v3", "rooms", room.as_str(), "joined_members"];
    let members = api.get(Asker::Bot, &path, &[]).await?;
    let members = members.get("joined").and_then(Value::as_object);
    let members = members.ok_or(Trouble::Nonsense)?;
    let facts = RoomFacts::from_state(events, encryption.is_some());
    let users = members.keys();
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
        let redacts = if levels.user_can_redact_own_event(bot) {
            "send messages and redact its own"
        } else {
            "send messages, and not redact them"
        };
        return Outcome::passed(format!("the bot may {redacts}"));
    }
    let needs = levels.for_message(kind);
    Outcome::failed(
        format!("the bot may not send messages, which takes power level {needs}"),
        format!("give {bot} power level {needs} in the room's settings"),
    )
}

/// A state event or its content; `None` where the homeserver says that there is no such event.
pub(super) async fn state<T: DeserializeOwned>(
    api: &Api<'_>,
    room: &RoomId,
    kind: &str,
    key: &str,
    format: &str,
) -> Result<Option<T>, Trouble> {
    let path = ["client", "v3", "rooms", room.as_str(), "state", kind, key];
    let answer = api.find(Asker::Bot, &path, &[("format", format)]).await?;
    let event = answer.map(serde_json::from_value).transpose();
    event.map_err(|_| Trouble::Nonsense)
}

pub(super) fn field<T: DeserializeOwned>(answer: &Value, key: &str) -> Option<T> {
    serde_json::from_value(answer.get(key)?.clone()).ok()
}
