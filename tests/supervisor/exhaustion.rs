//! Too few descriptors, too many processes, a disk that does not respond, a process that may not be ended: no session is lost
//! by that, and each failure is reported.

use std::{
    env,
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use procfs::process::{Process, all_processes};
use rcbot::remote_control::{Ending, NotSpawned, Notice, Phase, process::ProcessIdentity};
use rustix::fs::{XattrFlags, setxattr};
use tokio::task::yield_now;

use crate::support::{
    DEADLINE, Sandbox, eventually,
    mounts::in_mount_namespace,
    own_process::{in_own_process, on_own_thread},
    owner::Owner,
};

/// The variable with the cgroup that a test has for itself.
const CGROUP: &str = "RCBOT_TEST_CGROUP";

/// Runs a test in a process with so few descriptors.
#[track_caller]
fn with_few_descriptors(body: impl Future<Output = ()>) {
    on_own_thread(&["prlimit", "--nofile=100:100"], body);
}

/// Takes all free descriptors.
fn all_descriptors() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[test]
fn a_session_that_cannot_be_watched_for_lack_of_descriptors_is_watched_later() {
    with_few_descriptors(async {
        let sandbox = Sandbox::new();
        let mut owner = Owner::starting(&sandbox, sandbox.project("held,die=0.1"));
        owner
            .until_fact("it runs", || !sandbox.standin_records().is_empty())
            .await;
        drop(owner);
        // The tasks of the dropped one give back what they have.
        yield_now().await;
        // Its watch begins when there is nothing left for it: neither a handle on the process nor one on its output.
        let mut owner = Owner::restore(&sandbox, sandbox.project("held,die=0.1"));
        let descriptors = all_descriptors();
        while owner.handle_next(Duration::from_millis(100)).await {}
        assert_eq!(owner.phase(), Some(Phase::Starting));
        drop(descriptors);
        sandbox.let_standin_go_on();
        owner.link(0).await;
        let ending = owner.outcome().await.ending;
        assert!(matches!(ending, Ending::Exited { .. }), "{ending:?}");
    });
}

#[test]
fn a_session_that_could_not_be_ended_for_lack_of_descriptors_is_not_started() {
    with_few_descriptors(async {
        let sandbox = Sandbox::new();
        let mut owner = Owner::with_session(&sandbox, sandbox.project("")).await;
        owner.stop_and_wait().await;
        let mut descriptors = all_descriptors();
        descriptors.truncate(descriptors.len() - 10);
        owner.start("alice");
        let refused = Ending::NotSpawned(NotSpawned::TooFewDescriptors { limit: 100 });
        assert_eq!(owner.outcome().await.ending, refused);
        drop(descriptors);
        owner.start("alice");
        owner.link(1).await;
        owner.stop_and_wait().await;
    });
}

#[test]
fn a_tree_of_more_processes_than_there_are_descriptors_is_ended() {
    with_few_descriptors(async {
        let sandbox = Sandbox::new();
        let mut owner = Owner::with_session(&sandbox, sandbox.project("fork=2000")).await;
        let report = owner.stop_and_wait().await.report.unwrap();
        assert_eq!(report.processes, 2001);
        assert!(sandbox.processes().is_empty());
    });
}

#[tokio::test]
async fn a_spawn_that_hangs_is_answered_and_ended_when_it_comes_after_all() {
    let sandbox = Sandbox::new();
    let mut project = sandbox.project("");
    project.settings.link_timeout = Duration::from_secs(5);
    // Writing to it blocks until there is a reader, as on a disk that does not respond.
    let stdin = sandbox.session_file("stdin");
    fs::create_dir_all(sandbox.session_file("")).unwrap();
    mkfifo(&stdin, Mode::S_IRWXU).unwrap();
    let mut owner = Owner::restore(&sandbox, project.clone());
    let unresponsive = Ending::NotSpawned(NotSpawned::Unresponsive {
        directory: project.directory.display().to_string(),
    });
    owner.start("alice");
    let outcome = owner.stop_and_wait().await;
    assert_eq!(outcome.ending, unresponsive);
    assert_eq!(outcome.stop_requests.len(), 1);
    // Another one does not hang beside it, but is answered at once.
    project.settings.link_timeout = Duration::from_hours(1);
    assert!(owner.remote_control.add_project(project));
    owner.start("alice");
    assert_eq!(owner.outcome().await.ending, unresponsive);
    // The disk responds again. The late process belongs to no session.
    let mut options = File::options();
    let reader = options.read(true).write(true).open(&stdin).unwrap();
    eventually("its output is made", || {
        sandbox.session_file("stdout.log").exists().then_some(())
    });
    drop(reader);
    fs::remove_file(&stdin).unwrap();
    let began = Instant::now();
    while owner.delivered.is_empty() {
        assert!(began.elapsed() < DEADLINE, "it hangs for ever");
        owner.start("alice");
        owner
            .until("a link, or the answer that it still hangs", |owner| {
                let is_over = owner.notices.pop().is_some();
                (is_over || !owner.delivered.is_empty()).then_some(())
            })
            .await;
    }
    owner
        .until_fact("only the session is there", || {
            sandbox.processes().len() == 1
        })
        .await;
    owner.stop_and_wait().await;
}

/// Mounts a file system whose server never answers, as one on a dead network. The descriptor is that of `/dev/fuse`.
fn mount_silent(folder: &Path) {
    let how = "fd=9,rootmode=40000,user_id=0,group_id=0";
    let mut mount = Command::new("mount");
    let mount = mount.args(["-i", "-t", "fuse", "-o", how, "silent"]);
    assert!(mount.arg(folder).status().unwrap().success());
}

fn number_of_children() -> usize {
    let own = i32::try_from(std::process::id()).unwrap();
    let all = all_processes().unwrap().flatten();
    all.filter(|process| process.stat().is_ok_and(|stat| stat.ppid == own))
        .count()
}

#[test]
fn what_hangs_in_a_spawn_is_the_bot_and_no_child_that_outlives_it() {
    if !Path::new("/dev/fuse").exists() {
        eprintln!("not tested: this kernel, or this container, has no FUSE");
        return;
    }
    let with_fuse = ["sh", "-c", r#"exec 9<>/dev/fuse; exec "$@""#, "sh"];
    let wrapper = [in_mount_namespace(), &with_fuse].concat();
    in_own_process(&wrapper, &[], async {
        let silent = tempfile::tempdir().unwrap();
        mount_silent(silent.path());
        let mut endings = Vec::new();
        for is_directory in [true, false] {
            let sandbox = Sandbox::new();
            let mut project = sandbox.project("");
            project.settings.link_timeout = Duration::from_secs(1);
            if is_directory {
                project.directory = silent.path().to_owned();
            } else {
                let program = silent.path().join("claude");
                project.settings.command[0] = program.to_str().unwrap().to_owned();
            }
            let mut owner = Owner::starting(&sandbox, project);
            endings.push(owner.outcome().await.ending);
        }
        let children = number_of_children();
        // Else this process would not end either.
        let mut umount = Command::new("umount");
        let umount = umount.args(["--force", "--lazy", "--no-canonicalize", "-i"]);
        assert!(umount.arg(silent.path()).status().unwrap().success());
        assert_eq!(children, 0);
        for ending in endings {
            let is_unresponsive =
                matches!(ending, Ending::NotSpawned(NotSpawned::Unresponsive { .. }));
            assert!(is_unresponsive, "{ending:?}");
        }
    });
}

#[test]
#[ignore = "needs root; .ci/run runs it"]
fn as_root_a_process_that_may_not_be_ended_is_reported_and_its_session_kept() {
    // Root without the right to signal all processes, as the bot's user beside a process of root's.
    let wrapper = ["setpriv", "--bounding-set=-kill", "--inh-caps=-kill"];
    in_own_process(&wrapper, &[], async {
        let sandbox = Sandbox::new();
        fs::set_permissions(sandbox.path(""), Permissions::from_mode(0o755)).unwrap();
        let mut project = sandbox.project("");
        let ended = project.directory.join("ended-on-the-host");
        let other = r"setpriv --reuid=65534 --clear-groups sh -c '
            echo $$; for wait in $(seq 900); do [ -e ended-on-the-host ] && exit; sleep 0.1; done' > other &
            echo 'https://claude.ai/code/x '; wait";
        project.settings.command = ["sh", "-c", other].map(str::to_owned).into();
        project.settings.stop_grace = Duration::from_millis(100);
        let other = project.directory.join("other");
        let mut owner = Owner::with_session(&sandbox, project).await;
        let pid = eventually("the other process runs", || {
            fs::read_to_string(&other)
                .ok()
                .filter(|it| it.ends_with('\n'))
        });
        owner.stop("carol");
        for asks in ["carol", "dave"] {
            let (requests, reason) = owner
                .until("what is left is reported", |owner| {
                    match owner.notices.pop()? {
                        Notice::NotEnded {
                            requests, reason, ..
                        } => Some((requests, reason)),
                        // It takes a while, which is reported too.
                        Notice::ShuttingDown(_) => None,
                        other => panic!("{other:?}"),
                    }
                })
                .await;
            assert_eq!(requests.len(), 1);
            assert_eq!(requests[0].requester, asks);
            assert!(
                reason.contains(&format!("process {}", pid.trim())),
                "{reason}"
            );
            assert_eq!(owner.phase(), Some(Phase::Stopping));
            if asks == "carol" {
                // A later requester is answered at once.
                owner.stop("dave");
            }
        }
        fs::write(ended, "").unwrap();
        let outcome = owner.outcome().await;
        assert_eq!(outcome.ending, Ending::Stopped);
        assert_eq!(outcome.stop_requests.len(), 2);
    });
}

/// Runs a test in a cgroup that is delegated to it, as systemd would do it.
#[track_caller]
fn in_a_cgroup(body: impl Future<Output = ()>) {
    if env::var_os(CGROUP).is_some() {
        return in_own_process(&[], &[], body);
    }
    let folder = delegated_cgroup();
    let enter = ["sh", "-c", r#"echo $$ > "$0/cgroup.procs"; exec "$@""#];
    let folder_text = folder.to_str().unwrap();
    let wrapper = [&enter[..], &[folder_text]].concat();
    in_own_process(&wrapper, &[(CGROUP, folder_text)], body);
    fs::remove_dir(folder).unwrap();
}

fn delegated_cgroup() -> PathBuf {
    let this = Process::myself().unwrap();
    let mut mounts = this.mountinfo().unwrap().into_iter();
    let mount = mounts.find(|it| it.fs_type == "cgroup2").unwrap();
    let mut cgroups = this.cgroups().unwrap().into_iter();
    let own = cgroups.find(|it| it.hierarchy == 0).unwrap().pathname;
    let parent = mount.mount_point.join(own.strip_prefix('/').unwrap());
    let folder = parent.join(format!("rcbot-test-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    setxattr(&folder, "user.delegate", b"1", XattrFlags::empty()).unwrap();
    folder
}

#[test]
#[ignore = "needs root; .ci/run runs it"]
fn as_root_what_hides_is_ended_where_a_cgroup_is_delegated() {
    in_a_cgroup(async {
        let sandbox = Sandbox::new();
        let mut project = sandbox.project("");
        let hide = "env -i setsid sh -c 'echo $$ > hidden; exec sleep 600' &
            echo 'https://claude.ai/code/x '; wait";
        project.settings.command = ["sh", "-c", hide].map(str::to_owned).into();
        let hidden = project.directory.join("hidden");
        drop(Owner::with_session(&sandbox, project.clone()).await);
        let pid = eventually("it hides", || {
            let text = fs::read_to_string(&hidden).ok()?;
            text.strip_suffix('\n')?.parse::<i32>().ok()
        });
        let process = ProcessIdentity::of(pid).unwrap().unwrap();
        // By another bot than the one that made it.
        let mut owner = Owner::restore(&sandbox, project);
        owner.stop_and_wait().await;
        assert!(!process.is_alive().unwrap());
        let folder = env::var(CGROUP).unwrap();
        let below = fs::read_dir(Path::new(&folder)).unwrap();
        let below = below.filter(|it| it.as_ref().unwrap().file_type().unwrap().is_dir());
        assert_eq!(below.count(), 0, "its cgroup is removed");
    });
}
