//! A Unix socket for the bot's own user only.

use std::{
    fs::{File, Permissions, set_permissions},
    io,
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    time::sleep,
};
use tracing::warn;

use crate::atomic_file;

/// Only the owner may connect.
const PRIVATE: u32 = 0o600;

/// How long to wait when no connection can be accepted, for example when too many files are open.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct PrivateSocket {
    listener: UnixListener,
    address: Address,
}

impl PrivateSocket {
    /// Listens at `path`, in a private folder, which one bot has: replaces a socket that an earlier run has left.
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        atomic_file::remove(path)?;
        let address = Address::of(path)?;
        let listener = UnixListener::bind(&address.path)?;
        set_permissions(path, Permissions::from_mode(PRIVATE))?;
        Ok(Self { listener, address })
    }

    /// A path by which this process can connect to it, valid as long as this exists.
    pub(crate) fn path(&self) -> &Path {
        &self.address.path
    }

    /// Waits for the next connection. Retries after an error, as a later connection may be accepted. Cancel safe.
    pub(crate) async fn accept(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    warn!(%error, "a connection to a socket of the bot cannot be accepted, trying again");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

pub(crate) async fn connect(path: &Path) -> io::Result<UnixStream> {
    let address = Address::of(path)?;
    UnixStream::connect(&address.path).await
}

/// A path to a socket through its folder's descriptor: the kernel allows 107 bytes, and the folder's own path may be longer.
#[derive(Debug)]
struct Address {
    path: PathBuf,
    _folder: File,
}

impl Address {
    fn of(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let folder = File::open(folder)?;
        let folder_path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        Ok(Self {
            path: folder_path.join(name),
            _folder: folder,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{env, iter, process::Command};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_socket_replaces_one_that_was_left_and_is_open_to_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        // The second path is longer than the kernel allows.
        for below in ["short".to_owned(), "long/".repeat(30)] {
            let below = folder.path().join(below);
            std::fs::create_dir_all(&below).unwrap();
            let path = below.join("socket");
            drop(PrivateSocket::listen(&path).unwrap());
            let socket = PrivateSocket::listen(&path).unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, PRIVATE);
            for path in [&path, socket.path()] {
                let (connected, _) = tokio::join!(connect(path), socket.accept());
                connected.unwrap();
            }
        }
    }

    #[test]
    fn a_connection_is_accepted_once_there_are_descriptors_again() {
        let name = concat!(module_path!(), "::with_few_descriptors");
        let (_, name) = name.split_once("::").unwrap();
        let binary = env::current_exe().unwrap();
        let output = Command::new("prlimit")
            .args(["--nofile=100:100", binary.to_str().unwrap(), "--ignored"])
            .args(["--exact", name])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}"
        );
    }

    #[tokio::test]
    #[ignore = "run by another test in a separate process"]
    async fn with_few_descriptors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = PrivateSocket::listen(&path).unwrap();
        let _connected = connect(&path).await.unwrap();
        let taken: Vec<_> = iter::from_fn(|| File::open("/dev/null").ok()).collect();
        assert!(!taken.is_empty());
        // It cannot be accepted, however long that is tried.
        assert!(timeout(PAUSE / 2, socket.accept()).await.is_err());
        drop(taken);
        socket.accept().await;
    }
}
