//! Which commands were obeyed: a file with lines that are only added.
//!
//! An encrypted command is known by its place in its Megolm session: a homeserver can show an old ciphertext again at any time, so
//! those places are never forgotten. A command in plain text is known by its event alone, and so is one that an honest homeserver
//! brings again: some know no limits of what is asked for, and begin at the start of the room. Such an event has its age with it,
//! so it is forgotten once it is far too old. A line is some fifty bytes, and only commands of those who may command get one.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use matrix_sdk::ruma::{EventId, OwnedEventId};

use super::Fault;
use crate::atomic_file;

/// How long events are remembered at least, as a later run may take older commands than this one.
const REMEMBERED: Duration = Duration::from_hours(24);

/// So many lines of events that are too old make the file be written anew.
const SUPERFLUOUS: usize = 1_000;

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
}

/// The commands that were obeyed.
#[derive(Debug)]
pub(super) struct Obeyed {
    path: PathBuf,
    /// How long an event is remembered.
    remembered: Duration,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    places: HashSet<Place>,
    /// When each was obeyed.
    events: HashMap<OwnedEventId, SystemTime>,
    /// How many lines of the file are of events that are too old.
    superfluous: usize,
}

impl Obeyed {
    /// Reads the file, which is made where there is none. A last line that a crash cut off is dropped: what it was about to
    /// say was not obeyed yet.
    pub(super) fn load(path: PathBuf, max_command_age: Duration) -> Result<Self, Fault> {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(Fault::File { path, source }),
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let (lines, cut_off) = text.split_at(whole);
        let mut known = Known::default();
        for line in lines.lines() {
            known.read(line).ok_or_else(|| Fault::UnreadableFile {
                path: path.clone(),
                remedy: "remove the lines that are not a Megolm session's id or an event's id, and a number; without the file, \
                         old commands could be obeyed again",
            })?;
        }
        let obeyed = Self {
            // A command counts from the future too, if that is no further away than the age at which it is too old.
            remembered: REMEMBERED.max(2 * max_command_age),
            known: Mutex::new(known),
            path,
        };
        let mut known = obeyed.known();
        known.forget_old(SystemTime::now(), obeyed.remembered);
        if !cut_off.is_empty() || known.superfluous > 0 || !obeyed.path.exists() {
            obeyed.write(&mut known)?;
        }
        drop(known);
        Ok(obeyed)
    }

    /// Whether a command with this place was obeyed.
    pub(super) fn has_place(&self, place: &Place) -> bool {
        self.known().places.contains(place)
    }

    /// Whether this event was obeyed, and not long ago.
    pub(super) fn has_event(&self, event: &EventId) -> bool {
        self.known().events.contains_key(event)
    }

    /// Returns once the command is on disk.
    pub(super) fn insert(
        &self,
        event: &EventId,
        place: Option<&Place>,
        now: SystemTime,
    ) -> Result<(), Fault> {
        if event.as_str().contains(char::is_whitespace) {
            // Such an id is none of a homeserver that is honest, and the file could not be read with it.
            let source = io::Error::new(io::ErrorKind::InvalidInput, "event id with white space");
            return Err(self.fault(source));
        }
        let mut known = self.known();
        let mut lines = place.map_or_else(String::new, Place::to_line);
        lines.push_str(&event_line(event, now));
        append(&self.path, &lines).map_err(|source| self.fault(source))?;
        known.places.extend(place.cloned());
        known.events.insert(event.to_owned(), now);
        known.forget_old(now, self.remembered);
        if known.superfluous > SUPERFLUOUS {
            self.write(&mut known)?;
        }
        Ok(())
    }

    fn write(&self, known: &mut Known) -> Result<(), Fault> {
        let places = known.places.iter().map(Place::to_line);
        let events = known.events.iter();
        let events = events.map(|(event, obeyed)| event_line(event, *obeyed));
        let lines: String = places.chain(events).collect();
        atomic_file::write(&self.path, lines.as_bytes()).map_err(|source| self.fault(source))?;
        known.superfluous = 0;
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, source: io::Error) -> Fault {
        let path = self.path.clone();
        Fault::File { path, source }
    }
}

impl Known {
    /// `None`: the line makes no sense.
    fn read(&mut self, line: &str) -> Option<()> {
        let (id, number) = line.split_once(' ')?;
        // Session ids are base64, in which there is no such character.
        if id.starts_with('$') {
            let obeyed = UNIX_EPOCH.checked_add(Duration::from_secs(number.parse().ok()?))?;
            self.events.insert(id.try_into().ok()?, obeyed);
        } else {
            self.places.insert(Place {
                session: id.to_owned(),
                index: number.parse().ok()?,
            });
        }
        Some(())
    }

