//! Whether a room is confidential: encrypted, and between the bot and one person alone, now and ever.
//!
//! Invariant: two have to say so, the homeserver now, and the SDK, which encrypts and shares keys by what it believes.

use std::collections::BTreeSet;

use matrix_sdk::{
    Room, RoomMemberships,
    ruma::{
        EventEncryptionAlgorithm, OwnedUserId, UserId,
        api::client::{
            membership::get_member_events, state::get_state_event_for_key::v3::StateEventFormat,
        },
        events::{
            StateEventType,
            room::member::{MembershipState, RoomMemberEvent},
        },
    },
};
use serde_json::Value;
use tracing::error;

use super::{Chain, Fault, admin_room::state_event};

/// The one algorithm of rooms that the SDK speaks. With another one nothing can be sent.
const ALGORITHM: EventEncryptionAlgorithm = EventEncryptionAlgorithm::MegolmV1AesSha2;

/// Whether a room is encrypted, by the homeserver's word and by the SDK's, and between the two alone. The homeserver is
/// asked for both at once: a person waits.
pub(super) async fn is_confidential(room: &Room, recipient: &UserId) -> Result<bool, Fault> {
    let (is_encrypted, is_between_two) = tokio::try_join!(
        is_encrypted_on_server(room),
        is_between_two(room, recipient)
    )?;
    let believed = room.latest_encryption_state().await?.is_encrypted()
        && room
            .encryption_settings()
            .is_some_and(|settings| settings.algorithm == Some(ALGORITHM));
    Ok(is_encrypted && is_between_two && believed)
}

async fn is_encrypted_on_server(room: &Room) -> Result<bool, Fault> {
    let content: Option<Value> = state_event(
        &room.client(),
        room.room_id(),
        StateEventType::RoomEncryption,
        "",
        StateEventFormat::default(),
    )
    .await?;
    let algorithm = content
        .as_ref()
        .and_then(|content| content.get("algorithm"));
    Ok(algorithm.and_then(Value::as_str) == Some(ALGORITHM.as_str()))
}

/// Whether exactly the bot and the recipient are in the room or invited, and nobody else ever was: as the homeserver says now,
/// and as the SDK believes, which decides who gets the key.
pub(super) async fn is_between_two(room: &Room, recipient: &UserId) -> Result<bool, Fault> {
    let two = two(room, recipient);
    if !members_on_server(room).await?.are(&two) {
        return Ok(false);
    }
    if members_in_store(room).await?.are(&two) {
        return Ok(true);
    }
    room.mark_members_missing();
    room.sync_members().await?;
    Ok(members_in_store(room).await?.are(&two))
}

/// Whether nobody but the bot and the recipient was ever in the room, by the store alone.
///
/// Keys go to whom the store has at that moment, and it never forgets who has left. So whoever came and went between a look
/// before a sending and this one after it is found, whatever the homeserver says by then, or does not say.
pub(super) async fn was_between_two(room: &Room, recipient: &UserId) -> bool {
    match members_in_store(room).await {
        Ok(members) => members.ever.is_subset(&two(room, recipient)),
        Err(fault) => {
            error!(room = %room.room_id(), error = %Chain(&fault), "it cannot be told who was in the room");
            false
        }
    }
}

fn two(room: &Room, recipient: &UserId) -> BTreeSet<OwnedUserId> {
    BTreeSet::from([room.own_user_id().to_owned(), recipient.to_owned()])
}

struct Members {
    /// Who is in the room, or invited.
    present: BTreeSet<OwnedUserId>,
    /// Of whom there is any member event.
    ever: BTreeSet<OwnedUserId>,
}

impl Members {
    fn are(&self, wanted: &BTreeSet<OwnedUserId>) -> bool {
        self.present == *wanted && self.ever == *wanted
    }
}

/// From the table by which the SDK shares keys.
async fn members_in_store(room: &Room) -> Result<Members, Fault> {
    let (client, id) = (room.client(), room.room_id());
    let users = async |memberships| {
        let users = client.state_store().get_user_ids(id, memberships).await;
        let users = users.map_err(matrix_sdk::Error::from)?;
        Ok::<BTreeSet<_>, Fault>(users.into_iter().collect())
    };
    Ok(Members {
        present: users(RoomMemberships::ACTIVE).await?,
        ever: users(RoomMemberships::empty()).await?,
    })
}

async fn members_on_server(room: &Room) -> Result<Members, Fault> {
    let request = get_member_events::v3::Request::new(room.room_id().to_owned());
    let response = room.client().send(request).await?;
    let mut members = Members {
        present: BTreeSet::new(),
        ever: BTreeSet::new(),
    };
    for event in response.chunk {
        let nonsense = |source| Fault::Nonsense {
            request: "the members of a room",
            source,
        };
        let event: RoomMemberEvent = event.deserialize().map_err(nonsense)?;
        // Knocking is not being there, and an unknown membership is taken for being there.
        let away = [
            MembershipState::Leave,
            MembershipState::Ban,
            MembershipState::Knock,
        ];
        if !away.contains(event.membership()) {
            members.present.insert(event.state_key().clone());
        }
        members.ever.insert(event.state_key().clone());
    }
    Ok(members)
}
