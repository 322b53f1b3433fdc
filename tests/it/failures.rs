//! Each thing that can go wrong has a sentence of its own, and leaves nothing behind.

use std::fs;

use crate::support::{prelude::*, run_to_end};

/// A bot with one project after the other, whose start fails with these words.
async fn assert_start_says(bot: &Bot, alice: &Person, project: &str, said: &str) {
    let answer = bot.request(alice, &format!("start {project}")).await;
    answer.is(&format!("Failed to start {project}: {said}"));
}

/// Nothing runs, nobody got a link, and the bot knows it.
async fn assert_nothing_is_left(bot: &Bot, alice: &Person) {
    assert!(bot.session_processes().is_empty());
    assert!(bot.links_of(alice).is_empty());
    let status = bot.request(alice, "status").await;
    let body = status.body().unwrap();
    assert!(
        body.lines().all(|line| line.ends_with(" no session")),
        "{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_spawned_is_told_with_its_cause_and_remedy() {
    let alice = person("alice").await;
    // Such a file is for reading and writing only.
    let script = tempfile::NamedTempFile::new().unwrap();
    let forbidden = script.path().to_str().unwrap();
    let bot = bot()
        .project("missing", |project| {
            project.set("command", json!(["no-such-program", "remote-control"]))
        })
        .project("forbidden", |project| {
            project.set("command", json!([forbidden]))
        })
        .project("gone", |project| project)
        .start(&alice)
        .await;
    let directory = bot.project_directory("gone");
    fs::remove_dir(&directory).unwrap();

    assert_start_says(
        &bot,
        &alice,
        "missing",
        "the command `no-such-program` was not found (ENOENT). Install it on the host, or give its full path under \
         `command` in the bot's configuration.",
    )
    .await;
    let text = format!(
        "the command `{forbidden}` may not be run (EACCES). Make it executable for the bot's user on the host."
    );
    assert_start_says(&bot, &alice, "forbidden", &text).await;
    let text = format!(
        "its directory `{}` is gone (ENOENT). Bring it back, or change `directory` in the bot's configuration.",
        directory.display()
    );
    assert_start_says(&bot, &alice, "gone", &text).await;
    assert_eq!(bot.standin_starts(), 0);
    assert_nothing_is_left(&bot, &alice).await;

    fs::create_dir(&directory).unwrap();
    bot.start_session(&alice, "gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_before_its_link_is_told_with_its_exit_code_and_its_cause() {
    let alice = person("alice").await;
    let bot = bot()
        .project("plain", |project| project.standin("exit=3,fork=1"))
        .project("login", |project| project.standin("complaint=login"))
        .project("trust", |project| project.standin("complaint=trust"))
        .project("consent", |project| project.set("stdin", ""))
        .start(&alice)
        .await;
    let ended = "the process ended before it showed a link";
    assert_start_says(
        &bot,
        &alice,
        "plain",
        &format!("{ended} (exit code 3). Say `!rc logs plain` to see what it printed."),
    )
    .await;
    let login = "Probable cause: claude is not logged in. To fix it: run `claude auth login` on the host as the user that \
                 the bot runs as.";
    let login_printed = "The last lines that the session for login printed:";
    assert_start_says(
        &bot,
        &alice,
        "login",
        &format!("{ended} (exit code 1). {login}"),
    )
    .await;
    let word = bot.private_message(&alice, login_printed).await;
    word.says("Run `claude auth login`");
    let trust = "Probable cause: claude does not trust the project's directory. To fix it: run `claude` once in that \
                 directory on the host as the user that the bot runs as, and accept the question.";
    assert_start_says(
        &bot,
        &alice,
        "trust",
        &format!("{ended} (exit code 1). {trust}"),
    )
    .await;
    let consent = "Probable cause: claude waits for consent to enable Remote Control. To fix it: set `stdin: \"y\\n\"` for \
                   the project.";
    assert_start_says(
        &bot,
        &alice,
        "consent",
        &format!("{ended} (exit code 1). {consent}"),
    )
    .await;
    assert_nothing_is_left(&bot, &alice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_a_link_in_time_is_ended_with_its_children() {
    let alice = person("alice").await;
    let bot = bot()
        .project("silent", |project| {
            project.standin("silent,fork=2").set("link_timeout", "1s")
        })
        .project("asking", |project| {
            project
                .standin("ask")
                .set("stdin", "")
                .set("link_timeout", "1s")
        })
        .start(&alice)
        .await;
    assert_start_says(
        &bot,
        &alice,
        "silent",
        "no link within 1s, so the process was ended. Say `!rc logs silent` to see what it printed.",
    )
    .await;
    let text = "it waits at a question, so the process was ended. Probable cause: claude waits for consent to enable Remote \
                Control. To fix it: set `stdin: \"y\\n\"` for the project.";
    assert_start_says(&bot, &alice, "asking", text).await;
    assert_eq!(bot.standin_starts(), 2);
    assert_nothing_is_left(&bot, &alice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_by_itself_is_announced_and_its_link_taken_back() {
    let alice = person("alice").await;
    let bot = bot()
        .project("website", |project| project.standin("fork=1"))
        .start(&alice)
        .await;
    let sent = bot.start_session(&alice, "website").await;
    let process = bot.standin_records().pop().unwrap().pid;
    bot.end_process(process).await;

    let announced = bot.announcement(&alice, "has ended:").await;
    announced.is("Session for website has ended: its process was ended by signal 9 (SIGKILL).");
    bot.wait_for_redaction(&alice, &sent).await;
    let word = bot
        .private_message(&alice, "Session for website has ended.")
        .await;
    assert_eq!(word.room, *sent.room());
    assert_eq!(
        word.message_type(),
        Some("m.text"),
        "a notice rings no phone"
    );
    let last = bot
        .private_message(
            &alice,
            "The last lines that the session for website printed:",
        )
        .await;
    last.says("Connected");
    assert_eq!(
        bot.links_of(&alice).len(),
        1,
        "no link is among the last lines"
    );
    assert!(
        bot.session_processes().is_empty(),
        "its children are ended before that is told"
    );
    let next = bot.start_session(&alice, "website").await;
    assert_ne!(next.link, sent.link);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_bot_on_the_same_files_is_refused() {
    let (_alice, bot) = alice_and_bot().await;
    let second = run_to_end(&mut bot.command("run"));
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    said.says("another rcbot runs with the data directory");
}
