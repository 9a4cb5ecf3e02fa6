//! The store's files: each is written aside in `tmp/` and moved into place when it is on the disk,
//! so that outside `tmp/` every file is whole.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::error::StoreError;
use super::fault;
use super::records::ModelRef;

const COMPONENTS: &str = "components";
const COMPILED: &str = "compiled";
const MODELS: &str = "models";
const TMP: &str = "tmp";

/// Ends the name of the file with the digest of compiled code.
const DIGEST_SUFFIX: &str = ".sha256";

/// What a file's content is known by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Content {
    /// By SHA-256.
    Component(String),
    Model(ModelRef),
}

/// What a clean-up removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Components, compiled components and models.
    pub removed: usize,
}

pub(super) struct Files {
    folder: PathBuf,
    next: AtomicU64,
}

/// A path in `tmp/`; what lies there at drop is removed.
pub(super) struct Scratch(pub(super) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed goes when the store is opened next.
        let _ = remove(&self.0);
    }
}

impl Files {
    /// Makes the folders in `folder` and empties `tmp/`.
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        for name in [COMPONENTS, COMPILED, MODELS, TMP] {
            make_folder(&folder.join(name))?;
        }
        sync_folder(folder)?;
        for path in list(&folder.join(TMP))? {
            remove(&path).map_err(|error| StoreError::io(&path, error))?;
        }
        Ok(Self {
            folder: folder.to_owned(),
            next: AtomicU64::new(0),
        })
    }

    /// A path that nobody else uses.
    pub(super) fn scratch(&self) -> Scratch {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Scratch(self.folder.join(TMP).join(number.to_string()))
    }

    pub(super) fn component(&self, sha256: &str) -> Result<PathBuf, StoreError> {
        let name = part("a component's digest", sha256)?;
        Ok(self.folder.join(COMPONENTS).join(name))
    }

    pub(super) fn compiled(&self, engine: &str, component: &str) -> Result<PathBuf, StoreError> {
        let engine = part("an engine's key", engine)?;
        let name = format!("{}.cwasm", part("a component's digest", component)?);
        Ok(self.folder.join(COMPILED).join(engine).join(name))
    }

    pub(super) fn model(&self, model: &ModelRef) -> Result<PathBuf, StoreError> {
        let digest = part("a model's digest", &model.digest)?;
        let name = part("a model's name", &model.name)?;
        Ok(self.folder.join(MODELS).join(digest).join(name))
    }

    /// Reads a component and checks that it is the one.
    pub(super) fn read_component(&self, sha256: &str) -> Result<Vec<u8>, StoreError> {
        let path = self.component(sha256)?;
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let what = format!("component `{sha256}`");
                return Err(StoreError::Unknown { what });
            }
            result => result.map_err(|error| StoreError::io(&path, error))?,
        };
        check_digest(&path, sha256, &bytes)?;
        Ok(bytes)
    }

    /// Writes a component, unless it is there and undamaged.
    pub(super) fn write_component(&self, sha256: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.component(sha256)?;
        check_digest(&path, sha256, bytes)?;
        match self.read_component(sha256) {
            Ok(_) => Ok(()),
            Err(_) => self.write(&path, bytes),
        }
    }

    /// Writes compiled code, and its digest beside it. Without the one that belongs to it the code is not
    /// taken, so it does not matter between which of the two the process ends.
    pub(super) fn write_compiled(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let digest = hex::encode(Sha256::digest(bytes));
        self.write(path, bytes)?;
        self.write(&beside(path), digest.as_bytes())
    }

    /// Checks compiled code against the digest beside it.
    ///
    /// # Errors
    /// `Unknown` if there is none, `Damaged`, or a failed file operation.
    pub(super) fn check_compiled(&self, path: &Path) -> Result<(), StoreError> {
        let failed = |path: &Path, error: std::io::Error| match error.kind() {
            ErrorKind::NotFound => StoreError::Unknown {
                what: format!("compiled code `{}`", path.display()),
            },
            _ => StoreError::io(path, error),
        };
        let mut file = File::open(path).map_err(|error| failed(path, error))?;
        let damaged = |problem: String| StoreError::Damaged {
            path: path.to_owned(),
            problem,
            remedy: "it is compiled again",
        };
        let kept = match std::fs::read(beside(path)) {
            Ok(kept) => kept,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(damaged("there is no digest beside it".to_owned()));
            }
            Err(error) => return Err(StoreError::io(&beside(path), error)),
        };
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(bytes) => hash.update(&buffer[..bytes]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::io(path, error)),
            }
        }
        let found = hex::encode(hash.finalize());
        match kept == found.as_bytes() {
            true => Ok(()),
            false => Err(damaged(format!(
                "its sha256 is {found}, and not the one beside it"
            ))),
        }
    }

    /// Writes a file's whole content, durably. Its folder must be there.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let scratch = self.scratch();
        let write = || {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600);
            fault::point()?;
            let mut file = options.open(&scratch.0)?;
            fault::write_all(&mut file, bytes)?;
            fault::sync(&file)?;
            rename(&scratch.0, path)
        };
        write().map_err(|error| StoreError::io(path, error))?;
        sync_folder(folder_of(path))
    }

    /// Copies `files` of `from` into the model's folder, durably, all or none of them.
    pub(super) fn copy_model(
        &self,
        from: &Path,
        files: &[PathBuf],
        model: &ModelRef,
    ) -> Result<PathBuf, StoreError> {
        let path = self.model(model)?;
        let scratch = self.scratch();
        make_folder(&scratch.0)?;
        let mut folders = vec![scratch.0.clone()];
        for file in files {
            let mut to = scratch.0.clone();
            let mut parts = file.components().peekable();
            while let Some(component) = parts.next() {
                let Component::Normal(name) = component else {
                    return Err(StoreError::BadName {
                        what: "a model's file",
                        text: file.display().to_string(),
                    });
                };
                to.push(name);
                if parts.peek().is_some() && !folders.contains(&to) {
                    make_folder(&to)?;
                    folders.push(to.clone());
                }
            }
            copy(&from.join(file), &to)?;
        }
        for folder in &folders {
            sync_folder(folder)?;
        }
        let parent = folder_of(&path);
        make_folder(parent)?;
        sync_folder(folder_of(parent))?;
        match rename(&scratch.0, &path) {
            // Another call was faster; what is there is whole, and the same.
            Err(_) if path.is_dir() => {}
            result => result.map_err(|error| StoreError::io(&path, error))?,
        }
        sync_folder(parent)?;
        Ok(path)
    }

    /// Removes a component, its compiled code and models. What fails is logged: it is found again as
    /// garbage.
    pub(super) fn forget(&self, content: &Content) {
        let result = match content {
            Content::Component(sha256) => self.component(sha256).and_then(|path| {
                self.take_away(&path)?;
                for engine in list(&self.folder.join(COMPILED))? {
                    let code = engine.join(format!("{sha256}.cwasm"));
                    self.take_away(&code)?;
                    self.take_away(&beside(&code))?;
                }
                Ok(())
            }),
            Content::Model(model) => self.model(model).and_then(|path| {
                self.take_away(&path)?;
                // Another name with the same digest keeps it.
                let _ = std::fs::remove_dir(folder_of(&path));
                Ok(())
            }),
        };
        if let Err(error) = result {
            tracing::warn!(%error, "files of a deleted version were left behind");
        }
    }

    /// Removes all that is not in `kept`, and compiled code that is not `engine`'s.
    pub(super) fn sweep(
        &self,
        kept: &HashSet<Content>,
        engine: &str,
    ) -> Result<Garbage, StoreError> {
        let mut garbage = Garbage::default();
        let is_kept = |component: &str| kept.contains(&Content::Component(component.to_owned()));
        let mut away = |path: &Path| {
            garbage.removed += 1;
            self.take_away(path)
        };
        for path in list(&self.folder.join(COMPONENTS))? {
            if !is_kept(&name_of(&path)) {
                away(&path)?;
            }
        }
        for folder in list(&self.folder.join(COMPILED))? {
            if name_of(&folder) != engine {
                away(&folder)?;
                continue;
            }
            for path in list(&folder)? {
                let name = name_of(&path);
                if !name.strip_suffix(".cwasm").is_some_and(is_kept) {
                    match name.strip_suffix(DIGEST_SUFFIX) {
                        Some(component) if is_kept(component) => {}
                        // It is counted with its code.
                        Some(_) => self.take_away(&path)?,
                        None => away(&path)?,
                    }
                }
            }
        }
        for folder in list(&self.folder.join(MODELS))? {
            for path in list(&folder)? {
                let model = ModelRef {
                    name: name_of(&path),
                    digest: name_of(&folder),
                };
                if !kept.contains(&Content::Model(model)) {
                    away(&path)?;
                }
            }
            // Refused where something is left in it.
            let _ = std::fs::remove_dir(&folder);
        }
        Ok(garbage)
    }

    /// Removes a file or a folder, if it is there. By way of `tmp/`: a folder of which only a part is
    /// gone must not be taken for a whole one.
    pub(super) fn take_away(&self, path: &Path) -> Result<(), StoreError> {
        let scratch = self.scratch();
        match rename(path, &scratch.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            result => result.map_err(|error| StoreError::io(path, error))?,
        }
        sync_folder(folder_of(path))?;
        remove(&scratch.0).map_err(|error| StoreError::io(path, error))
    }
}

