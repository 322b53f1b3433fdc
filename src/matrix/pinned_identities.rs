//! Pinned identities: the cross-signing identity of each user who may command, as first seen or as named in the configuration.
//!
//! The table on disk counts: it survives the loss of the SDK's store, and does not come from the homeserver. The bot also signs
//! each identity. For the SDK a change is then a verification violation, so that no key goes to a changed identity in the
//! middle of a send.

use std::{collections::HashMap, time::Duration};

use futures_util::StreamExt as _;
use matrix_sdk::{
    encryption::identities::{Device, IdentityUpdates, UserIdentity},
    ruma::{OwnedDeviceId, OwnedUserId, UserId},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OwnedRwLockReadGuard, RwLock, RwLockWriteGuard},
    time::sleep,
};
use tracing::{debug, info, warn};

use super::{
    Fault, IncomingEvent, Matrix, NotConfidential, NotSent, fault::not_signed, rooms::Readers,
};
use crate::config::{Devices, MasterKey};

/// How often to check whether a link is still on its way to a user.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdentityReport {
    pub known: Option<PinnedIdentity>,
    /// The one that the homeserver shows now.
    pub shown: Option<MasterKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PinnedIdentity {
    Configured(MasterKey),
    /// It was seen first, or accepted by the operator.
    Seen(MasterKey),
}

impl PinnedIdentity {
    pub(crate) fn key(self) -> MasterKey {
        match self {
            Self::Configured(key) | Self::Seen(key) => key,
        }
    }
}

/// Why an identity was not accepted. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NotAccepted {
    /// The configuration names the user's key.
    Configured,
    /// The homeserver shows another one now, or none.
    NotShown,
}

/// While it is held, the verification of one user is not withdrawn.
pub(super) type KeptVerification = OwnedRwLockReadGuard<()>;

impl Matrix {
    /// The pinned identity of a user, and the one that the homeserver shows now.
    pub(crate) async fn identity(&self, user: &UserId) -> Result<IdentityReport, Fault> {
        let encryption = self.client.encryption();
        let identity = encryption.request_user_identity(user).await?;
        Ok(IdentityReport {
            known: self.known_identity(user),
            shown: identity.as_ref().and_then(key_of),
        })
    }

    /// Pins another identity of a user, which the operator has checked.
    /// Fails when the homeserver does not answer, or the table cannot be written.
    pub(crate) async fn accept_identity(
        &self,
        user: &UserId,
        key: MasterKey,
    ) -> Result<Result<(), NotAccepted>, Fault> {
        if let Some(PinnedIdentity::Configured(_)) = self.known_identity(user) {
            return Ok(Err(NotAccepted::Configured));
        }
        let encryption = self.client.encryption();
        let identity = encryption.request_user_identity(user).await?;
        let Some(identity) = identity.filter(|identity| key_of(identity) == Some(key)) else {
            return Ok(Err(NotAccepted::NotShown));
        };
        self.withdraw_verification(&identity).await?;
        self.sign(&identity).await?;
        // Last, so that after a fault the earlier one stays pinned.
        self.pinned_identities.insert(user, key)?;
        info!(%user, %key, "identity of a user accepted by the operator");
        Ok(Ok(()))
    }

    /// Reports each identity that changes, from now on; never ends.
    pub(super) async fn watch_identities(&self) -> Fault {
        let updates = match self.client.encryption().user_identities_stream().await {
            Ok(updates) => updates,
            Err(error) => return error.into(),
        };
        let mut updates = Box::pin(updates);
        let mut reported = HashMap::new();
        while let Some(IdentityUpdates { new, changed }) = updates.next().await {
            for (user, identity) in new.into_iter().chain(changed) {
                let key = key_of(&identity);
                if !self.note_change(&user, Some(&identity)) {
                    // If the other one is shown again, it is reported again.
                    reported.remove(&user);
                } else if reported.insert(user.clone(), key) != Some(key) {
                    let changed = IncomingEvent::IdentityChanged { user };
                    self.inbox.hand_over(changed).await;
                }
            }
        }
        std::future::pending().await
    }

    /// Withdraws the verification of users whose identity has changed, so that they can read what the bot sends to rooms. No
    /// secret is sent there, and the others should not wait for the operator. Not for links: a changed identity gets none.
    pub(super) async fn withdraw_verifications(&self, users: &[OwnedUserId]) -> Result<(), Fault> {
        for user in users {
            if let Some(identity) = self.client.encryption().get_user_identity(user).await? {
                self.withdraw_verification(&identity).await?;
            }
        }
        Ok(())
    }

    /// Keeps a user verified while the result is held: between the check of their identity and the end of a send, the SDK
    /// refuses to encrypt for another identity in its place.
    pub(super) async fn keep_verified(&self, user: &UserId) -> KeptVerification {
        let verification = self.verifications.of(user.to_owned());
        verification.read_owned().await
    }

    /// From then on the SDK encrypts for any identity that is shown. So never while a link is on its way there.
    async fn withdraw_verification(&self, identity: &UserIdentity) -> Result<(), Fault> {
        let user = identity.user_id();
        debug!(%user, "a verification is withdrawn once no link is on its way to this user");
        let verification = self.verifications.of(user.to_owned());
        let _guard = write_when_unread(&verification).await;
        Ok(identity.withdraw_verification().await?)
    }

    /// Whether an identity is missing or not the pinned one. False if none is pinned.
    pub(super) fn is_changed(&self, user: &UserId, shown: Option<&UserIdentity>) -> bool {
        let known = self.known_identity(user).map(PinnedIdentity::key);
        known.is_some() && shown.and_then(key_of) != known
    }

