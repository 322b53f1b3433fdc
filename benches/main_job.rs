//! The main job beside its lower bound, on its own Synapse: `cargo bench --bench main_job`.
//!
//! A person sends the bot a command and waits for the decrypted answer; then sends a message to a bare matrix-sdk client, whose
//! `sync_once` loop echoes it, encrypted too. Both take turns, so that disturbances affect both. The same follows with a more
//! distant homeserver. Then both are restarted, left idle and flooded, and their memory is measured.
//!
//! `cargo bench --bench main_job -- --beside PATH` measures another build of rcbot in the same run.
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

#[path = "support/bare_client.rs"]
mod bare_client;

#[path = "support/table.rs"]
#[expect(dead_code, reason = "this one prints the rows of a document")]
mod table;

#[path = "../tests/it/support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "the tests need all of it, and a benchmark little"
)]
mod support;

use std::{
    fmt, fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use matrix_sdk::ruma::{OwnedEventId, OwnedRoomId, events::room::message::RoomMessageEventContent};
use nix::{time::ClockId, unistd::Pid};
use procfs::process::Process;
use serde_json::json;
use tokio::time::{sleep, timeout};

use bare_client::BareClient;
use support::{
    bot::Bot,
    bot_builder::BotBuilder,
    event::Event,
    eventually, homeserver,
    person::{Person, random_text},
    proxy::Proxy,
};
use table::Samples;

/// Rounds that are not counted: the first ones make rooms, keys and caches.
const WARM_UP: usize = 5;

/// Rounds that are counted.
const ROUNDS: usize = 60;

/// The same for rounds that take long to prepare.
const FEW_WARM_UP: usize = 1;
const FEW_ROUNDS: usize = 12;

/// After so many links for one person, a new session is started: the bot redacts older ones beyond a limit.
const LINKS: usize = 10;

/// How long nothing is sent before a measurement, so that earlier events do not affect it.
const QUIET: Duration = Duration::from_millis(150);

/// How much longer a request takes with the distant homeserver.
const DISTANCE: Duration = Duration::from_millis(20);

/// How long a session floods its output.
const FLOOD: Duration = Duration::from_secs(10);

/// How long both idle before they are measured, and how long they are measured.
const SETTLE: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(20);

/// Empty answers to /sync, and those with a message: about a day's worth.
const EMPTY_SYNCS: usize = 10_000;
const FILLED_SYNCS: usize = 1_000;

const ECHO: &str = "encrypted echo of a bare matrix-sdk client";

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match bare_client::order(&arguments) {
        Some(order) => runtime.block_on(bare_client::run(order)),
        None => runtime.block_on(measure(beside(&arguments))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Another build of rcbot to measure.
fn beside(arguments: &[String]) -> Option<PathBuf> {
    let mut words = arguments.iter();
    words.find(|word| *word == "--beside")?;
    words.next().map(PathBuf::from)
}

async fn measure(beside: Option<PathBuf>) -> Result<()> {
    eprintln!("starting Synapse, the bot and a bare client");
    let alice = Person::register(homeserver(), "alice").await?;
    let mut near = Site::new(&alice, None, None).await?;
    let mut other = match beside {
        Some(program) => Some(Site::new(&alice, None, Some(program)).await?),
        None => None,
    };
    println!("| what | rcbot | beside it |\n| --- | --- | --- |");
    for series in [Series::Answers, Series::OtherLinks] {
        near.measure(&alice, other.as_mut(), series).await?;
    }
    drop(other);
    near.measure_idle().await?;
    near.measure_first_links(&alice).await?;
    let mut far = Site::new(&alice, Some(DISTANCE), None).await?;
    far.measure_far(&alice).await?;
    near.measure_cold_starts(&alice).await?;
    drop(far);
    let fed = Site::new(&alice, Some(Duration::ZERO), None).await?;
    fed.measure_syncs(&alice).await?;
    drop(fed);
    near.measure_flood(&alice).await
}

/// What is measured, alternating with an echo.
#[derive(Debug, Clone, Copy)]
enum Series {
    /// Always the same link, and answers without a link.
    Answers,
    /// Another link each time, so that each needs its own key.
    OtherLinks,
}

impl Series {
    /// The names of its rows.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Answers => &[
                "`!rc start` sent -> link decrypted, session running",
                "`!rc status` sent -> answer decrypted",
                "`!rc help` sent -> answer decrypted",
            ],
            Self::OtherLinks => &[
                "link printed by a new session -> link decrypted",
                "`!rc start` sent -> link decrypted, session running, another link was sent since",
            ],
        }
    }
}

