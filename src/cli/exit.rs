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

pub(super) fn misconfigured(error: anyhow::Error) -> anyhow::Error {
    Misconfigured(error).into()
}

/// The error for a panic, which has been logged.
pub(super) fn bug() -> anyhow::Error {
    anyhow!("rcbot has a bug: see above in the log")
}

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

    use super::*;
    use crate::{
        bot::BotError,
        data_dir::DataDirError,
        remote_control::{RestoreError, StoreError},
    };

    #[test]
    fn the_exit_code_says_whether_a_restart_may_help() {
        use io::ErrorKind::{PermissionDenied, StorageFull};
        let path = PathBuf::new;
        let file = |kind: io::ErrorKind| Fault::File {
            path: path(),
            source: kind.into(),
        };
        let records = |kind: io::ErrorKind| StoreError::Read {
            path: path(),
            source: kind.into(),
        };
        let not_ours = DataDirError::NotOurs {
            path: path(),
            source: PermissionDenied.into(),
        };
        let in_use = DataDirError::InUse {
            path: path(),
            process: None,
        };
        let full = DataDirError::Unusable {
            path: path(),
            source: StorageFull.into(),
        };
        let unreadable = Fault::UnreadableFile {
            path: path(),
            remedy: "",
        };
        let refused = Fault::LoginRefused {
            status: 401,
            code: "M_UNKNOWN_TOKEN".to_owned(),
            remedy: String::new(),
        };
        let missing = FileError::Missing {
            path: path(),
            remedy: "",
        };
        let for_operator = || Fault::for_operator("no password");
        let of_bot = |fault| BotError::from(fault).into();
        let records = |kind| RestoreError::from(records(kind)).into();
        let cases: [(u8, Vec<anyhow::Error>); 3] = [
            (
                2,
                vec![missing.into(), misconfigured(for_operator().into())],
            ),
            (
                3,
                vec![
                    of_bot(for_operator()),
                    of_bot(unreadable),
                    of_bot(file(PermissionDenied)),
                    anyhow!(for_operator()).context("the identity is not reset"),
                    records(PermissionDenied),
                    not_ours.into(),
                ],
            ),
            (
                1,
                vec![
                    of_bot(Fault::NotInAdminRoom),
                    of_bot(Fault::fatal("database locked", "busy")),
                    of_bot(file(StorageFull)),
                    of_bot(refused),
                    records(StorageFull),
                    in_use.into(),
                    full.into(),
                    BotError::Panicked.into(),
                    anyhow!("anything else"),
                ],
            ),
        ];
        for (expected, errors) in cases {
            for error in errors {
                assert_eq!(code(&error), expected, "{error:#}");
            }
        }
        let wrong = misconfigured(for_operator().into());
        assert_eq!(wrong.to_string(), "no password");
    }
}
