//! What the admin plane says of policies, as JSON.

use std::collections::BTreeMap;

use rerankd_policy::store::{ModelRef, NameRecord, VersionRecord};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A version in a role.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct VersionName {
    /// SHA-256, hex, of all that decides its rankings.
    pub digest: String,
    /// The version string of its manifest.
    pub version: String,
}

/// A version that answers a share of the requests.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct CanaryView {
    /// SHA-256, hex, of all that decides its rankings.
    pub digest: String,
    /// The version string of its manifest.
    pub version: String,
    /// Its share, 0 to 100.
    pub percent: f64,
}

/// A policy's name and its roles.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct PolicySummary {
    /// The policy's name.
    pub name: String,
    /// Who answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<VersionName>,
    /// Who answers a share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryView>,
    /// Who is run beside the answers, and compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<VersionName>,
    /// How many versions the store has.
    pub versions: usize,
}

/// All policies that a token may read.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PolicyList {
    /// By name.
    pub policies: Vec<PolicySummary>,
}

/// A policy with all its versions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PolicyDetail {
    /// The policy's name.
    pub name: String,
    /// Who answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<VersionName>,
    /// Who answers after a rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_to: Option<VersionName>,
    /// Who answers a share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryView>,
    /// Who is run beside the answers, and compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<VersionName>,
    /// The latest first.
    pub versions: Vec<VersionView>,
}

/// A component.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ComponentView {
    /// SHA-256, hex.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// A model in a slot.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelView {
    /// The model's name.
    pub name: String,
    /// SHA-256, hex, of its files and settings.
    pub digest: String,
}

/// One version, what decided it, and what became of its calls.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionView {
    /// SHA-256, hex, of all that decides its rankings.
    pub digest: String,
    /// The version string of its manifest.
    pub version: String,
    /// `active`, `canary`, `shadow` or `staged`.
    pub state: &'static str,
    /// The component.
    pub component: ComponentView,
    /// The contract that it is called by.
    pub contract: String,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// What it says about itself.
    #[schema(value_type = Object)]
    pub manifest: Value,
    /// Its models by slot.
    pub models: BTreeMap<String, ModelView>,
    /// Parameters that the operator set.
    #[schema(value_type = Object)]
    pub parameters: Map<String, Value>,
    /// The fields that it may see; absent: those that its manifest and the callers name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grants: Option<Vec<String>>,
    /// Whether it is linked with WASI.
    pub allow_wasi: bool,
    /// Limits of a call, in the unit that the name says.
    pub limits: BTreeMap<String, u64>,
    /// RFC 3339.
    pub created_at: String,
    /// Whose token released it.
    pub by: String,
    /// Where it came from.
    pub source: String,
    /// What became of its cases at release.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub cases: Option<Value>,
    /// What became of its calls since this process first called it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub traffic: Option<Value>,
    /// How it differs from the version that it is the shadow of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub shadow_comparison: Option<Value>,
}

/// What an upload became.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReleasedView {
    /// The policy's name.
    pub name: String,
    /// SHA-256, hex, of all that decides its rankings.
    pub digest: String,
    /// The version string of its manifest.
    pub version: String,
    /// `active` or `staged`.
    pub state: &'static str,
    /// Whether the version was not there before.
    pub created: bool,
    /// Who answered before, if that changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<VersionName>,
    /// What became of its cases.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub cases: Option<Value>,
}

/// Who is active now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ActivatedView {
    /// The policy's name.
    pub name: String,
    /// Who answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<VersionName>,
    /// Who answered before, if that changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<VersionName>,
}

/// A name's roles with the version strings that its versions have.
pub(super) struct Roles<'a> {
    pub(super) name: &'a NameRecord,
    pub(super) versions: &'a [VersionRecord],
}

impl Roles<'_> {
    pub(super) fn version(&self, digest: &str) -> VersionName {
        let record = self.versions.iter().find(|record| record.digest == digest);
        VersionName {
            digest: digest.to_owned(),
            version: record
                .map(|record| record.version.clone())
                .unwrap_or_default(),
        }
    }

    fn canary(&self) -> Option<CanaryView> {
        let canary = self.name.canary.as_ref()?;
        let VersionName { digest, version } = self.version(&canary.digest);
        Some(CanaryView {
            digest,
            version,
            percent: canary.percent,
        })
    }

    fn active(&self) -> Option<VersionName> {
        self.name.active.as_ref().map(|digest| self.version(digest))
    }

    fn shadow(&self) -> Option<VersionName> {
        self.name.shadow.as_ref().map(|digest| self.version(digest))
    }

    pub(super) fn state(&self, digest: &str) -> &'static str {
        let is = |role: Option<&String>| role.is_some_and(|own| own == digest);
        if is(self.name.active.as_ref()) {
            "active"
        } else if is(self.name.canary.as_ref().map(|canary| &canary.digest)) {
            "canary"
        } else if is(self.name.shadow.as_ref()) {
            "shadow"
        } else {
            "staged"
        }
    }

    pub(super) fn summary(&self) -> PolicySummary {
        PolicySummary {
            name: self.name.name.clone(),
            active: self.active(),
            canary: self.canary(),
            shadow: self.shadow(),
            versions: self.versions.len(),
        }
    }

    pub(super) fn activated(&self, previous: Option<&str>) -> ActivatedView {
        ActivatedView {
            name: self.name.name.clone(),
            active: self.active(),
            previous: previous.map(|digest| self.version(digest)),
        }
    }

    /// `traffic` gives a version's calls and its comparison as a shadow.
    pub(super) fn detail(
        &self,
        traffic: impl Fn(&str) -> (Option<Value>, Option<Value>),
    ) -> PolicyDetail {
        let view = |record: &VersionRecord| {
            let (traffic, shadow_comparison) = traffic(&record.digest);
            self.view(record, traffic, shadow_comparison)
        };
        PolicyDetail {
            name: self.name.name.clone(),
            active: self.active(),
            rollback_to: self.name.history.last().map(|digest| self.version(digest)),
            canary: self.canary(),
            shadow: self.shadow(),
            versions: self.versions.iter().rev().map(view).collect(),
        }
    }

    fn view(
        &self,
        record: &VersionRecord,
        traffic: Option<Value>,
        shadow_comparison: Option<Value>,
    ) -> VersionView {
        let model = |(slot, model): (&String, &ModelRef)| {
            let view = ModelView {
                name: model.name.clone(),
                digest: model.digest.clone(),
            };
            (slot.clone(), view)
        };
        VersionView {
            digest: record.digest.clone(),
            version: record.version.clone(),
            state: self.state(&record.digest),
            component: ComponentView {
                sha256: record.component.clone(),
                bytes: record.component_bytes,
            },
            contract: record.contract.clone(),
            imports: record.imports.clone(),
            manifest: record.manifest.clone(),
            models: record.models.iter().map(model).collect(),
            parameters: record.parameters.clone(),
            grants: record.grants.clone(),
            allow_wasi: record.allow_wasi,
            limits: record.limits.clone(),
            created_at: rfc3339(record.created_at_ms),
            by: record.by.clone(),
            source: record.source.clone(),
            cases: record.cases.clone(),
            traffic,
            shadow_comparison,
        }
    }
}

/// Milliseconds since 1970 as `2026-01-31T12:00:00.000Z`.
pub(super) fn rfc3339(ms: u64) -> String {
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms))
        .to_string()
}
