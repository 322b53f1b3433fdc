//! Each folder below a project root is a project: it starts by its name, wherever the name leads, and nowhere else.

use std::{fs, os::unix::fs::symlink};

use crate::support::{host::Host, prelude::*};

/// The answer to a command.
async fn said(bot: &Bot, alice: &Person, command: &str) -> String {
    bot.request(alice, command).await.body().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_below_a_root_starts_by_its_name_and_by_the_beginning_of_it() {
    let alice = person("alice").await;
    let bot = bot()
        .root(&["website", "wiki", "notes", "web site", ".hidden"])
        .start(&alice)
        .await;
    bot.start_session(&alice, "website").await;
    let records = bot.standin_records();
    assert_eq!(records[0].cwd, bot.root().join("website"));

    let which = said(&bot, &alice, "start w").await;
    assert_eq!(
        which,
        "Which project? Say `!rc start` and one of: `website`, `wiki`."
    );
    // A folder that was made a moment ago.
    fs::create_dir(bot.root().join("blog")).unwrap();
    let asked = bot.send(&alice, "start bl").await;
    bot.answer(&alice, &asked).await;
    bot.wait_for_state("blog", "running").await;
    assert_eq!(bot.standin_records()[1].cwd, bot.root().join("blog"));
    let audit = bot.audit(&asked);
    assert!(
        audit[0].contains("command=\"start bl\" project=\"blog\" "),
        "{audit:?}"
    );

    for unknown in [
        "start nothing",
        "start web site",
        "start ..",
        "start .hidden",
        "start ../src/notes",
    ] {
        let refusal = said(&bot, &alice, unknown).await;
        assert!(
            refusal.contains("There is no project") || refusal.contains("fewer words"),
            "{refusal}"
        );
    }
    // Of those that run, `w` is the beginning of only one.
    let stopped = said(&bot, &alice, "stop w").await;
    stopped.says("website");
    bot.request(&alice, "stop blog").await;
    bot.wait_until_no_process_is_left().await;
    assert_eq!(bot.standin_starts(), 2);
    let status = said(&bot, &alice, "status").await;
    assert!(
        !status.contains("website"),
        "what is found and does not run is not status: {status}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_goes_keeps_its_session_also_when_the_bot_is_restarted() {
    let alice = person("alice").await;
    let mut bot = bot()
        .root(&["website", "api"])
        .configure(|config| config["project_roots"][0]["restart"] = json!("on_exit"))
        .start(&alice)
        .await;
    let first = bot.start_session(&alice, "website").await;
    bot.start_session(&alice, "api").await;
    fs::rename(bot.root().join("website"), bot.root().join(".gone")).unwrap();
    let known = bot.links_of(&alice).len();
    bot.request(&alice, "start website").await;
    eventually("the same link once more", async || {
        let again = bot.links_of(&alice).get(known).cloned()?;
        again.body().unwrap().contains(&first.link).then_some(())
    })
    .await;
    bot.restart(&alice).await;
    let status = said(&bot, &alice, "status").await;
    assert_eq!(status.matches("running since").count(), 2, "{status}");
    // A session whose folder is there has the settings of its root again, which bring it back.
    bot.kill_9();
    bot.end_process(bot.standin_records()[1].pid).await;
    bot.run();
    bot.wait_until_ready(&alice).await;
    until("the session is brought back", || bot.standin_starts() == 3).await;
    assert_eq!(bot.standin_records()[2].cwd, bot.root().join("api"));
    for project in ["website", "api"] {
        bot.request(&alice, &format!("stop {project}")).await;
    }
    bot.wait_until_no_process_is_left().await;
    let refusal = said(&bot, &alice, "start website").await;
    refusal.says("There is no project `website`");
    assert_eq!(bot.standin_starts(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symbolic_link_out_of_the_root_starts_nothing() {
    let alice = person("alice").await;
    let bot = bot().root(&["website/docs"]).start(&alice).await;
    let outside = bot.root().with_file_name("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, bot.root().join("link")).unwrap();
    symlink("website/docs", bot.root().join("within")).unwrap();
    let refusal = said(&bot, &alice, "start link").await;
    refusal.says("There is no project `link`");
    let listed = said(&bot, &alice, "projects").await;
    listed.ends("Symbolic links that lead out of their project root, and are no projects: 1.");
    bot.start_session(&alice, "within").await;
    let records = bot.standin_records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].cwd, bot.root().join("website/docs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_a_name_that_cannot_be_a_projects_is_counted_and_its_start_says_why() {
    let alice = person("alice").await;
    let bot = bot()
        .root(&["api.v2", "my site", "naïve", "-x", ".hidden"])
        .start(&alice)
        .await;
    let listed = said(&bot, &alice, "projects").await;
    listed.says(
        "Folders with names that cannot be a project's: 3. Letters, digits, `-`, `_` and `.` can: ",
    );
    listed.lacks("my site");
    for typed in ["\"my site\"", "naïve"] {
        let refusal = said(&bot, &alice, &format!("start {typed}")).await;
        let name = typed.trim_matches('"');
        refusal.begins(&format!(
            "There is no project `{name}`. Projects: `api.v2`. It cannot be one: a project's name is "
        ));
    }
    let refusal = said(&bot, &alice, "start my site").await;
    refusal.says("takes fewer words than that. The name of a session goes in quotes: `--name ");
    bot.start_session(&alice, "api.v2").await;
    assert_eq!(bot.standin_starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_vanishes_is_told_and_its_sessions_stay() {
    let alice = person("alice").await;
    let mut bot = bot()
        .root(&["website", "api"])
        .project("named", |project| project)
        .start(&alice)
        .await;
    bot.start_session(&alice, "website").await;
    fs::rename(bot.root(), bot.root().with_file_name("away")).unwrap();
    let listed = said(&bot, &alice, "projects").await;
    listed.begins("named: not trusted by claude yet\nwebsite: running");
    listed.says("1 of the project roots cannot be read");
    bot.wait_for_log("project root cannot be read").await;
    let refusal = said(&bot, &alice, "start api").await;
    refusal.says("There is no project `api` that I can see, but not all of the project roots can be read now");
    bot.start_session(&alice, "named").await;
    fs::rename(bot.root().with_file_name("away"), bot.root()).unwrap();
    bot.start_session(&alice, "api").await;
    let status = said(&bot, &alice, "status").await;
    assert_eq!(status.matches("running since").count(), 3, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn projects_lists_forty_with_branch_and_what_runs_and_counts_the_rest() {
    let alice = person("alice").await;
    let names: Vec<_> = (0..200).map(|number| format!("p{number:03}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let bot = bot()
        .root(&names)
        .project("configured", |project| project)
        .start(&alice)
        .await;
    let git = bot.root().join("p199/.git");
    fs::create_dir(&git).unwrap();
    fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
    bot.start_session(&alice, "p199").await;
    let listed = said(&bot, &alice, "projects").await;
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 41, "{listed}");
    assert_eq!(lines[0], "configured: not trusted by claude yet");
    assert_eq!(
        lines[1],
        "p199: running, branch `main`, not trusted by claude yet"
    );
    assert_eq!(lines[2], "p000: not trusted by claude yet");
    assert!(lines[40].starts_with("And 161 more."), "{listed}");
    let listed = said(&bot, &alice, "projects 19").await;
    // p019, p119, p190 to p199.
    assert_eq!(listed.lines().count(), 12, "{listed}");
    bot.request(&alice, "stop p199").await;
    let listed = said(&bot, &alice, "projects 19").await;
    listed.begins("p199: branch `main`, not trusted by claude yet, last used ");
    let refusal = said(&bot, &alice, "start").await;
    refusal.says("`p000`");
    refusal.says("and 161 more");
}

/// Two hosts in alice's admin room, each with two hundred folders, of which each has some that the other has not.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_hosts_with_two_hundred_folders_each_the_one_that_has_the_folder_starts_it() {
    let alice = person("alice").await;
    let names =
        |host: &str| -> Vec<String> { (0..200).map(|number| format!("{host}-{number}")).collect() };
    let shared = "both".to_owned();
    let with = |host: &str| [names(host), vec![shared.clone()]].concat();
    let first = with("one");
    let first = bot()
        .configure(|config| config["host"] = json!("build1"))
        .root(&first.iter().map(String::as_str).collect::<Vec<_>>())
        .power_levels(json!({ "events": { "rcbot.host": 0 } }))
        .start(&alice)
        .await;
    let second = with("two");
    let second = bot()
        .beside(&first)
        .configure(|config| config["host"] = json!("build2"))
        .root(&second.iter().map(String::as_str).collect::<Vec<_>>())
        .start(&alice)
        .await;
    let bots = [first, second];
    for bot in &bots {
        let user = bot.user_id().as_str();
        let announced = |event: &Event| event.kind == "rcbot.host" && event.sender == user;
        let event = alice.sees("the announcement", announced).await;
        let content = event.json["content"].to_string();
        assert!(content.len() < 4_096 - 1_024, "{} bytes", content.len());
        assert_eq!(event.json["content"]["unnamed"]["count"], 201);
        content.lacks("one-17");
        content.lacks("two-17");
    }
    let ask = async |command: &str| {
        let asked = bots[0].send(&alice, command).await;
        for bot in &bots {
            bot.decision(&asked).await;
        }
        let is_answer = |event: &Event| event.replies_to() == Some(asked.as_str());
        let answer = alice.sees(command, is_answer).await;
        let answers = alice.events();
        let senders: Vec<_> = answers
            .iter()
            .filter(|it| is_answer(it))
            .map(|it| it.sender.clone())
            .collect();
        assert!(
            senders.iter().all(|sender| *sender == senders[0]),
            "{command}: {senders:?}"
        );
        (answer.sender.clone(), answer.body().unwrap().to_owned())
    };
    let starts = || bots.each_ref().map(Bot::standin_starts);
    assert_eq!(ask("start two-17").await.0, bots[1].user_id());
    assert_eq!(starts(), [0, 1]);
    assert_eq!(ask("start one-17").await.0, bots[0].user_id());
    assert_eq!(starts(), [1, 1]);
    let (_, which) = ask("start both").await;
    which.says("`both@build1`, `both@build2`");
    assert_eq!(ask("start both@build2").await.0, bots[1].user_id());
    let (_, unknown) = ask("start three-17").await;
    unknown.says("There is no project `three-17`");
    assert_eq!(starts(), [1, 2]);
    // A folder that is made now is announced soon.
    fs::create_dir(bots[1].root().join("fresh")).unwrap();
    let user = bots[1].user_id().as_str();
    let grown = |event: &Event| {
        let count = event
            .json
            .pointer("/content/unnamed/count")
            .and_then(serde_json::Value::as_u64);
        let starts_both = event.json.pointer("/content/projects/both").is_some();
        event.sender == user && starts_both && count == Some(200)
    };
    alice
        .sees("the announcement of the new folder", grown)
        .await;
    assert_eq!(ask("start fresh").await.0, bots[1].user_id());
    let listed = eventually("both hosts list their sessions", async || {
        let (_, listed) = ask("projects").await;
        (listed.contains("fresh") && listed.contains("one-17")).then_some(listed)
    })
    .await;
    listed.says("build1:");
    listed.says("build2:");
}

#[test]
fn check_tells_what_is_below_each_root_and_which_cannot_be_read() {
    let host = Host::new();
    host.check().skipped("project_roots", "gives no");
    for folder in ["src/api", "src/wiki", "src/web site", "src/.hidden"] {
        fs::create_dir_all(host.path(folder)).unwrap();
    }
    symlink("/etc", host.path("src/etc")).unwrap();
    let root = host.path("src");
    host.configure(|config| config["project_roots"] = json!([root]));
    let found = "2 projects, 0 trusted by claude, 1 folder with names that cannot be a project's, 1 symbolic link out of it";
    host.check().passed("project_roots", found);
    host.check().failed("api: trust", "");
    host.configure(|config| config["project_roots"] = json!([root, host.path("gone")]));
    host.check()
        .warned("project_roots", "cannot be read (No such file");
}