/// Makes a folder for its owner alone, if it is not there.
pub(super) fn make_folder(path: &Path) -> Result<(), StoreError> {
    let make = || {
        fault::point()?;
        DirBuilder::new().mode(0o700).create(path)
    };
    match make() {
        Err(_) if path.is_dir() => Ok(()),
        result => result.map_err(|error| StoreError::io(path, error)),
    }
}

/// Makes durable what was made, moved or removed in a folder.
pub(super) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let folder = File::open(path);
    folder
        .and_then(|folder| fault::sync(&folder))
        .map_err(|error| StoreError::io(path, error))
}

/// The folder of one of the store's own paths.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent()
        .expect("it was joined from a folder and a name")
}

/// Where the digest of compiled code is.
fn beside(code: &Path) -> PathBuf {
    code.with_extension(&DIGEST_SUFFIX[1..])
}

fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let mut source = File::open(from).map_err(|source| StoreError::Io {
        path: from.to_owned(),
        source,
    })?;
    let mut write = || {
        let mut options = OpenOptions::new();
        // Twice the same name is no reason to fail.
        options.write(true).create(true).truncate(true).mode(0o600);
        fault::point()?;
        let mut file = options.open(to)?;
        fault::copy(&mut source, &mut file)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        fault::sync(&file)
    };
    write().map_err(|error| StoreError::io(to, error))
}

/// Moves what is at `from`.
pub(super) fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    fault::point()?;
    std::fs::rename(from, to)
}

fn remove(path: &Path) -> std::io::Result<()> {
    fault::point()?;
    let removed = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The paths in a folder; none if it is not there.
fn list(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |error| StoreError::io(folder, error);
    let entries = match std::fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        result => result.map_err(failed)?,
    };
    entries
        .map(|entry| Ok(entry.map_err(failed)?.path()))
        .collect()
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn check_digest(path: &Path, sha256: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let found = hex::encode(Sha256::digest(bytes));
    if found == sha256 {
        return Ok(());
    }
    Err(StoreError::Damaged {
        path: path.to_owned(),
        problem: format!("its sha256 is {found}"),
        remedy: "push the component again",
    })
}

/// `text`, if it can be one part of a path.
fn part<'a>(what: &'static str, text: &'a str) -> Result<&'a str, StoreError> {
    let good = (1..=200).contains(&text.len())
        && !text.starts_with('.')
        && !text.contains(|c: char| c == '/' || c == '\\' || c.is_control());
    if good {
        return Ok(text);
    }
    Err(StoreError::BadName {
        what,
        text: text.chars().take(80).collect(),
    })
}
