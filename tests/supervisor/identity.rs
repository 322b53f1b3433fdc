//! A pid does not identify a process: what is adopted, ended or left alone is decided by the identity of the process.

use std::{
    env, fs,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use rcbot::remote_control::{
    Ending, Exit, Notice, Phase, SESSION_FOLDER_VARIABLE, SESSION_ID_VARIABLE, SessionId,
    offline::{self, SessionReport},
    process::{Launch, ProcessIdentity, spawn},
};
use serde_json::{Value, json};

use crate::support::{
    DEADLINE, STANDIN_LOG, Sandbox, eventually, own_process::in_own_process, owner::Owner, website,
};

/// A process that has nothing to do with any session, and ends at the first signal.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }

    /// One that started at another time than the process of the record. The kernel counts that in hundredths of a second.
    fn unlike_the_process_of(sandbox: &Sandbox) -> Self {
        let path = sandbox.session_file("session.json");
        let record: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let recorded = &record["session"]["state"]["running"]["process"]["start_time"];
        let recorded = recorded.as_u64().unwrap();
        loop {
            let stranger = Self::new();
            if stranger.start_time() != recorded {
                return stranger;
            }
        }
    }

    fn start_time(&self) -> u64 {
        let pid = i32::try_from(self.0.id()).unwrap();
        let stat = procfs::process::Process::new(pid).unwrap().stat();
        stat.unwrap().starttime
    }

    fn was_left_alone(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_record_whose_pid_is_anothers_now_is_stale_and_the_other_process_is_left_alone() {
    type Edit = fn(&mut Value, &Stranger);
    let exited = Ending::Exited {
        exit: Exit::Unknown,
        cause: None,
    };
    let cases: [(&str, Ending, Edit); 3] = [
        ("running", exited, |record, stranger| {
            let process = &mut record["session"]["state"]["running"]["process"];
            process["pid"] = json!(stranger.0.id());
        }),
        ("stopping", Ending::Stopped, |record, stranger| {
            let mut process = record["session"]["state"]["running"]["process"].clone();
            process["pid"] = json!(stranger.0.id());
            record["session"]["state"] = json!({
                "stopping": { "process": process, "ending": "stopped", "stop_requests": [] }
            });
        }),
        // Of before a boot, with the same start time.
        ("booted", Ending::HostRestarted, |record, stranger| {
            record["boot_id"] = json!("another boot");
            let process = &mut record["session"]["state"]["running"]["process"];
            process["boot_id"] = json!("another boot");
            process["pid"] = json!(stranger.0.id());
            process["start_time"] = json!(stranger.start_time());
        }),
    ];
    for (case, ending, edit) in cases {
        let sandbox = Sandbox::new();
        drop(Owner::with_session(&sandbox, sandbox.project("")).await);
        sandbox.kill_the_process();
        let mut stranger = Stranger::unlike_the_process_of(&sandbox);
        sandbox.edit_record(|record| edit(record, &stranger));
        let mut owner = Owner::restore(&sandbox, sandbox.project(""));
        let outcome = owner.outcome().await;
        assert_eq!(outcome.ending, ending, "{case}");
        assert_eq!(outcome.report.unwrap().processes, 0, "{case}");
        assert_eq!(owner.redacted.len(), 1, "{case}");
        assert!(stranger.was_left_alone(), "{case}");
    }
}

#[tokio::test]
async fn a_process_whose_record_is_lost_is_adopted_and_its_link_found_again() {
    let damages: [fn(&Sandbox); 2] = [
        |sandbox| fs::remove_file(sandbox.session_file("session.json")).unwrap(),
        |sandbox| fs::write(sandbox.session_file("session.json"), "{ \"vers").unwrap(),
    ];
    for damage in damages {
        let sandbox = Sandbox::new();
        drop(Owner::with_session(&sandbox, sandbox.project("")).await);
        damage(&sandbox);
        let mut owner = Owner::restore(&sandbox, sandbox.project(""));
        let notice = owner.notices.pop();
        let is_reported = matches!(
            notice,
            Some(Notice::RecordLost {
                is_running: true,
                ..
            })
        );
        assert!(is_reported, "{notice:?}");
        owner
            .until("the link is found", |owner| {
                (owner.phase() == Some(Phase::Running)).then_some(())
            })
            .await;
        assert!(owner.delivered.is_empty(), "nobody is known to wait for it");
        owner.start("bob");
        let [started] = &sandbox.standin_records()[..] else {
            panic!("a second process")
        };
        assert!(owner.link(0).await.is(&started.link));
        assert_eq!(owner.stop_and_wait().await.report.unwrap().processes, 1);
    }
}

#[tokio::test]
async fn a_stop_whose_record_does_not_name_the_process_yet_is_completed() {
    let sandbox = Sandbox::new();
    drop(Owner::with_session(&sandbox, sandbox.project("")).await);
    // As of a bot that was killed while it spawned a session that was to be stopped already.
    sandbox.edit_record(|record| {
        record["session"]["state"] = json!({
            "stopping": { "process": null, "ending": "stopped", "stop_requests": [] }
        });
    });
    let mut owner = Owner::restore(&sandbox, sandbox.project(""));
    let outcome = owner.outcome().await;
    assert_eq!(outcome.report.unwrap().processes, 1);
    assert!(sandbox.processes().is_empty());
}

#[tokio::test]
async fn half_a_record_is_set_aside_and_kept() {
    let sandbox = Sandbox::new();
    let mut owner = Owner::with_session(&sandbox, sandbox.project("")).await;
    let record = fs::read(sandbox.session_file("session.json")).unwrap();
    owner.stop_and_wait().await;
    drop(owner);
    let half = &record[..record.len() / 2];
    fs::write(sandbox.session_file("session.json"), half).unwrap();

    let owner = Owner::restore(&sandbox, sandbox.project(""));
    assert_eq!(owner.phase(), None);
    let is_reported = matches!(
        owner.notices[..],
        [Notice::RecordLost {
            is_running: false,
            ..
        }]
    );
    assert!(is_reported, "{:?}", owner.notices);
    let names = fs::read_dir(sandbox.session_file("")).unwrap();
    let aside: Vec<_> = names
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().contains(".unreadable-"))
        .collect();
    assert_eq!(aside.len(), 1);
    assert_eq!(fs::read(&aside[0]).unwrap(), half);
}

/// A second process in the place of a session of `website`, without a record. Its child carries no mark.
fn spawn_stray(sandbox: &Sandbox) -> ProcessIdentity {
    // A different one for each, as all processes that carry it are ended together.
    let mark = SessionId::random().to_string();
    // Found through its leader only.
    let script = "/usr/bin/env -i /bin/sleep 600 & echo $! > unmarked; exec /bin/sleep 600";
    spawn(&Launch {
        follows_links: true,
        program: "/bin/sh".to_owned(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        directory: sandbox.path(""),
        environment: [
            (SESSION_ID_VARIABLE.into(), mark.clone().into()),
            (
                SESSION_FOLDER_VARIABLE.into(),
                sandbox.path("sessions/website").into(),
            ),
            (STANDIN_LOG.into(), sandbox.standin_log().into()),
        ]
        .into(),
        stdin: "/dev/null".into(),
        stdout: sandbox.path("stray.stdout"),
        stderr: sandbox.path("stray.stderr"),
        mark,
    })
    .unwrap();
    eventually("a child without a mark, and its leader as it stays", || {
        let text = fs::read_to_string(sandbox.path("unmarked")).ok()?;
        let pid = text.strip_suffix('\n')?.parse().ok()?;
        (sandbox.processes().len() == 2).then(|| ProcessIdentity::of(pid).unwrap().unwrap())
    })
}

#[tokio::test]
async fn a_second_process_without_a_record_is_ended_and_the_first_is_not() {
    let sandbox = Sandbox::new();
    drop(Owner::with_session(&sandbox, sandbox.project("")).await);
    let first = sandbox.processes();
    let unmarked = spawn_stray(&sandbox);

    let mut owner = Owner::restore(&sandbox, sandbox.project(""));
    let deadline = Instant::now() + DEADLINE;
    while sandbox.processes().len() > 1 || unmarked.is_alive().unwrap() {
        assert!(Instant::now() < deadline, "the second process stays");
        owner.handle_next(Duration::from_millis(5)).await;
    }
    assert_eq!(sandbox.processes(), first);
    assert_eq!(owner.phase(), Some(Phase::Running));
    assert_eq!(owner.stop_and_wait().await.report.unwrap().processes, 1);
}

#[tokio::test]
async fn a_second_process_is_ended_by_its_leader_also_while_no_bot_runs() {
    let sandbox = Sandbox::new();
    drop(Owner::with_session(&sandbox, sandbox.project("")).await);
    let unmarked = spawn_stray(&sandbox);
    let folder = sandbox.path("sessions");
    let report = offline::stop(&folder, &website(), DEADLINE).await.unwrap();
    assert_eq!(report.unwrap().processes, 3);
    assert!(!unmarked.is_alive().unwrap());
    assert!(sandbox.processes().is_empty());
}

#[tokio::test]
async fn a_session_whose_project_left_the_configuration_stays_and_can_be_stopped() {
    let sandbox = Sandbox::new();
    drop(Owner::with_session(&sandbox, sandbox.project("fork=1")).await);
    let mut owner = Owner::with(sandbox.settings([]));
    assert_eq!(owner.phase(), Some(Phase::Running));
    assert_eq!(sandbox.processes().len(), 2);
    let outcome = owner.stop_and_wait().await;
    assert_eq!(outcome.ending, Ending::Stopped);
    assert_eq!(outcome.report.unwrap().processes, 2);
    assert_eq!(owner.redacted.len(), 1);
    assert!(sandbox.processes().is_empty());
}

#[tokio::test]
async fn a_process_without_a_record_is_known_however_the_folder_of_records_is_written() {
    let sandbox = Sandbox::new();
    std::os::unix::fs::symlink("sessions", sandbox.path("link")).unwrap();
    let restore = |folder: &str| {
        let mut settings = sandbox.settings([sandbox.project("")]);
        settings.folder = sandbox.path(folder);
        Owner::with(settings)
    };
    let mut owner = restore("website/../sessions");
    owner.start("alice");
    owner.link(0).await;
    drop(owner);
    for folder in ["link", "./sessions"] {
        fs::remove_file(sandbox.session_file("session.json")).unwrap();
        assert_eq!(restore(folder).phase(), Some(Phase::Starting), "{folder}");
    }
    // Nor does it depend on what the configuration still names.
    fs::remove_file(sandbox.session_file("session.json")).unwrap();
    let mut owner = Owner::with(sandbox.settings([]));
    assert_eq!(owner.phase(), Some(Phase::Starting));
    owner.stop_and_wait().await;
}

#[tokio::test]
async fn a_process_of_another_folder_that_has_the_same_path_is_left_alone() {
    let sandbox = Sandbox::new();
    drop(Owner::with_session(&sandbox, sandbox.project("")).await);
    // As in another mount namespace: the same path, and another folder.
    fs::rename(sandbox.path("sessions"), sandbox.path("elsewhere")).unwrap();
    let mut owner = Owner::restore(&sandbox, sandbox.project(""));
    assert_eq!(owner.phase(), None);
    owner.start("bob");
    owner.link(0).await;
    owner.stop_and_wait().await;
    assert_eq!(sandbox.processes().len(), 1);

    // Its own bot knows it, also where the folder has moved.
    let mut settings = sandbox.settings([sandbox.project("")]);
    settings.folder = sandbox.path("elsewhere");
    fs::remove_file(sandbox.path("elsewhere/website/session.json")).unwrap();
    let mut owner = Owner::with(settings);
    assert_eq!(owner.phase(), Some(Phase::Starting));
    assert_eq!(owner.stop_and_wait().await.report.unwrap().processes, 1);
}

#[tokio::test]
async fn a_session_whose_records_were_all_deleted_is_known_at_once_and_to_the_next_bot() {
    let sandbox = Sandbox::new();
    drop(Owner::with_session(&sandbox, sandbox.project("")).await);
    let folder = sandbox.path("sessions");
    fs::remove_dir_all(&folder).unwrap();
    let reports = offline::status(&folder).unwrap();
    assert!(
        matches!(&reports[..], [SessionReport::Unrecorded { project, .. }] if *project == website()),
        "{reports:?}"
    );
    let mut owner = Owner::restore(&sandbox, sandbox.project(""));
    assert_eq!(owner.phase(), Some(Phase::Starting));
    assert_eq!(owner.stop_and_wait().await.report.unwrap().processes, 1);
}

#[test]
fn a_bot_that_was_started_from_within_a_session_is_no_session() {
    let outer = Sandbox::new();
    let folder = outer.path("sessions/website");
    let marks = [
        (SESSION_ID_VARIABLE, "lost"),
        (SESSION_FOLDER_VARIABLE, folder.to_str().unwrap()),
    ];
    in_own_process(&["setsid", "--wait"], &marks, async {
        let folder = env::var_os(SESSION_FOLDER_VARIABLE).unwrap();
        let sandbox = Sandbox::of(Path::new(&folder).ancestors().nth(2).unwrap());
        let owner = Owner::restore(&sandbox, sandbox.project(""));
        assert_eq!(owner.phase(), None);
    });
}
