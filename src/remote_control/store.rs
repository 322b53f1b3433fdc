//! Records on disk: one folder a project, written atomically, readable by nobody else.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tracing::error;

use super::{
    process,
    project::ProjectName,
    session::{Delivery, Session, SessionId},
};
use crate::atomic_file;

/// The format of a record. A record of another version is not understood.
const VERSION: u32 = 1;

/// The file with the name of the folder of records. No project can be called so.
const ID: &str = ".id";

/// How long it is: 128 random bits.
const ID_LENGTH: usize = 32;

/// The record's file in the project's folder.
const RECORD: &str = "session.json";

/// A link that has to be redacted from a requester, as its session is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawal {
    /// Whose link it was.
    pub session: SessionId,
    /// How it was delivered. Without a receipt it may or may not have arrived.
    pub delivery: Delivery,
}

impl Withdrawal {
    pub(super) fn is_same_delivery(&self, other: &Self) -> bool {
        self.session == other.session && self.delivery.number == other.delivery.number
    }
}

/// All that is known of one project.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    /// The boot of the host in which it was written: uptimes mean something within it alone.
    boot_id: String,
    pub(super) session: Option<Session>,
    pub(super) withdrawals: Vec<Withdrawal>,
}

impl Record {
    pub(super) fn new(session: Option<Session>, withdrawals: Vec<Withdrawal>) -> Self {
        Self {
            version: VERSION,
            boot_id: process::boot_id().unwrap_or_default().to_owned(),
            session,
            withdrawals,
        }
    }
}

impl Record {
    /// Whether the host was booted since this was written.
    ///
    /// A host that does not tell its boot is taken for one that boots all the time.
    pub(super) fn is_of_another_boot(&self) -> bool {
        process::boot_id().map_or(true, |id| id != self.boot_id)
    }
}

/// What the folder of one project holds.
#[derive(Debug)]
pub(super) enum Found {
    /// A record that makes sense.
    Record(Box<Record>),
    /// A record that made none; it was set aside.
    Unreadable,
}

/// The records could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A folder cannot be made or listed.
    #[error("cannot use the folder {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record cannot be written.
    #[error("cannot write the session record {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record cannot be read, though it may be sound: a fault of the disk or of its permissions.
    #[error("cannot read the session record {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The folder `sessions`.
#[derive(Debug)]
pub(super) struct Store {
    /// Without symbolic links, so that it is the same however it was written.
    folder: PathBuf,
    id: String,
}

impl Store {
    pub(super) fn open(folder: PathBuf) -> Result<Self, StoreError> {
        make_private_folder(&folder)?;
        let folder = folder.canonicalize().map_err(|source| StoreError::Folder {
            path: folder,
            source,
        })?;
        let id = match Self::id_of(&folder)? {
            Some(id) => id,
            None => make_id(&folder)?,
        };
        Ok(Self { folder, id })
    }

    /// The name of this folder of records: random, as its path can be another bot's too.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The name of a folder of records, where it has one.
    pub(super) fn id_of(folder: &Path) -> Result<Option<String>, StoreError> {
        let text = read(&folder.join(ID))?;
        let id = text.and_then(|text| String::from_utf8(text).ok());
        let is_whole =
            |id: &String| id.len() == ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        Ok(id.filter(is_whole))
    }

    /// The folder in which those of the projects are.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of one project; made if need be.
    pub(super) fn project_folder(&self, project: &ProjectName) -> Result<PathBuf, StoreError> {
        let folder = self.folder.join(project.as_str());
        make_private_folder(&folder)?;
        Ok(folder)
    }

    /// All projects that ever had a session here, with what is known of them. A record that makes no sense is set aside.
    pub(super) fn load_all(&self) -> Result<Vec<(ProjectName, Found)>, StoreError> {
        let mut records = Vec::new();
        for project in projects(&self.folder)? {
            if let Some(found) = self.load(&project)? {
                records.push((project, found));
            }
        }
        Ok(records)
    }

    /// What is known of one project. A record that makes no sense is set aside.
    pub(super) fn load(&self, project: &ProjectName) -> Result<Option<Found>, StoreError> {
        load(&record_path(&self.folder, project))
    }

    /// The records in a folder, which is left as it is. `None`: a record that makes no sense.
    pub(super) fn peek(folder: &Path) -> Result<Vec<(ProjectName, Option<Record>)>, StoreError> {
        let mut records = Vec::new();
        for project in projects(folder)? {
            if let Some(text) = read(&record_path(folder, &project))? {
                records.push((project, parse(&text).ok()));
            }
        }
        Ok(records)
    }

    /// Writes the record, or removes it where there is nothing left to remember.
    pub(super) fn save(&self, project: &ProjectName, record: &Record) -> Result<(), StoreError> {
        let path = self.project_folder(project)?.join(RECORD);
        let write_error = |source: io::Error| StoreError::Write {
            path: path.clone(),
            source,
        };
        if record.session.is_none() && record.withdrawals.is_empty() {
            return atomic_file::remove(&path).map_err(write_error);
        }
        let text = serde_json::to_vec_pretty(record).map_err(|error| write_error(error.into()))?;
        atomic_file::write(&path, &text).map_err(write_error)
    }
}

fn record_path(folder: &Path, project: &ProjectName) -> PathBuf {
    folder.join(project.as_str()).join(RECORD)
}

