//! Waits for a descriptor of the kernel's (a pidfd, an inotify instance) in tokio's reactor.

use std::{io, os::fd::AsRawFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers a descriptor, to wait until it can be read. Runs within a tokio runtime only.
#[expect(
    deprecated,
    reason = "deprecated because a type could swap its descriptor, which OwnedFd and BorrowedFd cannot; what replaces it is unsafe"
)]
pub(super) fn readable<D: AsRawFd>(descriptor: D) -> io::Result<AsyncFd<D>> {
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}
