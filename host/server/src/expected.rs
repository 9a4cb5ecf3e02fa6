//! Policies that the configuration names for requests: the default policy, aliases, index rules, and those
//! that are expected. What names nothing that there is, is an error at start, unless it may come later:
//! then the server is not ready until it has come.

use std::sync::{Mutex, PoisonError};

use rerankd_core::PolicySelector;
use rerankd_policy::release::{Given, Releases};

use crate::app::App;
use crate::checkout;
use crate::config::Config;
use crate::rerank;

/// A name, and where the configuration has it.
#[derive(Clone)]
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

/// What the configuration names and was not there yet. A version that an alias is pinned to may be deleted
/// later: that fails its own requests, and makes no server unready that was ready.
pub(crate) struct Awaited(Mutex<Vec<Named>>);

impl Awaited {
    /// All that it names.
    pub(crate) fn of(config: &Config) -> Self {
        Self(Mutex::new(named(config)))
    }

    /// What was missing whenever somebody asked, and is now.
    fn still(&self, is_there: impl Fn(&PolicySelector) -> bool) -> Vec<Missing> {
        let mut awaited = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        awaited.retain(|named| !is_there(&named.policy));
        let mut missing: Vec<Missing> = Vec::new();
        for Named { policy, place } in awaited.iter().cloned() {
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
}

/// What the configuration names and was never there since the start.
pub(crate) fn missing(app: &App) -> Vec<Missing> {
    let is_there = |policy: &PolicySelector| app.releases.has(policy).is_ok();
    app.awaited.still(is_there)
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

/// What the index rules give policies, those included that name none and so have the default policy: that of
/// the policies that are served, and of those in files. Where there is no default, the proxy does not start.
pub(crate) fn given(releases: &Releases, files: &[String], config: &Config) -> Vec<Given> {
    let served = releases.catalog().active();
    let mut names: Vec<&str> = served.iter().map(|version| version.name()).collect();
    for file in files {
        if !names.contains(&file.as_str()) {
            names.push(file);
        }
    }
    let default = rerank::default_of(&names, config.default_policy.as_ref(), &config.expect).ok();
    let mut all = Vec::new();
    for rule in config.proxy.iter().flat_map(|proxy| &proxy.rules.indices) {
        let parameters = rule.parameters.as_deref();
        let parameters = parameters.and_then(|text| serde_json::from_str(text).ok());
        if parameters.is_none() && rule.fields.is_none() {
            continue;
        }
        let mut policies = rule.policies.clone();
        if policies.is_empty() {
            policies.extend(default.clone());
        }
        all.extend(policies.into_iter().map(|policy| Given {
            place: place_of(&rule.pattern),
            policy,
            parameters: parameters.clone().unwrap_or_default(),
            fields: rule.fields.clone(),
        }));
    }
    all
}

fn place_of(pattern: &str) -> String {
    format!("[[index]] `{pattern}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_once_is_missing_no_more() {
        let named = |policy: &str, place: &str| Named {
            policy: PolicySelector::parse(policy),
            place: place.to_owned(),
        };
        let awaited = Awaited(Mutex::new(vec![
            named("a@1.0.0", "one"),
            named("b", "two"),
            named("b", "three"),
        ]));
        let missing = |there: &[&str]| {
            let is_there = |policy: &PolicySelector| there.contains(&policy.name.as_str());
            let missing = awaited.still(is_there);
            missing.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let b = "policy `b` is missing (two, three)".to_owned();
        assert_eq!(
            missing(&[]),
            ["policy `a@1.0.0` is missing (one)".to_owned(), b.clone()]
        );
        assert_eq!(missing(&["a"]), [b.as_str()]);
        assert_eq!(missing(&[]), [b.as_str()]);
        assert!(missing(&["b"]).is_empty());
        assert!(missing(&[]).is_empty());
    }
}
