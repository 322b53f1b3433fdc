//! Which encrypted commands were obeyed: a file with a line for each, which only grows.
//!
//! A homeserver can show an old ciphertext again at any time, so nothing is forgotten. A line is some fifty bytes, and only
//! commands of those who may command get one.

use std::{
    collections::HashSet,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::Fault;
use crate::atomic_file;

/// A message's place in its Megolm session. An honest device uses each place once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) session: String,
    pub(super) index: u32,
}

impl Place {
    fn to_line(&self) -> String {
        format!("{} {}\n", self.session, self.index)
    }

    fn from_line(line: &str) -> Option<Self> {
        let (session, index) = line.split_once(' ')?;
        Some(Self {
            session: session.to_owned(),
            index: index.parse().ok()?,
        })
    }
}

/// The places whose commands were obeyed.
#[derive(Debug)]
pub(super) struct Obeyed {
    path: PathBuf,
    places: Mutex<HashSet<Place>>,
}

impl Obeyed {
    /// Reads the file, which is made where there is none. A last line that a crash cut off is dropped: what it was about to
    /// say was not obeyed yet.
    pub(super) fn load(path: PathBuf) -> Result<Self, Fault> {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(Fault::File { path, source }),
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let (lines, cut_off) = text.split_at(whole);
        let places: Option<_> = lines.lines().map(Place::from_line).collect();
        let places = places.ok_or_else(|| Fault::UnreadableFile {
            path: path.clone(),
            remedy: "remove the lines that are not a Megolm session's id and a number; without the file, a homeserver \
                     could have old commands obeyed again",
        })?;
        if !cut_off.is_empty() || !path.exists() {
            atomic_file::write(&path, lines.as_bytes()).map_err(|source| Fault::File {
                path: path.clone(),
                source,
            })?;
        }
        Ok(Self {
            path,
            places: Mutex::new(places),
        })
    }

    pub(super) fn contains(&self, place: &Place) -> bool {
        self.places
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(place)
    }

    /// Returns once the place is on disk.
    pub(super) fn insert(&self, place: &Place) -> Result<(), Fault> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        append(&self.path, &place.to_line()).map_err(|source| Fault::File {
            path: self.path.clone(),
            source,
        })?;
        places.insert(place.clone());
        Ok(())
    }
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let before = file.metadata()?.len();
    let written = file
        .write_all(line.as_bytes())
        .and_then(|()| file.sync_data());
    if written.is_err() {
        // Half a line in the midst of the file would make it unreadable.
        file.set_len(before)?;
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(index: u32) -> Place {
        Place {
            session: "bmV2ZXIgYSByZWFsIHNlc3Npb24gb2YgYW55Ym9keSE".to_owned(),
            index,
        }
    }

    #[test]
    fn what_was_obeyed_stays_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("obeyed");
        let obeyed = Obeyed::load(path.clone()).unwrap();
        obeyed.insert(&place(0)).unwrap();
        obeyed.insert(&place(7)).unwrap();
        for obeyed in [obeyed, Obeyed::load(path).unwrap()] {
            assert!(obeyed.contains(&place(0)) && obeyed.contains(&place(7)));
            assert!(!obeyed.contains(&place(1)));
        }
    }

    #[test]
    fn a_line_that_a_crash_cut_off_harms_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("obeyed");
        let whole = place(1).to_line();
        fs::write(&path, format!("{whole}{}", &whole[..20])).unwrap();
        Obeyed::load(path.clone())
            .unwrap()
            .insert(&place(2))
            .unwrap();
        let obeyed = Obeyed::load(path).unwrap();
        assert!(obeyed.contains(&place(1)) && obeyed.contains(&place(2)));
    }

    #[test]
    fn a_file_that_makes_no_sense_is_not_taken_for_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("obeyed");
        fs::write(&path, "nonsense\n").unwrap();
        assert!(matches!(
            Obeyed::load(path),
            Err(Fault::UnreadableFile { .. })
        ));
    }
}
