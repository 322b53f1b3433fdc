//! What is on this host: config.yaml, registration.yaml and the data directory, and who can read and write them.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use bytesize::ByteSize;
use rustix::{
    fs::{Access, access, statfs},
    process::getegid,
};

use super::{
    Outcome,
    vantage::{User, Vantage, owner},
};
use crate::{
    command::reply::counted,
    config::{Config, FileError, LoginMethod, Problem},
    data_dir::CONTENT,
    matrix::{Chain, Fault, Login, RegistrationError},
    shell,
};

/// Reading is allowed to users who are neither the owner nor in the group.
const READABLE_BY_OTHERS: u32 = 0o004;

/// The SDK's stores take some MiB, each session's output two times `max_output`.
const LOW_DISK_SPACE: u64 = 100 * 1024 * 1024;

/// Network file systems, by the numbers of statfs(2): 9p, Ceph, CIFS, Lustre, NFS, SMB. Locks and change notifications are not
/// reliable there.
const NETWORK_FILE_SYSTEMS: [u64; 6] = [
    0x0102_1997,
    0x00c3_6400,
    0xff53_4d42,
    0x0bd0_0bd0,
    0x6969,
    0xfe53_4d42,
];

pub(super) fn no_configuration(file: &Path, error: &FileError) -> Outcome {
    let write = format!(
        "`rcbot init --config {}` writes one; or name another file with `--config`",
        shell::word(file)
    );
    judge_file_error(
        error,
        &write,
        "correct that in the file, and restart the bot",
    )
}

/// The outcome of an unreadable file; if it does not exist, `write` says how to get it.
fn judge_file_error(error: &FileError, write: &str, correct: &str) -> Outcome {
    match error {
        FileError::Missing { path, .. } => {
            Outcome::failed(format!("there is no {}", path.display()), write)
        }
        FileError::Unreadable { path, source } => {
            // The bot may be allowed to read a file that is closed to us.
            let is_closed = source.kind() == io::ErrorKind::PermissionDenied;
            let remedy = match owner(path).filter(|_| is_closed) {
                Some(owner) => format!(
                    "if the bot runs as the user whose file it is: {}",
                    owner.check(path)
                ),
                None => "make it a file that the user who runs rcbot may read".to_owned(),
            };
            Outcome::failed(
                format!("{} cannot be read ({source})", path.display()),
                remedy,
            )
        }
        FileError::Invalid(problems) => {
            Outcome::failed(problems.to_string().replace('\n', "; "), correct)
        }
    }
}

pub(super) fn judge_configuration(config: &Config) -> Outcome {
    let projects = counted(config.projects.len(), "project", "projects");
    let roots = match config.project_roots.len() {
        0 => String::new(),
        many => format!(", {}", counted(many, "project root", "project roots")),
    };
    let good = format!("{}, {projects}{roots}", config.file.display());
    let remedy = "change that in config.yaml, and restart the bot";
    // Others in the group that may read a secret would be the next thing to report.
    let close = config.secret().map(|_| "go-rwx");
    judge_file(&config.file, close, good, config.warnings(), remedy)
}

/// How the bot logs in, and the files for that.
pub(super) fn judge_registration(config: &Config) -> (Outcome, Option<Login>) {
    let LoginMethod::Appservice(file) = &config.login else {
        let because = "config.yaml gives `bot.access_token` or `bot.password` in its place";
        return (Outcome::skipped(because), Login::load(config).ok());
    };
    match Login::load(config) {
        Ok(login) => {
            let good = format!("{}, for {}", file.display(), config.bot_user);
            let remedy = format!(
                "change that in {} and in the homeserver's copy, and restart the homeserver",
                file.display()
            );
            let outcome = judge_file(file, Some("o-rwx"), good, login.warnings(), &remedy);
            (outcome, Some(login))
        }
        Err(error) => (refused(&error, file, &config.file), None),
    }
}

