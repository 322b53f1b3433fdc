//! The data directory: private, and used by one bot at a time.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use procfs::{
    LockType,
    process::{FDTarget, Process},
};
use tracing::warn;

use crate::atomic_file;

/// Only the owner may enter.
const PRIVATE: u32 = 0o700;

/// The operator's socket, in the data directory.
pub(crate) const SOCKET: &str = "operator.sock";

/// The file whose lock prevents a second bot.
const LOCK: &str = "lock";

pub(crate) const SESSIONS: &str = "sessions";

pub(crate) const MATRIX: &str = "matrix";

/// What a bot leaves in its data directory.
pub(crate) const CONTENT: [&str; 3] = [LOCK, MATRIX, SESSIONS];

#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    #[error("cannot use {path}, the data directory or a file in it")]
    Unusable { path: PathBuf, source: io::Error },
    #[error(
        "{path} is another user's: the data directory and all in it must belong to the user who runs the bot, and \
         `rcbot check` names the command that sees to it"
    )]
    NotOurs { path: PathBuf, source: io::Error },
    #[error(
        "another rcbot runs with the data directory {path}{}: stop it first, or give this one a data_dir of its own",
        described(*.process)
    )]
    InUse {
        path: PathBuf,
        /// Of the other bot, if it is visible.
        process: Option<i32>,
    },
}

/// A data directory, locked until this is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    /// Without symbolic links, so that it does not depend on how the configuration writes it.
    path: PathBuf,
    /// Two bots with one Matrix store would corrupt its keys.
    _lock: File,
}

impl DataDir {
    /// Creates the directory if it is missing, removes other users' access, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let real_path = atomic_file::create_folder(path)
            .and_then(|()| close_to_others(path))
            .and_then(|()| path.canonicalize())
            .map_err(|source| unusable(path, source))?;
        let file = path.join(LOCK);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&file)
            .map_err(|source| unusable(&file, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: real_path,
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse {
                path: path.to_owned(),
                process: process_running_with(path),
            }),
            Err(TryLockError::Error(source)) => Err(unusable(&file, source)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// systemctl(1) names the unit of any process.
fn described(process: Option<i32>) -> String {
    process.map_or_else(String::new, |pid| {
        format!(" (process {pid}; `systemctl status {pid}` names its unit)")
    })
}

fn unusable(path: &Path, source: io::Error) -> DataDirError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => DataDirError::NotOurs { path, source },
        _ => DataDirError::Unusable { path, source },
    }
}

/// The process that holds the lock, by `/proc/locks`: trying the lock would keep out a bot that starts at that moment.
pub(crate) fn process_running_with(data_dir: &Path) -> Option<i32> {
    let lock = data_dir.join(LOCK).canonicalize().ok()?;
    let inode = fs::metadata(&lock).ok()?.ino();
    let locks = procfs::locks().ok()?.into_iter();
    locks
        .filter(|held| held.inode == inode && matches!(held.lock_type, LockType::FLock))
        .filter_map(|held| held.pid)
        // A file on another file system can have the same number.
        .find(|pid| has_open(*pid, &lock))
}

fn has_open(pid: i32, path: &Path) -> bool {
    let descriptors = Process::new(pid).and_then(|process| process.fd());
    descriptors.is_ok_and(|mut all| {
        all.any(|one| {
            one.is_ok_and(|one| matches!(one.target, FDTarget::Path(open) if open == path))
        })
    })
}

fn close_to_others(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        warn!(path = %path.display(), mode = format!("{mode:o}"), "data directory was open to other users, removing their access");
        fs::set_permissions(path, Permissions::from_mode(mode & PRIVATE))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_canonical_and_names_its_user() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap().join("data");
        std::os::unix::fs::symlink("data", folder.path().join("link")).unwrap();
        let paths = ["data", "./data", "data/../data", "link"];
        for path in paths.map(|path| folder.path().join(path)) {
            let opened = DataDir::open(&path).unwrap();
            assert_eq!(opened.path(), real);
            let refused = DataDir::open(&path).unwrap_err().to_string();
            let us = format!("(process {}", std::process::id());
            assert!(refused.contains(&us), "{refused}");
        }
    }

    #[test]
    fn what_belongs_to_another_user_is_named_with_its_remedy() {
        let lock = Path::new("/srv/rcbot/data/lock");
        let error = unusable(lock, io::ErrorKind::PermissionDenied.into()).to_string();
        assert!(
            error.starts_with("/srv/rcbot/data/lock is another user's"),
            "{error}"
        );
        assert!(error.contains("`rcbot check` names the command"), "{error}");
        let error = unusable(lock, io::ErrorKind::StorageFull.into()).to_string();
        assert!(
            error.starts_with("cannot use /srv/rcbot/data/lock"),
            "{error}"
        );
    }
}
