//! Outputs of rows, so that what ran once need not run again.
//!
//! Only of models whose rows do not depend on each other. The key says the model, how it is run, on
//! what, and the row's inputs cut to its true length. The value holds all outputs of the row, in the
//! form in which they are given out ([`RowForm`](crate::stored::RowForm)): a hit is bit for bit what
//! the run gave.

use std::sync::Arc;

use super::key::Key;
use super::{CacheUsage, Keepable, Store};
use crate::manifest::RowIndependence;
use crate::model::Model;
use crate::rows::RowBatch;

/// A vector of 384 numbers in half precision, and its length.
const USUAL_BYTES: usize = 772;

/// Output rows by model and inputs.
pub struct RowCache(Store<[u8]>);

impl Keepable for [u8] {
    fn bytes(&self) -> usize {
        self.len()
    }
}

/// What is known of the rows of one batch.
pub(crate) struct Recalled {
    cache: Arc<RowCache>,
    keys: Vec<Key>,
    /// One a row; `None` has to run.
    pub(crate) found: Vec<Option<Arc<[u8]>>>,
}

impl RowCache {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self(Store::new(max_bytes, USUAL_BYTES))
    }

    /// Looks a batch's rows up; `None` if rows of this model are not kept.
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
        let found: Vec<_> = keys.iter().map(|key| self.0.entries.get(key)).collect();
        let hits = found.iter().flatten().count();
        self.0.count(model.name(), hits, found.len() - hits);
        Some(Recalled {
            cache: Arc::clone(self),
            keys,
            found,
        })
    }

    /// How full it is, and what was asked of it.
    pub fn usage(&self) -> CacheUsage {
        self.0.usage()
    }
}

impl Recalled {
    /// Positions of the rows that have to run, ascending.
    pub(crate) fn missing(&self) -> Vec<usize> {
        (0..self.found.len())
            .filter(|&row| self.found[row].is_none())
            .collect()
    }

    /// Keeps what a row of the batch gave.
    pub(crate) fn keep(&self, row: usize, bytes: Vec<u8>) {
        self.cache.0.entries.insert(self.keys[row], bytes.into());
    }
}
