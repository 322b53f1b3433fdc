//! The exit code of a failure: a service manager needs to know whether a restart may help.

use std::{error::Error, io};

use anyhow::anyhow;

use crate::{
    config::FileError,
    matrix::{Fault, RegistrationError, Severity},
};

/// It failed while running, and a restart may help.
const FAILED: u8 = 1;

/// The arguments or the configuration are wrong.
const MISCONFIGURED: u8 = 2;

/// The operator has to do something first, and a restart does not help.
const NEEDS_OPERATOR: u8 = 3;

/// What the operator wrote is wrong, and nothing was begun.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct Misconfigured(anyhow::Error);

/// An error for what the operator wrote.
pub(super) fn misconfigured(error: anyhow::Error) -> anyhow::Error {
    Misconfigured(error).into()
}

/// The error for a panic, which has been logged.
pub(super) fn bug() -> anyhow::Error {
    anyhow!("rcbot has a bug: see above in the log")
}

/// The exit code that a command ends with.
pub(super) fn code(error: &anyhow::Error) -> u8 {
    if error.chain().any(is_misconfiguration) {
        MISCONFIGURED
    } else if needs_operator(error) {
        NEEDS_OPERATOR
    } else {
        FAILED
    }
}

fn is_misconfiguration(error: &(dyn Error + 'static)) -> bool {
    error.is::<Misconfigured>() || error.is::<FileError>() || error.is::<RegistrationError>()
}

/// A file without permission for the bot stays so. A firewall may refuse a connection for a while only: the severity of a
/// Matrix fault decides, not its cause.
fn needs_operator(error: &anyhow::Error) -> bool {
    let fault = error.chain().find_map(<dyn Error>::downcast_ref::<Fault>);
    let mut causes = error.chain().filter_map(<dyn Error>::downcast_ref);
    fault.map_or_else(
        || causes.any(|cause: &io::Error| cause.kind() == io::ErrorKind::PermissionDenied),
        |fault| fault.severity() == Severity::NeedsOperator,
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use anyhow::Context as _;

    use super::*;
    use crate::{
        bot::BotError,
        data_dir::DataDirError,
        remote_control::{RestoreError, StoreError},
    };

    fn code_of(error: impl Into<anyhow::Error>) -> u8 {
        code(&error.into())
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
    fn only_faults_that_a_restart_may_fix_get_one() {
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
    fn the_cause_behind_a_context_counts_as_well() {
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
        let closed = DataDirError::NotOurs {
            path: PathBuf::new(),
            source: io::ErrorKind::PermissionDenied.into(),
        };
        assert_eq!(code_of(closed), 3);
        assert_eq!(code_of(BotError::Panicked), 1);
        assert_eq!(code_of(anyhow!("anything else")), 1);
        let wrong = misconfigured(Fault::for_operator("no password").into());
        assert_eq!(wrong.to_string(), "no password");
        assert_eq!(code(&wrong), 2);
        let missing = FileError::Missing {
            path: PathBuf::new(),
            remedy: "",
        };
        assert_eq!(code_of(missing), 2);
    }
}
