//! All processes of this host that were spawned with a mark, in one look.

use std::{collections::HashMap, ffi::OsStr, os::unix::ffi::OsStrExt as _};

use procfs::{
    ProcResult, WithCurrentSystemInfo as _,
    process::{Process, Stat, all_processes},
};

use super::identity::{
    IdentityError, Observed, ProcessIdentity, is_out_of_sight, settled_environment,
};

/// A process that leads a session of the kernel's (setsid): of a spawned process and its descendants, the spawned one.
#[derive(Debug)]
pub struct Leader {
    /// Who it is.
    pub identity: ProcessIdentity,
    environment: Vec<u8>,
}

impl Leader {
    /// A variable of the environment that the process was started with.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        variable(&self.environment, name)
    }
}

/// Every session leader of ours that has the variable `name` in its environment, the oldest first: a descendant may lead a
/// session of its own, and the spawned process came before it.
///
/// # Errors
/// When `/proc` cannot be read. Processes that vanish meanwhile are skipped.
pub fn leaders_with(name: &str) -> Result<Vec<Leader>, IdentityError> {
    let all = look_at_all(|process, stat| {
        if stat.session != stat.pid {
            return Ok(None);
        }
        let environment = settled_environment(process)?;
        Ok(variable(&environment, name)
            .is_some()
            .then_some(environment))
    })?;
    let mut leaders = Vec::new();
    for (stat, environment) in all {
        let Some(environment) = environment else {
            continue;
        };
        let seen = Observed::new(&stat)?;
        if !seen.ended {
            let leader = Leader {
                identity: seen.identity,
                environment,
            };
            leaders.push((stat.starttime, leader));
        }
    }
    leaders.sort_by_key(|(start_time, _)| *start_time);
    Ok(leaders.into_iter().map(|(_, leader)| leader).collect())
}

/// What the processes with one mark take of the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many processes there are.
    pub processes: usize,
    /// How much memory they have in use, in bytes; what they share is counted for each.
    pub memory: u64,
}

/// What all processes of ours take of the host that have the variable `name` in their environment, by its value.
///
/// # Errors
/// When `/proc` cannot be read. Processes that vanish meanwhile are skipped.
pub fn usage_by(name: &str) -> Result<HashMap<String, Usage>, IdentityError> {
    let mut usages: HashMap<String, Usage> = HashMap::new();
    let all = look_at_all(|process, _| {
        let environment = settled_environment(process)?;
        let value = variable(&environment, name).and_then(OsStr::to_str);
        Ok(value.map(str::to_owned))
    })?;
    for (stat, value) in all {
        if let Some(value) = value {
            let usage = usages.entry(value).or_default();
            usage.processes += 1;
            usage.memory += stat.rss_bytes().get();
        }
    }
    Ok(usages)
}

/// All processes of this host, zombies included, and which of them carry `name=value` in the environment that they were
/// started with. A zombie has none any more, nor has a process for us that is not ours.
pub(super) fn observe_all(name: &str, value: &str) -> Result<Vec<(Observed, bool)>, IdentityError> {
    let entry = format!("{name}={value}");
    let all = look_at_all(|process, _| {
        let environment = settled_environment(process)?;
        let mut entries = environment.split(|byte| *byte == 0);
        Ok(entries.any(|found| found == entry.as_bytes()))
    })?;
    let all = all.into_iter();
    all.map(|(stat, carries)| Ok((Observed::new(&stat)?, carries)))
        .collect()
}

/// What `look` tells of each process. What vanishes meanwhile is skipped; one that is there and cannot be looked at is an
/// error, as it may be the one that is looked for.
fn look_at_all<T>(
    mut look: impl FnMut(&Process, &Stat) -> ProcResult<T>,
) -> Result<Vec<(Stat, T)>, IdentityError> {
    let mut all = Vec::new();
    for process in all_processes().map_err(IdentityError::List)? {
        let looked = process.and_then(|process| {
            let stat = process.stat()?;
            let found = look(&process, &stat)?;
            Ok((stat, found))
        });
        match looked {
            Ok(found) => all.push(found),
            Err(error) if is_out_of_sight(&error) => {}
            Err(error) => return Err(IdentityError::List(error)),
        }
    }
    Ok(all)
}

fn variable<'e>(environment: &'e [u8], name: &str) -> Option<&'e OsStr> {
    let mut entries = environment.split(|byte| *byte == 0);
    let value = entries.find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    value.map(OsStr::from_bytes)
}

#[cfg(test)]
mod tests {
    use procfs::ProcError;
    use rustix::io::Errno;

    use super::super::testing::{Sandbox, eventually};
    use super::*;

    #[test]
    fn a_process_that_cannot_be_looked_at_is_an_error_and_one_that_is_gone_is_not() {
        let gone = look_at_all(|_, _| Err::<(), _>(ProcError::NotFound(None)));
        assert!(gone.unwrap().is_empty());
        let unseen = look_at_all(|_, _| {
            let too_many_files = Errno::MFILE.into();
            Err::<(), _>(ProcError::Io(too_many_files, None))
        });
        assert!(matches!(unseen, Err(IdentityError::List(_))));
    }

    #[tokio::test]
    async fn the_spawned_process_is_the_first_of_its_leaders() {
        let sandbox = Sandbox::new();
        let spawned = sandbox.spawn("setsid sleep 600 & echo; sleep 600");
        let (name, value) = sandbox.mark();
        let leaders = leaders_with(name).unwrap();
        let mut ours = leaders
            .iter()
            .filter(|leader| leader.variable(name) == Some(OsStr::new(value)));
        assert_eq!(ours.next().unwrap().identity, spawned);
        assert_eq!(leaders.first().unwrap().variable("NO_SUCH_VARIABLE"), None);
    }

    #[tokio::test]
    async fn the_usage_of_a_mark_counts_every_process_that_carries_it() {
        let sandbox = Sandbox::new();
        sandbox.spawn("sleep 600 & setsid sleep 600 & wait");
        let (name, value) = sandbox.mark();
        eventually("all three run", || {
            usage_by(name)
                .unwrap()
                .get(value)
                .is_some_and(|usage| usage.processes == 3)
        })
        .await;
        assert!(usage_by(name).unwrap()[value].memory > 0);
    }
}
