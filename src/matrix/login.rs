//! How the bot comes to be its user on its device, and stays it over restarts.
//!
//! Invariant: nothing here knows rooms or encryption, and no secret is in an error or in the log.

mod appservice;
mod forwarder;
mod request;

use std::{path::Path, time::SystemTime};

use matrix_sdk::{
    Client, ClientBuilder, SessionMeta, SessionTokens,
    authentication::matrix::MatrixSession,
    ruma::{UserId, api::client::session::login},
};
use tracing::info;

use self::{appservice::Appservice, forwarder::Forwarder};
use super::{
    Fault, Registration,
    device::{self, Authentication, Session},
};
use crate::{config::Config, secret::Token};

/// What people see as the device's name.
const DEVICE_NAME: &str = "rcbot";

/// The bot's user on its device, as the homeserver knows them.
#[derive(Debug)]
pub(super) struct LoggedIn {
    meta: SessionMeta,
    /// What was sent before was not sent to us.
    pub(super) listening_since: SystemTime,
    route: Route,
}

/// How the SDK's requests come to the homeserver, and what proves whose they are.
#[derive(Debug)]
enum Route {
    /// Straight, with the device's own token.
    Direct(Token),
    /// In the name of the device, with the appservice's token.
    Forwarded(Forwarder),
}

impl LoggedIn {
    /// Takes up the log-in of an earlier run, or logs in: as the device of an earlier log-in, if there was one.
    ///
    /// # Errors
    /// [`Fault`]s of the homeserver and the way to it, and where what is on disk is another user's.
    pub(super) async fn new(
        config: &Config,
        registration: &Registration,
        folder: &Path,
    ) -> Result<Self, Fault> {
        let appservice = Appservice::new(config, registration)?;
        let session = match device::stored(folder)? {
            Some(session) => session,
            None => log_in(&appservice, config, folder).await?,
        };
        if session.meta.user_id != config.bot_user {
            return Err(Fault::AnotherUser {
                stored: session.meta.user_id.to_string(),
                configured: config.bot_user.to_string(),
                folder: folder.to_owned(),
            });
        }
        let route = match session.authentication {
            Authentication::AccessToken { access_token } => Route::Direct(access_token),
            Authentication::IdentityAssertion => {
                let device_id = session.meta.device_id.clone();
                appservice.check_device(&device_id).await?;
                Route::Forwarded(Forwarder::start(appservice, device_id, folder)?)
            }
        };
        Ok(Self {
            meta: session.meta,
            listening_since: session.listening_since,
            route,
        })
    }

    /// The same device, with requests in its name that the appservice makes: those need no interactive authentication.
    ///
    /// # Errors
    /// [`Fault`], where the homeserver does not take the appservice for the device.
    pub(super) async fn by_appservice(
        mut self,
        config: &Config,
        registration: &Registration,
        folder: &Path,
    ) -> Result<Self, Fault> {
        if let Route::Direct(_) = self.route {
            let appservice = Appservice::new(config, registration)?;
            let device_id = self.meta.device_id.clone();
            appservice.check_device(&device_id).await?;
            self.route = Route::Forwarded(Forwarder::start(appservice, device_id, folder)?);
        }
        Ok(self)
    }

    /// A client to be, which reaches the homeserver.
    pub(super) fn client_builder(&self, config: &Config) -> Result<ClientBuilder, Fault> {
        Ok(match &self.route {
            Route::Direct(_) => Client::builder().homeserver_url(&config.homeserver_url),
            Route::Forwarded(forwarder) => Client::builder()
                .homeserver_url(Forwarder::homeserver())
                .http_client(forwarder.http_client()?),
        })
    }

    /// What such a client is to take up.
    pub(super) fn matrix_session(&self) -> MatrixSession {
        let access_token = match &self.route {
            Route::Direct(token) => token.expose(),
            Route::Forwarded(forwarder) => forwarder.placeholder(),
        };
        MatrixSession {
            meta: self.meta.clone(),
            tokens: SessionTokens {
                access_token: access_token.to_owned(),
                refresh_token: None,
            },
        }
    }

    /// Deletes the device, whose keys are of no use any more.
    ///
    /// # Errors
    /// Whatever the homeserver says.
    pub(super) async fn delete_device(&self, client: &Client) -> Result<(), Fault> {
        match &self.route {
            Route::Direct(_) => {
                client.matrix_auth().logout().await?;
                Ok(())
            }
            // A log-out would be the appservice's, and is unknown to Matrix Authentication Service.
            Route::Forwarded(forwarder) => forwarder.delete_device().await,
        }
    }
}

/// Logs in, and writes down that and how.
async fn log_in(appservice: &Appservice, config: &Config, folder: &Path) -> Result<Session, Fault> {
    let device_id = device::id(folder)?;
    appservice.register().await?;
    let authentication = appservice.log_in(&device_id).await?;
    let session = Session {
        meta: SessionMeta {
            user_id: config.bot_user.clone(),
            device_id,
        },
        authentication,
        listening_since: SystemTime::now(),
    };
    device::store(folder, &session)?;
    info!(user = %session.meta.user_id, device = %session.meta.device_id, "logged in");
    Ok(session)
}

/// The token that a log-in gave, if it is this user's.
fn token_for(user: &UserId, answer: login::v3::Response) -> Result<Token, Fault> {
    if answer.user_id != *user {
        return Err(Fault::LoggedInAsAnother {
            user: answer.user_id.to_string(),
            configured: user.to_string(),
        });
    }
    Token::new(answer.access_token).map_err(|_| Fault::UnusableToken)
}
