//! A human user with a matrix-sdk client that shares nothing with the bot's: it sends, syncs and decrypts.

use std::{
    panic::Location,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use matrix_sdk::{
    Client, ClientBuilder,
    encryption::{EncryptionSettings, identities::Device},
    ruma::{
        EventId, OwnedUserId, UserId,
        api::client::{
            account::register,
            uiaa::{AuthData, Dummy, Password, UserIdentifier},
        },
        assign,
        serde::Raw,
    },
};
use rand::RngExt as _;
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    event::Event,
    homeserver::Homeserver,
    listen::{Listener, MARK},
};

/// How long a fact may take to arrive: seconds at most, and more on a busy machine.
const DEADLINE: Duration = Duration::from_mins(1);

/// How long a client waits for its next sync before it asks all the same.
const NEXT_SYNC: Duration = Duration::from_secs(1);

/// The length of a random password or localpart suffix.
const RANDOM_LENGTH: usize = 12;

/// Whether a person has a cross-signing identity, and with it a device that is signed by its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CrossSigning {
    /// Set up at log-in.
    SetUp,
    /// None on this device.
    Without,
}

/// A logged-in user. Dropping it ends its sync; the account stays.
#[derive(Debug)]
pub(crate) struct Person {
    client: Client,
    user: OwnedUserId,
    password: String,
    events: watch::Receiver<Vec<Event>>,
    mark: watch::Receiver<String>,
    joins_invitations: Arc<AtomicBool>,
    listening: JoinHandle<()>,
}

impl Person {
    /// Registers an account, `<name>-<random>`, and logs it in with cross-signing set up.
    pub(crate) async fn register(homeserver: &Homeserver, name: &str) -> Result<Self> {
        Self::register_with(homeserver, name, CrossSigning::SetUp).await
    }

    /// Registers an account, `<name>-<random>`, and logs it in.
    pub(crate) async fn register_with(
        homeserver: &Homeserver,
        name: &str,
        cross_signing: CrossSigning,
    ) -> Result<Self> {
        let localpart = format!("{name}-{}", random_text());
        let password = random_text();
        let request = assign!(register::v3::Request::new(), {
            username: Some(localpart.clone()),
            password: Some(password.clone()),
            auth: Some(AuthData::Dummy(Dummy::new())),
        });
        let client = builder(&homeserver.url()).build().await?;
        let registered = client.matrix_auth().register(request).await;
        registered.with_context(|| format!("cannot register {localpart}"))?;
        Self::begin(client, &password, cross_signing).await
    }

    /// Logs in with a new device that keeps everything in memory.
    pub(crate) async fn log_in(
        url: &str,
        localpart: &str,
        password: &str,
        cross_signing: CrossSigning,
    ) -> Result<Self> {
        let client = builder(url).build().await?;
        let log_in = client.matrix_auth().login_username(localpart, password);
        log_in.send().await?;
        Self::begin(client, password, cross_signing).await
    }

    /// Logs the same user in once more. A cross-signed device gets the user's keys by way of the server's secret storage.
    pub(crate) async fn second_device(&self, cross_signed: bool) -> Self {
        let device = self.log_in_again(CrossSigning::Without).await;
        if cross_signed {
            self.verify(&device).await;
        }
        device
    }

    /// Signs another device of the same user, as its owner does in the client's settings.
    pub(crate) async fn verify(&self, device: &Self) {
        let storage = self.client.encryption().secret_storage();
        let store = storage.create_secret_store().await.unwrap();
        let recovery = device.client.encryption().recovery();
        recovery.recover(&store.secret_storage_key()).await.unwrap();
    }

    /// Logs the same user in with a new identity that replaces the old one: as somebody does who has only the password, or who
    /// lost all their keys.
    pub(crate) async fn with_another_identity(&self) -> Self {
        self.log_in_again(CrossSigning::SetUp).await
    }

