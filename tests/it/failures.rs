//! Each thing that can go wrong has a sentence of its own, and leaves nothing behind.

use std::fs;

use nix::unistd::{User, geteuid};

use crate::support::{prelude::*, run_to_end};

/// A bot with one project after the other, whose start fails with these words.
async fn assert_start_says(bot: &Bot, alice: &Person, project: &str, said: &str) {
    let answer = bot.request(alice, &format!("start {project}")).await;
    answer.is(&format!("{project} did not start{said}"));
}

/// The host as the bot calls it, and the user as whom it runs.
fn place() -> (String, String) {
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let user = User::from_uid(geteuid()).unwrap().unwrap();
    (host, user.name)
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
    let (host, user) = place();
    let directory = bot.project_directory("gone");
    fs::remove_dir(&directory).unwrap();

    assert_start_says(
        &bot,
        &alice,
        "missing",
        &format!(
            ": the command `no-such-program` was not found (ENOENT).\nInstall it on {host}, or give its full path under `command` \
             in config.yaml."
        ),
    )
    .await;
    let text = format!(
        ": the command `{forbidden}` may not be run (EACCES).\nMake it executable for {user} on {host}."
    );
    assert_start_says(&bot, &alice, "forbidden", &text).await;
    let text = format!(
        ": its directory `{}` is gone (ENOENT).\nBring it back on {host}, or change `directory` in config.yaml.",
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
    let (host, user) = place();
    assert_start_says(
        &bot,
        &alice,
        "plain",
        ": its process ended before it showed a link (exit code 3).\n`!rc logs plain` shows what it printed.",
    )
    .await;
    let login = format!(
        ". Probable cause: claude is not logged in.\nRun `claude auth login` on {host} as {user}."
    );
    let login_printed = "login: the last lines that it printed, as of ";
    assert_start_says(&bot, &alice, "login", &login).await;
    let word = bot.private_message(&alice, login_printed).await;
    word.says("Run `claude auth login`");
    let trust = format!(
        ". Probable cause: claude does not trust the project's directory.\nRun `cd {} && claude` on {host} as {user}, and answer \
         yes.",
        bot.project_directory("trust").display()
    );
    assert_start_says(&bot, &alice, "trust", &trust).await;
    let consent = ". Probable cause: claude waits for consent to enable Remote Control.\nSet `stdin: \"y\\n\"` for the project \
                   in config.yaml, and restart the bot.";
    assert_start_says(&bot, &alice, "consent", consent).await;
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
                // It has to have asked by then.
                .set("link_timeout", "10s")
        })
        .start(&alice)
        .await;
    assert_start_says(
        &bot,
        &alice,
        "silent",
        ": it showed no link within 1s, and was ended.\n`!rc logs silent` shows what it printed.",
    )
    .await;
    let text = ". Probable cause: claude waits for consent to enable Remote Control.\nSet `stdin: \"y\\n\"` for the project in \
                config.yaml, and restart the bot.";
    assert_start_says(&bot, &alice, "asking", text).await;
    assert_eq!(bot.standin_starts(), 2);
    assert_nothing_is_left(&bot, &alice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_by_itself_is_announced_and_its_link_redacted() {
    let alice = person("alice").await;
    let bot = bot()
        .project("website", |project| project.standin("fork=1"))
        .start(&alice)
        .await;
    let sent = bot.start_session(&alice, "website").await;
    let process = bot.standin_records().pop().unwrap().pid;
    bot.end_process(process).await;

    let announced = bot.announcement(&alice, "has ended:").await;
    announced.is(
        "website has ended: its process was ended by signal 9 (SIGKILL).\n`!rc start website` starts it again.",
    );
    bot.wait_for_redaction(&alice, &sent).await;
    let word = bot
        .private_message(&alice, "has ended, and I deleted")
        .await;
    assert_eq!(word.room, *sent.room());
    assert_eq!(
        word.message_type(),
        Some("m.text"),
        "a notice rings no phone"
    );
    let last = bot
        .private_message(&alice, "website: the last lines that it printed, as of ")
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
async fn an_error_that_is_not_known_is_quoted_in_private_and_only_named_in_the_room() {
    let alice = person("alice").await;
    let moon = "Error: The moon is full.";
    let bot = bot()
        .project("website", |project| {
            project.standin(&format!("stderr={moon}"))
        })
        .project("blog", |project| project.standin("event=gone"))
        .start(&alice)
        .await;
    bot.start_session(&alice, "website").await;
    let named = bot
        .announcement(&alice, "an error that I do not know")
        .await;
    named.is(
        "website: claude printed an error that I do not know. I sent its first line privately to everyone who asked for the \
         link.",
    );
    let quoted = bot
        .private_message(&alice, "website: an error that it printed")
        .await;
    quoted.says(moon);
    bot.start_session(&alice, "blog").await;
    let told = bot.announcement(&alice, "no conversation can start").await;
    told.says("removed by an update.\nSay `!rc stop blog`, then `!rc start blog`.");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_bot_on_the_same_files_is_refused() {
    let (_alice, bot) = alice_and_bot().await;
    let second = run_to_end(&mut bot.command("run"));
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    said.says("another rcbot runs with the data directory");
}
