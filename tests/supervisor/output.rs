//! What a process prints: bounded on disk and in memory, its links seen, its complaints understood.

use std::{fs, os::unix::fs::MetadataExt as _, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rcbot::remote_control::{Beginning, Cause, Ending, Exit, MAX_OUTPUT, Notice, Phase};
use tokio::time::{Instant, sleep_until};

use crate::support::{DEADLINE, Sandbox, eventually, own_process::in_own_process, owner::Owner};

const KIB: u64 = 1 << 10;

/// How much a flooding process writes while it is looked at.
const FLOOD: u64 = 64 << 20;

/// The most that the memory of a process may grow while it looks for a link in 64 MiB of output.
const MEMORY_KIB: u64 = 32 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn output_files_stay_small_while_a_process_floods_and_keep_its_last_lines() {
    let sandbox = Sandbox::new();
    let mut project = sandbox.project("flood");
    project.settings.max_output = 256 * KIB;
    let mut owner = Owner::with_session(&sandbox, project.clone()).await;
    let stdout = sandbox.session_file("stdout.log");
    let inode = fs::metadata(&stdout).unwrap().ino();
    assert_stays_small_in_a_flood(&sandbox, &mut owner, 256 * KIB).await;
    let output = owner.remote_control.output(&project.name).unwrap();
    assert!(output.expose().contains("Connected"));
    assert!(!output.expose().contains("claude.ai/code?"));
    assert_eq!(owner.delivered.len(), 1);
    owner.stop_and_wait().await;
    assert_eq!(fs::metadata(&stdout).unwrap().ino(), inode);
}

/// In a flood, the size on disk depends on the scheduler, within bounds that tests/supervisor/floods.rs checks; after it, on
/// the limit.
async fn assert_stays_small_in_a_flood(sandbox: &Sandbox, owner: &mut Owner, limit: u64) {
    let stdout = sandbox.session_file("stdout.log");
    let pid = sandbox.standin_records()[0].pid;
    let process = procfs::process::Process::new(pid).unwrap();
    let written = || process.io().unwrap().wchar;
    let before = written();
    owner
        .until_fact("it floods", || written() > before + FLOOD)
        .await;
    let send = |signal| kill(Pid::from_raw(pid), signal).unwrap();
    send(Signal::SIGSTOP);
    owner
        .until_fact("what was read is given back", || {
            let on_disk = fs::metadata(&stdout).unwrap().blocks() * 512;
            on_disk <= limit + limit / 2
        })
        .await;
    send(Signal::SIGCONT);
}

#[tokio::test(flavor = "multi_thread")]
async fn output_files_stay_small_when_their_project_left_the_configuration() {
    let sandbox = Sandbox::new();
    drop(Owner::with_session(&sandbox, sandbox.project("flood")).await);
    let mut owner = Owner::with(sandbox.settings([]));
    assert_stays_small_in_a_flood(&sandbox, &mut owner, MAX_OUTPUT).await;
    owner.stop_and_wait().await;
}

#[test]
fn a_link_after_64_mib_of_noise_is_found_with_little_memory() {
    in_own_process(&[], &[], async {
        let sandbox = Sandbox::new();
        let mut project = sandbox.project("noise=64");
        // All of it is read.
        project.settings.max_output = 128 << 20;
        let before = peak_memory();
        let mut owner = Owner::with_session(&sandbox, project).await;
        let link = owner.link(0).await;
        assert!(link.is(&sandbox.standin_records()[0].link));
        let grown = peak_memory() - before;
        eprintln!("{grown} KiB more memory");
        assert!(grown < MEMORY_KIB, "{grown} KiB");
        owner.stop_and_wait().await;
    });
}

/// The most memory that this process ever had, in KiB.
fn peak_memory() -> u64 {
    let status = procfs::process::Process::myself().unwrap().status();
    status.unwrap().vmhwm.unwrap()
}

#[tokio::test]
async fn a_different_link_is_delivered_and_the_old_one_redacted() {
    let sandbox = Sandbox::new();
    let mut owner = Owner::with_session(&sandbox, sandbox.project("relink")).await;
    owner.link(0).await;
    sandbox.let_standin_go_on();
    let second = owner.link(1).await;
    let printed: Vec<_> = sandbox
        .standin_records()
        .into_iter()
        .map(|it| it.link)
        .collect();
    assert_eq!(printed.len(), 2);
    assert!(owner.delivered[0].2.is(&printed[0]) && second.is(&printed[1]));
    let [redacted] = &owner.redacted[..] else {
        panic!("{:?}", owner.redacted)
    };
    assert_eq!(redacted.delivery.number, owner.delivered[0].0.number);
    assert_eq!(owner.phase(), Some(Phase::Running));
    let outcome = owner.stop_and_wait().await;
    assert_eq!(outcome.deliveries.len(), 1);
}

#[tokio::test]
async fn two_links_in_turn_are_one_link() {
    let sandbox = Sandbox::new();
    let mut project = sandbox.project("");
    let script = "import itertools, time\n\
                  for link in itertools.cycle(['one', 'two']):\n    \
                  print(f'https://claude.ai/code/{link} ', flush=True); time.sleep(0.05)";
    project.settings.command = ["python3", "-c", script].map(str::to_owned).into();
    let mut owner = Owner::with_session(&sandbox, project).await;
    // Longer than a second link has to be the only one to count.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        owner.handle_next(Duration::from_millis(100)).await;
    }
    assert_eq!(owner.delivered.len(), 1);
    assert!(owner.redacted.is_empty());
    owner.stop_and_wait().await;
}

