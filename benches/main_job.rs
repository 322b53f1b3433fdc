//! The main job beside what bounds it, on a Synapse of its own: `cargo bench --bench main_job`.
//!
//! A person says `!rc start`, with the session running and the direct message known, and waits for the link in clear text;
//! then says something to a bare matrix-sdk client, which has a `sync_once` loop and says it back, encrypted too. Both in
//! turn, so that what disturbs one disturbs the other. In the end both are left alone, and looked at.
#![recursion_limit = "256"]
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on ends, and half of this is the tests' support"
)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is all a benchmark does"
)]

/// What a bare client is, and how it is run.
#[path = "support/bare_client.rs"]
mod bare_client;

/// Tables of times.
#[path = "support/table.rs"]
mod table;

#[path = "../tests/it/support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "the tests need all of it, and a benchmark little"
)]
mod support;

use std::{
    fs,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use matrix_sdk::ruma::{OwnedEventId, OwnedRoomId, UserId};
use nix::{time::ClockId, unistd::Pid};
use procfs::process::Process;

use bare_client::BareClient;
use support::{bot::Bot, homeserver, person::Person};
use table::{Samples, Table};

/// Rounds that are not counted: the first ones make rooms, keys and caches.
const WARM_UP: usize = 5;

/// Rounds that are counted.
const ROUNDS: usize = 60;

/// How long both are left alone before they are looked at, and how long they are looked at.
const SETTLE: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match bare_client::order(&arguments) {
        Some(order) => runtime.block_on(bare_client::run(order)),
        None => runtime.block_on(measure()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure() -> Result<()> {
    eprintln!("starting Synapse, the bot and a bare client");
    let alice = Person::register(homeserver(), "alice").await?;
    let bot = Bot::builder(homeserver())
        .log_filter("warn,rcbot=info,audit=info")
        .start(&alice)
        .await;
    bot.start_session(&alice, "website").await;
    let bare = BareClient::start(homeserver()).await?;
    let room = bare.meet(&alice).await?;

    let mut times = [const { Samples::new() }; 3];
    for round in 0..WARM_UP + ROUNDS {
        let of_round = [
            time_link(&alice, &bot).await?,
            time_help(&alice, &bot).await?,
            time_echo(&alice, &bare, &room, round).await?,
        ];
        if round >= WARM_UP {
            for (samples, time) in times.iter_mut().zip(of_round) {
                samples.add(time);
            }
        }
    }
    let [link, help, echo] = times;
    let ratio = link.median().as_secs_f64() / echo.median().as_secs_f64();
    let mut table = Table::new("command sent -> answer decrypted");
    table.add("`!rc start`: the link, session running", link);
    table.add("`!rc help`: the answer in the admin room", help);
    table.add("floor: encrypted echo of a bare matrix-sdk client", echo);
    println!("{table}the link takes {ratio:.2} x the floor (medians)\n");

    idle(&bot, &bare).await
}

/// From `!rc start` to the link in clear text.
async fn time_link(alice: &Person, bot: &Bot) -> Result<Duration> {
    let known = bot.links_of(alice).len();
    let begun = Instant::now();
    let asked = alice
        .send_text(bot.admin_room(), "!rc start website")
        .await?;
    let mut events = alice.watch_events();
    let is_link = |event: &support::event::Event| {
        event.sender == bot.user_id()
            && event.encryption.is_some()
            && event
                .body()
                .is_some_and(|body| body.contains("https://claude.ai/code?environment=env_"))
    };
    let more = |all: &Vec<_>| all.iter().filter(|event| is_link(event)).count() > known;
    events.wait_for(more).await?;
    let time = begun.elapsed();
    // The round is over when the admin room has its answer too.
    wait_for_reply(alice, bot.user_id(), &asked).await?;
    Ok(time)
}

async fn time_help(alice: &Person, bot: &Bot) -> Result<Duration> {
    let begun = Instant::now();
    let asked = alice.send_text(bot.admin_room(), "!rc help").await?;
    wait_for_reply(alice, bot.user_id(), &asked).await?;
    Ok(begun.elapsed())
}

async fn wait_for_reply(alice: &Person, from: &UserId, asked: &OwnedEventId) -> Result<()> {
    alice
        .wait_for("the bot's answer", |event| {
            event.sender == from && event.replies_to() == Some(asked.as_str())
        })
        .await?;
    Ok(())
}

async fn time_echo(
    alice: &Person,
    bare: &BareClient,
    room: &OwnedRoomId,
    round: usize,
) -> Result<Duration> {
    let text = format!("echo {round}");
    let begun = Instant::now();
    alice.send_text(room, &text).await?;
    alice
        .wait_for("the echo", |event| {
            event.sender == bare.user_id() && event.body() == Some(text.as_str())
        })
        .await?;
    Ok(begun.elapsed())
}

/// What bot and bare client take while nothing happens.
async fn idle(bot: &Bot, bare: &BareClient) -> Result<()> {
    eprintln!("nothing happens for {} s", (SETTLE + IDLE).as_secs());
    let processes = [
        ("rcbot, one session running", process_of(bot)?),
        (
            "floor: bare matrix-sdk client in /sync",
            Process::new(bare.pid())?,
        ),
    ];
    tokio::time::sleep(SETTLE).await;
    let before = processes
        .iter()
        .map(|(_, process)| cpu_time(process))
        .collect::<Result<Vec<_>>>()?;
    tokio::time::sleep(IDLE).await;
    println!("{:<52} {:>12} {:>12} {:>12}", "idle", "RSS", "PSS", "CPU");
    for ((name, process), before) in processes.iter().zip(before) {
        let busy = cpu_time(process)?.saturating_sub(before).as_secs_f64() / IDLE.as_secs_f64();
        let (resident, proportional) = memory(process)?;
        println!(
            "{name:<52} {resident:>8.1} MiB {proportional:>8.1} MiB {:>10.2} %",
            busy * 100.0
        );
    }
    Ok(())
}

/// The bot's process is the child of ours that was given its config.yaml.
fn process_of(bot: &Bot) -> Result<Process> {
    let config = bot.config_path();
    procfs::process::all_processes()?
        .filter_map(Result::ok)
        .find(|process| {
            process
                .cmdline()
                .is_ok_and(|words| words.iter().any(|word| *word == config.to_string_lossy()))
        })
        .context("the bot does not run")
}

fn cpu_time(process: &Process) -> Result<Duration> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(process.pid))?;
    Ok(clock.now()?.into())
}

/// Resident, and with shared pages divided among those who share them, in MiB.
fn memory(process: &Process) -> Result<(f64, f64)> {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid))?;
    let field = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes: f64 = line
            .and_then(|rest| rest.split_whitespace().next())
            .with_context(|| format!("no {name}"))?
            .parse()?;
        Ok(kibibytes / 1024.0)
    };
    Ok((field("Rss:")?, field("Pss:")?))
}
