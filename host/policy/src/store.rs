//! What is released, on disk: components, compiled code and models as files named by their content,
//! and a database that says which version is what ([`VersionRecord`], [`NameRecord`]) and what
//! happened ([`JournalEntry`]).
//!
//! Killed at any moment, or on a disk that is full or read-only, it keeps what it acknowledged:
//! files come before the record that names them and go after it; each is on the disk when the call
//! returns. Every call blocks, for as long as a disk takes: not for a thread that serves requests.
//! What a release is and when it changes is decided elsewhere.

mod database;
mod error;
mod fault;
mod files;
mod index;
mod records;
mod reserve;
mod stage;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use database::{DEPLOYED, Database, Failure, JOURNAL, NAMES, Outcome, VERSIONS};
use files::{Content, Files};
use index::Index;
use reserve::Reserve;

use crate::selector::VersionSelector;

pub use error::{ChangeError, StoreError};
pub use files::Garbage;
pub use index::IndexedVersion;
pub use records::{
    Canary, JournalDraft, JournalEntry, MAX_HISTORY, MAX_MESSAGE_BYTES, ModelRef, NameRecord, Role,
    VersionRecord,
};
pub use stage::Staged;

/// Entries that the journal keeps.
pub const MAX_JOURNAL_ENTRIES: usize = 10_000;

/// Versions that a name may have.
pub const MAX_VERSIONS: usize = 1_000;

/// The data folder of one process.
pub struct Store {
    files: Files,
    database: Database,
    index: Index,
    reserve: Reserve,
    /// What was put and no record names yet: an upload that is under way. Held while files are
    /// removed, and while a version that names them is written.
    unclaimed: Mutex<HashSet<Content>>,
    /// Locked against other processes until drop.
    _lock: File,
}