/// Whatever a conversation is called or does, and whatever an event says: only the link in the own line counts.
#[tokio::test]
async fn nothing_that_a_conversation_shows_is_a_link_or_a_cause() {
    const OTHER: &str = "https%3A//claude.ai/code/session_01Other";
    for words in [
        format!("title={OTHER}"),
        format!("title=Code anywhere with {OTHER}"),
        format!(
            "title=Error: Workspace not trusted. {OTHER},event=Session failed: Workspace not trusted. {OTHER}"
        ),
    ] {
        let sandbox = Sandbox::new();
        let mut owner = Owner::starting(&sandbox, sandbox.project(&format!("{words},die=3")));
        let link = owner.link(0).await;
        assert!(link.is(&sandbox.standin_records()[0].link), "{words}");
        let outcome = owner.outcome().await;
        assert_eq!(owner.delivered.len(), 1, "{words}");
        let ending = Ending::Exited {
            exit: Exit::Code(4),
            cause: Some(Cause::Network),
        };
        assert_eq!(
            outcome.ending, ending,
            "what it says itself counts: {words}"
        );
    }
}

#[tokio::test]
async fn the_link_is_that_of_the_own_line_whatever_is_printed_beside_it() {
    for (words, beginning) in [
        // Nothing follows it.
        ("cut", Beginning::Fresh),
        // A conversation that is continued.
        ("", Beginning::Resumed),
        // The link of an earlier session opens a conversation that nobody requested.
        ("again", Beginning::Resumed),
        ("again,slow=3", Beginning::Resumed),
    ] {
        let sandbox = Sandbox::new();
        let mut owner = Owner::restore(&sandbox, sandbox.project(words));
        owner.begin("alice", beginning);
        let link = owner.link(0).await;
        assert!(link.is(&sandbox.standin_records()[0].link), "{words}");
        let is_resumed = link.starts_with("https://claude.ai/code/session_");
        assert_eq!(is_resumed, beginning == Beginning::Resumed, "{words}");
        owner.stop_and_wait().await;
        assert_eq!(owner.delivered.len(), 1, "{words}");
    }
}

/// The notice of a complaint, and how many notices there were.
async fn complaint(words: &str, within: Duration) -> (Option<(Cause, String, bool)>, usize) {
    let sandbox = Sandbox::new();
    let mut owner = Owner::with_session(&sandbox, sandbox.project(words)).await;
    let until = Instant::now() + within;
    while owner.notices.is_empty() && Instant::now() < until {
        owner.handle_next(Duration::from_millis(50)).await;
    }
    owner.handle_next(Duration::from_millis(1500)).await;
    let complaint = match owner.notices.first() {
        Some(Notice::Complained {
            cause,
            quote,
            in_room,
        }) => Some((*cause, quote.expose().to_owned(), *in_room)),
        _ => None,
    };
    let count = owner.notices.len();
    assert_eq!(owner.phase(), Some(Phase::Running), "it goes on: {words}");
    owner.stop_and_wait().await;
    (complaint, count)
}