/// A bot and a bare client, both at the same distance from the homeserver.
struct Site {
    bot: Bot,
    bare: BareClient,
    /// The room in which the bare client echoes messages.
    room: OwnedRoomId,
    /// In front of the bot, and of the bare client.
    proxies: Option<[Proxy; 2]>,
    echoes: usize,
}

impl Site {
    async fn new(
        alice: &Person,
        distance: Option<Duration>,
        program: Option<PathBuf>,
    ) -> Result<Self> {
        let proxies = match distance {
            Some(distance) => {
                let proxy = async || Proxy::start_at(homeserver(), distance).await;
                Some([proxy().await, proxy().await])
            }
            None => None,
        };
        let mut builder = BotBuilder::new(homeserver())
            .log_filter("warn,rcbot=info,audit=info")
            .project("website", |project| project)
            .project("new", |project| project.standin("silent"))
            .project("loud", |project| project.standin("flood"))
            // As `rcbot init` writes it.
            .configure(|config| config["authorization"]["users"] = json!([alice.user_id()]));
        let mut url = homeserver().url();
        if let Some([before_bot, before_bare]) = &proxies {
            builder = builder.through(before_bot);
            url = before_bare.url();
        }
        let mut bot = builder.prepare(alice).await;
        if let Some(program) = program {
            bot.program = program;
        }
        // As the units in deploy/ do.
        bot.set_variable("MALLOC_ARENA_MAX", "1");
        bot.run();
        bot.wait_until_ready(alice).await;
        bot.start_session(alice, "website").await;
        let bare = BareClient::start(homeserver(), &url).await?;
        let room = bare.meet(alice).await?;
        Ok(Self {
            bot,
            bare,
            room,
            proxies,
            echoes: 0,
        })
    }

    /// From the command to the decrypted answer, alternating with the echo.
    async fn measure(
        &mut self,
        alice: &Person,
        other: Option<&mut Self>,
        series: Series,
    ) -> Result<()> {
        let mut echo = Samples::new();
        let mut sites: Vec<_> = [Some(self), other].into_iter().flatten().collect();
        let names = series.names();
        let mut rows = vec![vec![Samples::new(); names.len()]; sites.len()];
        for round in 0..WARM_UP + ROUNDS {
            if let [site, ..] = sites.as_mut_slice() {
                add(&mut echo, (WARM_UP, round), site.time_echo(alice).await?);
            }
            for (site, rows) in sites.iter_mut().zip(&mut rows) {
                site.renew_session(alice, round).await;
                let times = site.time_series(alice, series).await?;
                for (row, time) in rows.iter_mut().zip(times) {
                    add(row, (WARM_UP, round), time);
                }
            }
        }
        for (rows, whose) in rows.iter().zip(["", ", build beside"]) {
            for (name, row) in names.iter().zip(rows) {
                compare(&format!("{name}{whose}"), row, &echo, ECHO);
            }
        }
        Ok(())
    }

    /// The time of each row.
    async fn time_series(&self, alice: &Person, series: Series) -> Result<Vec<Duration>> {
        Ok(match series {
            Series::Answers => vec![
                self.time_link(alice, alice).await?,
                self.time_answer(alice, "status").await?,
                self.time_answer(alice, "help").await?,
            ],
            Series::OtherLinks => vec![
                self.time_new_session(alice).await?,
                self.time_link(alice, alice).await?,
            ],
        })
    }

