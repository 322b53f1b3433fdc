//! What the tests share: a separate folder for each, with projects in it, and waiting for conditions.

pub(crate) mod ledger;
#[path = "../../it/support/mounts.rs"]
pub(crate) mod mounts;
pub(crate) mod own_process;
pub(crate) mod owner;
#[path = "../../it/support/processes.rs"]
pub(crate) mod processes;
#[path = "../../it/support/standin.rs"]
#[expect(dead_code, reason = "the other tests look at more of a record")]
mod standin;

use std::{
    fs,
    panic::Location,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::unistd::Pid;
use rcbot::remote_control::{
    LinkPattern, Project, ProjectName, RECONNECT_LIMIT, Restart, SessionSettings, Settings,
};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use standin::STANDIN_LOG;
use standin::{StandinRecord, standin_mark, standin_program, standin_records};

/// How long a condition may take to become true: a second or two, and much more on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// How often a condition without an event is checked.
const POLL: Duration = Duration::from_millis(5);

/// A folder with all that sessions need. Dropping it kills every process of its sessions.
#[derive(Debug)]
pub(crate) struct Sandbox {
    folder: PathBuf,
    owned: Option<TempDir>,
}

impl Sandbox {
    /// A new one.
    pub(crate) fn new() -> Self {
        Self::new_in(&std::env::temp_dir())
    }

    /// A new one, on the file system of this folder.
    pub(crate) fn new_in(folder: &Path) -> Self {
        let owned = TempDir::with_prefix_in("rcbot-supervisor-", folder).unwrap();
        Self {
            folder: owned.path().to_owned(),
            owned: Some(owned),
        }
    }

    /// Another process's sandbox: dropping this handle leaves everything as it is.
    pub(crate) fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            owned: None,
        }
    }

    /// Where everything is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A file of the project `website`'s session.
    pub(crate) fn session_file(&self, name: &str) -> PathBuf {
        self.folder.join("sessions/website").join(name)
    }

    /// The project `website`, with a stand-in that behaves as these words say.
    pub(crate) fn project(&self, words: &str) -> Project {
        let directory = self.path("website");
        fs::create_dir_all(&directory).unwrap();
        let log = self.standin_log().to_str().unwrap().to_owned();
        Project {
            is_found: false,
            name: website(),
            directory,
            deliver_to: Vec::new(),
            settings: SessionSettings {
                command: standin(&["--spawn=same-dir", "--name", "{project}@{host} {id}"]),
                resume_command: standin(&["--continue"]),
                permission_modes: Vec::new(),
                spawn: Vec::new(),
                settings: None,
                environment: [
                    (STANDIN_LOG.to_owned(), log.as_str().into()),
                    ("RCBOT_STANDIN".to_owned(), words.into()),
                ]
                .into(),
                stdin: "y\n".into(),
                link_pattern: LinkPattern::new(r"https://claude\.ai/code[/?][A-Za-z0-9_./?=&%~-]+")
                    .unwrap(),
                link_timeout: DEADLINE,
                stop_grace: DEADLINE,
                reconnect_limit: RECONNECT_LIMIT,
                max_duration: None,
                max_output: 1 << 20,
                restart: Restart::Never,
            },
        }
    }

    /// Settings with these projects.
    pub(crate) fn settings(&self, projects: impl Into<Vec<Project>>) -> Settings {
        Settings {
            folder: self.path("sessions"),
            host: "here".to_owned(),
            projects: projects.into(),
            max_sessions: None,
        }
    }

    /// Every start of a stand-in and every further link, in order.
    pub(crate) fn standin_records(&self) -> Vec<StandinRecord> {
        standin_records(&self.standin_log())
    }

    /// What `held` and `relink` of a stand-in wait for.
    pub(crate) fn let_standin_go_on(&self) {
        fs::write(self.standin_log().with_added_extension("go"), "").unwrap();
    }

    /// The living processes of all sessions, their children included.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        standin_mark(&self.standin_log()).processes()
    }

    /// Changes the record of the session while no bot runs.
    pub(crate) fn edit_record(&self, edit: impl FnOnce(&mut Value)) {
        let path = self.session_file("session.json");
        let mut record = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        edit(&mut record);
        fs::write(path, record.to_string()).unwrap();
    }

    /// The one process of the session dies while no bot runs.
    pub(crate) fn kill_the_process(&self) {
        let [process] = self.processes()[..] else {
            panic!("one process")
        };
        nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
        self.wait_for_processes(0);
    }

    /// Waits until there are so many processes.
    #[track_caller]
    pub(crate) fn wait_for_processes(&self, count: usize) {
        eventually(&format!("{count} processes"), || {
            (self.processes().len() == count).then_some(())
        });
    }

    /// Where the stand-ins write what they did.
    pub(crate) fn standin_log(&self) -> PathBuf {
        self.path("standin.jsonl")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.owned.is_some() {
            standin_mark(&self.standin_log()).kill_all();
        }
    }
}

/// The name of the only project, where there is only one.
pub(crate) fn website() -> ProjectName {
    "website".parse().unwrap()
}

/// A command line of the stand-in.
fn standin(arguments: &[&str]) -> Vec<String> {
    let program = standin_program()
        .to_str()
        .expect("the folder's name is text");
    let all = [program, "remote-control"].into_iter();
    all.chain(arguments.iter().copied())
        .map(str::to_owned)
        .collect()
}

/// Waits until `look` finds something. Panics in the caller's place, with `what`, when it does not in time.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "{}: not within {DEADLINE:?}: {what}",
            Location::caller()
        );
        thread::sleep(POLL);
    }
}
