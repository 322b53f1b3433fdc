//! A secret is where it belongs, and nowhere else: not in a log at any level, not in a process's arguments or environment,
//! not in a file that others can read.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use procfs::process::all_processes;
use serde_json::Value;

use crate::support::{appservice::Tokens, bot::Bot, homeserver, person::Person};

/// How every PNG begins.
const PNG: &[u8] = b"\x89PNG";

/// A secret with its name, which alone is shown when it is found where it should not be.
type Secret = (&'static str, String);

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_the_main_job_is_in_a_log_a_command_line_or_an_environment() {
    let alice = Person::register(homeserver(), "alice").await.unwrap();
    let mut bot = Bot::builder(homeserver())
        .log_filter("trace")
        .project("website", |project| project.standin("fork=1"))
        .start(&alice)
        .await;
    let sent = bot.start_session(&alice, "website").await;
    bot.restart(&alice).await;
    bot.start_session(&alice, "website").await;
    let secrets = secrets_of(&bot, &sent.link);
    assert_in_no_process(&secrets);
    bot.ask(&alice, "stop").await;
    bot.wait_for_withdrawal(&alice, &sent).await;
    bot.private_word(&alice, "Session for website has ended.")
        .await;
    assert!(bot.terminate().await.success());

    let log = bot.log();
    assert!(
        log.contains("TRACE matrix_sdk"),
        "all that can be logged is logged"
    );
    for (name, secret) in &secrets {
        assert!(!log.contains(secret), "the {name} is in the bot's log");
        // The homeserver gave out the access token itself.
        if *name != "access token" {
            bot.check_homeserver_never_read(secret);
        }
    }
    let homeserver_log = fs::read_to_string(homeserver().log_path()).unwrap();
    for (name, secret) in &secrets {
        assert!(
            !homeserver_log.contains(secret),
            "the {name} is in Synapse's log"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_picture_of_a_link_is_noise_to_the_homeserver_before_and_after_it_is_taken_back() {
    let alice = Person::register(homeserver(), "alice").await.unwrap();
    let bot = Bot::builder(homeserver()).start(&alice).await;
    bot.start_session(&alice, "website").await;
    let picture = bot.picture_after(&alice, 0).await;
    let shown = alice.download(&picture).await;
    let stored = alice.download_as_it_is(&picture).await;
    assert!(
        shown.starts_with(PNG),
        "it is a PNG for whoever has the key"
    );
    assert_eq!(stored.len(), shown.len(), "it is the same file");

    let key = picture.json["content"]["file"]["key"]["k"]
        .as_str()
        .unwrap();
    bot.check_homeserver_never_read(key);
    bot.ask(&alice, "stop").await;
    bot.wait_until_taken_back(&alice, &picture).await;
    bot.check_homeserver_never_read(key);
    let files = files_in(&homeserver().media_folder());
    assert!(!files.is_empty());
    for file in files {
        let content = fs::read(&file).unwrap();
        let found = memchr::memmem::find(&content, PNG);
        assert!(found.is_none(), "{} is readable", file.display());
    }
    for file in files_in(&bot.data_dir()) {
        let content = fs::read(&file).unwrap();
        let found = memchr::memmem::find(&content, PNG);
        assert!(found.is_none(), "the picture is in {}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_the_data_directory_is_open_to_others() {
    let alice = Person::register(homeserver(), "alice").await.unwrap();
    let bot = Bot::builder(homeserver()).start(&alice).await;
    bot.start_session(&alice, "website").await;
    let mut open = Vec::new();
    let files = collect_open_to_others(&bot.data_dir(), &mut open);
    assert!(files > 10, "only {files} files were looked at");
    assert!(open.is_empty(), "open to others: {open:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_session_leaves_no_link_on_disk() {
    let alice = Person::register(homeserver(), "alice").await.unwrap();
    let bot = Bot::builder(homeserver()).start(&alice).await;
    let sent = bot.start_session(&alice, "website").await;
    let record = bot.data_dir().join("sessions/website/session.json");
    assert!(fs::read_to_string(&record).unwrap().contains(&sent.link));
    bot.ask(&alice, "stop").await;
    bot.wait_for_withdrawal(&alice, &sent).await;
    crate::support::eventually("the record is gone", async || {
        (!record.exists()).then_some(())
    })
    .await;
}

fn secrets_of(bot: &Bot, link: &str) -> Vec<Secret> {
    let matrix = bot.data_dir().join("matrix");
    let session = fs::read_to_string(matrix.join("session.json")).unwrap();
    let session: Value = serde_json::from_str(&session).unwrap();
    let access_token = session["access_token"].as_str().unwrap();
    let recovery_key = fs::read_to_string(matrix.join("recovery-key")).unwrap();
    let tokens = Tokens::shared();
    let (_, link) = link.split_once("env_").unwrap();
    let secrets = vec![
        ("link", link.to_owned()),
        ("access token", access_token.to_owned()),
        ("recovery key", recovery_key.trim().to_owned()),
        ("as_token", tokens.appservice),
        ("hs_token", tokens.homeserver),
    ];
    assert!(
        secrets.iter().all(|(_, secret)| secret.len() > 20),
        "{secrets:?}"
    );
    secrets
}

/// Looks at every process that we may look at.
fn assert_in_no_process(secrets: &[Secret]) {
    let mut seen = 0;
    for process in all_processes().unwrap().flatten() {
        let folder = Path::new("/proc").join(process.pid().to_string());
        for file in ["cmdline", "environ"] {
            // Gone meanwhile, or somebody else's.
            let Ok(content) = fs::read(folder.join(file)) else {
                continue;
            };
            seen += 1;
            for (name, secret) in secrets {
                let found = memchr::memmem::find(&content, secret.as_bytes());
                assert!(
                    found.is_none(),
                    "the {name} is in {file} of process {}",
                    process.pid()
                );
            }
        }
    }
    assert!(seen > 0, "no process was looked at");
}

/// Notes what group or others may touch, and returns how many files and folders there are.
fn collect_open_to_others(path: &Path, open: &mut Vec<String>) -> usize {
    let metadata = fs::symlink_metadata(path).unwrap();
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        open.push(format!("{mode:o} {}", path.display()));
    }
    if !metadata.is_dir() {
        return 1;
    }
    let entries = fs::read_dir(path).unwrap();
    1 + entries
        .map(|entry| collect_open_to_others(&entry.unwrap().path(), open))
        .sum::<usize>()
}

/// All files in a folder and in the folders in it. What is gone meanwhile is left out.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            files.extend(files_in(&path));
        } else if path.is_file() {
            files.push(path);
        }
    }
    files
}