/// `close`: the change of mode that keeps others from reading it, if it has a secret.
fn judge_file(
    file: &Path,
    close: Option<&str>,
    good: String,
    warnings: &[Problem],
    remedy: &str,
) -> Outcome {
    let mode = fs::metadata(file).map(|metadata| metadata.permissions().mode());
    if let Some(close) = close
        && mode.is_ok_and(|mode| mode & READABLE_BY_OTHERS != 0)
    {
        return Outcome::failed(
            format!("every user of this host can read {}", file.display()),
            format!("`chmod {close} {}`", shell::word(file)),
        );
    }
    if warnings.is_empty() {
        return Outcome::passed(good);
    }
    let all: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    Outcome::warning(all.join("; "), remedy)
}

/// How to replace a registration: rcbot overwrites none.
pub(super) fn replace_registration(file: &Path, config_file: &Path) -> String {
    format!(
        "remove {}, `rcbot registration --config {}`, give the homeserver the new copy, and restart it",
        file.display(),
        shell::word(config_file)
    )
}

fn refused(error: &RegistrationError, file: &Path, config_file: &Path) -> Outcome {
    match error {
        RegistrationError::File(error) => {
            let write = format!(
                "`rcbot registration --config {}`, and give the homeserver a copy",
                shell::word(config_file)
            );
            let correct =
                "change that in the file and in the homeserver's copy, and restart the homeserver";
            judge_file_error(error, &write, correct)
        }
        RegistrationError::OfAnotherUser(problems) => Outcome::failed(
            problems.to_string().replace('\n', "; "),
            format!(
                "correct `bot.localpart` or `homeserver.server_name` in config.yaml, if one of them is wrong; else {}",
                replace_registration(file, config_file)
            ),
        ),
    }
}

pub(super) fn unreadable(fault: &Fault) -> Outcome {
    if let Fault::UnreadableFile { path, remedy } = fault {
        return Outcome::failed(
            format!("the file {} is invalid", path.display()),
            format!("{remedy}; stop the bot before that, and restart it"),
        );
    }
    let closed = io::ErrorKind::PermissionDenied;
    let remedy = if matches!(fault, Fault::File { source, .. } if source.kind() == closed) {
        "do what `data directory` in this report says"
    } else {
        "make it a file that the bot can read and write, or move it away while no bot runs"
    };
    Outcome::failed(Chain(fault).to_string(), remedy)
}

