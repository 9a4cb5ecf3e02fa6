//! The database file: opened, read and written so that a full or read-only disk costs no more than
//! the write that met it.
//!
//! After a failed write redb refuses everything until it is opened anew; that writes, so on a full
//! disk it may fail again. Then a copy in memory is repaired instead and serves the reads, and each
//! write begins with another try at the file.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use redb::backends::{FileBackend, InMemoryBackend};
use redb::{
    Builder, Durability, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition, WriteTransaction,
};

use super::error::StoreError;
use super::fault;
use super::files::{Files, rename, sync_folder};

pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// By name and digest.
pub(super) const VERSIONS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("versions");
pub(super) const NAMES: TableDefinition<&str, &[u8]> = TableDefinition::new("names");
/// By `seq`.
pub(super) const JOURNAL: TableDefinition<u64, &[u8]> = TableDefinition::new("journal");
/// A watched file's path to the fingerprint of what was last deployed from it.
pub(super) const DEPLOYED: TableDefinition<&str, &str> = TableDefinition::new("deployed");

/// In `META`: how many writes there were, so that one whose commit failed can be told from one that
/// was never made.
const WRITES: &str = "writes";

/// The format that is written, and the newest that is read: 1 more when an older rerankd would
/// misread what is there.
pub(super) const FORMAT: u64 = 1;

/// redb's own default is 1 GiB; the whole file is some MiB.
const CACHE_BYTES: usize = 4 << 20;

const REMEDY: &str =
    "restore it from a backup, or move it away, start anew and deploy the policies again";

/// Why a transaction failed. Takes each of redb's errors by `?`.
pub(super) enum Failure {
    Store(StoreError),
    Database(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

/// What becomes of a write transaction.
pub(super) enum Outcome<T> {
    /// It is made durable.
    Commit(T),
    /// It leaves no trace.
    Discard(T),
}

/// A write that failed.
struct Failed<T> {
    error: StoreError,
    /// Its number and what it would have given, if it failed in its commit.
    committing: Option<(u64, T)>,
}

/// Counts a write, in its own transaction.
fn count(transaction: &WriteTransaction) -> Result<u64, Failure> {
    let mut meta = transaction.open_table(META)?;
    let number = meta.get(WRITES)?.map_or(0, |number| number.value()) + 1;
    meta.insert(WRITES, number)?;
    Ok(number)
}

pub(super) struct Database {
    path: PathBuf,
    /// Held by the one that writes or opens anew.
    writing: Mutex<()>,
    state: RwLock<State>,
}

enum State {
    File(redb::Database),
    /// The file as it was when it could not be opened for writing.
    Copy(redb::Database),
    Closed,
}

impl Database {
    /// Opens the file at `path`, or makes it.
    pub(super) fn open(path: &Path, files: &Files) -> Result<Self, StoreError> {
        let there = path.try_exists();
        if !there.map_err(|error| StoreError::io(path, error))? {
            create(path, files)?;
        }
        let database = Self {
            path: path.to_owned(),
            writing: Mutex::new(()),
            state: RwLock::new(State::Closed),
        };
        match database.reopen() {
            // Rankings can be served without writing; the next write says it again.
            Err(StoreError::NoSpace { .. }) if database.is_readable() => {
                tracing::warn!(path = %path.display(), "no space left, the store can only be read");
            }
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        let found = database.read(|transaction| {
            let meta = transaction.open_table(META)?;
            Ok(meta.get("format")?.map(|format| format.value()))
        })?;
        match found {
            Some(found) if found <= FORMAT => Ok(database),
            Some(found) => Err(StoreError::NewerFormat {
                path: path.to_owned(),
                found,
                supported: FORMAT,
            }),
            None => Err(database.damaged("it has no format number")),
        }
    }

    /// Runs one read transaction: everything in it is of one moment.
    pub(super) fn read<T>(
        &self,
        work: impl Fn(&ReadTransaction) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        match self.try_read(&work) {
            Err(error) if error.is_of_a_file() => {}
            result => return result,
        }
        // A failed write may have closed the file under this read: wait until that was seen to.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        match self.try_read(&work) {
            Err(error) if error.is_of_a_file() => {}
            result => return result,
        }
        // Only whether it can be read matters here.
        let _ = self.reopen();
        self.try_read(&work)
    }

    /// Runs one write transaction; it is on the disk when this returns. `work` runs at most once. What
    /// fails changed nothing, unless the file cannot be opened anew to look.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<Outcome<T>, Failure>,
    ) -> Result<T, StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_file = matches!(*self.state(), State::File(_));
        if !is_file {
            self.reopen()?;
        }
        let failed = match self.try_write(work) {
            Ok(value) => return Ok(value),
            Err(failed) => failed,
        };
        if failed.error.is_of_a_file() {
            let again = self.reopen();
            let writable = again.is_ok();
            tracing::warn!(writable, path = %self.path.display(), "a write to the store failed");
            // A commit may fail when all of it is in the file already.
            if let (true, Some((number, value))) = (writable, failed.committing)
                && self.last_write().is_ok_and(|last| last == number)
            {
                return Ok(value);
            }
        }
        Err(failed.error)
    }

