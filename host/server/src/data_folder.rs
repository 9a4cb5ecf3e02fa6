//! The data folder: what outlives the process. Tokens lie in it, and the store of policies, so nobody
//! but the server's user may write there.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::checkout;
use crate::secret_file::{self, Group};

/// Mode of the folder.
const FOLDER: u32 = 0o700;
/// Mode of a private file.
const PRIVATE: u32 = 0o600;
const OTHERS_WRITE: u32 = 0o002;
const GROUP_OR_OTHERS_WRITE: u32 = 0o022;
const GROUP_OR_OTHERS: u32 = 0o077;
/// Only its owner may rename or remove what lies in such a folder.
const STICKY: u32 = 0o1000;
/// Largest private file, bytes: some 60,000 tokens.
const MAX_PRIVATE_BYTES: u64 = 16 << 20;

/// A data folder that has been checked.
#[derive(Debug, Clone)]
pub struct DataFolder(PathBuf);

/// Held while a file is changed that another process may change as well.
pub struct Lock(#[expect(dead_code, reason = "closing it gives the lock back")] File);

/// Where the folder is when nobody says so: `$XDG_STATE_HOME/rerankd`, `$HOME/.local/state/rerankd`, or
/// a service's `/var/lib/rerankd`.
pub fn default_path() -> PathBuf {
    let absolute = |name: &str| {
        let path = std::env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(|| "/var/lib".into())
        .join("rerankd")
}

impl DataFolder {
    /// Makes the folder if there is none, and checks it.
    ///
    /// # Errors
    /// A sentence that names the folder and what is wrong with it: a file, another user's, or one that
    /// others can write to, itself or by way of a folder above it; or it cannot be written at all.
    pub fn open(path: &Path) -> Result<Self, String> {
        let path = std::path::absolute(path).map_err(|error| fault(path, &error))?;
        // Before anything is made in a place where it must not be.
        check_chain(&path)?;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(FOLDER)
            .create(&path)
            .map_err(|error| cannot_write(&path, &error))?;
        let folder = Self::existing(&path)?;
        let probe = folder.temporary("probe");
        create_new(&probe)
            .and_then(|_| std::fs::remove_file(&probe))
            .map_err(|error| cannot_write(&path, &error))?;
        Ok(folder)
    }

    /// Whether a folder would be opened, as far as that is seen without making anything: what there is of it
    /// is safe.
    ///
    /// # Errors
    /// As [`DataFolder::open`].
    pub fn check(path: &Path) -> Result<(), String> {
        let path = std::path::absolute(path).map_err(|error| fault(path, &error))?;
        check_chain(&path)?;
        match std::fs::exists(&path) {
            Ok(false) => Ok(()),
            _ => Self::existing(&path).map(drop),
        }
    }

    /// Checks a folder that must be there.
    ///
    /// # Errors
    /// As [`DataFolder::open`].
    pub fn existing(path: &Path) -> Result<Self, String> {
        let path = std::path::absolute(path).map_err(|error| fault(path, &error))?;
        check_chain(&path)?;
        let real = path.canonicalize().map_err(|error| fault(&path, &error))?;
        // Where links lead must be as safe as where they lie.
        check_chain(&real)?;
        Ok(Self(real))
    }

    /// Where it is; absolute, without links.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Reads a private file; `None` if there is none.
    ///
    /// # Errors
    /// A sentence that names the file: it cannot be read, others can read or write it, or it is somebody
    /// else's.
    pub fn read_private(&self, name: &str) -> Result<Option<String>, String> {
        let path = self.file(name);
        let wrong = |problem: String| format!("`{}`: {problem}", path.display());
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            // What else is wrong, opening it says.
            _ => {}
        }
        let bytes = secret_file::read(&path, Group::Nobody, MAX_PRIVATE_BYTES).map_err(wrong)?;
        let text = String::from_utf8(bytes);
        text.map(Some)
            .map_err(|_| wrong("it is no text".to_owned()))
    }

    /// Writes a private file; whoever reads it meets the old content or the new one, whole.
    ///
    /// # Errors
    /// A sentence that names the file; the old content stays.
    pub fn replace(&self, name: &str, content: &str) -> Result<(), String> {
        let path = self.file(name);
        let temporary = self.temporary(name);
        let written = write(&temporary, content).and_then(|()| std::fs::rename(&temporary, &path));
        self.finish(&path, &temporary, written)
    }

    /// Writes a private file unless there is one already.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn create(&self, name: &str, content: &str) -> Result<(), String> {
        let path = self.file(name);
        let temporary = self.temporary(name);
        // A link is made or it is not: another process that starts now finds all of it or nothing.
        let written = write(&temporary, content)
            .and_then(|()| std::fs::hard_link(&temporary, &path))
            .or_else(|error| match error.kind() {
                std::io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(error),
            });
        let _ = std::fs::remove_file(&temporary);
        self.finish(&path, &temporary, written)
    }

    /// Waits until no other process changes the private files.
    ///
    /// # Errors
    /// A sentence that names the lock's file.
    pub fn lock(&self) -> Result<Lock, String> {
        let path = self.file("tokens.lock");
        let open = || {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(PRIVATE)
                .open(&path)?;
            file.lock()?;
            Ok(Lock(file))
        };
        open().map_err(|error: std::io::Error| format!("`{}`: {error}", path.display()))
    }

    fn finish(
        &self,
        path: &Path,
        temporary: &Path,
        written: std::io::Result<()>,
    ) -> Result<(), String> {
        written
            .and_then(|()| File::open(&self.0)?.sync_all())
            .map_err(|error| {
                // It may not be there.
                let _ = std::fs::remove_file(temporary);
                format!("`{}` cannot be written: {error}", path.display())
            })
    }

    /// A name that no other process takes.
    fn temporary(&self, name: &str) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.file(&format!(".{name}.{}-{number}", std::process::id()))
    }
}

