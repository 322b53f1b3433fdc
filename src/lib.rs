//! rcbot: starts `claude remote-control` on its host for those whom a Matrix room trusts, and hands them the link.
//!
//! # The walk of a command
//! ```text
//! matrix::inbox ─▶ command::parse ─▶ command::authorize ─▶ bot ─▶ remote_control ─▶ bot ─▶ matrix::direct_message
//! ```
//! An event comes by /sync, is taken for a command, is judged by what the homeserver says of the admin room now, and
//! becomes a detached process. Once that process shows its link, the link goes to the requester alone, end-to-end
//! encrypted; the admin room hears that it was sent.
//!
//! # The house
//! - [`config`], [`data_dir`], [`link`], [`secret`]: what everyone may know.
//! - [`matrix`]: hears and speaks; knows no process.
//! - [`remote_control`]: supervises processes; knows no Matrix; usable without the rest.
//! - [`command`]: understands and words, pure.
//! - [`bot`]: the one loop that brings them together.
//! - [`check`]: tries everything that a start needs, and changes nothing.
//! - [`cli`]: the commands of the binary.
//!
//! # Invariants
//! - A link leaves [`link::Link`] in three places: the record of its session on disk, the encrypted event, and the picture
//!   of it that follows, encrypted too.
//! - A process is known by pid, start time and boot, and signalled through a pidfd; a bare pid is never trusted.
//! - What is begun is on disk before it is begun.
//! - A command counts only with a `command::Permit`, and missing evidence gives none.

// The SDK's futures are deep once they are spawned.
#![recursion_limit = "256"]

mod atomic_file;
pub mod bot;
pub mod check;
pub mod cli;
pub mod command;
pub mod config;
pub mod data_dir;
mod http;
pub mod link;
pub mod matrix;
mod private_socket;
pub mod remote_control;
pub mod secret;
