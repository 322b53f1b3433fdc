//! A real Synapse on a free port of 127.0.0.1, with SQLite, no federation and no rate limits. It ends with the process that
//! started it.

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
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde_json::{Value, json};

/// The name of every test homeserver. It is never resolved.
pub(crate) const SERVER_NAME: &str = "rcbot.test";

/// How long Synapse may take to answer: 3 s, and more on its first start on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// How often the log is read while Synapse starts.
const START_POLL: Duration = Duration::from_millis(10);

/// How many free ports are tried: another process can take a port between its choice and Synapse's use of it.
const PORT_ATTEMPTS: usize = 5;

/// How much of the log an error shows.
const LOG_TAIL_LINES: usize = 25;

/// How much of a file is read at once: what a processor's cache holds.
const PIECE: usize = 256 << 10;

/// The configuration that all homeservers have in common, and the program that starts them.
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/synapse");

/// The process that imported Synapse.
#[derive(Debug)]
struct Parent {
    folders: ChildStdin,
    processes: BufReader<ChildStdout>,
}

impl Parent {
    fn start(python: &Path) -> Result<Self> {
        let mut process = Command::new(python)
            .arg(format!("{FIXTURES}/fork.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C in the terminal is for our parent.
            .process_group(0)
            .spawn()
            .context("cannot start Synapse's Python")?;
        Ok(Self {
            folders: process.stdin.take().context("no standard input")?,
            processes: BufReader::new(process.stdout.take().context("no standard output")?),
        })
    }

    /// Starts a homeserver on the files in this folder. Returns a pidfd: a bare pid may be another process's when it is
    /// signalled.
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

/// A file that a homeserver writes to.
#[derive(Debug, Clone)]
pub(crate) struct RecordFile {
    pub(crate) path: PathBuf,
    /// Its length at the beginning.
    from: u64,
}

impl Homeserver {
    /// Starts a homeserver with a Python that has Synapse. It keeps everything in `folder`, where it continues an earlier run,
    /// and has these appservices.
    pub(crate) fn start(python: &Path, folder: &Path, registrations: &[PathBuf]) -> Result<Self> {
        let folder = std::path::absolute(folder)?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut homeserver = Self {
            python: python.to_owned(),
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
        let registered = client.send(request).await;
        registered.with_context(|| format!("cannot register {localpart}"))?;
        Ok(())
    }

    /// Sends a request with this token. The path is below `/_matrix/client/v3/`.
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
            // It may have exited already. Its parent reaps it in any case.
            pidfd_send_signal(&process, Signal::KILL).ok();
            has_ended(&process, None).ok();
        }
    }

    /// Starts a stopped homeserver with the same data on the same port.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.stop();
        self.run()
    }

    /// Every file in which it may store what it gets from now on. Pages of a database are reused, so it is searched whole; a
    /// log only grows at its end.
    pub(crate) fn records(&self) -> Vec<RecordFile> {
        let file = |name, from| RecordFile {
            path: self.folder.join(name),
            from,
        };
        let log = fs::metadata(self.log_path()).map_or(0, |log| log.len());
        vec![
            file("homeserver.db", 0),
            file("homeserver.db-wal", 0),
            file("homeserver.log", log),
        ]
    }

    /// The folder of uploaded files.
    pub(crate) fn media_folder(&self) -> PathBuf {
        self.folder.join("media")
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.folder.join("homeserver.log")
    }

    /// Chooses a free port and writes the configuration for it.
    fn configure(&mut self) -> Result<()> {
        self.port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let configuration = json!({
            "public_baseurl": self.url(),
            "listeners": [{
                "port": self.port,
                "bind_addresses": ["127.0.0.1"],
                "type": "http",
                "resources": [{ "names": ["client", "federation"] }],
            }],
            "log_config": format!("{FIXTURES}/logging.yaml"),
            "signing_key_path": format!("{FIXTURES}/signing.key"),
            "app_service_config_files": self.registrations,
        });
        let path = self.folder.join("homeserver.yaml");
        Ok(fs::write(path, serde_yaml::to_string(&configuration)?)?)
    }

    /// Starts the process and waits until its log says that it listens: another server could answer on the port.
    fn run(&mut self) -> Result<()> {
        let earlier = fs::read(self.log_path()).map_or(0, |log| log.len());
        let log = self.log_path();
        let process = Parent::fork(&self.python, &self.folder)?;
        let process = self.process.insert(process);
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let ended = has_ended(process, Some(&Timespec::default()))?;
            let said = fs::read(&log).unwrap_or_default();
            let said = String::from_utf8_lossy(said.get(earlier..).unwrap_or_default());
            if said.contains("Synapse now listening on TCP port") {
                return Ok(());
            }
            if ended {
                bail!("Synapse ended:\n{}", tail(&said, LOG_TAIL_LINES));
            }
            if Instant::now() > deadline {
                bail!(
                    "Synapse does not listen after {START_TIMEOUT:?}:\n{}",
                    tail(&said, LOG_TAIL_LINES)
                );
            }
            thread::sleep(START_POLL);
        }
    }
}

impl RecordFile {
    /// Whether these bytes are in it. It is read in pieces: these files are long, and searched after every link.
    pub(crate) fn contains(&self, text: &[u8]) -> bool {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            // A write-ahead log exists only while it is needed.
            Err(error) if error.kind() == ErrorKind::NotFound => return false,
            Err(error) => panic!("{}: {error}", self.path.display()),
        };
        file.seek(SeekFrom::Start(self.from)).unwrap();
        let finder = memchr::memmem::Finder::new(text);
        let mut piece = Vec::with_capacity(PIECE + text.len());
        loop {
            let mut next = io::Read::by_ref(&mut file).take(PIECE as u64);
            if next.read_to_end(&mut piece).unwrap() == 0 {
                return false;
            }
            if finder.find(&piece).is_some() {
                return true;
            }
            // The end of this piece may be the beginning of the text.
            piece.drain(..piece.len().saturating_sub(text.len() - 1));
        }
    }
}

impl Drop for Homeserver {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether a process has exited within a timeout; `None`: waits until it has.
fn has_ended(process: &OwnedFd, patience: Option<&Timespec>) -> Result<bool> {
    Ok(poll(&mut [PollFd::new(process, PollFlags::IN)], patience)? > 0)
}

/// The end of a log, for a message.
pub(super) fn tail(log: &str, lines: usize) -> String {
    let all: Vec<&str> = log.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
