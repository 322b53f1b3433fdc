//! A record of links in files: each entry is written as a whole or not at all, even if the process is killed meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use rcbot::remote_control::{Request, SessionId};

/// A folder of symbolic links, as such a link is made with its text in one step.
#[derive(Debug)]
pub(crate) struct Ledger(PathBuf);

/// Identifies a delivery: a repetition has the same one, as a repeated transaction id makes no second event.
pub(crate) type Entry = (String, u32);

impl Ledger {
    /// Opens the folder, and makes it first if need be.
    pub(crate) fn open(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        Self(folder.to_owned())
    }

    /// This requester has this link.
    pub(crate) fn deliver(&self, session: &SessionId, number: u32, request: &Request, link: &str) {
        let text = format!("{} {link}", request.requester);
        self.write("delivered", session, number, &text);
    }

    /// The link is redacted.
    pub(crate) fn redact(&self, session: &SessionId, number: u32) {
        self.write("redacted", session, number, "so");
    }

    /// All that was delivered: to whom, and the link.
    pub(crate) fn delivered(&self) -> BTreeMap<Entry, (String, String)> {
        let entries = self.read("delivered").into_iter();
        let split = |text: String| {
            let (requester, link) = text.split_once(' ').unwrap();
            (requester.to_owned(), link.to_owned())
        };
        entries.map(|(entry, text)| (entry, split(text))).collect()
    }

    /// All that was redacted.
    pub(crate) fn redacted(&self) -> BTreeSet<Entry> {
        self.read("redacted").into_keys().collect()
    }

    /// Those who have a link that is not redacted.
    pub(crate) fn holders(&self) -> Vec<String> {
        let redacted = self.redacted();
        let held = self
            .delivered()
            .into_iter()
            .filter(|(entry, _)| !redacted.contains(entry));
        held.map(|(_, (requester, _))| requester).collect()
    }

    fn write(&self, what: &str, session: &SessionId, number: u32, text: &str) {
        let path = self.0.join(format!("{what} {session} {number}"));
        match symlink(text, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let known = fs::read_link(&path).unwrap();
                assert_eq!(known, Path::new(text), "a repetition says something else");
            }
            made => made.unwrap(),
        }
    }

    fn read(&self, wanted: &str) -> BTreeMap<Entry, String> {
        let mut entries = BTreeMap::new();
        for file in fs::read_dir(&self.0).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let [what, session, number] = name.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{name}")
            };
            if what == wanted {
                let text = fs::read_link(&path).unwrap().to_str().unwrap().to_owned();
                entries.insert((session.to_owned(), number.parse().unwrap()), text);
            }
        }
        entries
    }
}
