//! Connects: logs in, waits while the homeserver does not answer, and logs in again after it has logged the bot out.
//!
//! Invariant: nothing in matrix/ imports this.

use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
};

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::{
    BackOff, Chain, Fault, IncomingEvent, Matrix, MatrixFolder,
    client::build_client,
    folder::JsonMap,
    guard::Quarantine,
    inbox::{Inbox, Undecrypted},
    login::{LoggedIn, Login},
    own_identity::{OwnIdentity, RECOVERY_KEY_VARIABLE, RecoveryKey},
    replay::ReplayProtection,
    rooms::{AdminRoom, DirectMessages},
    sync,
};
use crate::config::{Config, MasterKey};

/// Makes the connections of a run, one after the other, and holds what they share.
#[derive(Debug)]
pub(crate) struct Connector {
    config: Arc<Config>,
    login: Login,
    folder: MatrixFolder,
    quarantine: Arc<Quarantine>,
    /// Each file has one owner: what is under way on one connection may still write while the next one is made.
    admin_room: Arc<AdminRoom>,
    direct_messages: Arc<DirectMessages>,
    pinned_identities: Arc<JsonMap<MasterKey>>,
    replay_protection: Arc<ReplayProtection>,
    undecrypted: Arc<Mutex<VecDeque<Undecrypted>>>,
    incoming: mpsc::Sender<IncomingEvent>,
    answers: watch::Sender<bool>,
}

impl Connector {
    /// `folder` is only for Matrix, and is created if needed. What arrives goes to `incoming`, and whether the homeserver
    /// answered the last sync to `answers`.
    pub(crate) fn new(
        config: Arc<Config>,
        login: Login,
        folder: MatrixFolder,
        incoming: mpsc::Sender<IncomingEvent>,
        answers: watch::Sender<bool>,
    ) -> Result<Self, Fault> {
        folder.create()?;
        let admin_room = AdminRoom::load(&folder, config.admin_room.clone())?;
        let replay_protection =
            ReplayProtection::load(folder.counted_commands(), config.max_command_age)?;
        Ok(Self {
            config,
            login,
            quarantine: Arc::new(Quarantine::load(&folder)?),
            admin_room: Arc::new(admin_room),
            direct_messages: Arc::new(DirectMessages::load(&folder)?),
            pinned_identities: Arc::new(folder.pinned_identities()?),
            replay_protection: Arc::new(replay_protection),
            folder,
            undecrypted: Arc::default(),
            incoming,
            answers,
        })
    }

    /// Logs in, or restores the session of an earlier run, and ensures the bot's identity. Waits while the homeserver does not
    /// answer.
    /// Fails with faults that waiting does not solve.
    pub(crate) async fn connect(&self) -> Result<Matrix, Fault> {
        let mut back_off = BackOff::default();
        let mut warned = false;
        loop {
            self.quarantine.start_over();
            // The client is dropped, with any state that a panic left inconsistent.
            let fault = match AssertUnwindSafe(self.try_connect()).catch_unwind().await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(fault)) => fault,
                Err(_) => self.quarantine.blame(),
            };
            if matches!(fault, Fault::DeviceLost) || fault.is_logged_out() {
                forget_log_in(&fault, &self.folder)?;
            } else if !fault.is_passing() {
                return Err(fault);
            } else if !matches!(fault, Fault::SetAside { .. }) {
                let error = Chain(&fault);
                if warned {
                    debug!(%error, "still waiting for the homeserver");
                } else {
                    warn!(homeserver = %self.config.homeserver_url, %error, "waiting for the homeserver");
                }
                warned = true;
            }
            back_off.wait(&fault).await;
        }
    }

    async fn try_connect(&self) -> Result<Matrix, Fault> {
        let Self {
            config,
            login,
            folder,
            quarantine,
            ..
        } = self;
        let logged_in = LoggedIn::new(config, login, folder, Arc::clone(quarantine)).await?;
        // Also when an earlier try or run made it, and got no further.
        let store_is_new = folder.own_identity().is_none();
        let client = build_client(&logged_in, config, folder).await?;
        // Before the SDK is logged in: then it sends more requests, and logs each one that fails.
        client.fetch_server_versions(None).await?;
        client.restore_session(logged_in.matrix_session()).await?;
        client.whoami().await?;
        let own_identity = OwnIdentity {
            client: &client,
            user: &config.bot_user,
            device: logged_in.device(),
            login,
            folder,
            quarantine,
        };
        let ensured = own_identity.ensure(store_is_new).await;
        if matches!(ensured, Err(Fault::DeviceLost)) {
            // Clients do not trust a device whose keys change.
            logged_in.delete_device(&client, folder).await?;
        }
        ensured?;
        self.admin_room
            .note_log_in(logged_in.listening_since(), store_is_new);
        let inbox = Inbox::new(
            config,
            &self.admin_room,
            &self.direct_messages,
            &self.replay_protection,
            Arc::clone(&self.undecrypted),
            self.incoming.clone(),
        );
        let matrix = Matrix {
            client,
            config: Arc::clone(config),
            admin_room: Arc::clone(&self.admin_room),
            logged_in: Arc::new(logged_in),
            quarantine: Arc::clone(quarantine),
            direct_messages: Arc::clone(&self.direct_messages),
            inbox: Arc::new(inbox),
            pinned_identities: Arc::clone(&self.pinned_identities),
            verifications: Arc::default(),
            turns: Arc::default(),
            replay_protection: Arc::clone(&self.replay_protection),
            synced_rooms: watch::Sender::default(),
            synced: watch::Sender::default(),
            answers: self.answers.clone(),
        };
        if matrix.admin_room.id().is_none() {
            // Without an admin room nobody sees the change.
            matrix.set_profile().await;
        }
        info!(user = %matrix.own_user(), "connected to the homeserver");
        Ok(matrix)
    }
}