/// The names of the folders of projects. A folder of records that is not there yet has none.
fn projects(folder: &Path) -> Result<Vec<ProjectName>, StoreError> {
    let folder_error = |source| StoreError::Folder {
        path: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(folder_error)?,
    };
    let mut projects = Vec::new();
    for entry in entries {
        // What cannot name a project is not ours.
        let name = entry.map_err(folder_error)?.file_name();
        projects.extend(name.to_str().and_then(|name| name.parse().ok()));
    }
    projects.sort_unstable();
    Ok(projects)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(StoreError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The reason of `serde_json` would quote the text, and with it perhaps a link: so it is put in words of our own.
fn parse(text: &[u8]) -> Result<Record, String> {
    let record = serde_json::from_slice::<Record>(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("it makes no sense from line {line}, column {column} on")
    })?;
    if record.version != VERSION {
        return Err(format!(
            "it is of version {}, wanted {VERSION}",
            record.version
        ));
    }
    Ok(record)
}

fn load(path: &Path) -> Result<Option<Found>, StoreError> {
    let Some(text) = read(path)? else {
        return Ok(None);
    };
    let reason = match parse(&text) {
        Ok(record) => return Ok(Some(Found::Record(Box::new(record)))),
        Err(reason) => reason,
    };
    let aside = set_aside(path).map_err(|source| StoreError::Read {
        path: path.to_owned(),
        source,
    })?;
    error!(record = %path.display(), kept_as = %aside.display(), reason, "session record unreadable, set aside; it may hold a link");
    Ok(Some(Found::Unreadable))
}

/// Under a name that no other has, closed to others as the record was.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let number = rand::random::<u64>();
    let aside = path.with_file_name(format!("{RECORD}.unreadable-{number:016x}"));
    fs::rename(path, &aside)?;
    fs::set_permissions(&aside, Permissions::from_mode(0o600))?;
    Ok(aside)
}

fn make_id(folder: &Path) -> Result<String, StoreError> {
    let id = format!("{:0ID_LENGTH$x}", rand::random::<u128>());
    let path = folder.join(ID);
    atomic_file::write(&path, id.as_bytes())
        .map_err(|source| StoreError::Write { path, source })?;
    Ok(id)
}

fn make_private_folder(path: &Path) -> Result<(), StoreError> {
    atomic_file::create_folder(path).map_err(|source| StoreError::Folder {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    use crate::remote_control::session::{Beginning, Moment, Request, Restart, Terms};

    mod properties;

    fn a_record() -> Record {
        let request = Request {
            requester: "@alice:example.org".to_owned(),
            reference: "$event".to_owned(),
        };
        let terms = Terms {
            link_timeout: None,
            max_duration: None,
            restart: Restart::Never,
        };
        let now = Moment {
            wall: SystemTime::now(),
            uptime: Duration::ZERO,
        };
        let (session, _) = Session::new(
            SessionId::random(),
            Beginning::Fresh,
            vec![request],
            &terms,
            now,
        );
        Record::new(Some(session), Vec::new())
    }

    fn name() -> ProjectName {
        "website".parse().unwrap()
    }

    #[test]
    fn a_record_comes_back_as_it_was_and_nobody_else_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("sessions")).unwrap();
        let record = a_record();
        store.save(&name(), &record).unwrap();
        let [(project, Found::Record(loaded))] = &store.load_all().unwrap()[..] else {
            panic!("one record")
        };
        assert_eq!((project, &**loaded), (&name(), &record));
        let path = folder.path().join("sessions/website/session.json");
        for (path, mode) in [(path.as_path(), 0o600), (path.parent().unwrap(), 0o700)] {
            assert_eq!(
                fs::metadata(path).unwrap().permissions().mode() & 0o777,
                mode,
                "{}",
                path.display()
            );
        }
    }

    #[test]
    fn a_folder_of_records_has_one_name_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions");
        assert_eq!(Store::id_of(&path).unwrap(), None);
        let id = Store::open(path.clone()).unwrap().id().to_owned();
        assert_eq!(Store::open(path.join("../sessions")).unwrap().id(), id);
        assert_eq!(Store::id_of(&path).unwrap(), Some(id.clone()));
        let other = Store::open(folder.path().join("other")).unwrap();
        assert_ne!(other.id(), id);
        // Half of one is none.
        fs::write(path.join(ID), &id[1..]).unwrap();
        assert_ne!(Store::open(path).unwrap().id(), id);
    }

    #[test]
    fn a_record_with_nothing_to_remember_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("sessions")).unwrap();
        store.save(&name(), &a_record()).unwrap();
        store.save(&name(), &Record::new(None, Vec::new())).unwrap();
        assert!(store.load_all().unwrap().is_empty());
    }

    #[test]
    fn an_unreadable_record_is_set_aside_and_kept() {
        for text in [
            "",
            "{",
            "{\"version\": 99, \"session\": null, \"withdrawals\": []}",
            "\u{0}\u{0}\u{0}",
        ] {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path().to_owned()).unwrap();
            let path = store.project_folder(&name()).unwrap().join(RECORD);
            fs::write(&path, text).unwrap();
            assert!(
                matches!(&store.load_all().unwrap()[..], [(_, Found::Unreadable)]),
                "{text:?}"
            );
            // A second one in the same second takes nothing from the first.
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            store.load_all().unwrap();
            let kept: Vec<_> = fs::read_dir(path.parent().unwrap())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            assert_eq!(kept.len(), 2);
            for kept in kept {
                assert_eq!(fs::read_to_string(&kept).unwrap(), text);
                let mode = fs::metadata(&kept).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600);
            }
        }
    }
}
