//! The appservice: registers the bot's user, logs it in, and sends requests in its name.

use matrix_sdk::{
    HttpError,
    reqwest::RequestBuilder,
    ruma::{
        DeviceId, OwnedUserId, UserId,
        api::{
            AppserviceUserIdentity, OutgoingRequest,
            auth_scheme::{AuthScheme, SendAccessToken},
            client::{
                account::{
                    register::{self, LoginType},
                    whoami,
                },
                device::{delete_device, update_device},
                session::login,
                uiaa::UserIdentifier,
            },
            error::{ErrorKind, FromHttpResponseError},
            path_builder::VersionHistory,
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

/// The device's display name.
const DEVICE_NAME: &str = "rcbot";

/// The appservice on its homeserver, for the bot's user.
#[derive(Debug, Clone)]
pub(super) struct Appservice {
    homeserver: Homeserver,
    user: OwnedUserId,
    registration: Registration,
}

impl Appservice {
    /// Sends nothing yet.
    pub(super) fn new(config: &Config, registration: &Registration) -> Result<Self, Fault> {
        Ok(Self {
            homeserver: Homeserver::new(config)?,
            user: config.bot_user.clone(),
            registration: registration.clone(),
        })
    }

    /// Registers the bot's user, unless it exists.
    async fn register(&self) -> Result<(), Fault> {
        let mut request = register::v3::Request::new();
        request.login_type = Some(LoginType::ApplicationService);
        request.username = Some(self.user.localpart().to_owned());
        request.inhibit_login = true;
        match self.send(AppserviceUserIdentity::default(), request).await {
            Ok(_) => info!(user = %self.user, "user registered"),
            Err(error) if matches!(error.client_api_error_kind(), Some(ErrorKind::UserInUse)) => {
                debug!("user exists already");
            }
            Err(error) => return Err(self.refused(error).await),
        }
        Ok(())
    }

    /// Creates the bot's user and this device, if needed: by a log-in, or without one where the homeserver lets no appservice
    /// log in. That is so with Matrix Authentication Service, and where the registration says so.
    pub(super) async fn log_in(&self, device: &DeviceId) -> Result<Authentication, Fault> {
        self.register().await?;
        if self.registration.has_device_management {
            match self.create_device(device).await {
                Ok(()) => return Ok(Authentication::IdentityAssertion),
                Err(fault) if is_unsupported(&fault) => warn!(
                    error = %Chain(&fault),
                    "the homeserver does not support io.element.msc4190, which the registration has: logging in instead"
                ),
                Err(fault) => return Err(fault),
            }
        }
        if let Some(access_token) = self.try_log_in(device).await? {
            return Ok(Authentication::AccessToken { access_token });
        }
        self.create_device(device).await?;
        Ok(Authentication::IdentityAssertion)
    }

    /// Creates this device without a log-in (MSC4190), unless it exists, and checks that the homeserver accepts us as it.
    async fn create_device(&self, device: &DeviceId) -> Result<(), Fault> {
        let mut request = update_device::v3::Request::new(device.to_owned());
        request.display_name = Some(DEVICE_NAME.to_owned());
        match self.send(self.identity(None), request).await {
            Ok(_) => self.check_device(device).await,
            Err(error) => Err(self.refused(error).await),
        }
    }

    /// Checks that the homeserver accepts us as the bot's user on this device (MSC4326).
    pub(super) async fn check_device(&self, device: &DeviceId) -> Result<(), Fault> {
        let identity = self.identity(Some(device));
        let answer = self.send(identity, whoami::v3::Request::new()).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if is_unknown_device(&error) => return Err(error.into()),
            Err(error) => return Err(self.refused(error).await),
        };
        if answer.user_id == self.user && answer.device_id.as_deref() == Some(device) {
            return Ok(());
        }
        Err(Fault::NoIdentityAssertion {
            device: device.to_string(),
        })
    }

    /// Deletes the device, and with it what the homeserver keeps for it.
    pub(super) async fn delete_device(&self, device: &DeviceId) -> Result<(), Fault> {
        let request = delete_device::v3::Request::new(device.to_owned());
        match self.send(self.identity(None), request).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.refused(error).await),
        }
    }

    /// In whose name a request is sent: the bot's user, and the device if given.
    pub(super) fn identity<'a>(
        &'a self,
        device: Option<&'a DeviceId>,
    ) -> AppserviceUserIdentity<'a> {
        let mut identity = AppserviceUserIdentity::new(&self.user);
        identity.device_id = device;
        identity
    }

    /// Adds the appservice's token to a request.
    pub(super) fn authenticate(&self, request: RequestBuilder) -> RequestBuilder {
        request.bearer_auth(self.registration.as_token.expose())
    }

    /// `None`: the homeserver lets no appservice log in.
    async fn try_log_in(&self, device: &DeviceId) -> Result<Option<Token>, Fault> {
        let user = UserIdentifier::Matrix(self.user.clone().into());
        let login_info =
            login::v3::LoginInfo::ApplicationService(login::v3::ApplicationService::new(user));
        let request = log_in_request(login_info, device);
        match self.send(AppserviceUserIdentity::default(), request).await {
            Ok(answer) => token_for(&self.user, answer).map(Some),
            Err(error) if is_login_unsupported(&error) => Ok(None),
            Err(error) => Err(self.refused(error).await),
        }
    }

    /// In the name of the bot's user and of no device, a request needs no interactive authentication.
    async fn send<R>(
        &self,
        identity: AppserviceUserIdentity<'_>,
        request: R,
    ) -> Result<R::IncomingResponse, HttpError>
    where
        R: OutgoingRequest<PathBuilder = VersionHistory>,
        for<'a> R::Authentication: AuthScheme<Input<'a> = SendAccessToken<'a>>,
        HttpError: From<FromHttpResponseError<R::EndpointError>>,
    {
        let token = &self.registration.as_token;
        self.homeserver.send(request, Some(token), identity).await
    }

    async fn refused(&self, error: HttpError) -> Fault {
        let kind = match error.client_api_error_kind() {
            Some(ErrorKind::UnknownToken(_) | ErrorKind::MissingToken | ErrorKind::Exclusive) => {
                self.homeserver.kind().await
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
