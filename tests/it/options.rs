//! The options of a start: which are allowed, for whom, and which a session runs with.

use std::fs;

use crate::support::{host::set_mode, prelude::*};

/// A bot that allows these modes; the last of each list needs power level 100.
fn builder() -> BotBuilder {
    bot().configure(|config| {
        let modes = json!(["default", "plan", { "bypassPermissions": 100 }]);
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
async fn missing_options_have_defaults_and_unconfigured_ones_are_refused_with_the_allowed_list() {
    let alice = person("alice").await;
    let bot = builder()
        .project("website", |project| project)
        .project("plain", |project| {
            project.set("permission_modes", json!([]))
        })
        .start(&alice)
        .await;
    let no_mode = "`--mode dance` is not allowed for website. Allowed: `default`, `plan`, `bypassPermissions`; the first is the \
                   default.";
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
    assert_eq!(bot.standin_starts(), 0);
    bot.start_session(&alice, "website").await;
    bot.start_session(&alice, "plain").await;
    assert_eq!(
        arguments(&bot),
        [
            "--permission-mode|default|--spawn=same-dir|--name|website",
            "--spawn=same-dir|--name|plain",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_mode_can_need_a_power_level_to_be_asked_for_and_to_get_the_link() {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let bot = builder()
        .power_level(50)
        .member(&bob, 50)
        .start(&alice)
        .await;
    let refused = "your power level here is 50, and this takes 100";
    let command = "start website --mode bypassPermissions";
    bot.says(&bob, command, refused).await;
    assert_eq!(bot.standin_starts(), 0);
    let answer = bot.request(&alice, command).await;
    answer.says("website is running");
    // Refused as well, without a second answer within a minute.
    let asked = bot.send(&bob, "start website").await;
    let denied = eventually("the decision", async || bot.audit(&asked).pop()).await;
    denied.says("has: 50, needs: 100");
    assert!(bot.links_of(&bob).is_empty());
    // Other commands need only the project's level.
    bot.says(&bob, "stop website", "website stopped").await;
    let answer = bot.request(&bob, "start website --mode plan").await;
    answer.says("website is running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settings_file_gets_to_the_session_and_into_the_audit_log_unless_others_can_change_it() {
    let alice = person("alice").await;
    let bot = bot()
        .configure(|config| {
            config["sessions"]["settings"] = json!("settings.json");
            let command = config["sessions"]["command"].clone();
            config["sessions"]["resume_command"] = command;
        })
        .start(&alice)
        .await;
    let file = bot.config_path().with_file_name("settings.json");
    fs::write(&file, "{}").unwrap();
    set_mode(&file, 0o666);
    let answer = bot.request(&alice, "start").await;
    answer.says("other users can write ");
    assert_eq!(bot.standin_starts(), 0);
    set_mode(&file, 0o644);
    bot.start_session(&alice, "website").await;
    let file = file.display();
    let wanted = format!("--settings|{file}|--spawn=same-dir|--name|website");
    assert_eq!(arguments(&bot), [wanted]);
    let digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let log = bot.log();
    let mut lines = log.lines();
    let line = lines.find(|line| line.contains("audit: session process started"));
    line.unwrap().says(&format!("settings=\"{digest}\""));
}
