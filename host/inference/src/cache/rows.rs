//! Outputs of rows, so that what ran once need not run again.
//!
//! Only of models whose rows do not depend on each other. The key says the model, how it is run, on
//! what, and the row's inputs cut to its true length. The value holds all outputs of the row, in the
//! form in which they are given out ([`RowForm`](crate::stored::RowForm)): a hit is bit for bit what
//! the run gave.

use std::path::Path;
use std::sync::Arc;

use super::file::{self, Writer};
use super::key::Key;
use super::{CacheUsage, Keepable, Store};
use crate::manifest::RowIndependence;
use crate::model::Model;
use crate::rows::RowBatch;

/// A vector of 384 numbers in half precision, and its length.
const USUAL_BYTES: usize = 772;

/// Output rows by model and inputs.
pub struct RowCache {
    store: Arc<Store<[u8]>>,
    file: Option<Writer>,
}

impl Keepable for [u8] {
    fn bytes(&self) -> usize {
        self.len()
    }
}

/// What is known of the rows of one batch.
pub(crate) struct Recalled {
    cache: Arc<RowCache>,
    keys: Vec<Key>,
    /// One a row; `None` is not known.
    pub(crate) found: Vec<Option<Arc<[u8]>>>,
}

impl RowCache {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            store: Arc::new(Store::new(max_bytes, USUAL_BYTES)),
            file: None,
        }
    }

    /// With the rows of a file, which gets those that are kept from now on. `fingerprint`: of the
    /// setup on which rows are computed.
    pub(crate) fn on_file(
        max_bytes: usize,
        path: &Path,
        fingerprint: &str,
    ) -> Result<Self, String> {
        let mut opened = file::open(path, fingerprint, max_bytes)?;
        let mut cache = Self::new(max_bytes);
        for (key, row) in opened.rows.drain(..) {
            cache.store.entries.insert(key, row.into());
        }
        tracing::info!(
            file = %path.display(),
            rows = cache.store.entries.len(),
            "cache file read"
        );
        let store = Arc::clone(&cache.store);
        let is_kept = Arc::new(move |key: &Key| store.entries.contains_key(key));
        cache.file = Some(opened.write_behind(max_bytes, is_kept)?);
        Ok(cache)
    }

    /// Looks a batch's rows up; `None` if rows of this model are not kept. Rows that are not to be run
    /// are not known, whatever was kept.
    pub(crate) fn recall(self: &Arc<Self>, model: &Model, batch: &RowBatch) -> Option<Recalled> {
        if model.manifest().execution.row_independence == RowIndependence::None
            || !model.row_form().fits()
        {
            return None;
        }
        let mut bytes = Vec::new();
        let keys: Vec<Key> = (0..batch.rows())
            .map(|row| {
                bytes.clear();
                batch.write_row(row, &mut bytes);
                model.row_keys().key(&bytes)
            })
            .collect();
        let found: Vec<_> = keys
            .iter()
            .zip(batch.lengths())
            .map(|(key, &length)| match length {
                0 => None,
                _ => self.store.entries.get(key),
            })
            .collect();
        let hits = found.iter().flatten().count();
        let misses = found.len() - batch.unrun() - hits;
        self.store.count(model.name(), hits, misses);
        Some(Recalled {
            cache: Arc::clone(self),
            keys,
            found,
        })
    }

    /// How full it is, and what was asked of it.
    pub fn usage(&self) -> CacheUsage {
        self.store.usage()
    }
}

impl Recalled {
    /// Positions of the rows that are not known, ascending.
    pub(crate) fn missing(&self) -> Vec<usize> {
        (0..self.found.len())
            .filter(|&row| self.found[row].is_none())
            .collect()
    }

    /// Keeps what a row of the batch gave.
    pub(crate) fn keep(&self, row: usize, bytes: Vec<u8>) {
        let key = self.keys[row];
        self.cache
            .store
            .entries
            .insert(key, bytes.as_slice().into());
        if let Some(file) = &self.cache.file {
            file.write(key, bytes);
        }
    }
}
