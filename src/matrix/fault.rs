//! What can go wrong between the bot and the homeserver.

use std::{
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use matrix_sdk::{
    HttpError,
    encryption::identities::ManualVerifyError,
    ruma::{
        OwnedUserId,
        api::error::{Error, ErrorBody, ErrorKind, RetryAfter},
    },
};
use matrix_sdk_base::crypto::{OlmError, SessionRecipientCollectionError};
use tokio::time::sleep;

/// The longest wait that a homeserver can ask for: log-ins are limited to one in some minutes.
pub(super) const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// A fault of the homeserver, of the network, or of our own stores.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// A request or the SDK failed.
    #[error("the request to the homeserver failed")]
    Request(#[source] Box<matrix_sdk::Error>),
    #[error("the state of a room is invalid")]
    InvalidState(#[source] serde_json::Error),
    #[error("the homeserver refuses the log-in: {status} {code}: {remedy}")]
    LoginRefused {
        status: u16,
        code: String,
        remedy: String,
    },
    /// The homeserver does not let an appservice act as a device.
    #[error(
        "the homeserver does not let the appservice act as the device {device} (MSC4326): update the homeserver, or give the \
         bot's user a password, unregister the appservice, and set bot.password in config.yaml in place of `appservice`"
    )]
    NoIdentityAssertion { device: String },
    /// The admin room has yet to be found, or the bot is not in it.
    #[error("the bot is not in the admin room yet")]
    NotInAdminRoom,
    /// A room that the homeserver has made for us has not come with /sync yet.
    #[error("the homeserver has made a room, and /sync does not have it yet")]
    RoomNotShown,
    /// Users whom the bot had signed have another identity now, so the SDK did not send.
    #[error("the identity of {users:?} is not the one that the bot has signed")]
    IdentityChanged { users: Vec<OwnedUserId> },
    #[error("cannot use the file {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("the file {path} is invalid: {remedy}")]
    UnreadableFile { path: PathBuf, remedy: &'static str },
    /// A new device is needed: the homeserver has other keys for the bot's device, or the configured token is of another one.
    #[error("the bot's device cannot be used any more")]
    DeviceLost,
    /// The SDK panicked at the events of a user, which a new connection does not pass on.
    #[error("the Matrix library panicked at events of {user}")]
    SetAside { user: String },
    /// A bug in the bot or in the SDK, at something that cannot be set aside.
    #[error(
        "internal error of rcbot or its Matrix library, please report it with the log lines above"
    )]
    Panicked,
    /// Anything else that ends the bot.
    #[error("{what}")]
    Fatal {
        what: String,
        /// What may solve it: never [`Severity::Passing`].
        severity: Severity,
        source: Option<Cause>,
    },
}

pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What may solve a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// A retry, later.
    Passing,
    /// A restart, perhaps.
    Restart,
    /// The operator.
    NeedsOperator,
}

impl Fault {
    /// A fault that the operator has to solve, with the remedy.
    pub(crate) fn for_operator(what: impl Into<String>) -> Self {
        Self::Fatal {
            what: what.into(),
            severity: Severity::NeedsOperator,
            source: None,
        }
    }

    /// The same, with its cause.
    pub(super) fn for_operator_by(what: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Fatal {
            what: what.into(),
            severity: Severity::NeedsOperator,
            source: Some(source.into()),
        }
    }

    /// A fault that ends the bot, and that a restart may solve.
    pub(crate) fn fatal(what: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Fatal {
            what: what.into(),
            severity: Severity::Restart,
            source: Some(source.into()),
        }
    }

