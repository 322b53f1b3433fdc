//! Starts a process that outlives us.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{OpenOptionsExt, PermissionsExt},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use nix::{
    libc::{self, c_int, c_uint},
    unistd::setsid,
};
use rustix::{
    fs::{Access, Mode, OFlags, access},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{
    cgroup::Cgroup,
    handle::{ProcessIdentity, look},
};
use crate::regular_file;

/// The output of a process may hold secrets.
const OUTPUT_MODE: u32 = 0o600;

/// How many descriptors must be free before a process is spawned: watching it takes half a dozen; others are needed to end it,
/// and for the rest of the bot.
const SPARE_DESCRIPTORS: u64 = 12;

/// How many descriptors are closed one by one where the kernel cannot close them all.
const CLOSED_SINGLY: c_int = 1 << 16;

/// How many descriptors we were allowed to have open at our start; spawned processes may have as many.
static GIVEN_LIMIT: OnceLock<Rlimit> = OnceLock::new();

/// Raises the soft limit of open files to the hard one: a soft limit of 1024 is there for programs that use select(2), and a
/// supervisor that has no descriptor left can neither watch nor end anything.
pub(crate) fn raise_descriptor_limit() {
    let given = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: given.maximum,
        ..given
    };
    match setrlimit(Resource::Nofile, raised) {
        // Only the first call sees the original limit.
        Ok(()) => drop(GIVEN_LIMIT.set(given)),
        Err(error) => warn!(%error, "limit of open files not raised"),
    }
}

/// What to start, and how. It has no `Debug`, because an environment may hold secrets.
pub struct Launch {
    /// A path, or a name to look for in the `PATH` of `environment`.
    pub program: String,
    /// Its arguments, without the program's name.
    pub arguments: Vec<String>,
    pub directory: PathBuf,
    /// Whether its path may contain symbolic links.
    pub follows_links: bool,
    /// Its whole environment: nothing of ours is added.
    pub environment: BTreeMap<OsString, OsString>,
    /// The file that it reads, then end of file.
    pub stdin: PathBuf,
    /// Created or truncated, with mode 0600, and opened for appending, so that it can be truncated while the process goes on.
    pub stdout: PathBuf,
    /// As `stdout`.
    pub stderr: PathBuf,
    /// The value of the mark in `environment`, by which `stop` finds the process and its descendants.
    pub mark: String,
}

/// Why a process could not be spawned. Program and directory are as the command line and the project name them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotSpawned {
    /// There is no such program (ENOENT), neither at that path nor in `PATH`; or the interpreter that it names does not exist.
    CommandNotFound { program: String },
    /// The program may not be run (EACCES).
    NotExecutable { program: String },
    /// The working directory does not exist, or is not a directory.
    DirectoryGone { directory: String },
    /// The working directory may not be entered.
    DirectoryForbidden { directory: String },
    /// We may have only so many files open at once (`RLIMIT_NOFILE`, see getrlimit(2)), and nearly all are in use.
    TooFewDescriptors { limit: u64 },
    /// It was not spawned in time: the directory or the program does not respond.
    Unresponsive { directory: String },
    /// Anything else, in the words of the operating system: no memory, too many processes, an argument too long.
    Other { reason: String },
}

/// Starts a process in a new session (setsid). It inherits only its three streams, no ignored signal, and nothing of our
/// environment. Returns once the program runs.
///
/// The process is our child and a zombie after its end, until `exited` reaps it.
/// If a process was started but cannot be identified, it can be found by its mark only.
pub fn spawn(launch: &Launch) -> Result<ProcessIdentity, NotSpawned> {
    require_spare_descriptors()?;
    wait_for_files(launch);
    let held = (!launch.follows_links).then(|| open_without_links(&launch.directory));
    let held = held.transpose().map_err(|error| explain(launch, &error))?;
    let mut command = Command::new(&launch.program);
    command
        .args(&launch.arguments)
        // The child still has the descriptor when it changes its directory, so it enters the very one that was checked.
        .current_dir(held.as_ref().map_or_else(
            || launch.directory.clone(),
            |directory| format!("/proc/self/fd/{}", directory.as_raw_fd()).into(),
        ))
        .env_clear()
        .envs(&launch.environment)
        .stdin(stream(&launch.stdin, |path| File::open(path))?)
        .stdout(stream(&launch.stdout, output)?)
        .stderr(stream(&launch.stderr, output)?);
    let cgroup = Cgroup::make(&launch.mark);
    detach(&mut command, cgroup.and_then(|cgroup| cgroup.procs_file()));
    // Dropped without a wait: it has to outlive us, and its watcher reaps it.
    let child = command.spawn().map_err(|error| explain(launch, &error))?;
    // It may have ended already; as a zombie it keeps its identity.
    let pid = i32::try_from(child.id()).ok();
    let seen = pid.and_then(|pid| look(pid).ok()?);
    seen.map(|process| process.identity).ok_or_else(|| {
        let (program, pid) = (&launch.program, child.id());
        let reason = format!("{program} was started as process {pid}, which cannot be looked at");
        NotSpawned::Other { reason }
    })
}

