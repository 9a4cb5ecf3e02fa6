//! Room that is kept for deleting: a database writes before it has anything less.

use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::fault;
use super::files::Files;

/// What some deletions may write before they have freed anything, and the least that is of use.
const BYTES: usize = 2 << 20;
const LEAST_BYTES: usize = 128 << 10;

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

    /// Makes it, if it is not there, as large as there is room for. Where there is none, deleting goes on
    /// for as long as it can.
    pub(super) fn fill(&self, files: &Files) {
        let there = std::fs::metadata(&self.path).map_or(0, |file| file.len());
        let mut bytes = BYTES;
        while bytes as u64 > there && bytes >= LEAST_BYTES {
            match files.write(&self.path, &filler(bytes)) {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, bytes, "no room to keep for deleting"),
            }
            bytes /= 2;
        }
        if there == 0 && bytes < LEAST_BYTES {
            tracing::warn!("no room is left to keep for deleting");
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
fn filler(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        state.to_le_bytes()
    };
    (0..bytes / 8).flat_map(|_| next(&mut state)).collect()
}
