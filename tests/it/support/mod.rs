//! What the tests stand on: a real Synapse, people with their own clients, and the real bot.

pub(crate) mod appservice;
pub(crate) mod bot;
pub(crate) mod bot_builder;
pub(crate) mod checkup;
pub(crate) mod conversation;
pub(crate) mod device;
pub(crate) mod event;
pub(crate) mod homeserver;
pub(crate) mod host;
pub(crate) mod impostor;
pub(crate) mod listen;
pub(crate) mod mounts;
pub(crate) mod person;
pub(crate) mod picture;
pub(crate) mod processes;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod rooms;
pub(crate) mod says;
pub(crate) mod standin;
pub(crate) mod synapse;

/// What nearly every test names.
pub(crate) mod prelude {
    pub(crate) use serde_json::{Value, json};

    pub(crate) use super::{
        alice_and_bot, behind_proxy, bot,
        bot::Bot,
        bot_builder::BotBuilder,
        conversation::LinkMessage,
        event::Event,
        eventually, homeserver, person,
        person::{CrossSigning, Person, random_text},
        person_without_identity,
        proxy::{Answer, Proxy, Request, elsewhere, in_room},
        says::Says,
        standin::standin_program,
        until,
    };
}

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt as _,
    panic::Location,
    path::{Path, PathBuf},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::json;

use bot::Bot;
use bot_builder::BotBuilder;
use homeserver::{Homeserver, SERVER_NAME};
use person::{CrossSigning, Person, random_text};
pub(crate) use program::run_to_end;
use proxy::Proxy;
use synapse::install_synapse;

/// How long a fact may take to become true: seconds at most, and more on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// How soon it is looked at again: what takes long is looked at less often.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How the localparts of the bots begin that the homeserver does not log in.
const LOCALPART_WITHOUT_LOG_IN: &str = "masbot";

/// The homeserver of the test that asks, started by the first one that does. There are two: each is one thread of Python, and the
/// tests that run at a time keep more than one such thread busy.
pub(crate) fn homeserver() -> &'static Homeserver {
    static SHARED: [LazyLock<anyhow::Result<(Homeserver, File)>>; 2] =
        [LazyLock::new(start_shared), LazyLock::new(start_shared)];
    let thread = thread::current();
    let test = thread.name().unwrap_or_default();
    assert_ne!(test, "tokio-rt-worker", "only the test itself has its name");
    let sum: usize = test.bytes().map(usize::from).sum();
    match &*SHARED[sum % SHARED.len()] {
        Ok((homeserver, _lock)) => homeserver,
        Err(error) => panic!("{error:#}"),
    }
}

fn start_shared() -> anyhow::Result<(Homeserver, File)> {
    let (folder, lock) = homeserver_folder()?;
    Ok((start_homeserver(&folder)?, lock))
}

/// Somebody on the test's homeserver, `<name>-<random>`, with a cross-signing identity.
pub(crate) async fn person(name: &str) -> Person {
    Person::register(homeserver(), name).await.unwrap()
}

/// The same, without such an identity.
pub(crate) async fn person_without_identity(name: &str) -> Person {
    let person = Person::register_with(homeserver(), name, CrossSigning::Without);
    person.await.unwrap()
}

/// A bot to be, with its own user on the test's homeserver.
pub(crate) fn bot() -> BotBuilder {
    BotBuilder::new(homeserver())
}

/// An administrator, and a bot that has nothing special.
pub(crate) async fn alice_and_bot() -> (Person, Bot) {
    let alice = person("alice").await;
    let bot = bot().start(&alice).await;
    (alice, bot)
}

/// An administrator, and a bot that sees the homeserver through a proxy.
pub(crate) async fn behind_proxy(
    configure: impl FnOnce(BotBuilder) -> BotBuilder,
) -> (Person, Proxy, Bot) {
    let (alice, proxy) = (person("alice").await, Proxy::start(homeserver()).await);
    let bot = configure(bot().through(&proxy)).start(&alice).await;
    (alice, proxy, bot)
}

/// A homeserver of the caller's own, for tests that stop it. It keeps its files in `folder`.
pub(crate) fn start_homeserver(folder: &Path) -> anyhow::Result<Homeserver> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let target = target.context("cargo's folder does not lie under target/")?;
    let python = install_synapse(target, &|step| eprintln!("{step}"))?;
    fs::create_dir_all(folder)?;
    let registration = folder.join("registration.yaml");
    write_registration(&registration, "rcbot", false)?;
    let without_log_in = folder.join("registration-without-log-in.yaml");
    write_registration(&without_log_in, LOCALPART_WITHOUT_LOG_IN, true)?;
    Homeserver::start(&python, folder, &[registration, without_log_in])
}

/// Waits until `look` finds something. Panics in the caller's place, with `what`, when it does not in time.
#[track_caller]
pub(crate) fn eventually<T>(
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        let deadline = Instant::now() + DEADLINE;
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "{caller}: not within {DEADLINE:?}: {what}"
            );
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 5 / 4);
        }
    }
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
    eventually(what, async move || holds().then_some(()))
}

/// All that is in a folder and in the folders in it. What is gone meanwhile is left out.
pub(crate) fn all_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let all = paths.flat_map(|path| [all_in(&path), vec![path]].concat());
    all.collect()
}

/// The files among it.
pub(crate) fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut paths = all_in(folder);
    paths.retain(|path| path.is_file());
    paths
}

/// The first folder that no other run uses. Its files stay after the run, to be read, and are replaced by the next; the lock
/// lasts as long as the process.
fn homeserver_folder() -> anyhow::Result<(PathBuf, File)> {
    for number in 0..u8::MAX {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("homeserver-{number}"));
        let lock = File::create(folder.with_extension("lock"))?;
        if lock.try_lock().is_ok() {
            if folder.exists() {
                fs::remove_dir_all(&folder)?;
            }
            return Ok((folder, lock));
        }
    }
    bail!("too many test runs at the same time")
}

/// One appservice for the bots of all tests, and one for those that are not logged in: their namespaces are wider than that
/// of a real one.
fn write_registration(path: &Path, localpart: &str, device_management: bool) -> anyhow::Result<()> {
    let registration = json!({
        "id": format!("{localpart}-tests"),
        "url": null,
        "as_token": format!("as-{}{}{}", random_text(), random_text(), random_text()),
        "hs_token": format!("hs-{}{}{}", random_text(), random_text(), random_text()),
        "sender_localpart": format!("_{localpart}_appservice"),
        "rate_limited": false,
        // What Synapse assumes of every appservice once it has Matrix Authentication Service.
        "io.element.msc4190": device_management,
        "namespaces": {
            "users": [{ "exclusive": true, "regex": format!("@{localpart}-[a-z-]+:{}", regex::escape(SERVER_NAME)) }],
            "aliases": [],
            "rooms": [],
        },
    });
    fs::write(path, serde_yaml::to_string(&registration)?)?;
    Ok(fs::set_permissions(path, Permissions::from_mode(0o600))?)
}
