//! Which version somebody means, and where it is: with a role, in memory, or in the store.

use std::sync::Arc;
use std::time::Duration;

use rerankd_core::{ErrorKind, PolicySelector, RerankError};
use rerankd_inference::{Inference, InferenceError, Model};

use super::{Releases, blocking};
use crate::catalog::Chosen;
use crate::compiler::Priority;
use crate::error::ReleaseError;
use crate::selector::{VersionDigest, VersionSelector};
use crate::store::{IndexedVersion, ModelRef, Store, VersionRecord};
use crate::version::PolicyVersion;

/// Versions that an error lists.
const MAX_LISTED: usize = 20;

impl Releases {
    /// Who answers a request. `key` says on which side of a canary it is. A version that has no role
    /// is loaded from the store, a few at a time.
    ///
    /// # Errors
    /// `UnknownPolicy`, naming what there is; `Overloaded` if too many are being loaded; `Internal` if a
    /// stored version cannot be loaded.
    pub async fn resolve(
        self: &Arc<Self>,
        selector: &PolicySelector,
        key: &str,
    ) -> Result<Chosen, RerankError> {
        let Some(wanted) = &selector.version else {
            let chosen = self.catalog.choose(&selector.name, key);
            return chosen.ok_or_else(|| self.catalog.unknown(selector));
        };
        let refused =
            |error: ReleaseError| RerankError::new(ErrorKind::UnknownPolicy, error.to_string());
        // In memory up to here: what is unknown costs little.
        let digest = match self.select(&selector.name, &VersionSelector::any(wanted)) {
            Ok(digest) => digest,
            Err(ReleaseError::UnknownPolicy(_)) => return Err(self.catalog.unknown(selector)),
            Err(error) => return Err(refused(error)),
        };
        if let Some(version) = self.in_memory(&selector.name, &digest) {
            return Ok(Chosen::pinned(version));
        }
        let Some(place) = self.loading.place().await else {
            return Err(overloaded(format!(
                "policy `{selector}` is not loaded, and too many other versions are to be loaded before it: try again"
            )));
        };
        let (releases, name) = (Arc::clone(self), selector.name.clone());
        // A task of its own: whoever hangs up does not make place for another while it goes on.
        let loading = tokio::spawn(async move {
            let _place = place;
            releases.load_pinned(&name, &digest).await
        });
        let loaded = loading.await.unwrap_or(Err(ReleaseError::ShuttingDown));
        match loaded {
            Ok(version) => Ok(Chosen::pinned(version)),
            // It has just been deleted.
            Err(error @ ReleaseError::UnknownVersion { .. }) => Err(refused(error)),
            Err(error @ ReleaseError::Busy(_)) => {
                Err(overloaded(format!("policy `{selector}`: {error}")))
            }
            Err(error) => Err(RerankError::new(
                ErrorKind::Internal,
                format!("policy `{selector}`: {error}"),
            )),
        }
    }

    /// Whether a request that names it is answered, as far as memory tells; loads nothing.
    ///
    /// # Errors
    /// A sentence that names what there is.
    pub fn has(&self, selector: &PolicySelector) -> Result<(), String> {
        let is_active = |name: &str| self.catalog.route(name)?.active.as_ref().map(drop);
        match &selector.version {
            None => is_active(&selector.name).ok_or_else(|| self.catalog.unknown(selector).message),
            Some(wanted) => self
                .select(&selector.name, &VersionSelector::any(wanted))
                .map(drop)
                .map_err(|error| match error {
                    ReleaseError::UnknownPolicy(_) => self.catalog.unknown(selector).message,
                    error => error.to_string(),
                }),
        }
    }

    /// Loads a version that has no role, and keeps it for a while; unless somebody else just did.
    async fn load_pinned(
        &self,
        name: &str,
        digest: &VersionDigest,
    ) -> Result<Arc<PolicyVersion>, ReleaseError> {
        if let Some(version) = self.in_memory(name, digest) {
            return Ok(version);
        }
        let as_of = self.loaded().pins.as_of();
        let record = self.stored(name, digest).await?;
        let version = self.load(&record, Priority::Background).await?;
        let dropped = self.loaded().pins.keep(Arc::clone(&version), as_of);
        drop(dropped);
        Ok(version)
    }

