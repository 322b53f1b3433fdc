//! A cgroup (v2) for each spawned process and its descendants, if systemd has delegated ours to us, as our units ask for
//! (`Delegate=pids`).
//!
//! A process cannot leave it by a new session, a new name or an emptied environment, and `cgroup.kill` ends all in one step,
//! whichever user they run as. This is optional: without it, processes are found as everywhere else.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    path::{Component, Path, PathBuf},
};

use procfs::process::Process;
use rustix::fs::getxattr;
use tracing::debug;

use super::handle::ProcessIdentity;

/// The attributes with which systemd marks a cgroup as delegated to the processes in it.
const DELEGATED: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// The folder of one cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cgroup(PathBuf);

impl Cgroup {
    /// Creates one for the processes with this mark. `None`: that is not possible here.
    pub(super) fn make(mark: &str) -> Option<Self> {
        let own = own_folder().filter(|folder| is_delegated(folder))?;
        let folder = own.join(name(mark)?);
        match fs::create_dir(&folder) {
            Ok(()) => Some(Self(folder)),
            // From the session's previous process.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Some(Self(folder)),
            Err(error) => {
                debug!(folder = %folder.display(), %error, "no cgroup");
                None
            }
        }
    }

    /// Those that were created for this mark: below our own cgroup, or, if we were in another then, where the leader is. Never
    /// one that we are in ourselves, as a bot that was started in a session is: it holds more than that session.
    pub(super) fn all(mark: &str, leader: Option<&ProcessIdentity>) -> Vec<Self> {
        let Some(name) = name(mark) else {
            return Vec::new();
        };
        let own = own_folder();
        let below_us = own.as_ref().map(|own| own.join(&name));
        let of_leader = leader
            .and_then(|leader| folder_of(&Process::new(leader.pid()).ok()?))
            .and_then(|folder| {
                let mut folders = folder.ancestors();
                Some(folders.find(|folder| folder.ends_with(&name))?.to_owned())
            });
        let mut all: Vec<_> = below_us.into_iter().chain(of_leader).collect();
        all.dedup();
        let holds_us = |folder: &Path| own.as_ref().is_some_and(|own| own.starts_with(folder));
        all.retain(|folder| folder.exists() && !holds_us(folder));
        all.into_iter().map(Self).collect()
    }

    /// A process that writes `0` to it enters the cgroup.
    pub(super) fn procs_file(&self) -> Option<File> {
        let processes = self.0.join("cgroup.procs");
        File::options().write(true).open(processes).ok()
    }

    /// The pids of all that are in it, zombies left out.
    pub(super) fn pids(&self) -> HashSet<i32> {
        let mut pids = HashSet::new();
        for folder in folders(&self.0) {
            let list = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            pids.extend(list.lines().filter_map(|pid| pid.parse::<i32>().ok()));
        }
        pids
    }

    /// Sends SIGKILL to all that are in it; no fork escapes. Linux 5.14.
    pub(super) fn kill(&self) {
        if let Err(error) = fs::write(self.0.join("cgroup.kill"), "1") {
            debug!(%error, "cgroup not killed as a whole");
        }
    }

    /// Removes it, if nothing runs in it.
    pub(super) fn remove(&self) {
        for folder in folders(&self.0).iter().rev() {
            if let Err(error) = fs::remove_dir(folder) {
                debug!(%error, "cgroup not removed");
            }
        }
    }
}

/// This one and all below it, the outer ones first. Not recursive: a session's processes may nest them as they like.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    let mut next = 0;
    while let Some(folder) = folders.get(next) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|it| it.is_dir()));
        let below: Vec<_> = below.map(|entry| entry.path()).collect();
        folders.extend(below);
        next += 1;
    }
    folders
}

/// A mark may come from the environment of any process, so it must be a plain folder name.
fn name(mark: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (!mark.is_empty() && mark.bytes().all(is_plain)).then(|| format!("rcbot-{mark}"))
}

fn own_folder() -> Option<PathBuf> {
    folder_of(&Process::myself().ok()?)
}

fn folder_of(process: &Process) -> Option<PathBuf> {
    let cgroups = process.cgroups().ok()?;
    let path = cgroups.into_iter().find(|it| it.hierarchy == 0)?.pathname;
    let path = Path::new(&path).strip_prefix("/").ok()?;
    // Outside of our cgroup namespace.
    if path.components().any(|it| it == Component::ParentDir) {
        return None;
    }
    let mut mounts = Process::myself().ok()?.mountinfo().ok()?.into_iter();
    let mount = mounts.find(|mount| mount.fs_type == "cgroup2" && mount.root == "/")?;
    Some(mount.mount_point.join(path))
}

fn is_delegated(folder: &Path) -> bool {
    DELEGATED.into_iter().any(|name| {
        let mut value = [0; 8];
        getxattr(folder, name, &mut value).is_ok_and(|length| value.get(..length) == Some(b"1"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mark_that_is_a_plain_name_has_a_cgroup() {
        for mark in ["", ".", "..", "/", "../x", "x/../../y", "x/", "a b"] {
            assert_eq!(name(mark), None, "{mark}");
        }
        assert_eq!(name("0a-b").as_deref(), Some("rcbot-0a-b"));
    }
}
