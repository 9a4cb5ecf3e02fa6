//! Policies that the configuration names for requests: the default policy, aliases, index rules, and those
//! that are expected. What names nothing that there is, is an error at start, unless it may come later:
//! then the server is not ready until it has come.

use rerankd_core::PolicySelector;
use rerankd_policy::release::{Given, Releases};

use crate::app::App;
use crate::checkout;
use crate::config::Config;
use crate::rerank;

/// A name, and where the configuration has it.
struct Named {
    policy: PolicySelector,
    place: String,
}

/// Whether the server may start, as far as names go.
///
/// # Errors
/// One sentence for all names that there are not and that nobody expects.
pub(crate) fn check(releases: &Releases, config: &Config) -> Result<(), String> {
    let mut faults = Vec::new();
    for named in named(config) {
        if let Err(problem) = releases.has(&named.policy)
            && !may_come(&named.policy.name, config)
        {
            faults.push(format!("{}: {problem}", named.place));
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}; what is to be released later can be named in `expect = [..]` (--expect)",
        faults.join("; ")
    ))
}

/// Whether a policy may be missing at start: it is expected, or somebody said in which folders policies are
/// put. The folders that are there by default have what came with the server.
fn may_come(name: &str, config: &Config) -> bool {
    config.expect.iter().any(|expected| expected == name)
        || config.policy_folders != checkout::policies()
}

/// A policy that the configuration names and that is not there.
pub(crate) struct Missing {
    policy: PolicySelector,
    places: Vec<String>,
}

impl Missing {
    /// Whether it was said that it comes later.
    pub(crate) fn is_expected(&self, config: &Config) -> bool {
        config.expect.contains(&self.policy.name)
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (policy, places) = (&self.policy, self.places.join(", "));
        write!(f, "policy `{policy}` is missing ({places})")
    }
}

/// What the configuration names and is not there.
pub(crate) fn missing(app: &App) -> Vec<Missing> {
    let mut missing: Vec<Missing> = Vec::new();
    for Named { policy, place } in named(&app.config) {
        if app.releases.has(&policy).is_ok() {
            continue;
        }
        match missing.iter_mut().find(|known| known.policy == policy) {
            Some(known) => known.places.push(place),
            None => missing.push(Missing {
                policy,
                places: vec![place],
            }),
        }
    }
    missing
}

fn named(config: &Config) -> Vec<Named> {
    let mut all = Vec::new();
    let mut add = |policy: &PolicySelector, place: String| {
        all.push(Named {
            policy: policy.clone(),
            place,
        });
    };
    if let Some(policy) = &config.default_policy {
        add(policy, "--default-policy".to_owned());
    }
    for (alias, policy) in &config.wire.aliases {
        add(policy, format!("[wire.aliases] {alias:?}"));
    }
    for rule in config.proxy.iter().flat_map(|proxy| &proxy.rules.indices) {
        for policy in &rule.policies {
            add(policy, place_of(&rule.pattern));
        }
    }
    for name in &config.expect {
        add(&PolicySelector::parse(name), "--expect".to_owned());
    }
    all
}

/// What the index rules give policies, those included that name none and so have the default policy.
///
/// # Errors
/// There is no default policy.
pub(crate) fn given(releases: &Releases, config: &Config) -> Result<Vec<Given>, String> {
    let mut all = Vec::new();
    for rule in config.proxy.iter().flat_map(|proxy| &proxy.rules.indices) {
        let parameters = rule.parameters.as_deref();
        let parameters = parameters.and_then(|text| serde_json::from_str(text).ok());
        if parameters.is_none() && rule.fields.is_none() {
            continue;
        }
        let mut policies = rule.policies.clone();
        if policies.is_empty() {
            let default = rerank::default_of(releases, config);
            policies.push(default.map_err(|error| error.to_string())?);
        }
        all.extend(policies.into_iter().map(|policy| Given {
            place: place_of(&rule.pattern),
            policy,
            parameters: parameters.clone().unwrap_or_default(),
            fields: rule.fields.clone(),
        }));
    }
    Ok(all)
}

fn place_of(pattern: &str) -> String {
    format!("[[index]] `{pattern}`")
}
