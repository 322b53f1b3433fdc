//! The bot's device, identity and keys, as it has them on disk and as the homeserver shows them.

use std::{fs, ops::Range, path::Path, process::Output};

use matrix_sdk::{
    Client, SqliteCryptoStore, reqwest::Method, ruma::events::secret::request::SecretName,
};
use matrix_sdk_base::crypto::store::CryptoStore as _;
use serde_json::{Value, json};

use super::{
    appservice::Tokens,
    bot::Bot,
    homeserver,
    homeserver::Homeserver,
    person::{Person, random_text},
    run_to_end,
    says::Says as _,
};

/// The ratchet in the base64 text of a Megolm key: behind the version and the index, whose bytes depend on the key's format.
const RATCHET: Range<usize> = 8..60;

/// What the bot logs each time that it has connected.
const CONNECTED: &str = "connected to the homeserver";

impl Bot {
    /// The ids of the bot's devices, as the homeserver knows them.
    pub(crate) async fn devices(&self, seen_by: &Person) -> Vec<String> {
        let encryption = seen_by.client().encryption();
        let user = self.user_id();
        encryption.request_user_identity(user).await.unwrap();
        let devices = encryption.get_user_devices(user).await.unwrap();
        let devices = devices.devices();
        devices.map(|it| it.device_id().to_string()).collect()
    }

    /// The bot's identity, by its public key.
    pub(crate) async fn identity(&self, seen_by: &Person) -> String {
        seen_by.key_of(self.user_id()).await
    }

    /// The log-in that the bot has stored.
    pub(crate) fn stored_log_in(&self) -> Value {
        let text = fs::read(self.data_dir().join("matrix/session.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// How often the bot has connected, over all its runs.
    pub(crate) fn connections(&self) -> usize {
        self.log().matches(CONNECTED).count()
    }

    /// Waits until the bot has connected this many times, over all its runs.
    pub(crate) async fn wait_until_connected(&mut self, times: usize) {
        self.wait_for_log_times(CONNECTED, times).await;
    }

    /// Waits until the bot has one device, which is not one of these.
    pub(crate) async fn wait_for_another_device(&self, seen_by: &Person, old: &[String]) {
        seen_by
            .after_syncs("the bot has one new device", async || {
                let now = self.devices(seen_by).await;
                (now.len() == 1 && now != old).then_some(())
            })
            .await;
        let user = self.user_id();
        seen_by.wait_for_signed_device_of(user).await;
    }

    /// Waits until people can encrypt to the device of the stored log-in.
    pub(crate) async fn wait_until_reached_at_its_device(&self, by: &Person) {
        by.after_syncs("the bot's device is there and signed", async || {
            self.devices(by).await;
            let id = self.stored_log_in()["device_id"].as_str()?.to_owned();
            let encryption = by.client().encryption();
            let device = encryption.get_device(self.user_id(), id.as_str().into());
            let device = device.await.unwrap()?;
            device.is_cross_signed_by_owner().then_some(())
        })
        .await;
    }

    /// Starts a session, has its link delivered, restarts the bot, and ends the session.
    pub(crate) async fn assert_main_job(&mut self, admin: &Person) {
        let device = self.devices(admin).await;
        assert_eq!(device.len(), 1);
        let first = self.start_session(admin, "website").await;
        self.restart(admin).await;
        assert_eq!(self.devices(admin).await, device, "it is the same device");
        let second = self.start_session(admin, "website").await;
        assert_eq!(second.link, first.link);
        assert_eq!(second.room(), first.room());
        self.request(admin, "stop").await.begins("website stopped");
        self.wait_for_redaction(admin, &first).await;
        self.wait_for_redaction(admin, &second).await;
    }

    /// Ends the bot, removes all its keys but the recovery key, and starts it again: it has another device and the same
    /// identity, and works.
    pub(crate) async fn assert_survives_a_lost_store(&mut self, admin: &Person) {
        let connections = self.connections();
        let (device, known) = (self.devices(admin).await, self.identity(admin).await);
        assert!(self.terminate().await.success());
        self.lose_keys();
        self.run();
        self.wait_for_another_device(admin, &device).await;
        assert_eq!(self.identity(admin).await, known);
        self.wait_until_connected(connections + 1).await;
        self.start_session(admin, "website").await;
    }

    /// All private keys of a stopped bot, in base64, with the names of their uses.
    pub(crate) async fn private_keys(&self) -> Vec<(&'static str, String)> {
        let folder = self.data_dir().join("matrix/store");
        let store = SqliteCryptoStore::open(folder, None).await.unwrap();
        let mut keys = Vec::new();
        for session in store.get_inbound_group_sessions().await.unwrap() {
            let key = session.export().await.session_key.to_base64();
            keys.push(("room key", key[RATCHET].to_owned()));
        }
        let identity = store.load_identity().await.unwrap().unwrap();
        for (name, secret) in [
            ("master key", SecretName::CrossSigningMasterKey),
            ("self-signing key", SecretName::CrossSigningSelfSigningKey),
            ("user-signing key", SecretName::CrossSigningUserSigningKey),
        ] {
            keys.push((name, identity.export_secret(&secret).await.unwrap()));
        }
        keys
    }

    /// Removes the keys of a stopped bot, except the recovery key.
    pub(crate) fn lose_keys(&self) {
        fs::remove_dir_all(self.data_dir().join("matrix/store")).unwrap();
    }

    /// Removes the recovery key, and returns it.
    pub(crate) fn lose_recovery_key(&self) -> String {
        let path = self.data_dir().join("matrix/recovery-key");
        let key = fs::read_to_string(&path).unwrap();
        fs::remove_file(path).unwrap();
        key
    }

    /// Resets the bot's identity from its host.
    pub(crate) fn reset_identity(&self) -> Output {
        run_to_end(self.command("reset-identity").arg("--yes"))
    }

    /// Deletes the bot's device, behind its back, as the appservice of this registration.
    pub(crate) async fn delete_device(&self, homeserver: &Homeserver, registration: &Path) {
        let log_in = self.stored_log_in();
        let device = log_in["device_id"].as_str().unwrap();
        let path = format!("devices/{device}?user_id={}", self.user_id());
        let token = Tokens::of(registration).appservice;
        let body = json!({});
        homeserver.call(Method::DELETE, &path, &token, &body).await;
    }

    /// Logs out the device of the stored log-in, which deletes it.
    pub(crate) async fn log_out(&self, homeserver: &Homeserver) {
        let log_in = self.stored_log_in();
        log_out(homeserver, log_in["access_token"].as_str().unwrap()).await;
    }
}

pub(crate) async fn log_out(homeserver: &Homeserver, token: &str) {
    let body = json!({});
    homeserver.call(Method::POST, "logout", token, &body).await;
}

/// Registers an account for a bot. Returns its localpart and password.
pub(crate) async fn account() -> (String, String) {
    let (localpart, password) = (format!("account-{}", random_text()), random_text());
    let made = homeserver().register_user(&localpart, &password).await;
    made.unwrap();
    (localpart, password)
}

/// Logs in by hand.
pub(crate) async fn log_in((localpart, password): &(String, String)) -> Client {
    let client = Client::builder().homeserver_url(homeserver().url());
    let client = client.build().await.unwrap();
    let log_in = client.matrix_auth().login_username(localpart, password);
    log_in.send().await.unwrap();
    client
}
