//! The part of the configuration that is about rerank APIs.

use std::collections::BTreeMap;

use rerankd_core::{OnFailure, PolicySelector};
use rerankd_policy::manifest::check_name;
use serde::{Deserialize, Serialize};

use crate::cli::ServeFlags;

/// The part of the file.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileWire {
    on_failure: Option<String>,
    tei_metrics: Option<bool>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
}

/// The alias of whatever a client calls its model.
pub(crate) const CATCH_ALL: &str = "*";

/// How rerank APIs are served.
#[derive(Debug, Clone)]
pub struct WireSettings {
    /// Which policy answers to a foreign model's name; `"*"` is every name that is neither another
    /// alias nor a policy.
    pub aliases: BTreeMap<String, PolicySelector>,
    /// What their routes answer when reranking fails and the request does not say.
    pub on_failure: OnFailure,
    /// Whether the data plane has metrics under the names of text-embeddings-inference.
    pub tei_metrics: bool,
}

impl WireSettings {
    /// Which policy answers to names that nobody knows.
    pub(crate) fn catch_all(&self) -> Option<&PolicySelector> {
        self.aliases.get(CATCH_ALL)
    }

    pub(super) fn resolve(flags: &ServeFlags, file: FileWire, faults: &mut Vec<String>) -> Self {
        let on_failure = match file.on_failure.as_deref() {
            None | Some("error") => OnFailure::Error,
            Some("first-stage") => OnFailure::FirstStage,
            Some(other) => {
                faults.push(format!(
                    "`{other}` (wire.on_failure) must be `error` or `first-stage`"
                ));
                OnFailure::Error
            }
        };
        let aliases = file.aliases.into_iter().filter_map(|(alias, policy)| {
            if alias.is_empty() {
                faults.push("an alias (wire.aliases) must have a name".to_owned());
            }
            let policy = selector(&format!("wire.aliases.{alias:?}"), &policy, faults)?;
            Some((alias, policy))
        });
        Self {
            aliases: aliases.collect(),
            on_failure,
            tei_metrics: flags.tei_metrics || file.tei_metrics == Some(true),
        }
    }

    pub(super) fn to_file(&self) -> FileWire {
        let on_failure = match self.on_failure {
            OnFailure::Error => "error",
            OnFailure::FirstStage => "first-stage",
        };
        let aliases = self.aliases.iter();
        FileWire {
            on_failure: Some(on_failure.to_owned()),
            tei_metrics: Some(self.tei_metrics),
            aliases: aliases
                .map(|(alias, policy)| (alias.clone(), policy.to_string()))
                .collect(),
        }
    }
}

/// A policy, or `policy@version`.
pub(super) fn selector(
    setting: &str,
    text: &str,
    faults: &mut Vec<String>,
) -> Option<PolicySelector> {
    let selector = PolicySelector::parse(text);
    let named = check_name("the policy", &selector.name);
    if named.is_err() || selector.version.as_deref() == Some("") {
        faults.push(format!(
            "`{text}` ({setting}) must be a policy's name, or name@version"
        ));
        return None;
    }
    Some(selector)
}