fn create_new(path: &Path) -> std::io::Result<File> {
    // Left there by a process of the same id that was killed.
    let _ = std::fs::remove_file(path);
    let file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(PRIVATE)
        .open(path)?;
    // The mask may have taken the owner's own rights.
    file.set_permissions(Permissions::from_mode(PRIVATE))?;
    Ok(file)
}

fn write(path: &Path, content: &str) -> std::io::Result<()> {
    let mut file = create_new(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

/// Whether the folder and those above it are safe; what does not exist is.
fn check_chain(folder: &Path) -> Result<(), String> {
    let user = checkout::user();
    for (above, place) in folder.ancestors().enumerate() {
        let meta = match std::fs::metadata(place) {
            Ok(meta) => meta,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(fault(folder, &error)),
        };
        let shown = place.display();
        let refuse = |problem: String| Err(fault(folder, &problem));
        if !meta.is_dir() {
            return refuse(format!("`{shown}` is a file, not a folder"));
        }
        let (owner, mode) = (meta.uid(), meta.mode());
        let owned = match above {
            0 => user.is_none_or(|user| owner == user),
            1 => user.is_none_or(|user| owner == user || owner == 0),
            // As for all that is loaded.
            _ => {
                checkout::check_above(place, &meta).map_err(|problem| {
                    fault(folder, &format!("{problem}, or name another folder"))
                })?;
                continue;
            }
        };
        if !owned {
            return refuse(match above {
                0 => format!(
                    "it belongs to user {owner}; run this as that user, or name another folder"
                ),
                _ => format!("`{shown}` belongs to user {owner}, neither to this one nor to root"),
            });
        }
        match above {
            0 if mode & GROUP_OR_OTHERS_WRITE != 0 => {
                return refuse(format!("it can be written by others: `chmod go-w {shown}`"));
            }
            1 if mode & OTHERS_WRITE != 0 && !is_out_of_reach(folder, mode) => {
                return refuse(format!(
                    "the folder that it lies in can be written by anyone: name another one, or `chmod o-w {shown}`; or, where only owners can remove what lies there (sticky, as /tmp), `chmod 0700 {}`",
                    folder.display()
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a folder is this user's alone although anyone may write to the one above it, whose mode is
/// `above`: only its owner may remove or exchange it (sticky), and nobody else may look into it. One that is
/// not there yet is made so, unless somebody else is faster, which is seen then.
fn is_out_of_reach(folder: &Path, above: u32) -> bool {
    let Ok(meta) = std::fs::symlink_metadata(folder) else {
        return above & STICKY != 0;
    };
    let is_ours = checkout::user().is_none_or(|user| meta.uid() == user);
    above & STICKY != 0 && is_ours && meta.is_dir() && meta.mode() & GROUP_OR_OTHERS == 0
}

fn fault(folder: &Path, problem: &dyn std::fmt::Display) -> String {
    format!("data folder `{}` (--data-dir): {problem}", folder.display())
}

fn cannot_write(folder: &Path, error: &std::io::Error) -> String {
    fault(folder, &format!("it cannot be written: {error}"))
}
