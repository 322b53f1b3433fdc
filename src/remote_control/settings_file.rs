//! The file that a session gets as its `--settings`: whether other users can change it, and its digest.
//!
//! It is checked when a process is spawned, and the program reads it a moment later: other users must not be able to change its
//! parent folders either.

use std::{
    fs::Metadata,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::regular_file;

/// No such file is larger, in bytes.
const LARGEST: u64 = 1024 * 1024;

/// Writing is allowed to the group, or to all.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// In such a folder nobody can replace another user's files.
const STICKY: u32 = 0o1000;

/// Why a settings file is rejected, so that no session starts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsFileError {
    #[error("cannot read the settings file {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the settings file {path} is larger than 1 MiB")]
    TooLarge { path: PathBuf },
    #[error(
        "{path} belongs to user {owner}, who could change the session's settings; it has to be root's or that of the bot's user"
    )]
    Owner { path: PathBuf, owner: u32 },
    #[error(
        "other users can write {path}, and with it the session's settings: `chmod go-w {path}`"
    )]
    Writable { path: PathBuf },
    #[error("the settings file {path} is not a JSON object")]
    NotJson { path: PathBuf },
}

/// The SHA-256 of a settings file that only root and the bot's user can change. `is_ours` knows that user.
pub(crate) fn digest_of(
    path: &Path,
    is_ours: impl Fn(u32) -> bool,
) -> Result<String, SettingsFileError> {
    let unreadable = |source| SettingsFileError::Read {
        path: path.to_owned(),
        source,
    };
    let real = path.canonicalize().map_err(unreadable)?;
    let file = regular_file::open(&real).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.len() > LARGEST {
        let path = path.to_owned();
        return Err(SettingsFileError::TooLarge { path });
    }
    refuse_others(&real, &metadata, &is_ours)?;
    for folder in real.ancestors().skip(1) {
        let metadata = folder.metadata().map_err(unreadable)?;
        refuse_others(folder, &metadata, &is_ours)?;
    }
    let mut bytes = Vec::new();
    file.take(LARGEST)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let json = serde_json::from_slice::<serde_json::Map<_, serde_json::Value>>(&bytes);
    json.map_err(|_| SettingsFileError::NotJson {
        path: path.to_owned(),
    })?;
    Ok(format!("{:x}", Sha256::digest(&bytes)))
}

fn refuse_others(
    path: &Path,
    metadata: &Metadata,
    is_ours: impl Fn(u32) -> bool,
) -> Result<(), SettingsFileError> {
    let path = path.to_owned();
    let owner = metadata.uid();
    if owner != 0 && !is_ours(owner) {
        return Err(SettingsFileError::Owner { path, owner });
    }
    let is_sticky = metadata.is_dir() && metadata.mode() & STICKY != 0;
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 && !is_sticky {
        return Err(SettingsFileError::Writable { path });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_settings_file_that_others_can_change_or_that_is_not_json_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let path = inner.join("settings.json");
        let me = rustix::process::geteuid().as_raw();
        let look = || digest_of(&path, |user| user == me);
        assert!(matches!(look(), Err(SettingsFileError::Read { .. })));
        fs::write(&path, "{}").unwrap();
        set_mode(&path, 0o644);
        let digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        assert_eq!(look().unwrap(), digest);
        for mode in [0o664, 0o646, 0o1646] {
            set_mode(&path, mode);
            assert!(matches!(look(), Err(SettingsFileError::Writable { .. })));
        }
        set_mode(&path, 0o600);
        set_mode(folder.path(), 0o777);
        assert!(matches!(look(), Err(SettingsFileError::Writable { path }) if path.is_dir()));
        set_mode(folder.path(), 0o700);
        // Where a link leads counts.
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        set_mode(&open, 0o777);
        fs::write(open.join("settings.json"), "{}").unwrap();
        set_mode(&open.join("settings.json"), 0o600);
        let link = inner.join("link");
        std::os::unix::fs::symlink(open.join("settings.json"), &link).unwrap();
        let linked = digest_of(&link, |user| user == me);
        assert!(matches!(linked, Err(SettingsFileError::Writable { .. })));
        // The digest is that of the whole.
        fs::write(&path, format!("{{}}{}", " ".repeat(1024 * 1024))).unwrap();
        assert!(matches!(look(), Err(SettingsFileError::TooLarge { .. })));
        for text in ["", "[]", "{", "{} {}"] {
            fs::write(&path, text).unwrap();
            assert!(
                matches!(look(), Err(SettingsFileError::NotJson { .. })),
                "{text}"
            );
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(
            matches!(look(), Err(SettingsFileError::Read { .. })),
            "a folder"
        );
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "{}").unwrap();
        let look = || digest_of(&path, |_| false);
        if me == 0 {
            assert_eq!(look().unwrap(), digest, "root's");
            std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        }
        assert!(matches!(look(), Err(SettingsFileError::Owner { .. })));
    }
}
