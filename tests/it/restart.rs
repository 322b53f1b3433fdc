//! The bot can go at any moment: sessions stay, and the next bot knows them.

use crate::support::prelude::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_a_bot_that_is_killed_or_terminated_and_is_known_to_the_next_one() {
    let alice = person("alice").await;
    let mut bot = bot()
        .project("website", |project| project.standin("fork=2"))
        .start(&alice)
        .await;
    let device = bot.devices(&alice).await;
    let first = bot.start_session(&alice, "website").await;
    let processes = bot.session_processes();

    bot.kill_9();
    assert_eq!(bot.session_processes(), processes);
    bot.restart(&alice).await;

    assert_eq!(bot.devices(&alice).await, device, "it is the same device");
    let status = bot.request(&alice, "status").await;
    status.begins("website: running since ");
    let second = bot.start_session(&alice, "website").await;
    assert_eq!(second.link, first.link);
    assert_eq!(second.room(), first.room());
    assert_eq!(bot.standin_starts(), 1);
    assert_eq!(bot.session_processes(), processes);

    // One that is asked to end ends in order, and leaves as much.
    assert!(bot.terminate().await.success());
    assert_eq!(bot.session_processes(), processes);
    let stored = alice.event_from_server(second.room(), &second.event.id);
    let stored = stored.await.unwrap();
    assert_ne!(stored["content"], serde_json::json!({}), "the link works");
    bot.restart(&alice).await;

    let answer = bot.request(&alice, "stop").await;
    answer.begins("website stopped");
    assert!(bot.session_processes().is_empty());
    bot.wait_for_redaction(&alice, &first).await;
    bot.wait_for_redaction(&alice, &second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_a_bot_that_waits_for_its_homeserver() {
    let alice = person("alice").await;
    let nobody = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
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
async fn a_session_that_ended_while_the_bot_was_away_is_announced_and_its_link_taken_back() {
    let alice = person("alice").await;
    let mut bot = bot()
        .project("website", |project| project.standin("fork=1"))
        .start(&alice)
        .await;
    let sent = bot.start_session(&alice, "website").await;
    bot.kill_9();
    // The process ends, and one of its children stays behind.
    let [process] = &bot.standin_records()[..] else {
        panic!("one stand-in was started");
    };
    bot.end_process(process.pid).await;
    assert_eq!(bot.session_processes().len(), 1);

    bot.run();
    let announced = bot
        .announcement(&alice, "website has ended: its process ")
        .await;
    // How it ended is known as long as its zombie is there, and how soon
    // that is reaped is up to the machine's init.
    let body = announced.body().unwrap();
    let (how, next) = body.split_once('\n').unwrap();
    assert_eq!(next, "`!rc start website` starts it again.");
    let how = how.strip_prefix("website has ended: its process ");
    assert!(
        [
            "exited by itself (exit code unknown).",
            "was ended by signal 9 (SIGKILL).",
        ]
        .map(Some)
        .contains(&how),
        "{body}"
    );
    bot.wait_for_redaction(&alice, &sent).await;
    bot.private_message(&alice, "has ended, and I deleted")
        .await;
    bot.wait_until_no_process_is_left().await;
    assert_eq!(
        bot.request(&alice, "status").await.body(),
        Some("website: no session")
    );
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
    // Whatever else was under way is there by the time that later commands are answered.
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &sent).await;
    bot.request(&alice, "status").await;
    assert_eq!(bot.links_of(&alice).len(), 1);
    assert_eq!(bot.standin_starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_a_killed_bot_was_at_is_finished_by_the_next_one() {
    let alice = person("alice").await;
    let mut bot = bot()
        .project("website", |project| {
            project.standin("ignore-sigterm").set("stop_grace", "1h")
        })
        .start(&alice)
        .await;
    let sent = bot.start_session(&alice, "website").await;
    let asked = bot.send(&alice, "stop").await;
    // What stands in a log is not yet on disk.
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
