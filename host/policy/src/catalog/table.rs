//! Names and what they stand for, each replaced as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::sync::{RwLock, RwLockReadGuard};

/// The map. Whoever holds a value of it goes on with that.
pub(crate) struct Table<T>(RwLock<BTreeMap<String, Arc<T>>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(RwLock::new(BTreeMap::new()))
    }
}

impl<T> Table<T> {
    /// Replaces a name's value; what is replaced is dropped after the swap, without the lock.
    pub(crate) fn set(&self, name: &str, value: T) {
        let before = self
            .0
            .write()
            .expect("nothing panics while it holds the catalog")
            .insert(name.to_owned(), Arc::new(value));
        drop(before);
    }

    /// A name's value.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<T>> {
        self.read().get(name).cloned()
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Vec<(String, Arc<T>)> {
        let values = self.read();
        let values = values.iter();
        values
            .map(|(name, value)| (name.clone(), Arc::clone(value)))
            .collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Arc<T>>> {
        self.0
            .read()
            .expect("nothing panics while it holds the catalog")
    }
}
