//! How a session begins, how long it lasts, and how it comes back.

use std::{ffi::OsStr, fs, path::Path, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rcbot::remote_control::{
    Cause, Choice, Connection, Ending, Exit, NotSpawned, Notice, Phase, Restart, WARNING,
    offline::{self, SessionReport},
};
use serde_json::json;
use tokio::time::timeout;

use crate::support::{
    DEADLINE, Sandbox,
    own_process::in_own_process,
    owner::{Owner, request},
    website,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_the_bot_has_in_its_environment_does_not_reach_a_session() {
    const OURS: [(&str, &str); 5] = [
        ("ANTHROPIC_API_KEY", "secret"),
        ("DISABLE_TELEMETRY", "1"),
        ("LC_RCBOT_TEST", "C"),
        ("RCBOT_AS_TOKEN", "secret"),
        ("RCBOT_SESSION_ID", "outer"),
    ];
    in_own_process(&[], &OURS, async {
        let sandbox = Sandbox::new();
        let mut project = sandbox.project("");
        // It leaves its environment as it is.
        project.settings.command = ["sleep", "600"].map(str::to_owned).into();
        let mut owner = Owner::starting(&sandbox, project);
        assert!(owner.handle_next(DEADLINE).await, "it is spawned");
        let [process] = sandbox.processes()[..] else {
            panic!("one process")
        };
        let process = procfs::process::Process::new(process.as_raw()).unwrap();
        let environment = process.environ().unwrap();
        let of_project = ["RCBOT_STANDIN", "RCBOT_STANDIN_LOG"];
        let of_session = [
            "RCBOT_DATA_DIRECTORY",
            "RCBOT_SESSION_FOLDER",
            "RCBOT_SESSION_ID",
        ];
        let inherited = [
            "CLAUDE_CONFIG_DIR",
            "HOME",
            "LANG",
            "LOGNAME",
            "PATH",
            "SHELL",
            "SSH_AUTH_SOCK",
            "TERM",
            "TMPDIR",
            "TZ",
            "USER",
        ];
        let known = [&of_project[..], &of_session, &inherited].concat();
        let names = environment.keys().map(|name| name.to_str().unwrap());
        let strangers: Vec<_> = names
            .filter(|name| !name.starts_with("LC_") && !name.starts_with("XDG_"))
            .filter(|name| !known.contains(name))
            .collect();
        assert!(strangers.is_empty(), "{strangers:?}");
        assert_eq!(environment[OsStr::new("LC_RCBOT_TEST")], "C");
        assert_ne!(environment[OsStr::new("RCBOT_SESSION_ID")], "outer");
        owner.stop_and_wait().await;
    });
}

#[tokio::test]
async fn a_session_whose_time_is_up_is_ended_also_by_the_next_bot_and_its_link_redacted() {
    let sandbox = Sandbox::new();
    let mut project = sandbox.project("fork=1");
    project.settings.max_duration = Some(2 * SECOND);
    let owner = Owner::with_session(&sandbox, project.clone()).await;
    let left = owner.session().unwrap().time_left.unwrap();
    assert!(left <= 2 * SECOND);
    drop(owner);
    // Whatever the settings say now: this one was started with two seconds.
    project.settings.max_duration = None;
    let mut owner = Owner::restore(&sandbox, project);
    assert_eq!(owner.outcome().await.ending, Ending::Expired);
    assert_eq!(owner.redacted.len(), 1);
    assert!(owner.notices.is_empty(), "no warning of so short a time");
    assert!(sandbox.processes().is_empty());
}

#[tokio::test]
async fn a_session_that_ends_soon_is_announced_and_can_be_extended() {
    let sandbox = Sandbox::new();
    let mut project = sandbox.project("");
    project.settings.max_duration = Some(WARNING + 2 * SECOND);
    let mut owner = Owner::with_session(&sandbox, project).await;
    let (holders, left) = owner
        .until("the warning", |owner| match owner.notices.pop()? {
            Notice::EndsSoon { holders, left, .. } => Some((holders, left)),
            other => panic!("{other:?}"),
        })
        .await;
    assert!(holders.iter().eq(["alice"]));
    assert!(left <= WARNING);

    owner.extend("bob", Duration::from_hours(1));
    let Some(Notice::Extended { request, left, .. }) = owner.notices.pop() else {
        panic!("no answer")
    };
    assert_eq!(request.requester, "bob");
    assert!(left.unwrap() > Duration::from_hours(1));
    assert_eq!(
        owner.session().unwrap().time_left.unwrap().as_secs() / 60,
        left.unwrap().as_secs() / 60
    );
    owner.stop_and_wait().await;
    owner.extend("bob", SECOND);
    assert!(matches!(owner.notices[..], [Notice::NoSession { .. }]));
}

#[tokio::test]
async fn a_session_that_exited_is_restarted_with_a_new_link() {
    let sandbox = Sandbox::new();
    let mut project = sandbox.project("die=0.5");
    project.settings.restart = Restart::OnExit;
    let mut owner = Owner::with_session(&sandbox, project.clone()).await;
    let (ending, delay) = owner
        .until("the delay", |owner| match owner.notices.pop()? {
            Notice::Restarting { ending, delay, .. } => Some((ending, delay)),
            other => panic!("{other:?}"),
        })
        .await;
    let exit = Exit::Code(4);
    let cause = Some(Cause::Network);
    assert_eq!(ending, Ending::Exited { exit, cause });
    assert_eq!(delay, 5 * SECOND);
    assert_eq!(owner.phase(), Some(Phase::AwaitingRestart));
    assert_eq!(owner.redacted.len(), 1);
    // The delay is kept over a restart of the bot.
    drop(owner);
    let mut owner = Owner::restore(&sandbox, project);
    assert_eq!(owner.phase(), Some(Phase::AwaitingRestart));
    let link = owner.link(0).await;
    let records = sandbox.standin_records();
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].session_id, records[1].session_id);
    assert!(link.is(&records[1].link));
    assert_eq!(owner.delivered[0].1.requester, "alice");

    owner
        .until("the second delay", |owner| {
            (owner.phase() == Some(Phase::AwaitingRestart)).then_some(())
        })
        .await;
    let outcome = owner.stop_and_wait().await;
    assert_eq!(outcome.ending, Ending::Stopped);
    assert_eq!(owner.phase(), None);
}