    pub(crate) fn severity(&self) -> Severity {
        match self {
            Self::Request(error) if sdk_error_is_passing(error) => Severity::Passing,
            Self::InvalidState(_)
            | Self::NotInAdminRoom
            | Self::RoomNotShown
            | Self::SetAside { .. } => Severity::Passing,
            // The homeserver may load the registration meanwhile.
            Self::LoginRefused { .. }
            | Self::Request(_)
            | Self::DeviceLost
            | Self::Panicked
            | Self::IdentityChanged { .. } => Severity::Restart,
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Severity::NeedsOperator,
                _ => Severity::Restart,
            },
            Self::NoIdentityAssertion { .. } | Self::UnreadableFile { .. } => {
                Severity::NeedsOperator
            }
            Self::Fatal { severity, .. } => *severity,
        }
    }

    pub(crate) fn is_passing(&self) -> bool {
        self.severity() == Severity::Passing
    }

    /// The fault of a failed log-in: a refusal with its remedy, where the homeserver sent an error of Matrix. `remedy` gets the
    /// error's code and text.
    pub(super) fn login_refused(
        error: HttpError,
        remedy: impl FnOnce(&ErrorKind, &str) -> String,
    ) -> Self {
        // Rate limits and server errors pass with time.
        if !http_error_is_passing(&error)
            && let Some(answer) = error.as_client_api_error()
            && let ErrorBody::Standard(body) = &answer.body
        {
            return Self::LoginRefused {
                status: answer.status_code.as_u16(),
                code: body.kind.errcode().to_string(),
                remedy: remedy(&body.kind, &body.message),
            };
        }
        error.into()
    }

    /// How long to wait before a retry, as the homeserver wants, within a limit.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let ErrorKind::LimitExceeded(limit) = self.code()? else {
            return None;
        };
        let wanted = match limit.retry_after.as_ref()? {
            RetryAfter::Delay(delay) => *delay,
            RetryAfter::DateTime(when) => when.duration_since(SystemTime::now()).ok()?,
        };
        Some(wanted.min(LONGEST_WAIT))
    }

    /// Whether the homeserver no longer knows our access token, or our device.
    pub(crate) fn is_logged_out(&self) -> bool {
        matches!(self.code(), Some(ErrorKind::UnknownToken(_))) || self.names_unknown_device()
    }

    /// Whether the homeserver has no device of ours, or never had.
    pub(super) fn names_unknown_device(&self) -> bool {
        self.answer().is_some_and(is_unknown_device)
    }

    /// Whether the homeserver understood the request, and refused it.
    pub(super) fn is_refusal(&self) -> bool {
        self.code().is_some() && !self.is_passing() && !self.is_logged_out()
    }

    /// Whether it also deleted our device. A soft log-out does not (specification, "Soft logout"), and neither does a
    /// homeserver that no longer knows the appservice's token, with which the bot acts where it is not logged in.
    pub(super) fn is_device_deleted(&self, is_logged_in: bool) -> bool {
        match self.code() {
            Some(ErrorKind::UnknownToken(data)) => is_logged_in && !data.soft_logout,
            Some(_) | None => self.names_unknown_device(),
        }
    }

    fn answer(&self) -> Option<&Error> {
        match self {
            Self::Request(error) => error.as_client_api_error(),
            _ => None,
        }
    }

    fn code(&self) -> Option<&ErrorKind> {
        self.answer()?.error_kind()
    }
}

/// From an error of the SDK, or of one of its parts.
impl<E: Into<matrix_sdk::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        let error = error.into();
        if let matrix_sdk::Error::OlmError(olm) = &error
            && let OlmError::SessionRecipientCollectionError(
                SessionRecipientCollectionError::VerifiedUserChangedIdentity(users),
            ) = &**olm
        {
            let users = users.clone();
            return Self::IdentityChanged { users };
        }
        Self::Request(Box::new(error))
    }
}

/// The bot did not sign an identity, or its own device.
pub(super) fn not_signed(error: ManualVerifyError) -> Fault {
    match error {
        ManualVerifyError::Http(error) => error.into(),
        ManualVerifyError::Signature(error) => Fault::fatal("the bot's signature failed", error),
    }
}

/// The waits between tries: short at first, as most faults are short, and never longer than four seconds, jitter included, as a
/// person may be waiting; but as long as the homeserver wants.
#[derive(Debug)]
pub(crate) struct BackOff(ExponentialBackoff);

/// The longest wait, without its jitter.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(2);

impl Default for BackOff {
    fn default() -> Self {
        let waits = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(LONGEST_BACK_OFF)
            .with_jitter()
            .without_max_times();
        Self(waits.build())
    }
}

impl BackOff {
    pub(crate) async fn wait(&mut self, fault: &Fault) {
        let wanted = fault.retry_after().unwrap_or_default();
        sleep(self.0.next().unwrap_or(LONGEST_BACK_OFF).max(wanted)).await;
    }
}

/// Whether an appservice used a device that does not exist (MSC4326), by the errors that homeservers have for that.
pub(super) fn is_unknown_device(answer: &Error) -> bool {
    let ErrorBody::Standard(body) = &answer.body else {
        return false;
    };
    let says = |words| body.message.contains(words);
    match body.kind.errcode().as_str() {
        "M_UNKNOWN_DEVICE" => true,
        // Tuwunel, Continuwuity, Conduit.
        "M_INVALID_PARAM" => says("Unknown device"),
        "M_FORBIDDEN" => says("Device does not exist"),
        "M_NOT_FOUND" => says("Device not found"),
        _ => false,
    }
}

