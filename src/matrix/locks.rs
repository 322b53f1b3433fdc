//! A lock for each room, or each person: there as long as somebody holds it or waits for it.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Locks by what they are for.
#[derive(Debug)]
pub(super) struct Locks<K, L>(Mutex<HashMap<K, Weak<L>>>);

impl<K, L> Default for Locks<K, L> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, L: Default> Locks<K, L> {
    /// The lock for this. It is the same one as long as anybody has it.
    pub(super) fn of(&self, key: K) -> Arc<L> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        let known = locks.get(&key).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let lock = Arc::default();
            locks.insert(key, Arc::downgrade(&lock));
            lock
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_shared_while_it_is_held_and_forgotten_afterwards() {
        let locks = Locks::<u32, Mutex<()>>::default();
        let one = locks.of(1);
        assert!(Arc::ptr_eq(&one, &locks.of(1)));
        assert!(!Arc::ptr_eq(&one, &locks.of(2)));
        drop(one);
        for key in 0..1000 {
            drop(locks.of(key));
        }
        assert_eq!(locks.0.lock().unwrap().len(), 1);
    }
}
