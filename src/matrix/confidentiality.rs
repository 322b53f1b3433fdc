//! Whether a room is confidential: encrypted, and nobody but the bot and one user is in it, or ever was.
//!
//! Invariant: the homeserver's state and the SDK's store must both say so: the SDK encrypts and shares keys by its store.

use std::collections::{BTreeMap, BTreeSet};

use matrix_sdk::{
    Room, RoomMemberships,
    ruma::{
        EventEncryptionAlgorithm, UserId,
        events::{StateEventType, room::member::MembershipState},
    },
};
use serde_json::Value;
use tracing::error;

use super::{
    Chain, Fault,
    facts::{CurrentState, Membership},
};

/// The only room encryption algorithm that the SDK supports. With another one nothing can be sent.
const ALGORITHM: EventEncryptionAlgorithm = EventEncryptionAlgorithm::MegolmV1AesSha2;

/// Why a link may not be sent to a user. Nothing was sent, except with [`Self::Overheard`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotConfidential {
    /// The requester has no cross-signing identity, so nothing proves which devices are theirs.
    NoIdentity,
    /// The requester's identity is not the one that the bot signed.
    IdentityChanged,
    /// None of the requester's devices may read it.
    NoReadableDevice,
    /// Another user came into the room while the link was sent. It was redacted, and may have been read before.
    Overheard,
    /// The homeserver refused to create a room with the requester.
    RoomRefused { reason: String },
}

#[derive(Debug)]
pub(crate) enum NotSent {
    Refused(NotConfidential),
    /// Sending failed; it may or may not have arrived.
    Fault(Fault),
}

impl<F: Into<Fault>> From<F> for NotSent {
    fn from(fault: F) -> Self {
        match fault.into() {
            Fault::IdentityChanged { .. } => Self::Refused(NotConfidential::IdentityChanged),
            fault => Self::Fault(fault),
        }
    }
}

/// Whether a room is encrypted, exactly the bot and the recipient are in it or invited, and nobody else ever was.
pub(super) async fn is_confidential(room: &Room, recipient: &UserId) -> Result<bool, Fault> {
    let state = CurrentState::of(&room.client(), room.room_id()).await?;
    let two = two(room, recipient);
    let is_encrypted = room.latest_encryption_state().await?.is_encrypted()
        && room
            .encryption_settings()
            .is_some_and(|settings| settings.algorithm == Some(ALGORITHM));
    if !is_encrypted || !says_encrypted(&state) || members(&state) != two {
        return Ok(false);
    }
    if members_in_store(room).await? == two {
        return Ok(true);
    }
    room.mark_members_missing();
    room.sync_members().await?;
    Ok(members_in_store(room).await? == two)
}

fn says_encrypted(state: &CurrentState) -> bool {
    let content = state.content::<Value>(StateEventType::RoomEncryption, "");
    let content = content.ok().flatten().unwrap_or_default();
    content.get("algorithm").and_then(Value::as_str) == Some(ALGORITHM.as_str())
}

/// Whether nobody but the bot and the recipient was ever in the room, by the store only.
///
/// The SDK shares keys with the members in the store at that moment, and the store never forgets who has left. So this check
/// after a send finds a user who came and left since the check before it, whatever the homeserver says or withholds by then.
pub(super) async fn was_between_two(room: &Room, recipient: &UserId) -> bool {
    match members_in_store(room).await {
        Ok(members) => {
            let two = two(room, recipient);
            members.keys().all(|user| two.contains_key(user))
        }
        Err(fault) => {
            error!(room = %room.room_id(), error = %Chain(&fault), "cannot find out who was in the room");
            false
        }
    }
}

/// Each user who was ever a member, and whether they are in the room or invited.
type Members = BTreeMap<String, bool>;

fn two(room: &Room, recipient: &UserId) -> Members {
    let two = [room.own_user_id(), recipient];
    two.map(|user| (user.to_string(), true)).into()
}

/// By the member events. Only the membership is read, as the other fields are the member's own and may be invalid. A user
/// whose membership is unreadable counts as present.
fn members(state: &CurrentState) -> Members {
    let events = state.events(StateEventType::RoomMember);
    let members = events.map(|event| {
        let user: Option<String> = event.get_field("state_key").ok().flatten();
        let content: Option<Membership> = event.get_field("content").ok().flatten();
        // A user who knocks is not in the room.
        let is_away = content.is_some_and(|content| {
            matches!(
                content.membership,
                MembershipState::Leave | MembershipState::Ban | MembershipState::Knock
            )
        });
        (user.unwrap_or_default(), !is_away)
    });
    members.collect()
}

/// Whether a user is invited and has not joined yet, by the last sync.
pub(super) async fn is_invited(room: &Room, user: &UserId) -> bool {
    let (client, id) = (room.client(), room.room_id());
    let store = client.state_store();
    let invited = store.get_user_ids(id, RoomMemberships::INVITE).await;
    invited.is_ok_and(|invited| invited.iter().any(|it| it == user))
}

/// From the table by which the SDK shares keys.
async fn members_in_store(room: &Room) -> Result<Members, Fault> {
    let (client, id) = (room.client(), room.room_id());
    let store = client.state_store();
    let present = store.get_user_ids(id, RoomMemberships::ACTIVE).await?;
    let present: BTreeSet<_> = present.into_iter().collect();
    let ever = store.get_user_ids(id, RoomMemberships::empty()).await?;
    let members = ever.iter();
    Ok(members
        .map(|user| (user.to_string(), present.contains(user)))
        .collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn members(events: &[Value]) -> Members {
        super::members(&serde_json::from_value(json!(events)).unwrap())
    }

    fn event(user: &str, content: &Value) -> Value {
        json!({ "type": "m.room.member", "state_key": user, "content": content })
    }

    #[test]
    fn other_fields_of_a_member_event_may_be_invalid() {
        let two = ["@bot:x.y", "@alice:x.y"];
        let two = Members::from(two.map(|user| (user.to_owned(), true)));
        let bot = event("@bot:x.y", &json!({ "membership": "join" }));
        let nonsense = json!({ "membership": "invite", "displayname": 7, "avatar_url": {} });
        let alice = event("@alice:x.y", &nonsense);
        assert_eq!(members(&[bot.clone(), alice.clone()]), two);
        for third in [
            event("@mallory:x.y", &json!({ "membership": "leave" })),
            event("@mallory:x.y", &json!({ "membership": 7 })),
            event("not a user", &json!({ "membership": "join" })),
            json!({ "type": "m.room.member", "content": { "membership": "join" } }),
        ] {
            let members = members(&[bot.clone(), alice.clone(), third.clone()]);
            assert_ne!(members, two, "{third}");
        }
        for content in [
            json!({ "membership": "leave" }),
            json!({ "membership": "ban" }),
        ] {
            let members = members(&[bot.clone(), event("@alice:x.y", &content)]);
            assert_ne!(members, two, "{content}");
            assert!(members.keys().eq(two.keys()));
        }
        let content = json!({ "displayname": "Alice" });
        let unknown = event("@alice:x.y", &content);
        assert_eq!(members(&[bot, unknown]), two, "it counts as present");
    }
}
