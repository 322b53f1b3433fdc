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

use std::{sync::Arc, time::SystemTime};

use matrix_sdk::{
    Client, ClientBuilder, SessionMeta, SessionTokens,
    authentication::matrix::MatrixSession,
    reqwest::RequestBuilder,
    ruma::{
        DeviceId, UserId,
        api::client::{
            session::login,
            uiaa::{AuthData, UiaaInfo},
        },
    },
};
use tracing::info;

use self::{appservice::Appservice, forwarder::Forwarder};
use super::{
    Fault, MatrixFolder, Registration, RegistrationError,
    folder::{Authentication, Session},
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
    session: Session,
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
        folder: &MatrixFolder,
        quarantine: Arc<Quarantine>,
    ) -> Result<Self, Fault> {
        if let Some(session) = folder.session()?
            && session.meta.user_id != config.bot_user
        {
            return Err(Fault::AnotherUser {
                stored: session.meta.user_id.to_string(),
                configured: config.bot_user.to_string(),
                folder: folder.path().to_owned(),
            });
        }
        let device_id = match login {
            Login::AccessToken(token) => access_token::take_up(config, token, folder).await?,
            Login::Appservice(_) | Login::Password(_) => folder.device_id_or_new()?,
        };
        // The device may be another one than a moment ago.
        let stored = folder.session()?;
        let known = stored
            .as_ref()
            .and_then(|session| session.authentication.clone());
        let (authentication, credential) = authenticate(config, login, &device_id, known).await?;
        let session = match stored {
            Some(session) if session.authentication == authentication => session,
            Some(_) | None => {
                let user_id = config.bot_user.clone();
                info!(user = %user_id, device = %device_id, "logged in");
                let session = Session {
                    meta: SessionMeta { user_id, device_id },
                    listening_since: SystemTime::now(),
                    authentication,
                };
                folder.set_session(&session)?;
                session
            }
        };
        let id = session.meta.device_id.clone();
        let forwarder = Forwarder::start(config, credential, id, folder, quarantine)?;
        Ok(Self { session, forwarder })
    }

    /// What was sent before was not sent to us.
    pub(super) fn listening_since(&self) -> SystemTime {
        self.session.listening_since
    }

    /// The same device, with requests in its name that the appservice makes: those need no interactive authentication.
    ///
    /// # Errors
    /// [`Fault`], where the homeserver does not take the appservice for the device.
    pub(super) async fn by_appservice(
        mut self,
        config: &Config,
        registration: &Registration,
        folder: &MatrixFolder,
        quarantine: Arc<Quarantine>,
    ) -> Result<Self, Fault> {
        if let Credential::Token(_) = self.forwarder.credential() {
            let appservice = Appservice::new(config, registration)?;
            let id = self.session.meta.device_id.clone();
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
            meta: self.session.meta.clone(),
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
    pub(super) async fn delete_device(
        &self,
        client: &Client,
        folder: &MatrixFolder,
    ) -> Result<(), Fault> {
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
    folder: &MatrixFolder,
) -> Result<(), Fault> {
    let Some(device) = folder.device_id()? else {
        return Ok(());
    };
    let appservice = Appservice::new(config, registration)?;
    match appservice.check_device(&device).await {
        // It was asked for, and is gone.
        Err(fault) if fault.names_unknown_device() => Ok(()),
        checked => checked,
    }
}

/// Logs in, unless what an earlier log-in gave is `known`.
async fn authenticate(
    config: &Config,
    login: &Login,
    device: &DeviceId,
    known: Option<Authentication>,
) -> Result<(Option<Authentication>, Credential), Fault> {
    match login {
        Login::AccessToken(token) => Ok((None, Credential::Configured(token.clone()))),
        Login::Password(password) => {
            let access_token = match known {
                Some(Authentication::AccessToken { access_token }) => access_token,
                Some(Authentication::IdentityAssertion) | None => {
                    password::log_in(config, password, device).await?
                }
            };
            let credential = Credential::Token(access_token.clone());
            Ok((
                Some(Authentication::AccessToken { access_token }),
                credential,
            ))
        }
        Login::Appservice(registration) => {
            let appservice = Appservice::new(config, registration)?;
            let authentication = match known {
                Some(authentication) => authentication,
                None => appservice.log_in(device).await?,
            };
            let credential = match &authentication {
                Authentication::AccessToken { access_token } => {
                    Credential::Token(access_token.clone())
                }
                Authentication::IdentityAssertion => {
                    appservice.check_device(device).await?;
                    info!(
                        "the homeserver logs in no appservice: requests go out with the appservice's token"
                    );
                    Credential::Appservice(Box::new(appservice))
                }
            };
            Ok((Some(authentication), credential))
        }
    }
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
