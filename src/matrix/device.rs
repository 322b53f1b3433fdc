//! The bot's device: logs in as the appservice's user, once, and stays the same device ever after.
//!
//! The two requests are made by hand, as a client of matrix-sdk that is not logged in has no appservice token to send.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use matrix_sdk::{
    HttpError, SessionMeta, SessionTokens,
    authentication::matrix::MatrixSession,
    reqwest::Client,
    ruma::{OwnedDeviceId, OwnedUserId},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::{debug, info, warn};

use super::{Fault, client::STORE, registration::Registration};
use crate::{atomic_file, config::Config};

/// The file with the device's id and access token, in the folder of Matrix.
const SESSION: &str = "session.json";

/// The file with the device's id alone, which stays when the access token is no longer good.
const DEVICE: &str = "device-id";

/// A log-in that lasts over restarts.
#[derive(Deserialize, Serialize)]
pub(super) struct Session {
    #[serde(flatten)]
    pub(super) matrix: MatrixSession,
    /// What was sent before was not sent to us.
    pub(super) listening_since: SystemTime,
}

/// The session of an earlier run, if there is one. One that makes no sense is as good as none: the device's id is kept by
/// itself, so that the bot logs in again as the same device.
pub(super) fn stored(folder: &Path) -> Result<Option<Session>, Fault> {
    let path = folder.join(SESSION);
    let Some(text) = read(&path)? else {
        return Ok(None);
    };
    Ok(serde_json::from_str(&text)
        .inspect_err(|_| warn!(path = %path.display(), "the log-in on disk makes no sense, logging in again"))
        .ok())
}

/// Forgets the access token; where the device is gone too, also its keys, which are of no use any more. The identity comes back with the recovery key.
pub(super) fn forget(folder: &Path, device_is_gone: bool) -> Result<(), Fault> {
    if device_is_gone {
        remove(&folder.join(DEVICE))?;
        let store = folder.join(STORE);
        std::fs::remove_dir_all(&store).map_err(|source| io_fault(&store, source))?;
    }
    // Last, so that a crash before leaves the token whose refusal leads here again.
    remove(&folder.join(SESSION))
}

fn remove(path: &Path) -> Result<(), Fault> {
    atomic_file::remove(path).map_err(|source| io_fault(path, source))
}

/// Registers the bot's user if it is new, and logs in.
pub(super) async fn log_in(
    http: &Client,
    config: &Config,
    registration: &Registration,
    folder: &Path,
) -> Result<Session, Fault> {
    let device_id = device_id(folder)?;
    let appservice = Appservice {
        http,
        config,
        registration,
    };
    appservice.register().await?;
    let (user_id, access_token) = appservice.log_in(&device_id).await?;
    let matrix = MatrixSession {
        meta: SessionMeta { user_id, device_id },
        tokens: SessionTokens {
            access_token,
            refresh_token: None,
        },
    };
    let session = Session {
        matrix,
        listening_since: SystemTime::now(),
    };
    let path = folder.join(SESSION);
    let text = serde_json::to_vec(&session).map_err(|error| io_fault(&path, error.into()))?;
    atomic_file::write(&path, &text).map_err(|source| io_fault(&path, source))?;
    info!(user = %session.matrix.meta.user_id, device = %session.matrix.meta.device_id, "logged in");
    Ok(session)
}

/// The device's id, which is written down before it is used: a crash between must not make a second device.
fn device_id(folder: &Path) -> Result<OwnedDeviceId, Fault> {
    let path = folder.join(DEVICE);
    if let Some(id) = read(&path)? {
        return Ok(id.trim().into());
    }
    let id = format!("RCBOT{:08X}", rand::random::<u32>());
    atomic_file::write(&path, id.as_bytes()).map_err(|source| io_fault(&path, source))?;
    Ok(id.into())
}

fn read(path: &Path) -> Result<Option<String>, Fault> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_fault(path, source)),
    }
}

fn io_fault(path: &Path, source: io::Error) -> Fault {
    Fault::File {
        path: PathBuf::from(path),
        source,
    }
}

struct Appservice<'a> {
    http: &'a Client,
    config: &'a Config,
    registration: &'a Registration,
}

/// The part of the homeserver's answers that matters here.
#[derive(Deserialize)]
struct Answer {
    user_id: Option<OwnedUserId>,
    access_token: Option<String>,
    #[serde(default)]
    errcode: String,
    #[serde(default)]
    error: String,
}

impl Appservice<'_> {
    async fn register(&self) -> Result<(), Fault> {
        let body = json!({
            "type": "m.login.application_service",
            "username": self.config.bot_user.localpart(),
            "inhibit_login": true,
        });
        let (status, answer) = self.post("register", &body).await?;
        match (status, answer.errcode.as_str()) {
            (200, _) => info!(user = %self.config.bot_user, "user registered"),
            (_, "M_USER_IN_USE") => debug!("user exists already"),
            _ => return Err(self.refused(status, answer)),
        }
        Ok(())
    }

    async fn log_in(&self, device_id: &OwnedDeviceId) -> Result<(OwnedUserId, String), Fault> {
        let body = json!({
            "type": "m.login.application_service",
            "identifier": { "type": "m.id.user", "user": self.config.bot_user },
            "device_id": device_id,
            "initial_device_display_name": "rcbot",
        });
        let (status, answer) = self.post("login", &body).await?;
        match answer {
            Answer {
                user_id: Some(user_id),
                access_token: Some(token),
                ..
            } if user_id == self.config.bot_user => Ok((user_id, token)),
            answer => Err(self.refused(status, answer)),
        }
    }

    async fn post(
        &self,
        endpoint: &'static str,
        body: &serde_json::Value,
    ) -> Result<(u16, Answer), Fault> {
        let unreachable = |error| Fault::Unreachable(Box::new(HttpError::Reqwest(error)));
        let base = self.config.homeserver_url.as_str().trim_end_matches('/');
        let response = self
            .http
            .post(format!("{base}/_matrix/client/v3/{endpoint}"))
            .bearer_auth(self.registration.as_token.expose())
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .map_err(unreachable)?;
        let status = response.status().as_u16();
        let text = response.text().await.map_err(unreachable)?;
        let answer = serde_json::from_str(&text);
        answer
            .map(|answer| (status, answer))
            .map_err(|source| Fault::Nonsense {
                request: endpoint,
                source,
            })
    }

    fn refused(&self, status: u16, answer: Answer) -> Fault {
        let registration = self.config.registration.display();
        let remedy = match answer.errcode.as_str() {
            "M_UNKNOWN_TOKEN" | "M_MISSING_TOKEN" => format!(
                "name a copy of {registration} under app_service_config_files in the homeserver's configuration, \
                 and restart the homeserver"
            ),
            "M_EXCLUSIVE" => format!(
                "the registration that the homeserver has loaded does not cover {}: \
                 load {registration} anew and restart the homeserver",
                self.config.bot_user
            ),
            "M_APPSERVICE_LOGIN_UNSUPPORTED" => {
                "homeservers with Matrix Authentication Service are not supported yet".to_owned()
            }
            _ => answer.error,
        };
        Fault::LoginRefused {
            status,
            code: answer.errcode,
            remedy,
        }
    }
}
