//! Records on disk: one private folder for each project, written atomically; and the marks that assign processes to projects.

use std::{
    ffi::{OsStr, OsString},
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
    session::{Redaction, Session, SessionId},
};
use crate::{atomic_file, regular_file};

/// The folder of a session's record, in the environment of its processes: with it they are found again even if the record
/// is lost.
pub const SESSION_FOLDER_VARIABLE: &str = "RCBOT_SESSION_FOLDER";

/// The random name of the folder of records, likewise: in another mount namespace, the same path can be another folder.
pub(crate) const DATA_DIRECTORY_VARIABLE: &str = "RCBOT_DATA_DIRECTORY";

/// The format of a record. A record of another version is invalid.
const VERSION: u32 = 1;

/// The file with the name of the folder of records. No project can have this name.
const ID: &str = ".id";

/// How long it is: 128 random bits.
const ID_LENGTH: usize = 32;

/// The record's file in the project's folder.
const RECORD: &str = "session.json";

/// All that is known of one project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    /// The boot of the host in which it was written: uptimes mean something only within it.
    boot_id: String,
    pub(super) session: Option<Session>,
    #[serde(rename = "withdrawals")]
    pub(super) redactions: Vec<Redaction>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            version: VERSION,
            boot_id: process::boot_id().unwrap_or_default().to_owned(),
            session: None,
            redactions: Vec::new(),
        }
    }
}

impl Record {
    /// Moves the record to this boot. Returns whether the host was booted since it was written; if the host has no boot id, it
    /// counts as booted.
    pub(super) fn carry_over_boot(&mut self) -> bool {
        let id = process::boot_id().unwrap_or_default();
        let booted = id.is_empty() || id != self.boot_id;
        id.clone_into(&mut self.boot_id);
        booted
    }

    pub(super) fn add_redaction(&mut self, redaction: Redaction) {
        self.remove_redaction(&redaction.session, redaction.delivery.number);
        self.redactions.push(redaction);
    }

    pub(super) fn remove_redaction(&mut self, session: &SessionId, number: u32) {
        let is_it = |it: &Redaction| it.session == *session && it.delivery.number == number;
        self.redactions.retain(|known| !is_it(known));
    }
}

/// Why a record is invalid. It quotes nothing from it.
#[derive(Debug)]
pub(super) struct Unreadable(String);

pub(super) type Records = Vec<(ProjectName, Result<Record, Unreadable>)>;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot use the folder {path}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot write the session record {path}")]
    Write { path: PathBuf, source: io::Error },
    /// A record cannot be read, though it may be valid: a fault of the disk or of its permissions.
    #[error("cannot read the session record {path}")]
    Read { path: PathBuf, source: io::Error },
}

/// The folder `sessions`.
#[derive(Debug)]
pub(super) struct Store {
    /// Without symbolic links, so that it does not depend on how it was written.
    folder: PathBuf,
    /// Its name: random, as its path can be another bot's too. `None`: no bot has used it yet.
    id: Option<String>,
}

