//! Processes that print as fast as they can, on one processor: the owner gets its reports, deadlines hold, ends are seen, and
//! the disk stays small.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use nix::sys::signal::{Signal, kill};
use procfs::process::Process;
use rcbot::remote_control::{Ending, Exit, Phase, Project};

use crate::support::{Sandbox, own_process::in_own_process, owner::Owner};

const MIB: u64 = 1 << 20;

/// Prints more, and what takes longer to read, than anybody reads on the same processor: colours. Not for ever, nor
/// without bounds, as a test that is killed leaves it and its file.
const FAST: &str =
    r#"ulimit -f 16777216; exec timeout 90 yes "$(printf '\033[1mx\033[0my\033[2mz')""#;

/// How much is read of a session that floods before it is looked at again.
const FLOOD: u64 = 256 * MIB;

/// Runs a test in a process that has one processor, with all that it starts.
#[track_caller]
fn on_one_processor(body: impl Future<Output = ()>) {
    let allowed = Process::myself().unwrap().status().unwrap();
    let first = allowed.cpus_allowed_list.unwrap()[0].0.to_string();
    // From outside: a runtime that has no turn fires no timer either.
    let wrapper = ["timeout", "--signal=KILL", "60", "taskset", "--cpu-list"];
    // One worker, then.
    in_own_process(&[&wrapper[..], &[&first]].concat(), &[], body);
}

/// A session that is a shell script. It knows a link.
fn script(sandbox: &Sandbox, script: &str) -> Project {
    let mut project = sandbox.project("");
    project.settings.command = ["sh", "-c", script].map(str::to_owned).into();
    // So much that reading it in one go never ends.
    project.settings.max_output = 64 * MIB;
    project
}

#[test]
fn a_session_that_floods_is_stopped_on_one_processor() {
    on_one_processor(async {
        let sandbox = Sandbox::new();
        let flood = format!("echo 'https://claude.ai/code/x '; {FAST}");
        let mut owner = Owner::with_session(&sandbox, script(&sandbox, &flood)).await;
        assert_eq!(owner.phase(), Some(Phase::Running));
        assert_eq!(owner.stop_and_wait().await.ending, Ending::Stopped);
    });
}

#[test]
fn the_time_for_a_link_is_over_in_a_flood() {
    on_one_processor(async {
        let sandbox = Sandbox::new();
        let mut project = script(&sandbox, FAST);
        project.settings.link_timeout = Duration::from_secs(2);
        let mut owner = Owner::starting(&sandbox, project);
        let ending = owner.outcome().await.ending;
        assert!(matches!(ending, Ending::NoLink { .. }), "{ending:?}");
    });
}

#[test]
fn the_end_of_a_process_is_seen_while_its_child_goes_on_printing() {
    on_one_processor(async {
        let sandbox = Sandbox::new();
        let words = format!(
            "echo 'https://claude.ai/code/x '; ({FAST}) & \
             while [ ! -e end ]; do sleep 0.01; done; exit 3"
        );
        let project = script(&sandbox, &words);
        let mut owner = Owner::with_session(&sandbox, project.clone()).await;
        fs::write(project.directory.join("end"), "").unwrap();
        let outcome = owner.outcome().await;
        let ending = Ending::Exited {
            exit: Exit::Code(3),
            cause: None,
        };
        assert_eq!(outcome.ending, ending);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_bounded_while_what_prints_it_does_not_end() {
    let sandbox = Sandbox::new_in(env!("CARGO_TARGET_TMPDIR").as_ref());
    // Ignores SIGTERM and prints 64 MiB on each stream, more than a file may hold, once its leader is over.
    let stubborn = "trap '' TERM XFSZ; ulimit -f 131072; echo 'https://claude.ai/code/x '; \
                    while [ -e /proc/$LEADER ]; do sleep 0.01; done; \
                    cat /dev/zero >&2; cat /dev/zero; while :; do sleep 1; done";
    let mut project = script(
        &sandbox,
        "export LEADER=$$; sh -c \"$STUBBORN\" & exec sleep 600",
    );
    let environment = &mut project.settings.environment;
    environment.insert("STUBBORN".to_owned(), stubborn.into());
    project.settings.max_output = MIB;
    let mut owner = Owner::with_session(&sandbox, project).await;
    owner.stop("carol");
    let files = ["stdout.log", "stderr.log"].map(|name| sandbox.session_file(name));
    owner
        .until_fact("all is printed and given back", || {
            files.iter().all(|path| {
                let length = fs::metadata(path).unwrap().len();
                length == 64 * MIB && taken(path) <= 2 * MIB
            })
        })
        .await;
    assert_eq!(owner.phase(), Some(Phase::Stopping));
}

/// Two floods at once, on stdout and stderr, in large pieces, on this file system.
async fn assert_bounded_on_disk(sandbox: Sandbox) {
    let dd = "echo 'https://claude.ai/code/x '; \
              dd if=/dev/zero bs=1M status=none >&2 & exec dd if=/dev/zero bs=1M status=none";
    let mut project = script(&sandbox, dd);
    project.settings.max_output = MIB;
    let mut owner = Owner::with_session(&sandbox, project).await;
    let files = ["stdout.log", "stderr.log"].map(|name| sandbox.session_file(name));
    let length = |path: &Path| fs::metadata(path).unwrap().len();
    // Each has to grow by that much, and most of it is freed at a moment in which both go on writing. Not at each moment:
    // output that comes while we have no turn cannot be limited, as long as it is freed later.
    let enough = files.each_ref().map(|path| length(path) + FLOOD);
    owner
        .until_fact("enough is written, and what was read is freed", || {
            let left: u64 = files.iter().map(|path| taken(path)).sum();
            let mut grown = files.iter().zip(enough);
            left < FLOOD / 2 && grown.all(|(path, enough)| length(path) > enough)
        })
        .await;
    // Once nothing writes any more, the limit decides what is left.
    let processes = sandbox.processes();
    for process in &processes {
        kill(*process, Signal::SIGSTOP).unwrap();
    }
    owner
        .until_fact("what was read is given back", || {
            files.iter().all(|path| taken(path) <= 2 * MIB)
        })
        .await;
    assert_eq!(owner.phase(), Some(Phase::Running));
    owner.stop_and_wait().await;
}

fn taken(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_bounded_on_a_disk_however_fast_it_comes() {
    assert_bounded_on_disk(Sandbox::new_in(env!("CARGO_TARGET_TMPDIR").as_ref())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_bounded_in_memory_however_fast_it_comes() {
    assert_bounded_on_disk(Sandbox::new_in("/dev/shm".as_ref())).await;
}
