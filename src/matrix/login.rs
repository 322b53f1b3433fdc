//! How the bot comes to be its user on its device, and stays it over restarts.
//!
//! Invariant: nothing here knows rooms or encryption, and no secret is in an error or in the log.

mod access_token;
mod appservice;
mod forwarder;
mod password;
mod request;
#[cfg(test)]
mod testing;

use std::{path::Path, sync::Arc, time::SystemTime};

use matrix_sdk::{
    Client, ClientBuilder, SessionMeta, SessionTokens,
    authentication::matrix::MatrixSession,
    reqwest::RequestBuilder,
    ruma::{
        OwnedDeviceId, UserId,
        api::client::{
            session::login,
            uiaa::{AuthData, UiaaInfo},
        },
    },
};
use tracing::info;

use self::{appservice::Appservice, forwarder::Forwarder};
use super::{
    Fault, Registration, RegistrationError,
    device::{self, Authentication, Device, Session},
    quarantine::Quarantine,
};
use crate::{
    config::{Config, LoginMethod, Problem},
    secret::{Password, Token},
};

/// What people see as the device's name.
const DEVICE_NAME: &str = "rcbot";

/// How the bot logs in, with what that takes.
#[derive(Debug, Clone)]
pub enum Login {
    /// As an appservice's user, on which the homeserver's operator has agreed.
    Appservice(Registration),
    /// With the token of a log-in that somebody has made for the bot.
    AccessToken(Token),
    /// With the account's password.
    Password(Password),
}

impl Login {
    /// As the configuration says, with the registration that it names.
    ///
    /// # Errors
    /// [`RegistrationError`], where it names one.
    pub fn load(config: &Config) -> Result<Self, RegistrationError> {
        Ok(match &config.login {
            LoginMethod::Appservice { registration } => {
                Self::Appservice(Registration::load(registration, &config.bot_user)?)
            }
            LoginMethod::AccessToken(token) => Self::AccessToken(token.clone()),
            LoginMethod::Password(password) => Self::Password(password.clone()),
        })
    }

    /// What is allowed and yet doubtful.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        match self {
            Self::Appservice(registration) => registration.warnings(),
            Self::AccessToken(_) | Self::Password(_) => &[],
        }
    }

    /// What to say to a homeserver that asks who the bot is once more, before it does what was asked.
    pub(super) fn interactive_auth(&self, user: &UserId, asked: &UiaaInfo) -> Option<AuthData> {
        match self {
            Self::Password(password) => password::interactive_auth(user, password, asked),
            Self::Appservice(_) | Self::AccessToken(_) => None,
        }
    }
}

/// The bot's user on its device, as the homeserver knows them, and the way of its requests.
#[derive(Debug)]
pub(super) struct LoggedIn {
    device: Device,
    forwarder: Forwarder,
}

/// What proves whose the SDK's requests are.
#[derive(Debug)]
enum Credential {
    /// The device's own token.
    Token(Token),
    /// A token that we cannot get another one for.
    Configured(Token),
    /// The appservice's token, with user and device named beside it.
    Appservice(Box<Appservice>),
}

impl Credential {
    fn authenticate(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Token(token) | Self::Configured(token) => request.bearer_auth(token.expose()),
            Self::Appservice(appservice) => appservice.authenticate(request),
        }
    }
}

impl LoggedIn {
    /// Takes up the log-in of an earlier run, or logs in.
    ///
    /// # Errors
    /// [`Fault`]s of the homeserver and the way to it, and where what is on disk is another user's.
    pub(super) async fn new(
        config: &Config,
        login: &Login,
        folder: &Path,
        quarantine: Arc<Quarantine>,
    ) -> Result<Self, Fault> {
        let stored = device::stored(folder)?;
        if let Some(Session { device, .. }) = &stored
            && device.meta.user_id != config.bot_user
        {
            return Err(Fault::AnotherUser {
                stored: device.meta.user_id.to_string(),
                configured: config.bot_user.to_string(),
                folder: folder.to_owned(),
            });
        }
        let (device, credential) = match login {
            Login::Appservice(registration) => {
                as_appservice(config, registration, stored, folder).await?
            }
            Login::AccessToken(token) => with_token(config, token, folder).await?,
            Login::Password(password) => with_password(config, password, stored, folder).await?,
        };
        let id = device.meta.device_id.clone();
        let forwarder = Forwarder::start(config, credential, id, folder, quarantine)?;
        Ok(Self { device, forwarder })
    }

    /// What was sent before was not sent to us.
    pub(super) fn listening_since(&self) -> SystemTime {
        self.device.listening_since
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
        quarantine: Arc<Quarantine>,
    ) -> Result<Self, Fault> {
        if let Credential::Token(_) = self.forwarder.credential() {
            let appservice = Appservice::new(config, registration)?;
            let id = self.device.meta.device_id.clone();
            appservice.check_device(&id).await?;
            let credential = Credential::Appservice(Box::new(appservice));
            self.forwarder = Forwarder::start(config, credential, id, folder, quarantine)?;
        }
        Ok(self)
    }