    async fn measure_far(&mut self, alice: &Person) -> Result<()> {
        let (mut links, mut answers, mut echoes) = (Samples::new(), Samples::new(), Samples::new());
        for round in 0..WARM_UP + ROUNDS {
            self.renew_session(alice, round).await;
            add(
                &mut links,
                (WARM_UP, round),
                self.time_link(alice, alice).await?,
            );
            add(
                &mut answers,
                (WARM_UP, round),
                self.time_answer(alice, "status").await?,
            );
            add(&mut echoes, (WARM_UP, round), self.time_echo(alice).await?);
        }
        let further = format!("{} ms added to each request", DISTANCE.as_millis());
        compare(
            &format!("`!rc start`, session running, {further}"),
            &links,
            &echoes,
            "the echo, likewise",
        );
        compare(
            &format!("`!rc status`, {further}"),
            &answers,
            &echoes,
            "the echo, likewise",
        );
        Ok(())
    }

    /// The first links of new users, who have no direct message yet.
    async fn measure_first_links(&mut self, alice: &Person) -> Result<()> {
        let (mut links, mut echoes) = (Samples::new(), Samples::new());
        let bot = BotBuilder::new(homeserver())
            .log_filter("warn,rcbot=info,audit=info")
            .start(alice)
            .await;
        bot.start_session(alice, "website").await;
        let rounds = FEW_WARM_UP + FEW_ROUNDS;
        for round in 0..rounds {
            let bob = Person::register(homeserver(), "bob").await?;
            alice.invite(bot.admin_room(), bob.user_id()).await?;
            alice
                .set_power_level(bot.admin_room(), bob.user_id(), 100)
                .await;
            bot.wait_until_in(&bob, bot.admin_room()).await;
            add(
                &mut links,
                (FEW_WARM_UP, round),
                time_link(&bot, &bob, alice).await?,
            );
            add(
                &mut echoes,
                (FEW_WARM_UP, round),
                self.time_echo(alice).await?,
            );
        }
        compare(
            "first link ever, in a room that is made for it",
            &links,
            &echoes,
            ECHO,
        );
        Ok(())
    }

    /// From a start of the program to the answer to an earlier command.
    async fn measure_cold_starts(&mut self, alice: &Person) -> Result<()> {
        let (mut bot, mut bare) = (Samples::new(), Samples::new());
        let rounds = FEW_WARM_UP + FEW_ROUNDS;
        for round in 0..rounds {
            self.bot.kill_9();
            self.bare.kill();
            let asked = alice.send_text(self.bot.admin_room(), "!rc help").await?;
            let said = self.send_message(alice).await?;
            wait_until_quiet(alice).await;
            let begun = Instant::now();
            self.bot.run();
            wait_for_reply(alice, &self.bot, &asked).await?;
            add(&mut bot, (FEW_WARM_UP, round), begun.elapsed());
            wait_until_quiet(alice).await;
            let begun = Instant::now();
            self.bare.run()?;
            self.wait_for_echo(alice, &said).await?;
            add(&mut bare, (FEW_WARM_UP, round), begun.elapsed());
        }
        compare(
            "program started -> answer to an earlier command decrypted",
            &bot,
            &bare,
            "the same for the echo",
        );
        Ok(())
    }

    /// Memory and CPU time of bot and bare client while nothing happens.
    async fn measure_idle(&self) -> Result<()> {
        eprintln!("nothing happens for {} s", (SETTLE + IDLE).as_secs());
        let processes = self.processes()?;
        sleep(SETTLE).await;
        let before = processes.each_ref().map(cpu_time);
        sleep(IDLE).await;
        let mut shown = Vec::new();
        for (process, before) in processes.iter().zip(before) {
            let busy =
                cpu_time(process)?.saturating_sub(before?).as_secs_f64() / IDLE.as_secs_f64();
            shown.push(format!(
                "{}, {:.2} % of a core",
                memory(process)?,
                busy * 100.0
            ));
        }
        println!(
            "| idle, one session running | {} | {}: bare client in /sync |",
            shown[0], shown[1]
        );
        Ok(())
    }

