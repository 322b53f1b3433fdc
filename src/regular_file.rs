//! Files that another process may replace by a FIFO, whose opening would block, or by a device.

use std::{
    fs::{File, OpenOptions},
    io,
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

/// Rejects everything but a regular file: the rest cannot be truncated, and may be anything.
pub(crate) fn check(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() {
        return Ok(());
    }
    Err(io::Error::other("it is not a regular file"))
}
