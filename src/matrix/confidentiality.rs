//! Whether a room is confidential: encrypted, and between the bot and one person only, now and ever.
//!
//! Invariant: two have to say so, the homeserver now, and the SDK, which encrypts and shares keys by what it believes.

use std::collections::BTreeSet;

use matrix_sdk::{
    Room, RoomMemberships,
    ruma::{
        EventEncryptionAlgorithm, UserId,
        api::client::state::get_state_events,
        events::{AnyStateEvent, StateEventType, room::member::MembershipState},
        serde::Raw,
    },
};
use serde::Deserialize;
use serde_json::Value;
use tracing::error;

use super::{Chain, Fault};

/// The one algorithm of rooms that the SDK speaks. With another one nothing can be sent.
const ALGORITHM: EventEncryptionAlgorithm = EventEncryptionAlgorithm::MegolmV1AesSha2;

/// Why a link may not be sent to somebody. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotConfidential {
    /// The requester has no cross-signing identity, so it cannot be told which devices are theirs.
    NoIdentity,
    /// The requester's identity is another one than the one we signed.
    IdentityChanged,
    /// None of the requester's devices may read it.
    NoReadableDevice,
    /// Somebody else came into the room while the link was sent. It was redacted, and may have been read before.
    Overheard,
    /// The homeserver would not make a room with the requester.
    RoomRefused {
        /// Its words.
        reason: String,
    },
}

/// Why a link was not sent.
#[derive(Debug)]
pub enum NotSent {
    /// It may not be.
    Refused(NotConfidential),
    /// It could not be; it may or may not have arrived.
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

/// Whether a room is encrypted, by the homeserver's word and by the SDK's, and exactly the bot and the recipient are in it or
/// invited, and nobody else ever was: as the homeserver says now, and as the SDK believes, which decides who gets the key.
pub(super) async fn is_confidential(room: &Room, recipient: &UserId) -> Result<bool, Fault> {
    let request = get_state_events::v3::Request::new(room.room_id().to_owned());
    // All that the room is at one moment.
    let state = room.client().send(request).await?.room_state;
    let two = two(room, recipient);
    let is_encrypted = room.latest_encryption_state().await?.is_encrypted()
        && room
            .encryption_settings()
            .is_some_and(|settings| settings.algorithm == Some(ALGORITHM));
    if !is_encrypted || !says_encrypted(&state) || !Members::of(&state).are(&two) {
        return Ok(false);
    }
    if members_in_store(room).await?.are(&two) {
        return Ok(true);
    }
    room.mark_members_missing();
    room.sync_members().await?;
    Ok(members_in_store(room).await?.are(&two))
}

fn says_encrypted(state: &[Raw<AnyStateEvent>]) -> bool {
    let mut events = events_of(state, StateEventType::RoomEncryption);
    events.any(|event| {
        let state_key: Option<String> = event.get_field("state_key").ok().flatten();
        let content: Option<Value> = event.get_field("content").ok().flatten();
        let content = content.unwrap_or_default();
        let algorithm = content.get("algorithm").and_then(Value::as_str);
        state_key.as_deref() == Some("") && algorithm == Some(ALGORITHM.as_str())
    })
}

fn events_of(
    state: &[Raw<AnyStateEvent>],
    kind: StateEventType,
) -> impl Iterator<Item = &Raw<AnyStateEvent>> {
    let is_one = move |event: &&Raw<AnyStateEvent>| {
        let found = event.get_field::<String>("type");
        found.is_ok_and(|found| found.as_deref() == Some(&*kind.to_string()))
    };
    state.iter().filter(is_one)
}

/// Whether nobody but the bot and the recipient was ever in the room, by the store only.
///
/// Keys go to whom the store has at that moment, and it never forgets who has left. So whoever came and went between a look
/// before a sending and this one after it is found, whatever the homeserver says by then, or does not say.
pub(super) async fn was_between_two(room: &Room, recipient: &UserId) -> bool {
    match members_in_store(room).await {
        Ok(members) => members.ever.is_subset(&two(room, recipient)),
        Err(fault) => {
            error!(room = %room.room_id(), error = %Chain(&fault), "cannot find out who was in the room");
            false
        }
    }
}

fn two(room: &Room, recipient: &UserId) -> BTreeSet<String> {
    BTreeSet::from([room.own_user_id().to_string(), recipient.to_string()])
}

#[derive(Deserialize)]
struct Membership {
    membership: MembershipState,
}

#[derive(Debug, Default)]
struct Members {
    /// Who is in the room, or invited.
    present: BTreeSet<String>,
    /// Of whom there is any member event.
    ever: BTreeSet<String>,
}

impl Members {
    /// What these events say. All that a member says of themselves may be nonsense, and means nothing here; whoever's
    /// membership cannot be read is taken for being there.
    fn of(state: &[Raw<AnyStateEvent>]) -> Self {
        let mut members = Self::default();
        for event in events_of(state, StateEventType::RoomMember) {
            let user: Option<String> = event.get_field("state_key").ok().flatten();
            let user = user.unwrap_or_default();
            let content: Option<Membership> = event.get_field("content").ok().flatten();
            // Knocking is not being there.
            let is_away = content.is_some_and(|content| {
                matches!(
                    content.membership,
                    MembershipState::Leave | MembershipState::Ban | MembershipState::Knock
                )
            });
            if !is_away {
                members.present.insert(user.clone());
            }
            members.ever.insert(user);
        }
        members
    }