#[tokio::test]
async fn a_complaint_of_a_running_program_is_reported_at_once_and_once() {
    let moon = "Error: The moon is full.";
    for (words, cause, quote) in [
        (format!("stderr={moon}"), Cause::Unknown, moon),
        (format!("event={moon}"), Cause::Unknown, moon),
        (
            "event=gone".to_owned(),
            Cause::ProgramGone,
            "Session failed: program not found",
        ),
        (
            "event=directory".to_owned(),
            Cause::DirectoryGone,
            "Session failed: working folder not found",
        ),
        (
            "event=spawn".to_owned(),
            Cause::ConversationsFail,
            "Session failed: spawn error",
        ),
        (
            "event=start".to_owned(),
            Cause::ConversationsFail,
            "Error: Couldn't start session",
        ),
        (
            "event=credential".to_owned(),
            Cause::ConversationsFail,
            "Warning: The server keeps rejecting",
        ),
    ] {
        let (reported, count) = complaint(&words, DEADLINE).await;
        let (reported, said, in_room) = reported.expect(&words);
        assert_eq!((reported, in_room, count), (cause, true, 1), "{words}");
        assert!(said.starts_with(quote), "{said}");
    }
    let words = "event=Session failed: Workspace not trusted. cse_1";
    assert_eq!(complaint(words, Duration::from_secs(3)).await, (None, 0));
}

#[tokio::test]
async fn the_room_is_notified_of_a_complaint_that_was_printed_with_the_link_while_no_bot_ran() {
    let moon = "Error: The moon is full.";
    for (event, cause) in [("gone", Cause::ProgramGone), (moon, Cause::Unknown)] {
        let sandbox = Sandbox::new();
        let project = || sandbox.project(&format!("held,event={event}"));
        let mut owner = Owner::starting(&sandbox, project());
        owner
            .until_fact("it runs", || !sandbox.standin_records().is_empty())
            .await;
        drop(owner);
        sandbox.let_standin_go_on();
        let stdout = sandbox.session_file("stdout.log");
        eventually("both are printed", || {
            let printed = fs::read_to_string(&stdout).unwrap_or_default();
            (printed.contains("Session failed") || printed.contains(moon)).then_some(())
        });
        let mut owner = Owner::restore(&sandbox, project());
        owner.link(0).await;
        let in_room = owner
            .until("a complaint", |owner| match owner.notices.first()? {
                Notice::Complained {
                    cause: found,
                    in_room,
                    ..
                } if *found == cause => Some(*in_room),
                other => panic!("{other:?}"),
            })
            .await;
        assert!(in_room, "{event}");
        owner.stop_and_wait().await;
    }
}

#[tokio::test]
async fn a_start_that_fails_for_an_unknown_reason_is_quoted() {
    for (words, quote) in [
        (
            "complaint=Error: The moon is full.%0Aand shines",
            "Error: The moon is full.",
        ),
        (
            "complaint=The moon is full.%0Aand shines",
            "The moon is full.",
        ),
        (
            "complaint=no link: https%3A//claude.ai/code/session_1",
            "no link: [link]",
        ),
    ] {
        let sandbox = Sandbox::new();
        let mut owner = Owner::starting(&sandbox, sandbox.project(words));
        owner.outcome().await;
        let [
            Notice::Complained {
                quote: said,
                in_room: false,
                ..
            },
        ] = &owner.notices[..]
        else {
            panic!("{words}: {:?}", owner.notices)
        };
        assert_eq!(said.expose(), quote);
    }
}

