//! Who a process is. A pid is reused; a pid with its start time and its boot is not.

use std::{io::Read, sync::OnceLock, thread, time::Duration};

use procfs::{
    ProcError, ProcResult,
    process::{Process, Stat},
};
use serde::{Deserialize, Serialize};

/// Bytes that nearly every environment fits into.
const ENVIRONMENT_SIZE: usize = 16 * 1024;

/// How often a process is looked at again whose environment is not there because it is in the middle of an exec.
const EXEC_LOOKS: usize = 50;

/// How long to wait between these looks: an exec maps its files within a few hundred microseconds once they are cached.
const EXEC_PAUSE: Duration = Duration::from_millis(1);

/// One process of one boot of this host, and no other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessIdentity {
    pid: i32,
    /// Clock ticks since boot: field 22 of `/proc/<pid>/stat`, see `proc_pid_stat(5)`.
    start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`: another one at each boot.
    boot_id: String,
}

/// Why a process could not be looked at. That it has vanished is no error.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The kernel did not give its boot id.
    #[error("cannot read the boot id of this host")]
    BootId(#[source] ProcError),
    /// `/proc` cannot be listed.
    #[error("cannot list the processes of this host")]
    List(#[source] ProcError),
    /// A process is there and cannot be looked at.
    #[error("cannot look at process {pid}")]
    Look {
        /// The process.
        pid: i32,
        /// Why not.
        source: ProcError,
    },
}

impl ProcessIdentity {
    /// The identity of the process that has this pid now. `None`: there is no such process, or it is a zombie.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn of(pid: i32) -> Result<Option<Self>, IdentityError> {
        let found = observe(pid)?;
        Ok(found
            .filter(|process| !process.ended)
            .map(|process| process.identity))
    }

    /// Whether this very process still runs: same pid, same start time, same boot, not a zombie.
    ///
    /// # Errors
    /// When `/proc` cannot be read: then nobody knows, and "no" could lose a process.
    pub fn is_alive(&self) -> Result<bool, IdentityError> {
        Ok(self.observe()?.is_some_and(|process| !process.ended))
    }

    /// The pid, for people to read. It names this process only as long as that runs.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// This very process as it is now, be it a zombie. `None`: it is over and reaped, whoever has its pid now.
    pub(super) fn observe(&self) -> Result<Option<Observed>, IdentityError> {
        if boot_id()? != self.boot_id {
            return Ok(None);
        }
        Ok(observe(self.pid)?.filter(|process| process.identity == *self))
    }

    /// An identity with the pid of this one and another start time, as a reused pid would have it.
    #[cfg(test)]
    pub(super) fn with_reused_pid(&self) -> Self {
        Self {
            start_time: self.start_time - 1,
            ..self.clone()
        }
    }
}

/// One look at one process; zombies included.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    pub(super) identity: ProcessIdentity,
    /// Its process group.
    pub(super) group: i32,
    /// Its session in the kernel's sense (setsid).
    pub(super) session: i32,
    /// A zombie: over, and only its exit status is left.
    pub(super) ended: bool,
    /// The status that wait(2) would give, as far as the kernel shows it to us; of meaning only in a zombie.
    pub(super) exit_status: Option<i32>,
}

/// The process that has this pid now, zombies included.
pub(super) fn observe(pid: i32) -> Result<Option<Observed>, IdentityError> {
    // The handle is on one and the same process, so this cannot mix two of them.
    match Process::new(pid).and_then(|process| process.stat()) {
        Ok(stat) => Observed::new(&stat).map(Some),
        Err(ProcError::NotFound(_)) => Ok(None),
        Err(source) => Err(IdentityError::Look { pid, source }),
    }
}

impl Observed {
    pub(super) fn new(stat: &Stat) -> Result<Self, IdentityError> {
        Ok(Self {
            identity: ProcessIdentity {
                pid: stat.pid,
                start_time: stat.starttime,
                boot_id: boot_id()?.to_owned(),
            },
            group: stat.pgrp,
            session: stat.session,
            // The first thread of a process may be a zombie while others run on.
            ended: matches!(stat.state, 'Z' | 'X' | 'x') && stat.num_threads <= 1,
            exit_status: stat.exit_code,
        })
    }
}

/// The kernel's name for this boot of the host. It does not change while we run, so it is read once.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn boot_id() -> Result<&'static str, IdentityError> {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    if let Some(known) = BOOT_ID.get() {
        return Ok(known);
    }
    let read = procfs::sys::kernel::random::boot_id().map_err(IdentityError::BootId)?;
    Ok(BOOT_ID.get_or_init(|| read))
}

/// The environment that a process was started with; empty, where it has none or may not be looked at.
///
/// In the middle of an exec, a process has a memory of its own already and no environment in it yet. Such a one is looked at
/// again, or a search could miss it.
pub(super) fn settled_environment(process: &Process) -> ProcResult<Vec<u8>> {
    let mut place_before = None;
    for _ in 0..EXEC_LOOKS {
        let environment = match environment(process) {
            Err(error) if is_out_of_sight(&error) => return Ok(Vec::new()),
            read => read?,
        };
        if !environment.is_empty() {
            return Ok(environment);
        }
        let stat = process.stat()?;
        if stat.vsize == 0 {
            return Ok(Vec::new()); // a thread of the kernel, or a zombie
        }
        // Where in memory the environment ends; each exec puts it somewhere else. The same place before and after an empty
        // read says that there was no exec in between, and that the environment is really empty.
        let place = stat.env_end.filter(|end| *end != 0);
        match place {
            Some(_) if place == place_before => return Ok(Vec::new()),
            Some(_) => place_before = place,
            None => thread::sleep(EXEC_PAUSE),
        }
    }
    Ok(Vec::new())
}

/// Reads it in one call: when the process execs between two, the second is at an end too early.
fn environment(process: &Process) -> ProcResult<Vec<u8>> {
    let mut size = ENVIRONMENT_SIZE;
    loop {
        let mut bytes = vec![0; size];
        let mut file = process.open_relative("environ")?;
        let count = file.read(&mut bytes).map_err(ProcError::from)?;
        if count < size {
            bytes.truncate(count);
            return Ok(bytes);
        }
        size *= 2;
    }
}

/// Vanished, or another user's and hidden from us.
pub(super) fn is_out_of_sight(error: &ProcError) -> bool {
    matches!(
        error,
        ProcError::NotFound(_) | ProcError::PermissionDenied(_)
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Sandbox, eventually, find_by_environment};
    use super::*;

    #[tokio::test]
    async fn a_running_process_is_alive_and_survives_a_round_trip_through_json() {
        let sandbox = Sandbox::new();
        let identity = sandbox.spawn("exec sleep 600");
        assert!(identity.is_alive().unwrap());
        let json = serde_json::to_string(&identity).unwrap();
        assert_eq!(
            serde_json::from_str::<ProcessIdentity>(&json).unwrap(),
            identity
        );
    }

    #[tokio::test]
    async fn a_reused_pid_is_not_alive() {
        let sandbox = Sandbox::new();
        let identity = sandbox.spawn("exec sleep 600");
        assert!(!identity.with_reused_pid().is_alive().unwrap());
    }

    #[tokio::test]
    async fn a_process_of_another_boot_is_not_alive() {
        let sandbox = Sandbox::new();
        let mut identity = sandbox.spawn("exec sleep 600");
        identity.boot_id = "another boot".to_owned();
        assert!(!identity.is_alive().unwrap());
    }

    #[tokio::test]
    async fn a_zombie_is_dead() {
        let sandbox = Sandbox::new();
        let identity = sandbox.spawn("exit 0");
        eventually("it is a zombie", || {
            observe(identity.pid()).unwrap().is_some_and(|it| it.ended)
        })
        .await;
        assert!(!identity.is_alive().unwrap());
        assert_eq!(ProcessIdentity::of(identity.pid()).unwrap(), None);
    }

    #[test]
    fn a_pid_that_no_process_has_is_nobody() {
        // The kernel's greatest pid is 4,194,303.
        assert_eq!(ProcessIdentity::of(4_194_304).unwrap(), None);
    }

    #[tokio::test]
    async fn processes_are_found_by_a_whole_entry_of_their_environment() {
        let sandbox = Sandbox::new();
        let identity = sandbox.spawn("exec sleep 600");
        let (name, value) = sandbox.mark();
        assert_eq!(find_by_environment(name, value), [identity]);
        assert_eq!(find_by_environment(name, &value[1..]), []);
        assert_eq!(find_by_environment(name, &value[..value.len() - 1]), []);
        assert_eq!(find_by_environment(&name[1..], value), []);
    }

    #[tokio::test]
    async fn a_process_that_execs_all_the_while_is_found_at_every_look() {
        let sandbox = Sandbox::new();
        let (name, value) = sandbox.mark();
        let again = r#"exec sh -c "$AGAIN""#;
        let mut launch = sandbox.launch(again);
        launch.environment.insert("AGAIN".into(), again.into());
        let identity = super::super::spawn(&launch).unwrap();
        for _ in 0..200 {
            assert!(find_by_environment(name, value).contains(&identity));
        }
    }
}
