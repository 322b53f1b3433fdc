//! A real Synapse on a free port of 127.0.0.1, with SQLite, no federation and no rate limits. It dies with whoever started it.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    net::TcpListener,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use matrix_sdk::{
    Client,
    reqwest::{self, Method},
    ruma::{
        api::client::{account::register, uiaa},
        assign,
    },
};
use rand::{RngExt as _, distr::Alphanumeric};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde_json::{Value, json};

use super::synapse::Synapse;

/// The name of every test homeserver. Nothing resolves it, and nothing needs to.
pub(crate) const SERVER_NAME: &str = "rcbot.test";

/// How long Synapse may take to answer: 3 s, and more on its first start on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// How often the log is looked at while Synapse starts.
const START_POLL: Duration = Duration::from_millis(10);

/// How many free ports are tried: another process can take a port between its choice and Synapse's use of it.
const PORT_ATTEMPTS: usize = 5;

/// How much of the log an error shows.
const LOG_TAIL_LINES: usize = 25;

/// How much of a file is looked at in one go: what a processor's cache holds.
const PIECE: usize = 256 << 10;

/// Imports Synapse once, which is nine tenths of a start, and forks a homeserver for each folder that is named on standard input;
/// writes its process's id. All of them are gone with it, and it is gone when standard input ends: the other end is held by the
/// process that starts us and by no other, however that ends. (There the kernel's parent-death signal would follow a *thread*.)
///
/// No disk is waited for: what a database loses without, it loses to a power cut and not to the end of its process.
const PARENT: &str = "
import ctypes, gc, os, signal, sys
import synapse.app.homeserver
from synapse.storage.engines import Sqlite3Engine
from twisted.internet import reactor
connected = Sqlite3Engine.on_new_connection
def connect(engine, connection):
    connected(engine, connection)
    connection.execute('PRAGMA synchronous = OFF;')
