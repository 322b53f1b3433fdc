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
    process::Command,
};

use nix::{
    libc::{self, c_int, c_uint},
    unistd::setsid,
};
use rustix::{
    fs::{Access, access},
    process::{Resource, setrlimit},
};

use super::{
    cgroup::Cgroup,
    identity::{IdentityError, ProcessIdentity, observe},
    limits::given_descriptor_limit,
};

/// The output of a process may hold secrets.
const OUTPUT_MODE: u32 = 0o600;

/// How many descriptors are closed one by one where the kernel cannot close them all.
const CLOSED_SINGLY: c_int = 1 << 16;

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

/// Why a process was not started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// There is no such program (ENOENT), neither at that path nor in `PATH`; or the interpreter that it names is not there.
    #[error("command not found: {program} (ENOENT)")]
    CommandNotFound {
        /// As the command line names it.
        program: String,
    },
    /// The program is there and may not be run (EACCES).
    #[error("not allowed to run {program} (EACCES)")]
    NotExecutable {
        /// As the command line names it.
        program: String,
    },
    /// The working directory is not there, or is no directory.
    #[error("there is no directory {}", .directory.display())]
    DirectoryGone {
        /// The working directory.
        directory: PathBuf,
    },
    /// The working directory may not be entered.
    #[error("not allowed to enter the directory {}", .directory.display())]
    DirectoryForbidden {
        /// The working directory.
        directory: PathBuf,
    },
    /// A file for one of the three streams cannot be opened.
    #[error("cannot open {}", .path.display())]
    Stream {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The process was started and cannot be looked at, so that it can be found by its environment alone.
    #[error("{program} was started as process {pid}, which cannot be looked at")]
    Identity {
        /// As the command line names it.
        program: String,
        /// The process.
        pid: u32,
        /// Why not; nothing, if somebody has reaped it already.
        source: Option<IdentityError>,
    },
    /// Anything else: no memory, too many processes, an argument too long.
    #[error("cannot start {program}")]
    Other {
        /// As the command line names it.
        program: String,
        /// Why not.
        source: io::Error,
    },
}

/// Starts a process in a session of its own (setsid), which inherits no descriptor but its three streams, no ignored signal,
/// and nothing of our environment. It returns once the program runs.
///
/// The process is our child and a zombie after its end, until [`exited`](super::exited) reaps it.
///
/// # Errors
/// See [`SpawnError`]. With all of them but `Identity`, no process is left.
pub fn spawn(launch: &Launch) -> Result<ProcessIdentity, SpawnError> {
    let mut command = Command::new(&launch.program);
    command
        .args(&launch.arguments)
        .current_dir(&launch.directory)
        .env_clear()
        .envs(&launch.environment)
        .stdin(open(&launch.stdin, input)?)
        .stdout(open(&launch.stdout, output)?)
        .stderr(open(&launch.stderr, output)?);
    let cgroup = Cgroup::make(&launch.mark);
    detach(&mut command, cgroup.and_then(|cgroup| cgroup.door()));
    // Dropped without a wait: it is to outlive us, and exit.rs reaps it.
    let child = command.spawn().map_err(|source| explain(launch, source))?;

    let unseen = |source| SpawnError::Identity {
        program: launch.program.clone(),
        pid: child.id(),
        source,
    };
    // It may have ended already; as a zombie it keeps its identity.
    let pid = i32::try_from(child.id()).map_err(|_| unseen(None))?;
    match observe(pid) {
        Ok(Some(process)) => Ok(process.identity),
        Ok(None) => Err(unseen(None)),
        Err(source) => Err(unseen(Some(source))),
    }
}

fn open(path: &Path, how: fn(&Path) -> io::Result<File>) -> Result<File, SpawnError> {
    how(path).map_err(|source| SpawnError::Stream {
        path: path.to_owned(),
        source,
    })
}

fn input(path: &Path) -> io::Result<File> {
    File::open(path)
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
    let descriptors = given_descriptor_limit();
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
fn explain(launch: &Launch, source: io::Error) -> SpawnError {
    let directory = launch.directory.clone();
    let program = launch.program.clone();
    let is_there = fs::metadata(&directory).map(|metadata| metadata.is_dir());
    match (source.kind(), is_there) {
        (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, Ok(true)) => {
            SpawnError::CommandNotFound { program }
        }
        (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, _) => {
            SpawnError::DirectoryGone { directory }
        }
        (io::ErrorKind::PermissionDenied, Ok(true))
            if access(&directory, Access::EXEC_OK).is_ok() =>
        {
            if is_in_sight(launch) {
                SpawnError::NotExecutable { program }
            } else {
                SpawnError::CommandNotFound { program }
            }
        }
        (io::ErrorKind::PermissionDenied, _) => SpawnError::DirectoryForbidden { directory },
        _ => SpawnError::Other { program, source },
    }
}

/// Whether the program is there. A search through `PATH` also ends in EACCES when one of its folders may not be read, and the
/// program is nowhere.
fn is_in_sight(launch: &Launch) -> bool {
    if launch.program.contains('/') {
        return true;
    }
    let path = launch.environment.get(OsStr::new("PATH"));
    path.is_some_and(|path| {
        env::split_paths(path).any(|folder| folder.join(&launch.program).exists())
    })
}

#[cfg(test)]
mod tests;
