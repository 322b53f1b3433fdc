//! The logged-in client of the SDK, and the state shared by everything that receives and sends.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, Permissions},
    hash::Hash,
    io,
    os::unix::fs::PermissionsExt as _,
    panic::AssertUnwindSafe,
    path::Path,
    sync::{self, Arc, PoisonError, Weak},
    time::Duration,
};

use futures_util::FutureExt as _;
use matrix_sdk::{
    Client, ClientBuildError, Room, RoomState, SqliteCryptoStore, SqliteStateStore,
    SqliteStoreConfig,
    config::{RequestConfig, StoreConfig},
    cross_process_lock::CrossProcessLockConfig,
    ruma::{OwnedRoomId, OwnedUserId, UserId},
};
use matrix_sdk_base::{
    BaseClient, DmRoomDefinition, ThreadingSupport,
    crypto::{CollectStrategy, DecryptionSettings, TrustRequirement},
};
use tokio::{
    sync::{Mutex, RwLock, watch},
    time::timeout,
};
use tracing::warn;

use super::{
    Fault, MatrixFolder,
    folder::{JsonMap, file_fault},
    guard::Quarantine,
    inbox::Inbox,
    login::LoggedIn,
    replay::ReplayProtection,
    rooms::{AdminRoom, DirectMessages},
};
use crate::config::{Config, Devices, MasterKey};

/// How long one request may take, except for the long poll of /sync.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the SDK tries a request. After that the caller reports the failure, and retries soon after the homeserver is back.
/// By default the SDK would retry for a quarter of an hour, with two minutes between tries.
const TRIES: usize = 3;

/// How long the stores of a connection may take to close: they wait until nothing uses them.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to the homeserver. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    pub(super) client: Client,
    pub(super) config: Arc<Config>,
    pub(super) admin_room: Arc<AdminRoom>,
    /// While it lives, the client can reach the homeserver.
    pub(super) logged_in: Arc<LoggedIn>,
    pub(super) quarantine: Arc<Quarantine>,
    pub(super) direct_messages: Arc<DirectMessages>,
    pub(super) inbox: Arc<Inbox>,
    /// The identity that each user was seen with first.
    pub(super) pinned_identities: Arc<JsonMap<MasterKey>>,
    /// Held for reading while a link is on its way to a user, and for writing to withdraw their verification.
    pub(super) verifications: Arc<Locks<OwnedUserId, RwLock<()>>>,
    /// Held while a message is sent into a room.
    pub(super) turns: Arc<Locks<OwnedRoomId, Mutex<()>>>,
    pub(super) replay_protection: Arc<ReplayProtection>,
    /// The rooms that completed syncs have brought.
    pub(super) synced_rooms: watch::Sender<BTreeSet<OwnedRoomId>>,
    /// Sent after each sync: the room, if any, that replaces the admin room once the bot is in it.
    pub(super) synced: watch::Sender<Option<OwnedRoomId>>,
    /// Whether the last sync was answered. Shared by all connections.
    pub(super) answers: watch::Sender<bool>,
}

impl Matrix {
    pub(crate) fn own_user(&self) -> &UserId {
        &self.config.bot_user
    }

    pub(super) fn joined_admin_room(&self) -> Result<Room, Fault> {
        let id = self.admin_room.id();
        let room = id.and_then(|id| self.client.get_room(&id));
        let room = room.filter(|room| room.state() == RoomState::Joined);
        room.ok_or(Fault::NotInAdminRoom)
    }

    /// Closes the stores. Nothing works afterwards.
    pub(crate) async fn close(&self) {
        let closing = AssertUnwindSafe(self.client.pause()).catch_unwind();
        match timeout(CLOSE_TIMEOUT, closing).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => warn!(%error, "the Matrix stores were not closed in order"),
            Ok(Err(_)) | Err(_) => warn!("the Matrix stores were not closed in order"),
        }
    }
}

/// The SDK's client, which is not logged in yet.
pub(super) async fn build_client(
    logged_in: &LoggedIn,
    config: &Config,
    folder: &MatrixFolder,
) -> Result<Client, Fault> {
    let strategy = match config.encryption.devices {
        Devices::CrossSigned => CollectStrategy::IdentityBasedStrategy,
        Devices::Any => CollectStrategy::AllDevices,
    };
    let store = folder.store();
    let unopened = |error: ClientBuildError| {
        let folder = folder.path().display();
        Fault::fatal(
            format!("the Matrix store in {folder} cannot be opened"),
            error,
        )
    };
    let stores = open_stores(&store).await.map_err(unopened)?;
    let mut base = BaseClient::new(
        stores,
        ThreadingSupport::Disabled,
        DmRoomDefinition::MatrixSpec,
    );
    base.room_key_recipient_strategy = strategy;
    // The sender's device is judged with the command, where a refusal can be explained to the sender.
    base.decryption_settings = DecryptionSettings {
        sender_device_trust_requirement: TrustRequirement::Untrusted,
    };
    // Nobody verifies the bot interactively. The SDK would send its answers to any member's requests without waiting for a turn.
    base.handle_verification_events = false;
    let client = logged_in
        .client_builder()?
        .base_client(base)
        .cross_process_store_config(CrossProcessLockConfig::SingleProcess)
        .request_config(
            RequestConfig::new()
                .timeout(REQUEST_TIMEOUT)
                .retry_limit(TRIES),
        )
        .with_enable_share_history_on_invite(false)
        .build()
        .await
        .map_err(unopened)?;
    restrict_permissions(&store).map_err(|source| file_fault(&store, source))?;
    Ok(client)
}

/// The state and the keys, in SQLite. The SDK's stores for events and media are left out, as the bot never reads them.
async fn open_stores(folder: &Path) -> Result<StoreConfig, ClientBuildError> {
    let config = SqliteStoreConfig::with_low_memory_config(folder);
    let (state, crypto) = tokio::try_join!(
        SqliteStateStore::open_with_config(&config),
        SqliteCryptoStore::open_with_config(&config),
    )?;
    let stores = StoreConfig::new(CrossProcessLockConfig::SingleProcess);
    Ok(stores.state_store(state).crypto_store(crypto))
}

/// The SDK creates files that everyone can read. SQLite gives its later files the same mode.
fn restrict_permissions(store: &Path) -> io::Result<()> {
    fs::set_permissions(store, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(store)? {
        fs::set_permissions(entry?.path(), Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// A lock for each room, or each user: it exists while it is held or waited for.
#[derive(Debug)]
pub(super) struct Locks<K, L>(sync::Mutex<HashMap<K, Weak<L>>>);

impl<K, L> Default for Locks<K, L> {
    fn default() -> Self {
        Self(sync::Mutex::default())
    }
}

impl<K: Eq + Hash, L: Default> Locks<K, L> {
    /// The lock for this key. It is the same one while anything holds it.
    pub(super) fn of(&self, key: K) -> Arc<L> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        let known = locks.get(&key).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let lock = Arc::default();
            locks.insert(key, Arc::downgrade(&lock));
            lock
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_shared_while_it_is_held_and_forgotten_afterwards() {
        let locks = Locks::<u32, Mutex<()>>::default();
        let one = locks.of(1);
        assert!(Arc::ptr_eq(&one, &locks.of(1)));
        assert!(!Arc::ptr_eq(&one, &locks.of(2)));
        drop(one);
        for key in 0..1000 {
            drop(locks.of(key));
        }
        assert_eq!(locks.0.lock().unwrap().len(), 1);
    }
}
