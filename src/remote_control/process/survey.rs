//! A survey of all processes of this host, and of the environments that they were started with.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    io::Read,
    os::unix::ffi::OsStrExt as _,
    thread,
    time::Duration,
};

use procfs::{
    ProcError, ProcResult,
    process::{Process, all_processes},
};

use super::handle::{ProcessError, Seen};

/// Bytes that nearly every environment fits into.
const ENVIRONMENT_SIZE: usize = 16 * 1024;

/// Bytes of the largest environment that is read. No program can be started with more than 6 MiB (execve(2)), but a process can
/// name any part of its memory, however large, as its environment (`PR_SET_MM_MAP`).
const LARGEST_ENVIRONMENT: usize = 8 * 1024 * 1024;

/// Longer values are not taken: no mark and no path is so long, and a session could give one to each of thousands of processes.
const LONGEST_VALUE: usize = 4096;

/// How often a process is looked at again whose environment is missing because it is in the middle of an exec.
const EXEC_LOOKS: usize = 50;

/// How long to wait between these looks: an exec maps its files within a few hundred microseconds once they are cached.
const EXEC_PAUSE: Duration = Duration::from_millis(1);

/// What the environment of a process says of some variables.
pub(crate) type Values<const N: usize> = [Option<OsString>; N];

/// All processes of this host, zombies included, the oldest first, each with the values of these variables in the environment
/// that it was started with. A zombie has none any more, and that of another user's process is hidden from us.
/// Fails when `/proc` cannot be read. Processes that vanish meanwhile are skipped; one that is there but unreadable is an
/// error, as it may be the one that is looked for.
pub(crate) fn survey<const N: usize>(
    names: [&str; N],
) -> Result<Vec<(Seen, Values<N>)>, ProcessError> {
    let mut all = Vec::new();
    for process in all_processes().map_err(ProcessError::List)? {
        let looked = process.and_then(|process| {
            let stat = process.stat()?;
            let environment = settled_environment(&process)?;
            Ok((stat, names.map(|name| value(&environment, name))))
        });
        if let Some((stat, values)) = unless_vanished(looked)? {
            all.push((Seen::new(&stat)?, values));
        }
    }
    all.sort_by_key(|(process, _)| process.identity.start_time);
    Ok(all)
}

/// The resources that the processes with one mark use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub processes: usize,
    /// How much memory they have in use, in bytes; what they share is counted for each.
    pub memory: u64,
    /// The file of the program that leads them was removed or replaced since it was started, as by an update.
    pub is_replaced: bool,
}

/// The usage of all our processes that have the variable `name` in their environment, by its value.
pub(crate) fn usage_by<K: From<String> + Ord>(
    name: &str,
) -> Result<BTreeMap<K, Usage>, ProcessError> {
    let mut usages = BTreeMap::<K, Usage>::new();
    for (process, [value]) in survey([name])? {
        if let Some(Ok(value)) = value.map(OsString::into_string) {
            let usage = usages.entry(value.into()).or_default();
            usage.processes += 1;
            usage.memory += process.memory;
            // Other programs that a session builds and runs are replaced all the time.
            usage.is_replaced |= process.leads_session() && process.has_deleted("exe");
        }
    }
    Ok(usages)
}

impl Seen {
    /// Whether the file behind one of its links in `/proc` was deleted since, see `proc_pid_exe(5)` and `proc_pid_fd(5)`. `false`
    /// for a process that has vanished or is hidden.
    pub(crate) fn has_deleted(&self, link: &str) -> bool {
        let file = fs::read_link(format!("/proc/{}/{link}", self.identity.pid()));
        file.is_ok_and(|file| file.as_os_str().as_bytes().ends_with(b" (deleted)"))
    }
}

fn value(environment: &[u8], name: &str) -> Option<OsString> {
    let mut entries = environment.split(|byte| *byte == 0);
    let value = entries.find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    let value = value.filter(|value| value.len() <= LONGEST_VALUE)?;
    Some(OsStr::from_bytes(value).to_owned())
}

