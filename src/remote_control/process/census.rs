//! All processes of this host that were spawned with a mark, in one look.

use procfs::process::all_processes;

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
    pub fn variable(&self, name: &str) -> Option<&str> {
        let mut entries = self.environment.split(|byte| *byte == 0);
        entries.find_map(|entry| {
            std::str::from_utf8(entry)
                .ok()?
                .strip_prefix(name)?
                .strip_prefix('=')
        })
    }
}

/// Every session leader of ours that has the variable `name` in its environment, the oldest first: a descendant may lead a
/// session of its own, and the spawned process came before it.
///
/// # Errors
/// When `/proc` cannot be read. Processes that vanish meanwhile are skipped.
pub fn leaders_with(name: &str) -> Result<Vec<Leader>, IdentityError> {
    let mut leaders = Vec::new();
    for process in all_processes().map_err(IdentityError::List)? {
        let looked = process.and_then(|process| {
            let stat = process.stat()?;
            let leads = stat.session == stat.pid;
            let environment = if leads {
                settled_environment(&process)?
            } else {
                Vec::new()
            };
            Ok((stat, environment))
        });
        match looked {
            Ok((stat, environment)) => {
                let seen = Observed::new(&stat)?;
                let leader = Leader {
                    identity: seen.identity,
                    environment,
                };
                if !seen.ended && leader.variable(name).is_some() {
                    leaders.push((stat.starttime, leader));
                }
            }
            Err(error) if is_out_of_sight(&error) => {}
            Err(error) => return Err(IdentityError::List(error)),
        }
    }
    leaders.sort_by_key(|(start_time, _)| *start_time);
    Ok(leaders.into_iter().map(|(_, leader)| leader).collect())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Sandbox;
    use super::*;

    #[tokio::test]
    async fn the_spawned_process_is_the_first_of_its_leaders() {
        let sandbox = Sandbox::new();
        let spawned = sandbox.spawn("setsid sleep 600 & echo; sleep 600");
        let (name, value) = sandbox.mark();
        let leaders = leaders_with(name).unwrap();
        let mut ours = leaders
            .iter()
            .filter(|leader| leader.variable(name) == Some(value));
        assert_eq!(ours.next().unwrap().identity, spawned);
        assert_eq!(leaders.first().unwrap().variable("NO_SUCH_VARIABLE"), None);
    }
}