    fn are(&self, wanted: &BTreeSet<String>) -> bool {
        self.present == *wanted && self.ever == *wanted
    }
}

/// Whether somebody was invited and has not come in yet, as far as the bot has heard.
pub(super) async fn is_invited(room: &Room, user: &UserId) -> bool {
    let (client, id) = (room.client(), room.room_id());
    let store = client.state_store();
    let invited = store.get_user_ids(id, RoomMemberships::INVITE).await;
    invited.is_ok_and(|invited| invited.iter().any(|it| it == user))
}

/// From the table by which the SDK shares keys.
async fn members_in_store(room: &Room) -> Result<Members, Fault> {
    let (client, id) = (room.client(), room.room_id());
    let users = async |memberships| {
        let users = client.state_store().get_user_ids(id, memberships).await;
        let users = users.map_err(matrix_sdk::Error::from)?;
        Ok::<_, Fault>(users.iter().map(ToString::to_string).collect())
    };
    Ok(Members {
        present: users(RoomMemberships::ACTIVE).await?,
        ever: users(RoomMemberships::empty()).await?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn members(events: &[Value]) -> Members {
        let raw = |event| Raw::from_json(serde_json::value::to_raw_value(event).unwrap());
        Members::of(&events.iter().map(raw).collect::<Vec<_>>())
    }

    fn event(user: &str, content: &Value) -> Value {
        json!({ "type": "m.room.member", "state_key": user, "content": content })
    }

    #[test]
    fn what_members_say_of_themselves_may_be_nonsense() {
        let two = BTreeSet::from(["@bot:x.y".to_owned(), "@alice:x.y".to_owned()]);
        let bot = event("@bot:x.y", &json!({ "membership": "join" }));
        let nonsense = json!({ "membership": "invite", "displayname": 7, "avatar_url": {} });
        let alice = event("@alice:x.y", &nonsense);
        assert!(members(&[bot.clone(), alice.clone()]).are(&two));
        for third in [
            event("@mallory:x.y", &json!({ "membership": "leave" })),
            event("@mallory:x.y", &json!({ "membership": 7 })),
            event("not a user", &json!({ "membership": "join" })),
            json!({ "type": "m.room.member", "content": { "membership": "join" } }),
        ] {
            let members = members(&[bot.clone(), alice.clone(), third.clone()]);
            assert!(!members.are(&two), "{third}");
        }
        for content in [
            json!({ "membership": "leave" }),
            json!({ "membership": "ban" }),
        ] {
            let members = members(&[bot.clone(), event("@alice:x.y", &content)]);
            assert!(!members.are(&two), "{content}");
            assert_eq!(members.ever, two);
        }
        let content = json!({ "displayname": "Alice" });
        assert!(
            members(&[bot, event("@alice:x.y", &content)]).are(&two),
            "unknown is there"
        );
    }
}
