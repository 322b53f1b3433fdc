//! Logs the bot in as its user on its device, and keeps that across restarts.
//!
//! Invariant: nothing here knows rooms or encryption, and no secret is in an error or in the log.

mod appservice;
mod forwarder;

use std::{sync::Arc, time::SystemTime};

use matrix_sdk::{
    Client, ClientBuilder, HttpError, SessionMeta, SessionTokens,
    authentication::matrix::MatrixSession,
    ruma::{
        DeviceId, OwnedDeviceId, UserId,
        api::{
            AppserviceUserIdentity,
            client::{
                account::whoami,
                keys::get_keys,
                session::login,
                uiaa::{AuthData, AuthType, Password as PasswordStage, UiaaInfo, UserIdentifier},
            },
            error::ErrorKind,
        },
    },
};
use tracing::{info, warn};

use self::{
    appservice::{Appservice, log_in_request, logged_in_as_another, token_for},
    forwarder::{Credential, Forwarder},
};
use super::{
    Fault, MatrixFolder, Registration, RegistrationError,
    folder::{Authentication, Session},
    guard::Quarantine,
    homeserver::Homeserver,
};
use crate::{
    config::{Config, LoginMethod, Problem},
    secret::{SecretText, Token},
};

/// How the bot logs in, with the registration that the configuration names.
pub(crate) type Login = LoginMethod<Registration>;

impl Login {
    pub(crate) fn load(config: &Config) -> Result<Self, RegistrationError> {
        Ok(match &config.login {
            LoginMethod::Appservice(file) => {
                Self::Appservice(Registration::load(file, &config.bot_user)?)
            }
            LoginMethod::AccessToken(token) => Self::AccessToken(token.clone()),
            LoginMethod::Password(password) => Self::Password(password.clone()),
        })
    }

    /// Valid but suspicious settings.
    pub(crate) fn warnings(&self) -> &[Problem] {
        match self {
            Self::Appservice(registration) => registration.warnings(),
            Self::AccessToken(_) | Self::Password(_) => &[],
        }
    }

    /// The interactive authentication for a new identity, if the homeserver wants only the password.
    pub(super) fn auth_data(&self, user: &UserId, asked: &UiaaInfo) -> Result<AuthData, Fault> {
        let Self::Password(password) = self else {
            return Err(password_wanted());
        };
        let mut flows = asked.flows.iter();
        if !flows.any(|flow| flow.stages == [AuthType::Password]) {
            return Err(identity_refused());
        }
        let user = UserIdentifier::Matrix(user.to_owned().into());
        let mut stage = PasswordStage::new(user, password.expose().to_owned());
        stage.session.clone_from(&asked.session);
        Ok(AuthData::Password(stage))
    }
}

pub(super) fn password_wanted() -> Fault {
    Fault::for_operator(
        "the homeserver wants the password of the bot's user before it takes a cross-signing identity: give the user a \
         password, and set bot.password in config.yaml in place of `appservice` or bot.access_token",
    )
}

pub(super) fn identity_refused() -> Fault {
    Fault::for_operator(
        "the homeserver does not take the bot's cross-signing identity: bot.password is not its password, or the homeserver \
         asks for more than that",
    )
}

/// The bot's user on its device, as the homeserver knows them, and the forwarder of its requests.
#[derive(Debug)]
pub(super) struct LoggedIn {
    session: Session,
    forwarder: Forwarder,
}

impl LoggedIn {
    /// Restores the log-in of an earlier run, or logs in.
    pub(super) async fn new(
        config: &Config,
        login: &Login,
        folder: &MatrixFolder,
        quarantine: Arc<Quarantine>,
    ) -> Result<Self, Fault> {
        if let Some(session) = folder.session()?
            && session.meta.user_id != config.bot_user
        {
            return Err(Fault::for_operator(format!(
                "{} holds the keys of {}, and the configuration names {}: set bot.localpart back, or give this user a data_dir \
                 of its own",
                folder.path().display(),
                session.meta.user_id,
                config.bot_user
            )));
        }
        let device_id = match login {
            Login::AccessToken(token) => adopt_device(config, token, folder).await?,
            Login::Appservice(_) | Login::Password(_) => folder.device_id_or_new()?,
        };
        // Read again, as the device may be another one now.
        let stored = folder.session()?;
        let known = stored.as_ref();
        let known = known.and_then(|session| session.authentication.clone());
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
        let forwarder = Forwarder::start(config, credential, folder, quarantine)?;
        Ok(Self { session, forwarder })
    }

