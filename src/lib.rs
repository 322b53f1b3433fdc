//! rcbot: starts `claude remote-control` on its host for the administrators of a Matrix room, and sends them the link.
//!
//! # One `!rc start website`, from file to file
//! ```text
//! homeserver ─▶ matrix::guard ─▶ matrix::sync ─▶ matrix::inbox            an event becomes a Message
//!   ─▶ bot::queue ─▶ bot::judge ─▶ command::{parse, authorize}            a Message becomes a Permit and an Intent, or a refusal
//!   ─▶ bot::execute ─▶ remote_control ─▶ session::life                    the session decides: save, then spawn
//!   ─▶ remote_control::process::spawn ─▶ watch ─▶ claude::output          a detached process shows its link
//!   ─▶ bot::notices ─▶ bot::deliver ─▶ matrix::direct_message             one encrypted event, to the requester only
//!   ─▶ bot::answer ─▶ matrix::send ─▶ homeserver                          the admin room hears that it was sent
//! ```
//! Slow work (asking the homeserver, spawning, delivering, stopping) is done by tasks that report to the loop of `bot` with
//! an event. `matrix` and [`remote_control`] do not depend on each other.
//!
//! # Words
//! - *admin room*: the one room in which commands are accepted; *requester*: the user who sent one.
//! - *project*: a configured directory in which a session can run, one at a time.
//! - *session*: a detached `claude remote-control` process and its data; *link*: its URL, a secret.
//! - *delivery*: a link on its way to a requester, until the homeserver has accepted the encrypted event.
//! - *restore*: to continue sessions after a restart of the bot; *resume*: to bring back a conversation (`!rc resume`).
//! - *pinned identity*: a user's cross-signing identity as first seen, or as named in the configuration.
//!
//! # Where to look
//! | question | file |
//! | --- | --- |
//! | what happens when a process exits, a stop is requested, the time is up? | `remote_control/session/life.rs`, `session/ending.rs`, `session/running.rs`: pure, with the diagram of states |
//! | where is a link sent, and to whom? | `bot/deliver.rs` decides when, `matrix/direct_message.rs` how; nothing else can |
//! | who may command? | `command/authorize.rs`: the rules; `matrix/facts.rs` and `matrix/proof.rs`: the evidence |
//! | what does the bot say? | `command/reply/`: every sentence in Matrix |
//! | how do I add a command? | `command/parse.rs`, `bot/judge.rs`, `bot/execute.rs`; docs/development.md has a diff |
//! | how do I add a key of the configuration? | a typed field in `config/file.rs`; docs/development.md has a diff |
//! | what is on disk? | `matrix/folder.rs`, `remote_control/store.rs`; docs/operations.md for people |
//! | how are processes found, signalled, ended? | `remote_control/process/`: `survey`, `handle`, `stop` |
//! | what does `claude` print, and what does it mean? | `remote_control/claude/` |
//! | what inspects incoming data before the SDK? | `matrix/login/forwarder.rs` forwards, `matrix/guard.rs` decides |
//! | which failures pass, which end the bot, with which exit code? | `matrix/fault.rs` (`Severity`), `cli/exit.rs` |
//! | what does `rcbot check` look at? | `check/mod.rs`, in order |
//!
//! # Invariants that span folders
//! - A link leaves [`link::Link`] in three places: the record of its session on disk, the encrypted event, and the picture
//!   of it that follows, encrypted too.
//! - A process is known by pid, start time and boot, and signalled through a pidfd; a bare pid is never trusted.
//! - An action is recorded on disk before it is begun.
//! - A command is executed only with a `command::Permit`; without evidence there is no permit.
//! - Nothing that the homeserver sends reaches the SDK before `matrix::guard` has looked at it.
//! - Imports point one way. What each part may name, and where secrets may leave their types, are two tables in tests/tidy.rs.

// The SDK's futures are deep once they are spawned.
#![recursion_limit = "256"]

mod atomic_file;
mod bot;
mod check;
pub mod cli;
mod command;
mod config;
mod data_dir;
mod http;
pub mod link;
mod matrix;
mod private_socket;
mod regular_file;
#[expect(missing_docs, reason = "a name that says it needs no sentence")]
pub mod remote_control;
mod secret;
mod shell;

// For tests that compare the pages with what the bot and `rcbot check` say.
pub use check::Check;
pub use command::reply::{Topic, help as list_of_commands};
// For the playground, which needs a registration before it has a configuration.
pub use matrix::{generate as generate_registration, write_new as write_registration};
