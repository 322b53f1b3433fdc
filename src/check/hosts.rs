//! Several hosts in one admin room: whether their bots can tell one another apart.

use matrix_sdk::ruma::{OwnedUserId, RoomId, events::StateEventType};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Outcome, Report,
    api::{Api, Asker, Trouble},
    homeserver::unexpected,
};
use crate::{
    config::HostName,
    matrix::{HOST_EVENT, HostEvent, RoomFacts},
};

pub(super) const HOSTS: &str = "hosts in the room";

/// What the other bots in the room announce, and whether this one can.
pub(super) async fn look(
    report: &mut Report,
    api: &Api<'_>,
    room: &RoomId,
    facts: &RoomFacts,
    members: &[OwnedUserId],
) {
    let outcome = match others(api, room, members).await {
        Ok(others) => judge(api, facts, &others),
        Err(trouble) => unexpected(&trouble),
    };
    report.add(HOSTS, outcome);
}

/// As the bot itself sees them: a host is announced by its own bot, which is in the room.
async fn others(
    api: &Api<'_>,
    room: &RoomId,
    members: &[OwnedUserId],
) -> Result<Vec<HostEvent>, Trouble> {
    let path = ["client", "v3", "rooms", room.as_str(), "state"];
    let events: Vec<Value> = api.get(Asker::Bot, &path, &[]).await?;
    let announcements = events
        .iter()
        .filter(|event| event.get("type").and_then(Value::as_str) == Some(HOST_EVENT));
    Ok(announcements
        .filter_map(|event| HostEvent::deserialize(event).ok())
        .filter(|event| members.contains(&event.bot))
        .collect())
}

fn judge(api: &Api<'_>, facts: &RoomFacts, others: &[HostEvent]) -> Outcome {
    let names: Vec<_> = others
        .iter()
        .map(|event| event.announcement.host.as_str())
        .collect();
    let Some(own) = &api.config.host else {
        return judge_nameless(&names);
    };
    if let Some(same) = others
        .iter()
        .find(|event| event.announcement.host == own.as_str())
    {
        return Outcome::failed(
            format!(
                "{} calls its host {own} too, so each command to it is obeyed by both",
                same.bot
            ),
            "set `host` in config.yaml to a name that no other host has, and restart the bot",
        );
    }
    let bot = api.bot();
    let kind = StateEventType::from(HOST_EVENT);
    let levels = facts.levels();
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
        "alone so far".to_owned()
    } else {
        format!("beside {}", names.join(", "))
    };
    Outcome::passed(format!("this one is {own}, {beside}"))
}

/// Without a name in the configuration a host is not announced, so that the other bots do not know of it.
fn judge_nameless(names: &[&str]) -> Outcome {
    if names.is_empty() {
        return Outcome::passed("this one alone");
    }
    Outcome::failed(
        format!(
            "others are announced here ({}), and this one has no name, so that several bots answer",
            names.join(", ")
        ),
        format!(
            "set `host` in config.yaml to a name that no other host has, such as `host: {}`, and restart the bot",
            HostName::of_system()
        ),
    )
}