#[tokio::test]
async fn the_default_of_an_option_is_recorded_and_later_not_allowed_any_more() {
    let sandbox = Sandbox::new();
    let mut project = sandbox.project("");
    project.settings.restart = Restart::OnExit;
    let mode = ["--permission-mode", "{mode}"].map(str::to_owned);
    project.settings.command.extend(mode);
    let choice = |value: &str| Choice {
        value: value.to_owned(),
        level: None,
    };
    project.settings.permission_modes = vec![choice("default"), choice("plan")];
    let owner = Owner::with_session(&sandbox, project.clone()).await;
    // Only for an option that is not known, a link needs the level of the highest.
    let options = owner.session().unwrap().start.options;
    assert_eq!(options.mode.as_deref(), Some("default"));
    drop(owner);
    sandbox.kill_the_process();
    project.settings.permission_modes.remove(0);
    let mut owner = Owner::restore(&sandbox, project);
    owner
        .until("it awaits its restart", |owner| {
            (owner.phase() == Some(Phase::AwaitingRestart)).then(|| owner.notices.clear())
        })
        .await;
    owner.start("alice");
    let notice = owner.until("the answer", |owner| owner.notices.pop()).await;
    let Notice::Restarting {
        ending: Ending::NotSpawned(NotSpawned::Other { reason }),
        ..
    } = notice
    else {
        panic!("{notice:?}")
    };
    assert!(reason.contains("--mode default"), "{reason}");
    owner.stop_and_wait().await;
}

#[tokio::test]
async fn a_session_that_is_cut_off_is_reported_once_and_again_when_it_is_back() {
    let sandbox = Sandbox::new();
    let mut project = sandbox.project("reconnect=1,back=6");
    project.settings.reconnect_limit = SECOND;
    let mut owner = Owner::with_session(&sandbox, project).await;
    let notice = owner
        .until("it is cut off", |owner| owner.notices.pop())
        .await;
    assert!(matches!(notice, Notice::CutOff { .. }), "{notice:?}");
    let session = owner.session().unwrap();
    let said = session.connection;
    assert!(session.is_cut_off && matches!(said, Some(Connection::Reconnecting { .. })));
    let notice = owner.until("it is back", |owner| owner.notices.pop()).await;
    assert!(matches!(notice, Notice::Reconnected { .. }), "{notice:?}");
    assert_eq!(
        owner.session().unwrap().connection,
        Some(Connection::Connected)
    );
    owner.stop_and_wait().await;
}

