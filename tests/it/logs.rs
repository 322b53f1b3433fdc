//! `!rc logs`: a session's last lines of output in the direct message; with `--follow`, in one message that is edited.

use crate::support::prelude::*;

const HEAD: &str = "website: the last lines that it printed";

/// The messages with logs, without edits.
fn messages(bot: &Bot, person: &Person) -> Vec<Event> {
    let mut events = person.events();
    events.retain(|event| {
        event.sender == bot.user_id() && event.body().is_some_and(|body| body.starts_with(HEAD))
    });
    events
}

/// Asks for a log and returns the message with it.
async fn shown(bot: &Bot, person: &Person, command: &str) -> Event {
    let known = messages(bot, person).len();
    bot.request(person, command).await;
    eventually("a message with a log", async || {
        messages(bot, person).get(known).cloned()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_is_one_silent_message_that_is_edited_every_five_seconds_at_most() {
    let alice = person("alice").await;
    let bot = bot()
        .project("website", |project| project.standin("reconnect=8"))
        .start(&alice)
        .await;
    let link = bot.start_session(&alice, "website").await;
    let answer = bot.request(&alice, "logs website --follow 5m").await;
    answer.is(
        "website: what it printed last is in our direct message. I keep that message up to date for 5m.",
    );
    let first = bot.private_message(&alice, HEAD).await;
    first.says(", kept up to date until ");
    assert_eq!(first.room, *link.room());
    alice.sees_edit(&first, "Reconnecting").await;
    until("another edit", || alice.edits_of(&first).len() > 1).await;
    bot.request(&alice, "stop").await;
    let last = alice
        .sees_edit(&first, "no longer kept up to date: the session is over")
        .await;
    last.new_text().says("Environment preserved");

    let edits = alice.edits_of(&first);
    for edit in &edits {
        assert_eq!(edit.sender, bot.user_id());
        assert_eq!(edit.shield(), "none");
        let content = &edit.json["content"];
        for content in [content, &content["m.new_content"]] {
            assert_eq!(content["msgtype"], "m.notice", "an edit rings nobody");
            assert_eq!(content["m.mentions"], json!({}));
        }
        assert!(!edit.json.to_string().contains(&link.link));
    }
    let times: Vec<_> = [&first]
        .into_iter()
        .chain(&edits)
        .map(|event| event.sent().unwrap())
        .collect();
    assert!(
        times.windows(2).all(|pair| pair[1] - pair[0] >= 5_000),
        "{times:?}"
    );
    assert_eq!(messages(&bot, &alice).len(), 1);
    bot.check_homeserver_never_read("Reconnecting");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_until_its_time_is_up_or_a_log_is_asked_for_again_or_the_bot_ends() {
    let alice = person("alice").await;
    let mut bot = bot().start(&alice).await;
    bot.request(&alice, "logs --follow").await;
    assert!(messages(&bot, &alice).is_empty(), "there is no output yet");
    bot.start_session(&alice, "website").await;

    let first = shown(&bot, &alice, "logs 2 --follow 5m").await;
    let lines = first.body().unwrap().split_once("\n\n").unwrap().1;
    assert_eq!(lines.lines().count(), 2, "{lines}");
    shown(&bot, &alice, "logs website 1").await;
    alice
        .sees_edit(
            &first,
            "no longer kept up to date: you asked for a log again",
        )
        .await;

    let brief = shown(&bot, &alice, "logs --follow 10s").await;
    alice
        .sees_edit(&brief, "no longer kept up to date: the time is up")
        .await;

    let cut_short = shown(&bot, &alice, "logs --follow 1h").await;
    bot.terminate().await;
    bot.run();
    bot.request(&alice, "stop").await;
    let edits = || [&first, &brief, &cut_short].map(|message| alice.edits_of(message).len());
    let over = edits();
    // The session is over: its output can be read, and not followed.
    let last = shown(&bot, &alice, "logs --follow 5m").await;
    last.says("no longer kept up to date: the session is over");
    assert_eq!(edits(), over);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_no_longer_command_gets_no_further_edit() {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let mut bot = bot()
        .member(&bob, 100)
        .project("website", |project| project.standin("reconnect=1"))
        .start(&alice)
        .await;
    bot.start_session(&bob, "website").await;
    let first = shown(&bot, &bob, "logs --follow 5m").await;
    bob.sees_edit(&first, "Reconnecting").await;
    alice
        .set_power_level(bot.admin_room(), bob.user_id(), 0)
        .await;
    bot.wait_for_log("the log is no longer followed").await;
    bot.log().says("PowerLevel { has: 0, needs: 100 }");
    bob.catch_up().await;
    let before = bob.edits_of(&first).len();
    bot.request(&alice, "stop").await;
    bob.catch_up().await;
    assert_eq!(bob.edits_of(&first).len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_lines_than_fit_into_a_message_are_the_last_ones() {
    let alice = person("alice").await;
    let script = "for i in $(seq 400); do echo \"line $i <b>&amp; $(printf 'x%.0s' $(seq 60))\"; done; \
                  echo 'Continue coding in the Claude app or https://claude.ai/code?environment=env_01Link1'; sleep 600";
    let bot = bot()
        .project("website", |project| {
            project.set("command", json!(["sh", "-c", script]))
        })
        .start(&alice)
        .await;
    bot.request(&alice, "start").await;
    for (command, lines) in [("logs website 3", 3), ("logs website", 40)] {
        let shown = shown(&bot, &alice, command).await;
        let (_, text) = shown.body().unwrap().split_once("\n\n").unwrap();
        assert_eq!(text.lines().count(), lines, "{text}");
    }
    let shown = shown(&bot, &alice, "logs website 500").await;
    shown.says("printed and that fit into a message, as of ");
    let body = shown.body().unwrap();
    let (_, text) = body.split_once("\n\n").unwrap();
    assert!(text.starts_with("line "), "whole lines: {text}");
    assert!(
        text.lines().count() > 90 && text.ends_with("[link]"),
        "{text}"
    );
    for wrong in ["logs website 501", "logs website all"] {
        bot.says(&alice, wrong, "How many lines?").await;
    }
    let answer = bot.request(&alice, "logs website --follow 3h").await;
    answer.says("How long should I follow the log?");
}