    /// A version that has a role, or that somebody asked for lately.
    fn in_memory(&self, name: &str, digest: &VersionDigest) -> Option<Arc<PolicyVersion>> {
        let is_it =
            |version: &PolicyVersion| version.name() == name && version.digest() == digest.as_str();
        let route = self.catalog.route(name).unwrap_or_default();
        if let Some(version) = route.versions().find(|version| is_it(version)) {
            return Some(Arc::clone(version));
        }
        self.loaded().pins.find(is_it)
    }

    /// The one version of a name that is meant. Where several have the same version string it is the one
    /// that answers, if one does. In memory.
    fn select(&self, name: &str, wanted: &VersionSelector) -> Result<VersionDigest, ReleaseError> {
        let found = self.store.select(name, wanted);
        let shown = |versions: &[IndexedVersion]| {
            let each = versions.iter().map(|version| {
                let digest = VersionDigest::known(version.digest.as_str());
                format!("{} ({})", digest.short(), version.version)
            });
            each.collect::<Vec<_>>().join(", ")
        };
        match found.as_slice() {
            [one] => Ok(VersionDigest::known(one.digest.as_str())),
            [] => {
                let known = self.store.latest(name, MAX_LISTED);
                if known.is_empty() {
                    return Err(ReleaseError::UnknownPolicy(name.to_owned()));
                }
                Err(ReleaseError::UnknownVersion {
                    name: name.to_owned(),
                    wanted: wanted.to_string(),
                    known: shown(&known),
                })
            }
            several => {
                if let VersionSelector::Any(_) = wanted {
                    let route = self.catalog.route(name).unwrap_or_default();
                    let mut digests = route.versions().map(|version| version.digest());
                    let answers =
                        digests.find(|digest| several.iter().any(|it| it.digest == *digest));
                    if let Some(digest) = answers {
                        return Ok(VersionDigest::known(digest));
                    }
                }
                Err(ReleaseError::Refused(format!(
                    "`{wanted}` names several versions of `{name}`: {}; say the digest",
                    shown(&several[..several.len().min(MAX_LISTED)])
                )))
            }
        }
    }

    /// The stored version of a name that is meant.
    pub(super) async fn find(
        &self,
        name: &str,
        wanted: &VersionSelector,
    ) -> Result<VersionRecord, ReleaseError> {
        let digest = self.select(name, wanted)?;
        self.stored(name, &digest).await
    }

    /// The stored version with this digest, and no other.
    pub(super) async fn stored(
        &self,
        name: &str,
        digest: &VersionDigest,
    ) -> Result<VersionRecord, ReleaseError> {
        let (store, key) = (Arc::clone(&self.store), (name.to_owned(), digest.clone()));
        let found = blocking(move || store.version(&key.0, key.1.as_str())).await??;
        found.ok_or_else(|| ReleaseError::UnknownVersion {
            name: name.to_owned(),
            wanted: digest.short().to_owned(),
            known: "none with this digest".to_owned(),
        })
    }
}

fn overloaded(message: String) -> RerankError {
    RerankError {
        retry_after: Some(Duration::from_secs(1)),
        ..RerankError::new(ErrorKind::Overloaded, message)
    }
}

/// A model of a stored version: the copy that the store keeps, or else, where that is missing or damaged,
/// one of the operator's that is the same.
pub(super) fn kept_model(
    store: &Store,
    inference: &Inference,
    kept: &ModelRef,
) -> Result<Arc<Model>, InferenceError> {
    let is_it = |model: &Arc<Model>| model.digest() == kept.digest && model.name() == kept.name;
    let problem = match store.model_folder(&kept.name, &kept.digest) {
        None => None,
        Some(folder) => match inference.load_from(&folder) {
            Ok(model) if is_it(&model) => return Ok(model),
            Ok(_) => Some(InferenceError::ModelFile {
                path: folder,
                problem: "it is another model than the one that was kept here".to_owned(),
            }),
            Err(error) => Some(error),
        },
    };
    match (inference.load(&kept.name), problem) {
        (Ok(model), problem) if is_it(&model) => {
            let problem = problem.map(|problem| problem.to_string());
            tracing::warn!(model = kept.name, problem, "a kept model is copied anew");
            let files = model.manifest().file_names();
            let copied = store.mend_model(model.folder(), &files, &kept.name, &kept.digest);
            if let Err(error) = copied {
                tracing::warn!(%error, "a model could not be kept");
            }
            Ok(model)
        }
        (_, Some(problem)) => Err(problem),
        (other, None) => other,
    }
}
