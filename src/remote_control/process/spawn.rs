//! Starts a process that outlives us.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::{
        fd::AsRawFd,
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
    fs::{Access, access},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{
    cgroup::Cgroup,
    identity::{ProcessIdentity, look},
};

/// The output of a process may hold secrets.
const OUTPUT_MODE: u32 = 0o600;

/// How many descriptors are closed one by one where the kernel cannot close them all.
const CLOSED_SINGLY: c_int = 1 << 16;

/// How many descriptors we were allowed to have open when we began; what is spawned may have as many.
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
        // Only the first time tells what we were given.
        Ok(()) => drop(GIVEN_LIMIT.set(given)),
        Err(error) => warn!(%error, "limit of open files not raised"),
    }
}

/// What to start, and in which surroundings. It has no `Debug`, because an environment may hold secrets.
pub struct Launch {
    /// A path, or a name to look for in the `PATH` of `environment`.
    pub program: String,
    /// Its arguments, without the program's name.
    pub arguments: Vec<String>,
    /// Its working directory.
    pub directory: PathBuf,
    /// Its whole environment: nothing of ours is added.
    pub environment: BTreeMap<OsString, OsString>,
    /// The file that it reads, then end of file.
    pub stdin: PathBuf,
    /// Made or emptied, with mode 0600, and opened for appending, so that it can be cut while the process goes on.
    pub stdout: PathBuf,
    /// As `stdout`.
    pub stderr: PathBuf,
    /// The value of the mark in `environment`, by which [`stop`](super::stop) finds the process and all that comes of it.
    pub mark: String,
}

/// Why a process could not be spawned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotSpawned {
    /// There is no such program (ENOENT), neither at that path nor in `PATH`; or the interpreter that it names does not exist.
    CommandNotFound {
        /// As the command line names it.
        program: String,
    },
    /// The program may not be run (EACCES).
    NotExecutable {
        /// As the command line names it.
        program: String,
    },
    /// The working directory does not exist, or is no directory.
    DirectoryGone {
        /// The directory.
        directory: String,
    },
    /// The working directory may not be entered.
    DirectoryForbidden {
        /// The directory.
        directory: String,
    },
    /// It did not come to be in the time that there was for it: the directory or the program does not answer.
    Unresponsive {
        /// The directory.
        directory: String,
    },
    /// Anything else, in the words of the operating system: no memory, too many processes, an argument too long.
    Other {
        /// Those words.
        reason: String,
    },
}

/// Starts a process in a session of its own (setsid), which inherits no descriptor but its three streams, no ignored signal,
/// and nothing of our environment. It returns once the program runs.
///
/// The process is our child and a zombie after its end, until [`exited`](super::exited) reaps it.
///
/// # Errors
/// See [`NotSpawned`]. In the one case that a process was started and cannot be looked at, it can be found by its mark alone.
pub fn spawn(launch: &Launch) -> Result<ProcessIdentity, NotSpawned> {
    let mut command = Command::new(&launch.program);
    command
        .args(&launch.arguments)
        .current_dir(&launch.directory)
        .env_clear()
        .envs(&launch.environment)
        .stdin(stream(&launch.stdin, |path| File::open(path))?)
        .stdout(stream(&launch.stdout, output)?)
        .stderr(stream(&launch.stderr, output)?);
    let cgroup = Cgroup::make(&launch.mark);
    detach(&mut command, cgroup.and_then(|cgroup| cgroup.door()));
    // Dropped without a wait: it is to outlive us, and whoever watches it reaps it.
    let child = command.spawn().map_err(|error| explain(launch, &error))?;
    // It may have ended already; as a zombie it keeps its identity.
    let seen = i32::try_from(child.id())
        .ok()
        .and_then(|pid| look(pid).ok()?);
    seen.map(|process| process.identity).ok_or_else(|| {
        let (program, pid) = (&launch.program, child.id());
        let reason = format!("{program} was started as process {pid}, which cannot be looked at");
        NotSpawned::Other { reason }
    })
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
        // A FIFO that nobody reads would hold us up. It makes no difference to a file.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    only_regular(&file)?;
    file.set_permissions(Permissions::from_mode(OUTPUT_MODE))?;
    file.set_len(0)?;
    Ok(file)
}

/// What is not a file cannot be cut, and may be anything: a FIFO that holds everybody up, or a device.
pub(super) fn only_regular(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() {
        return Ok(());
    }
    Err(io::Error::other("it is not a regular file"))
}

/// Makes the child leave everything of ours behind, right before it becomes the program.
#[expect(
    unsafe_code,
    reason = "nothing safe closes the inherited descriptors and resets ignored signals between fork and exec"
)]
fn detach(command: &mut Command, cgroup: Option<File>) {
    let descriptors = GIVEN_LIMIT.get().copied();
    // SAFETY: Between fork and exec only async-signal-safe calls are allowed, because another thread may have held any lock at
    // the fork. setsid, signal, setrlimit, write, close_range and fcntl are plain system calls; nothing here allocates, locks or
    // panics, also where it fails: an io::Error made from an errno does not allocate. Resetting a signal to its default cannot
    // break a promise of our handlers, since exec drops these in any case. The descriptors are only marked to be closed by the
    // exec, so the pipe on which the standard library reports a failed exec still works.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            for each in 1..=libc::SIGRTMAX() {
                // It fails for those that cannot be ignored, and for those that the C library keeps for itself.
                libc::signal(each, libc::SIG_DFL);
            }
            if let Some(limit) = descriptors {
                // It fails where somebody has lowered our hard limit since (prlimit): better with that one than not at all.
                setrlimit(Resource::Nofile, limit).unwrap_or_default();
            }
            if let Some(cgroup) = &cgroup {
                // Without it the process is found all the same.
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

/// ENOENT and EACCES come from chdir and exec alike, so look at the directory to tell them apart.
fn explain(launch: &Launch, error: &io::Error) -> NotSpawned {
    let path = &launch.directory;
    let is_directory = fs::metadata(path).is_ok_and(|metadata| metadata.is_dir());
    let may_enter = is_directory && access(path, Access::EXEC_OK).is_ok();
    let directory = path.display().to_string();
    let program = launch.program.clone();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if is_directory => {
            NotSpawned::CommandNotFound { program }
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            NotSpawned::DirectoryGone { directory }
        }
        io::ErrorKind::PermissionDenied if !may_enter => {
            NotSpawned::DirectoryForbidden { directory }
        }
        io::ErrorKind::PermissionDenied if is_in_sight(launch) => {
            NotSpawned::NotExecutable { program }
        }
        io::ErrorKind::PermissionDenied => NotSpawned::CommandNotFound { program },
        _ => NotSpawned::Other {
            reason: error.to_string(),
        },
    }
}

/// Whether the program is there. A search through `PATH` also ends in EACCES when one of its folders may not be read, and the
/// program is nowhere.
fn is_in_sight(launch: &Launch) -> bool {
    let path = launch.environment.get(OsStr::new("PATH"));
    launch.program.contains('/')
        || path.is_some_and(|path| {
            env::split_paths(path).any(|folder| folder.join(&launch.program).exists())
        })
}

#[cfg(test)]
mod tests;
