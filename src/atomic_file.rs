//! Writes a file so that a reader, or a crash, sees the old content or the new and never a mixture.

use std::{
    fs::{File, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

/// Only the owner may read and write.
const OWNER_ONLY: u32 = 0o600;

/// Replaces `path` by a file with this content, mode 0600, and returns once disk and folder have it.
///
/// # Errors
/// Whatever the file system says; then `path` is as it was.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = folder_of(path)?;
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(Permissions::from_mode(OWNER_ONLY))
        .tempfile_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_folder(folder)
}

/// Removes a file, and returns once the folder has forgotten it. A file that is not there is fine.
///
/// # Errors
/// Whatever the file system says.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => sync_folder(folder_of(path)?),
    }
}

fn folder_of(path: &Path) -> io::Result<&Path> {
    path.parent()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