fn sdk_error_is_passing(error: &matrix_sdk::Error) -> bool {
    match error {
        matrix_sdk::Error::Http(error) => http_error_is_passing(error),
        // Something in an otherwise good answer is invalid, an event without a type for example; or a request failed that
        // another task made for both.
        matrix_sdk::Error::SerdeJson(_)
        | matrix_sdk::Error::Identifier(_)
        | matrix_sdk::Error::ConcurrentRequestFailed => true,
        _ => false,
    }
}

/// Network errors, overload and locked accounts may pass. So may any answer without a Matrix error code: a page of a proxy,
/// whatever its status, means that the homeserver is unreachable. A refusal of the homeserver does not pass.
fn http_error_is_passing(error: &HttpError) -> bool {
    match error {
        HttpError::Reqwest(_) => true,
        HttpError::Cached(error) => http_error_is_passing(error),
        HttpError::Api(_) => error.as_client_api_error().is_none_or(|answer| {
            let status = answer.status_code;
            let code = answer.error_kind();
            status.is_server_error()
                || status.as_u16() == 429
                || code.is_none_or(|code| {
                    matches!(code, ErrorKind::LimitExceeded(_) | ErrorKind::UserLocked)
                })
        }),
        HttpError::IntoHttp(_) | HttpError::RefreshToken(_) => false,
    }
}

/// An error with all its causes, for the log.
#[derive(Debug)]
pub(crate) struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(formatter, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod testing {
    use matrix_sdk::ruma::api::{
        EndpointError as _, client::uiaa::UiaaResponse, error::FromHttpResponseError,
    };

    use super::*;

    /// The error of a request that is answered like this.
    pub(in crate::matrix) fn error(status: u16, body: &str) -> HttpError {
        let answer = hyper::Response::builder().status(status);
        let error = UiaaResponse::from_http_response(answer.body(body).unwrap());
        FromHttpResponseError::Server(error).into()
    }

    /// The same, as a fault.
    pub(in crate::matrix) fn answered(status: u16, body: &str) -> Fault {
        error(status, body).into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{testing::answered, *};

    fn refused(status: u16, code: &str, message: &str) -> Fault {
        let body = json!({ "errcode": code, "error": message, "soft_logout": true });
        answered(status, &body.to_string())
    }

    #[test]
    fn a_device_that_is_gone_has_many_names() {
        for (status, code, message) in [
            (400, "M_UNKNOWN_DEVICE", "Unknown device"),
            (
                400,
                "M_INVALID_PARAM",
                "M_INVALID_PARAM: Unknown device for user.",
            ),
            (403, "M_FORBIDDEN", "Device does not exist"),
            (404, "M_NOT_FOUND", "Device not found"),
        ] {
            let fault = refused(status, code, message);
            assert!(fault.is_logged_out(), "{code}");
            assert!(fault.is_device_deleted(false), "{code}");
        }
        for (status, code, message) in [
            (400, "M_INVALID_PARAM", "limit must be positive"),
            (403, "M_FORBIDDEN", "You are not in the room"),
            (404, "M_NOT_FOUND", "Event not found"),
        ] {
            let fault = refused(status, code, message);
            assert!(!fault.is_logged_out(), "{code}");
            assert!(!fault.is_device_deleted(true), "{code}");
        }
    }

    #[test]
    fn an_error_without_a_matrix_code_may_pass_whatever_its_status() {
        let pages = [
            "",
            "<html><h1>Not here</h1></html>",
            "{}",
            "[]",
            "\"no\"",
            r#"{ "error": "no route", "code": 404 }"#,
            r#"{ "errcode": 404, "error": "no route" }"#,
        ];
        for status in [400, 401, 403, 404, 405, 413, 418, 429, 500, 502, 503, 520] {
            for page in pages {
                let fault = answered(status, page);
                assert!(fault.is_passing(), "{status} {page}");
                assert!(
                    !fault.is_refusal() && !fault.is_logged_out(),
                    "{status} {page}"
                );
            }
        }
    }

    #[test]
    fn a_refusal_does_not_pass_and_trouble_does() {
        for (status, code, passes) in [
            (403, "M_FORBIDDEN", false),
            (404, "M_NOT_FOUND", false),
            (404, "M_UNRECOGNIZED", false),
            (413, "M_TOO_LARGE", false),
            (400, "ORG.EXAMPLE.REASON", false),
            (401, "M_USER_LOCKED", true),
            (403, "M_USER_LOCKED", true),
            (429, "M_LIMIT_EXCEEDED", true),
            (400, "M_LIMIT_EXCEEDED", true),
            (500, "M_UNKNOWN", true),
        ] {
            let fault = refused(status, code, "No.");
            assert_eq!(fault.is_passing(), passes, "{status} {code}");
            assert_eq!(fault.is_refusal(), !passes, "{status} {code}");
            assert!(!fault.is_logged_out(), "{status} {code}");
        }
    }
}
