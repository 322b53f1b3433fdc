//! Each folder below a project root is a project: it starts by its name, in that folder and nowhere else.

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
    which.is("Which project? Say `!rc start` and one of: `website`, `wiki`.");
    // A new folder.
    fs::create_dir(bot.root().join("blog")).unwrap();
    let asked = bot.send(&alice, "start bl").await;
    bot.answer(&alice, &asked).await;
    bot.wait_for_state("blog", "running").await;
    assert_eq!(bot.standin_records()[1].cwd, bot.root().join("blog"));
    bot.audit(&asked)[0].says("command=\"start bl\" project=\"blog\" ");

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
    // `w` is the beginning of only one running project.
    let stopped = said(&bot, &alice, "stop w").await;
    stopped.says("website");
    bot.request(&alice, "stop blog").await;
    bot.wait_until_no_process_is_left().await;
    assert_eq!(bot.standin_starts(), 2);
    let status = said(&bot, &alice, "status").await;
    // Found projects without a session are not in the status.
    status.lacks("website");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_folder_keeps_its_session_also_when_the_bot_is_restarted() {
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
    // A session whose folder exists has the settings of its root again, which restart it.
    bot.kill_9();
    bot.end_process(bot.standin_records()[1].pid).await;
    bot.run();
    bot.wait_until_ready(&alice).await;
    until("the session is restarted", || bot.standin_starts() == 3).await;
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
async fn a_folder_with_an_invalid_name_is_counted_and_its_start_says_why() {
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
async fn a_missing_root_is_reported_and_its_sessions_stay() {
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
    lines[0].is("configured: not trusted by claude yet");
    lines[1].is("p199: running, branch `main`, not trusted by claude yet");
    lines[2].is("p000: not trusted by claude yet");
    lines[40].begins("And 161 more.");
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

#[test]
fn check_reports_the_projects_of_each_root_and_unreadable_roots() {
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
