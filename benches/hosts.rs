//! Hosts that share an admin room, on their own Synapse: `cargo bench --bench hosts`, or `cargo bench --bench hosts -- 2 10`.
//!
//! Bots with a project each and no session are started until there are 2, 10 and 50, all on this machine. A person asks for the
//! status of all, and sends messages to a bare matrix-sdk client, which echoes them. Then the bot that answers by default is
//! killed, and they are asked again. In the end they idle, and the homeserver's log shows their requests.
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
#[expect(dead_code, reason = "another benchmark needs its process")]
mod bare_client;

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

use anyhow::{Result, ensure};
use matrix_sdk::ruma::{OwnedEventId, OwnedRoomId};
use serde_json::json;
use tokio::time::sleep;

use bare_client::BareClient;
use support::{
    bot::Bot,
    bot_builder::BotBuilder,
    event::Event,
    homeserver,
    person::{Person, random_text},
};
use table::{Samples, Table};

/// The numbers of hosts to measure, in order.
const COUNTS: [usize; 3] = [2, 10, 50];

/// How many start at a time. If several join at once, the person's client sometimes does not see one of them.
const AT_ONCE: usize = 1;

/// Rounds that are counted. The first one makes keys, and is reported separately.
const ROUNDS: usize = 20;

/// How long answers can be corrected, and some more.
const CORRECTED: Duration = Duration::from_secs(15);

