//! The real `claude`, as the npm registry has it, with nobody logged in.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::support::{bot::Bot, homeserver, person};

/// The package, as its makers publish it.
const PACKAGE: &str = "@anthropic-ai/claude-code";

/// Installs it under target/, once for all runs.
fn install() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("claude-code");
    let program = folder.join("node_modules/.bin/claude");
    if !program.exists() {
        fs::create_dir_all(&folder).unwrap();
        let installed = Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--prefix"])
            .arg(&folder)
            .arg(PACKAGE)
            .output()
            .expect("npm is needed for the real claude");
        let said = String::from_utf8_lossy(&installed.stderr);
        assert!(installed.status.success(), "{said}");
    }
    program
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the real claude, which npm installs under target/ (about 200 MB)"]
async fn the_real_claude_without_a_login_is_told_as_that_with_its_remedy() {
    let claude = install();
    let alice = person("alice").await;
    // Nobody is logged in there, whoever runs this test.
    let home = tempfile::tempdir().unwrap();
    let bot = Bot::builder(homeserver())
        .configure(|config| {
            let command = json!([claude, "remote-control", "--spawn=same-dir"]);
            config["sessions"]["command"] = command;
        })
        .project("website", |project| {
            project.environment("HOME", home.path())
        })
        .start(&alice)
        .await;
    let answer = bot.request(&alice, "start").await;
    assert_eq!(
        answer.body(),
        Some(
            "Failed to start website: the process ended before it showed a link (exit code 1). Probable cause: claude is not \
             logged in. To fix it: run `claude auth login` on the host as the user that the bot runs as."
        )
    );
    let said = "The last lines that the session for website printed:";
    let word = bot.private_message(&alice, said).await;
    eprintln!("{}", word.body().unwrap());
    assert!(bot.links_of(&alice).is_empty());
}