    pub(super) fn listening_since(&self) -> SystemTime {
        self.session.listening_since
    }

    pub(super) fn device(&self) -> &DeviceId {
        &self.session.meta.device_id
    }

    /// The same device, but its requests have the appservice's token: those need no interactive authentication.
    pub(super) async fn by_appservice(
        mut self,
        config: &Config,
        registration: &Registration,
        folder: &MatrixFolder,
        quarantine: Arc<Quarantine>,
    ) -> Result<Self, Fault> {
        if let Credential::Token(_) = self.forwarder.credential() {
            let appservice = Appservice::new(config, registration, self.device())?;
            appservice.check_device().await?;
            let credential = Credential::Appservice(Box::new(appservice));
            self.forwarder = Forwarder::start(config, credential, folder, quarantine)?;
        }
        Ok(self)
    }

    /// A builder for a client that reaches the homeserver through the forwarder.
    pub(super) fn client_builder(&self) -> Result<ClientBuilder, Fault> {
        Ok(Client::builder()
            .homeserver_url(Forwarder::homeserver())
            .http_client(self.forwarder.http_client()?))
    }

    pub(super) fn matrix_session(&self) -> MatrixSession {
        MatrixSession {
            meta: self.session.meta.clone(),
            tokens: SessionTokens {
                access_token: self.forwarder.placeholder().to_owned(),
                refresh_token: None,
            },
        }
    }

    /// Waits until the forwarder has ended, which only a bug causes.
    pub(super) async fn ended(&self) {
        self.forwarder.ended().await;
    }

    /// Deletes the device, whose keys are of no use any more, so that the next log-in makes another one.
    pub(super) async fn delete_device(
        &self,
        client: &Client,
        folder: &MatrixFolder,
    ) -> Result<(), Fault> {
        match self.forwarder.credential() {
            // The configured token cannot be replaced.
            Credential::Token(_) if self.session.authentication.is_none() => {
                Err(device_in_use(self.device(), folder))
            }
            Credential::Token(_) => {
                client.matrix_auth().logout().await?;
                Ok(())
            }
            // A log-out would be the appservice's, and is unknown to Matrix Authentication Service.
            Credential::Appservice(appservice) => appservice.delete_device().await,
        }
    }
}

/// Checks that the homeserver accepts the appservice as the bot's device, or else it does not let it replace an identity.
/// Changes nothing.
pub(super) async fn check_appservice(
    config: &Config,
    registration: &Registration,
    folder: &MatrixFolder,
) -> Result<(), Fault> {
    let Some(device) = folder.device_id()? else {
        return Ok(());
    };
    let appservice = Appservice::new(config, registration, &device)?;
    match appservice.check_device().await {
        // The homeserver accepted the appservice, and the device is gone.
        Err(fault) if fault.names_unknown_device() => Ok(()),
        checked => checked,
    }
}

/// Logs in, unless an earlier log-in is `known`. Returns what has to be saved, and the credential for requests.
async fn authenticate(
    config: &Config,
    login: &Login,
    device: &DeviceId,
    known: Option<Authentication>,
) -> Result<(Option<Authentication>, Credential), Fault> {
    match login {
        Login::AccessToken(token) => Ok((None, Credential::Token(token.clone()))),
        Login::Password(password) => {
            let access_token = match known {
                Some(Authentication::AccessToken { access_token }) => access_token,
                Some(Authentication::IdentityAssertion) | None => {
                    log_in(config, password, device).await?
                }
            };
            let credential = Credential::Token(access_token.clone());
            Ok((
                Some(Authentication::AccessToken { access_token }),
                credential,
            ))
        }
        Login::Appservice(registration) => {
            let appservice = || Appservice::new(config, registration, device);
            let authentication = match known {
                Some(authentication) => authentication,
                None => appservice()?.log_in().await?,
            };
            let credential = match &authentication {
                Authentication::AccessToken { access_token } => {
                    Credential::Token(access_token.clone())
                }
                Authentication::IdentityAssertion => {
                    let appservice = appservice()?;
                    appservice.check_device().await?;
                    info!(
                        "the homeserver lets no appservice log in: using the appservice's token for each request"
                    );
                    Credential::Appservice(Box::new(appservice))
                }
            };
            Ok((Some(authentication), credential))
        }
    }
}

