//! Files with secrets: who may own them and read them, and by what a change of one is noticed.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rerankd_inference::files;

use crate::checkout;

/// Who beside the owner may have a hand in a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// Nobody.
    Nobody,
    /// A group may read it, such as `ssl-cert`.
    Reads,
}

/// Opens a secret, whose owner must be this user or root. What is looked at is what is read.
///
/// # Errors
/// What is wrong with it, and how to mend it, without its path in front.
pub(crate) fn open(file: &Path, group: Group) -> Result<File, String> {
    let (opened, meta) = files::open(file).map_err(|error| error.to_string())?;
    let (forbidden, problem) = match group {
        Group::Nobody => (
            0o077,
            format!(
                "it can be read or written by others: `chmod 600 {}`",
                file.display()
            ),
        ),
        Group::Reads => (
            0o027,
            format!(
                "others can read or write this key: its mode must be 0600 or 0640, `chmod 600 {}`",
                file.display()
            ),
        ),
    };
    if meta.mode() & forbidden != 0 {
        return Err(problem);
    }
    let owner = meta.uid();
    if checkout::user().is_some_and(|user| owner != user && owner != 0) {
        return Err(format!(
            "it belongs to user {owner}, neither to this one nor to root"
        ));
    }
    Ok(opened)
}

/// Opens and reads a secret of at most `most` bytes.
///
/// # Errors
/// As [`open`].
pub(crate) fn read(file: &Path, group: Group, most: u64) -> Result<Vec<u8>, String> {
    files::read_from(open(file, group)?, most).map_err(|error| error.to_string())
}

/// Differs when a file was written to, replaced, given to somebody else, or opened to others: a change
/// of mode or owner changes the time of the inode alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    place: (u64, u64),
    size: u64,
    rights: (u32, u32, u32),
    written: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// That of a file; `None` where there is none that can be looked at.
    pub(crate) fn of(file: &Path) -> Option<Self> {
        std::fs::metadata(file).ok().map(|meta| Self::new(&meta))
    }

    fn new(meta: &Metadata) -> Self {
        Self {
            place: (meta.dev(), meta.ino()),
            size: meta.size(),
            rights: (meta.mode(), meta.uid(), meta.gid()),
            written: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Nanoseconds since 1970 at which the inode was last changed.
    pub(crate) fn changed_ns(&self) -> i128 {
        i128::from(self.changed.0) * 1_000_000_000 + i128::from(self.changed.1)
    }
}
