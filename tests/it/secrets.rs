//! A secret is where it belongs, and nowhere else: not in a log at any level, not in a process's arguments or environment,
//! not in a file that others can read.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::Path,
};

use nix::unistd::Pid;
use procfs::process::all_processes;

use crate::support::{all_in, appservice::Tokens, files_in, prelude::*};

/// How every PNG begins.
const PNG: &[u8] = b"\x89PNG";

/// A title of another conversation, which the stand-in prints as a hyperlink.
const TITLE: &str = "session_01StandInTitle";

/// A secret to look for. Where it is found, only its name is shown.
struct Secret {
    name: &'static str,
    text: String,
    /// Where it may be: the beginning of the path below the data directory.
    home: Option<&'static str>,
}

impl Secret {
    fn new(name: &'static str, text: &str, home: impl Into<Option<&'static str>>) -> Self {
        assert!(text.len() > 15, "the {name} could be found by chance");
        let (text, home) = (text.to_owned(), home.into());
        Self { name, text, home }
    }

    fn is_in(&self, content: &[u8]) -> bool {
        memchr::memmem::find(content, self.text.as_bytes()).is_some()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_user_on_the_host_reads_no_link_and_no_token() {
    let log = assert_main_job_keeps_its_secrets(bot(), &[], 0).await;
    assert!(log.contains("TRACE matrix_sdk") && log.contains("TRACE hyper_util"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_log_in_no_secret_is_where_it_does_not_belong_nor_in_a_log_for_machines() {
    let builder = bot().without_log_in(homeserver());
    let arguments = ["--log-format", "json"];
    let log = assert_main_job_keeps_its_secrets(builder, &arguments, 1).await;
    let is_object = |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|it| it.is_object());
    assert!(log.lines().all(is_object));
    assert!(log.contains("\"level\":\"TRACE\""));
}

/// Does the main job with all logging on, and looks for every secret where it must not be. `registration`: the index of the
/// bot's registration at the homeserver. Returns the log.
async fn assert_main_job_keeps_its_secrets(
    builder: BotBuilder,
    arguments: &[&'static str],
    registration: usize,
) -> String {
    let [alice, bob] = [person("alice").await, person("bob").await];
    let (input, variable) = (random_text().repeat(2), random_text().repeat(2));
    let mut bot = builder
        .log_filter("trace")
        .project("website", |project| {
            project
                .standin("fork=1")
                .environment("SECRET_OF_SESSION", &variable)
                .set("stdin", format!("y\n{input}\n"))
        })
        .invite(bob.user_id())
        .prepare(&alice)
        .await;
    bot.arguments = arguments.to_vec();
    bot.run();
    bot.wait_until_ready(&alice).await;

    bot.request(&bob, "start").await;
    let first = bot.start_session(&alice, "website").await;
    bot.request(&alice, "logs").await;
    bot.private_message(&alice, "the last lines").await;
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &first).await;
    let recovery_key = fs::read_to_string(bot.data_dir().join("matrix/recovery-key")).unwrap();
    bot.set_variable("RCBOT_RECOVERY_KEY", recovery_key.trim());
    bot.restart(&alice).await;
    let second = bot.start_session(&alice, "website").await;
    bot.request(&alice, "status").await;

    let mut secrets = registered_secrets(registration);
    secrets.extend(access_token(&bot));
    let output = "sessions/website/stdout.log";
    secrets.extend([
        Secret::new("first link", secret_part(&first.link), output),
        Secret::new(
            "second link",
            secret_part(&second.link),
            "sessions/website/",
        ),
        Secret::new("link of a title", TITLE, output),
        Secret::new("standard input", &input, "sessions/website/stdin"),
        Secret::new("variable", &variable, None),
        Secret::new("recovery key", recovery_key.trim(), "matrix/recovery-key"),
    ]);
    assert_in_no_process(&bot, &secrets);
    let at_home = assert_in_no_other_file(&bot, &secrets);
    for name in ["second link", "standard input", "recovery key"] {
        assert!(at_home.contains(name), "the {name} was not found at home");
    }

    assert!(bot.terminate().await.success());
    for (name, key) in bot.private_keys().await {
        secrets.push(Secret::new(name, &key, "matrix/store/"));
    }
    assert!(secrets.iter().any(|secret| secret.name == "room key"));
    assert_in_no_process(&bot, &secrets);
    assert_in_no_other_file(&bot, &secrets);
    bot.restart(&alice).await;
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &second).await;
    assert!(bot.terminate().await.success());

    assert_in_no_message(&bot, &alice, &secrets);
    assert_in_no_message(&bot, &bob, &secrets);
    assert_unknown_to_homeserver(&bot, &secrets);
    let log = bot.log();
    for secret in &secrets {
        let is_in_log = secret.is_in(log.as_bytes());
        assert!(!is_in_log, "the {} is in the bot's log", secret.name);
    }
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_noise_to_the_homeserver_and_an_ended_session_leaves_no_link_on_disk() {
    let (alice, bot) = alice_and_bot().await;
    let sent = bot.start_session(&alice, "website").await;
    assert_closed_to_others(&bot.data_dir());
    let record = bot.data_dir().join("sessions/website/session.json");
    assert!(fs::read_to_string(&record).unwrap().contains(&sent.link));
    let picture = bot.picture_of(&alice, &sent).await;
    let shown = alice.download(&picture).await;
    let stored = alice.download_as_it_is(&picture).await;
    assert!(shown.starts_with(PNG), "it is one with the key");
    assert_eq!(stored.len(), shown.len(), "it is the same file");

    let key = &picture.json["content"]["file"]["key"]["k"];
    let key = key.as_str().unwrap();
    bot.check_homeserver_never_read(key);
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &picture).await;
    bot.check_homeserver_never_read(key);
    bot.wait_for_redaction(&alice, &sent).await;
    until("the record is gone", || !record.exists()).await;
    let picture = &shown[PNG.len()..];
    let files = files_in(&homeserver().media_folder());
    assert!(!files.is_empty());
    for file in files {
        // The avatars of bots and their thumbnails are there too.
        let content = fs::read(&file).unwrap();
        let found = memchr::memmem::find(&content, picture);
        assert!(found.is_none(), "{} is readable", file.display());
    }
    for file in files_in(&bot.data_dir()) {
        let content = fs::read(&file).unwrap();
        let found = memchr::memmem::find(&content, PNG);
        assert!(found.is_none(), "the picture is in {}", file.display());
    }
}

fn assert_closed_to_others(folder: &Path) {
    let paths = [vec![folder.to_owned()], all_in(folder)].concat();
    assert!(paths.len() > 10, "only {paths:?}");
    for path in paths {
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{mode:o} {}", path.display());
    }
}

fn registered_secrets(registration: usize) -> Vec<Secret> {
    let tokens = Tokens::of(&homeserver().registrations()[registration]);
    vec![
        Secret::new("as_token", &tokens.appservice, None),
        Secret::new("hs_token", &tokens.homeserver, None),
    ]
}

/// None where the homeserver does not log in the bot.
fn access_token(bot: &Bot) -> Option<Secret> {
    let log_in = bot.stored_log_in();
    let token = log_in.get("access_token")?.as_str().unwrap();
    Some(Secret::new("access token", token, "matrix/session.json"))
}

fn secret_part(link: &str) -> &str {
    let (_, secret) = link.split_once("env_").unwrap();
    secret
}

/// Looks at every process that we can read. The sessions have the variable of the configuration, and the bot has the recovery
/// key.
fn assert_in_no_process(bot: &Bot, secrets: &[Secret]) {
    let sessions = bot.session_processes();
    assert_eq!(sessions.len(), 2);
    for process in all_processes().unwrap().flatten() {
        let folder = Path::new("/proc").join(process.pid().to_string());
        // Gone meanwhile, or somebody else's.
        let read = |file| fs::read(folder.join(file)).unwrap_or_default();
        let (arguments, environment) = (read("cmdline"), read("environ"));
        let is_session = sessions.contains(&Pid::from_raw(process.pid()));
        assert!(!is_session || !environment.is_empty());
        let config = bot.config_path();
        let is_bot = memchr::memmem::find(&arguments, config.as_os_str().as_bytes()).is_some();
        for secret in secrets {
            let Secret { name, .. } = secret;
            assert!(
                !secret.is_in(&arguments),
                "the {name} is in the arguments of {}",
                process.pid()
            );
            let may_have =
                (*name == "variable" && is_session) || (*name == "recovery key" && is_bot);
            assert!(
                may_have || !secret.is_in(&environment),
                "the {name} is in the environment of {}",
                process.pid()
            );
        }
    }
}

/// Looks at every file of the bot. Returns the names of the secrets that are where they belong.
fn assert_in_no_other_file(bot: &Bot, secrets: &[Secret]) -> BTreeSet<&'static str> {
    let folder = bot.data_dir();
    let mut at_home = BTreeSet::new();
    for file in files_in(&folder) {
        // It may be gone meanwhile.
        let content = fs::read(&file).unwrap_or_default();
        let place = file.strip_prefix(&folder).unwrap().to_str().unwrap();
        for secret in secrets.iter().filter(|secret| secret.is_in(&content)) {
            let is_home = secret.home.is_some_and(|home| place.starts_with(home));
            assert!(is_home, "the {} is in {place}", secret.name);
            at_home.insert(secret.name);
        }
    }
    at_home
}

/// Links may be in direct messages; no other secret may be in a message.
fn assert_in_no_message(bot: &Bot, person: &Person, secrets: &[Secret]) {
    for event in person.events() {
        let json = event.json.to_string();
        for secret in secrets {
            let may_be = secret.name.ends_with(" link") && event.room != bot.admin_room();
            assert!(
                may_be || !secret.is_in(json.as_bytes()),
                "the {} is in {event}",
                secret.name
            );
        }
    }
}

/// Looks at the homeserver's database and log. Its database has the access token, which it issued.
fn assert_unknown_to_homeserver(bot: &Bot, secrets: &[Secret]) {
    let log = homeserver().log_path();
    for file in &bot.homeserver_files {
        for secret in secrets {
            let may_know = secret.name == "access token" && file.path != log;
            assert!(
                may_know || !file.contains(secret.text.as_bytes()),
                "the {} is in {}",
                secret.name,
                file.path.display()
            );
        }
    }
}