/// Looks at the directory and the program. If their file system does not respond, this thread hangs here and ends with us. A
/// child would hang in its place: it would outlive us, and keep the next bot out with its copy of the data directory's lock.
/// Errors are left to the spawn.
fn wait_for_files(launch: &Launch) {
    access(&launch.directory, Access::EXEC_OK).unwrap_or_default();
    drop(find_program(launch).map(|program| regular_file::read(&program, 1)));
}

/// Opens a directory with an absolute path that has no symbolic link at this moment. Without openat2, which older kernels and
/// containers do not have.
fn open_without_links(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::open("/", flags, Mode::empty())?;
    let below = path.strip_prefix("/").map_err(io::Error::other)?;
    below.iter().try_fold(top, |directory, name| {
        Ok(rustix::fs::openat(&directory, name, flags, Mode::empty())?)
    })
}

/// A session that starts with the last descriptors could be neither watched nor ended.
fn require_spare_descriptors() -> Result<(), NotSpawned> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let open = fs::read_dir("/proc/self/fd").map(|entries| entries.count() as u64);
    match open {
        Ok(open) if open.saturating_add(SPARE_DESCRIPTORS) <= limit => Ok(()),
        Ok(_) | Err(_) => Err(NotSpawned::TooFewDescriptors { limit }),
    }
}

fn stream(path: &Path, open: fn(&Path) -> io::Result<File>) -> Result<Stdio, NotSpawned> {
    open(path).map(Stdio::from).map_err(|error| {
        let name = path.file_name().unwrap_or_default().display();
        let reason = format!("cannot open {name}: {error}");
        NotSpawned::Other { reason }
    })
}

fn output(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(OUTPUT_MODE)
        // A FIFO without a reader would block. The flag makes no difference to a regular file.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    regular_file::check(&file)?;
    file.set_permissions(Permissions::from_mode(OUTPUT_MODE))?;
    file.set_len(0)?;
    Ok(file)
}

/// Separates the child from us, right before the exec.
#[expect(
    unsafe_code,
    reason = "nothing safe closes the inherited descriptors and resets ignored signals between fork and exec"
)]
fn detach(command: &mut Command, cgroup: Option<File>) {
    let descriptors = GIVEN_LIMIT.get().copied();
    // SAFETY: Between fork and exec only async-signal-safe calls are allowed, because another thread may have held any lock at
    // the fork. setsid, signal, setrlimit, write, close_range and fcntl are plain system calls; nothing here allocates, locks
    // or panics, also where it fails: an io::Error made from an errno does not allocate. Resetting a signal to its default
    // cannot break a promise of our handlers, since exec drops these in any case. The descriptors are only marked to be closed
    // by the exec, so the pipe on which the standard library reports a failed exec still works.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            for each in 1..=libc::SIGRTMAX() {
                // It fails for those that cannot be ignored, and for those that the C library keeps for itself.
                libc::signal(each, libc::SIG_DFL);
            }
            if let Some(limit) = descriptors {
                // Fails if our hard limit was lowered meanwhile (prlimit): better to spawn with that one than not at all.
                setrlimit(Resource::Nofile, limit).unwrap_or_default();
            }
            if let Some(cgroup) = &cgroup {
                // If this fails the process is found by other means.
                libc::write(cgroup.as_raw_fd(), c"0".as_ptr().cast(), 1);
            }
            let flags = libc::CLOSE_RANGE_CLOEXEC;
            if libc::syscall(libc::SYS_close_range, 3, c_uint::MAX, flags) != 0 {
                // Before Linux 5.11, or forbidden by an older container's filter.
                for descriptor in 3..CLOSED_SINGLY {
                    libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
                }
            }
            Ok(())
        });
    }
}

