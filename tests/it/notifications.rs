//! Which messages about a session ring in the direct message of those who have its link, and which are silent.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::support::prelude::*;

/// A text that mentions the person also rings where only mentions do.
#[track_caller]
fn assert_rings(event: &Event, person: &Person) {
    assert_eq!(event.message_type(), Some("m.text"), "{event}");
    let mentions = &event.json["content"]["m.mentions"];
    assert_eq!(*mentions, json!({ "user_ids": [person.user_id()] }));
}

#[track_caller]
fn assert_silent(event: &Event) {
    assert_eq!(event.message_type(), Some("m.notice"), "{event}");
    assert_eq!(event.json["content"]["m.mentions"], json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_without_a_stop_rings_for_all_who_have_its_link_unless_configured_not_to()
 {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let bot = bot()
        .member(&bob, 100)
        .project("website", |project| project.standin("fork=1"))
        .project("quiet", |project| project.set("notify", json!([])))
        .start(&alice)
        .await;
    let sent = bot.start_session(&alice, "website").await;
    bot.start_session(&bob, "website").await;
    for person in [&alice, &bob] {
        bot.start_session(person, "quiet").await;
    }
    for process in bot.standin_records() {
        bot.end_process(process.pid).await;
    }
    let ended =
        |project| format!("{project} has ended: its process was ended by signal 9 (SIGKILL).");
    for person in [&alice, &bob] {
        assert_rings(
            &bot.private_message(person, &ended("website")).await,
            person,
        );
        assert_silent(&bot.private_message(person, &ended("quiet")).await);
    }
    let announced = bot.announcement(&alice, "website has ended:").await;
    announced.is(&format!(
        "{}\n`!rc start website` starts it again.",
        ended("website")
    ));
    assert!(
        bot.session_processes().is_empty(),
        "its children are ended before the answer"
    );
    bot.wait_for_redaction(&alice, &sent).await;
    let word = bot.private_message(&alice, &ended("website")).await;
    assert_eq!(word.room, *sent.room());
    word.says("I deleted the message with its link");
    let last = "website: the last lines that it printed, as of ";
    let last = bot.private_message(&alice, last).await;
    last.says("Connected");
    last.lacks(&sent.link);
    let next = bot.start_session(&alice, "website").await;
    assert_ne!(next.link, sent.link);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_cut_off_rings_and_its_reconnection_does_not() {
    let alice = person("alice").await;
    let bot = bot()
        .project("website", |project| {
            project
                .standin("reconnect=3,back=9")
                .set("reconnect_limit", "2s")
        })
        .start(&alice)
        .await;
    let link = bot.start_session(&alice, "website").await;
    let cut_off = "website has been cut off from its service for ";
    let announced = bot.announcement(&alice, cut_off).await;
    let word = bot.private_message(&alice, cut_off).await;
    assert_eq!((word.body(), &word.room), (announced.body(), link.room()));
    assert_rings(&word, &alice);
    let back = "website is connected to its service again";
    bot.announcement(&alice, back).await;
    assert_silent(&bot.private_message(&alice, back).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_session_rings_when_it_ends_and_a_reboot_of_the_host_is_reported_as_such() {
    let alice = person("alice").await;
    let mut bot = bot()
        .project("website", |project| project)
        .project("api", |project| {
            project
                .set("restart", "on_exit")
                .set("notify", json!(["ended"]))
        })
        .start(&alice)
        .await;
    bot.start_session(&alice, "website").await;
    let first = bot.start_session(&alice, "api").await;
    let processes: Vec<_> = bot.standin_records().iter().map(|it| it.pid).collect();
    bot.kill_9();
    for process in processes {
        bot.end_process(process).await;
    }
    for project in ["website", "api"] {
        bot.edit_record(project, |record| {
            record["boot_id"] = json!("another boot");
            record["session"]["state"]["running"]["process"]["boot_id"] = json!("another boot");
        });
    }
    bot.run();
    let restarted = "website has ended: the host was restarted.";
    assert_rings(&bot.private_message(&alice, restarted).await, &alice);
    // `notify` of api does not list `rebooted`.
    let comes_back =
        "api has ended: the host was restarted. I will restart it in 5s, and send its link again.";
    assert_silent(&bot.private_message(&alice, comes_back).await);
    bot.announcement(&alice, comes_back).await;
    bot.wait_for_redaction(&alice, &first).await;
    let second = bot.link_after(&alice, 2).await;
    assert_ne!(second.link, first.link);
    assert_eq!(second.room(), first.room());

    let last = bot.standin_records().pop().unwrap();
    bot.end_process(last.pid).await;
    let comes_back =
        "api has ended: its process was ended by signal 9 (SIGKILL). I will restart it in ";
    assert_rings(&bot.private_message(&alice, comes_back).await, &alice);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_about_to_end_rings_once_for_each_who_has_a_link() {
    let alice = person("alice").await;
    let folder = tempfile::TempDir::new().unwrap();
    let ends = SystemTime::now() + Duration::from_hours(30);
    let ends = ends.duration_since(UNIX_EPOCH).unwrap().as_millis();
    let ends = u64::try_from(ends).unwrap();
    let credentials = json!({ "claudeAiOauth": {
        "accessToken": "a", "refreshToken": "r", "scopes": ["user:inference", "user:profile", "user:sessions:claude_code"],
        "expiresAt": ends, "refreshTokenExpiresAt": ends,
    }});
    let state = json!({ "oauthAccount": { "emailAddress": "alice@example.org" } });
    for (name, content) in [(".credentials.json", credentials), (".claude.json", state)] {
        fs::write(folder.path().join(name), content.to_string()).unwrap();
    }
    let projects = [
        ("website", json!(["login"])),
        ("api", json!([])),
        ("idle", json!(["login"])),
    ];
    let with = |bot: BotBuilder, (name, notify)| {
        bot.project(name, |project| {
            let project = project.environment("CLAUDE_CONFIG_DIR", folder.path());
            project.set("notify", notify)
        })
    };
    let mut bot = projects.into_iter().fold(bot(), with).start(&alice).await;
    for project in ["website", "api"] {
        bot.start_session(&alice, project).await;
    }
    bot.restart(&alice).await;
    let ends = "claude's login on ";
    let word = bot.private_message(&alice, ends).await;
    assert_rings(&word, &alice);
    word.says("with it the sessions of: api, website.");
    let announced = bot
        .announcement(&alice, "with it the sessions of: api, idle, website.")
        .await;
    announced.says("ends in 30 hours");
}
