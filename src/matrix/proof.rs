//! What a command proves about its sender, at the time when it is judged.
//!
//! The event is fetched again: it may have been redacted since, and the facts about its device may have changed. And the SDK
//! decrypts one ciphertext as often as the homeserver shows it, under any event id and time. So each message's place in its
//! Megolm session is remembered once it has counted (specification, "Megolm": "Replay attacks").

use std::{sync::Arc, time::SystemTime};

use matrix_sdk::{
    Room,
    deserialized_responses::{AlgorithmInfo, EncryptionInfo, VerificationLevel, VerificationState},
    ruma::{
        EventId, UserId,
        api::{client::room::get_room_event, error::ErrorKind},
        events::{
            AnySyncMessageLikeEvent, AnySyncTimelineEvent, SyncMessageLikeEvent,
            room::encrypted::{EncryptedEventScheme, OriginalSyncRoomEncryptedEvent},
        },
        serde::Raw,
    },
};
use matrix_sdk_base::crypto::vodozemac::megolm::MegolmMessage;
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use super::{
    Fault, Matrix, Message, RoomFacts,
    facts::CurrentState,
    inbox::{self, Decrypted},
    replay::Place,
};
use crate::config::Devices;

/// What an event proves about its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Nothing: it was not encrypted.
    Plaintext,
    /// A device of the sender, signed by its owner.
    CrossSigned,
    /// A device of the sender that its owner has not signed.
    UnsignedDevice,
    /// The sender's identity is not the pinned one.
    IdentityChanged,
    /// It is not known which device encrypted it.
    UnknownDevice,
    /// Nothing: the event was redacted, or the homeserver shows another one in its place.
    Gone,
    /// Nothing: the same ciphertext counted before.
    Replayed,
    /// Nothing any more: it waited too long, for an unreachable homeserver for example. Its sender may no longer want it.
    TooOld,
}

/// What a command proves, and what has to be remembered if it counts.
#[derive(Debug)]
pub(crate) struct Proof {
    pub trust: Trust,
    /// `None`: it was not encrypted.
    place: Option<Place>,
}

impl Matrix {
    /// Fetches from the homeserver everything that decides about a command of this user.
    /// A fault proves nothing: conclude nothing from it.
    pub(crate) async fn room_facts(&self, user: &UserId) -> Result<RoomFacts, Fault> {
        let room = self.joined_admin_room()?;
        let state = CurrentState::of(&self.client, room.room_id()).await?;
        let mut facts = RoomFacts::of(&state, user, room.encryption_state().is_encrypted())?;
        if facts.encrypted {
            self.admin_room.note_encrypted()?;
        }
        facts.encrypted |= self.admin_room.was_encrypted();
        Ok(facts)
    }

    /// Fetches the event of a message again, and judges what it proves.
    /// A fault proves nothing: conclude nothing from it.
    pub(crate) async fn proof(&self, message: &Message) -> Result<Proof, Fault> {
        let room = self.joined_admin_room()?;
        let sender = &message.sender;
        let (trust, place) = match self.fetch(&room, message).await? {
            Shown::Nothing => (Trust::Gone, None),
            Shown::TooOld => (Trust::TooOld, None),
            Shown::Plaintext => {
                // A plain event comes with no device list, so the identity is requested.
                let encryption = self.client.encryption();
                let identity = encryption.request_user_identity(sender).await?;
                if self.note_change(sender, identity.as_ref()) {
                    (Trust::IdentityChanged, None)
                } else {
                    (Trust::Plaintext, None)
                }
            }
            Shown::Encrypted(place, _) if self.replay_protection.has_place(&place) => {
                warn!(event = %message.event_id, %sender, "an encrypted command was replayed");
                (Trust::Replayed, Some(place))
            }
            Shown::Encrypted(place, info) => {
                let trust = self.trust(&room, sender, info).await?;
                (trust, Some(place))
            }
        };
        Ok(Proof { trust, place })
    }

    /// Fetches a message as the homeserver shows it now, and the one that it edits: users can edit only their own messages, and
    /// nobody waits for an answer to an old one.
    async fn fetch(&self, room: &Room, message: &Message) -> Result<Shown, Fault> {
        let sender = &message.sender;
        if let Some(original) = &message.edits {
            let Some((_, original)) = get_event(room, original, sender).await? else {
                return Ok(Shown::Nothing);
            };
            if self.inbox.is_too_old((original.origin_server_ts(), None)) {
                return Ok(Shown::TooOld);
            }
        }
        let event = get_event(room, &message.event_id, sender).await?;
        let Some((event, AnySyncTimelineEvent::MessageLike(parsed))) = event else {
            return Ok(Shown::Nothing);
        };
        let sent = parsed.origin_server_ts();
        match parsed {
            AnySyncMessageLikeEvent::RoomMessage(SyncMessageLikeEvent::Original(text)) => {
                let is_same = inbox::text_of(&text) == Some(message.text.as_str());
                Ok(if !is_same {
                    Shown::Nothing
                } else if self.inbox.is_too_old((sent, text.unsigned.age)) {
                    Shown::TooOld
                } else {
                    Shown::Plaintext
                })
            }
            AnySyncMessageLikeEvent::RoomEncrypted(SyncMessageLikeEvent::Original(encrypted)) => {
                if self.inbox.is_too_old((sent, encrypted.unsigned.age)) {
                    return Ok(Shown::TooOld);
                }
                let raw = event.cast_unchecked();
                decrypt(room, message, &encrypted, &raw).await
            }
            _ => Ok(Shown::Nothing),
        }
    }