/// ENOENT and EACCES come from chdir and exec alike, so the directory is checked to distinguish them.
fn explain(launch: &Launch, error: &io::Error) -> NotSpawned {
    let path = &launch.directory;
    let is_directory = fs::metadata(path).is_ok_and(|metadata| metadata.is_dir());
    let may_enter = is_directory && access(path, Access::EXEC_OK).is_ok();
    let directory = path.display().to_string();
    let program = launch.program.clone();
    match error.kind() {
        // A symbolic link has replaced a folder of the path.
        io::ErrorKind::NotADirectory if !launch.follows_links => {
            NotSpawned::DirectoryGone { directory }
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if is_directory => {
            NotSpawned::CommandNotFound { program }
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            NotSpawned::DirectoryGone { directory }
        }
        io::ErrorKind::PermissionDenied if !may_enter => {
            NotSpawned::DirectoryForbidden { directory }
        }
        io::ErrorKind::PermissionDenied if find_program(launch).is_some() => {
            NotSpawned::NotExecutable { program }
        }
        io::ErrorKind::PermissionDenied => NotSpawned::CommandNotFound { program },
        _ => NotSpawned::Other {
            reason: error.to_string(),
        },
    }
}

/// The program as the child finds it. A search through `PATH` also ends in EACCES if one of its folders is not readable and none
/// has the program.
fn find_program(launch: &Launch) -> Option<PathBuf> {
    let program = launch.directory.join(&launch.program);
    if launch.program.contains('/') {
        return Some(program);
    }
    let path = launch.environment.get(OsStr::new("PATH"))?;
    let mut folders = env::split_paths(path).map(|folder| launch.directory.join(folder));
    folders.find_map(|folder| {
        let program = folder.join(&launch.program);
        program.exists().then_some(program)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{
        Exit, exited, raise_descriptor_limit,
        testing::{Sandbox, eventually, within_deadline},
    };
    use tokio::task::spawn_blocking;

    use super::*;

    #[tokio::test]
    async fn a_spawned_process_leads_a_new_session() {
        let sandbox = Sandbox::new();
        let identity = sandbox.spawn("exec sleep 600");
        let seen = identity.look().unwrap().unwrap();
        assert_eq!((seen.session, seen.group), (identity.pid(), identity.pid()));
    }

    /// Started by `a_spawned_process_survives_the_one_that_started_it`, as a separate process that ends at once.
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
            follows_links: true,
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
        // At first, the loader of the program opens other files.
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
    async fn a_process_is_spawned_with_less_descriptors_if_its_parent_lost_some() {
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
    async fn a_folder_that_a_symbolic_link_replaced_is_not_entered() {
        let sandbox = Sandbox::new();
        let folder = sandbox.path(".").canonicalize().unwrap();
        fs::create_dir_all(folder.join("root/project/deep")).unwrap();
        fs::create_dir_all(folder.join("elsewhere/deep")).unwrap();
        let mut launch = sandbox.launch("pwd -P; exec sleep 600");
        launch.follows_links = false;
        launch.directory = folder.join("root/project/deep");
        spawn(&launch).unwrap();
        let wanted = launch.directory.display().to_string();
        let printed = || fs::read_to_string(&launch.stdout).unwrap();
        eventually("it runs there", || printed().trim() == wanted).await;
        // As anyone with write access to the root can do at any moment.
        fs::rename(folder.join("root/project"), folder.join("root/.away")).unwrap();
        std::os::unix::fs::symlink(folder.join("elsewhere"), folder.join("root/project")).unwrap();
        for directory in ["root/project/deep", "root/project"] {
            launch.directory = folder.join(directory);
            assert!(launch.directory.is_dir());
            let refused = spawn(&launch);
            assert!(
                matches!(refused, Err(NotSpawned::DirectoryGone { .. })),
                "{refused:?}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_missing_or_may_not_be_used_is_named() {
        let sandbox = Sandbox::new();
        let refused = |change: &dyn Fn(&mut Launch)| {
            let mut launch = sandbox.launch("");
            change(&mut launch);
            spawn(&launch).unwrap_err()
        };
        let file = sandbox.path("file");
        fs::write(&file, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let program = "no-such-program-7f3a".to_owned();
        let missing = refused(&|launch| launch.program.clone_from(&program));
        assert_eq!(missing, NotSpawned::CommandNotFound { program });
        let program = file.display().to_string();
        let forbidden = refused(&|launch| launch.program.clone_from(&program));
        assert_eq!(forbidden, NotSpawned::NotExecutable { program });
        for directory in [sandbox.path("gone"), file] {
            let gone = refused(&|launch| launch.directory.clone_from(&directory));
            let directory = directory.display().to_string();
            assert_eq!(gone, NotSpawned::DirectoryGone { directory });
        }
        let no_stream = refused(&|launch| launch.stderr = sandbox.path("gone/stderr"));
        assert!(matches!(no_stream, NotSpawned::Other { reason } if reason.contains("stderr")));
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
            // And if another process has it open.
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
}
