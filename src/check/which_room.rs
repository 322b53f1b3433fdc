//! Which room the admin room is: the one that the configuration names, or the one to which the bot followed it.

use std::io;

use matrix_sdk::ruma::{
    OwnedRoomId, OwnedRoomOrAliasId, RoomId, events::room::tombstone::RoomTombstoneEventContent,
};
use serde::Deserialize;

use super::{
    Blocked, Outcome, Report,
    admin_room::{joined_rooms, state},
    api::{Api, Asker, Trouble},
    homeserver::unexpected,
};
use crate::{
    data_dir,
    matrix::{Chain, Fault, MatrixFolder, StoredRoom},
};

pub(super) const ROOM: &str = "admin room";
pub(super) const UPGRADE: &str = "admin room upgrade";

const UNKNOWN: Blocked = "the admin room is not known";

#[derive(Debug, Deserialize)]
struct Alias {
    room_id: OwnedRoomId,
}

/// Which room it is. Where the bot was in it, that room counts, whatever an alias says now.
pub(super) async fn find(report: &mut Report, api: &Api<'_>) -> Result<StoredRoom, Blocked> {
    let folder = MatrixFolder::new(data_dir::matrix(&api.config.data_dir));
    let (outcome, room) = match folder.admin_room(&api.config.admin_room) {
        Ok(Some(known)) => (judge_known(api, &known.room).await, Ok(known)),
        Ok(None) => look_up(api).await,
        Err(fault) => (unreadable(&fault), Err(UNKNOWN)),
    };
    report.step(ROOM, outcome, room)
}

/// What is said where the bot's own files cannot be read.
pub(super) fn unreadable(fault: &Fault) -> Outcome {
    match fault {
        Fault::UnreadableFile { path, remedy } => Outcome::failed(
            format!("the file {} makes no sense", path.display()),
            format!("{remedy}; stop the bot before that, and start it again"),
        ),
        Fault::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            Outcome::failed(
                Chain(fault).to_string(),
                "do what `data directory` in this report says",
            )
        }
        fault => Outcome::failed(
            Chain(fault).to_string(),
            "make it a file that the bot can read and write, or move it away while no bot runs",
        ),
    }
}

/// The room that the bot was in.
async fn judge_known(api: &Api<'_>, known: &RoomId) -> Outcome {
    let configured = &api.config.admin_room;
    if <&RoomId>::try_from(&**configured).is_ok() {
        return Outcome::passed(if configured.as_str() == known.as_str() {
            known.to_string()
        } else {
            format!("{known}, to which the bot followed {configured}")
        });
    }
    match resolve(api).await {
        Ok(Some(other)) if other != known => Outcome::warning(
            format!("{configured} leads to {other} now, and the bot stays in {known}"),
            format!(
                "set `admin_room: \"{known}\"` in config.yaml, or \"{other}\" if commands are to count there, and start the \
                 bot again"
            ),
        ),
        Ok(Some(_)) => Outcome::passed(format!("{configured} is {known}")),
        Ok(None) => Outcome::passed(format!("{known}, to which {configured} led once")),
        Err(trouble) => unexpected(&trouble),
    }
}

/// The room that the configuration names.
async fn look_up(api: &Api<'_>) -> (Outcome, Result<StoredRoom, Blocked>) {
    let configured = &api.config.admin_room;
    let found = |room: OwnedRoomId| {
        Ok(StoredRoom {
            configured: configured.clone(),
            room,
            was_encrypted: false,
        })
    };
    if let Ok(id) = OwnedRoomId::try_from(OwnedRoomOrAliasId::clone(configured)) {
        return (Outcome::passed(id.as_str()), found(id));
    }
    match resolve(api).await {
        Ok(Some(id)) => (Outcome::passed(format!("{configured} is {id}")), found(id)),
        Ok(None) => (
            Outcome::failed(
                format!("no room has the address {configured}"),
                "give the room this address in its settings, or correct `admin_room` in config.yaml",
            ),
            Err("there is no admin room"),
        ),
        Err(trouble) => (unexpected(&trouble), Err(UNKNOWN)),
    }
}

/// Where the configured alias leads. `None`: nowhere.
async fn resolve(api: &Api<'_>) -> Result<Option<OwnedRoomId>, Trouble> {
    let alias = api.config.admin_room.as_str();
    let path = ["client", "v3", "directory", "room", alias];
    let answer = api.find(Asker::Bot, &path, &[]).await?;
    Ok(answer.map(|Alias { room_id }| room_id))
}

/// Whether the room has a successor, in which the bot is not yet.
pub(super) async fn look_at_upgrade(report: &mut Report, api: &Api<'_>, room: &RoomId) {
    let outcome = judge_upgrade(api, room).await;
    report.add(
        UPGRADE,
        outcome.unwrap_or_else(|trouble| unexpected(&trouble)),
    );
}

async fn judge_upgrade(api: &Api<'_>, room: &RoomId) -> Result<Outcome, Trouble> {
    let tombstone: Option<RoomTombstoneEventContent> = state(api, room, "m.room.tombstone").await?;
    let Some(successor) = tombstone.map(|content| content.replacement_room) else {
        return Ok(Outcome::passed("none"));
    };
    let bot = api.bot();
    let remedy = if joined_rooms(api).await?.contains(&successor) {
        format!("set `admin_room: \"{successor}\"` in config.yaml if commands are to count there")
    } else {
        format!(
            "invite {bot} to {successor} while it runs: it goes there if who upgraded the room may command. If it does not, \
             set `admin_room: \"{successor}\"` in config.yaml"
        )
    };
    Ok(Outcome::warning(
        format!("the room was upgraded to {successor}, and the bot is still in the old one"),
        format!("{remedy}, and restart the bot"),
    ))
}
