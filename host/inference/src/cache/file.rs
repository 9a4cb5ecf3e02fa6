//! The row cache on disk, so that a restart is warm: one redb file beside the memory, read whole at
//! start and written behind by a thread of its own, about once a second.
//!
//! What is in it counts only where all is as it was: each row has a digest of its own, and the file
//! says on what setup its rows were computed. A file that is damaged, or of another setup, is dropped
//! with a warning. redb survives a kill at any moment; what was computed in the last second is lost.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use sha2::{Digest, Sha256};

use super::ENTRY_OVERHEAD_BYTES;
use super::key::Key;

const ROWS: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("rows");
const ABOUT: TableDefinition<'_, &str, &str> = TableDefinition::new("about");
const FINGERPRINT: &str = "fingerprint";

/// Bytes of a row's digest.
const CHECK_BYTES: usize = 8;

/// How long rows are collected before they are written.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Rows that may wait to be written; more are kept in memory only.
const MAX_WAITING: usize = 16 << 10;

/// Rows written at a time.
const BATCH_ROWS: usize = 8 << 10;

/// Pages of the file that redb keeps in memory, bytes: it is read once, and then written only.
const PAGE_CACHE_BYTES: usize = 4 << 20;

/// What is kept in a file, and who may tell that a row of it is still kept in memory.
pub(super) type IsKept = Arc<dyn Fn(&Key) -> bool + Send + Sync>;

/// A row as it is in the file.
type Row = (Key, Vec<u8>);

/// A file that can be written.
pub(super) struct Opened {
    database: Database,
    path: PathBuf,
    /// What was in it, at most as much as may be.
    pub(super) rows: Vec<Row>,
    /// The bytes of all that is in it.
    bytes: usize,
}

/// The way to the thread that writes.
pub(super) struct Writer {
    waiting: Option<SyncSender<Row>>,
    thread: Option<JoinHandle<()>>,
}

/// Opens the file, or makes it.
///
/// # Errors
/// A sentence: it is not ours to read and write, or another process has it.
pub(super) fn open(path: &Path, fingerprint: &str, max_bytes: usize) -> Result<Opened, String> {
    let mut opened = match try_open(path, fingerprint, max_bytes) {
        Err(Refusal::Useless(reason)) => {
            tracing::warn!(file = %path.display(), reason, "the cache file is dropped: it starts empty");
            std::fs::remove_file(path).map_err(|error| error.to_string())?;
            try_open(path, fingerprint, max_bytes)
        }
        tried => tried,
    }
    .map_err(|refusal| match refusal {
        Refusal::Useless(problem) | Refusal::NotOurs(problem) => problem,
    })?;
    opened.path = path.to_owned();
    Ok(opened)
}

/// Why a file cannot be used.
enum Refusal {
    /// It can be dropped.
    Useless(String),
    /// It must be left as it is.
    NotOurs(String),
}

fn try_open(path: &Path, fingerprint: &str, max_bytes: usize) -> Result<Opened, Refusal> {
    let file = open_private(path).map_err(Refusal::NotOurs)?;
    let is_new = file
        .metadata()
        .map_err(|error| Refusal::NotOurs(error.to_string()))?
        .len()
        == 0;
    // redb checks what it reads, but a file that something else wrote into may still trip it.
    let read = std::panic::catch_unwind(|| -> Result<Opened, Refusal> {
        let mut builder = Database::builder();
        builder.set_cache_size(PAGE_CACHE_BYTES);
        let database = FileBackend::new(file).and_then(|file| builder.create_with_backend(file));
        let database = database.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => {
                Refusal::NotOurs("another process has it open".to_owned())
            }
            error => Refusal::Useless(error.to_string()),
        })?;
        if is_new {
            start_empty(&database, fingerprint)
                .map_err(|error| Refusal::NotOurs(error.to_string()))?;
        }
        let (rows, bytes) = read(&database, fingerprint, max_bytes).map_err(Refusal::Useless)?;
        Ok(Opened {
            database,
            path: PathBuf::new(),
            rows,
            bytes,
        })
    });
    read.unwrap_or_else(|_| Err(Refusal::Useless("it cannot be read".to_owned())))
}

/// A file that its owner alone can read: vectors tell of the texts that they were made of.
fn open_private(path: &Path) -> Result<File, String> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let private = std::fs::Permissions::from_mode(0o600);
        file.set_permissions(private)
            .map_err(|error| error.to_string())?;
    }
    Ok(file)
}

