//! A small table on disk: what is known of each user.

use std::{
    collections::BTreeMap,
    fs, io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use matrix_sdk::ruma::{OwnedUserId, UserId};
use serde::{Serialize, de::DeserializeOwned};

use super::Fault;
use crate::atomic_file;

/// One value for each user. Whatever is put in is on disk before anyone sees it.
#[derive(Debug)]
pub(super) struct Table<V> {
    path: PathBuf,
    values: Mutex<BTreeMap<OwnedUserId, V>>,
}

impl<V: Clone + Serialize + DeserializeOwned> Table<V> {
    /// Reads the table, which is empty where there is no file. `remedy` says what to do about a file that makes no sense.
    pub(super) fn load(path: PathBuf, remedy: &'static str) -> Result<Self, Fault> {
        let values = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|_| Fault::UnreadableFile {
                path: path.clone(),
                remedy,
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(Fault::File { path, source }),
        };
        Ok(Self {
            path,
            values: Mutex::new(values),
        })
    }

    pub(super) fn get(&self, user: &UserId) -> Option<V> {
        self.values
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(user)
            .cloned()
    }

    pub(super) fn all(&self) -> BTreeMap<OwnedUserId, V> {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.clone()
    }

    pub(super) fn insert(&self, user: &UserId, value: V) -> Result<(), Fault> {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = values.clone();
        changed.insert(user.to_owned(), value);
        let text = serde_json::to_vec_pretty(&changed).map_err(|error| Fault::File {
            path: self.path.clone(),
            source: error.into(),
        })?;
        atomic_file::write(&self.path, &text).map_err(|source| Fault::File {
            path: self.path.clone(),
            source,
        })?;
        *values = changed;
        Ok(())
    }
}
