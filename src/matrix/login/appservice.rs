//! The appservice: registers the bot's user, logs it in, and sends requests in its name.

use matrix_sdk::{
    HttpError,
    ruma::{
        DeviceId, OwnedDeviceId, OwnedUserId, UserId,
        api::{
            AppserviceUserIdentity,
            client::{
                account::{
                    register::{self, LoginType},
                    whoami,
                },
                device::{delete_device, update_device},
                session::login,
                uiaa::UserIdentifier,
            },
            error::ErrorKind,
        },
    },
};
use tracing::{debug, info, warn};

use crate::{
    config::Config,
    matrix::{
        Chain, Fault, HomeserverKind, Registration, fault::is_unknown_device,
        folder::Authentication, homeserver::Homeserver,
    },
    secret::Token,
};

const DEVICE_NAME: &str = "rcbot";

/// The appservice on its homeserver, for the bot's user and its device.
#[derive(Debug, Clone)]
pub(super) struct Appservice {
    homeserver: Homeserver,
    user: OwnedUserId,
    device: OwnedDeviceId,
    registration: Registration,
}

impl Appservice {
    /// Sends nothing yet.
    pub(super) fn new(
        config: &Config,
        registration: &Registration,
        device: &DeviceId,
    ) -> Result<Self, Fault> {
        Ok(Self {
            homeserver: Homeserver::new(config, Some(&registration.as_token))?,
            user: config.bot_user.clone(),
            device: device.to_owned(),
            registration: registration.clone(),
        })
    }

    /// Registers the bot's user, unless it exists.
    async fn register(&self) -> Result<(), Fault> {
        let mut request = register::v3::Request::new();
        request.login_type = Some(LoginType::ApplicationService);
        request.username = Some(self.user.localpart().to_owned());
        request.inhibit_login = true;
        let identity = AppserviceUserIdentity::default();
        match self.homeserver.send(request, identity).await {
            Ok(_) => info!(user = %self.user, "user registered"),
            Err(error) if matches!(error.client_api_error_kind(), Some(ErrorKind::UserInUse)) => {
                debug!("user exists already");
            }
            Err(error) => return Err(self.refused(error).await),
        }
        Ok(())
    }

    /// Creates the bot's user and its device, if needed: by a log-in, or without one where the homeserver lets no appservice
    /// log in. That is so with Matrix Authentication Service, and where the registration says so.
    pub(super) async fn log_in(&self) -> Result<Authentication, Fault> {
        self.register().await?;
        if self.registration.has_device_management {
            match self.create_device().await {
                Ok(()) => return Ok(Authentication::IdentityAssertion),
                Err(fault) if is_unsupported(&fault) => warn!(
                    error = %Chain(&fault),
                    "the homeserver does not support io.element.msc4190, which the registration has: logging in instead"
                ),
                Err(fault) => return Err(fault),
            }
        }
        if let Some(access_token) = self.try_log_in().await? {
            return Ok(Authentication::AccessToken { access_token });
        }
        self.create_device().await?;
        Ok(Authentication::IdentityAssertion)
    }

    /// Creates the device without a log-in (MSC4190), unless it exists, and checks that the homeserver accepts us as it.
    async fn create_device(&self) -> Result<(), Fault> {
        let mut request = update_device::v3::Request::new(self.device.clone());
        request.display_name = Some(DEVICE_NAME.to_owned());
        match self.homeserver.send(request, self.as_user()).await {
            Ok(_) => self.check_device().await,
            Err(error) => Err(self.refused(error).await),
        }
    }

    /// Checks that the homeserver accepts us as the bot's user on this device (MSC4326).
    pub(super) async fn check_device(&self) -> Result<(), Fault> {
        let request = whoami::v3::Request::new();
        let answer = match self.homeserver.send(request, self.as_device()).await {
            Ok(answer) => answer,
            Err(error) if error.as_client_api_error().is_some_and(is_unknown_device) => {
                return Err(error.into());
            }
            Err(error) => return Err(self.refused(error).await),
        };
        if answer.user_id == self.user && answer.device_id.as_ref() == Some(&self.device) {
            return Ok(());
        }
        Err(Fault::NoIdentityAssertion {
            device: self.device.to_string(),
        })
    }

