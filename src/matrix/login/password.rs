//! The log-in with the account's password, and the password where the homeserver asks for it once more.

use matrix_sdk::ruma::{
    DeviceId, UserId,
    api::{
        AppserviceUserIdentity,
        auth_scheme::SendAccessToken,
        client::{
            session::login,
            uiaa::{AuthData, AuthType, Password as PasswordStage, UiaaInfo, UserIdentifier},
        },
        error::ErrorKind,
    },
};

use super::{DEVICE_NAME, request::Homeserver, token_for};
use crate::{
    config::Config,
    matrix::Fault,
    secret::{Password, Token},
};

/// Logs in on this device, which is made if need be.
pub(super) async fn log_in(
    config: &Config,
    password: &Password,
    device: &DeviceId,
) -> Result<Token, Fault> {
    let user = UserIdentifier::Matrix(config.bot_user.clone().into());
    let login_info = login::v3::Password::new(user, password.expose().to_owned());
    let mut request = login::v3::Request::new(login::v3::LoginInfo::Password(login_info));
    request.device_id = Some(device.to_owned());
    request.initial_device_display_name = Some(DEVICE_NAME.to_owned());
    let homeserver = Homeserver::new(config)?;
    let identity = AppserviceUserIdentity::default();
    let answer = homeserver.send(request, SendAccessToken::None, identity);
    let answer = answer
        .await
        .map_err(|error| match error.client_api_error_kind() {
            Some(ErrorKind::Forbidden) => Fault::PasswordRefused {
                user: config.bot_user.to_string(),
            },
            _ => Fault::login_refused(error, |_, said| said.to_owned()),
        })?;
    token_for(&config.bot_user, answer)
}

/// The answer to a homeserver that wants the password before it does what was asked, and nothing besides.
pub(super) fn interactive_auth(
    user: &UserId,
    password: &Password,
    asked: &UiaaInfo,
) -> Option<AuthData> {
    let suffices = |stages: &Vec<AuthType>| *stages == [AuthType::Password];
    if !asked.flows.iter().any(|flow| suffices(&flow.stages)) {
        return None;
    }
    let user = UserIdentifier::Matrix(user.to_owned().into());
    let mut stage = PasswordStage::new(user, password.expose().to_owned());
    stage.session.clone_from(&asked.session);
    Some(AuthData::Password(stage))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use matrix_sdk::ruma::{api::client::uiaa::AuthFlow, device_id, user_id};
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::matrix::login::testing::{homeserver, read_until};

    /// What comes of a log-in that is answered so.
    async fn refused(answer: &str) -> Fault {
        let folder = tempfile::tempdir().unwrap();
        let (homeserver, config) = homeserver(folder.path()).await;
        let password = Password::new("hunter2".to_owned()).unwrap();
        let logging_in = log_in(&config, &password, device_id!("RCBOT1"));
        let answering = async {
            let (mut stream, _) = homeserver.accept().await.unwrap();
            let asked = read_until(&mut stream, "hunter2").await;
            assert!(asked.starts_with("POST /base/_matrix/client/v3/login HTTP/1.1"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(logging_in, answering).0.unwrap_err()
    }

    #[tokio::test]
    async fn too_many_log_ins_pass_and_the_homeserver_says_when() {
        let body = r#"{"errcode":"M_LIMIT_EXCEEDED","error":"too many"}"#;
        let length = body.len();
        let fault = refused(&format!(
            "HTTP/1.1 429 Too Many Requests\r\nretry-after: 77\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await;
        assert!(fault.is_passing(), "{fault:?}");
        assert_eq!(fault.retry_after(), Some(Duration::from_secs(77)));
    }

    #[tokio::test]
    async fn a_wrong_password_does_not_pass_and_is_told_with_its_remedy() {
        let body = r#"{"errcode":"M_FORBIDDEN","error":"no"}"#;
        let length = body.len();
        let fault = refused(&format!(
            "HTTP/1.1 403 Forbidden\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await;
        assert!(!fault.is_passing());
        let said = fault.to_string();
        assert!(said.contains("bot.password is not its password"), "{said}");
        assert!(!format!("{fault:?}").contains("hunter2"));
    }

    fn asked(flows: &[&[AuthType]]) -> UiaaInfo {
        let flows = flows.iter().map(|stages| AuthFlow::new(stages.to_vec()));
        let mut info = UiaaInfo::new(flows.collect());
        info.session = Some("a session".to_owned());
        info
    }

    #[test]
    fn the_password_is_given_where_it_alone_suffices() {
        let password = Password::new("secret".to_owned()).unwrap();
        let user = user_id!("@rcbot:example.org");
        let answer = |flows| interactive_auth(user, &password, &asked(flows));
        let Some(AuthData::Password(stage)) = answer(&[&[AuthType::Sso], &[AuthType::Password]])
        else {
            panic!("no password")
        };
        assert_eq!(stage.password, "secret");
        assert_eq!(stage.session.as_deref(), Some("a session"));
        assert!(answer(&[&[AuthType::Sso]]).is_none());
        assert!(answer(&[&[AuthType::Password, AuthType::EmailIdentity]]).is_none());
    }
}