/// How long they idle before they are measured, and how long they are measured: two syncs that wait until their timeout.
const SETTLE: Duration = Duration::from_secs(35);
const IDLE: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let counts: Vec<_> = arguments.iter().filter_map(|it| it.parse().ok()).collect();
    let outcome = match bare_client::order(&arguments) {
        Some(order) => runtime.block_on(bare_client::run(order)),
        None if counts.is_empty() => runtime.block_on(measure(&COUNTS)),
        None => runtime.block_on(measure(&counts)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(counts: &[usize]) -> Result<()> {
    let alice = Person::register(homeserver(), "alice").await?;
    let bare = BareClient::start(homeserver(), &homeserver().url()).await?;
    let room = bare.meet(&alice).await?;
    let mut bots = Vec::new();
    for count in counts {
        eprintln!("starting bots until there are {count}");
        while bots.len() < *count {
            let more = (*count - bots.len()).min(AT_ONCE);
            start(&mut bots, more, &alice).await?;
        }
        bots.sort_by(|a: &Bot, b: &Bot| a.user_id().cmp(b.user_id()));
        measure_these(&mut bots, &alice, &bare, &room).await?;
    }
    Ok(())
}

/// Starts this many more, in the room of the first.
async fn start(bots: &mut Vec<Bot>, more: usize, alice: &Person) -> Result<()> {
    let mut starting = Vec::new();
    for number in bots.len()..bots.len() + more {
        let builder = BotBuilder::new(homeserver())
            .log_filter("warn,matrix_sdk=error,audit=info")
            .configure(|config| config["host"] = json!(format!("host{number:02}")));
        let builder: BotBuilder = match bots.first().or(starting.first()) {
            Some(first) => builder.beside(first),
            None => builder.power_levels(json!({ "events": { "rcbot.host": 0 } })),
        };
        let mut bot = builder.prepare(alice).await;
        bot.run();
        starting.push(bot);
    }
    for bot in &mut starting {
        bot.wait_until_ready(alice).await;
        let user = bot.user_id().as_str();
        let announced = |event: &Event| event.kind == "rcbot.host" && event.sender == user;
        alice.wait_for("the announcement", announced).await?;
    }
    bots.append(&mut starting);
    Ok(())
}

async fn measure_these(
    bots: &mut [Bot],
    alice: &Person,
    bare: &BareClient,
    room: &OwnedRoomId,
) -> Result<()> {
    let count = bots.len();
    let mut times = [const { Samples::new() }; 4];
    let first = time_status(bots, alice, false).await?;
    let mut overviews = Vec::new();
    for round in 0..ROUNDS {
        overviews.push(time_status(bots, alice, false).await?);
        times[2].add(time_one(bots, alice, round).await?);
        times[3].add(time_echo(alice, bare, room).await?);
    }
    bots[0].kill_9();
    for _ in 0..ROUNDS / 4 {
        overviews.push(time_status(&bots[1..], alice, true).await?);
    }
    for overview in &overviews {
        times[usize::from(overview.one_is_killed)].add(overview.time);
    }
    let [status, one_killed, one, echo] = times;
    let mut table = Table::new("command sent -> answer decrypted");
    table.add("`!rc status`: of all hosts", status);
    table.add(
        "the same, the bot that answers by default killed",
        one_killed,
    );
    table.add("`!rc status @HOST`: of one of them", one);
    table.add("floor: encrypted echo of a bare matrix-sdk client", echo);
    println!("{count} hosts\n{table}");
    // On a machine without a processor to spare, bots that run may answer too late.
    sleep(CORRECTED).await;
    alice.catch_up().await;
    let wrong = |text: fn(&Overview, &Person) -> String| {
        let wrong = overviews.iter().filter(|it| !it.is_right(&text(it, alice)));
        wrong.count()
    };
    println!(
        "answers that call a running bot silent: {} of {}, and {} once they are corrected",
        wrong(|overview, _| overview.text().to_owned()),
        overviews.len(),
        wrong(Overview::corrected),
    );
    bots[0].restart(alice).await;
    println!(
        "`!rc status` for the first time: {:.3} s",
        first.time.as_secs_f64()
    );
    println!(
        "the answer: {} lines, {} bytes",
        first.text().lines().count(),
        first.text().len()
    );
    let announced = alice
        .events()
        .into_iter()
        .filter(|event| event.kind == "rcbot.host");
    let largest = announced
        .map(|event| event.json["content"].to_string().len())
        .max();
    println!(
        "the largest announcement: {} bytes",
        largest.unwrap_or_default()
    );
    idle(bots).await
}

/// An answer to `!rc status`.
struct Overview {
    time: Duration,
    answer: Event,
    one_is_killed: bool,
}

impl Overview {
    fn text(&self) -> &str {
        self.answer.body().unwrap_or_default()
    }

    /// The text of its last edit, if there is one.
    fn corrected(&self, alice: &Person) -> String {
        let edits = alice.edits_of(&self.answer);
        let last = edits.last().map_or_else(|| self.text(), Event::new_text);
        last.to_owned()
    }

    fn is_right(&self, text: &str) -> bool {
        if self.one_is_killed {
            text.contains("1 host does not answer")
        } else {
            !text.contains("not answer")
        }
    }
}

/// Asks for the status of all. One of them answers, once.
async fn time_status(bots: &[Bot], alice: &Person, one_is_killed: bool) -> Result<Overview> {
    let (time, asked, answer) = time_answer(&bots[0], alice, "status").await?;
    for bot in bots {
        bot.decision(&asked).await;
    }
    alice.catch_up().await;
    let answers = alice.answers_to(&asked).len();
    ensure!(answers == 1, "{answers} answers");
    Ok(Overview {
        time,
        answer,
        one_is_killed,
    })
}

async fn time_one(bots: &[Bot], alice: &Person, round: usize) -> Result<Duration> {
    let host = format!("status @host{:02}", round % bots.len());
    Ok(time_answer(&bots[0], alice, &host).await?.0)
}

async fn time_answer(
    bot: &Bot,
    alice: &Person,
    command: &str,
) -> Result<(Duration, OwnedEventId, Event)> {
    let begun = Instant::now();
    let asked = alice
        .send_text(bot.admin_room(), &format!("!rc {command}"))
        .await?;
    let is_answer = |event: &Event| event.replies_to() == Some(asked.as_str());
    let answer = alice.wait_for(command, is_answer).await?;
    Ok((begun.elapsed(), asked, answer))
}

async fn time_echo(alice: &Person, bare: &BareClient, room: &OwnedRoomId) -> Result<Duration> {
    let text = format!("echo {}", random_text());
    let begun = Instant::now();
    alice.send_text(room, &text).await?;
    let is_echo =
        |event: &Event| event.sender == bare.user_id() && event.body() == Some(text.as_str());
    alice.wait_for("the echo", is_echo).await?;
    Ok(begun.elapsed())
}

/// The requests while nothing happens, by the homeserver's log.
async fn idle(bots: &[Bot]) -> Result<()> {
    eprintln!("nothing happens for {} s", (SETTLE + IDLE).as_secs());
    sleep(SETTLE).await;
    let before = fs::metadata(homeserver().log_path())?.len();
    sleep(IDLE).await;
    let log = fs::read(homeserver().log_path())?;
    let log = String::from_utf8_lossy(log.get(usize::try_from(before)?..).unwrap_or_default());
    let requests = log
        .lines()
        .filter(|line| line.contains("Processed request"));
    let of_bots =
        requests.filter(|line| bots.iter().any(|bot| line.contains(bot.user_id().as_str())));
    let (syncs, others): (Vec<_>, Vec<_>) = of_bots.partition(|line| line.contains("/sync?"));
    println!(
        "idle for {} s: {:.1} requests a host and minute to /sync, and {} others in all\n",
        IDLE.as_secs(),
        f64::from(u32::try_from(syncs.len())?) / f64::from(u32::try_from(bots.len())?),
        others.len()
    );
    Ok(())
}
