//! The bot can end at any moment: sessions keep running, and its next run restores them.

use crate::support::prelude::*;

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_a_bot_that_waits_for_its_homeserver() {
    let alice = person("alice").await;
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut bot = bot()
        .configure(|config| config["homeserver"]["url"] = url.into())
        .prepare(&alice)
        .await;
    bot.run();
    bot.wait_for_log("waiting for the homeserver").await;
    let status = bot.terminate().await;
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_a_killed_bot_waited_for_is_delivered_once() {
    let alice = person("alice").await;
    let mut bot = bot()
        .project("website", |project| project.standin("held"))
        .start(&alice)
        .await;
    let asked = bot.send(&alice, "start").await;
    until("the stand-in starts", || bot.standin_starts() == 1).await;
    bot.kill_9();
    assert!(bot.links_of(&alice).is_empty());
    bot.run();
    bot.release_links();

    let answer = bot.answer(&alice, &asked).await;
    answer.says("website is running. The link is in our direct message.");
    let sent = bot.link_after(&alice, 0).await;
    // Anything else in transit has arrived once later commands are answered.
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &sent).await;
    bot.request(&alice, "status").await;
    assert_eq!(bot.links_of(&alice).len(), 1);
    assert_eq!(bot.standin_starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_a_kill_interrupted_is_finished_by_the_next_run() {
    let alice = person("alice").await;
    let mut bot = bot()
        .project("website", |project| {
            project.standin("ignore-sigterm").set("stop_grace", "1h")
        })
        .start(&alice)
        .await;
    let sent = bot.start_session(&alice, "website").await;
    let asked = bot.send(&alice, "stop").await;
    // Not the log: its line may come before the record is on disk.
    bot.wait_for_state("website", "stopping").await;
    bot.kill_9();
    assert_eq!(bot.session_processes().len(), 1);

    bot.reconfigure(|config| config["projects"]["website"]["stop_grace"] = "100ms".into());
    bot.run();
    let answer = bot.answer(&alice, &asked).await;
    answer.is("website stopped (1 process had to be killed).");
    assert!(bot.session_processes().is_empty());
    bot.wait_for_redaction(&alice, &sent).await;
}
