//! Files that another process may replace by a FIFO, whose opening would block, or by a device.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use nix::libc;

/// Opens a file for reading. The flag makes no difference for a regular file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path)?;
    check(&file)?;
    Ok(file)
}

/// The beginning of a file, up to so many bytes. `None`: there is no such file.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let read = open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    let missing = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
    match read {
        Err(error) if missing.contains(&error.kind()) => Ok(None),
        read => read.map(|_| Some(bytes)),
    }
}

/// Rejects everything but a regular file: the rest cannot be truncated, and may be anything.
pub(crate) fn check(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() {
        return Ok(());
    }
    Err(io::Error::other("it is not a regular file"))
}
