//! Name to active version: the only swappable state. A request reads it once and keeps what it got.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use rerankd_core::{ErrorKind, PolicySelector, RerankError};

use crate::version::PolicyVersion;

/// Shortest digest prefix that names a version.
const MIN_DIGEST_DIGITS: usize = 8;

/// The active policies.
#[derive(Default)]
pub struct Catalog {
    active: RwLock<BTreeMap<String, Arc<PolicyVersion>>>,
}

impl Catalog {
    /// Makes a version the active one of its name.
    pub fn activate(&self, version: Arc<PolicyVersion>) {
        let mut active = self
            .active
            .write()
            .expect("nothing panics while it holds the catalog");
        active.insert(version.name().to_owned(), version);
    }

    /// All active versions, by name.
    pub fn active(&self) -> Vec<Arc<PolicyVersion>> {
        let active = self
            .active
            .read()
            .expect("nothing panics while it holds the catalog");
        active.values().cloned().collect()
    }

    /// The version that a request asks for.
    ///
    /// # Errors
    /// `UnknownPolicy`, listing what there is.
    pub fn resolve(&self, selector: &PolicySelector) -> Result<Arc<PolicyVersion>, RerankError> {
        let active = self
            .active
            .read()
            .expect("nothing panics while it holds the catalog");
        let Some(version) = active.get(&selector.name) else {
            let known: Vec<String> = active.keys().map(|name| format!("`{name}`")).collect();
            return Err(RerankError::new(
                ErrorKind::UnknownPolicy,
                format!(
                    "no policy `{}`; active: {}",
                    selector.name,
                    known.join(", ")
                ),
            ));
        };
        let fits = selector.version.as_deref().is_none_or(|wanted| {
            wanted == version.manifest().version
                || wanted.len() >= MIN_DIGEST_DIGITS && version.digest().starts_with(wanted)
        });
        if fits {
            return Ok(Arc::clone(version));
        }
        Err(RerankError::new(
            ErrorKind::UnknownPolicy,
            format!(
                "no version `{selector}`; active: `{}` (version `{}`)",
                version.label(),
                version.manifest().version
            ),
        ))
    }
}
