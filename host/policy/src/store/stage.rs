//! A version comes in: checked against the others of its name, and written with what it names; and what
//! was put for one that did not come in goes away.

use std::collections::HashSet;

use redb::ReadableTable;

use super::database::{NAMES, Outcome, VERSIONS};
use super::files::Content;
use super::{IndexedVersion, JournalDraft, MAX_VERSIONS, Store, StoreError, VersionRecord};
use super::{contents, encode, indexed};

/// What [`Store::stage`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staged {
    /// Whether the version is new; else it was there, and nothing was written.
    pub created: bool,
}

impl Store {
    /// Whether a version may be staged, by all that is known without its files. Changes nothing.
    ///
    /// # Errors
    /// `Conflict` if the name has the same version string of another component, or a version whose digest
    /// begins with this string; `TooManyVersions`.
    pub fn check_new(&self, version: &VersionRecord) -> Result<(), StoreError> {
        self.index.look(&version.name, |others| {
            if others.iter().any(|other| other.digest == version.digest) {
                return Ok(());
            }
            let clash = others.iter().find(|other| {
                let same = other.version == version.version;
                same && other.component != version.component
            });
            if let Some(other) = clash {
                return Err(StoreError::Conflict {
                    name: other.name.clone(),
                    version: other.version.clone(),
                    component: other.component.clone(),
                });
            }
            let is_head = crate::selector::is_head(&version.version);
            let digests = others.iter().map(|other| &other.digest);
            let mut digests = digests.chain(std::iter::once(&version.digest));
            if is_head && digests.any(|digest| digest.starts_with(&version.version)) {
                return Err(StoreError::LooksLikeDigest {
                    name: version.name.clone(),
                    version: version.version.clone(),
                });
            }
            // The other way round, too: who asks for the head of this digest would get that version.
            let taken = others.iter().find(|other| {
                crate::selector::is_head(&other.version)
                    && version.digest.starts_with(&other.version)
            });
            if let Some(other) = taken {
                return Err(StoreError::LooksLikeDigest {
                    name: other.name.clone(),
                    version: other.version.clone(),
                });
            }
            if others.len() >= MAX_VERSIONS {
                return Err(StoreError::TooManyVersions {
                    name: version.name.clone(),
                    most: MAX_VERSIONS,
                });
            }
            Ok(())
        })
    }

    /// Writes a version whose files were put, with its journal entry. Whatever comes of it, the files are
    /// no longer under way.
    ///
    /// # Errors
    /// As [`check_new`](Self::check_new); `Unknown` if a file that it names is not there, or a failed file
    /// operation. What was put for it is removed then, unless another version needs it.
    pub fn stage(
        &self,
        version: &VersionRecord,
        entry: JournalDraft,
    ) -> Result<Staged, StoreError> {
        let mut claims = self.claims();
        let staged = self.try_stage(version, entry);
        for content in contents(version) {
            claims.remove(&content);
        }
        match &staged {
            Ok(_) => self.index.add(IndexedVersion {
                digest: version.digest.clone(),
                name: version.name.clone(),
                version: version.version.clone(),
                component: version.component.clone(),
                created_at_ms: version.created_at_ms,
            }),
            Err(_) => {
                self.index_anew();
                self.forget_unnamed(contents(version).collect(), &claims);
            }
        }
        staged
    }

    fn try_stage(
        &self,
        version: &VersionRecord,
        entry: JournalDraft,
    ) -> Result<Staged, StoreError> {
        self.check_new(version)?;
        for content in contents(version) {
            self.check_is_there(&content)?;
        }
        self.database.write(|transaction| {
            let mut versions = transaction.open_table(VERSIONS)?;
            let key = (version.name.as_str(), version.digest.as_str());
            if versions.get(key)?.is_some() {
                return Ok(Outcome::Discard(Staged { created: false }));
            }
            versions.insert(key, encode(version).as_slice())?;
            let mut names = transaction.open_table(NAMES)?;
            let record = self.name_in(&names, &version.name)?;
            names.insert(version.name.as_str(), encode(&record).as_slice())?;
            self.add_to_journal(transaction, entry)?;
            Ok(Outcome::Commit(Staged { created: true }))
        })
    }

    /// Removes what was put and is no longer under way, of an upload that failed before it was staged.
    /// For who knows that no other upload puts anything at this time.
    pub fn abandon_unstaged(&self) {
        let mut claims = self.claims();
        let left = claims.drain().collect();
        self.forget_unnamed(left, &claims);
    }

    /// After a write that failed, of which it is not known what became.
    pub(super) fn index_anew(&self) {
        match indexed(&self.database) {
            Ok(versions) => self.index.replace(versions),
            Err(error) => tracing::warn!(%error, "what versions there are is not known"),
        }
    }

    /// Removes files of no use; where that cannot be known, the next start does.
    pub(super) fn forget_unnamed(&self, contents: Vec<Content>, claims: &HashSet<Content>) {
        match self.named() {
            Ok(named) => {
                for content in contents {
                    if !named.contains(&content) && !claims.contains(&content) {
                        self.files.forget(&content);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "files that nothing needs were left behind");
            }
        }
    }
}
