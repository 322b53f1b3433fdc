//! As a systemd service: notifications, the journal, and restarts with running sessions; and the files in deploy/.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{ErrorKind, Write as _},
    os::unix::{fs::MetadataExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use procfs::process::Process;
use tempfile::TempDir;

use crate::support::{
    files_in,
    host::set_mode,
    prelude::*,
    program::{Ended as _, isolate, rcbot},
};

/// A service manager that records the notifications it gets.
struct ServiceManager {
    folder: TempDir,
    heard: Arc<Mutex<String>>,
}

impl ServiceManager {
    fn listen() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        let heard = Arc::new(Mutex::new(String::new()));
        let received = Arc::clone(&heard);
        thread::spawn(move || {
            let mut datagram = [0; 4096];
            while let Ok(length) = socket.recv(&mut datagram) {
                let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
                received.lock().unwrap().push_str(&text);
            }
        });
        Self { folder, heard }
    }

    /// A bot that notifies this service manager, also by its watchdog.
    async fn bot(&self, builder: BotBuilder, admin: &Person) -> Bot {
        let mut bot = builder.prepare(admin).await;
        let socket = self.folder.path().join("notify");
        bot.set_variable("NOTIFY_SOCKET", socket.to_str().unwrap());
        bot.set_variable("WATCHDOG_USEC", "200000");
        bot
    }

    fn heard(&self) -> String {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until it has got a line this many times.
    async fn wait_for(&self, line: &str, times: usize) {
        let what = format!("{line:?} at the service manager");
        let count = || self.heard().lines().filter(|heard| *heard == line).count();
        until(&what, || count() >= times).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_ready_once_the_homeserver_answers_and_reports_its_status() {
    let (alice, proxy) = (person("alice").await, Proxy::start(homeserver()).await);
    let systemd = ServiceManager::listen();
    let mut bot = systemd.bot(bot().through(&proxy), &alice).await;
    proxy.unplug();
    bot.run();
    let status = async |text: &str| systemd.wait_for(&format!("STATUS={text}"), 1).await;
    status("no session; waiting for the homeserver").await;
    // The watchdog is notified while the bot waits.
    systemd.wait_for("WATCHDOG=1", 3).await;
    systemd.heard().lacks("READY=1");
    // It can be ended while it waits.
    assert!(bot.terminate().await.success());
    bot.run();

    proxy.plug_in();
    systemd.wait_for("READY=1", 1).await;
    status("no session; homeserver answers").await;
    bot.wait_until_ready(&alice).await;
    bot.start_session(&alice, "website").await;
    status("1 session; homeserver answers").await;
    proxy.unplug();
    status("1 session; waiting for the homeserver").await;
    assert!(bot.terminate().await.success());
    systemd.wait_for("STOPPING=1", 2).await;
    assert_eq!(systemd.heard().matches("READY=1").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_service_leaves_the_whole_process_tree_of_a_session() {
    let alice = person("alice").await;
    let systemd = ServiceManager::listen();
    let builder = bot().project("website", |project| project.standin("fork=3"));
    let mut bot = systemd.bot(builder, &alice).await;
    bot.run();
    bot.wait_until_ready(&alice).await;
    let sent = bot.start_session(&alice, "website").await;
    let all_run = || bot.session_processes().len() == 4;
    until("the stand-in and its children", all_run).await;
    let (processes, device) = (bot.session_processes(), bot.devices(&alice).await);
    for variable in &bot.standin_records()[0].environment {
        let of_systemd = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM"];
        assert!(!of_systemd.contains(&variable.as_str()), "{variable}");
    }

    // With KillMode=process only the main process gets a signal: that of a stop, of the watchdog, or SIGKILL.
    let signals = [Signal::SIGTERM, Signal::SIGABRT, Signal::SIGKILL];
    for (signal, starts) in signals.into_iter().zip(2..) {
        bot.signal(signal).await;
        assert_eq!(bot.session_processes(), processes, "{signal}");
        bot.run();
        systemd.wait_for("READY=1", starts).await;
        assert_eq!(bot.session_processes(), processes, "{signal}");
    }
    bot.wait_until_ready(&alice).await;
    assert_eq!(bot.devices(&alice).await, device, "it is the same device");
    let again = bot.start_session(&alice, "website").await;
    assert_eq!((&again.link, again.room()), (&sent.link, sent.room()));
    assert_eq!(bot.standin_starts(), 1);
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &sent).await;
    bot.wait_for_redaction(&alice, &again).await;
    assert!(bot.session_processes().is_empty());
}

/// The value of `JOURNAL_STREAM` for a stream that leads to the journal.
fn journal_stream(stream: &File) -> String {
    let file = stream.metadata().unwrap();
    format!("{}:{}", file.dev(), file.ino())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_gets_lines_with_a_priority_and_the_reason_of_an_end_as_an_error_and_a_status()
{
    let alice = person("alice").await;
    let systemd = ServiceManager::listen();
    let mut first = systemd.bot(bot(), &alice).await;
    first.run();
    systemd.wait_for("READY=1", 1).await;
    let path = first.data_dir().with_file_name("journal");
    // The log of a second bot on the same files, which ends at once.
    let log_of_second = |stream: &dyn Fn(&File) -> String| {
        let stderr = File::create(&path).unwrap();
        let mut second = first.command("run");
        second
            .env("NOTIFY_SOCKET", systemd.folder.path().join("notify"))
            .env("JOURNAL_STREAM", stream(&stderr))
            .env("RUST_LOG", "rcbot=info")
            .stderr(stderr);
        let status = second.stdin(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(1));
        fs::read_to_string(&path).unwrap()
    };
    let log = log_of_second(&journal_stream);
    log.says("<4> WARN rcbot::cli: ");
    assert!(log.lines().all(|line| line.starts_with('<')), "{log}");
    let line = log.lines().last().unwrap();
    let why = line.strip_prefix("<3>rcbot: ").unwrap();
    why.begins("another rcbot runs with the data directory");
    let (_, named) = why.split_once("(process ").unwrap();
    let (pid, _) = named.split_once(';').unwrap();
    let named = Process::new(pid.parse().unwrap()).unwrap();
    let config = first.config_path().into_os_string().into_string().unwrap();
    assert!(named.cmdline().unwrap().contains(&config), "{why}");
    systemd.wait_for(&format!("STATUS={why}"), 1).await;

    // A variable with another stream has no effect.
    let log = log_of_second(&|_| "1:2".to_owned());
    log.says("Z  WARN rcbot::cli: ");
    log.lacks("<4>");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_terminal_ends_the_bot_in_order_unless_run_by_nohup() {
    let alice = person("alice").await;
    let systemd = ServiceManager::listen();
    let bot = systemd.bot(bot(), &alice).await;
    let socket = systemd.folder.path().join("notify");
    let run_by = |program: &[&str]| {
        let run = bot.command("run");
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(run.get_program());
        command.args(run.get_args()).env_clear();
        let variables = run.get_envs();
        command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
        command.env("NOTIFY_SOCKET", &socket);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null()).spawn().unwrap()
    };

    // Tests that are run by nohup inherit the ignored signal.
    let mut process = run_by(&["env", "--default-signal=HUP"]);
    systemd.wait_for("READY=1", 1).await;
    let pid = Pid::from_raw(process.id().cast_signed());
    kill(pid, Signal::SIGHUP).unwrap();
    systemd.wait_for("STOPPING=1", 1).await;
    assert!(process.wait().unwrap().success());

    let mut process = run_by(&["nohup"]);
    systemd.wait_for("READY=1", 2).await;
    let status = Process::new(process.id().cast_signed()).unwrap().status();
    let hangup = 1 << (Signal::SIGHUP as u64 - 1);
    assert_ne!(status.unwrap().sigign & hangup, 0);
    process.kill().unwrap();
    process.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_that_is_down_when_the_service_starts_is_logged_in_one_line() {
    let filter = "warn,rcbot=info,matrix_sdk::http_client=off";
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot.log_filter(filter)).await;
    for (starts, is_there) in [(1, false), (2, true)] {
        bot.wait_until_connected(starts).await;
        bot.kill_9();
        let before = bot.log();
        // Either nothing answers, or a reverse proxy does.
        if is_there {
            proxy.on(|_| true).answer(Answer::error_page(503));
        } else {
            proxy.unplug();
        }
        let tries = || proxy.refused_connections() + proxy.passed().len();
        let earlier = tries();
        bot.run();
        until("further tries", || tries() >= earlier + 12).await;
        let log = bot.log();
        let (_, log) = log[before.len()..].split_once("rcbot starts").unwrap();
        let mut complaints: Vec<_> = log.lines().collect();
        complaints.retain(|line| line.contains(" WARN ") || line.contains("ERROR "));
        // Where nothing answers, that is logged too, once.
        let is_reached = |line: &&str| !line.contains("the homeserver cannot be reached");
        let (waits, unreachable): (Vec<_>, Vec<_>) = complaints.into_iter().partition(is_reached);
        assert!(waits.len() == 1 && unreachable.len() <= 1, "{log}");
        assert_eq!(unreachable.is_empty(), is_there, "{log}");
        waits[0].says("waiting for the homeserver");
        proxy.be_honest();
        proxy.plug_in();
    }
    bot.wait_until_connected(3).await;
    bot.start_session(&alice, "website").await;
}

#[test]
fn the_units_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    for (unit, drop_in, options) in [
        ("rcbot.service", None, &[][..]),
        ("rcbot.service", Some("rcbot.service.d/no-root.conf"), &[]),
        ("rcbot.user.service", None, &["--user"]),
        ("stop-rcbot-sessions.service", None, &[]),
    ] {
        let unit = lay_out(folder.path(), unit, drop_in);
        assert_valid(folder.path(), options, &unit);
    }
}

#[test]
fn the_units_that_rcbot_service_writes_are_valid_however_the_paths_are_spelt() {
    let home = TempDir::with_prefix("rcbot 100% $HOME \"é\" '-").unwrap();
    let home = home.path();
    fs::write(
        home.join("config.yaml"),
        "homeserver: { url: http://127.0.0.1:9, server_name: example.org }\n\
         admin_room: \"#admins:example.org\"\n\
         authorization: { users: [\"@alice:example.org\"] }\n\
         projects: { website: { directory: . } }\n",
    )
    .unwrap();
    for (mode, options) in [("--run-as=daemon", &[][..]), ("--user", &["--user"])] {
        let mut service = rcbot(home);
        service.args(["service", "--print", mode, "--config"]);
        let output = service.arg(home.join("config.yaml")).output().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let unit = folder.path().join("rcbot.service");
        fs::write(&unit, output.succeeded()).unwrap();
        set_mode(&unit, 0o644);
        assert_valid(folder.path(), options, &unit);
    }
}

#[test]
fn a_unit_without_root_is_less_exposed() {
    let folder = tempfile::tempdir().unwrap();
    let exposure = |drop_in| {
        let unit = lay_out(folder.path(), "rcbot.service", drop_in);
        let output = systemd_analyze(folder.path(), &[], &["security", "--offline=yes"], &unit)?;
        let said = output.text();
        let before = "Overall exposure level for rcbot.service: ";
        let (_, level) = said.split_once(before).unwrap();
        let level = level.split(' ').next().unwrap();
        Some(level.parse::<f32>().unwrap())
    };
    let Some(as_it_is) = exposure(None) else {
        return;
    };
    let without_root = exposure(Some("rcbot.service.d/no-root.conf")).unwrap();
    assert!(without_root < as_it_is, "{without_root} and {as_it_is}");
}

#[test]
fn both_units_run_the_bot_in_the_same_way_and_stop_only_it() {
    let (mut system, mut user) = (service("rcbot.service"), service("rcbot.user.service"));
    assert_eq!(system["KillMode"], "process");
    assert_eq!(system["Type"], "notify");
    assert_eq!(system["RestartPreventExitStatus"], "2 3");
    for key in ["ExecStart", "Environment"] {
        let home = |value: String| value.replace("/home/alice", "%h");
        assert_eq!(home(system.remove(key).unwrap()), user.remove(key).unwrap());
    }
    assert_eq!(system.remove("User").as_deref(), Some("alice"));
    assert_eq!(system, user);
}

/// Building an image takes a container engine and the network; this only checks what it copies.
#[test]
fn the_container_copies_all_that_cargo_needs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(deployment("Containerfile")).unwrap();
    let copied = text.lines().filter_map(|line| line.strip_prefix("COPY "));
    for words in copied.filter(|words| !words.starts_with("--from=")) {
        let sources = words.rsplit_once(' ').unwrap().0;
        let copying = Command::new("cp")
            .arg("-r")
            .args(sources.split(' ').map(|source| root.join(source)))
            .arg(folder.path())
            .status();
        assert!(copying.unwrap().success(), "{words}");
    }
    for included in included_files(&root.join("src")) {
        let file = included.strip_prefix(root).unwrap();
        assert!(folder.path().join(file).exists(), "{}", file.display());
    }
    let metadata = "metadata --locked --offline --no-deps --format-version=1";
    let output = Command::new(env!("CARGO"))
        .args(metadata.split(' '))
        .current_dir(folder.path())
        .output();
    output.unwrap().succeeded();
}

/// The files that the source includes with `include_str!` and `include_bytes!`, except those of tests.
fn included_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in files_in(folder) {
        let mut names = path.strip_prefix(folder).unwrap().iter();
        let is_test = names.any(|name| name == "tests" || name == "tests.rs");
        if is_test || path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let names = ["include_str!(\"", "include_bytes!(\""]
            .iter()
            .flat_map(|macro_call| code.split(macro_call).skip(1));
        let names = names.filter_map(|rest| rest.split_once('"'));
        files.extend(names.map(|(name, _)| path.with_file_name(name).canonicalize().unwrap()));
    }
    files
}

fn deployment(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(name)
}

/// The section `[Service]` of a unit.
fn service(unit: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(deployment(unit)).unwrap();
    let section = text
        .split("\n[")
        .find_map(|text| text.strip_prefix("Service]\n"));
    let lines = section.unwrap().lines();
    lines
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Writes a unit that runs the program of this test.
fn lay_out(folder: &Path, unit: &str, drop_in: Option<&str>) -> PathBuf {
    let text = fs::read_to_string(deployment(unit)).unwrap();
    let path = folder.join(unit);
    let program = env!("CARGO_BIN_EXE_rcbot");
    fs::write(&path, text.replace("/usr/local/bin/rcbot", program)).unwrap();
    // Independent of the umask: systemd warns of units that others can write.
    set_mode(&path, 0o644);
    if let Some(drop_in) = drop_in {
        fs::create_dir_all(folder.join(drop_in).parent().unwrap()).unwrap();
        fs::copy(deployment(drop_in), folder.join(drop_in)).unwrap();
        set_mode(&folder.join(drop_in), 0o644);
    }
    path
}

/// Asserts that systemd accepts a unit without a warning, if systemd is installed.
#[track_caller]
fn assert_valid(folder: &Path, options: &[&str], unit: &Path) {
    if let Some(output) = systemd_analyze(folder, options, &["verify", "--man=no"], unit) {
        output.succeeded();
        output.is("");
    }
}

/// A variable that permits a machine without systemd.
const WITHOUT_SYSTEMD: &str = "RCBOT_TEST_WITHOUT_SYSTEMD";

/// `None` where systemd is not installed, if [`WITHOUT_SYSTEMD`] permits that.
#[track_caller]
fn systemd_analyze(
    folder: &Path,
    options: &[&str],
    command: &[&str],
    unit: &Path,
) -> Option<Output> {
    let mut analyze = Command::new("systemd-analyze");
    isolate(&mut analyze, folder);
    let output = analyze
        .args(options)
        .args(command)
        .arg(unit)
        .env("XDG_RUNTIME_DIR", folder)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            assert!(
                env::var_os(WITHOUT_SYSTEMD).is_some(),
                "there is no systemd-analyze to try the units with: `apt-get install --no-install-recommends systemd`, or \
                 set {WITHOUT_SYSTEMD}=1 to leave them untried"
            );
            // Not by a macro: the harness hides what a passing test prints.
            let skipped = "not tried, as there is no systemd-analyze: what it says of the units\n";
            std::io::stderr().write_all(skipped.as_bytes()).unwrap();
            None
        }
        Err(error) => panic!("systemd-analyze: {error}"),
    }
}
