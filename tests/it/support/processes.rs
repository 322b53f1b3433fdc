//! Finds and kills processes by a variable in their environment, however they were detached.

use std::{collections::BTreeSet, ffi::OsStr, thread, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use procfs::process::{Process, all_processes};

/// A variable of a process's environment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark<'a> {
    pub(crate) name: &'a str,
    pub(crate) value: &'a OsStr,
}

impl Mark<'_> {
    /// The living processes that carry the mark. A zombie has no environment any more.
    pub(crate) fn processes(self) -> Vec<Pid> {
        let carries = |process: &Process| {
            let environment = process.environ().unwrap_or_default();
            let value = environment.get(OsStr::new(self.name));
            value.is_some_and(|value| value == self.value)
        };
        let processes = all_processes().into_iter().flatten().flatten();
        let processes = processes.filter(carries);
        processes.map(|it| Pid::from_raw(it.pid())).collect()
    }

    /// Kills them all, those that they start meanwhile included, and returns how many there were.
    pub(crate) fn kill_all(self) -> usize {
        let mut killed = BTreeSet::new();
        loop {
            let processes = self.processes();
            if processes.is_empty() {
                return killed.len();
            }
            for pid in processes {
                // It may be gone meanwhile.
                kill(pid, Signal::SIGKILL).ok();
                killed.insert(pid);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}
