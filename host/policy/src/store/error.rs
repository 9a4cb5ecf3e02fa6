//! What can go wrong with the store.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::records::Role;

/// Why the store did not do what it was asked for. Whatever the variant, nothing was changed.
#[derive(Debug, thiserror::Error)]
#[allow(
    missing_docs,
    reason = "each variant's message says what its fields are"
)]
pub enum StoreError {
    #[error(
        "`{}` is in use by another process: stop that one, or name another folder (--data-dir)",
        folder.display()
    )]
    InUse { folder: PathBuf },
    /// `remedy`: what the operator can do.
    #[error("`{}` is damaged: {problem}: {remedy}", path.display())]
    Damaged {
        path: PathBuf,
        problem: String,
        remedy: &'static str,
    },
    #[error("no space left to write `{}`: make room and try again", path.display())]
    NoSpace { path: PathBuf },
    #[error(
        "`{}` cannot be written: it must be writable by the user that runs rerankd (--data-dir)",
        path.display()
    )]
    ReadOnly { path: PathBuf },
    #[error("`{}`: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    /// `component`: SHA-256 of the one that has the version string already.
    #[error(
        "policy `{name}` has a version `{version}` already, of another component (sha256 {component}): \
         give this one another version in its manifest"
    )]
    Conflict {
        name: String,
        version: String,
        component: String,
    },
    #[error(
        "policy `{name}` has a version whose digest begins with `{version}`, which cannot be the version \
         of another: give one of them another version in its manifest"
    )]
    LooksLikeDigest { name: String, version: String },
    #[error(
        "policy `{name}` has {most} versions, and cannot have more: delete some that have no role"
    )]
    TooManyVersions { name: String, most: usize },
    #[error("it is {role} of policy `{name}`: only a version without a role can be deleted")]
    InRole { name: String, role: Role },
    #[error("no {what} in the store")]
    Unknown { what: String },
    #[error("`{text}` cannot be {what} in the store: it is no name of a file")]
    BadName { what: &'static str, text: String },
    #[error(
        "`{}` has format {found}, of a newer rerankd; this one reads up to {supported}: \
         run the newer one, or name another folder (--data-dir)",
        path.display()
    )]
    NewerFormat {
        path: PathBuf,
        found: u64,
        supported: u64,
    },
}

impl StoreError {
    /// A failed operation on the file or folder at `path`.
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            // The third is a limit on one file's size (`ulimit -f`).
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::NoSpace { path }
            }
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => Self::ReadOnly { path },
            _ => Self::Io { path, source },
        }
    }

    /// Whether a file failed, rather than what was asked for.
    pub(super) fn is_of_a_file(&self) -> bool {
        matches!(
            self,
            Self::NoSpace { .. } | Self::ReadOnly { .. } | Self::Io { .. }
        )
    }
}

/// Why a name's record was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError<E> {
    /// The change itself said no.
    #[error("{0}")]
    Refused(E),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