    /// A client to be, which reaches the homeserver.
    pub(super) fn client_builder(&self) -> Result<ClientBuilder, Fault> {
        Ok(Client::builder()
            .homeserver_url(Forwarder::homeserver())
            .http_client(self.forwarder.http_client()?))
    }

    /// What such a client is to take up.
    pub(super) fn matrix_session(&self) -> MatrixSession {
        MatrixSession {
            meta: self.device.meta.clone(),
            tokens: SessionTokens {
                access_token: self.forwarder.placeholder().to_owned(),
                refresh_token: None,
            },
        }
    }

    /// Waits until such a client cannot reach the homeserver any more, which is a bug.
    pub(super) async fn ended(&self) {
        self.forwarder.ended().await;
    }

    /// Deletes the device, whose keys are of no use any more, so that the next log-in makes another one.
    ///
    /// # Errors
    /// Whatever the homeserver says, and [`Fault::DeviceInUse`] where it takes somebody else to log in.
    pub(super) async fn delete_device(&self, client: &Client, folder: &Path) -> Result<(), Fault> {
        let device = self.forwarder.device();
        match self.forwarder.credential() {
            Credential::Token(_) => {
                client.matrix_auth().logout().await?;
                Ok(())
            }
            Credential::Configured(_) => Err(access_token::in_use(device, folder)),
            // A log-out would be the appservice's, and is unknown to Matrix Authentication Service.
            Credential::Appservice(appservice) => appservice.delete_device(device).await,
        }
    }
}

/// Whether the homeserver takes the appservice for the bot's device, without which it does not let it replace an identity. Only
/// asks.
///
/// # Errors
/// [`Fault::NoIdentityAssertion`] if not, and [`Fault`]s of the homeserver.
pub(super) async fn check_appservice(
    config: &Config,
    registration: &Registration,
    folder: &Path,
) -> Result<(), Fault> {
    let Some(device) = device::known_id(folder)? else {
        return Ok(());
    };
    let appservice = Appservice::new(config, registration)?;
    match appservice.check_device(&device).await {
        // It was asked for, and is gone.
        Err(fault) if fault.names_unknown_device() => Ok(()),
        checked => checked,
    }
}

async fn as_appservice(
    config: &Config,
    registration: &Registration,
    stored: Option<Session>,
    folder: &Path,
) -> Result<(Device, Credential), Fault> {
    let appservice = Appservice::new(config, registration)?;
    let (device, authentication) = if let Some(Session {
        device,
        authentication: Some(authentication),
    }) = stored
    {
        (device, authentication)
    } else {
        let device_id = device::id(folder)?;
        let authentication = appservice.log_in(&device_id).await?;
        let device = begin(config, device_id, Some(&authentication), folder)?;
        (device, authentication)
    };
    let credential = match authentication {
        Authentication::AccessToken { access_token } => Credential::Token(access_token),
        Authentication::IdentityAssertion => {
            appservice.check_device(&device.meta.device_id).await?;
            info!(
                "the homeserver logs in no appservice: requests go out with the appservice's token"
            );
            Credential::Appservice(Box::new(appservice))
        }
    };
    Ok((device, credential))
}

async fn with_token(
    config: &Config,
    token: &Token,
    folder: &Path,
) -> Result<(Device, Credential), Fault> {
    let device_id = access_token::take_up(config, token, folder).await?;
    // What an earlier device had, or another way to log in, was forgotten meanwhile or is now.
    let device = match device::stored(folder)? {
        Some(Session {
            device,
            authentication: None,
        }) => device,
        Some(_) | None => begin(config, device_id, None, folder)?,
    };
    Ok((device, Credential::Configured(token.clone())))
}

async fn with_password(
    config: &Config,
    password: &Password,
    stored: Option<Session>,
    folder: &Path,
) -> Result<(Device, Credential), Fault> {
    if let Some(Session {
        device,
        authentication: Some(Authentication::AccessToken { access_token }),
    }) = stored
    {
        return Ok((device, Credential::Token(access_token)));
    }
    let device_id = device::id(folder)?;
    let access_token = password::log_in(config, password, &device_id).await?;
    let authentication = Authentication::AccessToken {
        access_token: access_token.clone(),
    };
    let device = begin(config, device_id, Some(&authentication), folder)?;
    Ok((device, Credential::Token(access_token)))
}

/// Writes down that the bot is logged in from now on, and how.
fn begin(
    config: &Config,
    device_id: OwnedDeviceId,
    authentication: Option<&Authentication>,
    folder: &Path,
) -> Result<Device, Fault> {
    let user_id = config.bot_user.clone();
    info!(user = %user_id, device = %device_id, "logged in");
    let session = Session {
        device: Device {
            meta: SessionMeta { user_id, device_id },
            listening_since: SystemTime::now(),
        },
        authentication: authentication.cloned(),
    };
    device::store(folder, &session)?;
    Ok(session.device)
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
