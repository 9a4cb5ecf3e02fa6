//! What was computed before: the outputs of rows ([`rows`]) and the token ids of texts
//! ([`encodings`]), each bounded in bytes and off where its bound is 0.
//!
//! Rows can be kept over a restart, in a file (`cache/file.rs`).
//!
//! Keys are digests of all that decides a value ([`key`]), so that entries are never wrong, only
//! unused. Both caches keep what is asked for again when a long list passes once (S3-FIFO).

pub mod encodings;
mod file;
pub mod key;
pub mod rows;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use quick_cache::sync::Cache;
use quick_cache::{OptionsBuilder, Weighter};

use self::encodings::EncodingCache;
use self::key::Key;
use self::rows::RowCache;
use crate::error::InferenceError;

/// What an entry takes beside its value, bytes: its key, its place in the table and in the queue,
/// the count of its holders, and what the allocator rounds up to.
pub const ENTRY_OVERHEAD_BYTES: usize = 128;

/// How much may be kept, bytes; 0 is nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// Outputs of rows.
    pub row_bytes: usize,
    /// Token ids of texts.
    pub encoding_bytes: usize,
    /// Where outputs of rows are kept when the process ends.
    pub file: Option<PathBuf>,
}

impl CacheSettings {
    /// No cache.
    pub const OFF: Self = Self {
        row_bytes: 0,
        encoding_bytes: 0,
        file: None,
    };
}

impl Default for CacheSettings {
    /// 64 MiB of rows: about 75,000 vectors of 384 numbers in half precision. 32 MiB of encodings:
    /// as many passages.
    fn default() -> Self {
        Self {
            row_bytes: 64 << 20,
            encoding_bytes: 32 << 20,
            file: None,
        }
    }
}

/// The caches of one process.
#[derive(Default)]
pub struct Caches {
    rows: Option<Arc<RowCache>>,
    encodings: Option<Arc<EncodingCache>>,
}

impl Caches {
    /// Those of these sizes, empty but for what the file has.
    ///
    /// `fingerprint`: what decides numbers beside the models; the rows of a file with another are
    /// dropped.
    ///
    /// # Errors
    /// [`InferenceError::CacheFile`]: it cannot be read and written, or another process has it.
    pub fn open(settings: &CacheSettings, fingerprint: &str) -> Result<Self, InferenceError> {
        let wanted = |bytes: usize| (bytes > 0).then_some(bytes);
        let rows = |bytes| match &settings.file {
            None => Ok(Arc::new(RowCache::new(bytes))),
            Some(path) => RowCache::on_file(bytes, path, fingerprint)
                .map(Arc::new)
                .map_err(|problem| InferenceError::CacheFile {
                    path: path.clone(),
                    problem,
                }),
        };
        Ok(Self {
            rows: wanted(settings.row_bytes).map(rows).transpose()?,
            encodings: wanted(settings.encoding_bytes)
                .map(|bytes| Arc::new(EncodingCache::new(bytes))),
        })
    }

    /// Outputs of rows, unless they are off.
    pub fn rows(&self) -> Option<&Arc<RowCache>> {
        self.rows.as_ref()
    }

    /// Token ids of texts, unless they are off.
    pub fn encodings(&self) -> Option<&Arc<EncodingCache>> {
        self.encodings.as_ref()
    }

    /// What became of each cache, by its name in metrics; those that are off are left out.
    pub fn usage(&self) -> Vec<(&'static str, CacheUsage)> {
        let rows = self.rows().map(|cache| ("rows", cache.usage()));
        let encodings = self.encodings().map(|cache| ("encodings", cache.usage()));
        rows.into_iter().chain(encodings).collect()
    }
}

/// How full a cache is, and what was asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheUsage {
    /// Entries that are kept.
    pub entries: usize,
    /// What they take, [`ENTRY_OVERHEAD_BYTES`] each included.
    pub bytes: u64,
    /// The most that they may take.
    pub max_bytes: u64,
    /// Hits and misses since the start, by the model's name.
    pub asked: Vec<(String, u64, u64)>,
}

/// What can be kept: a value that knows its size.
trait Keepable {
    fn bytes(&self) -> usize;
}

/// A cache by weight, with its counts.
struct Store<V: ?Sized> {
    entries: Cache<Key, Arc<V>, ByBytes>,
    counts: RwLock<BTreeMap<String, Arc<Counts>>>,
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct ByBytes;

impl<V: Keepable + ?Sized> Weighter<Key, Arc<V>> for ByBytes {
    fn weight(&self, _key: &Key, value: &Arc<V>) -> u64 {
        (value.bytes() + ENTRY_OVERHEAD_BYTES) as u64
    }
}

impl<V: Keepable + ?Sized> Store<V> {
    /// `usual_bytes`: of an entry, at a guess.
    fn new(max_bytes: usize, usual_bytes: usize) -> Self {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(max_bytes.div_ceil(usual_bytes + ENTRY_OVERHEAD_BYTES))
            .weight_capacity(max_bytes as u64)
            .build()
            .expect("both capacities are given");
        Self {
            entries: Cache::with_options(
                options,
                ByBytes,
                quick_cache::DefaultHashBuilder::default(),
                quick_cache::sync::DefaultLifecycle::default(),
            ),
            counts: RwLock::default(),
        }
    }

    fn count(&self, model: &str, hits: usize, misses: usize) {
        let known = {
            let counts = self.counts.read().unwrap_or_else(PoisonError::into_inner);
            counts.get(model).map(Arc::clone)
        };
        let counts = known.unwrap_or_else(|| {
            let mut counts = self.counts.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(counts.entry(model.to_owned()).or_default())
        });
        counts.hits.fetch_add(hits as u64, Ordering::Relaxed);
        counts.misses.fetch_add(misses as u64, Ordering::Relaxed);
    }

    fn usage(&self) -> CacheUsage {
        let counts = self.counts.read().unwrap_or_else(PoisonError::into_inner);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheUsage {
            entries: self.entries.len(),
            bytes: self.entries.weight(),
            max_bytes: self.entries.capacity(),
            asked: counts
                .iter()
                .map(|(model, counts)| (model.clone(), read(&counts.hits), read(&counts.misses)))
                .collect(),
        }
    }
}
