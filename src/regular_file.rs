//! Files that another process may replace by a FIFO, whose opening would block, or by a device.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use nix::libc;

/// Opens a file to read it. For a file the flag makes no difference.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path)?;
    check(&file)?;
    Ok(file)
}

/// Refuses what is not a file: it cannot be cut, and may be anything.
pub(crate) fn check(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() {
        return Ok(());
    }
    Err(io::Error::other("it is not a regular file"))
}
