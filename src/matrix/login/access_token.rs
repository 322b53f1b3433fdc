//! The log-in that somebody else has made for the bot: its token names the device, which must be the bot's alone.

use matrix_sdk::{
    HttpError,
    ruma::{
        DeviceId, OwnedDeviceId,
        api::{
            AppserviceUserIdentity, OutgoingRequest,
            auth_scheme::{AuthScheme, SendAccessToken},
            client::{account::whoami, keys::get_keys},
            error::{ErrorKind, FromHttpResponseError},
            path_builder::VersionHistory,
        },
    },
};
use tracing::warn;

use super::request::Homeserver;
use crate::{
    config::Config,
    matrix::{Fault, MatrixFolder},
    secret::Token,
};

/// Which device the token is of. Sees to it that the device on disk is the same: one that belonged to an earlier token is forgotten, and its identity
/// comes back with the recovery key.
///
/// # Errors
/// Where the token is no longer good, another user's, or of a device whose keys somebody else has.
pub(super) async fn take_up(
    config: &Config,
    token: &Token,
    folder: &MatrixFolder,
) -> Result<OwnedDeviceId, Fault> {
    let homeserver = Homeserver::new(config)?;
    let device = device_of(&homeserver, config, token).await?;
    if folder.device_id()?.is_some_and(|known| known != device) {
        warn!(%device, "bot.access_token is of another device than before, which begins anew");
        folder.forget_device()?;
    }
    if !folder.has_store() && has_keys(&homeserver, config, token, &device).await? {
        return Err(in_use(&device, folder));
    }
    folder.set_device_id(&device)?;
    Ok(device)
}

/// Why this device cannot be the bot's.
pub(super) fn in_use(device: &DeviceId, folder: &MatrixFolder) -> Fault {
    Fault::DeviceInUse {
        device: device.to_string(),
        folder: folder.path().to_owned(),
    }
}

async fn device_of(
    homeserver: &Homeserver,
    config: &Config,
    token: &Token,
) -> Result<OwnedDeviceId, Fault> {
    let answer = ask(homeserver, token, whoami::v3::Request::new()).await;
    let answer = answer.map_err(|error| match error.client_api_error_kind() {
        Some(ErrorKind::UnknownToken(_)) => Fault::TokenRefused,
        _ => Fault::login_refused(error, |_, said| said.to_owned()),
    })?;
    if answer.user_id != config.bot_user {
        return Err(Fault::LoggedInAsAnother {
            user: answer.user_id.to_string(),
            configured: config.bot_user.to_string(),
        });
    }
    answer.device_id.ok_or(Fault::TokenWithoutDevice)
}

/// Whether the homeserver has keys for the device.
async fn has_keys(
    homeserver: &Homeserver,
    config: &Config,
    token: &Token,
    device: &DeviceId,
) -> Result<bool, Fault> {
    let mut request = get_keys::v3::Request::new();
    let user = config.bot_user.clone();
    request.device_keys.insert(user, vec![device.to_owned()]);
    let answer = ask(homeserver, token, request).await?;
    let devices = answer.device_keys.get(&config.bot_user);
    Ok(devices.is_some_and(|devices| devices.contains_key(device)))
}

async fn ask<R>(
    homeserver: &Homeserver,
    token: &Token,
    request: R,
) -> Result<R::IncomingResponse, HttpError>
where
    R: OutgoingRequest<PathBuilder = VersionHistory>,
    for<'a> R::Authentication: AuthScheme<Input<'a> = SendAccessToken<'a>>,
    HttpError: From<FromHttpResponseError<R::EndpointError>>,
{
    let token = SendAccessToken::Always(token.expose());
    let identity = AppserviceUserIdentity::default();
    homeserver.send(request, token, identity).await
}