fn start_empty(database: &Database, fingerprint: &str) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction
        .open_table(ABOUT)?
        .insert(FINGERPRINT, fingerprint)?;
    transaction.open_table(ROWS)?;
    transaction.commit()?;
    Ok(())
}

fn read(
    database: &Database,
    fingerprint: &str,
    max_bytes: usize,
) -> Result<(Vec<Row>, usize), String> {
    let said = |error: redb::Error| error.to_string();
    let transaction = database.begin_read().map_err(|error| said(error.into()))?;
    let about = transaction
        .open_table(ABOUT)
        .map_err(|error| said(error.into()))?;
    let written_on = about
        .get(FINGERPRINT)
        .map_err(|error| said(error.into()))?
        .map(|value| value.value().to_owned());
    if written_on.as_deref() != Some(fingerprint) {
        return Err(format!(
            "its rows were computed on another setup: {}; this is {fingerprint}",
            written_on.as_deref().unwrap_or("unknown")
        ));
    }
    let table = transaction
        .open_table(ROWS)
        .map_err(|error| said(error.into()))?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    for entry in table.iter().map_err(|error| said(error.into()))? {
        let (key, value) = entry.map_err(|error| said(error.into()))?;
        let (key, value) = (*key.value(), value.value());
        let row = value
            .split_last_chunk::<CHECK_BYTES>()
            .filter(|(row, digest)| check(&key, row) == **digest);
        let Some((row, _)) = row else {
            return Err("it is damaged: a row is not what its digest says".to_owned());
        };
        bytes += held(row);
        if bytes <= max_bytes {
            rows.push((key, row.to_vec()));
        }
    }
    Ok((rows, bytes))
}

/// The digest of a row.
fn check(key: &Key, row: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new().chain_update(key).chain_update(row).finalize();
    std::array::from_fn(|position| digest[position])
}

/// What a row takes, as it is counted in memory.
fn held(row: &[u8]) -> usize {
    row.len() + ENTRY_OVERHEAD_BYTES
}

impl Opened {
    /// Starts the thread that writes. When the file has a quarter more than `max_bytes`, rows that are
    /// not kept any more are taken out of it.
    pub(super) fn write_behind(self, max_bytes: usize, is_kept: IsKept) -> Result<Writer, String> {
        let (sender, receiver) = sync_channel(MAX_WAITING);
        let thread = std::thread::Builder::new()
            .name("cache-file".to_owned())
            .spawn(move || self.write(&receiver, max_bytes, &is_kept))
            .map_err(|error| error.to_string())?;
        Ok(Writer {
            waiting: Some(sender),
            thread: Some(thread),
        })
    }

    fn write(mut self, waiting: &Receiver<Row>, max_bytes: usize, is_kept: &IsKept) {
        loop {
            let Ok(first) = waiting.recv() else { return };
            let mut rows = vec![first];
            let mut ended = false;
            let until = Instant::now() + WRITE_EVERY;
            while rows.len() < BATCH_ROWS && !ended {
                match waiting.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(row) => rows.push(row),
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => ended = true,
                }
            }
            let written = self.write_rows(&rows).and_then(|()| {
                if self.bytes > max_bytes + max_bytes / 4 {
                    self.sweep(is_kept)?;
                }
                Ok(())
            });
            if let Err(error) = written {
                tracing::warn!(file = %self.path.display(), %error, "the cache file cannot be written any more: rows are kept in memory only");
                return;
            }
            if ended {
                return;
            }
        }
    }

    fn write_rows(&mut self, rows: &[Row]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(ROWS)?;
            let mut value = Vec::new();
            for (key, row) in rows {
                value.clear();
                value.extend_from_slice(row);
                value.extend_from_slice(&check(key, row));
                if table.insert(key, value.as_slice())?.is_none() {
                    self.bytes += held(row);
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn sweep(&mut self, is_kept: &IsKept) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        let mut bytes = 0;
        transaction.open_table(ROWS)?.retain(|key, value| {
            let kept = is_kept(key);
            if kept {
                bytes += held(value) - CHECK_BYTES;
            }
            kept
        })?;
        transaction.commit()?;
        self.bytes = bytes;
        Ok(())
    }
}

impl Writer {
    /// Has a row written, unless too many wait.
    pub(super) fn write(&self, key: Key, row: Vec<u8>) {
        if let Some(waiting) = &self.waiting {
            let _ = waiting.try_send((key, row));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.waiting.take());
        if let Some(thread) = self.thread.take() {
            // What waits is written before.
            let _ = thread.join();
        }
    }
}
