//! `!rc doctor`: the report of `rcbot check`, for its requester only.

use std::{fs, path::PathBuf};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{appservice::Tokens, checkup::Checkup, host::set_mode, prelude::*};

const SENT: &str = " The report is in our direct message.";
const REPORT: &str = "Check of ";

/// How many reports of the bot this person has seen, in any room.
fn reports(bot: &Bot, person: &Person) -> usize {
    let mut reports = person.events();
    reports.retain(|event| {
        event.sender == bot.user_id() && event.body().is_some_and(|body| body.contains(REPORT))
    });
    reports.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_goes_only_to_its_requester_without_secrets_and_uses_the_current_configuration()
{
    let (alice, bob) = (person("alice").await, person("bob").await);
    let bot = bot().invite(bob.user_id()).start(&alice).await;
    bob.join(bot.admin_room()).await;
    let link = bot.start_session(&alice, "website").await;
    let asked = bot.send(&alice, "doctor").await;
    let answer = bot.answer(&alice, &asked).await;
    let verdict = answer.body().unwrap().strip_suffix(SENT).unwrap();
    verdict.says(" checks: ");
    let word = bot.private_message(&alice, REPORT).await;
    assert_eq!(&word.room, link.room());
    assert!(word.encryption.is_some(), "{word}");
    let report = word.body().unwrap().to_owned();
    let (head, rest) = report.split_once("\n\n").unwrap();
    let lines: Vec<_> = rest.lines().collect();
    lines[0].begins("✔ checked as: ");
    lines[0].ends("; environment: the bot's");
    assert!(lines[1].starts_with("✘ "), "what failed is first: {report}");
    assert!(!rest.contains("sync"), "what passed is counted: {report}");
    // The same as `rcbot check` on the host.
    let checkup = Checkup::of(&bot);
    let failed = checkup.all("failed").len();
    assert_eq!(report.matches('✘').count(), failed, "{report}");
    assert!(failed > 0, "a test's claude is not logged in");
    head.says(&format!(" checks: {failed} failed, "));

    let key = fs::read_to_string(bot.data_dir().join("matrix/recovery-key")).unwrap();
    let tokens = Tokens::shared();
    let stored = bot.stored_log_in();
    let secrets = [
        tokens.appservice.as_str(),
        &tokens.homeserver,
        &link.link,
        key.trim(),
        stored["access_token"].as_str().unwrap(),
    ];
    for secret in secrets {
        assert!(!word.json.to_string().contains(secret), "{report}");
    }
    assert_eq!(reports(&bot, &bob), 0);
    bot.check_homeserver_never_read("environment: the bot's");
    let audited = bot.audit(&asked);
    let is_sent = |line: &String| line.ends_with("outcome=\"report sent\"");
    assert!(audited.iter().any(is_sent), "{audited:?}");

    bot.reconfigure(|config| config["projects"]["website"]["power_level"] = json!("much"));
    bot.request(&alice, "doctor").await.ends(SENT);
    let report = bot
        .private_message(&alice, "projects.website.power_level")
        .await;
    report.says("✘ configuration: ");
}

/// They are run one after the other, with a timeout of 10 s each: one could be too short for a few messages on a slow machine.
const SLOW_PROGRAMS: usize = 6;

/// Programs whose `--version` hangs until the test lets it go on.
struct SlowPrograms {
    folder: tempfile::TempDir,
}

impl SlowPrograms {
    fn new() -> Self {
        let folder = tempfile::TempDir::with_prefix("rcbot-test-").unwrap();
        let shown = folder.path().display();
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] || exec sleep 3600\necho $$ > {shown}/pid\n\
             while [ ! -e {shown}/go ]; do sleep 0.05; done\necho 1.2.3\n"
        );
        let programs = Self { folder };
        for number in 0..SLOW_PROGRAMS {
            fs::write(programs.path(number), &script).unwrap();
            set_mode(&programs.path(number), 0o755);
        }
        programs
    }

    fn path(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("claude-{number}"))
    }

    /// A project for each.
    fn projects(&self, bot: BotBuilder) -> BotBuilder {
        (0..SLOW_PROGRAMS).fold(bot, |bot, number| {
            bot.project(&format!("slow-{number}"), |project| {
                project.set("command", json!([self.path(number), "remote-control"]))
            })
        })
    }

    /// Waits until one was asked for its version, and returns its process.
    async fn asked(&self) -> Pid {
        eventually("a program is asked for its version", async || {
            let text = fs::read_to_string(self.folder.path().join("pid")).ok()?;
            Some(Pid::from_raw(text.trim().parse().ok()?))
        })
        .await
    }

    fn answer(&self) {
        fs::write(self.folder.path().join("go"), "").unwrap();
    }

    /// Lets them hang again.
    fn ask_again(&self) {
        for name in ["go", "pid"] {
            fs::remove_file(self.folder.path().join(name)).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_commands_are_executed_during_the_checks_and_an_exit_does_not_wait_for_them() {
    let alice = person("alice").await;
    let programs = SlowPrograms::new();
    let bot = bot().project("website", |project| project);
    let mut bot = programs.projects(bot).start(&alice).await;
    let asked = bot.send(&alice, "doctor").await;
    programs.asked().await;
    bot.start_session(&alice, "website").await;
    let again = bot.request(&alice, "doctor").await;
    again.is("A check is already running. Try again in a moment.");
    assert_eq!(reports(&bot, &alice), 0);
    programs.answer();
    bot.answer(&alice, &asked).await.ends(SENT);
    let word = bot.private_message(&alice, REPORT).await;
    word.says(" checks: ");

    // A bot that is asked to exit does not wait for running checks.
    programs.ask_again();
    bot.send(&alice, "doctor").await;
    programs.asked().await;
    assert!(bot.terminate().await.success());
    let asked_last = programs.asked().await;
    kill(asked_last, Signal::SIGKILL).expect("the bot waited for the program");
}
