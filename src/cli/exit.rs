//! Which exit code a failure ends with: whether a restart may mend it is what a service manager asks.

use std::io;

use anyhow::anyhow;

use crate::{
    data_dir::DataDirError,
    matrix::{Fault, Severity},
    remote_control::StoreError,
};

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

    pub(super) fn into_error(self) -> anyhow::Error {
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
        || error
            .downcast_ref()
            .is_some_and(|fault: &Fault| fault.severity() == Severity::NeedsOperator)
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
        for fault in [
            Fault::for_operator("wrong password"),
            Fault::UnreadableFile {
                path: PathBuf::new(),
                remedy: "",
            },
            file(io::ErrorKind::PermissionDenied),
        ] {
            let said = fault.to_string();
            assert_eq!(code_of(BotError::from(fault)), 3, "{said}");
        }
        for fault in [
            Fault::NotInAdminRoom,
            Fault::fatal("database locked", "busy"),
            file(io::ErrorKind::StorageFull),
            refused("M_UNKNOWN_TOKEN"),
        ] {
            let said = fault.to_string();
            assert_eq!(code_of(BotError::from(fault)), 1, "{said}");
        }
    }

    #[test]
    fn what_stands_behind_other_words_counts_as_well() {
        let error =
            Err::<(), _>(Fault::for_operator("no password")).context("the identity is not reset");
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
        let wrong = Failure::Configuration(Fault::for_operator("no password").into());
        assert_eq!(wrong.code(), 2);
    }
}
