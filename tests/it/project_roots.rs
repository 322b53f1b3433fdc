//! Each folder below a project root is a project: it starts by its name, in that folder and nowhere else.

use std::{fs, os::unix::fs::symlink};

use crate::support::{host::Host, prelude::*};

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_below_a_root_starts_by_its_name_and_by_the_beginning_of_it() {
    let alice = person("alice").await;
    let bot = bot()
        .root(&[
            "website/docs",
            "wiki",
            "notes",
            "my site",
            "naïve",
            "-x",
            ".hidden",
        ])
        .start(&alice)
        .await;
    let root = bot.root();
    let outside = root.with_file_name("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, root.join("link")).unwrap();
    symlink("website/docs", root.join("within")).unwrap();
    let git = root.join("website/.git");
    fs::create_dir(&git).unwrap();
    fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();

    bot.start_session(&alice, "website").await;
    let which = bot.request(&alice, "start w").await;
    which.is("Which project? Say `!rc start` and one of: `website`, `wiki`, `within`.");
    // A new folder.
    fs::create_dir(root.join("blog")).unwrap();
    let asked = bot.send(&alice, "start bl").await;
    bot.answer(&alice, &asked).await;
    bot.wait_for_state("blog", "running").await;
    bot.audit(&asked)[0].says("command=\"start bl\" project=\"blog\" ");
    bot.start_session(&alice, "within").await;
    let folders = ["website", "blog", "website/docs"].map(|folder| root.join(folder));
    let started_in = || bot.standin_records().into_iter().map(|record| record.cwd);
    assert!(started_in().eq(folders), "{:?}", bot.standin_records());

    let listed = bot.request(&alice, "projects").await;
    for part in [
        "website: running, branch `main`, not trusted by claude yet",
        "Folders with names that cannot be a project's: 3. Letters, digits, `-`, `_` and `.` can: ",
        "Symbolic links that lead out of their project root, and are no projects: 1.",
    ] {
        listed.says(part);
    }
    listed.lacks("my site");
    for (folder, refusal) in [
        ("nothing", "There is no project `nothing`"),
        ("..", "There is no project"),
        (".hidden", "There is no project"),
        ("../src/notes", "There is no project"),
        ("link", "There is no project `link`"),
        ("naïve", "It cannot be one: a project's name is "),
        ("\"my site\"", "It cannot be one: a project's name is "),
        (
            "my site",
            "takes fewer words than that. The name of a session goes in quotes: `--name ",
        ),
    ] {
        bot.says(&alice, &format!("start {folder}"), refusal).await;
    }
    assert_eq!(bot.standin_starts(), 3);

    for project in ["within", "blog"] {
        bot.request(&alice, &format!("stop {project}")).await;
    }
    // `w` is the beginning of only one running project.
    bot.says(&alice, "stop w", "website stopped").await;
    bot.wait_until_no_process_is_left().await;
    let listed = bot.request(&alice, "projects web").await;
    listed.begins("website: branch `main`, not trusted by claude yet, last used ");
    // Found projects without a session are not in the status.
    bot.request(&alice, "status").await.lacks("website");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_folder_or_root_keeps_its_sessions_also_when_the_bot_is_restarted() {
    let alice = person("alice").await;
    let mut bot = bot()
        .root(&["website", "api", "wiki"])
        .project("named", |project| project)
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
    let two_run = |status: &Event| status.body().unwrap().matches("running since").count() == 2;
    let status = bot.request(&alice, "status").await;
    assert!(two_run(&status), "{status}");
    // A session whose folder exists has the settings of its root again, which restart it.
    bot.kill_9();
    bot.end_process(bot.standin_records()[1].pid).await;
    bot.run();
    bot.wait_until_ready(&alice).await;
    until("the session is restarted", || bot.standin_starts() == 3).await;
    assert_eq!(bot.standin_records()[2].cwd, bot.root().join("api"));
    bot.request(&alice, "stop website").await;
    let refusal = "There is no project `website`";
    bot.says(&alice, "start website", refusal).await;

    fs::rename(bot.root(), bot.root().with_file_name("away")).unwrap();
    let listed = bot.request(&alice, "projects").await;
    listed.begins("named: not trusted by claude yet\napi: running");
    listed.says("1 of the project roots cannot be read");
    bot.wait_for_log("project root cannot be read").await;
    let refusal = "There is no project `wiki` that I can see, but not all of the project roots can be read now";
    bot.says(&alice, "start wiki", refusal).await;
    bot.start_session(&alice, "named").await;
    let status = bot.request(&alice, "status").await;
    assert!(two_run(&status), "{status}");
    assert_eq!(bot.standin_starts(), 4);
    fs::rename(bot.root().with_file_name("away"), bot.root()).unwrap();
    bot.start_session(&alice, "wiki").await;
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