    /// Whether memory grows with the number of syncs.
    async fn measure_syncs(&self, alice: &Person) -> Result<()> {
        let Some(proxies) = &self.proxies else {
            return Ok(());
        };
        let rooms = [self.bot.admin_room(), &*self.room];
        let processes = self.processes()?;
        sleep(SETTLE).await;
        let before = [memory(&processes[0])?, memory(&processes[1])?];
        for (proxy, room) in proxies.iter().zip(rooms) {
            for _ in 0..EMPTY_SYNCS {
                proxy.inject(json!({ "rooms": { "join": { room: {} } } }));
            }
        }
        eventually_all_injected(proxies).await;
        for round in 0..FILLED_SYNCS {
            let text = RoomMessageEventContent::notice_plain(format!("nothing of note {round}"));
            for room in rooms {
                alice.send(room, text.clone()).await?;
            }
        }
        sleep(SETTLE).await;
        let after = [memory(&processes[0])?, memory(&processes[1])?];
        println!(
            "| the same before and after {EMPTY_SYNCS} empty syncs and {FILLED_SYNCS} with a message | {} -> {} | {} -> {} |",
            before[0], after[0], before[1], after[1]
        );
        Ok(())
    }

    /// The cost of a session that prints as fast as it can.
    async fn measure_flood(&self, alice: &Person) -> Result<()> {
        let [process, _] = self.processes()?;
        let before = memory(&process)?;
        self.bot.start_session(alice, "loud").await;
        // Resets the peak (proc(5)).
        fs::write(format!("/proc/{}/clear_refs", process.pid), "5")?;
        let (begun, mut answers) = (Instant::now(), Samples::new());
        while begun.elapsed() < FLOOD {
            answers.add(self.time_answer(alice, "status").await?);
        }
        let most = process.status()?.vmhwm.context("no VmHWM")?;
        #[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
        let most = most as f64 / 1024.0;
        println!(
            "| flood of output for {} s: most memory, and `!rc status` answered | {most:.1} MiB, {} | before it: {before} |",
            FLOOD.as_secs(),
            Times(&answers)
        );
        Ok(())
    }

    fn processes(&self) -> Result<[Process; 2]> {
        Ok([process_of(&self.bot)?, Process::new(self.bare.pid())?])
    }

    /// Starts a new session every [`LINKS`] rounds.
    async fn renew_session(&self, alice: &Person, round: usize) {
        if round > 0 && round.is_multiple_of(LINKS) {
            self.bot.request(alice, "stop website").await;
            self.bot.start_session(alice, "website").await;
        }
    }

    async fn time_link(&self, asks: &Person, listens: &Person) -> Result<Duration> {
        time_link(&self.bot, asks, listens).await
    }

    async fn time_answer(&self, alice: &Person, command: &str) -> Result<Duration> {
        wait_until_quiet(alice).await;
        let begun = Instant::now();
        let text = format!("!rc {command}");
        let asked = alice.send_text(self.bot.admin_room(), &text).await?;
        wait_for_reply(alice, &self.bot, &asked).await?;
        Ok(begun.elapsed())
    }

    /// From the line with the link in the session's output to the decrypted link.
    async fn time_new_session(&self, alice: &Person) -> Result<Duration> {
        let asked = self.bot.send(alice, "start new").await;
        self.bot.wait_for_state("new", "starting").await;
        let stdout = self.bot.data_dir().join("sessions/new/stdout.log");
        let connects = async || {
            let output = fs::read_to_string(&stdout).ok()?;
            output.contains("Connecting").then_some(())
        };
        eventually("the program connects", connects).await;
        wait_until_quiet(alice).await;
        let known = links_of(&self.bot, &alice.events());
        let begun = Instant::now();
        let secret = [random_text(), random_text()].concat();
        let link = format!("https://claude.ai/code?environment=env_01Link{secret}");
        // In the program's own line, which counts at once.
        print(
            &stdout,
            &format!("Continue coding in the Claude mobile app or {link}"),
        );
        wait_for_link(&self.bot, alice, known).await?;
        let time = begun.elapsed();
        wait_for_reply(alice, &self.bot, &asked).await?;
        wait_until_quiet(alice).await;
        self.bot.request(alice, "stop new").await;
        Ok(time)
    }

    async fn time_echo(&mut self, alice: &Person) -> Result<Duration> {
        wait_until_quiet(alice).await;
        let begun = Instant::now();
        let said = self.send_message(alice).await?;
        self.wait_for_echo(alice, &said).await?;
        Ok(begun.elapsed())
    }

