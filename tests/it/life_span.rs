//! Autostart, extension, restart and end of sessions, and what the operator on the host can do about them.

use std::time::Duration;

use crate::support::{prelude::*, program::Ended as _, run_to_end};

/// Runs a command of the binary, which has to succeed, and returns its output.
fn on_host(bot: &Bot, arguments: &[&str]) -> String {
    let output = run_to_end(bot.command(arguments[0]).args(&arguments[1..]));
    output.succeeded().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_moves_the_end_of_a_session_and_is_answered_with_the_time_left() {
    let alice = person("alice").await;
    let bot = bot()
        .project("brief", |project| project.set("max_duration", "1h"))
        .project("endless", |project| project.set("max_duration", "none"))
        .start(&alice)
        .await;
    let answer = bot.request(&alice, "extend brief 2h").await;
    answer.begins("brief is not running.");
    bot.start_session(&alice, "brief").await;
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
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_lines_of_output_go_only_to_the_direct_message_and_without_the_link() {
    let alice = person("alice").await;
    let onlooker = person("bob").await;
    let bot = bot().invite(onlooker.user_id()).start(&alice).await;
    let answer = bot.request(&alice, "logs").await;
    answer.is("website has printed nothing yet: it has had no session.");
    let sent = bot.start_session(&alice, "website").await;

    let answer = bot.request(&alice, "logs").await;
    answer.is("website: what it printed last is in our direct message.");
    let said = "website: the last lines that it printed, as of ";
    let word = bot.private_message(&alice, said).await;
    assert_eq!(word.room, *sent.room());
    for part in ["Connected", "Capacity: 1/32", "[link]"] {
        word.says(part);
    }
    assert!(!word.json.to_string().contains(&sent.link));
    assert_eq!(bot.links_of(&alice).len(), 1);

    let stored = alice.stored(&word).await;
    assert_eq!(stored["type"], "m.room.encrypted");
    bot.check_homeserver_never_read("Capacity: 1/32");
    onlooker.hears(answer.body().unwrap()).await;
    assert!(onlooker.never_read("Capacity"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_session_runs_the_resume_command() {
    let alice = person("alice").await;
    let command = json!([standin_program(), "remote-control", "--continue"]);
    let bot = bot()
        .project("website", |project| project.set("resume_command", command))
        .start(&alice)
        .await;
    let answer = bot.request(&alice, "resume").await;
    answer.says("website is running. The link is in our direct message.");
    bot.link_after(&alice, 0).await;
    let [started] = &bot.standin_records()[..] else {
        panic!("one stand-in")
    };
    assert_eq!(started.argv[1..], ["remote-control", "--continue"]);
    // A running session is not started again.
    bot.request(&alice, "resume").await;
    bot.link_after(&alice, 1).await;
    assert_eq!(bot.standin_starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_session_is_announced_before_and_when_it_comes() {
    let alice = person("alice").await;
    let mut bot = bot()
        .project("website", |project| {
            project.standin("fork=1").set("max_duration", "1h")
        })
        .start(&alice)
        .await;
    let sent = bot.start_session(&alice, "website").await;
    bot.kill_9();
    bot.set_time_left("website", Duration::from_mins(10));
    bot.run();
    let soon = "website ends in ";
    let word = bot.private_message(&alice, soon).await;
    assert_eq!(word.room, *sent.room());
    word.says("`!rc extend website 2h`");
    let rings = Some("m.text");
    assert_eq!(word.message_type(), rings, "a notice rings no phone");

    bot.kill_9();
    bot.set_time_left("website", Duration::from_secs(1));
    bot.run();
    let announced = bot.announcement(&alice, "time was up").await;
    announced.is("website has ended: its time was up.");
    bot.wait_for_redaction(&alice, &sent).await;
    bot.private_message(&alice, "I deleted the message with its link")
        .await;
    assert!(bot.session_processes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_exited_is_restarted_and_its_new_link_replaces_the_old() {
    let alice = person("alice").await;
    let bot = bot()
        .project("website", |project| project.set("restart", "on_exit"))
        .start(&alice)
        .await;
    let first = bot.start_session(&alice, "website").await;
    bot.end_process(bot.standin_records()[0].pid).await;
    let announced = bot.announcement(&alice, "I will restart it").await;
    announced.is("website has ended: its process was ended by signal 9 (SIGKILL). I will restart it in 5s, and \
         send its link again.");
    bot.wait_for_redaction(&alice, &first).await;
    let second = bot.link_after(&alice, 1).await;
    assert_ne!(second.link, first.link);
    assert_eq!(second.room(), first.room());
    assert_eq!(bot.standin_starts(), 2);

    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &second).await;
    assert!(bot.session_processes().is_empty());
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

    // It starts with the bot, and not again while it runs.
    bot.restart(&alice).await;
    bot.start_session(&alice, "website").await;
    assert_eq!(bot.standin_starts(), 1);
    assert_eq!(bot.links_of(&alice).len(), 2);
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
            " Its link is deleted, and whoever waits for it gets an answer, when the bot runs again.",
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