#[tokio::test]
async fn what_the_program_says_before_it_ends_is_a_named_cause() {
    for (name, exit, cause) in [
        ("argument", 1, Cause::CommandLine),
        ("sandbox", 1, Cause::CommandLine),
        ("login", 1, Cause::NotLoggedIn),
        ("subscription", 1, Cause::NotLoggedIn),
        ("organization", 1, Cause::NotLoggedIn),
        ("key", 1, Cause::ApiKey),
        ("token", 1, Cause::LongLivedToken),
        ("provider", 1, Cause::ForeignEndpoint),
        ("flags", 1, Cause::TelemetryOff),
        ("managed", 1, Cause::SwitchedOff),
        ("policy", 1, Cause::Policy),
        ("account", 1, Cause::NotEnabled),
        ("proxy", 1, Cause::PolicyUnreadable),
        ("device", 1, Cause::TrustedDevices),
        ("version", 1, Cause::TooOld),
        ("trust", 1, Cause::WorkspaceNotTrusted),
        ("home", 1, Cause::HomeDirectory),
        ("pointer", 1, Cause::StalePointer),
        ("The moon is full.", 1, Cause::Unknown),
    ] {
        let sandbox = Sandbox::new();
        let project = sandbox.project(&format!("complaint={name}"));
        let mut owner = Owner::starting(&sandbox, project);
        let ending = Ending::ExitedBeforeLink {
            exit: Exit::Code(exit),
            cause: Some(cause),
        };
        assert_eq!(owner.outcome().await.ending, ending, "{name}");
    }
}

#[tokio::test]
async fn a_program_that_lingers_after_a_refusal_is_not_waited_for() {
    for (name, cause) in [
        ("refused", Cause::LoginRefused),
        ("denied", Cause::AccessDenied),
        ("unavailable", Cause::NotEnabled),
    ] {
        let sandbox = Sandbox::new();
        let project = sandbox.project(&format!("complaint={name},linger=300"));
        let mut owner = Owner::restore(&sandbox, project);
        let asked = Instant::now();
        owner.start("alice");
        let ending = owner.outcome().await.ending;
        assert!(
            matches!(ending, Ending::NoLink { waited, cause: Some(reported) }
                if reported == cause && waited <= asked.elapsed() + Duration::from_secs(1)),
            "{name}: {ending:?}"
        );
        assert!(sandbox.processes().is_empty());
    }
}

#[tokio::test]
async fn a_process_that_waits_at_a_question_is_reported_as_that() {
    let sandbox = Sandbox::new();
    let mut project = sandbox.project("ask");
    project.settings.stdin = "".into();
    // Long enough for a slow machine to come to the question.
    project.settings.link_timeout = Duration::from_secs(15);
    let mut owner = Owner::starting(&sandbox, project);
    let ending = Ending::NoLink {
        waited: Duration::from_secs(15),
        cause: Some(Cause::ConsentAsked),
    };
    assert_eq!(owner.outcome().await.ending, ending);
    assert!(sandbox.processes().is_empty());
}

#[tokio::test]
async fn a_link_printed_while_no_bot_ran_counts_even_if_its_time_is_over() {
    let sandbox = Sandbox::new();
    let mut project = sandbox.project("slow=0.5,noise=2");
    project.settings.link_timeout = Duration::from_secs(5);
    project.settings.max_output = 64 << 20;
    let mut owner = Owner::starting(&sandbox, project.clone());
    assert!(owner.handle_next(DEADLINE).await, "it is spawned");
    let asked = Instant::now();
    drop(owner);
    eventually("the link is printed", || {
        let output = fs::read(sandbox.session_file("stdout.log")).ok()?;
        memchr::memmem::find(&output, b"space to show QR code").map(|_| ())
    });
    sleep_until(asked + project.settings.link_timeout).await;

    let mut owner = Owner::restore(&sandbox, project);
    let link = owner.link(0).await;
    assert!(link.is(&sandbox.standin_records()[0].link));
    owner.stop_and_wait().await;
}

#[tokio::test]
async fn all_that_a_process_printed_is_read_although_it_ended_while_no_bot_ran() {
    let sandbox = Sandbox::new();
    let mut project = sandbox.project("");
    // So much that it is not read by chance before the end is seen.
    let script = "yes | head -c 900000
        echo 'Code anywhere with the Claude mobile app or https://claude.ai/code/session_1'";
    project.settings.command = ["sh", "-c", script].map(str::to_owned).into();
    let mut owner = Owner::starting(&sandbox, project.clone());
    assert!(owner.handle_next(DEADLINE).await, "it is spawned");
    drop(owner);
    sandbox.wait_for_processes(0);
    let mut owner = Owner::restore(&sandbox, project);
    let outcome = owner.outcome().await;
    assert!(outcome.had_link, "{:?}", outcome.ending);
}