    /// Whether a command counted already. After a reconnect, the latest events may arrive a second time.
    pub(crate) fn has_counted(&self, message: &Message) -> bool {
        self.replay_protection.has_event(&message.event_id)
    }

    /// Records that a command counted, so that it never counts again, and pins its sender's identity if none is pinned yet.
    /// Fails if that cannot be saved.
    pub(crate) async fn count(&self, message: &Message, proof: &Proof) -> Result<(), Fault> {
        let replay_protection = Arc::clone(&self.replay_protection);
        let (event, place) = (message.event_id.clone(), proof.place.clone());
        // It waits for the disk, which must not block other tasks.
        let counted = spawn_blocking(move || {
            replay_protection.insert(&event, place.as_ref(), SystemTime::now())
        });
        counted.await.map_err(|_| Fault::Panicked)??;
        self.pin_if_new(&message.sender).await
    }

    /// A user's device list may arrive after their first message, and the store may hold an earlier lie of the homeserver. So
    /// both are requested before a device counts as unknown, or an identity as changed.
    async fn trust(
        &self,
        room: &Room,
        sender: &UserId,
        mut info: Arc<EncryptionInfo>,
    ) -> Result<Trust, Fault> {
        let encryption = self.client.encryption();
        let mut trust = trust_of(sender, &info);
        let mut identity = encryption.get_user_identity(sender).await?;
        let is_doubtful = matches!(trust, Trust::UnknownDevice | Trust::UnsignedDevice)
            || self.is_changed(sender, identity.as_ref());
        if is_doubtful {
            identity = encryption.request_user_identity(sender).await?;
            let session = info.session_id().unwrap_or_default();
            if let Some(newer) = room.get_encryption_info(session, sender).await {
                trust = trust_of(sender, &newer);
                info = newer;
            }
        }
        // Before it is compared: one that is pinned meanwhile was not.
        let is_known = self.is_pinned(sender);
        if self.note_change(sender, identity.as_ref()) {
            return Ok(Trust::IdentityChanged);
        }
        if trust != Trust::CrossSigned || self.config.encryption.devices == Devices::Any {
            return Ok(trust);
        }
        if let Some(identity) = identity.filter(|_| is_known) {
            self.sign_once(identity).await?;
        }
        if !self.is_signed_now(sender, &info, is_known).await? {
            encryption.request_user_identity(sender).await?;
            if !self.is_signed_now(sender, &info, is_known).await? {
                return Ok(Trust::UnsignedDevice);
            }
        }
        Ok(trust)
    }

    /// Whether the device that encrypted an event is signed by its owner's current identity; if that is the pinned one, by the
    /// one that the bot has signed.
    ///
    /// The SDK determines the sender of a Megolm session once, perhaps by another identity: an earlier one of the user, or one
    /// that the homeserver showed for a while.
    async fn is_signed_now(
        &self,
        sender: &UserId,
        info: &EncryptionInfo,
        is_known: bool,
    ) -> Result<bool, Fault> {
        let AlgorithmInfo::MegolmV1AesSha2 { curve25519_key, .. } = &info.algorithm_info else {
            return Ok(false);
        };
        let Some(device) = &info.sender_device else {
            return Ok(false);
        };
        let encryption = self.client.encryption();
        let Some(device) = encryption.get_device(sender, device).await? else {
            return Ok(false);
        };
        let is_same =
            device.curve25519_key().map(|key| key.to_base64()) == Some(curve25519_key.clone());
        let is_signed = if is_known {
            device.is_verified_with_cross_signing()
        } else {
            device.is_cross_signed_by_owner()
        };
        // The bot may have signed an earlier identity of the user too, and device and identity are not read together.
        let identity = encryption.get_user_identity(sender).await?;
        Ok(is_same && is_signed && !self.is_changed(sender, identity.as_ref()))
    }
}

/// What the homeserver shows under the id of a message.
enum Shown {
    /// No event, or not that message; or not the one that it edits.
    Nothing,
    /// The message, but it waited too long; or it edits one that did.
    TooOld,
    Plaintext,
    Encrypted(Place, Arc<EncryptionInfo>),
}

