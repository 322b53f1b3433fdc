//! The connection: a logged-in client with its identity, its inbox and its rooms.

use std::{
    collections::BTreeSet,
    env,
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    panic::AssertUnwindSafe,
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use matrix_sdk::{
    Client, ClientBuilder,
    config::RequestConfig,
    cross_process_lock::CrossProcessLockConfig,
    ruma::{OwnedRoomId, OwnedUserId, UserId},
};
use matrix_sdk_base::crypto::{CollectStrategy, DecryptionSettings, TrustRequirement};
use tokio::{
    sync::{RwLock, mpsc, watch},
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{
    Chain, Fault, Heard,
    admin_room::AdminRoom,
    conversations::Conversations,
    device, identities,
    identity::{self, RECOVERY_KEY_FILE, RECOVERY_KEY_VARIABLE, RecoveryKey},
    inbox::Inbox,
    invitations::Pending,
    locks::Locks,
    login::{LoggedIn, Login},
    obeyed::Obeyed,
    quarantine::Quarantine,
    stored, sync,
    table::Table,
};
use crate::config::{Config, Devices, MasterKey};

/// How many commands may wait for the bot. More than people type; a flood waits for its turn with the homeserver.
const MESSAGES_WAITING: usize = 256;

/// How long one request may take, but for the long poll of /sync.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the SDK tries a request by itself. What lasts longer than a moment is for those who asked: they say so, and try again
/// soon after the homeserver is back. Left alone, the SDK would go on for a quarter of an hour, with two minutes between tries.
const TRIES: usize = 3;

/// How long the stores of a connection may take to close, which wait for whatever still uses them.
const LONGEST_CLOSING: Duration = Duration::from_secs(5);

/// The folder of the SDK's stores, in the folder of Matrix.
pub(super) const STORE: &str = "store";

/// Which room the admin room is, in the folder of Matrix.
pub(super) const ADMIN_ROOM: &str = "admin-room.json";

/// The table of users' identities, in the folder of Matrix.
pub(super) const IDENTITIES: &str = "identities.json";

/// Which commands were obeyed, in the folder of Matrix.
const OBEYED: &str = "obeyed";

/// A logged-in bot. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Matrix(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    own_user: OwnedUserId,
    config: Arc<Config>,
    admin_room: Arc<AdminRoom>,
    /// Lets the client reach the homeserver for as long as it lives.
    logged_in: LoggedIn,
    quarantine: Arc<Quarantine>,
    conversations: Arc<Conversations>,
    inbox: Arc<Inbox>,
    invitations: Arc<Pending>,
    identities: Table<MasterKey>,
    /// Held for reading while a link is on its way to a user, and for writing to withdraw their verification.
    verifications: Locks<OwnedUserId, RwLock<()>>,
    /// Held by whoever sends into a room.
    turns: Locks<OwnedRoomId, tokio::sync::Mutex<()>>,
    obeyed: Arc<Obeyed>,
    /// The rooms that a sync has brought, and was done with.
    heard_rooms: watch::Sender<BTreeSet<OwnedRoomId>>,
    /// Whether the last sync was answered.
    answers: watch::Sender<bool>,
}

/// What [`Matrix::connect`] gives.
#[derive(Debug)]
pub struct Connection {
    /// To speak.
    pub matrix: Matrix,
    /// What is heard, once [`Matrix::follow`] runs.
    pub heard: mpsc::Receiver<Heard>,
}

impl Matrix {
    /// Logs in, or takes up the session of an earlier run, and sees to the bot's identity. Waits for a homeserver that
    /// does not answer, for as long as it takes. `folder` is for Matrix alone, and is made if need be.
    ///
    /// # Errors
    /// [`Fault`]s that waiting does not mend.
    pub async fn connect(
        config: Arc<Config>,
        login: &Login,
        folder: &Path,
        quarantine: &Arc<Quarantine>,
    ) -> Result<Connection, Fault> {
        make_folder(folder)?;
        let mut waits = sync::back_off();
        let mut warned = false;
        loop {
            quarantine.start_over();
            let trying = Self::try_connect(&config, login, folder, quarantine);
            // Whatever a panic leaves half done is thrown away with the client.
            let fault = match AssertUnwindSafe(trying).catch_unwind().await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(fault)) => fault,
                Err(_) => quarantine.blame(),
            };
            if matches!(fault, Fault::DeviceLost) {
                warn!("the bot's device has lost its keys, making a new one");
                device::forget(folder, true)?;
            } else if fault.is_logged_out() {
                let device_is_gone = fault.is_device_deleted(device::is_logged_in(folder)?);
                if device_is_gone && stored::stored_own_identity(folder).is_some() {
                    demand_recovery_key(folder)?;
                }
                warn!(
                    device_is_gone,
                    "the homeserver no longer knows the bot's access token or device, logging in again"
                );
                device::forget(folder, device_is_gone)?;
            } else if !fault.is_passing() {
                return Err(fault);
            } else if !matches!(fault, Fault::SetAside { .. }) {
                let error = Chain(&fault);
                if warned {
                    debug!(%error, "still waiting for the homeserver");
                } else {
                    warn!(homeserver = %config.homeserver_url, %error, "waiting for the homeserver");
                }
                warned = true;
            }
            let wanted = fault.retry_after().unwrap_or_default();
            sleep(waits.next().unwrap_or(REQUEST_TIMEOUT).max(wanted)).await;
        }
    }

    async fn try_connect(
        config: &Arc<Config>,
        login: &Login,
        folder: &Path,
        quarantine: &Arc<Quarantine>,
    ) -> Result<Connection, Fault> {
        let logged_in = LoggedIn::new(config, login, folder, Arc::clone(quarantine)).await?;
        let store_is_new = !stored::has_store(folder);
        let client = build_client(logged_in.client_builder()?, config, folder).await?;
        // Before the SDK has a log-in, with which it asks for more and complains of each answer that does not come.
        client.fetch_server_versions(None).await?;
        client.restore_session(logged_in.matrix_session()).await?;
        client.whoami().await?;
        let ensured = identity::ensure(&client, quarantine, login, folder, store_is_new).await;
        if matches!(ensured, Err(Fault::DeviceLost)) {
            // Clients do not believe a device that changes its keys.
            logged_in.delete_device(&client, folder).await?;
        }
        ensured?;
        let (sender, heard) = mpsc::channel(MESSAGES_WAITING);
        let admin_room = Arc::new(AdminRoom::load(
            folder.join(ADMIN_ROOM),
            config.admin_room.clone(),
            logged_in.listening_since(),
            store_is_new,
        )?);
        let conversations = Arc::new(Conversations::load(folder)?);
        let obeyed = Obeyed::load(folder.join(OBEYED), config.max_command_age)?;
        let obeyed = Arc::new(obeyed);
        let inbox = Inbox::new(config, &admin_room, &conversations, &obeyed, sender);
        let matrix = Self(Arc::new(Inner {
            own_user: config.bot_user.clone(),
            config: Arc::clone(config),
            admin_room,
            logged_in,
            quarantine: Arc::clone(quarantine),
            conversations,
            inbox: Arc::new(inbox),
            invitations: Arc::default(),
            identities: identities::table(folder.join(IDENTITIES))?,
            verifications: Locks::default(),
            turns: Locks::default(),
            obeyed,
            heard_rooms: watch::Sender::default(),
            answers: watch::Sender::new(false),
            client,
        }));
        matrix.set_display_name().await;
        info!(user = %matrix.own_user(), "connected to the homeserver");
        Ok(Connection { matrix, heard })
    }

    /// Follows the homeserver until that makes no sense any more, and tells why. Joins the admin room when it can.
    pub async fn follow(&self) -> Fault {
        let following = async {
            tokio::select! {
                fault = sync::follow(self) => fault,
                fault = self.watch_identities() => fault,
                fault = self.forget_left_rooms() => fault,
                () = self.0.logged_in.ended() => Fault::Panicked,
            }
        };
        // Whatever a panic leaves half done is thrown away with the client.
        let followed = AssertUnwindSafe(following).catch_unwind().await;
        followed.unwrap_or_else(|_| self.quarantine().blame())
    }

    /// Closes the stores. Nothing works afterwards.
    pub async fn close(&self) {
        let closing = AssertUnwindSafe(self.client().pause()).catch_unwind();
        match timeout(LONGEST_CLOSING, closing).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => warn!(%error, "the Matrix stores were not closed in order"),
            Ok(Err(_)) | Err(_) => warn!("the Matrix stores were not closed in order"),
        }
    }

    /// The bot's own user.
    #[must_use]
    pub fn own_user(&self) -> &UserId {
        &self.0.own_user
    }

    pub(super) fn client(&self) -> &Client {
        &self.0.client
    }

    pub(super) fn quarantine(&self) -> &Quarantine {
        &self.0.quarantine
    }

    pub(super) fn devices(&self) -> Devices {
        self.0.config.encryption.devices
    }

    /// Hands the bot what it should know of. Waits while too much waits for it, as it does not wait for us.
    pub(super) async fn tell_bot(&self, heard: Heard) {
        self.inbox().hand_over(heard).await;
    }

    /// The identity that each user was seen with first.
    pub(super) fn identities(&self) -> &Table<MasterKey> {
        &self.0.identities
    }

    /// What keeps verifications as they are while a link is on its way.
    pub(super) fn verifications(&self) -> &Locks<OwnedUserId, RwLock<()>> {
        &self.0.verifications
    }

    /// Whose turn it is to send into a room.
    pub(super) fn turns(&self) -> &Locks<OwnedRoomId, tokio::sync::Mutex<()>> {
        &self.0.turns
    }

    pub(super) fn configured_identity(&self, user: &UserId) -> Option<MasterKey> {
        *self.0.config.authorization.users.get(user)?
    }

    pub(super) fn obeyed(&self) -> &Obeyed {
        &self.0.obeyed
    }

    /// Which room is for talk with whom.
    pub(super) fn conversations(&self) -> &Conversations {
        &self.0.conversations
    }

    /// The invitations that the bot decides about.
    pub(super) fn invitations(&self) -> &Arc<Pending> {
        &self.0.invitations
    }

    /// Which room the admin room is.
    pub(super) fn which_room(&self) -> &AdminRoom {
        &self.0.admin_room
    }

    pub(super) fn admin_room_id(&self) -> Option<OwnedRoomId> {
        self.which_room().id()
    }

    pub(super) fn config(&self) -> &Config {
        &self.0.config
    }

    /// Whether the homeserver answered when it was last asked for what is new.
    #[must_use]
    pub fn homeserver_answers(&self) -> watch::Receiver<bool> {
        self.0.answers.subscribe()
    }

    pub(super) fn note_answer(&self, answered: bool) {
        let answers = &self.0.answers;
        answers.send_if_modified(|known| std::mem::replace(known, answered) != answered);
    }

    pub(super) fn heard_rooms(&self) -> &watch::Sender<BTreeSet<OwnedRoomId>> {
        &self.0.heard_rooms
    }

    pub(super) fn inbox(&self) -> &Arc<Inbox> {
        &self.0.inbox
    }

    /// A name is a courtesy: the bot works without.
    async fn set_display_name(&self) {
        let (account, wanted) = (self.client().account(), self.0.config.display_name.as_str());
        if let Ok(name) = account.get_display_name().await
            && name.as_deref() != Some(wanted)
            && let Err(error) = account.set_display_name(Some(wanted)).await
        {
            warn!(%error, "display name not set");
        }
    }
}

