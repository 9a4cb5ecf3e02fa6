//! Which versions there are, in memory: what is asked of the store before anybody is admitted reads no
//! record.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::Deserialize;

use crate::selector::{Named, VersionSelector};

/// A version as the index knows it: some hundred bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IndexedVersion {
    /// The version's digest.
    pub digest: String,
    /// The policy's name.
    pub name: String,
    /// The version string of its manifest.
    pub version: String,
    /// SHA-256 of the component, hex.
    pub component: String,
    /// When it was staged, milliseconds since 1970.
    pub created_at_ms: u64,
}

impl Named for IndexedVersion {
    fn digest(&self) -> &str {
        &self.digest
    }

    fn version_string(&self) -> &str {
        &self.version
    }
}

/// Each name's versions, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Index(RwLock<BTreeMap<String, Vec<IndexedVersion>>>);

impl Index {
    pub(super) fn of(versions: Vec<IndexedVersion>) -> Self {
        let index = Self::default();
        for version in versions {
            index.add(version);
        }
        index
    }

    /// Takes these in place of what was known.
    pub(super) fn replace(&self, versions: Vec<IndexedVersion>) {
        let mut other = Self::of(versions);
        std::mem::swap(
            &mut *self.write(),
            other.0.get_mut().unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Nothing happens if it is there.
    pub(super) fn add(&self, version: IndexedVersion) {
        let mut names = self.write();
        let versions = names.entry(version.name.clone()).or_default();
        if versions.iter().any(|other| other.digest == version.digest) {
            return;
        }
        let at = versions.partition_point(|other| other.created_at_ms <= version.created_at_ms);
        versions.insert(at, version);
    }

    pub(super) fn remove(&self, name: &str, digest: &str) {
        let mut names = self.write();
        if let Some(versions) = names.get_mut(name) {
            versions.retain(|version| version.digest != digest);
            if versions.is_empty() {
                names.remove(name);
            }
        }
    }

    /// Lets `look` see a name's versions, the oldest first; none if there is no such name.
    pub(super) fn look<T>(&self, name: &str, look: impl FnOnce(&[IndexedVersion]) -> T) -> T {
        let names = self.read();
        look(names.get(name).map_or(&[], Vec::as_slice))
    }

    pub(super) fn select(&self, name: &str, selector: &VersionSelector) -> Vec<IndexedVersion> {
        self.look(name, |versions| {
            selector.select(versions).into_iter().cloned().collect()
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Vec<IndexedVersion>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Vec<IndexedVersion>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