    /// The number of the last write that is in the file.
    fn last_write(&self) -> Result<u64, StoreError> {
        self.try_read(|transaction| {
            let meta = transaction.open_table(META)?;
            Ok(meta.get(WRITES)?.map_or(0, |number| number.value()))
        })
    }

    fn try_read<T>(
        &self,
        work: impl Fn(&ReadTransaction) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let run = |database: &redb::Database| work(&database.begin_read()?);
        match &*self.state() {
            State::File(database) | State::Copy(database) => run(database),
            State::Closed => Err(Failure::Database(redb::Error::DatabaseClosed)),
        }
        .map_err(|failure| self.error(failure))
    }

    fn try_write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<Outcome<T>, Failure>,
    ) -> Result<T, Failed<T>> {
        let mut committing = None;
        let run = |database: &redb::Database, committing: &mut Option<(u64, T)>| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            let value = match work(&transaction)? {
                Outcome::Commit(value) => value,
                Outcome::Discard(value) => {
                    transaction.abort()?;
                    return Ok(value);
                }
            };
            let number = count(&transaction)?;
            *committing = Some((number, value));
            transaction.commit()?;
            let value = committing.take().map(|(_, value)| value);
            value.ok_or(Failure::Database(redb::Error::DatabaseClosed))
        };
        let result = match &*self.state() {
            State::File(database) => run(database, &mut committing),
            State::Copy(_) | State::Closed => Err(Failure::Database(redb::Error::DatabaseClosed)),
        };
        result.map_err(|failure| Failed {
            error: self.error(failure),
            committing,
        })
    }

    /// Opens the file, or else a copy of it in memory.
    ///
    /// # Errors
    /// Why the file was not opened, whatever became of the copy.
    fn reopen(&self) -> Result<(), StoreError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        // Dropped first: redb locks the file.
        *state = State::Closed;
        let opened = fault::open(builder().set_check_integrity_on_open(true), &self.path);
        let failure = match opened {
            Ok(database) => {
                *state = State::File(database);
                return Ok(());
            }
            Err(error) => self.error(error.into()),
        };
        if failure.is_of_a_file() {
            match copy(&self.path) {
                Ok(database) => *state = State::Copy(database),
                Err(error) => {
                    let error = self.error(error);
                    tracing::warn!(%error, "the store cannot be read");
                }
            }
        }
        Err(failure)
    }

    fn is_readable(&self) -> bool {
        !matches!(*self.state(), State::Closed)
    }

    fn state(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in the file makes no sense.
    pub(super) fn damaged(&self, problem: impl ToString) -> StoreError {
        StoreError::Damaged {
            path: self.path.clone(),
            problem: problem.to_string(),
            remedy: REMEDY,
        }
    }

    fn error(&self, failure: Failure) -> StoreError {
        error(&self.path, failure)
    }
}

fn error(path: &Path, failure: Failure) -> StoreError {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    let failure = match failure {
        Failure::Store(error) => return error,
        Failure::Database(error) => error,
    };
    let is_damage = match &failure {
        redb::Error::Io(error) => matches!(error.kind(), InvalidData | UnexpectedEof),
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => false,
        _ => true,
    };
    match failure {
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse {
            folder: path.parent().unwrap_or(path).to_owned(),
        },
        _ if is_damage => StoreError::Damaged {
            path: path.to_owned(),
            problem: match failure {
                redb::Error::Io(error) => error.to_string(),
                error => error.to_string(),
            },
            remedy: REMEDY,
        },
        redb::Error::Io(error) => StoreError::io(path, error),
        error => StoreError::io(path, std::io::Error::other(error)),
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Makes the database aside and moves it into place, so that a half-made one is never found.
fn create(path: &Path, files: &Files) -> Result<(), StoreError> {
    let scratch = files.scratch();
    let make = || -> Result<(), Failure> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&scratch.0).map_err(redb::Error::Io)?;
        let backend = fault::backend(FileBackend::new(file)?);
        let database = builder().create_with_backend(backend)?;
        let transaction = database.begin_write()?;
        transaction.open_table(META)?.insert("format", FORMAT)?;
        transaction.open_table(VERSIONS)?;
        transaction.open_table(NAMES)?;
        transaction.open_table(JOURNAL)?;
        transaction.open_table(DEPLOYED)?;
        transaction.commit()?;
        Ok(database.close()?)
    };
    make().map_err(|failure| error(path, failure))?;
    let failed = |error| StoreError::io(path, error);
    let file = std::fs::File::open(&scratch.0).map_err(failed)?;
    fault::sync(&file).map_err(failed)?;
    rename(&scratch.0, path).map_err(failed)?;
    sync_folder(path.parent().unwrap_or(path))
}

/// The file's content in memory, where redb can repair it on a disk that takes no writes.
fn copy(path: &Path) -> Result<redb::Database, Failure> {
    let content = std::fs::read(path).map_err(redb::Error::Io)?;
    let memory = InMemoryBackend::new();
    memory.set_len(content.len() as u64)?;
    memory.write(0, &content)?;
    let database = builder()
        .set_check_integrity_on_open(true)
        .create_with_backend(memory)?;
    Ok(database)
}
