//! Autostart, resumption, extension and end of sessions, what the operator on the host can do about them, and what a killed
//! bot leaves to the next run.

use std::time::Duration;

use crate::support::{prelude::*, program::Ended as _, run_to_end};

/// Runs a command of the binary, which has to succeed, and returns its output.
fn on_host(bot: &Bot, arguments: &[&str]) -> String {
    let output = run_to_end(bot.command(arguments[0]).args(&arguments[1..]));
    output.succeeded().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_session_runs_the_resume_command_until_its_end_which_an_extension_moves() {
    let alice = person("alice").await;
    let mut bot = bot()
        .project("brief", |project| {
            let command = json!([standin_program(), "remote-control", "--continue"]);
            project
                .standin("fork=1")
                .set("max_duration", "1h")
                .set("resume_command", command)
        })
        .project("endless", |project| project.set("max_duration", "none"))
        .start(&alice)
        .await;
    let answer = bot.request(&alice, "extend brief 2h").await;
    answer.begins("brief is not running.");
    let answer = bot.request(&alice, "resume brief").await;
    answer.says("brief is running. The link is in our direct message.");
    let sent = bot.link_after(&alice, 0).await;
    let [started] = &bot.standin_records()[..] else {
        panic!("one stand-in")
    };
    assert_eq!(started.argv[1..], ["remote-control", "--continue"]);
    // Without a name it is for the only session.
    let answer = bot.request(&alice, "extend 2h").await;
    let body = answer.body().unwrap();
    let left = body.strip_prefix("brief now ends in ").unwrap();
    assert!(left.starts_with("3h ("), "{body}");
    // The message with the link shows the earlier end, so the direct message gets the new one too.
    bot.private_message(&alice, body).await;
    let status = bot.request(&alice, "status").await;
    let (_, left) = status.body().unwrap().split_once("ends in ").unwrap();
    assert!(
        left.starts_with("2h 5") || left.starts_with("3h ("),
        "{status}"
    );

    bot.start_session(&alice, "endless").await;
    let answer = bot.request(&alice, "extend endless 2h").await;
    answer.is("endless has no time limit: it runs until it is stopped.");

    bot.kill_9();
    bot.set_time_left("brief", Duration::from_mins(10));
    bot.run();
    let soon = "brief ends in ";
    let word = bot.private_message(&alice, soon).await;
    assert_eq!(word.room, *sent.room());
    word.says("`!rc extend brief 2h`");
    let rings = Some("m.text");
    assert_eq!(word.message_type(), rings, "a notice rings no phone");

    bot.kill_9();
    bot.set_time_left("brief", Duration::from_secs(1));
    bot.run();
    let announced = bot.announcement(&alice, "time was up").await;
    announced.is("brief has ended: its time was up.");
    bot.wait_for_redaction(&alice, &sent).await;
    bot.private_message(&alice, "I deleted the message with its link")
        .await;
    assert_eq!(bot.session_processes().len(), 1, "only endless is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_with_autostart_sends_its_link_only_to_those_who_may_have_it() {
    let alice = person("alice").await;
    let bob = person("bob").await;
    let users = json!([bob.user_id(), alice.user_id()]);
    let mut bot = bot()
        .invite(bob.user_id())
        .project("website", |project| {
            project.set("autostart", true).set("deliver_to", users)
        })
        .start(&alice)
        .await;
    let sent = bot.link_after(&alice, 0).await;
    bot.wait_for_log("why=\"NoPower").await;
    assert!(bob.never_read(&sent.link));
    assert!(bot.links_of(&bob).is_empty());
    // She has not commanded anything, and her identity is pinned.
    let identity = on_host(&bot, &["trust", alice.user_id().as_str()]);
    identity.says("They are the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_and_stops_sessions_with_and_without_a_running_bot() {
    let alice = person("alice").await;
    let mut bot = bot()
        .project("api", |project| project)
        .project("website", |project| project.standin("fork=1"))
        .start(&alice)
        .await;
    for (runs, stopped) in [
        (true, "website stopped."),
        (
            false,
            " Its link is deleted, and those who wait for it get an answer, when the bot runs again.",
        ),
    ] {
        assert_eq!(on_host(&bot, &["stop"]), "No session is running.");
        let none = "api is not running.";
        assert_eq!(on_host(&bot, &["stop", "api"]), none);
        let sent = bot.start_session(&alice, "website").await;
        if !runs {
            bot.kill_9();
        }
        let status = on_host(&bot, &["status"]);
        let (api, website) = status.split_once('\n').unwrap();
        assert_eq!(api, "api: no session");
        website.begins("website: running since ");
        status.lacks("claude.ai");
        let report = on_host(&bot, &["status", "--json"]);
        report.lacks("claude.ai");
        let report: Value = serde_json::from_str(&report).unwrap();
        let [none, running] = &report["projects"].as_array().unwrap()[..] else {
            panic!("{report}")
        };
        assert_eq!(none["state"], "none");
        assert_eq!(running["state"], "running");
        assert_eq!(running["requester"], alice.user_id().as_str());
        assert_documented(&report);
        on_host(&bot, &["stop", "website"]).says(stopped);
        assert!(bot.session_processes().is_empty());
        if !runs {
            let left = "website: stopped; the bot deletes its link when it runs again";
            on_host(&bot, &["status"]).ends(left);
            assert_eq!(on_host(&bot, &["stop"]), "No session is running.");
            bot.restart(&alice).await;
        }
        bot.wait_for_redaction(&alice, &sent).await;
        let status = bot.request(&alice, "status").await;
        status.is("api: no session\nwebsite: no session");
    }
}

/// Asserts that docs/operations.md has every key of the report.
fn assert_documented(report: &Value) {
    let docs = include_str!("../../docs/operations.md");
    let docs = docs.split("`rcbot status --json`").nth(1).unwrap();
    let keys = report.as_object().unwrap().keys();
    let of_project = report["projects"][0].as_object().unwrap().keys();
    for key in keys.chain(of_project) {
        assert!(docs.contains(&format!("`{key}`")), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_and_a_stop_that_a_kill_interrupted_are_finished_by_the_next_run() {
    let alice = person("alice").await;
    let mut bot = bot()
        .project("website", |project| {
            project
                .standin("held,ignore-sigterm")
                .set("stop_grace", "1h")
        })
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
    // Anything else in transit has arrived once a later command is answered.
    bot.request(&alice, "status").await;
    assert_eq!(bot.links_of(&alice).len(), 1);
    assert_eq!(bot.standin_starts(), 1);
}
