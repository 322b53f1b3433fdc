//! A disk that is full or read-only: requests are refused with the reason, sessions go on, no data is lost.
//!
//! Each test has separate mounts (`unshare`), with a small tmpfs for its files.

use std::{
    cell::Cell,
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use rcbot::remote_control::{Ending, NotSpawned, Notice, Phase};

use crate::support::{
    DEADLINE, Sandbox, eventually, mounts::in_mount_namespace, own_process::in_own_process,
    owner::Owner,
};

/// Some files of a few lines fit on it.
const TMPFS: &str = "size=128k,mode=700";

/// How long a record that was not written waits for the next try, and a little more.
const RETRY: Duration = Duration::from_secs(6);

/// Runs a test with separate mounts. Fails where that is not permitted, as a full disk would not be tested then.
#[track_caller]
fn with_own_mounts(body: impl Future<Output = ()>) {
    in_own_process(in_mount_namespace(), &[], body);
}

/// A sandbox whose sessions are on a small disk.
struct SmallDisk {
    sandbox: Sandbox,
    is_bound: Cell<bool>,
}

impl SmallDisk {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let sessions = sandbox.path("sessions");
        fs::create_dir(&sessions).unwrap();
        mount(&["-t", "tmpfs", "-o", TMPFS, "tmpfs"], &sessions);
        Self {
            sandbox,
            is_bound: Cell::new(false),
        }
    }

    /// Uses all free space.
    fn fill(&self) {
        let mut options = File::options();
        let mut filling = options
            .create(true)
            .append(true)
            .open(self.filling())
            .unwrap();
        while filling.write_all(&[b'x'; 512]).is_ok() {}
    }

    /// Frees it again.
    fn empty(&self) {
        fs::remove_file(self.filling()).unwrap();
    }

    /// Nothing can be changed on it any more by a path; what a process has open it still writes to.
    fn make_read_only(&self) {
        let sessions = self.sandbox.path("sessions");
        if !self.is_bound.replace(true) {
            mount(&["--bind", sessions.to_str().unwrap()], &sessions);
        }
        mount(&["-o", "remount,bind,ro"], &sessions);
        let error = File::create(self.filling()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }

    fn make_writable(&self) {
        mount(&["-o", "remount,bind,rw"], &self.sandbox.path("sessions"));
    }

    fn filling(&self) -> std::path::PathBuf {
        self.sandbox.path("sessions/filling")
    }
}

/// A folder on which something is mounted cannot be removed.
impl Drop for SmallDisk {
    fn drop(&mut self) {
        for _ in 0..=u8::from(self.is_bound.get()) {
            let mut unmount = Command::new("umount");
            unmount.arg("--lazy").arg(self.sandbox.path("sessions"));
            let done = unmount.status();
            assert!(done.is_ok_and(|done| done.success()) || thread::panicking());
        }
    }
}

/// Whether this process has a file of this name open. One opened for writing later keeps its mount writable.
fn is_open(name: &str) -> bool {
    let mut open = fs::read_dir("/proc/self/fd").unwrap();
    open.any(|one| fs::read_link(one.unwrap().path()).is_ok_and(|file| file.ends_with(name)))
}

/// Mounts; what is busy at the moment is tried again.
fn mount(options: &[&str], place: &Path) {
    eventually(&format!("mount {options:?}"), || {
        let done = Command::new("mount").args(options).arg(place).output();
        let done = done.unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() || said.contains("busy"), "{said}");
        done.status.success().then_some(())
    });
}

