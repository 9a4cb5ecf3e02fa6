//! A folder of components: a file that was put there is a release, through the whole pipeline, unless
//! it is what the same file was when it was last deployed. So a folder that did not change leaves alone
//! what was activated by other ways since.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rerankd_inference::files;

use super::{Changed, Releases, Upload, blocking};
use crate::compiler::Priority;
use crate::error::ReleaseError;
use crate::selector::{VersionDigest, VersionSelector};

/// What became of a file.
#[derive(Debug)]
pub enum Deployed {
    /// It is what it was.
    Unchanged,
    /// Its version is active now.
    Activated(Box<Changed>),
}

/// Who releases what a folder has, in the journal.
const FOLDER: &str = "folder";

impl Releases {
    /// Releases and activates the component in a file, whose stem is the policy's name.
    /// `NAME.cases.json` beside it holds its cases, if it is there.
    ///
    /// # Errors
    /// [`ReleaseError`]; the version that was active before stays.
    pub async fn deploy_file(
        self: &Arc<Self>,
        path: &Path,
        priority: Priority,
    ) -> Result<Deployed, ReleaseError> {
        let mut upload = read(path, priority, self.rules.max_component_bytes).await?;
        let deployed = self.try_deploy(path, &mut upload).await;
        if let Err(error) = &deployed {
            self.note_refusal(&upload, error).await;
        }
        deployed
    }

    async fn try_deploy(
        self: &Arc<Self>,
        path: &Path,
        upload: &mut Upload,
    ) -> Result<Deployed, ReleaseError> {
        self.check_open()?;
        let prepared = self.prepare(upload).await?;
        // Held, so that it is not unloaded before it has its role.
        let version = Arc::clone(&prepared.version);
        let digest = version.digest().to_owned();
        let key = path.to_string_lossy().into_owned();
        let store = Arc::clone(&self.store);
        let asked = key.clone();
        let last = blocking(move || store.deployed(&asked)).await??;
        if let Some(last) = last
            && prepared.known.is_some()
        {
            // Its limits are the configuration's doing, not the file's.
            match self.stored(&upload.name, &VersionDigest::known(last)).await {
                Ok(last) if self.is_release_of(&last, &version) => return Ok(Deployed::Unchanged),
                Ok(_) | Err(ReleaseError::UnknownVersion { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.check_given(&version).await?;
        self.stage(upload, prepared).await?;
        let selector = VersionSelector::Digest(VersionDigest::known(&*digest));
        let changed = self.activate(&upload.name, &selector, &upload.who).await?;
        let store = Arc::clone(&self.store);
        blocking(move || store.set_deployed(&key, &digest)).await??;
        Ok(Deployed::Activated(Box::new(changed)))
    }
}

/// The components in a folder, in the order of their names.
///
/// # Errors
/// If the folder cannot be read.
pub fn components(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "wasm")
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

async fn read(path: &Path, priority: Priority, most: usize) -> Result<Upload, ReleaseError> {
    let name = path
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned());
    let (file, beside) = (path.to_owned(), path.with_extension("cases.json"));
    let unreadable =
        |path: &Path, error| ReleaseError::Unreadable(format!("`{}`: {error}", path.display()));
    let (component, cases) = blocking(move || -> Result<_, ReleaseError> {
        let (opened, meta) = files::open(&file).map_err(|error| unreadable(&file, error))?;
        let bytes = usize::try_from(meta.len()).unwrap_or(usize::MAX);
        if bytes > most {
            return Err(ReleaseError::TooLarge {
                bytes,
                max_bytes: most,
            });
        }
        let component = files::read_from(opened, most as u64);
        let component = component.map_err(|error| unreadable(&file, error))?;
        let cases = match files::read_to_string(&beside) {
            Ok(cases) => Some(cases),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(unreadable(&beside, error)),
        };
        Ok((component, cases))
    })
    .await??;
    Ok(Upload {
        name: name.unwrap_or_default(),
        component,
        parameters: serde_json::Map::new(),
        models: std::collections::BTreeMap::new(),
        grants: None,
        cases,
        activate: true,
        who: FOLDER.to_owned(),
        source: path.display().to_string(),
        priority,
    })
}