pub(super) fn judge_data_dir(path: &Path, vantage: &Vantage) -> Outcome {
    let shown = path.display();
    let failed = |what: &str, remedy: &str| {
        let found = format!("{shown} {what}");
        let elsewhere = "or set `data_dir` in config.yaml to another path";
        Outcome::failed(found, format!("{remedy}, {elsewhere}"))
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => return failed("is not a directory", &format!("remove {shown}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = nearest_existing(path);
            // With the dot, a file in place of the directory is reported as one.
            return match may_write(&parent.join(".")) {
                Ok(()) => Outcome::passed(format!("{shown} is not there yet; the bot makes it")),
                Err(error) => failed(
                    &format!("cannot be made in {} ({error})", parent.display()),
                    "make it, for the user who runs rcbot",
                ),
            };
        }
        Err(error) => {
            let remedy = "let the user who runs rcbot use it";
            return failed(&format!("cannot be used ({error})"), remedy);
        }
    };
    if let Err(error) = may_write(path) {
        let open = match error.kind() {
            io::ErrorKind::PermissionDenied => open_to_us(path, &metadata, vantage),
            _ => None,
        };
        let open = open.unwrap_or_else(|| "let the user who runs rcbot write there".to_owned());
        return failed(&format!("cannot be written to ({error})"), &open);
    }
    if let Some(outcome) = judge_content(path, &metadata, vantage) {
        return outcome;
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Outcome::warning(
            format!("other users of this host can open {shown}"),
            format!("`chmod 700 {}`", shell::word(path)),
        );
    }
    Outcome::passed(shown.to_string())
}

fn may_write(folder: &Path) -> io::Result<()> {
    Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// The command that gives the directory to the user who runs the check. Another user's is not ours to take: see `Vantage`.
fn open_to_us(path: &Path, metadata: &Metadata, vantage: &Vantage) -> Option<String> {
    let (path_word, me) = (shell::word(path), vantage.me.id);
    match metadata.uid() {
        owner if owner == me => Some(format!("`chmod 700 {path_word}`")),
        0 if vantage.running.is_none() && is_for_a_bot(path) => Some(format!(
            "`sudo chown -R {me}:{} {path_word}`",
            getegid().as_raw()
        )),
        _ => None,
    }
}

/// Whether the directory has only a bot's files, as far as we can read it: nobody is to give away /var/lib with all in it.
fn is_for_a_bot(path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(path) else {
        return true;
    };
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.is_empty() || CONTENT.iter().any(|ours| names.iter().any(|it| it == ours))
}

/// After one `sudo rcbot`, the new files are root's, and a bot of another user cannot open them. `None`: all is well.
fn judge_content(data_dir: &Path, owner: &Metadata, vantage: &Vantage) -> Option<Outcome> {
    // Root can open everything, and so can a bot that runs as the owner of the content.
    if owner.uid() == 0 || vantage.running.is_some() && !vantage.runs_as(owner.uid()) {
        return None;
    }
    let entries = CONTENT.map(|name| data_dir.join(name));
    let (spoilt, found): (Vec<_>, Vec<_>) = entries
        .iter()
        .filter_map(|entry| Some((shell::word(entry), not_of(owner.uid(), entry)?)))
        .unzip();
    let first = found.first()?;
    let other = fs::symlink_metadata(first).ok()?.uid();
    let (spoilt, user) = (spoilt.join(" "), User::of(owner.uid()));
    let remedy = if other == 0 {
        let (uid, gid) = (owner.uid(), owner.gid());
        format!("`sudo chown -R {uid}:{gid} {spoilt}`, and run rcbot only as {user}")
    } else {
        format!(
            "stop all bots, give {spoilt} to the user who is to run rcbot, and run it only as that user"
        )
    };
    let found = format!(
        "{} belongs to {}, and {} to {user}, so the bot cannot use it",
        first.display(),
        User::of(other),
        data_dir.display()
    );
    Some(Outcome::failed(found, remedy))
}

/// The first that belongs to another user, of a path and all below it.
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

/// Itself, or the nearest above it.
fn nearest_existing(path: &Path) -> &Path {
    let mut all = path.ancestors();
    all.find(|path| path.exists()).unwrap_or(path)
}

pub(super) fn judge_disk(data_dir: &Path) -> Outcome {
    let path = nearest_existing(data_dir);
    let disk = match statfs(path) {
        Ok(disk) => disk,
        Err(error) => return Outcome::skipped(io::Error::from(error).to_string()),
    };
    let free = disk
        .f_bavail
        .saturating_mul(u64::try_from(disk.f_bsize).unwrap_or_default());
    let found = format!("{:.0} free", ByteSize(free).display().iec());
    if free < LOW_DISK_SPACE {
        return Outcome::warning(
            format!("{found}, for {}", path.display()),
            "make room there: at least 100 MiB",
        );
    }
    // The kernel's numbers have 32 bits, whatever the type.
    if NETWORK_FILE_SYSTEMS
        .contains(&(u64::try_from(disk.f_type).unwrap_or_default() & 0xffff_ffff))
    {
        return Outcome::warning(
            format!(
                "{found}, on a network file system: locks, and the news of changed files, are not reliable there"
            ),
            "set `data_dir` in config.yaml to a path on a disk of this host",
        );
    }
    Outcome::passed(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_another_user_are_found() {
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
}