    async fn log_in_again(&self, cross_signing: CrossSigning) -> Self {
        let (url, user) = (self.client.homeserver(), self.user.localpart());
        let device = Self::log_in(url.as_str(), user, &self.password, cross_signing);
        device.await.unwrap()
    }

    /// The key of the user's identity, as this device knows it.
    pub(crate) async fn master_key(&self) -> String {
        self.key_of(&self.user).await
    }

    /// The key of a user's identity, as the homeserver shows it to this person.
    pub(crate) async fn key_of(&self, user: &UserId) -> String {
        let encryption = self.client.encryption();
        let identity = encryption.request_user_identity(user).await.unwrap();
        let identity = identity.expect("an identity");
        identity.master_key().get_first_key().unwrap().to_base64()
    }

    /// Starts the sync loop of a logged-in client.
    pub(crate) async fn begin(
        client: Client,
        password: &str,
        cross_signing: CrossSigning,
    ) -> Result<Self> {
        let user = client.user_id().context("not logged in")?.to_owned();
        if cross_signing == CrossSigning::SetUp {
            bootstrap_cross_signing(&client, &user, password).await?;
        }
        let encryption = client.encryption();
        encryption.wait_for_e2ee_initialization_tasks().await;
        let mut listener = Listener {
            client: client.clone(),
            events: watch::Sender::default(),
            mark: watch::Sender::default(),
            joins_invitations: Arc::new(AtomicBool::new(true)),
            undecrypted: Vec::new(),
        };
        let events = listener.events.subscribe();
        let mark = listener.mark.subscribe();
        let joins_invitations = Arc::clone(&listener.joins_invitations);
        // The first sync publishes the device's keys: only then can others encrypt to it.
        listener.sync_once(Duration::ZERO).await?;
        let listening = tokio::spawn(listener.run());
        Ok(Self {
            client,
            user,
            password: password.to_owned(),
            events,
            mark,
            joins_invitations,
            listening,
        })
    }

    pub(crate) fn user_id(&self) -> &UserId {
        &self.user
    }

    /// The client, for what has no method here.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether invitations are accepted at once; the default is yes.
    pub(crate) fn join_invitations(&self, join: bool) {
        self.joins_invitations.store(join, Ordering::Relaxed);
    }

