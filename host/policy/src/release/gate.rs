//! What this server's configuration gives policies with its own requests: the parameters of index rules.
//! A version that does not take them becomes neither active nor the canary. A rollback is never held up.

use std::sync::Arc;

use rerankd_core::PolicySelector;
use serde_json::{Map, Value};

use super::Releases;
use crate::chores::{self, Undone, Whose};
use crate::error::{ReleaseError, Step};
use crate::parameters::{Counts, ParameterSchema, Unchecked};
use crate::version::{PolicyVersion, said};

/// What a rule of the configuration gives a policy.
#[derive(Debug, Clone)]
pub struct Given {
    /// Where it stands, for messages, such as ``[[index]] `shop` ``.
    pub place: String,
    /// The policy.
    pub policy: PolicySelector,
    /// Its parameters, a JSON object; over those of the version.
    pub parameters: Map<String, Value>,
    /// The fields that it names, which a policy may take as a parameter.
    pub fields: Option<Vec<String>>,
}

impl Given {
    /// Whether a version is one of those that it is given to.
    fn is_for(&self, version: &PolicyVersion) -> bool {
        let wanted = self.policy.version.as_deref();
        self.policy.name == version.name()
            && wanted.is_none_or(|wanted| {
                version.manifest().version == wanted || version.digest().starts_with(wanted)
            })
    }

    /// Parameters as a request has them, but for those that it brings itself.
    fn over(&self, own: &Map<String, Value>, schema: &ParameterSchema) -> Value {
        let mut merged = own.clone();
        merged.extend(self.parameters.clone());
        if let Some(fields) = &self.fields
            && schema.knows("fields")
        {
            merged.insert("fields".to_owned(), Value::from(fields.clone()));
        }
        Value::Object(merged)
    }

    /// What it gives, in the operator's words.
    fn names(&self) -> String {
        let names = self.parameters.keys();
        let names = names.map(|name| format!("`{}`", name.escape_debug()));
        let fields = self.fields.iter().map(|_| "`fields`".to_owned());
        names.chain(fields).collect::<Vec<_>>().join(", ")
    }
}

impl Releases {
    /// Says what the configuration gives policies: from now on a version that does not take it is refused.
    /// Only the first call counts. What serves already is left to [`check_serving`](Self::check_serving).
    pub fn give(&self, given: Vec<Given>) {
        let _ = self.given.set(given);
    }

    /// Whether what [`give`](Self::give) said is taken by the versions that answer now. If one does not take
    /// it, but another stored version of the policy does, the policy was rolled back, which must not keep the
    /// server from starting again: the log says so.
    ///
    /// # Errors
    /// A sentence for each that is wrong.
    pub async fn check_serving(self: &Arc<Self>) -> Result<(), Vec<String>> {
        let mut faults = Vec::new();
        for given in self.given.get().into_iter().flatten() {
            let place = &given.place;
            for (role, version) in self.answering(&given.policy).await {
                let Err(problem) = takes(&version, given).await else {
                    continue;
                };
                if self.has_another_that_takes(&version, given).await {
                    let (policy, names) = (version.label(), given.names());
                    tracing::warn!(
                        policy,
                        "{place} gives {names}, which {role} does not take as it is, and another version does: its searches have the engine's order; activate a version that takes it, or change the rule"
                    );
                    continue;
                }
                let name = &given.policy.name;
                faults.push(format!("{place}: policy `{name}`: {problem}"));
            }
        }
        if faults.is_empty() {
            return Ok(());
        }
        faults.dedup();
        Err(faults)
    }

    /// Refuses a version that does not take what the configuration gives it.
    pub(super) async fn check_given(
        &self,
        version: &Arc<PolicyVersion>,
    ) -> Result<(), ReleaseError> {
        let given = self.given.get().into_iter().flatten();
        for given in given.filter(|given| given.is_for(version)) {
            takes(version, given)
                .await
                .map_err(|problem| match problem {
                    Untaken::Busy => ReleaseError::Busy(Step::Activate),
                    Untaken::Because(problem) => ReleaseError::Rule {
                        place: given.place.clone(),
                        problem,
                    },
                })?;
        }
        Ok(())
    }

    /// The versions that answer a request for a policy, with what they are to it. None: there is no such
    /// policy yet.
    async fn answering(
        self: &Arc<Self>,
        policy: &PolicySelector,
    ) -> Vec<(&'static str, Arc<PolicyVersion>)> {
        if policy.version.is_some() {
            let chosen = self.resolve(policy, "").await;
            let named = chosen.map(|chosen| ("the version that it names", chosen.placed.version));
            return named.into_iter().collect();
        }
        let route = self.catalog.route(&policy.name).unwrap_or_default();
        let active = route.active.as_ref().map(|placed| &placed.version);
        let canary = route.canary.as_ref().map(|canary| &canary.placed.version);
        let active = active.map(|version| ("the active version", Arc::clone(version)));
        let canary = canary.map(|version| ("the canary", Arc::clone(version)));
        active.into_iter().chain(canary).collect()
    }

    async fn has_another_that_takes(&self, version: &PolicyVersion, given: &Given) -> bool {
        let Ok(versions) = self.versions(version.name()).await else {
            return false;
        };
        let others = versions.into_iter().filter(|other| {
            other.digest != version.digest()
                && given.policy.version.as_ref().is_none_or(|wanted| {
                    other.version == *wanted || other.digest.starts_with(wanted)
                })
        });
        for other in others {
            let given = given.clone();
            let takes = chores::run(Whose::Release, move |budget| {
                let schema = other.manifest.get("parameters");
                let schema =
                    ParameterSchema::compile_with(schema, Counts::AsRecorded, budget).ok()?;
                let merged = given.over(&other.parameters, &schema);
                schema.check_partial(&merged, budget).ok()
            });
            if let Ok(Some(())) = takes.await {
                return true;
            }
        }
        false
    }
}

/// Why what is given is not taken.
enum Untaken {
    Because(String),
    Busy,
}

impl std::fmt::Display for Untaken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Because(problem) => f.write_str(problem),
            Self::Busy => f.write_str("its parameters could not be checked: try again"),
        }
    }
}

async fn takes(version: &Arc<PolicyVersion>, given: &Given) -> Result<(), Untaken> {
    let (version, given) = (Arc::clone(version), given.clone());
    let checked = chores::run(Whose::Release, move |budget| {
        let schema = version.schema();
        let merged = given.over(&version.options().parameters, schema);
        schema.check_partial(&merged, budget)
    });
    let undone = |undone: Undone| match undone {
        Undone::Busy => Untaken::Busy,
        undone => Untaken::Because(format!("to check them {undone}")),
    };
    match checked.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Unchecked::Wrong(error))) => Err(Untaken::Because(said(&error.message))),
        Ok(Err(Unchecked::Undone(why))) | Err(why) => Err(undone(why)),
    }
}