Sqlite3Engine.on_new_connection = connect
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
# Each homeserver collects garbage once it has started: among what is its own alone.
gc.collect()
gc.freeze()
for folder in sys.stdin:
    process = os.fork()
    if process:
        print(process, flush=True)
        continue
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(folder.rstrip('\\n'))
    log = os.open('homeserver.log', os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream, file in (0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log):
        os.dup2(file, stream)
    # What it watches by is shared with the parent until it is made again.
    reactor.waker = None
    reactor.__init__()
    sys.argv = ['homeserver', '--config-path', 'homeserver.yaml']
    synapse.app.homeserver.main()
    os._exit(0)
";

/// The process that imported Synapse.
#[derive(Debug)]
struct Parent {
    folders: ChildStdin,
    processes: BufReader<ChildStdout>,
}

impl Parent {
    fn start(python: &Path) -> Result<Self> {
        let mut process = Command::new(python)
            .args(["-c", PARENT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C in the terminal is for whoever started us.
            .process_group(0)
            .spawn()
            .context("cannot start Synapse's Python")?;
        Ok(Self {
            folders: process.stdin.take().context("no standard input")?,
            processes: BufReader::new(process.stdout.take().context("no standard output")?),
        })
    }

    /// Starts a homeserver on the files in this folder. Gives back what it is held by: a bare pid may be another process's by
    /// the time that it is signalled.
    fn fork(python: &Path, folder: &Path) -> Result<OwnedFd> {
        static PARENT: Mutex<Option<Parent>> = Mutex::new(None);
        let mut parent = PARENT.lock().unwrap_or_else(PoisonError::into_inner);
        if parent.is_none() {
            *parent = Some(Self::start(python)?);
        }
        let parent = parent.as_mut().context("no parent of homeservers")?;
        writeln!(parent.folders, "{}", folder.display())?;
        let mut process = String::new();
        parent.processes.read_line(&mut process)?;
        let process = process.trim().parse();
        let process = Pid::from_raw(process.context("Synapse cannot be imported")?);
        let process = process.context("Synapse has no process")?;
        pidfd_open(process, PidfdFlags::empty()).context("Synapse ended at once")
    }
}

/// A running Synapse. Killed when dropped; its files stay.
#[derive(Debug)]
pub(crate) struct Homeserver {
    python: PathBuf,
    folder: PathBuf,
    registrations: Vec<PathBuf>,
    port: u16,
    process: Option<OwnedFd>,
}

/// A file in which a homeserver writes something down.
#[derive(Debug, Clone)]
pub(crate) struct RecordFile {
    path: PathBuf,
    /// How long it was at the beginning.
    from: u64,
}

impl Homeserver {
    /// Starts a homeserver that keeps everything in `folder` (what an earlier run left there is used again) and knows these
    /// appservices.
    pub(crate) fn start(
        synapse: &Synapse,
        folder: &Path,
        registrations: &[PathBuf],
    ) -> Result<Self> {
        let folder = std::path::absolute(folder)?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut homeserver = Self {
            python: synapse.python().to_owned(),
            folder,
            registrations: registrations.to_owned(),
            port: 0,
            process: None,
        };
        for _ in 1..PORT_ATTEMPTS {
            homeserver.configure()?;
            match homeserver.run() {
                Err(error) if format!("{error:#}").contains("CannotListenError") => {}
                outcome => return outcome.map(|()| homeserver),
            }
        }
        homeserver.configure()?;
        homeserver.run().map(|()| homeserver)
    }

    /// The registrations that it was started with.
    pub(crate) fn registrations(&self) -> &[PathBuf] {
        &self.registrations
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) async fn register_user(&self, localpart: &str, password: &str) -> Result<()> {
        let client = Client::builder().homeserver_url(self.url()).build().await?;
        let request = assign!(register::v3::Request::new(), {
            username: Some(localpart.to_owned()),
            password: Some(password.to_owned()),
            auth: Some(uiaa::AuthData::Dummy(uiaa::Dummy::new())),
            inhibit_login: true,
        });
        client
            .send(request)
            .await
            .with_context(|| format!("cannot register {localpart}"))?;
        Ok(())
    }

    /// Asks it something as whoever has this token. The path is below `/_matrix/client/v3/`.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: &Value,
    ) -> Value {
        let url = format!("{}/_matrix/client/v3/{path}", self.url());
        let request = reqwest::Client::new().request(method, url);
        let request = request.bearer_auth(token).body(body.to_string());
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Kills Synapse, as a power cut would. Clients find a closed port until [`Self::start_again`].
    pub(crate) fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            // It may have ended by itself. Its parent reaps it, however it ends.
            pidfd_send_signal(&process, Signal::KILL).ok();
            has_ended(&process, None).ok();
        }
    }

    /// Starts a stopped homeserver with the same data on the same port.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.stop();
        self.run()
    }

    /// The SQLite database. What was written last may still stand in the file of the same name with `-wal` added.
    pub(crate) fn database_path(&self) -> PathBuf {
        self.folder.join("homeserver.db")
    }

    /// Whether these bytes stand anywhere in the database, its write-ahead log included.
    pub(crate) fn database_contains(&self, text: &str) -> Result<bool> {
        let log = self.log_path();
        let records = self.records().into_iter();
        let mut of_database = records.filter(|file| file.path() != log);
        of_database.try_fold(false, |found, file| {
            Ok(found || file.contains(text.as_bytes())?)
        })
    }

    /// Every file in which it may write down what it is sent from now on. The pages of a database are used again, so of it all
    /// is looked at; a log grows at its end.
    pub(crate) fn records(&self) -> Vec<RecordFile> {
        let (database, log) = (self.database_path(), self.log_path());
        let from = fs::metadata(&log).map_or(0, |log| log.len());
        let file = |path, from| RecordFile { path, from };
        let write_ahead_log = file(database.with_extension("db-wal"), 0);
        vec![file(database, 0), write_ahead_log, file(log, from)]
    }

    /// Where it keeps the files that people send.
    pub(crate) fn media_folder(&self) -> PathBuf {
        self.folder.join("media")
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.folder.join("homeserver.log")
    }

    /// Chooses a free port and writes the configuration for it.
    fn configure(&mut self) -> Result<()> {
        self.port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let logging = json!({
            "version": 1,
            "disable_existing_loggers": false,
            "formatters": { "line": { "format": "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s" } },
            "handlers": { "stderr": { "class": "logging.StreamHandler", "formatter": "line" } },
            "root": { "level": "INFO", "handlers": ["stderr"] },
        });
        fs::write(
            self.folder.join("logging.yaml"),
            serde_yaml::to_string(&logging)?,
        )?;
        let key = self.folder.join("signing.key");
        if !key.exists() {
            fs::write(&key, format!("ed25519 a_test {}\n", random_key()))?;
        }
        let configuration = configuration(&self.folder, self.port, &self.registrations);
        Ok(fs::write(
            self.folder.join("homeserver.yaml"),
            serde_yaml::to_string(&configuration)?,
        )?)
    }

    /// Starts the process and waits until it listens, by its own word: another server could answer on the port.
    fn run(&mut self) -> Result<()> {
        let earlier = fs::read(self.log_path()).map_or(0, |log| log.len());
        let log = self.log_path();
        let process = self
            .process
            .insert(Parent::fork(&self.python, &self.folder)?);
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let ended = has_ended(process, Some(&Timespec::default()))?;
            let said = fs::read(&log).unwrap_or_default();
            let said = String::from_utf8_lossy(said.get(earlier..).unwrap_or_default());
            if said.contains("Synapse now listening on TCP port") {
                return Ok(());
            }
            if ended {
                bail!("Synapse ended:\n{}", tail(&said));
            }
            if Instant::now() > deadline {
                bail!(
                    "Synapse does not listen after {START_TIMEOUT:?}:\n{}",
                    tail(&said)
                );
            }
            thread::sleep(START_POLL);
        }
    }
}