impl Store {
    /// Opens the folder; creates it if it is missing.
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        make_private_folder(folder)?;
        let mut store = Self::existing(folder)?;
        if store.id.is_none() {
            let id = format!("{:0ID_LENGTH$x}", rand::random::<u128>());
            let path = folder.join(ID);
            atomic_file::write(&path, id.as_bytes())
                .map_err(|source| StoreError::Write { path, source })?;
            store.id = Some(id);
        }
        Ok(store)
    }

    /// The folder as it is, for reading only. It may be missing.
    pub(super) fn existing(folder: &Path) -> Result<Self, StoreError> {
        let text = read(folder.join(ID))?;
        let id = text.and_then(|text| String::from_utf8(text).ok());
        let is_whole =
            |id: &String| id.len() == ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        Ok(Self {
            folder: folder.canonicalize().unwrap_or_else(|_| folder.to_owned()),
            id: id.filter(is_whole),
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the record and the files of a project's session are.
    pub(super) fn project_folder(&self, project: &ProjectName) -> PathBuf {
        self.folder.join(project.as_str())
    }

    /// The variables that mark a project's processes for [`Store::project_of`].
    pub(super) fn marks(&self, project: &ProjectName) -> [(OsString, OsString); 2] {
        let folder = self.project_folder(project).into();
        let id = self.id.clone().unwrap_or_default().into();
        [
            (SESSION_FOLDER_VARIABLE.into(), folder),
            (DATA_DIRECTORY_VARIABLE.into(), id),
        ]
    }

    /// The project of a process with these marks, if it belongs to this folder. `is_deleted`: its output was deleted, and so the
    /// folder that had this name, where another one may be now.
    pub(super) fn project_of(
        &self,
        session_folder: &OsStr,
        data_directory: Option<&OsStr>,
        is_deleted: bool,
    ) -> Option<ProjectName> {
        let path = Path::new(session_folder);
        let parent = path.parent()?;
        let is_named = data_directory
            .is_some_and(|theirs| self.id.as_deref().is_some_and(|ours| theirs == ours));
        // An older rcbot gave its sessions only the path.
        let path_decides = data_directory.is_none() || is_deleted;
        let is_at_path =
            || parent == self.folder || parent.canonicalize().is_ok_and(|it| it == self.folder);
        let name = path.file_name()?.to_str()?;
        let is_here = is_named || path_decides && is_at_path();
        name.parse().ok().filter(|_| is_here)
    }

    /// The records of all projects that ever had a session here.
    pub(super) fn load(&self) -> Result<Records, StoreError> {
        let folder_error = |source| StoreError::Folder {
            path: self.folder.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(folder_error)?,
        };
        let mut records = Vec::new();
        for entry in entries {
            let name = entry.map_err(folder_error)?.file_name();
            // A name that no project can have is not ours.
            let Some(project) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if let Some(text) = read(self.record_path(&project))? {
                records.push((project, parse(&text)));
            }
        }
        records.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(records)
    }

    /// Renames an invalid record to a unique name, with mode 0600.
    pub(super) fn set_aside(
        &self,
        project: &ProjectName,
        Unreadable(reason): &Unreadable,
    ) -> Result<(), StoreError> {
        let path = self.record_path(project);
        let number = rand::random::<u64>();
        let aside = path.with_file_name(format!("{RECORD}.unreadable-{number:016x}"));
        fs::rename(&path, &aside)
            .and_then(|()| fs::set_permissions(&aside, Permissions::from_mode(0o600)))
            .map_err(|source| StoreError::Read {
                path: path.clone(),
                source,
            })?;
        error!(record = %path.display(), kept_as = %aside.display(), reason, "session record unreadable, set aside; it may hold a link");
        Ok(())
    }

    /// Writes the record, or removes it if there is nothing left to remember.
    pub(super) fn save(&self, project: &ProjectName, record: &Record) -> Result<(), StoreError> {
        make_private_folder(&self.project_folder(project))?;
        let path = self.record_path(project);
        let saved = if record.session.is_none() && record.redactions.is_empty() {
            atomic_file::remove(&path)
        } else {
            serde_json::to_vec_pretty(record)
                .map_err(io::Error::from)
                .and_then(|text| atomic_file::write(&path, &text))
        };
        saved.map_err(|source| StoreError::Write { path, source })
    }

    fn record_path(&self, project: &ProjectName) -> PathBuf {
        self.project_folder(project).join(RECORD)
    }
}

fn read(path: PathBuf) -> Result<Option<Vec<u8>>, StoreError> {
    regular_file::read(&path, u64::MAX).map_err(|source| StoreError::Read { path, source })
}

/// The error of `serde_json` would quote the text, and with it perhaps a link, so it is worded here.
fn parse(text: &[u8]) -> Result<Record, Unreadable> {
    let record = serde_json::from_slice::<Record>(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Unreadable(format!(
            "it is invalid from line {line}, column {column} on"
        ))
    })?;
    let version = record.version;
    if version != VERSION {
        let reason = format!("it is of version {version}, wanted {VERSION}");
        return Err(Unreadable(reason));
    }
    Ok(record)
}

fn make_private_folder(path: &Path) -> Result<(), StoreError> {
    atomic_file::create_folder(path).map_err(|source| StoreError::Folder {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        link::Link,
        remote_control::{
            ProcessIdentity,
            clock::now,
            session::{Beginning, Event, Request, Terms},
        },
    };

    /// Of a session that runs and whose link was delivered, and with a link to redact.
    fn a_record() -> Record {
        let request = Request {
            requester: "@alice:example.org".to_owned(),
            reference: "$event".to_owned(),
        };
        let (id, terms, now) = (SessionId::random(), Terms::ORPHANED, now());
        let (start, requests) = (Beginning::Fresh.into(), vec![request]);
        let mut session = Session::new(id.clone(), start, requests, &terms, now);
        let process = ProcessIdentity::of(std::process::id().cast_signed());
        let delivered = Event::Delivered {
            number: 0,
            receipt: "!room $event".to_owned(),
        };
        for event in [
            Event::Spawned(process.unwrap().unwrap()),
            Event::LinkShown(Link::parse("https://claude.ai/code/session_1").unwrap()),
            delivered,
        ] {
            session.on(event, &terms, now);
        }
        let delivery = session.deliveries()[0].clone();
        Record {
            session: Some(session),
            redactions: vec![Redaction {
                session: id,
                delivery,
            }],
            ..Record::default()
        }
    }

    fn name() -> ProjectName {
        "website".parse().unwrap()
    }

    #[test]
    fn a_record_comes_back_as_it_was_and_nobody_else_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("sessions")).unwrap();
        let record = a_record();
        store.save(&name(), &record).unwrap();
        let [(project, Ok(loaded))] = &store.load().unwrap()[..] else {
            panic!("one record")
        };
        assert_eq!((project, loaded), (&name(), &record));
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
    fn a_record_that_was_cut_is_unreadable_and_the_reason_quotes_nothing() {
        let text = serde_json::to_vec(&a_record()).unwrap();
        for length in 0..text.len() {
            let Unreadable(reason) = parse(&text[..length]).unwrap_err();
            let mut secrets = ["claude.ai", "alice", "event"].into_iter();
            assert!(!secrets.any(|part| reason.contains(part)), "{reason}");
        }
    }

    #[test]
    fn a_record_of_before_there_were_options_is_read() {
        let mut record = serde_json::to_value(a_record()).unwrap();
        let session = record["session"].as_object_mut().unwrap();
        session.remove("options").unwrap();
        let read = parse(&serde_json::to_vec(&record).unwrap()).unwrap();
        let session = read.session.unwrap();
        assert_eq!(*session.start(), Beginning::Fresh.into());
    }

    #[test]
    fn a_record_is_carried_over_a_boot_once() {
        let mut record = Record {
            boot_id: "another".to_owned(),
            ..Record::default()
        };
        assert!(record.carry_over_boot());
        assert!(!record.carry_over_boot());
    }

    #[test]
    fn each_link_to_redact_is_on_record_once() {
        let [first] = &a_record().redactions[..] else {
            panic!("one")
        };
        let mut other_number = first.clone();
        other_number.delivery.number += 1;
        let mut other_session = first.clone();
        other_session.session = SessionId::random();
        let mut record = Record::default();
        for redaction in [first, &other_number, &other_session, first] {
            record.add_redaction(redaction.clone());
        }
        assert_eq!(record.redactions.len(), 3);
        record.remove_redaction(&first.session, first.delivery.number);
        assert_eq!(record.redactions, [other_number, other_session]);
    }

    #[test]
    fn a_process_belongs_to_the_folder_of_its_marks() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("sessions")).unwrap();
        let other = Store::open(&folder.path().join("other")).unwrap();
        let [(_, path), (_, id)] = store.marks(&name());
        assert_eq!(store.project_of(&path, Some(&id), false), Some(name()));
        assert_eq!(other.project_of(&path, Some(&id), false), None);
        // From an older rcbot, which gave it only the path.
        assert_eq!(store.project_of(&path, None, false), Some(name()));
        assert_eq!(other.project_of(&path, None, false), None);
        // Its folder was deleted, and another one has its path.
        let another = "0".repeat(ID_LENGTH);
        let is_deleted =
            [true, false].map(|it| store.project_of(&path, Some(OsStr::new(&another)), it));
        assert_eq!(is_deleted, [Some(name()), None]);
        assert_eq!(
            other.project_of(&path, Some(OsStr::new(&another)), true),
            None
        );
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("sessions", &link).unwrap();
        let linked = Store::open(&link).unwrap();
        assert_eq!(linked.project_of(&path, None, false), Some(name()));
    }

    #[test]
    fn a_folder_of_records_has_one_random_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions");
        assert_eq!(Store::existing(&path).unwrap().id, None);
        let id = Store::open(&path).unwrap().id;
        assert!(id.is_some());
        assert_eq!(Store::open(&path.join("../sessions")).unwrap().id, id);
        assert_eq!(Store::existing(&path).unwrap().id, id);
        let other = Store::open(&folder.path().join("other")).unwrap();
        assert_ne!(other.id, id);
        // A truncated id is invalid.
        fs::write(path.join(ID), &id.clone().unwrap()[1..]).unwrap();
        assert_ne!(Store::open(&path).unwrap().id, id);
    }

    #[test]
    fn a_pipe_in_the_place_of_a_record_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        fs::create_dir(store.project_folder(&name())).unwrap();
        let pipe = store.record_path(&name());
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(store.load(), Err(StoreError::Read { path, .. }) if path == pipe));
    }

    #[test]
    fn a_record_with_nothing_to_remember_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("sessions")).unwrap();
        store.save(&name(), &a_record()).unwrap();
        store.save(&name(), &Record::default()).unwrap();
        assert!(store.load().unwrap().is_empty());
    }

    #[test]
    fn an_unreadable_record_is_set_aside_and_kept() {
        for text in [
            "",
            "{",
            "{\"version\": 99, \"boot_id\": \"\", \"session\": null, \"withdrawals\": []}",
            "\u{0}\u{0}\u{0}",
        ] {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).unwrap();
            let path = store.record_path(&name());
            fs::create_dir(path.parent().unwrap()).unwrap();
            // A second one in the same second does not replace the first.
            for _ in 0..2 {
                fs::write(&path, text).unwrap();
                fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
                let [(project, Err(reason))] = &store.load().unwrap()[..] else {
                    panic!("{text:?}")
                };
                store.set_aside(project, reason).unwrap();
            }
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
