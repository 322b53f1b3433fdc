//! The order of commands, their rate limit, and the limit of sessions.

use crate::support::prelude::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_exceeds_the_rate_limit_is_informed_once_and_nobody_else_has_to_wait() {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let bot = bot()
        .configure(|config| config["rate"]["commands_per_minute"] = json!(2))
        .member(&bob, 100)
        .start(&alice)
        .await;
    // No waiting in between: all within one minute.
    let mut executed = Vec::new();
    for _ in 0..2 {
        executed.push(bot.send(&alice, "help").await);
    }
    let refused = bot.send(&alice, "start").await;
    let mut unanswered = Vec::new();
    for _ in 0..9 {
        unanswered.push(bot.send(&alice, "start").await);
    }
    for asked in &executed {
        let help = bot.answer(&alice, asked).await;
        help.says("!rc start");
    }
    let answer = bot.answer(&alice, &refused).await;
    answer.is(
        "Not done: I take 2 commands a minute from each user. Wait a moment, and send it again.",
    );
    bot.assert_no_session(&bob).await;
    for event in &unanswered {
        assert!(bob.answers_to(event).is_empty());
    }
    assert_eq!(bot.standin_starts(), 0);
    let log = bot.log();
    assert_eq!(log.matches("judging a command").count(), 3);
    let mut turned_away: Vec<_> = log.lines().collect();
    turned_away.retain(|line| line.contains("INFO audit: ") && line.contains("\"too many\""));
    assert_eq!(turned_away.len(), 1, "{turned_away:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_one_person_are_executed_in_order_and_a_session_too_many_is_refused() {
    let alice = person("alice").await;
    let bot = bot()
        .project("api", |project| project)
        .project("website", |project| project.standin("slow=30"))
        .configure(|config| config["max_sessions"] = json!(1))
        .start(&alice)
        .await;
    let start = bot.send(&alice, "start website").await;
    // Without a name it is for the session of the start before it, once that was executed.
    let stop = bot.send(&alice, "stop").await;
    let stopped = bot.answer(&alice, &stop).await;
    stopped.begins("website stopped");
    let started = bot.answer(&alice, &start).await;
    started.is("website did not start: it was stopped before it showed a link.");
    assert!(bot.session_processes().is_empty());
    assert!(bot.links_of(&alice).is_empty());

    bot.start_session(&alice, "api").await;
    let refused = bot.request(&alice, "start website").await;
    refused.is(
        "I did not start website: there may be no more than 1 session at once (`max_sessions`). Sessions now: `api`.\n\
         `!rc stop PROJECT` ends one.",
    );
    // Asking for the link of the running session starts no further one.
    let starts = bot.standin_starts();
    bot.start_session(&alice, "api").await;
    assert_eq!(bot.standin_starts(), starts);
    bot.request(&alice, "stop api").await;
    bot.send(&alice, "start website").await;
    until("its place is free", || bot.standin_starts() > starts).await;
}