impl RecordFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether these bytes stand in it. It is read in pieces: these files are long, and looked at after every link.
    pub(crate) fn contains(&self, text: &[u8]) -> Result<bool> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            // A write-ahead log is there only while it is needed.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        file.seek(SeekFrom::Start(self.from))?;
        let finder = memchr::memmem::Finder::new(text);
        let mut piece = Vec::with_capacity(PIECE + text.len());
        loop {
            let mut next = io::Read::by_ref(&mut file).take(PIECE as u64);
            if next.read_to_end(&mut piece)? == 0 {
                return Ok(false);
            }
            if finder.find(&piece).is_some() {
                return Ok(true);
            }
            // What was read last may be the beginning of the text.
            piece.drain(..piece.len().saturating_sub(text.len() - 1));
        }
    }
}

impl Drop for Homeserver {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether a process has ended, after waiting so long for it; `None`: as long as it takes.
fn has_ended(process: &OwnedFd, patience: Option<&Timespec>) -> Result<bool> {
    Ok(poll(&mut [PollFd::new(process, PollFlags::IN)], patience)? > 0)
}

fn configuration(folder: &Path, port: u16, registrations: &[PathBuf]) -> Value {
    let unlimited = json!({ "per_second": 10_000, "burst_count": 10_000 });
    json!({
        "server_name": SERVER_NAME,
        "public_baseurl": format!("http://127.0.0.1:{port}/"),
        "listeners": [{
            "port": port,
            "bind_addresses": ["127.0.0.1"],
            "type": "http",
            "resources": [{ "names": ["client", "federation"] }],
        }],
        "database": { "name": "sqlite3", "args": { "database": folder.join("homeserver.db") } },
        "log_config": folder.join("logging.yaml"),
        "signing_key_path": folder.join("signing.key"),
        "media_store_path": folder.join("media"),
        "pid_file": folder.join("homeserver.pid"),
        // No federation: no keys are asked for, no server is known.
        "trusted_key_servers": [],
        "federation_domain_whitelist": [],
        "report_stats": false,
        // What no test asks for, and what each event would cost.
        "stats": { "enabled": false },
        "user_directory": { "enabled": false },
        "push": { "enabled": false },
        "app_service_config_files": registrations,
        "enable_registration": true,
        "enable_registration_without_verification": true,
        // The cost of a password hash; these passwords are random and live for a minute.
        "bcrypt_rounds": 4,
        "macaroon_secret_key": "test",
        "form_secret": "test",
        "presence": { "enabled": false },
        "rc_message": unlimited,
        "rc_registration": unlimited,
        "rc_login": { "address": unlimited, "account": unlimited, "failed_attempts": unlimited },
        "rc_admin_redaction": unlimited,
        "rc_joins": { "local": unlimited, "remote": unlimited },
        "rc_joins_per_room": unlimited,
        "rc_key_requests": unlimited,
        "rc_invites": { "per_room": unlimited, "per_user": unlimited, "per_issuer": unlimited },
        "rc_media_create": unlimited,
        "rc_room_creation": unlimited,
        "rc_profile": unlimited,
    })
}

/// 32 random bytes in unpadded base64: 256 bits fill 42 digits and a third of the last.
fn random_key() -> String {
    let mut random = rand::rng();
    let mut key: String = (0..42)
        .map(|_| char::from(random.sample(Alphanumeric)))
        .collect();
    key.push('A');
    key
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines
        .get(lines.len().saturating_sub(LOG_TAIL_LINES)..)
        .unwrap_or_default()
        .join("\n")
}