impl Matrix {
    /// Syncs until a fault that a retry does not solve, and returns it. Joins the admin room when it can.
    pub(crate) async fn follow(&self) -> Fault {
        let following = async {
            tokio::select! {
                fault = sync::follow(self) => fault,
                fault = self.watch_identities() => fault,
                fault = self.decline_and_forget() => fault,
                never = self.compare_alias() => match never {},
                () = self.logged_in.ended() => Fault::Panicked,
            }
        };
        // The client is dropped, with any state that a panic left inconsistent.
        let followed = AssertUnwindSafe(following).catch_unwind().await;
        self.answers.send_replace(false);
        followed.unwrap_or_else(|_| self.quarantine.blame())
    }
}

/// Forgets the device too if it is lost: a log-out has deleted it, unless it is a soft one. If no recovery key could restore
/// the bot's identity on another device, nothing of this one is deleted.
fn forget_log_in(fault: &Fault, folder: &MatrixFolder) -> Result<(), Fault> {
    let session = folder.session()?;
    let has_token = session.is_some_and(|session| session.token().is_some());
    let device_is_gone = matches!(fault, Fault::DeviceLost) || fault.is_device_deleted(has_token);
    if device_is_gone && folder.own_identity().is_some() && RecoveryKey::find_own(folder)?.is_none()
    {
        return Err(Fault::for_operator(format!(
            "the bot's device cannot be used any more, and there is no recovery key, without which a new one cannot get the \
             bot's identity back. Nothing in {} was removed: bring back the file {}, or give its content in \
             {RECOVERY_KEY_VARIABLE}. If it is lost, `rcbot reset-identity --config` and the path of your config.yaml makes a \
             new identity",
            folder.path().display(),
            folder.recovery_key().display()
        )));
    }
    warn!(
        device_is_gone,
        "the bot's access token or device cannot be used any more, logging in again"
    );
    if device_is_gone {
        folder.forget_device()
    } else {
        folder.forget_session()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::SystemTime};

    use matrix_sdk::{
        SessionMeta,
        ruma::{device_id, user_id},
    };
    use serde_json::json;

    use super::*;
    use crate::{
        matrix::{Authentication, Session, Severity, fault::testing::answered},
        secret::Token,
    };

    /// A folder with the files of a log-in.
    fn logged_in(has_identity: bool, has_recovery_key: bool) -> (tempfile::TempDir, MatrixFolder) {
        let folder = tempfile::tempdir().unwrap();
        let matrix = MatrixFolder::new(folder.path().to_owned());
        let session = Session {
            meta: SessionMeta {
                user_id: user_id!("@rcbot:x.y").to_owned(),
                device_id: device_id!("RCBOT1").to_owned(),
            },
            listening_since: SystemTime::now(),
            authentication: Some(Authentication::AccessToken {
                access_token: Token::new("token".to_owned()).unwrap(),
            }),
        };
        matrix.set_session(&session).unwrap();
        matrix.set_device_id(session.device_id()).unwrap();
        fs::create_dir(matrix.store()).unwrap();
        if has_identity {
            matrix.set_own_identity("key").unwrap();
        }
        if has_recovery_key {
            fs::write(matrix.recovery_key(), "key").unwrap();
        }
        (folder, matrix)
    }

    #[test]
    fn a_device_with_an_identity_is_forgotten_only_where_a_recovery_key_brings_that_back() {
        let logged_out = |is_soft: bool| {
            let body =
                json!({ "errcode": "M_UNKNOWN_TOKEN", "error": "no", "soft_logout": is_soft });
            answered(401, &body.to_string())
        };
        for has_identity in [true, false] {
            for has_recovery_key in [true, false] {
                let forget = |fault: &Fault| {
                    let (_folder, matrix) = logged_in(has_identity, has_recovery_key);
                    let forgotten = forget_log_in(fault, &matrix);
                    let has_session = matrix.session().unwrap().is_some();
                    let has_device = matrix.device_id().unwrap().is_some();
                    assert_eq!(has_device, matrix.has_store());
                    (forgotten, has_session, has_device)
                };
                let soft = forget(&logged_out(true));
                assert!(matches!(soft, (Ok(()), false, true)), "{soft:?}");
                for lost in [logged_out(false), Fault::DeviceLost] {
                    let (forgotten, has_session, has_device) = forget(&lost);
                    let is_kept = has_identity && !has_recovery_key;
                    assert_eq!((has_session, has_device), (is_kept, is_kept));
                    let severity = forgotten.err().map(|fault| fault.severity());
                    assert_eq!(severity, is_kept.then_some(Severity::NeedsOperator));
                }
            }
        }
    }
}