    /// The same, and logs a warning if it is so.
    pub(super) fn note_change(&self, user: &UserId, shown: Option<&UserIdentity>) -> bool {
        let is_changed = self.is_changed(user, shown);
        if is_changed {
            let text = |key: Option<MasterKey>| key.map_or("none".to_owned(), |it| it.to_string());
            let known = text(self.known_identity(user).map(PinnedIdentity::key));
            let shown = text(shown.and_then(key_of));
            warn!(
                %user, known, shown,
                "the homeserver shows another identity of this user: commands are refused and links held back until `rcbot trust` accepts it"
            );
        }
        is_changed
    }

    /// Pins the identity of this user that is in the store now, if none is pinned yet.
    pub(super) async fn pin_if_new(&self, user: &UserId) -> Result<(), Fault> {
        if self.known_identity(user).is_some() {
            return Ok(());
        }
        let identity = self.client.encryption().get_user_identity(user).await?;
        if let Some(key) = identity.as_ref().and_then(key_of) {
            self.pinned_identities.insert(user, key)?;
            info!(%user, %key, "identity of a user seen for the first time and pinned");
        }
        Ok(())
    }

    /// Signs an identity, unless the bot has already, and returns the signed one.
    pub(super) async fn sign_once(&self, identity: UserIdentity) -> Result<UserIdentity, Fault> {
        if identity.is_verified() {
            return Ok(identity);
        }
        self.sign(&identity).await
    }

    async fn sign(&self, identity: &UserIdentity) -> Result<UserIdentity, Fault> {
        identity.verify().await.map_err(not_signed)?;
        let encryption = self.client.encryption();
        // The store gets the signature only from the homeserver.
        let signed = encryption.request_user_identity(identity.user_id()).await?;
        signed
            .filter(|signed| signed.is_verified() && key_of(signed) == key_of(identity))
            .ok_or_else(|| {
                Fault::fatal(
                    "the bot's signature failed",
                    "the homeserver does not keep it",
                )
            })
    }

    /// Under the identity-based strategy a user without cross-signing gets no key, and the send still succeeds, so this is
    /// checked before. The device list is fetched again, as stale ones happen.
    ///
    /// The identity is signed first: only then does the SDK refuse to send if it changes before the send. For that the caller
    /// keeps them verified ([`Matrix::keep_verified`]) until the send is over.
    ///
    /// Returns the devices of the recipient and of the bot: those that the SDK gives a room's key.
    pub(super) async fn check_devices(&self, recipient: &UserId) -> Result<Readers, NotSent> {
        let encryption = self.client.encryption();
        let identity = encryption.request_user_identity(recipient).await?;
        if self.note_change(recipient, identity.as_ref()) {
            return Err(NotSent::Refused(NotConfidential::IdentityChanged));
        }
        match (self.config.encryption.devices, identity) {
            (Devices::Any, _) => {}
            (Devices::CrossSigned, None) => {
                return Err(NotSent::Refused(NotConfidential::NoIdentity));
            }
            (Devices::CrossSigned, Some(identity)) => drop(self.sign_once(identity).await?),
        }
        self.pin_if_new(recipient).await?;
        let (of_recipient, own) = tokio::try_join!(
            encryption.get_user_devices(recipient),
            encryption.get_user_devices(self.own_user()),
        )?;
        let mut devices = of_recipient.devices().filter(|it| !it.is_dehydrated());
        let readable = match self.config.encryption.devices {
            Devices::Any => devices.next().is_some(),
            Devices::CrossSigned => devices.any(|device| device.is_cross_signed_by_owner()),
        };
        if readable {
            let all = of_recipient.devices().chain(own.devices());
            Ok(all.map(|device| reader(&device)).collect())
        } else {
            Err(NotSent::Refused(NotConfidential::NoReadableDevice))
        }
    }

    pub(super) fn is_pinned(&self, user: &UserId) -> bool {
        self.known_identity(user).is_some()
    }

    fn known_identity(&self, user: &UserId) -> Option<PinnedIdentity> {
        let configured = self.config.authorization.users.get(user);
        match configured.copied().flatten() {
            Some(key) => Some(PinnedIdentity::Configured(key)),
            None => self.pinned_identities.get(user).map(PinnedIdentity::Seen),
        }
    }
}

/// Takes a lock for writing once nobody reads. Waiting in the lock's queue would block later readers, and so deadlock: a
/// delivery would wait there while it holds the turn in its room, for which a reader of the lock may be waiting.
async fn write_when_unread(lock: &RwLock<()>) -> RwLockWriteGuard<'_, ()> {
    loop {
        match lock.try_write() {
            Ok(guard) => return guard,
            Err(_) => sleep(LOCK_POLL_INTERVAL).await,
        }
    }
}

fn reader(device: &Device) -> (OwnedUserId, OwnedDeviceId, Option<String>, bool) {
    (
        device.user_id().to_owned(),
        device.device_id().to_owned(),
        device.curve25519_key().map(|key| key.to_base64()),
        device.is_cross_signed_by_owner(),
    )
}

fn key_of(identity: &UserIdentity) -> Option<MasterKey> {
    identity.master_key().get_first_key().map(MasterKey::from)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn waiting_to_withdraw_a_verification_does_not_block_further_links() {
        let lock = RwLock::new(());
        let on_its_way = lock.read().await;
        let mut withdrawing = Box::pin(write_when_unread(&lock));
        assert!((&mut withdrawing).now_or_never().is_none());
        drop(lock.try_read().unwrap());
        drop(on_its_way);
        drop(withdrawing.await);
    }
}
