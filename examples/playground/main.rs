//! rcbot's main job on its own homeserver: `cargo run --example playground`.
//!
//! Needs only Python 3 with venv. Sets up Synapse with pip, an admin with an encrypted admin room, and the bot, with a stand-in
//! for `claude`. What you type is sent to the admin room, and the bot's messages there and in the direct message are shown.
//! Everything is in `target/playground`, so a second run takes seconds.
#![recursion_limit = "256"]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for a terminal"
)]

/// rcbot itself: the only file here that calls its library.
mod bot;
mod demo;
mod prompt;
mod setup;

#[expect(dead_code, reason = "shared with the tests, which use the rest")]
#[path = "../../tests/it/support/event.rs"]
mod event;
#[expect(
    dead_code,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "shared with the tests, which use the rest, and fail by panicking"
)]
#[path = "../../tests/it/support/homeserver.rs"]
mod homeserver;
#[path = "../../tests/it/support/listen.rs"]
mod listen;
#[expect(
    dead_code,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "shared with the tests, which use the rest, and fail by panicking"
)]
#[path = "../../tests/it/support/person.rs"]
mod person;
#[path = "../../tests/it/support/processes.rs"]
mod processes;
#[expect(
    dead_code,
    clippy::panic,
    clippy::unwrap_used,
    reason = "shared with the tests, which use the rest, and fail by panicking"
)]
#[path = "../../tests/it/support/rooms.rs"]
mod rooms;
#[path = "../../tests/it/support/synapse.rs"]
mod synapse;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use setup::{Playground, Sessions};

/// Try rcbot on its own homeserver.
///
/// Sets up Synapse (with pip, the first time about half a minute), an admin user with an encrypted admin room, and the bot.
/// What you type is sent to the admin room; the bot's messages there and in the direct message are shown. Try `!rc start`,
/// `!rc status`, `!rc stop`, `!rc help`. `/client` shows how to use a Matrix client. `/quit`, Ctrl-D or Ctrl-C ends it.
#[derive(Debug, Parser)]
#[command(
    name = "playground",
    after_help = "Needs Python 3 with venv. Everything it makes is in target/playground."
)]
struct Arguments {
    /// Run start, status and stop, verify the result, and exit with 0 if it is right.
    #[arg(long)]
    demo: bool,

    #[command(flatten)]
    sessions: Sessions,

    /// Forget the earlier runs: homeserver, users, rooms and sessions.
    #[arg(long)]
    fresh: bool,
}

fn main() -> ExitCode {
    if std::env::args_os()
        .next()
        .is_some_and(|name| name == bot::NAME)
    {
        return rcbot::cli::run(rcbot::cli::Arguments::parse());
    }
    let arguments = Arguments::parse();
    let outcome = tokio::runtime::Runtime::new()
        .map_err(Into::into)
        .and_then(|runtime| {
            let outcome = runtime.block_on(play(&arguments));
            // A thread may still wait for a line on standard input.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("playground: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn play(arguments: &Arguments) -> Result<()> {
    let playground = Playground::set_up(&arguments.sessions, arguments.fresh).await?;
    let played = tokio::select! {
        played = async {
            if arguments.demo { demo::play(&playground).await } else { prompt::run(&playground).await }
        } => played,
        interrupted = tokio::signal::ctrl_c() => {
            println!();
            interrupted.map_err(Into::into)
        }
    };
    let ended = playground.end().await;
    played.and(ended)
}