/// An event of this sender. `None`: the homeserver shows no event, or another one in its place.
async fn get_event(
    room: &Room,
    id: &EventId,
    sender: &UserId,
) -> Result<Option<(Raw<AnySyncTimelineEvent>, AnySyncTimelineEvent)>, Fault> {
    let request = get_room_event::v3::Request::new(room.room_id().to_owned(), id.to_owned());
    let raw = match room.client().send(request).await {
        Ok(response) => response.event.cast_unchecked::<AnySyncTimelineEvent>(),
        Err(error) if error.client_api_error_kind() == Some(&ErrorKind::NotFound) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let event = raw.deserialize().ok();
    let event = event.filter(|event| event.sender() == sender && event.event_id() == id);
    Ok(event.map(|event| (raw, event)))
}

async fn decrypt(
    room: &Room,
    message: &Message,
    encrypted: &OriginalSyncRoomEncryptedEvent,
    raw: &Raw<OriginalSyncRoomEncryptedEvent>,
) -> Result<Shown, Fault> {
    let Some(Decrypted::Message(text, info)) = inbox::try_to_decrypt(room, raw).await? else {
        return Ok(Shown::Nothing);
    };
    if inbox::text_of(&text) != Some(message.text.as_str()) {
        debug!(event = %message.event_id, "the homeserver shows another text now");
        return Ok(Shown::Nothing);
    }
    let place = place_of(encrypted, &info);
    Ok(place.map_or(Shown::Nothing, |place| Shown::Encrypted(place, info)))
}

fn place_of(encrypted: &OriginalSyncRoomEncryptedEvent, info: &EncryptionInfo) -> Option<Place> {
    let EncryptedEventScheme::MegolmV1AesSha2(content) = &encrypted.content.scheme else {
        return None;
    };
    let megolm = MegolmMessage::from_base64(&content.ciphertext).ok()?;
    Some(Place {
        session: info.session_id()?.to_owned(),
        index: megolm.message_index(),
    })
}

fn trust_of(event_sender: &UserId, info: &EncryptionInfo) -> Trust {
    // A key that another user forwarded proves nothing about the sender.
    if info.forwarder.is_some() || info.sender != event_sender {
        return Trust::UnknownDevice;
    }
    match &info.verification_state {
        VerificationState::Verified
        | VerificationState::Unverified(VerificationLevel::UnverifiedIdentity) => {
            Trust::CrossSigned
        }
        VerificationState::Unverified(VerificationLevel::UnsignedDevice) => Trust::UnsignedDevice,
        VerificationState::Unverified(VerificationLevel::VerificationViolation) => {
            Trust::IdentityChanged
        }
        VerificationState::Unverified(
            VerificationLevel::None(_) | VerificationLevel::MismatchedSender,
        ) => Trust::UnknownDevice,
    }
}

#[cfg(test)]
mod tests {
    use matrix_sdk::{
        deserialized_responses::{DeviceLinkProblem, ForwarderInfo},
        ruma::{device_id, user_id},
    };

    use super::*;

    fn alice() -> &'static UserId {
        user_id!("@alice:x.y")
    }

    fn encrypted_by(sender: &UserId, verification_state: VerificationState) -> EncryptionInfo {
        EncryptionInfo {
            sender: sender.to_owned(),
            sender_device: None,
            forwarder: None,
            algorithm_info: AlgorithmInfo::OlmV1Curve25519AesSha2 {
                curve25519_public_key_base64: String::new(),
            },
            verification_state,
        }
    }

    #[test]
    fn only_a_device_signed_by_its_owner_counts_as_cross_signed() {
        use VerificationLevel as Level;
        let unverified = VerificationState::Unverified;
        for (state, trust) in [
            (VerificationState::Verified, Trust::CrossSigned),
            (unverified(Level::UnverifiedIdentity), Trust::CrossSigned),
            (unverified(Level::UnsignedDevice), Trust::UnsignedDevice),
            (
                unverified(Level::VerificationViolation),
                Trust::IdentityChanged,
            ),
            (unverified(Level::MismatchedSender), Trust::UnknownDevice),
            (
                unverified(Level::None(DeviceLinkProblem::MissingDevice)),
                Trust::UnknownDevice,
            ),
        ] {
            let found = trust_of(alice(), &encrypted_by(alice(), state.clone()));
            assert_eq!(found, trust, "{state:?}");
        }
    }

    #[test]
    fn a_key_of_another_user_or_forwarded_by_one_proves_nothing() {
        let mallory = user_id!("@mallory:x.y");
        let info = encrypted_by(mallory, VerificationState::Verified);
        assert_eq!(trust_of(alice(), &info), Trust::UnknownDevice);
        let mut info = encrypted_by(alice(), VerificationState::Verified);
        info.forwarder = Some(ForwarderInfo {
            user_id: mallory.to_owned(),
            device_id: device_id!("PHONE").to_owned(),
        });
        assert_eq!(trust_of(alice(), &info), Trust::UnknownDevice);
    }
}
