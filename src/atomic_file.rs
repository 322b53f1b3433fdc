//! Writes a file so that a reader, or a crash, sees the old content or the new and never a mixture.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// Only the owner may read and write.
const OWNER_ONLY: u32 = 0o600;

/// Only the owner may enter.
const PRIVATE: u32 = 0o700;

/// Replaces the file at `path` (mode 0600), and returns once content and folder are synced. Each path has one writer.
/// After an error `path` is nearly always unchanged; if the last sync fails, it may have the new content already.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = File::open(folder_of(path))?;
    let new = new_file(path);
    // Left by a crash, perhaps of another user's process; its content is not needed.
    remove_if_there(&new)?;
    let written = create(&new, content).and_then(|()| fs::rename(&new, path));
    written.inspect_err(|_| drop(remove_if_there(&new)))?;
    sync(&folder)
}

/// The same for a file that must not exist yet, and that others may make at the same time.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    let synced = File::open(folder)?;
    // Made with mode 0600.
    let mut new = NamedTempFile::new_in(folder)?;
    new.write_all(content)?;
    new.as_file().sync_all()?;
    new.persist_noclobber(path)?;
    sync(&synced)
}

/// Removes a file, and returns once the folder is synced. A missing file is not an error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    remove_if_there(&new_file(path))?;
    remove_if_there(path)?;
    sync(&File::open(folder_of(path))?)
}

/// Creates a private folder and its missing parents, and returns once they are synced. An existing folder is not an error.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = folder_of(path);
    if above != path {
        create_folder(above)?;
    }
    match DirBuilder::new().mode(PRIVATE).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => {
            return Err(error);
        }
        Ok(()) | Err(_) => {}
    }
    // A folder that may be written to but not read cannot be opened, and so not synced.
    File::open(above).map_or(Ok(()), |above| sync(&above))
}

/// The folder that a file is in: for a bare name, the current one.
fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    folder.unwrap_or(Path::new("."))
}

/// The temporary file. It has one fixed name, so that the next write removes what a crash has left.
fn new_file(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    name.into()
}

fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(OWNER_ONLY)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Some file systems cannot sync a folder and return EINVAL.
fn sync(folder: &File) -> io::Result<()> {
    match folder.sync_all() {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_a_crash_has_left_is_removed_by_the_next_write_or_removal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let names = || {
            let all = fs::read_dir(folder.path()).unwrap();
            all.map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect::<Vec<_>>()
        };
        let crash = || fs::write(folder.path().join("file.new"), "half of a secr").unwrap();
        crash();
        write(&path, b"content").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"content");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, OWNER_ONLY);
        assert_eq!(names(), ["file"]);
        crash();
        remove(&path).unwrap();
        assert!(names().is_empty());
        remove(&path).unwrap();
    }

    #[test]
    fn a_write_that_fails_leaves_the_file_as_it_was_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        // A folder that is not empty cannot be replaced.
        fs::create_dir_all(path.join("full")).unwrap();
        write(&path, b"content").unwrap_err();
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_is_made_with_those_above_it_and_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        for _ in 0..2 {
            create_folder(&path).unwrap();
            for made in [&path, path.parent().unwrap()] {
                let mode = fs::metadata(made).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, PRIVATE);
            }
        }
        fs::write(path.join("file"), "").unwrap();
        create_folder(&path.join("file")).unwrap_err();
    }

    #[test]
    fn a_new_file_is_private_and_never_replaces_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_new(&path, b"content").unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, OWNER_ONLY);
        std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
        for there in [&path, &folder.path().join("link")] {
            let error = write_new(there, b"other").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(fs::read(&path).unwrap(), b"content");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
