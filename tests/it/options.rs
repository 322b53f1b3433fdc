//! The options of a start: which are allowed, for whom, and which a session runs with.

use std::fs;

use crate::support::{host::set_mode, prelude::*};

/// A bot that allows these modes.
fn builder() -> BotBuilder {
    bot().configure(|config| {
        let modes = json!(["default", "plan"]);
        config["sessions"]["permission_modes"] = modes;
        config["sessions"]["spawn"] = json!(["same-dir", "worktree"]);
    })
}

/// The arguments of the stand-in's starts, each without the name's random end.
fn arguments(bot: &Bot) -> Vec<String> {
    let records = bot.standin_records().into_iter();
    let starts = records.filter(|record| record.event == "start");
    let arguments = starts.map(|record| {
        let words = record.argv[2..].join("|");
        words.split('@').next().unwrap().to_owned()
    });
    arguments.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_runs_with_the_options_it_was_started_with_and_keeps_them_over_restarts() {
    let alice = person("alice").await;
    let mut bot = builder()
        .project("website", |project| project.set("restart", "on_exit"))
        .start(&alice)
        .await;
    let text = "start website --mode Plan —spawn=worktree --name “fix the build”";
    let asked = bot.send(&alice, text).await;
    bot.answer(&alice, &asked).await.says("website is running");
    let wanted = "--permission-mode|plan|--spawn=worktree|--name|fix the build website";
    assert_eq!(arguments(&bot), [wanted]);
    let link = bot.link_after(&alice, 0).await;
    let options = "permission mode plan, spawn mode worktree, name \"fix the build\"";
    let words = link.event.body().unwrap();
    words.says(&format!("Runs with: {options}"));
    let status = bot.request(&alice, "status").await;
    status.says(&format!(" MiB, {options}"));
    let audit = bot.audit(&asked);
    let judged = "command=\"start website --mode Plan --spawn worktree --name ..\" project=\"website\" mode=\"plan\" \
                  spawn=\"worktree\" named=true decision=\"allowed\"";
    assert!(audit.iter().any(|line| line.contains(judged)), "{audit:?}");

    // A start with other options is answered with those of the session, and gets no link.
    let asked = bot.send(&alice, "start website --mode default").await;
    let answer = bot.answer(&alice, &asked).await;
    answer.says(&format!("started already, with other options: {options}."));
    assert_eq!(bot.links_of(&alice).len(), 1);
    let answer = bot.request(&alice, "start website --mode plan").await;
    answer.says("is already running");

    bot.kill_9();
    bot.end_process(bot.standin_records()[0].pid).await;
    bot.run();
    until("the session runs again", || arguments(&bot).len() == 2).await;
    assert_eq!(arguments(&bot), [wanted, wanted]);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_options_have_defaults_unconfigured_ones_are_refused_and_settings_must_be_safe() {
    let alice = person("alice").await;
    let bot = builder()
        .project("website", |project| project)
        .project("plain", |project| {
            project.set("permission_modes", json!([]))
        })
        .project("guarded", |project| {
            let command = json!([
                standin_program(),
                "remote-control",
                "--settings",
                "{settings}"
            ]);
            project
                .set("settings", "settings.json")
                .set("command", command.clone())
                .set("resume_command", command)
                .set("permission_modes", json!([]))
                .set("spawn", json!([]))
        })
        .start(&alice)
        .await;
    let file = bot.config_path().with_file_name("settings.json");
    fs::write(&file, "{}").unwrap();
    set_mode(&file, 0o666);
    let no_mode = "`--mode dance` is not allowed for website. Allowed: `default`, `plan`; the first is the default.";
    let no_spawn = "`!rc resume` has no option `--spawn`. It takes `--mode`, `--name`.";
    for (command, refusal) in [
        ("start website --mode dance", no_mode),
        (
            "start website --mode",
            "`--mode` needs a value, such as `--mode plan`.",
        ),
        (
            "start plain --mode plan",
            "`--mode` cannot be asked for in plain.",
        ),
        ("resume website --spawn worktree", no_spawn),
        (
            "stop website --now",
            "`!rc stop` has no option `--now`. It takes none.",
        ),
        (
            "start website --name \"$(id)\"",
            "I cannot call a session so: a session's name is 1 to 60",
        ),
    ] {
        bot.request(&alice, command).await.begins(refusal);
    }
    let refusal = "other users can write ";
    bot.says(&alice, "start guarded", refusal).await;
    assert_eq!(bot.standin_starts(), 0);
    bot.start_session(&alice, "website").await;
    bot.start_session(&alice, "plain").await;
    set_mode(&file, 0o644);
    bot.start_session(&alice, "guarded").await;
    assert_eq!(
        arguments(&bot),
        [
            "--permission-mode|default|--spawn=same-dir|--name|website",
            "--spawn=same-dir|--name|plain",
            &format!("--settings|{}", file.display()),
        ]
    );
    // The audit log has the digest of what was read.
    let digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let log = bot.log();
    let mut lines = log.lines();
    let line = lines.rfind(|line| line.contains("audit: session process started"));
    line.unwrap().says(&format!("settings=\"{digest}\""));
}
