//! A folder for files that a test makes up.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::require;

/// An empty folder below Cargo's target folder (the system's temporary folder is writable by anyone,
/// and the server loads nothing from there); removed at drop.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        let path = require::target().join("tmp/rerankd-tests").join(name);
        std::fs::create_dir_all(&path).expect("the target folder is writable");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file; folders on its way are made.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        let folder = path.parent().expect("a file lies in a folder");
        std::fs::create_dir_all(folder).expect("the target folder is writable");
        std::fs::write(&path, content).expect("the target folder is writable");
        path
    }

    /// Copies a file or the files of a folder.
    pub fn copy(&self, from: &Path, name: &str) -> PathBuf {
        let to = self.0.join(name);
        let read = |path: &Path| {
            std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        if from.is_file() {
            return self.write(name, read(from));
        }
        for entry in std::fs::read_dir(from).expect("the folder is there") {
            let path = entry.expect("the folder can be listed").path();
            let file = path.file_name().expect("an entry has a name");
            self.write(&format!("{name}/{}", file.to_string_lossy()), read(&path));
        }
        to
    }

    /// Sets the permissions of a file or folder in it.
    pub fn set_mode(&self, name: &str, mode: u32) {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.0.join(name), permissions).expect("the file is ours");
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It is in the target folder: what cannot be removed goes with the next `cargo clean`.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