    /// Deletes the device, and with it what the homeserver keeps for it.
    pub(super) async fn delete_device(&self) -> Result<(), Fault> {
        let request = delete_device::v3::Request::new(self.device.clone());
        match self.homeserver.send(request, self.as_user()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.refused(error).await),
        }
    }

    /// For requests in the name of the bot's user and of no device: they need no interactive authentication.
    fn as_user(&self) -> AppserviceUserIdentity<'_> {
        AppserviceUserIdentity::new(&self.user)
    }

    pub(super) fn as_device(&self) -> AppserviceUserIdentity<'_> {
        let mut identity = self.as_user();
        identity.device_id = Some(&self.device);
        identity
    }

    /// The token of all these requests.
    pub(super) fn token(&self) -> &Token {
        &self.registration.as_token
    }

    /// `None`: the homeserver lets no appservice log in.
    async fn try_log_in(&self) -> Result<Option<Token>, Fault> {
        let user = UserIdentifier::Matrix(self.user.clone().into());
        let login_info =
            login::v3::LoginInfo::ApplicationService(login::v3::ApplicationService::new(user));
        let request = log_in_request(login_info, &self.device);
        let identity = AppserviceUserIdentity::default();
        match self.homeserver.send(request, identity).await {
            Ok(answer) => token_for(&self.user, answer).map(Some),
            Err(error) if is_login_unsupported(&error) => Ok(None),
            Err(error) => Err(self.refused(error).await),
        }
    }

    async fn refused(&self, error: HttpError) -> Fault {
        let kind = match error.client_api_error_kind() {
            Some(ErrorKind::UnknownToken(_) | ErrorKind::MissingToken | ErrorKind::Exclusive) => {
                HomeserverKind::ask(&self.homeserver.address).await
            }
            _ => HomeserverKind::Unknown,
        };
        let file = &self.registration.file;
        let register = || kind.how_to_register(file, &self.user);
        let file = file.display();
        Fault::login_refused(error, |code, message| match code {
            ErrorKind::UnknownToken(_) | ErrorKind::MissingToken => register(),
            ErrorKind::Exclusive => format!(
                "the registration that the homeserver has loaded does not cover {}: {}",
                self.user,
                register()
            ),
            // The answers to creating a device without MSC4190, and of Matrix Authentication Service to a log-in.
            ErrorKind::Unknown | ErrorKind::Unrecognized | ErrorKind::NotFound => format!(
                "{message}. If the homeserver has Matrix Authentication Service, add `io.element.msc4190: true` to {file} and \
                 to the homeserver's copy, and restart the homeserver"
            ),
            _ => message.to_owned(),
        })
    }
}

pub(super) fn log_in_request(
    login_info: login::v3::LoginInfo,
    device: &DeviceId,
) -> login::v3::Request {
    let mut request = login::v3::Request::new(login_info);
    request.device_id = Some(device.to_owned());
    request.initial_device_display_name = Some(DEVICE_NAME.to_owned());
    request
}

/// The token of a log-in. Fails if it is another user's.
pub(super) fn token_for(user: &UserId, answer: login::v3::Response) -> Result<Token, Fault> {
    if answer.user_id != *user {
        return Err(logged_in_as_another(&answer.user_id, user));
    }
    Token::new(answer.access_token).map_err(|_| {
        Fault::for_operator(
            "the homeserver gave an access token that is not valid in an HTTP header",
        )
    })
}

pub(super) fn logged_in_as_another(user: &UserId, configured: &UserId) -> Fault {
    Fault::for_operator(format!(
        "the homeserver says that the bot is {user}, and the configuration names {configured}: set homeserver.server_name \
         and bot.localpart right, or log in as that user"
    ))
}

/// Whether a log-in is refused because appservices cannot log in. Matrix Authentication Service says so with several codes, or
/// has no such path.
fn is_login_unsupported(error: &HttpError) -> bool {
    error.as_client_api_error().is_some_and(|answer| {
        answer.status_code.is_client_error()
            && matches!(
                answer.error_kind(),
                Some(
                    ErrorKind::AppserviceLoginUnsupported
                        | ErrorKind::Unrecognized
                        | ErrorKind::Unknown
                )
            )
    })
}

/// Whether the homeserver does not support devices that an appservice creates (MSC4190), or acts as (MSC4326).
fn is_unsupported(fault: &Fault) -> bool {
    match fault {
        Fault::NoIdentityAssertion { .. } => true,
        Fault::LoginRefused { status, .. } => matches!(status, 404 | 405),
        fault => fault.names_unknown_device(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::fault::testing::error;

    #[test]
    fn a_homeserver_says_in_several_ways_that_no_appservice_can_log_in() {
        for (status, code, is_unsupported) in [
            (400, "M_APPSERVICE_LOGIN_UNSUPPORTED", true),
            (400, "M_UNKNOWN", true),
            (404, "M_UNRECOGNIZED", true),
            (500, "M_UNKNOWN", false),
            (403, "M_FORBIDDEN", false),
            (429, "M_LIMIT_EXCEEDED", false),
        ] {
            let body = format!(r#"{{"errcode":"{code}","error":"no"}}"#);
            let found = is_login_unsupported(&error(status, &body));
            assert_eq!(found, is_unsupported, "{status} {code}");
        }
    }
}
