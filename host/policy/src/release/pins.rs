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

    /// Keeps a version that the store had, once, unless something was deleted meanwhile: it may be this
    /// one.
    /// Gives back what is not kept any more, to be dropped without a lock.
    #[must_use]
    pub(super) fn keep(&mut self, version: Arc<V>, as_of: AsOf) -> Option<Arc<V>> {
        let is_kept = |other: &Arc<V>| Arc::ptr_eq(other, &version);
        if as_of != self.as_of() || self.pinned.iter().any(is_kept) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_takes_one_place_however_many_asked_for_it() {
        let mut pins = Pins::default();
        let as_of = pins.as_of();
        let first = Arc::new(0);
        assert!(pins.keep(Arc::clone(&first), as_of).is_none());
        for _ in 0..2 * MOST {
            assert!(pins.keep(Arc::clone(&first), as_of).is_some());
        }
        for other in 1..MOST {
            assert!(pins.keep(Arc::new(other), as_of).is_none());
        }
        assert_eq!(pins.find(|&version| version == 0), Some(first));
    }
}
