//! What a person does in rooms, and the homeserver's view of them.

use std::collections::BTreeMap;

use anyhow::Result;
use matrix_sdk::{
    Room,
    ruma::{
        OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, TransactionId, UserId,
        api::client::{
            membership::get_member_events,
            message::send_message_event,
            room::{create_room, get_room_event},
        },
        api::error::ErrorKind,
        assign,
        events::{
            EmptyStateKey, InitialStateEvent, MessageLikeEventContent,
            room::{encryption::RoomEncryptionEventContent, message::RoomMessageEventContent},
        },
        serde::Raw,
    },
};
use serde_json::{Value, json};

use super::person::Person;

/// How to create a room.
#[derive(Debug, Clone, Default)]
pub(crate) struct RoomOptions {
    pub(crate) encrypted: bool,
    pub(crate) version: Option<RoomVersionId>,
    pub(crate) invite: Vec<OwnedUserId>,
    /// The content of `m.room.create`, if any.
    pub(crate) creation: Option<Value>,
    /// Overrides keys of `m.room.power_levels`.
    pub(crate) power_levels: Option<Value>,
    pub(crate) alias: Option<String>,
}

impl Person {
    /// Makes a private room and waits until this client knows it.
    pub(crate) async fn create_room(&self, options: RoomOptions) -> Result<OwnedRoomId> {
        let encryption = InitialStateEvent::new(
            EmptyStateKey,
            RoomEncryptionEventContent::with_recommended_defaults(),
        );
        let request = assign!(create_room::v3::Request::new(), {
            creation_content: options.creation.map(|creation| Raw::new(&creation)).transpose()?.map(Raw::cast_unchecked),
            preset: Some(create_room::v3::RoomPreset::PrivateChat),
            initial_state: if options.encrypted { vec![encryption.to_raw_any()] } else { Vec::new() },
            invite: options.invite,
            room_version: options.version,
            room_alias_name: options.alias,
            power_level_content_override: options.power_levels.map(|levels| Raw::new(&levels)).transpose()?.map(Raw::cast_unchecked),
        });
        let room = self.client().create_room(request).await?;
        let room = room.room_id().to_owned();
        self.wait_for("the new room in the sync", |event| event.room == room)
            .await?;
        Ok(room)
    }

    /// Makes an encrypted admin room of the server's own room version, with the bot invited.
    pub(crate) async fn create_admin_room(&self, bot: &UserId) -> Result<OwnedRoomId> {
        self.create_room(RoomOptions {
            encrypted: true,
            invite: vec![bot.to_owned()],
            ..RoomOptions::default()
        })
        .await
    }

    /// Sends a message, encrypted where the room is.
    pub(crate) async fn send_text(&self, room: &RoomId, text: &str) -> Result<OwnedEventId> {
        self.send(room, RoomMessageEventContent::text_plain(text))
            .await
    }

    /// Sends any content, encrypted where the room is.
    pub(crate) async fn send(
        &self,
        room: &RoomId,
        content: impl MessageLikeEventContent,
    ) -> Result<OwnedEventId> {
        Ok(self.room(room).send(content).await?.response.event_id)
    }

    /// Sends a message in plain text even where the room is encrypted.
    pub(crate) async fn send_plain_text(&self, room: &RoomId, text: &str) -> OwnedEventId {
        let content = json!({ "msgtype": "m.text", "body": text });
        self.send_as_it_is(room, "m.room.message", &content).await
    }

    /// Sends an event unencrypted, even where the room is encrypted.
    pub(crate) async fn send_as_it_is(
        &self,
        room: &RoomId,
        kind: &str,
        content: &Value,
    ) -> OwnedEventId {
        let content = Raw::new(content).unwrap().cast_unchecked();
        let transaction = TransactionId::new();
        let room = room.to_owned();
        let request =
            send_message_event::v3::Request::new_raw(room, transaction, kind.into(), content);
        self.client().send(request).await.unwrap().event_id
    }

    pub(crate) async fn invite(&self, room: &RoomId, user: &UserId) -> Result<()> {
        Ok(self.room(room).invite_user_by_id(user).await?)
    }

    /// Joins a room and waits until this client knows it.
    pub(crate) async fn join(&self, room: &RoomId) {
        self.client().join_room_by_id(room).await.unwrap();
        self.sees("the joined room", |event| event.room == room)
            .await;
    }

    /// An event as the homeserver has it now: still encrypted, or with its content redacted away.
    pub(crate) async fn event_from_server(
        &self,
        room: &RoomId,
        event: &OwnedEventId,
    ) -> Result<Value> {
        let request = get_room_event::v3::Request::new(room.to_owned(), event.clone());
        let answer = self.client().send(request).await?;
        Ok(answer.event.deserialize_as_unchecked()?)
    }

    /// Each user of the room with its membership (`join`, `invite`, ..), as the homeserver has them now.
    pub(crate) async fn members(&self, room: &RoomId) -> Result<BTreeMap<String, String>> {
        let request = get_member_events::v3::Request::new(room.to_owned());
        let response = self.client().send(request).await?;
        let member = |event: Value| {
            Some((
                event.get("state_key")?.as_str()?.to_owned(),
                event.pointer("/content/membership")?.as_str()?.to_owned(),
            ))
        };
        let events = response.chunk.iter();
        let events = events.filter_map(|event| event.deserialize_as_unchecked().ok());
        Ok(events.filter_map(member).collect())
    }

    /// A room that this client knows.
    pub(crate) fn room(&self, room: &RoomId) -> Room {
        let known = self.client().get_room(room);
        known.unwrap_or_else(|| panic!("{} does not know {room}", self.user_id()))
    }
}

/// Asserts that it failed because the homeserver forbade it.
#[track_caller]
pub(crate) fn assert_forbidden(failed: &anyhow::Error) {
    let error = failed.downcast_ref::<matrix_sdk::Error>();
    let kind = error.and_then(matrix_sdk::Error::client_api_error_kind);
    assert_eq!(kind, Some(&ErrorKind::Forbidden), "{failed:#}");
}
