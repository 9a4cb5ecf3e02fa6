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
}

impl Releases {
    /// Says what the configuration gives policies, once, when they are there. Each must be taken by the
    /// version that answers now. If it is not, but another stored version of the policy takes it, the policy
    /// was rolled back, which must not keep the server from starting again: the log says so.
    ///
    /// # Errors
    /// A sentence for each that is wrong.
    pub async fn give(self: &Arc<Self>, given: Vec<Given>) -> Result<(), Vec<String>> {
        let mut faults = Vec::new();
        for given in &given {
            let Ok(chosen) = self.resolve(&given.policy, "").await else {
                // There is no such policy yet.
                continue;
            };
            let version = &chosen.placed.version;
            let Err(problem) = takes(version, given).await else {
                continue;
            };
            let place = &given.place;
            if self.has_another_that_takes(version, given).await {
                let policy = version.label();
                tracing::warn!(
                    policy,
                    "{place} gives parameters that the active version does not take, and another one does: its searches have the engine's order until then"
                );
                continue;
            }
            faults.push(format!(
                "{place}: policy `{}`: {problem}",
                given.policy.name
            ));
        }
        if faults.is_empty() {
            // Only the first call counts.
            let _ = self.given.set(given);
            return Ok(());
        }
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

    async fn has_another_that_takes(&self, active: &PolicyVersion, given: &Given) -> bool {
        let Ok(versions) = self.versions(active.name()).await else {
            return false;
        };
        let others = versions.into_iter().filter(|other| {
            other.digest != active.digest()
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