    async fn send_message(&mut self, alice: &Person) -> Result<String> {
        self.echoes += 1;
        let text = format!("echo {}", self.echoes);
        alice.send_text(&self.room, &text).await?;
        Ok(text)
    }

    async fn wait_for_echo(&self, alice: &Person, text: &str) -> Result<()> {
        let is_echo =
            |event: &Event| event.sender == self.bare.user_id() && event.body() == Some(text);
        alice.wait_for("the echo", is_echo).await?;
        Ok(())
    }
}

/// From `!rc start` to the decrypted link. `listens`: somebody in the admin room.
async fn time_link(bot: &Bot, asks: &Person, listens: &Person) -> Result<Duration> {
    wait_until_quiet(listens).await;
    let known = links_of(bot, &asks.events());
    let begun = Instant::now();
    let asked = asks
        .send_text(bot.admin_room(), "!rc start website")
        .await?;
    wait_for_link(bot, asks, known).await?;
    let time = begun.elapsed();
    wait_for_reply(listens, bot, &asked).await?;
    wait_until_quiet(asks).await;
    Ok(time)
}

async fn wait_for_link(bot: &Bot, person: &Person, known: usize) -> Result<()> {
    let mut events = person.watch_events();
    events
        .wait_for(|events| links_of(bot, events) > known)
        .await?;
    Ok(())
}

fn links_of(bot: &Bot, events: &[Event]) -> usize {
    let is_link = |event: &&Event| {
        event.sender == bot.user_id()
            && event.encryption.is_some()
            && event
                .body()
                .is_some_and(|body| body.contains("https://claude.ai/code?environment=env_"))
    };
    events.iter().filter(is_link).count()
}

async fn wait_for_reply(alice: &Person, bot: &Bot, asked: &OwnedEventId) -> Result<()> {
    let answers =
        |event: &Event| event.sender == bot.user_id() && event.replies_to() == Some(asked.as_str());
    alice.wait_for("the bot's answer", answers).await?;
    Ok(())
}

fn add(samples: &mut Samples, (warm_up, round): (usize, usize), time: Duration) {
    if round >= warm_up {
        samples.add(time);
    }
}

/// Waits until this person has received nothing for a while.
async fn wait_until_quiet(person: &Person) {
    let mut events = person.watch_events();
    loop {
        events.mark_unchanged();
        if timeout(QUIET, events.changed()).await.is_err() {
            return;
        }
    }
}

async fn eventually_all_injected(proxies: &[Proxy; 2]) {
    while !proxies.iter().all(Proxy::has_injected_all) {
        sleep(QUIET).await;
    }
}

/// Appends to the file, as the session's process does.
fn print(stdout: &std::path::Path, line: &str) {
    use std::io::Write as _;

    let mut file = fs::File::options().append(true).open(stdout).unwrap();
    writeln!(file, "{line}").unwrap();
}

/// A row of docs/development.md.
fn compare(what: &str, samples: &Samples, floor: &Samples, whose: &str) {
    let ratio = samples.median().as_secs_f64() / floor.median().as_secs_f64();
    println!(
        "| {what} | {} | {}: {whose}. {ratio:.2} times that |",
        Times(samples),
        Times(floor)
    );
}

/// Median and 99th percentile.
struct Times<'a>(&'a Samples);

impl fmt::Display for Times<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        write!(
            formatter,
            "{:.0} / {:.0} ms",
            milliseconds(self.0.median()),
            milliseconds(self.0.percentile(99))
        )
    }
}

/// The bot's process: our child with its config.yaml in the arguments.
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

/// RSS and PSS.
struct Memory {
    resident: f64,
    proportional: f64,
}

impl fmt::Display for Memory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            resident,
            proportional,
        } = self;
        write!(formatter, "{resident:.1} MiB RSS, {proportional:.1} PSS")
    }
}

fn memory(process: &Process) -> Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid))?;
    let field = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes: f64 = line
            .and_then(|rest| rest.split_whitespace().next())
            .with_context(|| format!("no {name}"))?
            .parse()?;
        Ok(kibibytes / 1024.0)
    };
    Ok(Memory {
        resident: field("Rss:")?,
        proportional: field("Pss:")?,
    })
}
