//! What the tests of this folder share: a separate folder and mark for each, and waiting for conditions.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Launch, ProcessIdentity, handle::Handle, spawn, survey};

/// Far more than any wait here takes; only a broken test waits that long.
const DEADLINE: Duration = Duration::from_secs(30);

const MARK: &str = "RCBOT_TEST_MARK";

/// A folder for files, and a mark in the environment of every process started here. Drop kills all that carry it.
pub(super) struct Sandbox {
    directory: TempDir,
    value: String,
}

impl Sandbox {
    pub(super) fn new() -> Self {
        Self {
            directory: TempDir::new().unwrap(),
            // Not by our pid: what an earlier run has left would carry the mark of a later one.
            value: format!("test-{:032x}-mark", rand::random::<u128>()),
        }
    }

    pub(super) fn mark(&self) -> (&str, &str) {
        (MARK, &self.value)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A shell script, ready to be spawned.
    pub(super) fn launch(&self, script: &str) -> Launch {
        fs::write(self.path("stdin"), "").unwrap();
        Launch {
            follows_links: true,
            program: "sh".to_owned(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            directory: self.directory.path().to_owned(),
            environment: [
                ("PATH".into(), std::env::var_os("PATH").unwrap()),
                (MARK.into(), (&self.value).into()),
            ]
            .into(),
            stdin: self.path("stdin"),
            stdout: self.path("stdout"),
            stderr: self.path("stderr"),
            mark: self.value.clone(),
        }
    }

    pub(super) fn spawn(&self, script: &str) -> ProcessIdentity {
        spawn(&self.launch(script)).unwrap()
    }

    /// The process whose pid a script has written to a file of this name.
    pub(super) async fn process(&self, file: &str) -> ProcessIdentity {
        let text = || fs::read_to_string(self.path(file)).unwrap_or_default();
        eventually("a pid is written", || text().ends_with('\n')).await;
        let pid = text().trim().parse().unwrap();
        ProcessIdentity::of(pid).unwrap().unwrap()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for identity in find_by_environment(MARK, &self.value) {
            signal(&identity, Signal::KILL);
        }
    }
}

/// Every process of ours that carries `name=value` in its environment and has not ended.
pub(super) fn find_by_environment(name: &str, value: &str) -> Vec<ProcessIdentity> {
    let all = survey([name]).unwrap().into_iter();
    all.filter(|(process, [found])| found.as_deref() == Some(value.as_ref()) && !process.ended)
        .map(|(process, _)| process.identity)
        .collect()
}

pub(super) fn signal(identity: &ProcessIdentity, signal: Signal) {
    if let Some(process) = Handle::open(identity).unwrap() {
        process.signal(signal).unwrap();
    }
}

/// Waits for a condition that sends no event.
#[track_caller]
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let started = Instant::now();
        while !holds() {
            assert!(started.elapsed() < DEADLINE, "never: {what}, at {place}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

pub(super) async fn within_deadline<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("nothing happened")
}
