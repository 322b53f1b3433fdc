use super::super::{
    Exit, exited, raise_descriptor_limit,
    testing::{Sandbox, eventually, within_deadline},
};
use tokio::task::spawn_blocking;

use super::*;

#[tokio::test]
async fn a_spawned_process_leads_a_session_of_its_own() {
    let sandbox = Sandbox::new();
    let identity = sandbox.spawn("exec sleep 600");
    let seen = identity.look().unwrap().unwrap();
    assert_eq!((seen.session, seen.group), (identity.pid(), identity.pid()));
}

/// Started by `a_spawned_process_survives_the_one_that_started_it`, as a process of its own that ends at once.
#[test]
#[ignore = "not a test: the short-lived parent of another test"]
fn parent() {
    let directory = PathBuf::from(std::env::var_os("PARENT_DIRECTORY").unwrap());
    let (name, value) = ("RCBOT_TEST_MARK", std::env::var("PARENT_MARK").unwrap());
    let launch = Launch {
        program: "sleep".to_owned(),
        arguments: vec!["600".to_owned()],
        environment: BTreeMap::from([(name.into(), value.clone().into())]),
        mark: value,
        stdin: directory.join("stdin"),
        stdout: directory.join("stdout"),
        stderr: directory.join("stderr"),
        directory: directory.clone(),
    };
    raise_descriptor_limit();
    if std::env::var_os("PARENT_IS_LOWERED").is_some() {
        let pid = std::process::id().to_string();
        let prlimit = ["--pid", &pid, "--nofile=400:400"];
        assert!(
            Command::new("prlimit")
                .args(prlimit)
                .status()
                .unwrap()
                .success()
        );
    }
    let limit = rustix::process::getrlimit(Resource::Nofile).current;
    fs::write(directory.join("limit"), format!("{limit:?}")).unwrap();
    let identity = spawn(&launch).unwrap();
    let json = serde_json::to_vec(&identity).unwrap();
    fs::write(directory.join("identity"), json).unwrap();
}

/// Spawns `sleep` from a process that is over by then, and that is started by these words before its own.
fn spawned_by_another(sandbox: &Sandbox, wrapper: &[&str]) -> ProcessIdentity {
    fs::write(sandbox.path("stdin"), "").unwrap();
    let mut words = wrapper.iter().map(PathBuf::from).collect::<Vec<_>>();
    words.push(std::env::current_exe().unwrap());
    let parent = Command::new(&words[0])
        .args(&words[1..])
        .args(["--ignored", "--exact"])
        .arg(
            concat!(module_path!(), "::parent")
                .split_once("::")
                .unwrap()
                .1,
        )
        .env("PARENT_DIRECTORY", sandbox.path("."))
        .env("PARENT_MARK", sandbox.mark().1)
        .output()
        .unwrap();
    assert!(parent.status.success(), "{parent:?}");
    let json = fs::read(sandbox.path("identity")).unwrap();
    serde_json::from_slice(&json).unwrap()
}

/// How many descriptors it may have open, the soft limit and the hard one.
fn limit_of(process: &ProcessIdentity) -> [String; 2] {
    let limits = fs::read_to_string(format!("/proc/{}/limits", process.pid())).unwrap();
    let mut lines = limits.lines();
    let files = lines.find(|line| line.starts_with("Max open files"));
    let words: Vec<_> = files.unwrap().split_whitespace().collect();
    [words[3].to_owned(), words[4].to_owned()]
}

#[tokio::test]
async fn a_spawned_process_survives_the_one_that_started_it() {
    let sandbox = Sandbox::new();
    let identity = spawned_by_another(&sandbox, &["env"]);
    assert!(identity.is_alive().unwrap());
}

#[tokio::test]
async fn a_spawned_process_inherits_no_descriptor() {
    let sandbox = Sandbox::new();
    let leak = File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let identity = sandbox.spawn("exec sleep 600");
    let descriptors = PathBuf::from(format!("/proc/{}/fd", identity.pid()));
    // The loader of the program opens files of its own, at first.
    eventually("only the three streams are open", || {
        let entries = fs::read_dir(&descriptors).unwrap();
        let mut open: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        open.sort();
        open == ["0", "1", "2"]
    })
    .await;
}

