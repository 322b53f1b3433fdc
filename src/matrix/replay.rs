//! Replay protection: each command counts once. The file `obeyed` has a line for each executed command; lines are only added.
//!
//! An encrypted command is identified by its place in its Megolm session: a homeserver can show an old ciphertext again at any
//! time, so those places are never forgotten. A command in plain text is identified only by its event id. So is one that an
//! honest homeserver sends again: some ignore the limits of a request, and begin at the start of the room. Such an event has
//! its age with it, so the next run forgets it once it is far too old. A line is some fifty bytes, and only permitted commands
//! get one.

use std::{
    collections::{HashMap, HashSet},
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use matrix_sdk::ruma::{EventId, OwnedEventId};

use super::{
    Fault,
    folder::{self, file_fault},
};

/// How long events are remembered at least, as a later run may accept older commands than this one.
const REMEMBERED: Duration = Duration::from_hours(24);

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

#[derive(Debug)]
pub(super) struct ReplayProtection {
    path: PathBuf,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    places: HashSet<Place>,
    /// When each event counted.
    events: HashMap<OwnedEventId, SystemTime>,
}

impl ReplayProtection {
    /// Reads the file, or creates it. A last line that a crash cut off is dropped: its command did not count yet.
    pub(super) fn load(path: PathBuf, max_command_age: Duration) -> Result<Self, Fault> {
        let unreadable = || Fault::UnreadableFile {
            path: path.clone(),
            remedy: "remove the lines that are not a Megolm session's id or an event's id, and a number; without the file, \
                     old commands could be executed again",
        };
        let text = String::from_utf8(folder::read(&path)?.unwrap_or_default());
        let text = text.map_err(|_| unreadable())?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let (lines, cut_off) = text.split_at(whole);
        let mut counted = Counted::default();
        for line in lines.lines() {
            counted.read(line).ok_or_else(unreadable)?;
        }
        // A command from the future counts too, up to the limit that its age has.
        let remembered = REMEMBERED.max(2 * max_command_age);
        let (before, now) = (counted.events.len(), SystemTime::now());
        // A clock that was set back makes nothing old.
        let age = |time: SystemTime| now.duration_since(time).unwrap_or_default();
        counted.events.retain(|_, time| age(*time) < remembered);
        if !cut_off.is_empty() || counted.events.len() < before || !path.exists() {
            folder::write(&path, counted.to_lines().as_bytes())?;
        }
        Ok(Self {
            path,
            counted: Mutex::new(counted),
        })
    }

    pub(super) fn has_place(&self, place: &Place) -> bool {
        self.counted().places.contains(place)
    }

    /// Whether this event counted, and not long ago.
    pub(super) fn has_event(&self, event: &EventId) -> bool {
        self.counted().events.contains_key(event)
    }

    /// Returns once the command is on disk.
    pub(super) fn insert(
        &self,
        event: &EventId,
        place: Option<&Place>,
        now: SystemTime,
    ) -> Result<(), Fault> {
        if event.as_str().contains(char::is_whitespace) {
            // No honest homeserver has such an id, and it would make the file unreadable.
            let source = io::Error::new(io::ErrorKind::InvalidInput, "event id with white space");
            return Err(file_fault(&self.path, source));
        }
        let mut counted = self.counted();
        let mut lines = place.map_or_else(String::new, Place::to_line);
        lines.push_str(&event_line(event, now));
        append(&self.path, &lines).map_err(|source| file_fault(&self.path, source))?;
        counted.places.extend(place.cloned());
        counted.events.insert(event.to_owned(), now);
        Ok(())
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    /// `None`: the line is unreadable.
    fn read(&mut self, line: &str) -> Option<()> {
        let (id, number) = line.split_once(' ')?;
        // Session ids are base64, in which there is no such character.
        if id.starts_with('$') {
            let time = UNIX_EPOCH.checked_add(Duration::from_secs(number.parse().ok()?))?;
            self.events.insert(id.try_into().ok()?, time);
        } else {
            self.places.insert(Place {
                session: id.to_owned(),
                index: number.parse().ok()?,
            });
        }
        Some(())
    }

    fn to_lines(&self) -> String {
        let places = self.places.iter().map(Place::to_line);
        let events = self.events.iter();
        let events = events.map(|(event, time)| event_line(event, *time));
        places.chain(events).collect()
    }
}

fn event_line(event: &EventId, time: SystemTime) -> String {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{event} {}\n", since_epoch.as_secs())
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let before = file.metadata()?.len();
    let written = file.write_all(line.as_bytes());
    let written = written.and_then(|()| file.sync_data());
    if written.is_err() {
        // Half a line in the middle of the file would make it unreadable.
        file.set_len(before)?;
    }
    written
}

#[cfg(test)]
mod tests {
    use std::fs;

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
    fn counted_commands_stay_known_after_a_restart() {
        let (_folder, path) = file();
        let (plain, encrypted, now) = (event_id!("$plain"), event_id!("$other"), SystemTime::now());
        let counted = ReplayProtection::load(path.clone(), AGE).unwrap();
        counted.insert(plain, None, now).unwrap();
        counted.insert(encrypted, Some(&place(7)), now).unwrap();
        for counted in [counted, ReplayProtection::load(path, AGE).unwrap()] {
            assert!(counted.has_event(plain) && counted.has_event(encrypted));
            assert!(counted.has_place(&place(7)) && !counted.has_place(&place(1)));
            assert!(!counted.has_event(event_id!("$new")));
        }
    }

    #[test]
    fn events_are_forgotten_once_they_are_too_old_to_count_and_places_never() {
        let (_folder, path) = file();
        let now = SystemTime::now();
        let old = now - REMEMBERED;
        let counted = ReplayProtection::load(path.clone(), AGE).unwrap();
        counted
            .insert(event_id!("$old"), Some(&place(0)), old)
            .unwrap();
        counted.insert(event_id!("$new"), None, now).unwrap();
        let counted = ReplayProtection::load(path.clone(), AGE).unwrap();
        assert!(!counted.has_event(event_id!("$old")) && counted.has_place(&place(0)));
        assert!(counted.has_event(event_id!("$new")));
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
        // Where commands may be older than a day, their events are remembered longer.
        let counted = ReplayProtection::load(path.clone(), REMEMBERED).unwrap();
        counted.insert(event_id!("$old"), None, old).unwrap();
        let counted = ReplayProtection::load(path, REMEMBERED).unwrap();
        assert!(counted.has_event(event_id!("$old")));
    }

    #[test]
    fn an_event_id_with_white_space_is_not_written_into_the_file() {
        let (_folder, path) = file();
        let counted = ReplayProtection::load(path.clone(), AGE).unwrap();
        for id in ["$a b", "$a\n$b", "$a\u{2028}b", "$\n"] {
            let event = EventId::parse(id).unwrap();
            let inserted = counted.insert(&event, Some(&place(0)), SystemTime::now());
            assert!(matches!(inserted, Err(Fault::File { .. })), "{id:?}");
            assert!(!counted.has_event(&event) && !counted.has_place(&place(0)));
        }
        ReplayProtection::load(path, AGE).unwrap();
    }

    #[test]
    fn a_command_that_cannot_be_saved_does_not_count() {
        let (folder, path) = file();
        let counted = ReplayProtection::load(path, AGE).unwrap();
        drop(folder);
        let event = event_id!("$event");
        let inserted = counted.insert(event, Some(&place(0)), SystemTime::now());
        assert!(matches!(inserted, Err(Fault::File { .. })));
        assert!(!counted.has_event(event) && !counted.has_place(&place(0)));
    }

    #[test]
    fn an_incomplete_last_line_harms_no_other() {
        let (_folder, path) = file();
        let whole = place(1).to_line();
        fs::write(&path, format!("{whole}{}", &whole[..20])).unwrap();
        let counted = ReplayProtection::load(path.clone(), AGE).unwrap();
        let (event, now) = (event_id!("$event"), SystemTime::now());
        counted.insert(event, Some(&place(2)), now).unwrap();
        let counted = ReplayProtection::load(path, AGE).unwrap();
        assert!(counted.has_place(&place(1)) && counted.has_place(&place(2)));
    }

    #[test]
    fn an_unreadable_file_is_not_taken_for_an_empty_one() {
        let (_folder, path) = file();
        for text in ["nonsense\n", "session one\n", "$event never\n"] {
            fs::write(&path, text).unwrap();
            let loaded = ReplayProtection::load(path.clone(), AGE);
            assert!(
                matches!(loaded, Err(Fault::UnreadableFile { .. })),
                "{text}"
            );
        }
    }
}
