//! Which exit code a failure ends with: whether a restart may mend it is what a service manager asks.

use std::io;

use anyhow::anyhow;

use crate::{data_dir::DataDirError, matrix::Fault, remote_control::StoreError};

/// It failed while running, and a restart may help.
const FAILED: u8 = 1;

/// The arguments or the configuration are wrong.
const MISCONFIGURED: u8 = 2;

/// The operator has to do something first, and a restart does not help.
const NEEDS_OPERATOR: u8 = 3;

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// In the midst of its work.
    WhileRunning(anyhow::Error),
    /// Before it began, by what the operator wrote.
    Configuration(anyhow::Error),
}

impl Failure {
    /// What went wrong, with its causes.
    pub(super) fn error(&self) -> &anyhow::Error {
        match self {
            Self::WhileRunning(error) | Self::Configuration(error) => error,
        }
    }

    /// The exit code that it ends with.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Configuration(_) => MISCONFIGURED,
            Self::WhileRunning(error) if error.chain().any(needs_operator) => NEEDS_OPERATOR,
            Self::WhileRunning(_) => FAILED,
        }
    }
}

/// What a panic comes to, which the log has told of.
pub(super) fn bug() -> Failure {
    Failure::WhileRunning(anyhow!("rcbot has a bug: see above in the log"))
}

fn needs_operator(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref().is_some_and(data_dir_needs_operator)
        || error.downcast_ref().is_some_and(store_needs_operator)
        || error.downcast_ref().is_some_and(fault_needs_operator)
}

fn data_dir_needs_operator(error: &DataDirError) -> bool {
    match error {
        DataDirError::NotOurs { .. } => true,
        // An `rcbot stop` without a bot, and one that is about to end, hold the lock for a moment.
        DataDirError::Unusable { .. } | DataDirError::InUse { .. } => false,
    }
}

fn store_needs_operator(error: &StoreError) -> bool {
    match error {
        StoreError::Folder { source, .. }
        | StoreError::Write { source, .. }
        | StoreError::Read { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
    }
}

fn fault_needs_operator(fault: &Fault) -> bool {
    match fault {
        Fault::HttpClient(_)
        | Fault::TokenRefused
        | Fault::PasswordRefused { .. }
        | Fault::LoggedInAsAnother { .. }
        | Fault::UnusableToken
        | Fault::TokenWithoutDevice
        | Fault::DeviceInUse { .. }
        | Fault::NoIdentityAssertion { .. }
        | Fault::UnreadableFile { .. }
        | Fault::AnotherUser { .. }
        | Fault::IdentityLost { .. }
        | Fault::LoggedOutForGood { .. }
        | Fault::Recovery { .. }
        | Fault::IdentityRefused
        | Fault::PasswordWanted => true,
        Fault::File { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
        Fault::Request(_)
        | Fault::Unreachable(_)
        | Fault::Nonsense { .. }
        // The homeserver may load the registration meanwhile.
        | Fault::LoginRefused { .. }
        | Fault::Store { .. }
        | Fault::NotInAdminRoom
        | Fault::RoomNotShown
        | Fault::DeviceLost
        | Fault::Panicked
        | Fault::SetAside { .. }
        | Fault::IdentityChanged { .. }
        | Fault::NotSigned(_)
        | Fault::SignatureNotKept
        | Fault::SecretStorage(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use anyhow::Context as _;

    use super::*;
    use crate::{bot::BotError, remote_control::RestoreError};

    fn code_of(error: impl Into<anyhow::Error>) -> u8 {
        Failure::WhileRunning(error.into()).code()
    }

    fn file(kind: io::ErrorKind) -> Fault {
        Fault::File {
            path: PathBuf::new(),
            source: kind.into(),
        }
    }

    fn refused(code: &str) -> Fault {
        Fault::LoginRefused {
            status: 401,
            code: code.to_owned(),
            remedy: String::new(),
        }
    }

    #[test]
    fn a_restart_is_left_to_what_it_may_mend() {
        let path = PathBuf::new;
        let for_operator = [
            Fault::PasswordWanted,
            Fault::TokenRefused,
            Fault::TokenWithoutDevice,
            Fault::IdentityLost {
                user: String::new(),
                folder: path(),
                recovery_key: path(),
            },
            Fault::Recovery {
                origin: String::new(),
                source: "wrong".into(),
            },
            Fault::AnotherUser {
                stored: String::new(),
                configured: String::new(),
                folder: path(),
            },
            file(io::ErrorKind::PermissionDenied),
        ];
        for fault in for_operator {
            let said = fault.to_string();
            assert_eq!(code_of(BotError::from(fault)), 3, "{said}");
        }
        for fault in [
            Fault::NotInAdminRoom,
            file(io::ErrorKind::StorageFull),
            refused("M_UNKNOWN_TOKEN"),
        ] {
            let said = fault.to_string();
            assert_eq!(code_of(BotError::from(fault)), 1, "{said}");
        }
    }

    #[test]
    fn what_stands_behind_other_words_counts_as_well() {
        let error = Err::<(), _>(Fault::PasswordWanted).context("the identity is not reset");
        assert_eq!(code_of(error.unwrap_err()), 3);
        let in_use = || DataDirError::InUse {
            path: PathBuf::new(),
            process: None,
        };
        assert_eq!(code_of(in_use()), 1);
        for (kind, code) in [
            (io::ErrorKind::PermissionDenied, 3),
            (io::ErrorKind::StorageFull, 1),
        ] {
            let records = StoreError::Read {
                path: PathBuf::new(),
                source: kind.into(),
            };
            assert_eq!(code_of(RestoreError::from(records)), code, "{kind}");
        }
        let full = DataDirError::Unusable {
            path: PathBuf::new(),
            source: io::ErrorKind::StorageFull.into(),
        };
        assert_eq!(code_of(full), 1);
        assert_eq!(code_of(BotError::Panicked), 1);
        assert_eq!(code_of(anyhow!("anything else")), 1);
        let wrong = Failure::Configuration(Fault::PasswordWanted.into());
        assert_eq!(wrong.code(), 2);
    }
}