#[tokio::test]
async fn a_spawned_process_has_the_given_environment_and_nothing_else() {
    let sandbox = Sandbox::new();
    let mut launch = sandbox.launch("");
    launch.program = "env".to_owned();
    launch.arguments.clear();
    launch.environment.insert("A".into(), "b c".into());
    exited(&spawn(&launch).unwrap()).await.unwrap();
    let mut expected: Vec<_> = launch
        .environment
        .iter()
        .map(|(name, value)| format!("{}={}", name.display(), value.display()))
        .collect();
    expected.sort();
    let output = fs::read_to_string(&launch.stdout).unwrap();
    let mut seen: Vec<_> = output.lines().collect();
    seen.sort_unstable();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_spawned_process_ignores_and_blocks_no_signal() {
    let sandbox = Sandbox::new();
    let ignoring = r#"trap '' HUP USR1 40; exec "$0" "$@""#;
    let identity = spawned_by_another(&sandbox, &["sh", "-c", ignoring]);
    let status = fs::read_to_string(format!("/proc/{}/status", identity.pid())).unwrap();
    for name in ["SigBlk:", "SigIgn:"] {
        let set = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        // The C library keeps the signals 32 and 33 for itself.
        let set = u64::from_str_radix(set.trim(), 16).unwrap() & !(0b11 << 31);
        assert_eq!(set, 0, "{status}");
    }
}

#[tokio::test]
async fn a_spawned_process_has_the_limit_of_descriptors_that_its_parent_began_with() {
    let sandbox = Sandbox::new();
    let identity = spawned_by_another(&sandbox, &["prlimit", "--nofile=500:600"]);
    assert_eq!(limit_of(&identity), ["500", "600"]);
    let of_parent = fs::read_to_string(sandbox.path("limit")).unwrap();
    assert_eq!(of_parent, "Some(600)", "it raised its own");
}

#[tokio::test]
async fn a_process_is_spawned_with_less_descriptors_where_somebody_took_some_from_its_parent() {
    let sandbox = Sandbox::new();
    let mut wrapper = vec!["env", "PARENT_IS_LOWERED=1", "prlimit", "--nofile=500:600"];
    if rustix::process::geteuid().is_root() {
        // Root could raise its limit again.
        wrapper.extend(["setpriv", "--bounding-set", "-sys_resource"]);
    }
    let identity = spawned_by_another(&sandbox, &wrapper);
    assert_eq!(limit_of(&identity), ["400", "400"]);
}

#[tokio::test]
async fn a_spawned_process_reads_its_stdin_then_end_of_file() {
    let sandbox = Sandbox::new();
    let launch = sandbox.launch("cat; echo end");
    fs::write(&launch.stdin, "y\n").unwrap();
    exited(&spawn(&launch).unwrap()).await.unwrap();
    assert_eq!(fs::read_to_string(&launch.stdout).unwrap(), "y\nend\n");
}

#[tokio::test]
async fn the_output_files_are_emptied_private_and_appended_to() {
    let sandbox = Sandbox::new();
    let script = r#"echo out; echo err >&2; read line < "$PIPE"; echo more"#;
    let mut launch = sandbox.launch(script);
    let pipe = sandbox.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    launch
        .environment
        .insert("PIPE".into(), pipe.clone().into());
    for path in [&launch.stdout, &launch.stderr] {
        fs::write(path, "old").unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    }
    let identity = spawn(&launch).unwrap();
    eventually("it wrote", || {
        fs::read(&launch.stdout).unwrap() == b"out\n"
            && fs::read(&launch.stderr).unwrap() == b"err\n"
    })
    .await;
    for path in [&launch.stdout, &launch.stderr] {
        assert_eq!(
            fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    File::options()
        .write(true)
        .open(&launch.stdout)
        .unwrap()
        .set_len(0)
        .unwrap();
    fs::write(&pipe, "go\n").unwrap();
    exited(&identity).await.unwrap();
    assert_eq!(fs::read(&launch.stdout).unwrap(), b"more\n");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_from_a_directory_that_is_not_there() {
    let sandbox = Sandbox::new();
    let mut launch = sandbox.launch("");
    launch.program = "no-such-program-7f3a".to_owned();
    assert!(matches!(
        spawn(&launch),
        Err(NotSpawned::CommandNotFound { program }) if program == launch.program
    ));
    launch.directory = sandbox.path("gone");
    assert!(matches!(
        spawn(&launch),
        Err(NotSpawned::DirectoryGone { directory }) if Path::new(&directory) == launch.directory
    ));
    fs::write(&launch.directory, "a file").unwrap();
    assert!(matches!(
        spawn(&launch),
        Err(NotSpawned::DirectoryGone { .. })
    ));
}

#[tokio::test]
async fn a_program_that_may_not_be_run_is_named() {
    let sandbox = Sandbox::new();
    let mut launch = sandbox.launch("");
    let program = sandbox.path("program");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o600)).unwrap();
    launch.program = program.display().to_string();
    assert!(matches!(
        spawn(&launch),
        Err(NotSpawned::NotExecutable { .. })
    ));
}

#[tokio::test]
async fn a_stream_that_cannot_be_opened_is_named() {
    let sandbox = Sandbox::new();
    let mut launch = sandbox.launch("");
    launch.stderr = sandbox.path("gone/stderr");
    assert!(matches!(
        spawn(&launch),
        Err(NotSpawned::Other { reason }) if reason.contains("stderr")
    ));
}

#[tokio::test]
async fn a_pipe_in_place_of_the_output_is_refused_at_once() {
    let sandbox = Sandbox::new();
    let launch = sandbox.launch("");
    nix::unistd::mkfifo(&launch.stdout, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut reader = None;
    for _ in 0..2 {
        let launch = sandbox.launch("");
        let fifo = launch.stdout.clone();
        let spawned = within_deadline(spawn_blocking(move || spawn(&launch))).await;
        assert!(matches!(spawned.unwrap(), Err(NotSpawned::Other { .. })));
        // And where somebody has it open.
        reader = Some(File::options().read(true).write(true).open(fifo).unwrap());
    }
    drop(reader);
}

#[tokio::test]
async fn a_process_that_ends_at_once_still_has_an_identity() {
    let sandbox = Sandbox::new();
    for _ in 0..20 {
        let identity = sandbox.spawn("exit 3");
        assert_eq!(exited(&identity).await.unwrap(), Exit::Code(3));
    }
}
