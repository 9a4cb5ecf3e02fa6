//! Versions without a role that stay loaded because somebody asked for them by version.

use std::collections::VecDeque;
use std::sync::Arc;

/// Versions that stay loaded.
const MOST: usize = 8;

/// What stays loaded; the latest last.
pub(super) struct Pins<V> {
    pinned: VecDeque<Arc<V>>,
    deletions: u64,
}

/// How many deletions there had been when the store was asked for a version.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct AsOf(u64);

impl<V> Default for Pins<V> {
    fn default() -> Self {
        Self {
            pinned: VecDeque::new(),
            deletions: 0,
        }
    }
}

impl<V> Pins<V> {
    /// To be asked before the store is.
    pub(super) fn as_of(&self) -> AsOf {
        AsOf(self.deletions)
    }

    /// The latest that fits.
    pub(super) fn find(&self, fits: impl Fn(&V) -> bool) -> Option<Arc<V>> {
        self.pinned.iter().rfind(|version| fits(version)).cloned()
    }

    /// Keeps a version that the store had, unless something was deleted meanwhile: it may be this one.
    /// Gives back what is not kept any more, to be dropped without a lock.
    #[must_use]
    pub(super) fn keep(&mut self, version: Arc<V>, as_of: AsOf) -> Option<Arc<V>> {
        if as_of != self.as_of() {
            return Some(version);
        }
        self.pinned.push_back(version);
        (self.pinned.len() > MOST)
            .then(|| self.pinned.pop_front())
            .flatten()
    }

    /// Lets go of what was deleted from the store.
    pub(super) fn deleted(&mut self, is_it: impl Fn(&V) -> bool) {
        self.deletions += 1;
        self.pinned.retain(|version| !is_it(version));
    }
}