    /// All events seen so far, in the order in which they were seen.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.borrow().clone()
    }

    /// A receiver of the same list, which also notifies of further events.
    pub(crate) fn watch_events(&self) -> watch::Receiver<Vec<Event>> {
        self.events.clone()
    }

    /// Waits until this person's client has seen all that the homeserver had for it when this was called.
    pub(crate) async fn catch_up(&self) {
        let mark = random_text();
        let content = Raw::new(&json!({ "mark": mark })).unwrap();
        let account = self.client.account();
        let set = account.set_account_data_raw(MARK.into(), content.cast_unchecked());
        set.await.unwrap();
        let mut heard = self.mark.clone();
        let seen = heard.wait_for(|heard| *heard == mark);
        let seen = tokio::time::timeout(DEADLINE, seen).await;
        seen.expect("the mark in the person's own sync").unwrap();
    }

    /// The first `wanted` event, of those already seen or to come. `what` names it in the error, which lists all seen events.
    pub(crate) async fn wait_for(
        &self,
        what: &str,
        mut wanted: impl FnMut(&Event) -> bool,
    ) -> Result<Event> {
        let mut events = self.watch_events();
        let mut found = None;
        let search = events.wait_for(|events| {
            found = events.iter().find(|event| wanted(event)).cloned();
            found.is_some()
        });
        let ended = tokio::time::timeout(DEADLINE, search).await.map(|_| ());
        found.ok_or_else(|| {
            let why = if ended.is_err() {
                format!("not within {DEADLINE:?}")
            } else {
                "the sync ended".to_owned()
            };
            let seen = self.events();
            let seen = seen.iter().map(|event| format!("\n  {event}"));
            let (user, seen) = (&self.user, seen.collect::<String>());
            anyhow!("{user} did not see {what}: {why}. Seen were:{seen}")
        })
    }

    /// The same; panics instead of an error.
    pub(crate) async fn sees(&self, what: &str, wanted: impl FnMut(&Event) -> bool) -> Event {
        let seen = self.wait_for(what, wanted).await;
        seen.unwrap_or_else(|error| panic!("{error:#}"))
    }

    pub(crate) async fn hears(&self, part: &str) -> Event {
        self.sees(part, |event| {
            event.body().is_some_and(|it| it.contains(part))
        })
        .await
    }

    /// All answers to an event that this person's client has seen so far.
    pub(crate) fn answers_to(&self, asked: &EventId) -> Vec<Event> {
        let mut events = self.events();
        events.retain(|event| event.replies_to() == Some(asked.as_str()));
        events
    }

    /// The edits of a message that this person's client has seen, oldest first.
    pub(crate) fn edits_of(&self, message: &Event) -> Vec<Event> {
        let mut events = self.events();
        events.retain(|event| event.edits() == Some(message.id.as_str()));
        events
    }

    /// Waits for an edit with `part` in its text, and returns it.
    pub(crate) async fn sees_edit(&self, message: &Event, part: &str) -> Event {
        let is_it = |event: &Event| {
            event.edits() == Some(message.id.as_str()) && event.new_text().contains(part)
        };
        self.sees(&format!("an edit with {part:?}"), is_it).await
    }

    /// Waits until a user has a device that is signed by its owner, so that it can decrypt messages from now on.
    pub(crate) async fn wait_for_signed_device_of(&self, user: &UserId) {
        let encryption = self.client.encryption();
        self.after_syncs(&format!("{user} has a signed device"), async || {
            encryption.request_user_identity(user).await.ok()?;
            let devices = encryption.get_user_devices(user).await.ok()?;
            let mut devices = devices.devices();
            devices.find(Device::is_cross_signed_by_owner)
        })
        .await;
    }

    /// Waits until `look` finds something that a sync brings: looks again after each of this person's syncs, instead of
    /// polling. Panics at the caller's location, with `what`, when it is not found in time.
    #[track_caller]
    pub(crate) fn after_syncs<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> Option<T>,
    ) -> impl Future<Output = T> {
        let caller = Location::caller();
        async move {
            let mut heard = self.watch_events();
            let deadline = Instant::now() + DEADLINE;
            loop {
                heard.mark_unchanged();
                if let Some(found) = look().await {
                    return found;
                }
                assert!(
                    Instant::now() < deadline,
                    "{caller}: not within {DEADLINE:?}: {what}"
                );
                // Looks again even without a sync.
                tokio::time::timeout(NEXT_SYNC, heard.changed()).await.ok();
            }
        }
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// An unguessable text, of characters that a localpart may hold.
pub(crate) fn random_text() -> String {
    let mut random = rand::rng();
    (0..RANDOM_LENGTH)
        .map(|_| char::from(random.random_range(b'a'..=b'z')))
        .collect()
}

/// A builder for a client of this homeserver.
pub(crate) fn builder(url: &str) -> ClientBuilder {
    let settings = EncryptionSettings {
        auto_enable_cross_signing: false,
        ..EncryptionSettings::default()
    };
    Client::builder()
        .homeserver_url(url)
        .with_encryption_settings(settings)
}

/// Servers accept the first identity of a user without a password, or ask for it.
async fn bootstrap_cross_signing(client: &Client, user: &UserId, password: &str) -> Result<()> {
    let Err(error) = client.encryption().bootstrap_cross_signing(None).await else {
        return Ok(());
    };
    let asked = error.as_uiaa_response();
    let asked = asked.context("cross-signing cannot be set up")?;
    let identifier = UserIdentifier::Matrix(user.to_owned().into());
    let mut password = Password::new(identifier, password.to_owned());
    password.session.clone_from(&asked.session);
    let proof = AuthData::Password(password);
    let encryption = client.encryption();
    Ok(encryption.bootstrap_cross_signing(Some(proof)).await?)
}
