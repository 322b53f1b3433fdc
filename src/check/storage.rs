//! The data directory: whether the bot can keep its files there, and how good a place it is.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use bytesize::ByteSize;
use rustix::{
    fs::{Access, access, statfs, statvfs},
    process::{getegid, geteuid},
};

use super::{Outcome, Report};
use crate::{config::Config, data_dir::CONTENT};

/// The SDK's stores take some MiB, each session's output two times `max_output`.
const LITTLE_ROOM: u64 = 100 * 1024 * 1024;

/// File systems whose files lie on another host: locks and the news of changes are not reliable there. The numbers are
/// those of statfs(2).
const OF_NETWORKS: [(u32, &str); 10] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0bd0_0bd0, "Lustre"),
    (0x786f_4256, "VirtualBox shared folder"),
];

const DIRECTORY: &str = "data directory";
const ROOM: &str = "room on disk";
const FILE_SYSTEM: &str = "file system";

pub(super) fn look(report: &mut Report, config: &Config) {
    let data_dir = &config.data_dir;
    report.add(DIRECTORY, judge_directory(data_dir));
    let Some(existing) = nearest_existing(data_dir) else {
        return report.skip_missing(&[ROOM, FILE_SYSTEM], "there is no data directory");
    };
    report.add(ROOM, judge_room(&existing));
    report.add(FILE_SYSTEM, judge_file_system(&existing));
}

fn judge_directory(path: &Path) -> Outcome {
    let shown = path.display();
    let elsewhere = "or set `data_dir` in config.yaml to another path";
    let metadata = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => {
            return Outcome::failed(
                format!("{shown} is no directory"),
                format!("remove {shown}, {elsewhere}"),
            );
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return judge_missing(path),
        Err(error) => {
            return Outcome::failed(
                format!("{shown} cannot be used ({error})"),
                format!("let the user who runs rcbot use it, {elsewhere}"),
            );
        }
    };
    if let Err(error) = access(path, Access::WRITE_OK | Access::EXEC_OK) {
        let error = io::Error::from(error);
        return Outcome::failed(
            format!("{shown} cannot be written to ({error})"),
            format!(
                "let the user who runs rcbot write there{}, {elsewhere}",
                give_to_us(path, &metadata)
            ),
        );
    }
    if let Some(outcome) = judge_content(path, &metadata) {
        return outcome;
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Outcome::warning(
            format!("other users of this host get into {shown}"),
            format!("`chmod 700 {shown}`"),
        );
    }
    Outcome::passed(shown.to_string())
}

/// The command, where another's ownership is what keeps us out.
fn give_to_us(path: &Path, metadata: &Metadata) -> String {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    if metadata.uid() == user {
        return String::new();
    }
    format!(
        " (if that is you: `sudo chown -R {user}:{group} {}`)",
        path.display()
    )
}

/// After one `sudo rcbot`, what that has made is root's, and no bot of another user gets at it. `None`: all is well.
fn judge_content(data_dir: &Path, owner: &Metadata) -> Option<Outcome> {
    // Root gets at everything.
    if owner.uid() == 0 {
        return None;
    }
    let entries = CONTENT.map(|name| data_dir.join(name));
    let (spoilt, found): (Vec<_>, Vec<_>) = entries
        .iter()
        .filter_map(|entry| Some((entry, not_of(owner.uid(), entry)?)))
        .unzip();
    let first = found.first()?;
    let spoilt: Vec<_> = spoilt
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    Some(Outcome::failed(
        format!(
            "{} belongs to another user than {}, so that the bot does not get at it",
            first.display(),
            data_dir.display()
        ),
        format!(
            "`sudo chown -R {}:{} {}`, and run rcbot as that user alone",
            owner.uid(),
            owner.gid(),
            spoilt.join(" ")
        ),
    ))
}

/// The first that is not this user's, of a path and all below it.
fn not_of(user: u32, path: &Path) -> Option<PathBuf> {
    let metadata = fs::symlink_metadata(path).ok()?;
    if metadata.uid() != user {
        return Some(path.to_owned());
    }
    if !metadata.is_dir() {
        return None;
    }
    let entries = fs::read_dir(path).ok()?.flatten();
    entries
        .into_iter()
        .find_map(|entry| not_of(user, &entry.path()))
}

fn judge_missing(path: &Path) -> Outcome {
    let parent = nearest_existing(path).unwrap_or_default();
    let may = access(&parent, Access::WRITE_OK | Access::EXEC_OK);
    match may.map_err(io::Error::from) {
        Ok(()) if parent.is_dir() => Outcome::passed(format!(
            "{} is not there yet; the bot makes it",
            path.display()
        )),
        Ok(()) => cannot_be_made(path, &parent, &io::ErrorKind::NotADirectory.into()),
        Err(error) => cannot_be_made(path, &parent, &error),
    }
}

fn cannot_be_made(path: &Path, parent: &Path, error: &io::Error) -> Outcome {
    Outcome::failed(
        format!(
            "{} cannot be made in {} ({error})",
            path.display(),
            parent.display()
        ),
        "make it, for the user who runs rcbot, or set `data_dir` in config.yaml to another path",
    )
}

fn nearest_existing(path: &Path) -> Option<PathBuf> {
    path.ancestors()
        .find(|path| path.exists())
        .map(Path::to_owned)
}

fn judge_room(path: &Path) -> Outcome {
    let left = match statvfs(path) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(error) => return Outcome::skipped(io::Error::from(error).to_string()),
    };
    let shown = ByteSize(left).display().iec();
    if left >= LITTLE_ROOM {
        return Outcome::passed(format!("{shown:.0} left"));
    }
    Outcome::warning(
        format!("{shown:.0} left on the file system of {}", path.display()),
        "make room there: at least 100 MiB",
    )
}

fn judge_file_system(path: &Path) -> Outcome {
    match statfs(path) {
        Ok(disk) => judge_kind(u32::try_from(disk.f_type).unwrap_or_default()),
        Err(error) => Outcome::skipped(io::Error::from(error).to_string()),
    }
}

fn judge_kind(kind: u32) -> Outcome {
    match OF_NETWORKS.iter().find(|(number, _)| *number == kind) {
        None => Outcome::passed("tells of changes"),
        Some((_, name)) => Outcome::warning(
            format!("{name}: locks, and the news of changed files, are not reliable there"),
            "set `data_dir` in config.yaml to a path on a disk of this host",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_user_owns_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let owner = fs::metadata(folder.path()).unwrap().uid();
        let file = folder.path().join("sessions/website/session.json");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "").unwrap();
        assert_eq!(not_of(owner, folder.path()), None);
        assert_eq!(not_of(owner, &folder.path().join("matrix")), None);
        assert_eq!(not_of(owner + 1, &file), Some(file));
    }

    #[test]
    fn a_file_system_of_a_network_is_warned_of() {
        for kind in [0x6969, 0xff53_4d42] {
            assert!(
                matches!(judge_kind(kind), Outcome::Warning { .. }),
                "{kind:x}"
            );
        }
        // ext4 and tmpfs.
        for kind in [0xef53, 0x0102_1994] {
            assert!(
                matches!(judge_kind(kind), Outcome::Passed { .. }),
                "{kind:x}"
            );
        }
    }
}