impl Store {
    /// Opens the store in `folder`, which exists and is trusted; makes what is missing in it. Left
    /// over files in `tmp/` are removed. On a full disk a store that was there opens for reading,
    /// and takes writes as soon as there is room.
    ///
    /// # Errors
    /// `InUse` while another process has it, `Damaged`, `NewerFormat`, or a failed file operation.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let lock = lock(folder)?;
        let files = Files::open(folder)?;
        let database = Database::open(&folder.join("releases.redb"), &files)?;
        let reserve = Reserve::of(folder);
        reserve.fill(&files);
        let index = Index::of(indexed(&database)?);
        Ok(Self {
            files,
            database,
            index,
            reserve,
            unclaimed: Mutex::default(),
            _lock: lock,
        })
    }

    /// Keeps a component, unless it is there. Until a version that names it is staged it is safe from
    /// other deletions, and after a restart it is garbage.
    ///
    /// # Errors
    /// `Damaged` if `sha256` (hex, lower case) is not that of `bytes`, or a failed file operation.
    pub fn put_component(&self, sha256: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.claims().insert(Content::Component(sha256.to_owned()));
        self.files.write_component(sha256, bytes)
    }

    /// A component's bytes, checked against its digest.
    ///
    /// # Errors
    /// `Unknown`, `Damaged`, or a failed file operation.
    pub fn component(&self, sha256: &str) -> Result<Vec<u8>, StoreError> {
        self.files.read_component(sha256)
    }

    /// Where the code is that this engine compiled of a component, if it is what was put there: it is
    /// read and compared with the digest beside it.
    pub fn compiled(&self, engine: &str, component: &str) -> Option<PathBuf> {
        let path = self.files.compiled(engine, component).ok()?;
        match self.files.check_compiled(&path) {
            Ok(()) => Some(path),
            Err(StoreError::Unknown { .. }) => None,
            Err(error) => {
                tracing::warn!(%error, "compiled code is made anew");
                None
            }
        }
    }

    /// Keeps compiled code, in place of what was there, with its digest beside it. It goes when its
    /// component goes, and is not taken after that.
    ///
    /// # Errors
    /// `BadName` if `engine` cannot be a folder's name, `Unknown` if its component is not there, or a
    /// failed file operation.
    pub fn put_compiled(
        &self,
        engine: &str,
        component: &str,
        bytes: &[u8],
    ) -> Result<PathBuf, StoreError> {
        let path = self.files.compiled(engine, component)?;
        // So that nobody deletes the component meanwhile.
        let _claims = self.claims();
        self.check_is_there(&Content::Component(component.to_owned()))?;
        let folder = files::folder_of(&path);
        files::make_folder(folder)?;
        files::sync_folder(files::folder_of(folder))?;
        self.files.write_compiled(&path, bytes)?;
        Ok(path)
    }

    /// Copies `files` (relative to `folder`) of a model, all of them or none, unless the model is
    /// there. As with components, it is safe from other deletions until it is staged. That the digest
    /// is the files' is for the caller to see to. Returns the copy's folder.
    ///
    /// # Errors
    /// `BadName` for a file outside of `folder`, or a failed file operation.
    pub fn keep_model(
        &self,
        folder: &Path,
        files: &[PathBuf],
        name: &str,
        digest: &str,
    ) -> Result<PathBuf, StoreError> {
        let model = ModelRef {
            name: name.to_owned(),
            digest: digest.to_owned(),
        };
        self.claims().insert(Content::Model(model.clone()));
        let path = self.files.model(&model)?;
        match path.is_dir() {
            true => Ok(path),
            false => self.files.copy_model(folder, files, &model),
        }
    }

    /// Keeps a model in place of what is there under its name and digest, which turned out to be damaged.
    ///
    /// # Errors
    /// As [`keep_model`](Self::keep_model); the damaged one may be gone.
    pub fn mend_model(
        &self,
        folder: &Path,
        files: &[PathBuf],
        name: &str,
        digest: &str,
    ) -> Result<(), StoreError> {
        let model = ModelRef {
            name: name.to_owned(),
            digest: digest.to_owned(),
        };
        let path = self.files.model(&model)?;
        if path != folder {
            let _claims = self.claims();
            self.files.take_away(&path)?;
            self.files.copy_model(folder, files, &model)?;
        }
        Ok(())
    }

    /// Where a model that was kept is.
    pub fn model_folder(&self, name: &str, digest: &str) -> Option<PathBuf> {
        let (name, digest) = (name.to_owned(), digest.to_owned());
        let path = self.files.model(&ModelRef { name, digest }).ok()?;
        path.is_dir().then_some(path)
    }

    /// The versions of a name that are meant. In memory: it costs little whatever is asked.
    pub fn select(&self, name: &str, selector: &VersionSelector) -> Vec<IndexedVersion> {
        self.index.select(name, selector)
    }

    /// The latest versions of a name, at most `most`, the latest first. In memory.
    pub fn latest(&self, name: &str, most: usize) -> Vec<IndexedVersion> {
        let latest = |versions: &[IndexedVersion]| {
            let latest = versions.iter().rev().take(most);
            latest.cloned().collect()
        };
        self.index.look(name, latest)
    }

    /// One version of a name.
    ///
    /// # Errors
    /// The database's.
    pub fn version(&self, name: &str, digest: &str) -> Result<Option<VersionRecord>, StoreError> {
        self.database.read(|transaction| {
            let versions = transaction.open_table(VERSIONS)?;
            let value = versions.get((name, digest))?;
            value.map(|value| self.decode(value.value())).transpose()
        })
    }

    /// A name's versions, oldest first.
    ///
    /// # Errors
    /// The database's.
    pub fn versions(&self, name: &str) -> Result<Vec<VersionRecord>, StoreError> {
        self.database.read(|transaction| {
            let mut versions = self.versions_of(&transaction.open_table(VERSIONS)?, name)?;
            versions.sort_by_key(|version| version.created_at_ms);
            Ok(versions)
        })
    }

    /// The latest version of a name that has this component and is what is meant.
    ///
    /// # Errors
    /// The database's.
    pub fn find_version(
        &self,
        name: &str,
        component: &str,
        is_it: impl Fn(&VersionRecord) -> bool,
    ) -> Result<Option<VersionRecord>, StoreError> {
        let digests: Vec<String> = self.index.look(name, |versions| {
            let same = versions.iter().rev().filter(|it| it.component == component);
            same.map(|version| version.digest.clone()).collect()
        });
        // One at a time: each may have large parameters.
        for digest in digests {
            if let Some(version) = self.version(name, &digest)?.filter(&is_it) {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// All names that have versions, sorted.
    ///
    /// # Errors
    /// The database's.
    pub fn names(&self) -> Result<Vec<NameRecord>, StoreError> {
        self.database.read(|transaction| {
            let names = transaction.open_table(NAMES)?;
            let mut found = Vec::new();
            for entry in names.iter()? {
                found.push(self.decode(entry?.1.value())?);
            }
            Ok(found)
        })
    }

    /// One name's record; none if it never had a version, or has none any more.
    ///
    /// # Errors
    /// The database's.
    pub fn name(&self, name: &str) -> Result<Option<NameRecord>, StoreError> {
        self.database.read(|transaction| {
            let value = transaction.open_table(NAMES)?.get(name)?;
            value.map(|value| self.decode(value.value())).transpose()
        })
    }

    /// Lets `change` alter a name's record (an empty one, if it has none) and writes it together with
    /// the journal entry: both or neither. Changes happen one after the other. Of the history the
    /// latest [`MAX_HISTORY`] are kept. Returns what was written.
    ///
    /// # Errors
    /// `Refused` with what `change` says, `Unknown` if a role is given to a version that is not
    /// there, or a failed file operation.
    pub fn change<E>(
        &self,
        name: &str,
        change: impl FnOnce(&mut NameRecord) -> Result<JournalDraft, E>,
    ) -> Result<NameRecord, ChangeError<E>> {
        let result = self.database.write(|transaction| {
            let mut names = transaction.open_table(NAMES)?;
            let mut record = self.name_in(&names, name)?;
            let entry = match change(&mut record) {
                Ok(entry) => entry,
                Err(refusal) => return Ok(Outcome::Discard(Err(refusal))),
            };
            name.clone_into(&mut record.name);
            let excess = record.history.len().saturating_sub(MAX_HISTORY);
            record.history.drain(..excess);
            let versions = transaction.open_table(VERSIONS)?;
            for (_, digest) in record.roles() {
                if versions.get((name, digest))?.is_none() {
                    return Err(Failure::Store(StoreError::Unknown {
                        what: format!("version `{name}@{digest}`"),
                    }));
                }
            }
            names.insert(name, encode(&record).as_slice())?;
            self.add_to_journal(transaction, entry)?;
            Ok(Outcome::Commit(Ok(record)))
        })?;
        result.map_err(ChangeError::Refused)
    }

    /// Deletes a version, and then the files that no version names any more. The name goes with its
    /// last version. Returns whether there was such a version. It needs no room: some is kept for it.
    ///
    /// # Errors
    /// `InRole` while the name needs it, or a failed file operation.
    pub fn delete_version(
        &self,
        name: &str,
        digest: &str,
        entry: JournalDraft,
    ) -> Result<bool, StoreError> {
        let claims = self.claims();
        let mut deleted = self.try_delete(name, digest, entry.clone());
        if matches!(deleted, Err(StoreError::NoSpace { .. })) && self.reserve.free()? {
            deleted = self.try_delete(name, digest, entry);
        }
        let is_gone = deleted.is_ok();
        if let Ok(Some(removed)) = &deleted {
            // The deletion stands; what goes wrong from here on leaves garbage for the next start.
            self.forget_unnamed(contents(removed).collect(), &claims);
        }
        match is_gone {
            true => self.index.remove(name, digest),
            false => self.index_anew(),
        }
        self.reserve.fill(&self.files);
        Ok(deleted?.is_some())
    }

    fn try_delete(
        &self,
        name: &str,
        digest: &str,
        entry: JournalDraft,
    ) -> Result<Option<VersionRecord>, StoreError> {
        self.database.write(|transaction| {
            let mut names = transaction.open_table(NAMES)?;
            let mut record = self.name_in(&names, name)?;
            if let Some(role) = record.role_of(digest) {
                let name = name.to_owned();
                return Err(Failure::Store(StoreError::InRole { name, role }));
            }
            let mut versions = transaction.open_table(VERSIONS)?;
            let removed = match versions.remove((name, digest))? {
                Some(value) => self.decode::<VersionRecord>(value.value())?,
                None => return Ok(Outcome::Discard(None)),
            };
            let next = versions.range((name, "")..)?.next().transpose()?;
            if next.is_none_or(|(key, _)| key.value().0 != name) {
                names.remove(name)?;
            } else {
                // No rollback leads to what is gone.
                record.history.retain(|earlier| earlier != digest);
                names.insert(name, encode(&record).as_slice())?;
            }
            self.add_to_journal(transaction, entry)?;
            Ok(Outcome::Commit(Some(removed)))
        })
    }

    /// Writes something that happened and changed no record.
    ///
    /// # Errors
    /// A failed file operation.
    pub fn record_event(&self, entry: JournalDraft) -> Result<JournalEntry, StoreError> {
        self.database.write(|transaction| {
            let entry = self.add_to_journal(transaction, entry)?;
            Ok(Outcome::Commit(entry))
        })
    }

    /// At most `limit` journal entries, the oldest after `after_seq` first. Of those before the newest
    /// [`MAX_JOURNAL_ENTRIES`] none is kept.
    ///
    /// # Errors
    /// The database's.
    pub fn journal(&self, after_seq: u64, limit: usize) -> Result<Vec<JournalEntry>, StoreError> {
        self.database.read(|transaction| {
            let journal = transaction.open_table(JOURNAL)?;
            let mut found = Vec::new();
            for entry in journal.range(after_seq.saturating_add(1)..)?.take(limit) {
                found.push(self.decode(entry?.1.value())?);
            }
            Ok(found)
        })
    }

    /// The `seq` of the newest journal entry; 0 before the first.
    ///
    /// # Errors
    /// The database's.
    pub fn last_seq(&self) -> Result<u64, StoreError> {
        self.database.read(|transaction| {
            let journal = transaction.open_table(JOURNAL)?;
            let last = journal.last()?;
            Ok(last.map_or(0, |(seq, _)| seq.value()))
        })
    }

    /// The fingerprint of what was last deployed from a file of a watched folder.
    ///
    /// # Errors
    /// The database's.
    pub fn deployed(&self, path: &str) -> Result<Option<String>, StoreError> {
        self.database.read(|transaction| {
            let value = transaction.open_table(DEPLOYED)?.get(path)?;
            Ok(value.map(|value| value.value().to_owned()))
        })
    }

    /// Remembers what was deployed from a file of a watched folder.
    ///
    /// # Errors
    /// A failed file operation.
    pub fn set_deployed(&self, path: &str, fingerprint: &str) -> Result<(), StoreError> {
        self.database.write(|transaction| {
            let mut deployed = transaction.open_table(DEPLOYED)?;
            deployed.insert(path, fingerprint)?;
            Ok(Outcome::Commit(()))
        })
    }

    /// Removes files that no version names (of an upload or a deletion that was cut short) and code
    /// that other engines than `engine` compiled. For the start, before anything is loaded.
    ///
    /// # Errors
    /// The first failed file operation; what is left is removed the next time.
    pub fn collect_garbage(&self, engine: &str) -> Result<Garbage, StoreError> {
        let claims = self.claims();
        let mut kept = self.named()?;
        kept.extend(claims.iter().cloned());
        self.files.sweep(&kept, engine)
    }

    fn claims(&self) -> MutexGuard<'_, HashSet<Content>> {
        self.unclaimed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn check_is_there(&self, content: &Content) -> Result<(), StoreError> {
        let (is_there, what) = match content {
            Content::Component(sha256) => (
                self.files.component(sha256)?.is_file(),
                format!("component `{sha256}`"),
            ),
            Content::Model(model) => (
                self.files.model(model)?.is_dir(),
                format!("model `{}` with digest `{}`", model.name, model.digest),
            ),
        };
        match is_there {
            true => Ok(()),
            false => Err(StoreError::Unknown { what }),
        }
    }

    /// All that any version names.
    fn named(&self) -> Result<HashSet<Content>, StoreError> {
        self.database.read(|transaction| {
            let versions = transaction.open_table(VERSIONS)?;
            let mut named = HashSet::new();
            for entry in versions.iter()? {
                let version = self.decode::<NamedContents>(entry?.1.value())?;
                named.insert(Content::Component(version.component));
                named.extend(version.models.into_values().map(Content::Model));
            }
            Ok(named)
        })
    }

    fn versions_of(
        &self,
        versions: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
        name: &str,
    ) -> Result<Vec<VersionRecord>, Failure> {
        let mut found = Vec::new();
        for entry in versions.range((name, "")..)? {
            let (key, value) = entry?;
            if key.value().0 != name {
                break;
            }
            found.push(self.decode(value.value())?);
        }
        Ok(found)
    }

    fn name_in(
        &self,
        names: &impl ReadableTable<&'static str, &'static [u8]>,
        name: &str,
    ) -> Result<NameRecord, Failure> {
        match names.get(name)? {
            Some(value) => self.decode(value.value()),
            None => Ok(NameRecord {
                name: name.to_owned(),
                ..NameRecord::default()
            }),
        }
    }

    fn add_to_journal(
        &self,
        transaction: &WriteTransaction,
        entry: JournalDraft,
    ) -> Result<JournalEntry, Failure> {
        let mut journal: Table<'_, u64, &[u8]> = transaction.open_table(JOURNAL)?;
        let last = journal.last()?.map_or(0, |(seq, _)| seq.value());
        let entry = entry.numbered(last + 1);
        journal.insert(entry.seq, encode(&entry).as_slice())?;
        while journal.len()? > MAX_JOURNAL_ENTRIES as u64 {
            journal.pop_first()?;
        }
        Ok(entry)
    }

    fn decode<T: DeserializeOwned>(&self, json: &[u8]) -> Result<T, Failure> {
        let record = serde_json::from_slice(json);
        record.map_err(|error| Failure::Store(self.database.damaged(error)))
    }
}

/// Of a [`VersionRecord`] what names files.
#[derive(Default, Deserialize)]
#[serde(default)]
struct NamedContents {
    component: String,
    models: BTreeMap<String, ModelRef>,
}

/// All versions, as the index knows them.
fn indexed(database: &Database) -> Result<Vec<IndexedVersion>, StoreError> {
    database.read(|transaction| {
        let versions = transaction.open_table(VERSIONS)?;
        let mut found: Vec<IndexedVersion> = Vec::new();
        for entry in versions.iter()? {
            let (key, value) = entry?;
            let record = serde_json::from_slice(value.value());
            let mut version: IndexedVersion =
                record.map_err(|error| Failure::Store(database.damaged(error)))?;
            let (name, digest) = key.value();
            name.clone_into(&mut version.name);
            digest.clone_into(&mut version.digest);
            found.push(version);
        }
        Ok(found)
    })
}

/// The files that a version names.
fn contents(version: &VersionRecord) -> impl Iterator<Item = Content> {
    let models = version.models.values().cloned().map(Content::Model);
    std::iter::once(Content::Component(version.component.clone())).chain(models)
}

fn encode(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("a record has nothing that JSON has not")
}

/// Locks the folder against other processes; the system unlocks it, however this one ends.
fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("lock");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options
        .open(&path)
        .map_err(|error| StoreError::io(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
            folder: folder.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(StoreError::io(&path, error)),
    }
}
