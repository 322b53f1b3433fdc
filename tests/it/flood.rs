//! Thousands of messages: they cost the bot no memory, and nobody else their commands.

use std::time::Instant;

use futures_util::future::join_all;
use matrix_sdk::ruma::{OwnedEventId, UserId};

use crate::support::{
    prelude::*,
    proxy::forgery::{forged_message, in_timeline},
};

/// More than a sync brings of a room.
const MORE_THAN_A_SYNC_BRINGS: usize = 150;

/// How many messages the flood has, in how many pieces.
const FLOOD: usize = 10_000;
const PIECES: usize = 10;

/// What a flood may cost. A sync with a piece of it, which is ten times what a homeserver brings, takes its room for a moment.
const MEMORY: u64 = 64 << 20;

/// Says so much that a sync cannot hold it.
async fn flood(person: &Person, bot: &Bot) {
    let said =
        (0..MORE_THAN_A_SYNC_BRINGS).map(|_| person.send_plain_text(bot.admin_room(), "Hello."));
    for said in join_all(said).await {
        said.unwrap();
    }
}

/// An administrator who begins something, much that others say, and the administrator again: and the bot hears none of it yet.
/// Gives back the two commands.
async fn talk_to_a_deaf_bot(
    alice: &Person,
    others: &Person,
    bot: &Bot,
) -> (OwnedEventId, OwnedEventId) {
    let started = bot.send(alice, "start").await;
    flood(others, bot).await;
    (started, bot.send(alice, "status").await)
}

async fn assert_executed_in_order(
    alice: &Person,
    bot: &Bot,
    (started, asked): (OwnedEventId, OwnedEventId),
) {
    let answer = bot.answer(alice, &started).await;
    answer.begins("website is running");
    bot.link_after(alice, 0).await;
    let status = bot.answer(alice, &asked).await;
    status.begins("website: ");
    status.lacks("no session");
    assert_eq!(bot.standin_starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_flood_pushed_out_of_a_sync_is_executed() {
    let bob = person("bob").await;
    let (alice, proxy, bot) = behind_proxy(|bot| bot.invite(bob.user_id())).await;
    bot.request(&alice, "help").await;
    proxy.unplug();
    let said = talk_to_a_deaf_bot(&alice, &bob, &bot).await;
    proxy.plug_in();
    assert_executed_in_order(&alice, &bot, said).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_sent_while_the_bot_was_away_are_executed_however_many() {
    let (alice, mut bot) = alice_and_bot().await;
    bot.request(&alice, "help").await;
    bot.kill_9();
    // Whoever may command may also be the one who floods.
    let said = talk_to_a_deaf_bot(&alice, &alice, &bot).await;
    bot.run();
    assert_executed_in_order(&alice, &bot, said).await;
}

/// Messages that are none of the bot's business, commands, and messages whose key never comes.
fn piece_of_a_flood(sender: &UserId, bot: &Bot) -> Value {
    let events: Vec<_> = (0..FLOOD / PIECES)
        .map(|number| {
            let text = ["Hello.", "!rc status"][number % 2];
            let mut event = forged_message(sender, text);
            if number % 3 == 0 {
                event["type"] = json!("m.room.encrypted");
                event["content"] = json!({
                    "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "AwgA", "session_id": "none",
                });
            }
            event
        })
        .collect();
    in_timeline(bot.admin_room(), &events)
}

/// One who may not command floods the admin room, and one who may, with an administrator in the midst of it. Nothing is encrypted:
/// where commands have to be, the flood is refused for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_costs_no_memory_and_nobody_else_a_command() {
    let (stranger, admin) = (person("bob").await, person("carol").await);
    let begun = Instant::now();
    let (alice, proxy, bot) = behind_proxy(|bot| {
        bot.configure(|config| config["rate"]["commands_per_minute"] = json!(PIECES))
            .log_filter("info")
            .encrypted_admin_room(false)
            .invite(stranger.user_id())
            .member(&admin, 100)
    })
    .await;
    bot.assert_no_session(&alice).await;
    let before = bot.memory().now;
    let mut delays = Vec::new();
    for _ in 0..PIECES / 2 {
        proxy.inject(piece_of_a_flood(stranger.user_id(), &bot));
        let said = Instant::now();
        let asked = bot.send(&alice, "status").await;
        proxy.inject(piece_of_a_flood(admin.user_id(), &bot));
        let status = bot.answer(&alice, &asked).await;
        delays.push(said.elapsed());
        status.is("website: no session");
    }
    until("the bot has heard it all", || proxy.has_injected_all()).await;
    bot.start_session(&alice, "website").await;
    let (most, log) = (bot.memory().most, bot.log());
    eprintln!(
        "{FLOOD} messages cost {} KiB and {} lines of log, and delayed the answers to {delays:?}",
        most.saturating_sub(before) >> 10,
        log.lines().count()
    );
    assert!(
        most < before + MEMORY,
        "{before} bytes before, at most {most} after"
    );
    let judged = log.lines().filter(|line| line.contains("command judged"));
    let judged = judged.filter(|line| !line.contains("decision=\"too many\""));
    // Of each of the three in each minute, and a slow machine may take several.
    let minutes = begun.elapsed().as_secs() / 60 + 1;
    assert!(judged.count() <= 3 * PIECES * usize::try_from(minutes).unwrap());
    assert!(
        log.lines().count() < FLOOD / PIECES,
        "the log is flooded too"
    );
}