#[tokio::test]
async fn a_session_that_is_stuck_is_restarted_where_that_is_wanted_and_reported_once() {
    let sandbox = Sandbox::new();
    let mut project = sandbox.project("reconnect=1,first=1");
    project.settings.reconnect_limit = SECOND;
    project.settings.restart = Restart::OnExit;
    let mut owner = Owner::with_session(&sandbox, project).await;
    let first = owner.link(0).await;
    let second = owner.link(1).await;
    assert!(
        !second.is(&sandbox.standin_records()[0].link)
            && second.is(&sandbox.standin_records()[1].link)
    );
    assert!(first.is(&sandbox.standin_records()[0].link));
    assert_eq!(owner.redacted.len(), 1);
    let notices = &owner.notices[..];
    assert!(
        matches!(notices, [
            Notice::CutOff { restart, .. },
            Notice::Restarting { ending: Ending::CutOff { .. }, had_link, .. },
        ] if *restart == Restart::OnExit && *had_link),
        "{notices:?}"
    );
    owner
        .until("it is connected", |owner| {
            let connection = owner.session().unwrap().connection;
            (connection == Some(Connection::Connected)).then_some(())
        })
        .await;
    assert_eq!(owner.notices.len(), 2, "{:?}", owner.notices);
    owner.stop_and_wait().await;
}

#[tokio::test]
async fn a_first_start_that_fails_for_a_cause_that_passes_is_tried_again_and_comes_up() {
    for (complaint, cause) in [
        (
            "Error: getaddrinfo EAI_AGAIN api.anthropic.com",
            Cause::Network,
        ),
        ("limit", Cause::ServiceBusy),
        ("server", Cause::ServiceFails),
    ] {
        let sandbox = Sandbox::new();
        // Also without a request, at boot.
        let mut project = sandbox.project(&format!("complaint={complaint},first=1"));
        project.deliver_to = vec!["alice".to_owned()];
        let mut owner = Owner::restore(&sandbox, project);
        let link = owner.link(0).await;
        assert!(link.is(&sandbox.standin_records()[1].link), "{complaint}");
        let [
            Notice::Restarting {
                ending,
                had_link: false,
                ..
            },
        ] = &owner.notices[..]
        else {
            panic!("{complaint}: {:?}", owner.notices)
        };
        assert_eq!(ending.cause(), Some(cause));
        owner.stop_and_wait().await;
    }
}

#[tokio::test]
async fn a_slow_stop_is_reported_before_it_is_over_and_kills_nothing() {
    let sandbox = Sandbox::new();
    let mut owner = Owner::with_session(&sandbox, sandbox.project("stopping=4")).await;
    owner.stop("carol");
    let notice = owner
        .until("it is shutting down", |owner| owner.notices.pop())
        .await;
    assert_eq!(notice, Notice::ShuttingDown(vec![request("carol")]));
    let outcome = owner.outcome().await;
    assert_eq!(outcome.report.unwrap().killed, 0);
    assert_eq!(outcome.stop_requests, [request("carol")]);
}

#[tokio::test]
async fn a_project_with_autostart_starts_with_the_bot_and_only_once() {
    let sandbox = Sandbox::new();
    let mut project = sandbox.project("");
    project.deliver_to = vec!["alice".to_owned(), "bob".to_owned()];
    let mut owner = Owner::restore(&sandbox, project.clone());
    let link = owner.link(1).await;
    let users: Vec<_> = owner
        .delivered
        .iter()
        .map(|(_, it, _)| &it.requester)
        .collect();
    assert_eq!(users, ["alice", "bob"]);
    drop(owner);
    let mut owner = Owner::restore(&sandbox, project);
    assert_eq!(owner.phase(), Some(Phase::Running));
    assert!(owner.delivered.is_empty(), "they have it already");
    assert_eq!(sandbox.standin_records().len(), 1);
    assert!(link.is(&sandbox.standin_records()[0].link));
    sandbox.kill_the_process();
    owner.outcome().await;
    assert_eq!(owner.phase(), None, "it ran when the bot came");
}

