//! Floods of messages: the bot's memory stays bounded, and other users' commands are executed.

use std::time::Instant;

use futures_util::future::join_all;
use matrix_sdk::ruma::UserId;

use crate::{
    support::{
        prelude::*,
        proxy::forgery::{forged_message, in_timeline},
    },
    unreadable_events::set_membership,
};

/// More messages than one sync returns of a room.
const MORE_THAN_A_SYNC_BRINGS: usize = 150;

/// The size of the flood, and in how many pieces it comes.
const FLOOD: usize = 10_000;
const PIECES: usize = 10;

/// By how much a flood may raise the bot's memory. One piece is ten times what a homeserver's sync returns.
const MEMORY: u64 = 64 << 20;

/// Sends more messages than a sync can hold.
async fn flood(person: &Person, bot: &Bot) {
    let said =
        (0..MORE_THAN_A_SYNC_BRINGS).map(|_| person.send_plain_text(bot.admin_room(), "Hello."));
    join_all(said).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_a_flood_pushed_out_of_a_sync_are_executed_in_order() {
    let bob = person("bob").await;
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot.invite(bob.user_id())).await;
    bot.request(&alice, "help").await;
    // The bot looks for those who may command among the members.
    set_membership(&bob, bot.admin_room(), bob.user_id().as_str(), "join").await;
    // With what the bot fetches comes something that the Matrix library cannot read.
    let mut unreadable = forged_message(bob.user_id(), "Hello.");
    unreadable["content"]["deep"] = (0..130).fold(json!([]), |deep, _| json!([deep]));
    proxy
        .on(|request| request.path.ends_with("/messages"))
        .rewrite(move |_, answer| {
            let fetched = answer["chunk"].as_array_mut().unwrap();
            fetched.push(unreadable.clone());
        });
    // The sender of the flood may also be one who may command.
    for (starts, by, is_killed) in [(1, &bob, false), (2, &alice, true)] {
        let known = bot.links_of(&alice).len();
        if is_killed {
            bot.kill_9();
        } else {
            proxy.unplug();
        }
        let started = bot.send(&alice, "start").await;
        flood(by, &bot).await;
        let asked = bot.send(&alice, "status").await;
        if is_killed {
            bot.run();
        } else {
            proxy.plug_in();
        }
        let answer = bot.answer(&alice, &started).await;
        answer.begins("website is running");
        bot.link_after(&alice, known).await;
        let status = bot.answer(&alice, &asked).await;
        status.begins("website: ");
        status.lacks("no session");
        assert_eq!(bot.standin_starts(), starts);
        bot.request(&alice, "stop").await;
    }
}

/// Messages that are not commands, commands, and messages whose key never comes.
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

/// Two users flood the admin room, one of whom may command, and an administrator's commands are in the middle. Nothing is
/// encrypted: where commands have to be, the flood would be refused for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_takes_no_memory_and_suppresses_no_command_of_others() {
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
    until("the bot has received them all", || proxy.has_injected_all()).await;
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