    fn forget_old(&mut self, now: SystemTime, remembered: Duration) {
        let before = self.events.len();
        self.events.retain(|_, obeyed| {
            // A clock that was set back makes nothing old.
            now.duration_since(*obeyed).unwrap_or_default() < remembered
        });
        self.superfluous += before - self.events.len();
    }
}

fn event_line(event: &EventId, obeyed: SystemTime) -> String {
    let since_epoch = obeyed.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{event} {}\n", since_epoch.as_secs())
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
    use matrix_sdk::ruma::event_id;

    use super::*;

    const AGE: Duration = Duration::from_mins(2);

    fn place(index: u32) -> Place {
        Place {
            session: "bmV2ZXIgYSByZWFsIHNlc3Npb24gb2YgYW55Ym9keSE".to_owned(),
            index,
        }
    }

    /// A path in a folder that lives as long as the test.
    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("obeyed");
        (folder, path)
    }

    #[test]
    fn what_was_obeyed_stays_known_after_a_restart() {
        let (_folder, path) = file();
        let (plain, encrypted, now) = (event_id!("$plain"), event_id!("$other"), SystemTime::now());
        let obeyed = Obeyed::load(path.clone(), AGE).unwrap();
        obeyed.insert(plain, None, now).unwrap();
        obeyed.insert(encrypted, Some(&place(7)), now).unwrap();
        for obeyed in [obeyed, Obeyed::load(path, AGE).unwrap()] {
            assert!(obeyed.has_event(plain) && obeyed.has_event(encrypted));
            assert!(obeyed.has_place(&place(7)) && !obeyed.has_place(&place(1)));
            assert!(!obeyed.has_event(event_id!("$new")));
        }
    }

    #[test]
    fn events_are_forgotten_once_they_are_too_old_to_be_obeyed_and_places_never() {
        let (_folder, path) = file();
        let now = SystemTime::now();
        let old = now - REMEMBERED;
        let obeyed = Obeyed::load(path.clone(), AGE).unwrap();
        obeyed
            .insert(event_id!("$old"), Some(&place(0)), old)
            .unwrap();
        obeyed.insert(event_id!("$new"), None, now).unwrap();
        for obeyed in [obeyed, Obeyed::load(path.clone(), AGE).unwrap()] {
            assert!(!obeyed.has_event(event_id!("$old")) && obeyed.has_place(&place(0)));
            assert!(obeyed.has_event(event_id!("$new")));
        }
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
        // Where commands may be older than a day, their events are remembered longer.
        let obeyed = Obeyed::load(path, REMEMBERED).unwrap();
        obeyed.insert(event_id!("$old"), None, old).unwrap();
        assert!(obeyed.has_event(event_id!("$old")));
    }

    #[test]
    fn an_event_id_with_white_space_is_not_written_into_the_file() {
        let (_folder, path) = file();
        let obeyed = Obeyed::load(path.clone(), AGE).unwrap();
        for id in ["$a b", "$a\n$b", "$a\u{2028}b", "$\n"] {
            let event = EventId::parse(id).unwrap();
            let inserted = obeyed.insert(&event, Some(&place(0)), SystemTime::now());
            assert!(matches!(inserted, Err(Fault::File { .. })), "{id:?}");
            assert!(!obeyed.has_event(&event) && !obeyed.has_place(&place(0)));
        }
        Obeyed::load(path, AGE).unwrap();
    }

    #[test]
    fn the_file_does_not_grow_by_events_without_end() {
        let (_folder, path) = file();
        let obeyed = Obeyed::load(path.clone(), AGE).unwrap();
        let begin = SystemTime::now();
        obeyed.known().superfluous = SUPERFLUOUS - 1;
        for days in 0..4 {
            let event = EventId::parse(format!("${days}")).unwrap();
            obeyed
                .insert(&event, None, begin + days * REMEMBERED)
                .unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn a_line_that_a_crash_cut_off_harms_no_other() {
        let (_folder, path) = file();
        let whole = place(1).to_line();
        fs::write(&path, format!("{whole}{}", &whole[..20])).unwrap();
        let obeyed = Obeyed::load(path.clone(), AGE).unwrap();
        let (event, now) = (event_id!("$event"), SystemTime::now());
        obeyed.insert(event, Some(&place(2)), now).unwrap();
        let obeyed = Obeyed::load(path, AGE).unwrap();
        assert!(obeyed.has_place(&place(1)) && obeyed.has_place(&place(2)));
    }

    #[test]
    fn a_file_that_makes_no_sense_is_not_taken_for_an_empty_one() {
        let (_folder, path) = file();
        for text in ["nonsense\n", "session one\n", "$event never\n"] {
            fs::write(&path, text).unwrap();
            let loaded = Obeyed::load(path.clone(), AGE);
            assert!(
                matches!(loaded, Err(Fault::UnreadableFile { .. })),
                "{text}"
            );
        }
    }
}