/// A start is refused with this reason, and has no effect.
fn assert_start_is_refused(owner: &mut Owner, disk: &SmallDisk, reason_begins: &str) {
    let before = (owner.phase(), disk.sandbox.standin_records().len());
    owner.start("bob");
    match owner.notices.pop() {
        Some(Notice::NotRecorded {
            request, reason, ..
        }) => {
            assert_eq!(request.requester, "bob");
            assert!(reason.starts_with(reason_begins), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(owner.phase(), before.0);
    assert_eq!(disk.sandbox.standin_records().len(), before.1);
    assert!(
        owner
            .delivered
            .iter()
            .all(|(_, it, _)| it.requester != "bob")
    );
}

/// A session runs; then the disk makes trouble. It goes on, is stopped, and its link is redacted; and once there is no trouble
/// any more, nothing that a later bot would need is missing.
async fn outlive(trouble: impl Fn(&SmallDisk), fix: impl Fn(&SmallDisk), reason: &str) {
    let disk = SmallDisk::new();
    let mut project = disk.sandbox.project("");
    project.settings.max_duration = Some(60 * DEADLINE);
    let mut owner = Owner::with_session(&disk.sandbox, project.clone()).await;
    trouble(&disk);
    assert_start_is_refused(&mut owner, &disk, reason);
    assert_eq!(disk.sandbox.processes().len(), 1);
    assert_eq!(owner.phase(), Some(Phase::Running));
    owner.extend("bob", RETRY);
    let refused = owner.notices.pop();
    assert!(
        matches!(refused, Some(Notice::NotRecorded { .. })),
        "{refused:?}"
    );

    let outcome = owner.stop_and_wait().await;
    assert_eq!(outcome.ending, Ending::Stopped);
    assert!(disk.sandbox.processes().is_empty());
    assert_eq!(owner.redacted.len(), 1);
    // Its record took some space.
    trouble(&disk);
    assert_start_is_refused(&mut owner, &disk, reason);
    assert_eq!(owner.phase(), None);

    fix(&disk);
    owner.start("carol");
    let link = owner.link(1).await;
    assert!(link.is(&disk.sandbox.standin_records()[1].link));
    drop(owner);
    let mut owner = Owner::restore(&disk.sandbox, project);
    assert_eq!(owner.phase(), Some(Phase::Running));
    assert_eq!(owner.session().unwrap().requester.as_deref(), Some("carol"));
    owner.stop_and_wait().await;
}

#[test]
fn a_full_disk_refuses_what_is_asked_for_and_leaves_what_runs() {
    with_own_mounts(async {
        outlive(SmallDisk::fill, SmallDisk::empty, "No space left on device").await;
    });
}

#[test]
fn a_read_only_folder_refuses_what_is_asked_for_and_leaves_what_runs() {
    with_own_mounts(async {
        let (trouble, fix) = (SmallDisk::make_read_only, SmallDisk::make_writable);
        outlive(trouble, fix, "Read-only file system").await;
    });
}

#[test]
fn what_could_not_be_recorded_is_recorded_when_there_is_space_again() {
    with_own_mounts(async {
        let disk = SmallDisk::new();
        let mut project = disk.sandbox.project("slow=1");
        let mut owner = Owner::starting(&disk.sandbox, project.clone());
        eventually("the stand-in runs", || disk.sandbox.standin_records().pop());
        assert!(owner.handle_next(DEADLINE).await, "it is spawned");
        eventually("its output is followed", || {
            ["stdout.log", "stderr.log"]
                .into_iter()
                .all(is_open)
                .then_some(())
        });
        // Its link comes when it cannot be recorded; it is delivered all the same.
        disk.make_read_only();
        owner.link(0).await;
        disk.make_writable();
        let record = || fs::read_to_string(disk.sandbox.session_file("session.json")).unwrap();
        assert!(!record().contains("running"));
        owner.handle_next(RETRY).await;
        owner
            .until("the record is written", |_| {
                record().contains("running").then_some(())
            })
            .await;
        assert!(record().contains("receipt 0"));
        drop(owner);
        project.settings.command = vec!["must-not-be-run".to_owned()];
        let mut owner = Owner::restore(&disk.sandbox, project);
        assert_eq!(owner.phase(), Some(Phase::Running));
        assert!(owner.delivered.is_empty());
        owner.stop_and_wait().await;
        assert_eq!(owner.redacted.len(), 1);
    });
}

#[tokio::test]
async fn an_output_file_that_cannot_be_made_is_the_reason_why_a_start_failed() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.session_file("stdout.log")).unwrap();
    let mut owner = Owner::starting(&sandbox, sandbox.project(""));
    let outcome = owner.outcome().await;
    let Ending::NotSpawned(NotSpawned::Other { reason }) = outcome.ending else {
        panic!("{:?}", outcome.ending)
    };
    assert!(reason.contains("Is a directory"), "{reason}");
    assert!(!sandbox.session_file("session.json").exists());
    assert_eq!(owner.phase(), None);
}
