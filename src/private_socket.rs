//! A Unix socket for the bot's own user alone.

use std::{fs::Permissions, io, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

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

/// A socket that listens.
#[derive(Debug)]
pub(crate) struct PrivateSocket(UnixListener);

impl PrivateSocket {
    /// Listens at `path`, in a folder that is closed to others. A socket that an earlier run has left there is nobody's any
    /// more: there is one bot for each folder.
    ///
    /// # Errors
    /// Whatever the system says.
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        atomic_file::remove(path)?;
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(PRIVATE))?;
        Ok(Self(listener))
    }

    /// The next connection, however long that takes: where one cannot be accepted, a later one can. Cancel safe.
    pub(crate) async fn accept(&self) -> UnixStream {
        let (stream, _) = first_success(|| self.0.accept()).await;
        stream
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
        let path = folder.path().join("socket");
        drop(PrivateSocket::listen(&path).unwrap());
        let socket = PrivateSocket::listen(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, PRIVATE);
        let (connected, _) = tokio::join!(UnixStream::connect(&path), socket.accept());
        connected.unwrap();
    }
}
