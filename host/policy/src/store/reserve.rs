//! Room that is kept for deleting: a database writes before it has anything less.

use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::fault;
use super::files::Files;

/// What a deletion may write before it has freed anything, with room to spare.
const BYTES: usize = 1 << 20;

/// A file that takes up room until that is needed.
pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// The reserve of the store in `folder`; [`fill`](Self::fill) makes it.
    pub(super) fn of(folder: &Path) -> Self {
        Self {
            path: folder.join("reserve"),
        }
    }

    /// Makes it, if it is not there. Where there is no room for it, deleting goes on as long as it can.
    pub(super) fn fill(&self, files: &Files) {
        let whole = |file: std::fs::Metadata| file.len() == BYTES as u64;
        if std::fs::metadata(&self.path).is_ok_and(whole) {
            return;
        }
        if let Err(error) = files.write(&self.path, &filler()) {
            tracing::warn!(%error, "no room is kept for deleting");
        }
    }

    /// Gives the room up. Returns whether there was any.
    pub(super) fn free(&self) -> Result<bool, StoreError> {
        match fault::point().and_then(|()| std::fs::remove_file(&self.path)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io(&self.path, error)),
        }
    }
}

/// Bytes that no file system makes smaller.
fn filler() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        state.to_le_bytes()
    };
    (0..BYTES / 8).flat_map(|_| next(&mut state)).collect()
}
