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
    process::getegid,
};

use super::{
    Outcome, Report,
    vantage::{User, Vantage},
};
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

pub(super) fn look(report: &mut Report, config: &Config, vantage: &Vantage) {
    let data_dir = &config.data_dir;
    report.add(DIRECTORY, judge_directory(data_dir, vantage));
    let Some(existing) = nearest_existing(data_dir) else {
        return report.skip_missing(&[ROOM, FILE_SYSTEM], "there is no data directory");
    };
    report.add(ROOM, judge_room(&existing));
    report.add(FILE_SYSTEM, judge_file_system(&existing));
}

fn judge_directory(path: &Path, vantage: &Vantage) -> Outcome {
    let shown = path.display();
    let elsewhere = "or set `data_dir` in config.yaml to another path";
    let metadata = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => {
            return Outcome::failed(
                format!("{shown} is not a directory"),
                format!("remove {shown}, {elsewhere}"),
            );
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return judge_missing(path);
        }
        Err(error) => {
            return Outcome::failed(
                format!("{shown} cannot be used ({error})"),
                format!("let the user who runs rcbot use it, {elsewhere}"),
            );
        }
    };
    if let Err(error) = access(path, Access::WRITE_OK | Access::EXEC_OK) {
        let error = io::Error::from(error);
        let open = match error.kind() {
            io::ErrorKind::PermissionDenied => open_to_us(path, &metadata, vantage),
            _ => None,
        };
        let open = open.unwrap_or_else(|| "let the user who runs rcbot write there".to_owned());
        return Outcome::failed(
            format!("{shown} cannot be written to ({error})"),
            format!("{open}, {elsewhere}"),
        );
    }
    if let Some(outcome) = judge_content(path, &metadata, vantage) {
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

/// The command that opens the directory to whoever runs the check. Another user's is not ours to take: see `Vantage`.
fn open_to_us(path: &Path, metadata: &Metadata, vantage: &Vantage) -> Option<String> {
    let (shown, me) = (path.display(), vantage.me.id);
    match metadata.uid() {
        owner if owner == me => Some(format!("`chmod 700 {shown}`")),
        0 if vantage.running.is_none() && is_for_a_bot(path) => Some(format!(
            "`sudo chown -R {me}:{} {shown}`",
            getegid().as_raw()
        )),
        _ => None,
    }
}

/// Whether the directory is nothing but a bot's, as far as we see into it: nobody is to give away /var/lib with all in it.
fn is_for_a_bot(path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(path) else {
        return true;
    };
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.is_empty() || CONTENT.iter().any(|ours| names.iter().any(|it| it == ours))
}

/// After one `sudo rcbot`, what that has made is root's, and no bot of another user gets at it. `None`: all is well.
fn judge_content(data_dir: &Path, owner: &Metadata, vantage: &Vantage) -> Option<Outcome> {
    // Root gets at everything, and so does a bot that runs as the user whose the content is.
    if owner.uid() == 0 || vantage.running.is_some() && !vantage.runs_as(owner.uid()) {
        return None;
    }
    let entries = CONTENT.map(|name| data_dir.join(name));
    let (spoilt, found): (Vec<_>, Vec<_>) = entries
        .iter()
        .filter_map(|entry| Some((entry, not_of(owner.uid(), entry)?)))
        .unzip();
    let first = found.first()?;
    let other = fs::symlink_metadata(first).ok()?.uid();
    let spoilt: Vec<_> = spoilt
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let (spoilt, user) = (spoilt.join(" "), User::of(owner.uid()));
    Some(Outcome::failed(
        format!(
            "{} belongs to {}, and {} to {user}, so that the bot does not get at it",
            first.display(),
            User::of(other),
            data_dir.display()
        ),
        if other == 0 {
            format!(
                "`sudo chown -R {}:{} {spoilt}`, and run rcbot only as {user}",
                owner.uid(),
                owner.gid()
            )
        } else {
            format!(
                "stop all bots, give {spoilt} to the user who is to run rcbot, and run it only as that user"
            )
        },
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
    fn a_directory_with_other_things_in_it_is_not_given_to_the_bot() {
        let folder = tempfile::tempdir().unwrap();
        assert!(is_for_a_bot(folder.path()));
        fs::write(folder.path().join("photos"), "").unwrap();
        assert!(!is_for_a_bot(folder.path()));
        fs::create_dir(folder.path().join("matrix")).unwrap();
        assert!(is_for_a_bot(folder.path()));
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
