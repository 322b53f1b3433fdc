//! A Unix socket for the bot's own user alone.

use std::{
    fs::{File, Permissions},
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

/// Nobody but the owner.
const PRIVATE: u32 = 0o600;

/// How long to wait when no connection can be accepted, as when too many files are open.
const PAUSE: Duration = Duration::from_secs(1);

/// How long the path of a socket may be, in bytes: the kernel has 108 for it, the last of them zero.
const LONGEST_PATH: usize = 107;

/// A socket that listens.
#[derive(Debug)]
pub(crate) struct PrivateSocket {
    listener: UnixListener,
    address: Address,
}

impl PrivateSocket {
    /// Listens at `path`, in a folder that is closed to others. A socket that an earlier run has left there is nobody's any
    /// more: there is one bot for each folder.
    ///
    /// # Errors
    /// Whatever the system says.
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        atomic_file::remove(path)?;
        let address = Address::of(path)?;
        let listener = UnixListener::bind(&address.path)?;
        std::fs::set_permissions(path, Permissions::from_mode(PRIVATE))?;
        Ok(Self { listener, address })
    }

    /// Where it can be reached from this process, as long as this exists.
    pub(crate) fn path(&self) -> &Path {
        &self.address.path
    }

    /// The next connection, however long that takes: where one cannot be accepted, a later one can. Cancel safe.
    pub(crate) async fn accept(&self) -> UnixStream {
        let (stream, _) = first_success(|| self.listener.accept()).await;
        stream
    }
}

/// Connects to the socket at `path`.
///
/// # Errors
/// Whatever the system says.
pub(crate) async fn connect(path: &Path) -> io::Result<UnixStream> {
    let address = Address::of(path)?;
    UnixStream::connect(&address.path).await
}

/// A path that the kernel takes for a socket's, be it as long as it may.
#[derive(Debug)]
struct Address {
    path: PathBuf,
    /// The way into the folder, where its own path is too long.
    _folder: Option<File>,
}

impl Address {
    fn of(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        if path.as_os_str().len() <= LONGEST_PATH {
            let path = path.to_owned();
            return Ok(Self {
                path,
                _folder: None,
            });
        }
        let folder = File::open(folder)?;
        let way_in = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        Ok(Self {
            path: way_in.join(name),
            _folder: Some(folder),
        })
    }
}

async fn first_success<T, F>(mut accept: impl FnMut() -> F) -> T
where
    F: Future<Output = io::Result<T>>,
{
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                warn!(%error, "a connection to a socket of the bot cannot be accepted, trying again");
                sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use rustix::io::Errno;

    use super::*;

    #[tokio::test]
    async fn a_connection_is_accepted_after_others_could_not_be() {
        let mut results = [Err(Errno::MFILE.into()), Ok("a connection")].into_iter();
        let accepted = first_success(|| ready(results.next().unwrap())).await;
        assert_eq!(accepted, "a connection");
    }

    #[tokio::test]
    async fn a_socket_takes_the_place_of_one_that_was_left_and_is_open_to_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        // The second path is longer than the kernel takes.
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
}
