//! Name to versions: the only swappable state. A request reads it once and keeps what it got.
//!
//! A name's [`Route`] is replaced as a whole, by one swap of a pointer; who holds a version of the old
//! one goes on with it, and the version's memory goes with its last holder.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use rerankd_core::{ErrorKind, PolicySelector, RerankError};

use crate::split;
use crate::traffic::Probation;
use crate::version::PolicyVersion;

/// Who answers for a name.
#[derive(Clone, Default)]
pub struct Route {
    /// Answers, unless the canary does.
    pub active: Option<Placed>,
    /// Answers its share.
    pub canary: Option<Canary>,
    /// Is run beside the answer, and compared.
    pub shadow: Option<Arc<PolicyVersion>>,
}

/// A version in a role that answers.
#[derive(Clone)]
pub struct Placed {
    /// The version.
    pub version: Arc<PolicyVersion>,
    /// Watches its faults for as long as it may be taken back.
    pub probation: Option<Arc<Probation>>,
}

/// A version that answers a share of the requests.
#[derive(Clone)]
pub struct Canary {
    /// The version.
    pub placed: Placed,
    /// Its share, 0 to 100.
    pub percent: f64,
}

/// What a request got.
#[derive(Clone)]
pub struct Chosen {
    /// Answers the request.
    pub placed: Placed,
    /// To be run afterwards, beside it.
    pub shadow: Option<Arc<PolicyVersion>>,
}

impl Chosen {
    /// A version that was asked for by its digest or version string.
    pub fn pinned(version: Arc<PolicyVersion>) -> Self {
        Self {
            placed: Placed {
                version,
                probation: None,
            },
            shadow: None,
        }
    }
}

impl Route {
    /// The versions that have a role.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<PolicyVersion>> {
        let active = self.active.iter().map(|placed| &placed.version);
        let canary = self.canary.iter().map(|canary| &canary.placed.version);
        active.chain(canary).chain(&self.shadow)
    }

    fn choose(&self, name: &str, key: &str) -> Option<Chosen> {
        let takes = |canary: &&Canary| {
            // The salt is the canary's own, so that the next one has other guinea pigs.
            let salt = canary.placed.version.digest();
            split::in_canary(salt, key, canary.percent)
        };
        let placed = match self.canary.as_ref().filter(takes) {
            Some(canary) => &canary.placed,
            None => self.active.as_ref()?,
        };
        debug_assert_eq!(placed.version.name(), name);
        Some(Chosen {
            placed: placed.clone(),
            shadow: self.shadow.clone(),
        })
    }
}

/// The routes of all names.
#[derive(Default)]
pub struct Catalog {
    routes: RwLock<BTreeMap<String, Arc<Route>>>,
}

impl Catalog {
    /// Replaces a name's route; what is replaced is dropped after the swap, without the lock.
    pub fn set(&self, name: &str, route: Route) {
        let before = self
            .routes
            .write()
            .expect("nothing panics while it holds the catalog")
            .insert(name.to_owned(), Arc::new(route));
        drop(before);
    }

    /// A name's route.
    pub fn route(&self, name: &str) -> Option<Arc<Route>> {
        self.read().get(name).cloned()
    }

    /// All routes, by name.
    pub fn routes(&self) -> Vec<(String, Arc<Route>)> {
        let routes = self.read();
        let routes = routes.iter();
        routes
            .map(|(name, route)| (name.clone(), Arc::clone(route)))
            .collect()
    }

    /// All active versions, by name.
    pub fn active(&self) -> Vec<Arc<PolicyVersion>> {
        let routes = self.read();
        let active = routes.values().filter_map(|route| route.active.as_ref());
        active.map(|placed| Arc::clone(&placed.version)).collect()
    }

    /// Who answers a request that names no version. `key` says on which side of a canary it is.
    pub fn choose(&self, name: &str, key: &str) -> Option<Chosen> {
        self.route(name)?.choose(name, key)
    }

    /// The error of a name that no active version has.
    pub fn unknown(&self, selector: &PolicySelector) -> RerankError {
        let known: Vec<String> = self
            .active()
            .iter()
            .map(|version| format!("`{}`", version.name()))
            .collect();
        let known = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        RerankError::new(
            ErrorKind::UnknownPolicy,
            format!("no policy `{}`; active: {known}", selector.name),
        )
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Arc<Route>>> {
        self.routes
            .read()
            .expect("nothing panics while it holds the catalog")
    }
}
