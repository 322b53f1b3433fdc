//! The admin room: whether it is there, who gets in, who may command, and what the bot may do in it.

use matrix_sdk::ruma::{
    OwnedRoomId, OwnedUserId, RoomId,
    events::{
        MessageLikeEventType,
        room::{
            create::RoomCreateEventContent,
            join_rules::{JoinRule, RoomJoinRulesEventContent},
            member::MembershipState,
            power_levels::RoomPowerLevelsEventContent,
        },
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Blocked, Outcome, Report,
    api::{Api, Asker, Trouble},
    homeserver::unexpected,
};
use crate::{
    command::{Denied, Policy, authorize::authorize},
    config::RequireEncryptedCommands,
    matrix::{PowerLevels, RoomFacts, Trust},
};

pub(super) const ROOM: &str = "admin room";
pub(super) const MEMBERSHIP: &str = "admin room membership";
pub(super) const ENCRYPTION: &str = "admin room encryption";
pub(super) const ACCESS: &str = "admin room access";
pub(super) const COMMANDERS: &str = "who may command";
pub(super) const POWER: &str = "bot's power";

/// All of these, for those who cannot try them.
pub(super) const ALL: [&str; 6] = [ROOM, MEMBERSHIP, ENCRYPTION, ACCESS, COMMANDERS, POWER];

/// How many users are named before the rest is counted.
const NAMED: usize = 3;

/// Which room it is.
pub(super) async fn find(report: &mut Report, api: &Api<'_>) -> Result<OwnedRoomId, Blocked> {
    let configured = &api.config.admin_room;
    if let Ok(id) = <&RoomId>::try_from(&**configured) {
        report.add(ROOM, Outcome::passed(id.as_str()));
        return Ok(id.to_owned());
    }
    let path = ["client", "v3", "directory", "room", configured.as_str()];
    let (outcome, room) = match api.get(Asker::Bot, &path, &[]).await {
        Ok(answer) => match field::<OwnedRoomId>(&answer, "room_id") {
            Some(id) => (Outcome::passed(format!("{configured} is {id}")), Ok(id)),
            None => (
                unexpected(&Trouble::Nonsense),
                Err("the admin room is not known"),
            ),
        },
        Err(Trouble::Refused { status: 404, .. }) => (
            Outcome::failed(
                format!("no room has the address {configured}"),
                "give the room this address in its settings, or correct `admin_room` in config.yaml",
            ),
            Err("there is no admin room"),
        ),
        Err(trouble) => (unexpected(&trouble), Err("the admin room is not known")),
    };
    report.add(ROOM, outcome);
    room
}

/// Looks at a room, of which /sync gave `sync`.
pub(super) async fn look(
    report: &mut Report,
    api: &Api<'_>,
    room: &RoomId,
    sync: &Value,
) -> Result<(), Blocked> {
    look_at_membership(report, api, room, sync).await?;
    let (facts, members) = match ask_for_facts(api, room).await {
        Ok(known) => known,
        Err(trouble) => {
            report.add(ACCESS, unexpected(&trouble));
            return Err("the homeserver does not tell what it knows of the room");
        }
    };
    report.add(ENCRYPTION, judge_encryption(api, &facts));
    report.add(POWER, judge_power(api, &facts));
    let judged = judge_commanders(api, &facts, &members);
    report.add(ACCESS, judged.access);
    report.add(COMMANDERS, judged.commanders);
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
    let joined = api
        .get(Asker::Bot, &["client", "v3", "joined_rooms"], &[])
        .await;
    let is_joined = joined.is_ok_and(|answer| {
        let rooms = answer.get("joined_rooms").and_then(Value::as_array);
        rooms.is_some_and(|all| all.iter().any(|joined| joined == room.as_str()))
    });
    let (outcome, blocked) = if is_joined {
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

#[derive(Deserialize)]
struct CreateEvent {
    sender: OwnedUserId,
    content: RoomCreateEventContent,
}

/// What decides about the commands of everybody in the room, and who is in it.
async fn ask_for_facts(
    api: &Api<'_>,
    room: &RoomId,
) -> Result<(RoomFacts, Vec<OwnedUserId>), Trouble> {
    let create: Option<CreateEvent> = state(api, room, "m.room.create", "", "event").await?;
    let create = create.ok_or(Trouble::Nonsense)?;
    let levels: Option<RoomPowerLevelsEventContent> =
        state(api, room, "m.room.power_levels", "", "content").await?;
    let join_rules: Option<RoomJoinRulesEventContent> =
        state(api, room, "m.room.join_rules", "", "content").await?;
    let encryption: Option<Value> = state(api, room, "m.room.encryption", "", "content").await?;
    let path = ["client", "v3", "rooms", room.as_str(), "joined_members"];
    let members = api.get(Asker::Bot, &path, &[]).await?;
    let members = members.get("joined").and_then(Value::as_object);
    let mut creators = vec![create.sender];
    creators.extend(create.content.additional_creators);
    let facts = RoomFacts {
        room_version: create.content.room_version,
        creators,
        power_levels: levels.map_or(PowerLevels::Absent, |levels| {
            PowerLevels::Event(Box::new(levels))
        }),
        // Without the event a room is open to invited users alone.
        join_rule: join_rules.map_or(JoinRule::Invite, |rules| rules.join_rule),
        membership: MembershipState::Join,
        encrypted: encryption.is_some(),
    };
    let users = members.into_iter().flat_map(|all| all.keys());
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

struct Commanders {
    access: Outcome,
    commanders: Outcome,
}

/// Judges everybody in the room as the bot would judge a well-encrypted command of theirs.
fn judge_commanders(api: &Api<'_>, facts: &RoomFacts, members: &[OwnedUserId]) -> Commanders {
    let policy = Policy::of(api.config, None);
    let (mut allowed, mut denied) = (Vec::new(), Vec::new());
    for user in members {
        match authorize(user, Trust::CrossSigned, Some(facts), &policy) {
            Ok(_) => allowed.push(user.as_str()),
            Err(reason) => denied.push(reason),
        }
    }
    if let Some(access) = denied.iter().find_map(refused_room) {
        let commanders = Outcome::skipped("the room keeps nobody out");
        return Commanders { access, commanders };
    }
    let needs = policy.power_level;
    let commanders = if allowed.is_empty() {
        nobody(api, needs)
    } else {
        Outcome::passed(format!(
            "power level {needs} is needed, which {}",
            enumerate(&allowed)
        ))
    };
    let access = format!("join rule `{}`", facts.join_rule.as_str());
    let access = Outcome::passed(access);
    Commanders { access, commanders }
}

/// What is said of the room as a whole, if a member is refused for that.
fn refused_room(denied: &Denied) -> Option<Outcome> {
    let or_list = "or list in `authorization.users` in config.yaml who may command";
    if *denied == Denied::PublicRoom {
        return Some(Outcome::failed(
            "anybody can join the room, so no command counts",
            format!("make the room invite-only in its settings, {or_list}"),
        ));
    }
    let Denied::OpenToAllMembers { has, needs } = denied else {
        return None;
    };
    Some(Outcome::failed(
        format!("everybody in the room has power level {has}, so no command counts"),
        format!("lower the room's default power level below {needs} in its settings, {or_list}"),
    ))
}

fn nobody(api: &Api<'_>, needs: i64) -> Outcome {
    let listed: Vec<_> = api
        .config
        .authorization
        .users
        .keys()
        .map(|user| user.as_str())
        .collect();
    if listed.is_empty() {
        return Outcome::failed(
            format!("nobody in the room: power level {needs} is needed"),
            format!(
                "give a member power level {needs} in the room's settings, or lower `authorization.power_level` in config.yaml"
            ),
        );
    }
    Outcome::failed(
        format!("nobody: of `authorization.users` none is in the room with power level {needs}"),
        format!(
            "let {} join, and have power level {needs}",
            listed.join(" or ")
        ),
    )
}

fn enumerate(users: &[&str]) -> String {
    let named = users
        .iter()
        .take(NAMED)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    match users.len() {
        1 => format!("{named} has"),
        count if count <= NAMED => format!("{named} have"),
        count => format!("{named} and {} more have", count - NAMED),
    }
}

/// A state event or its content; `None` where the homeserver says that there is no such event.
async fn state<T: DeserializeOwned>(
    api: &Api<'_>,
    room: &RoomId,
    kind: &str,
    key: &str,
    format: &str,
) -> Result<Option<T>, Trouble> {
    let path = ["client", "v3", "rooms", room.as_str(), "state", kind, key];
    match api.get(Asker::Bot, &path, &[("format", format)]).await {
        Ok(answer) => serde_json::from_value(answer)
            .map(Some)
            .map_err(|_| Trouble::Nonsense),
        Err(Trouble::Refused { status: 404, .. }) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

fn field<T: DeserializeOwned>(answer: &Value, key: &str) -> Option<T> {
    serde_json::from_value(answer.get(key)?.clone()).ok()
}
