//! Each failure has its own message, and leaves nothing behind.

use std::fs;

use nix::unistd::{User, geteuid};

use crate::support::prelude::*;

/// The reference to the documentation at the end of a message.
fn more(topic: &str) -> String {
    if topic.is_empty() {
        return String::new();
    }
    format!(" More: `docs/troubleshooting.md#{topic}`")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_is_reported_with_its_cause_and_remedy_and_leaves_nothing_behind() {
    let alice = person("alice").await;
    // A temporary file has mode 0600: it is not executable.
    let script = tempfile::NamedTempFile::new().unwrap();
    let forbidden = script.path().to_str().unwrap();
    let bot = bot()
        .project("missing", |it| {
            it.set("command", json!(["no-such-program"]))
        })
        .project("forbidden", |it| it.set("command", json!([forbidden])))
        .project("gone", |it| it)
        .project("plain", |it| it.standin("exit=3,fork=1"))
        .project("login", |it| it.standin("complaint=login"))
        .project("trust", |it| it.standin("complaint=trust"))
        .project("consent", |it| it.set("stdin", ""))
        .project("silent", |it| {
            it.standin("silent,fork=2").set("link_timeout", "1s")
        })
        .project("asking", |it| {
            // Enough for the consent question to appear.
            it.standin("ask")
                .set("stdin", "")
                .set("link_timeout", "10s")
        })
        .project("moon", |it| it.standin(&format!("stderr={MOON}")))
        .project("update", |it| it.standin("event=gone"))
        .start(&alice)
        .await;
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let user = User::from_uid(geteuid()).unwrap().unwrap().name;
    let [gone, trusted] = ["gone", "trust"].map(|name| bot.project_directory(name));
    fs::remove_dir(&gone).unwrap();

    let missing = format!(
        ": the command `no-such-program` was not found (ENOENT).\nInstall it on {host}, or give its full path under `command` \
         in config.yaml."
    );
    let forbidden = format!(
        ": the command `{forbidden}` may not be run (EACCES).\nMake it executable for {user} on {host}."
    );
    let is_gone = format!(
        ": its directory `{}` is gone (ENOENT).\nBring it back on {host}, or change `directory` in config.yaml.",
        gone.display()
    );
    let login = format!(
        ". Probable cause: claude is not logged in.\nRun `claude auth login` on {host} as {user}."
    );
    let trust = format!(
        ". Probable cause: claude does not trust the project's directory.\nRun `cd {} && claude` on {host} as {user}, and answer \
         yes.",
        trusted.display()
    );
    let consent = ". Probable cause: claude waits for consent to enable Remote Control.\nSet `stdin: \"y\\n\"` for the project \
                   in config.yaml, and restart the bot.";
    let plain = ": its process ended before it showed a link (exit code 3).\n`!rc logs plain` shows what it printed.";
    let silent =
        ": it showed no link within 1s, and was ended.\n`!rc logs silent` shows what it printed.";
    for (project, said, topic) in [
        ("missing", &*missing, "command-not-found"),
        ("forbidden", &forbidden, ""),
        ("gone", &is_gone, ""),
        ("plain", plain, "no-link"),
        ("login", &login, "claude-account"),
        ("trust", &trust, "directory-not-trusted"),
        ("consent", consent, "claude-asks"),
        ("silent", silent, "no-link"),
        ("asking", consent, "claude-asks"),
    ] {
        let answer = bot.request(&alice, &format!("start {project}")).await;
        answer.is(&format!("{project} did not start{said}{}", more(topic)));
    }
    let login_printed = "login: the last lines that it printed, as of ";
    let word = bot.private_message(&alice, login_printed).await;
    word.says("Run `claude auth login`");

    assert!(bot.session_processes().is_empty());
    assert!(bot.links_of(&alice).is_empty());
    let status = bot.request(&alice, "status").await;
    let mut projects = status.body().unwrap().lines();
    assert!(projects.all(|line| line.ends_with(" no session")));
    fs::create_dir(&gone).unwrap();
    bot.start_session(&alice, "gone").await;
    assert_errors_of_running_sessions_are_announced(&bot, &alice).await;
}

/// An error that the bot does not know.
const MOON: &str = "Error: The moon is full.";

/// An unknown one is only quoted in private.
async fn assert_errors_of_running_sessions_are_announced(bot: &Bot, alice: &Person) {
    bot.start_session(alice, "moon").await;
    let named = bot.announcement(alice, "an error that I do not know").await;
    named.is(&format!(
        "moon: claude printed an error that I do not know. I sent its first line privately to everyone who asked for the \
         link.{}",
        more("unknown-error")
    ));
    let quoted = bot
        .private_message(alice, "moon: an error that it printed")
        .await;
    quoted.says(MOON);
    bot.start_session(alice, "update").await;
    let announced = bot.announcement(alice, "no conversation can start").await;
    announced.says("removed by an update.\nSay `!rc stop update`, then `!rc start update`.");
}