#[tokio::test]
async fn there_are_no_more_sessions_than_there_may_be() {
    let sandbox = Sandbox::new();
    let projects = ["api", "blog", "website"].map(|name| {
        let mut project = sandbox.project("");
        project.name = name.parse().unwrap();
        // The first in the order of names, which must not take the place of one that runs.
        project.deliver_to = (name == "api")
            .then(|| "carol".to_owned())
            .into_iter()
            .collect();
        project
    });
    let restore = |max_sessions| {
        let mut settings = sandbox.settings(projects.clone());
        settings.max_sessions = max_sessions;
        Owner::with(settings)
    };
    let refusal = |notices: &mut Vec<Notice>| match notices.pop() {
        Some(Notice::TooManySessions {
            requests,
            limit,
            active,
        }) => {
            let active: Vec<_> = active.iter().map(ToString::to_string).collect();
            let of = requests[0].requester.clone();
            (of, limit, active)
        }
        other => panic!("{other:?}"),
    };
    // Autostart has the one place, and two who start at the same time get none.
    let mut owner = restore(Some(1));
    for user in ["alice", "bob"] {
        owner.start(user);
        let expected = (user.to_owned(), 1, vec!["api".to_owned()]);
        assert_eq!(refusal(&mut owner.notices), expected);
    }
    let api = "api".parse().unwrap();
    let stop = owner.remote_control.stop(&api, request("alice"));
    assert!(stop.is_empty());
    owner.outcome().await;
    // Its place is free again, and not for two.
    let known = owner.delivered.len();
    owner.start("alice");
    owner.link(known).await;
    drop(owner);
    // A session that ran before comes first, and the bot's own start is refused.
    let mut owner = restore(Some(1));
    let expected = ("carol".to_owned(), 1, vec!["website".to_owned()]);
    assert_eq!(refusal(&mut owner.notices), expected);
    owner.stop("alice");
    owner.outcome().await;
}

#[tokio::test]
async fn what_ended_while_no_bot_ran_is_started_again_where_that_is_wanted() {
    for is_booted in [false, true] {
        let sandbox = Sandbox::new();
        let mut project = sandbox.project("");
        project.deliver_to = vec!["alice".to_owned()];
        let mut owner = Owner::restore(&sandbox, project.clone());
        owner.link(0).await;
        drop(owner);
        sandbox.kill_the_process();
        if is_booted {
            sandbox.edit_record(|record| {
                record["boot_id"] = json!("another boot");
                let process = &mut record["session"]["state"]["running"]["process"];
                process["boot_id"] = json!("another boot");
            });
        }

        let mut owner = Owner::restore(&sandbox, project.clone());
        let is_distinguished = match owner.outcome().await.ending {
            Ending::HostRestarted => is_booted,
            Ending::Exited { .. } => !is_booted,
            other => panic!("{other:?}"),
        };
        assert!(is_distinguished);
        assert_eq!(owner.redacted.len(), 1);
        owner.link(0).await;
        assert_eq!(owner.delivered[0].1.requester, "alice");
        assert_eq!(sandbox.standin_records().len(), 2);
        // A stop of that one is final, also where it has ended unnoticed.
        drop(owner);
        sandbox.kill_the_process();
        let mut owner = Owner::restore(&sandbox, project);
        owner.stop_and_wait().await;
        assert_eq!(owner.phase(), None);
    }
}

#[tokio::test]
async fn a_found_project_is_not_started_where_a_symbolic_link_has_replaced_its_folder() {
    let sandbox = Sandbox::new();
    let mut project = sandbox.project("");
    project.is_found = true;
    project.directory = sandbox.path("").canonicalize().unwrap().join("found");
    std::os::unix::fs::symlink("website", &project.directory).unwrap();
    let mut owner = Owner::starting(&sandbox, project);
    let ending = owner.outcome().await.ending;
    let is_gone = |reason: &NotSpawned| matches!(reason, NotSpawned::DirectoryGone { .. });
    assert!(
        matches!(&ending, Ending::NotSpawned(reason) if is_gone(reason)),
        "{ending:?}"
    );
    assert!(sandbox.standin_records().is_empty());
}

