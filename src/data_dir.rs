//! The data directory: private, and one bot's at a time.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use procfs::{
    LockType,
    process::{FDTarget, Process},
};
use tracing::warn;

/// Nobody but the owner.
const PRIVATE: u32 = 0o700;

/// The operator's socket, in the data directory.
pub(crate) const SOCKET: &str = "operator.sock";

/// The file whose lock keeps a second bot out.
const LOCK: &str = "lock";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be made or opened.
    #[error("cannot use the data directory {path}")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another bot uses it.
    #[error(
        "another rcbot runs with the data directory {path}: stop it first, or give this one a data_dir of its own"
    )]
    InUse {
        /// Which.
        path: PathBuf,
    },
}

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Two bots on one Matrix store would spoil its keys.
    _lock: File,
}

impl DataDir {
    /// Makes the directory if need be, closes it to others, and locks it.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let unusable = |source| DataDirError::Unusable {
            path: path.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(PRIVATE)
            .create(path)
            .map_err(unusable)?;
        close_to_others(path).map_err(unusable)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }

    /// The folder of the session records.
    #[must_use]
    pub fn sessions(&self) -> PathBuf {
        sessions(&self.path)
    }

    /// The operator's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    /// The folder of the Matrix stores.
    #[must_use]
    pub fn matrix(&self) -> PathBuf {
        matrix(&self.path)
    }
}

/// The folder of the session records in a data directory, for those who look into one that is not theirs.
#[must_use]
pub fn sessions(data_dir: &Path) -> PathBuf {
    data_dir.join("sessions")
}

/// The folder of the Matrix stores in a data directory, for the same.
#[must_use]
pub fn matrix(data_dir: &Path) -> PathBuf {
    data_dir.join("matrix")
}

/// The process of the bot that runs with a data directory. It is looked up and not found out by trying the lock, which would
/// keep out a bot that starts at that moment.
#[must_use]
pub fn process_running_with(data_dir: &Path) -> Option<i32> {
    let lock = data_dir.join(LOCK).canonicalize().ok()?;
    let inode = fs::metadata(&lock).ok()?.ino();
    let locks = procfs::locks().ok()?.into_iter();
    locks
        .filter(|held| held.inode == inode && matches!(held.lock_type, LockType::FLock))
        .filter_map(|held| held.pid)
        // A file of another file system can have the same number.
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
        warn!(path = %path.display(), mode = format!("{mode:o}"), "data directory was open to others, closing it");
        fs::set_permissions(path, Permissions::from_mode(mode & PRIVATE))?;
    }
    Ok(())
}