/// Whether another device can have the bot's identity. If not, nothing of the present one may be thrown away.
fn demand_recovery_key(folder: &Path) -> Result<(), Fault> {
    let recovery_key = folder.join(RECOVERY_KEY_FILE);
    let variable = env::var_os(RECOVERY_KEY_VARIABLE);
    if RecoveryKey::find(variable.as_deref(), &recovery_key)?.is_some() {
        return Ok(());
    }
    Err(Fault::LoggedOutForGood {
        folder: folder.to_owned(),
        recovery_key,
    })
}

/// Makes the folder of Matrix, if need be.
pub(super) fn make_folder(folder: &Path) -> Result<(), Fault> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| Fault::File {
        path: folder.to_owned(),
        source,
    })
}

pub(super) async fn build_client(
    builder: ClientBuilder,
    config: &Config,
    folder: &Path,
) -> Result<Client, Fault> {
    let strategy = match config.encryption.devices {
        Devices::CrossSigned => CollectStrategy::IdentityBasedStrategy,
        Devices::Any => CollectStrategy::AllDevices,
    };
    let store = folder.join(STORE);
    let client = builder
        .sqlite_store(&store, None)
        .request_config(
            RequestConfig::new()
                .timeout(REQUEST_TIMEOUT)
                .retry_limit(TRIES),
        )
        .cross_process_store_config(CrossProcessLockConfig::SingleProcess)
        .with_room_key_recipient_strategy(strategy)
        // What an event proves about its sender is judged with the command, where it can be told to the sender.
        .with_decryption_settings(DecryptionSettings {
            sender_device_trust_requirement: TrustRequirement::Untrusted,
        })
        .with_enable_share_history_on_invite(false)
        .build()
        .await
        .map_err(|source| Fault::Store {
            folder: folder.to_owned(),
            source: Box::new(source),
        })?;
    close_to_others(&store).map_err(|source| Fault::File {
        path: store,
        source,
    })?;
    Ok(client)
}

/// The SDK makes its files readable for all. What SQLite makes later takes after them.
fn close_to_others(store: &Path) -> io::Result<()> {
    fs::set_permissions(store, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(store)? {
        fs::set_permissions(entry?.path(), Permissions::from_mode(0o600))?;
    }
    Ok(())
}