/// The environment that a process was started with; empty if it has none or is hidden.
///
/// In the middle of an exec, a process has new memory without an environment in it. It is then read again, or a search could
/// miss it.
fn settled_environment(process: &Process) -> ProcResult<Vec<u8>> {
    let mut place_before = None;
    for _ in 0..EXEC_LOOKS {
        let environment = match environment(|| process.open_relative("environ")) {
            Err(error) if is_vanished_or_hidden(&error) => return Ok(Vec::new()),
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

/// Reads it in one call: if the process execs between two calls, the second is at an end too early.
fn environment<F: Read>(open: impl Fn() -> ProcResult<F>) -> ProcResult<Vec<u8>> {
    let mut size = ENVIRONMENT_SIZE;
    loop {
        let mut bytes = vec![0; size];
        let count = open()?.read(&mut bytes).map_err(ProcError::from)?;
        if count < size || size >= LARGEST_ENVIRONMENT {
            bytes.truncate(count);
            return Ok(bytes);
        }
        size *= 2;
    }
}

/// `None`: it has vanished.
fn unless_vanished<T>(looked: ProcResult<T>) -> Result<Option<T>, ProcessError> {
    match looked {
        Ok(seen) => Ok(Some(seen)),
        Err(error) if is_vanished_or_hidden(&error) => Ok(None),
        Err(error) => Err(ProcessError::List(error)),
    }
}

/// Vanished, or another user's and hidden.
fn is_vanished_or_hidden(error: &ProcError) -> bool {
    matches!(
        error,
        ProcError::NotFound(_) | ProcError::PermissionDenied(_)
    )
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustix::io::Errno;

    use super::super::testing::{Sandbox, eventually, find_by_environment};
    use super::*;

    #[test]
    fn a_process_that_cannot_be_looked_at_is_an_error_and_one_that_is_gone_is_not() {
        let gone = unless_vanished(Err::<(), _>(ProcError::NotFound(None)));
        assert!(gone.unwrap().is_none());
        let too_many_files = Errno::MFILE.into();
        let unseen = unless_vanished(Err::<(), _>(ProcError::Io(too_many_files, None)));
        assert!(matches!(unseen, Err(ProcessError::List(_))));
    }

    #[tokio::test]
    async fn the_spawned_process_is_the_first_of_those_that_lead_a_session() {
        let sandbox = Sandbox::new();
        let spawned = sandbox.spawn("setsid sleep 600 & echo; sleep 600");
        let (name, mark) = sandbox.mark();
        let all = survey([name, "NO_SUCH_VARIABLE"]).unwrap();
        let (first, [_, other]) = all
            .into_iter()
            .find(|(process, [found, _])| {
                process.leads_session() && found.as_deref() == Some(OsStr::new(mark))
            })
            .unwrap();
        assert_eq!(first.identity, spawned);
        assert_eq!(other, None);
    }

    #[test]
    fn a_variable_is_the_whole_name_and_its_value_no_longer_than_a_path() {
        let longest = "x".repeat(LONGEST_VALUE);
        let environment = format!("AA=1\0A=2=3\0A=4\0B\0C={longest}\0D={longest}x");
        let value = |name| value(environment.as_bytes(), name);
        assert_eq!(value("A"), Some("2=3".into()));
        assert_eq!(value("C"), Some(longest.into()));
        assert_eq!([value("B"), value("D"), value("E")], [None, None, None]);
    }

    #[test]
    fn an_environment_is_read_whole_but_no_further_than_one_can_be() {
        for (size, read) in [
            (0, 0),
            (ENVIRONMENT_SIZE, ENVIRONMENT_SIZE),
            (ENVIRONMENT_SIZE + 1, ENVIRONMENT_SIZE + 1),
            (8 * LARGEST_ENVIRONMENT, LARGEST_ENVIRONMENT),
        ] {
            let environment = environment(|| Ok(io::repeat(b'x').take(size as u64)));
            assert_eq!(environment.unwrap().len(), read);
        }
    }

    #[tokio::test]
    async fn the_usage_of_a_mark_counts_every_process_that_carries_it() {
        let sandbox = Sandbox::new();
        sandbox.spawn("sleep 600 & setsid sleep 600 & wait");
        let (name, value) = sandbox.mark();
        eventually("all three run", || {
            usage_by::<String>(name)
                .unwrap()
                .get(value)
                .is_some_and(|usage| usage.processes == 3)
        })
        .await;
        assert!(usage_by::<String>(name).unwrap()[value].memory > 0);
    }

    #[tokio::test]
    async fn a_program_that_was_replaced_while_it_runs_is_reported() {
        let sandbox = Sandbox::new();
        let program = sandbox.path("program");
        fs::copy("/bin/sleep", &program).unwrap();
        sandbox.spawn(&format!("exec {} 600", program.display()));
        let (name, value) = sandbox.mark();
        let usage = || usage_by::<String>(name).unwrap().get(value).copied();
        let runs_from = |file: &std::path::Path| {
            let all = find_by_environment(name, value);
            let exe = all.first().map(|it| format!("/proc/{}/exe", it.pid()));
            exe.is_some_and(|exe| fs::read_link(exe).is_ok_and(|exe| exe == file))
        };
        eventually("the program runs", || runs_from(&program)).await;
        assert_eq!(usage().map(|usage| usage.is_replaced), Some(false));
        fs::remove_file(&program).unwrap();
        assert_eq!(usage().map(|usage| usage.is_replaced), Some(true));
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