/// Logs in with the password on this device, which is created if needed.
async fn log_in(config: &Config, password: &SecretText, device: &DeviceId) -> Result<Token, Fault> {
    let user = UserIdentifier::Matrix(config.bot_user.clone().into());
    let login_info = login::v3::Password::new(user, password.expose().to_owned());
    let login_info = login::v3::LoginInfo::Password(login_info);
    let request = log_in_request(login_info, device);
    let identity = AppserviceUserIdentity::default();
    let answer = Homeserver::new(config, None)?.send(request, identity).await;
    let answer = answer.map_err(|error| match error.client_api_error_kind() {
        Some(ErrorKind::Forbidden) => Fault::for_operator(format!(
            "there is no user {}, or bot.password is not its password",
            config.bot_user
        )),
        _ => Fault::login_refused(error, |_, message| message.to_owned()),
    })?;
    token_for(&config.bot_user, answer)
}

/// The device of the configured token, which only the bot may use.
/// [`Fault::DeviceLost`]: the bot has another one, of an earlier token, which has to be forgotten before.
async fn adopt_device(
    config: &Config,
    token: &Token,
    folder: &MatrixFolder,
) -> Result<OwnedDeviceId, Fault> {
    let homeserver = Homeserver::new(config, Some(token))?;
    let device = device_of(&homeserver, &config.bot_user).await?;
    // The log-in names it too, and is the last file of a device that is forgotten.
    let known = match folder.session()? {
        Some(session) => Some(session.meta.device_id),
        None => folder.device_id()?,
    };
    if known.is_some_and(|known| known != device) {
        warn!(%device, "bot.access_token is of another device than before, which starts without keys");
        return Err(Fault::DeviceLost);
    }
    if !folder.has_store() && has_keys(&homeserver, &config.bot_user, &device).await? {
        return Err(device_in_use(&device, folder));
    }
    folder.set_device_id(&device)?;
    Ok(device)
}

async fn device_of(homeserver: &Homeserver, bot: &UserId) -> Result<OwnedDeviceId, Fault> {
    let identity = AppserviceUserIdentity::default();
    let request = whoami::v3::Request::new();
    let answer = homeserver.send(request, identity).await;
    let answer = answer.map_err(|error| match error.client_api_error_kind() {
        Some(ErrorKind::UnknownToken(_)) => Fault::for_operator(
            "bot.access_token is not valid any more: log in once more, and put the new token into config.yaml",
        ),
        _ => Fault::login_refused(error, |_, message| message.to_owned()),
    })?;
    if answer.user_id != bot {
        return Err(logged_in_as_another(&answer.user_id, bot));
    }
    answer.device_id.ok_or_else(|| {
        Fault::for_operator(
            "bot.access_token belongs to no device, and without one nothing can be encrypted: log in as the bot, and take the \
             token of that log-in",
        )
    })
}

/// Whether the homeserver has keys for the device.
async fn has_keys(
    homeserver: &Homeserver,
    bot: &UserId,
    device: &DeviceId,
) -> Result<bool, HttpError> {
    let mut request = get_keys::v3::Request::new();
    let devices = vec![device.to_owned()];
    request.device_keys.insert(bot.to_owned(), devices);
    let identity = AppserviceUserIdentity::default();
    let answer = homeserver.send(request, identity).await?;
    let devices = answer.device_keys.get(bot);
    Ok(devices.is_some_and(|devices| devices.contains_key(device)))
}

