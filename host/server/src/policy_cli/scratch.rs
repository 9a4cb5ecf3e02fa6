//! A place for what a command needs while it runs.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// An empty folder that nobody else can look into; removed at drop.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Below the system's folder of temporary files.
    ///
    /// # Errors
    /// It cannot be made there.
    pub(crate) fn new() -> std::io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let path = std::env::temp_dir().join(format!("rerankd-{}", hex::encode(random)));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It is in the folder of what may go at any time.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
