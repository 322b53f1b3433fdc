//! Sessions that are never lost: `remote_control` on its own, with real processes and no Matrix; a file per promise.
//!
//! The processes are the stand-in for `claude`, tests/fixtures/claude. Where a bot has to be killed, or a test needs a separate
//! process, this very binary is run once more.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![expect(
    clippy::print_stderr,
    reason = "the test harness shows it when a test fails"
)]

/// What the other modules share.
mod support;

/// A bot without Matrix, to be killed.
mod bot;

/// What is left of a session and its links when the bot is killed.
mod killed_bot;

/// One process, one answer for each.
mod single_flight;

/// Which process is which.
mod identity;

/// What a process prints.
mod output;

/// How a session begins, ends and comes back.
mod life_span;

/// Processes that print as fast as they can.
mod floods;

/// Whatever there is too few of, or too much.
mod exhaustion;

/// A disk that is full or read-only.
mod disk;
