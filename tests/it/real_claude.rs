//! The real `claude` from the npm registry, not logged in.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::support::prelude::*;

/// The package on npm.
const PACKAGE: &str = "@anthropic-ai/claude-code";

/// Installs the newest version under target/.
fn install() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("claude-code");
    fs::create_dir_all(&folder).unwrap();
    let newest = npm(&["view", PACKAGE, "version"]);
    // Without a version npm installs the newest one that supports this node, although the program needs none.
    let package = format!("{PACKAGE}@{}", newest.trim());
    npm(&[
        "install",
        "--no-audit",
        "--no-fund",
        "--prefix",
        folder.to_str().unwrap(),
        &package,
    ]);
    // The program itself: npm may not run the script that puts it into node_modules/.bin.
    let packages = fs::read_dir(folder.join("node_modules/@anthropic-ai")).unwrap();
    let programs = packages.map(|package| package.unwrap().path().join("claude"));
    let mut programs = programs.filter(|program| program.is_file());
    programs.next().expect("the package for this machine")
}

fn npm(arguments: &[&str]) -> String {
    let ran = Command::new("npm").args(arguments).output();
    let ran = ran.expect("npm is needed for the real claude");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    String::from_utf8(ran.stdout).unwrap()
}

/// The program's stderr and exit code without a login.
fn refusal(program: &Path, standin: &str) -> (String, Option<i32>) {
    let home = tempfile::tempdir().unwrap();
    let ran = Command::new(program)
        .args(["remote-control", "--spawn=same-dir"])
        .env_clear()
        .env("HOME", home.path())
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("RCBOT_STANDIN", standin)
        .current_dir(home.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (String::from_utf8(ran.stderr).unwrap(), ran.status.code())
}

#[test]
#[ignore = "needs the real claude, which npm installs under target/ (about 400 MB)"]
fn the_stand_in_says_what_the_real_claude_says_without_a_login() {
    let standin = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/claude");
    assert_eq!(
        refusal(&standin, "complaint=login"),
        refusal(&install(), "")
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the real claude, which npm installs under target/ (about 400 MB)"]
async fn the_real_claude_without_a_login_is_reported_as_such_with_its_remedy() {
    let claude = install();
    let alice = person("alice").await;
    // A home directory without a login, also if the user who runs the test has one.
    let home = tempfile::tempdir().unwrap();
    let bot = bot()
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
    answer.begins("website did not start. Probable cause: claude is not logged in.\n");
    let said = "website: the last lines that it printed, as of ";
    let word = bot.private_message(&alice, said).await;
    eprintln!("{}", word.body().unwrap());
    assert!(bot.links_of(&alice).is_empty());
}