fn device_in_use(device: &DeviceId, folder: &MatrixFolder) -> Fault {
    Fault::for_operator(format!(
        "the device {device} of bot.access_token has keys that are not in {}: it is another program's, or the bot's files were \
         lost. Log in once more as the bot, for a device of its own, and put the new token into config.yaml",
        folder.path().display()
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use matrix_sdk::ruma::{api::client::uiaa::AuthFlow, device_id, user_id};
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;
    use crate::matrix::{
        Severity,
        homeserver::testing::{homeserver, read_until},
    };

    /// Answers one request like this, and none after it. Returns the request.
    async fn answer_once(
        homeserver: TcpListener,
        end: &str,
        status_and_headers: &str,
        body: &str,
    ) -> String {
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status_and_headers}\r\ncontent-length: {length}\r\n\r\n{body}");
        let (mut stream, _) = homeserver.accept().await.unwrap();
        let asked = read_until(&mut stream, end).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        asked
    }

    /// The fault of a log-in that is answered like this.
    async fn refused(status_and_headers: &str, code: &str) -> Fault {
        let body = format!(r#"{{"errcode":"{code}","error":"no"}}"#);
        let folder = tempfile::tempdir().unwrap();
        let (homeserver, config) = homeserver(folder.path()).await;
        let password = "hunter2".into();
        let logging_in = log_in(&config, &password, device_id!("RCBOT1"));
        let answering = answer_once(homeserver, "hunter2", status_and_headers, &body);
        let (fault, asked) = tokio::join!(logging_in, answering);
        assert!(asked.starts_with("POST /base/_matrix/client/v3/login HTTP/1.1"));
        fault.unwrap_err()
    }

    #[tokio::test]
    async fn too_many_log_ins_pass_and_the_homeserver_says_when() {
        let answer = "429 Too Many Requests\r\nretry-after: 77";
        let fault = refused(answer, "M_LIMIT_EXCEEDED").await;
        assert!(fault.is_passing(), "{fault:?}");
        assert_eq!(fault.retry_after(), Some(Duration::from_secs(77)));
    }

    #[tokio::test]
    async fn a_wrong_password_does_not_pass_and_is_reported_with_its_remedy() {
        let fault = refused("403 Forbidden", "M_FORBIDDEN").await;
        assert_eq!(fault.severity(), Severity::NeedsOperator);
        let error = fault.to_string();
        assert!(
            error.contains("bot.password is not its password"),
            "{error}"
        );
        assert!(!format!("{fault:?}").contains("hunter2"));
    }

    fn note_log_in(folder: &MatrixFolder, user: &UserId, device: &DeviceId) {
        let session = Session {
            meta: SessionMeta {
                user_id: user.to_owned(),
                device_id: device.to_owned(),
            },
            listening_since: SystemTime::now(),
            authentication: None,
        };
        folder.set_session(&session).unwrap();
    }

    #[tokio::test]
    async fn a_half_forgotten_device_gives_way_to_that_of_another_token() {
        let folder = tempfile::tempdir().unwrap();
        let (homeserver, config) = homeserver(folder.path()).await;
        let folder = MatrixFolder::new(folder.path().to_owned());
        note_log_in(&folder, &config.bot_user, device_id!("FIRST"));
        let token = Token::new("token".to_owned()).unwrap();
        let adopting = adopt_device(&config, &token, &folder);
        let body = r#"{"user_id":"@rcbot:example.org","device_id":"SECOND"}"#;
        let answer = "200 OK\r\ncontent-type: application/json\r\nconnection: close";
        let answering = answer_once(homeserver, "\r\n\r\n", answer, body);
        let (adopted, _) = tokio::join!(adopting, answering);
        assert!(matches!(adopted, Err(Fault::DeviceLost)), "{adopted:?}");
    }

    #[tokio::test]
    async fn a_folder_of_another_user_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (_homeserver, config) = homeserver(folder.path()).await;
        let folder = MatrixFolder::new(folder.path().to_owned());
        let another = user_id!("@another:example.org");
        note_log_in(&folder, another, device_id!("RCBOT1"));
        let login = Login::AccessToken(Token::new("token".to_owned()).unwrap());
        let quarantine = Arc::new(Quarantine::load(&folder).unwrap());
        let fault = LoggedIn::new(&config, &login, &folder, quarantine).await;
        let fault = fault.unwrap_err();
        assert_eq!(fault.severity(), Severity::NeedsOperator);
        assert!(fault.to_string().contains("holds the keys of @another"));
    }

    #[test]
    fn the_password_is_given_only_where_it_suffices() {
        let auth_data = |login: Login, flows: &[&[AuthType]]| {
            let flows = flows.iter().map(|stages| AuthFlow::new(stages.to_vec()));
            let mut asked = UiaaInfo::new(flows.collect());
            asked.session = Some("a session".to_owned());
            login.auth_data(user_id!("@rcbot:example.org"), &asked)
        };
        let password = || Login::Password("secret".into());
        let proof = auth_data(password(), &[&[AuthType::Sso], &[AuthType::Password]]);
        let Ok(AuthData::Password(stage)) = proof else {
            panic!("no password")
        };
        assert_eq!(stage.password, "secret");
        assert_eq!(stage.session.as_deref(), Some("a session"));
        let with_more: &[_] = &[AuthType::Password, AuthType::EmailIdentity];
        for flows in [&[AuthType::Sso][..], with_more] {
            let fault = auth_data(password(), &[flows]).unwrap_err();
            assert_eq!(fault.severity(), Severity::NeedsOperator);
        }
        let token = Login::AccessToken(Token::new("token".to_owned()).unwrap());
        let fault = auth_data(token, &[&[AuthType::Password]]).unwrap_err();
        assert_eq!(fault.severity(), Severity::NeedsOperator);
        assert!(fault.to_string().contains("set bot.password"));
    }
}