/// The status of the only project, and whether anything of its session runs.
fn status(folder: &Path) -> (Option<Phase>, bool) {
    match &offline::status(folder).unwrap()[..] {
        [SessionReport::Record { status, is_alive }] => {
            (status.session.as_ref().map(|it| it.phase), *is_alive)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn sessions_can_be_seen_and_stopped_while_no_bot_runs() {
    for left in [2, 1] {
        let sandbox = Sandbox::new();
        let project = sandbox.project("fork=1");
        drop(Owner::with_session(&sandbox, project.clone()).await);
        let folder = sandbox.path("sessions");
        assert_eq!(status(&folder), (Some(Phase::Running), true));
        if left == 1 {
            // Without its leader, what is left of it counts.
            let leader = Pid::from_raw(sandbox.standin_records()[0].pid);
            kill(leader, Signal::SIGKILL).unwrap();
            sandbox.wait_for_processes(left);
            assert_eq!(status(&folder), (Some(Phase::Running), true));
        }

        let report = offline::stop(&folder, &website(), 10 * SECOND).await;
        assert_eq!(report.unwrap().unwrap().processes, left);
        assert!(sandbox.processes().is_empty());
        assert_eq!(status(&folder), (Some(Phase::Stopping), false));
        assert!(!offline::status(&folder).unwrap()[0].is_active());
        let again = offline::stop(&folder, &website(), 10 * SECOND).await;
        assert!(again.unwrap().is_none());

        let mut owner = Owner::restore(&sandbox, project);
        assert_eq!(owner.outcome().await.ending, Ending::Stopped);
        assert_eq!(owner.redacted.len(), 1, "the bot redacts the link");
        assert!(offline::status(&folder).unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_session_without_a_record_can_be_seen_and_stopped_while_no_bot_runs() {
    let damages: [(fn(&Sandbox), _); 3] = [
        (
            |sandbox| fs::remove_file(sandbox.session_file("session.json")).unwrap(),
            None,
        ),
        (
            |sandbox| fs::write(sandbox.session_file("session.json"), "x").unwrap(),
            Some("x"),
        ),
        (
            |sandbox| sandbox.edit_record(|record| record["session"] = json!(null)),
            None,
        ),
    ];
    for (damage, unreadable) in damages {
        let sandbox = Sandbox::new();
        drop(Owner::with_session(&sandbox, sandbox.project("")).await);
        damage(&sandbox);
        let folder = sandbox.path("sessions");
        let known = offline::status(&folder).unwrap();
        assert!(matches!(&known[..], [it @ SessionReport::Unrecorded { .. }] if it.is_active()));
        let report = offline::stop(&folder, &website(), 10 * SECOND).await;
        assert_eq!(report.unwrap().unwrap().processes, 1);
        assert!(sandbox.processes().is_empty());
        let names = fs::read_dir(sandbox.session_file("")).unwrap();
        let aside: Vec<_> = names
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().unwrap().contains(".unreadable-"))
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        assert!(aside.iter().map(String::as_str).eq(unreadable));
    }
}

#[tokio::test]
async fn requesters_of_a_session_that_is_stopped_without_a_bot_are_answered_by_the_next_one() {
    let sandbox = Sandbox::new();
    let mut owner = Owner::starting(&sandbox, sandbox.project("silent"));
    assert!(owner.handle_next(DEADLINE).await, "it is spawned");
    drop(owner);
    let folder = sandbox.path("sessions");
    // It ended unnoticed.
    sandbox.kill_the_process();
    let report = offline::stop(&folder, &website(), 10 * SECOND).await;
    assert_eq!(report.unwrap().map(|it| it.processes), Some(0));

    let mut owner = Owner::restore(&sandbox, sandbox.project("silent"));
    let outcome = owner.outcome().await;
    assert_eq!(outcome.ending, Ending::Stopped);
    let [waiting] = &outcome.deliveries[..] else {
        panic!("{outcome:?}")
    };
    assert_eq!(waiting.request.requester, "alice");
}

#[tokio::test]
async fn an_interrupted_stop_without_a_bot_is_no_unexpected_exit_to_the_next_one() {
    let sandbox = Sandbox::new();
    let mut project = sandbox.project("ignore-sigterm");
    project.settings.restart = Restart::OnExit;
    drop(Owner::with_session(&sandbox, project.clone()).await);
    let folder = sandbox.path("sessions");
    let website = website();
    let is_on_record = async {
        while status(&folder).0 != Some(Phase::Stopping) {
            tokio::time::sleep(SECOND / 100).await;
        }
    };
    tokio::select! {
        report = offline::stop(&folder, &website, 3600 * SECOND) => panic!("{report:?}"),
        on_record = timeout(DEADLINE, is_on_record) => on_record.expect("it is written down first"),
    }
    assert!(offline::status(&folder).unwrap()[0].is_active());
    let again = offline::stop(&folder, &website, Duration::ZERO).await;
    assert!(again.unwrap().is_some());
    let mut owner = Owner::restore(&sandbox, project);
    assert_eq!(owner.outcome().await.ending, Ending::Stopped);
}
