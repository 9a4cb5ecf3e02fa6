//! A policy version: a compiled component with its models and parameters, immutable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rerankd_core::Limits;
use rerankd_inference::Model;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use crate::bindings::{Reranker, RerankerPre};
use crate::engine::PolicyEngine;
use crate::error::ReleaseError;
use crate::imports::GuestState;
use crate::manifest::PolicyManifest;
use crate::parameters::ParameterSchema;

/// The contract that this host serves; part of a version's digest.
pub const CONTRACT: &str = "rerank:policy@0.1.0";

const EXPORT: &str = "rerank:policy/policy@0.1.0";

const IMPORTS: [&str; 7] = [
    "wasi:nn/tensor@0.2.0-rc-2024-10-28",
    "wasi:nn/graph@0.2.0-rc-2024-10-28",
    "wasi:nn/inference@0.2.0-rc-2024-10-28",
    "wasi:nn/errors@0.2.0-rc-2024-10-28",
    "rerank:policy/tokenizer@0.1.0",
    "rerank:policy/log@0.1.0",
    "rerank:policy/types@0.1.0",
];

/// How long `describe` may take.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the operator decides about a policy.
#[derive(Debug, Clone, Default)]
pub struct PolicyOptions {
    /// Values for parameters, overlaid by a request's.
    pub parameters: Map<String, Value>,
    /// Models by slot name, where the manifest's default shall not be taken.
    pub models: BTreeMap<String, String>,
    /// Links WASI 0.2 with fixed clocks and seeded randomness.
    pub allow_wasi: bool,
}

/// A component that was checked, compiled and asked for its manifest.
pub struct CompiledPolicy {
    pre: RerankerPre<GuestState>,
    manifest: PolicyManifest,
    schema: ParameterSchema,
    component_digest: [u8; 32],
    options: PolicyOptions,
}

/// A policy that can be called.
pub struct PolicyVersion {
    pub(crate) pre: RerankerPre<GuestState>,
    manifest: PolicyManifest,
    schema: ParameterSchema,
    models: Arc<BTreeMap<String, Arc<Model>>>,
    options: PolicyOptions,
    digest: String,
    label: String,
}

impl CompiledPolicy {
    /// Checks and compiles a component, and calls its `describe`. Takes tens of milliseconds of CPU:
    /// not for a thread that serves requests.
    ///
    /// # Errors
    /// The [`ReleaseError`] of the first check that failed.
    pub fn compile(
        engine: &PolicyEngine,
        bytes: &[u8],
        options: PolicyOptions,
    ) -> Result<Self, ReleaseError> {
        let component = Component::new(engine.engine(), bytes)
            .map_err(|error| ReleaseError::NotAComponent(one_line(&error)))?;
        check_world(engine, &component, options.allow_wasi)?;
        let pre = engine
            .linker(options.allow_wasi)
            .instantiate_pre(&component)
            .and_then(RerankerPre::new)
            .map_err(|error| ReleaseError::Contract(one_line(&error)))?;
        let json = describe(engine, &pre, options.allow_wasi)?;
        let manifest = PolicyManifest::parse(&json).map_err(ReleaseError::Manifest)?;
        let schema =
            ParameterSchema::compile(manifest.parameters.as_ref()).map_err(ReleaseError::Schema)?;
        schema
            .check_partial(&options.parameters)
            .map_err(|error| ReleaseError::Parameters(error.message))?;
        let component_digest = Sha256::digest(bytes).into();
        Ok(Self {
            pre,
            manifest,
            schema,
            component_digest,
            options,
        })
    }

    /// What the policy says about itself.
    pub fn manifest(&self) -> &PolicyManifest {
        &self.manifest
    }

    /// The model to load for each slot: the operator's binding, else the manifest's default.
    ///
    /// # Errors
    /// If the operator binds a slot that the manifest does not have.
    pub fn models_needed(&self) -> Result<BTreeMap<String, String>, ReleaseError> {
        let slots = &self.manifest.models;
        if let Some(slot) = self
            .options
            .models
            .keys()
            .find(|name| !slots.iter().any(|slot| &&slot.name == name))
        {
            let known: Vec<&str> = slots.iter().map(|slot| slot.name.as_str()).collect();
            return Err(ReleaseError::Model {
                slot: slot.clone(),
                problem: format!("does not exist; its manifest has: {}", known.join(", ")),
            });
        }
        let bound = |slot: &crate::manifest::ModelSlot| {
            self.options
                .models
                .get(&slot.name)
                .unwrap_or(&slot.default)
                .clone()
        };
        Ok(slots
            .iter()
            .map(|slot| (slot.name.clone(), bound(slot)))
            .collect())
    }

    /// Binds models to the slots, which completes the version.
    ///
    /// # Errors
    /// If a model is missing or of the wrong kind.
    pub fn bind(
        self,
        limits: &Limits,
        find_model: impl Fn(&str) -> Option<Arc<Model>>,
    ) -> Result<PolicyVersion, ReleaseError> {
        let mut models = BTreeMap::new();
        let needed = self.models_needed()?;
        for slot in &self.manifest.models {
            let name = &needed[&slot.name];
            let fail = |problem| ReleaseError::Model {
                slot: slot.name.clone(),
                problem,
            };
            let model = find_model(name)
                .ok_or_else(|| fail(format!("needs the model `{name}`, which is not loaded")))?;
            if model.manifest().kind != slot.kind {
                return Err(fail(format!(
                    "needs a {}, but `{name}` is a {}",
                    slot.kind.name(),
                    model.manifest().kind.name()
                )));
            }
            models.insert(slot.name.clone(), model);
        }
        let digest = digest(&self, &models, limits);
        let label = format!("{}@{}", self.manifest.name, &digest[..8]);
        Ok(PolicyVersion {
            pre: self.pre,
            manifest: self.manifest,
            schema: self.schema,
            models: Arc::new(models),
            options: self.options,
            digest,
            label,
        })
    }
}

impl PolicyVersion {
    /// The policy's name.
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// What the policy says about itself.
    pub fn manifest(&self) -> &PolicyManifest {
        &self.manifest
    }

    /// SHA-256, hex, of all that decides a ranking: the component, the contract, the models, the
    /// operator's parameters, and the limits.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The digest's first 8 digits.
    pub fn short_digest(&self) -> &str {
        &self.digest[..8]
    }

    /// `name@digest`, for messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Its models by slot.
    pub fn models(&self) -> &Arc<BTreeMap<String, Arc<Model>>> {
        &self.models
    }

    pub(crate) fn schema(&self) -> &ParameterSchema {
        &self.schema
    }

    pub(crate) fn options(&self) -> &PolicyOptions {
        &self.options
    }
}

/// Names the first import or export that does not fit, which says more than a linker error.
fn check_world(
    engine: &PolicyEngine,
    component: &Component,
    allow_wasi: bool,
) -> Result<(), ReleaseError> {
    let component_type = component.component_type();
    for (name, _) in component_type.imports(engine.engine()) {
        let wasi = allow_wasi && name.starts_with("wasi:") && !name.starts_with("wasi:nn/");
        if !wasi && !IMPORTS.contains(&name) {
            return Err(ReleaseError::UnknownImport(
                name.to_owned(),
                IMPORTS.join(", "),
            ));
        }
    }
    if component_type
        .exports(engine.engine())
        .any(|(name, _)| name == EXPORT)
    {
        Ok(())
    } else {
        Err(ReleaseError::MissingExport(EXPORT.to_owned()))
    }
}

fn describe(
    engine: &PolicyEngine,
    pre: &RerankerPre<GuestState>,
    allow_wasi: bool,
) -> Result<String, ReleaseError> {
    let state = GuestState::new(engine, Arc::default(), None, String::new(), allow_wasi);
    let mut store = crate::invoke::bounded_store(engine, state);
    let call = async {
        let called = tokio::time::timeout(DESCRIBE_TIMEOUT, async {
            let policy: Reranker = pre.instantiate_async(&mut store).await?;
            policy
                .rerank_policy_policy()
                .call_describe(&mut store)
                .await
        })
        .await;
        match called {
            Ok(Ok(json)) => Ok(json),
            Ok(Err(error)) => {
                let fault = crate::invoke::fault_of(engine.limits(), store.data(), &error);
                Err(ReleaseError::Describe(fault.to_string()))
            }
            Err(_) => Err(ReleaseError::Describe(format!(
                "it took over {DESCRIBE_TIMEOUT:?}"
            ))),
        }
    };
    engine.guests().block_on(call)
}

fn digest(
    policy: &CompiledPolicy,
    models: &BTreeMap<String, Arc<Model>>,
    limits: &Limits,
) -> String {
    let mut hash = Sha256::new();
    let mut add = |part: &str| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    };
    add(CONTRACT);
    add(&hex::encode(policy.component_digest));
    for (slot, model) in models {
        add(slot);
        add(model.name());
        add(model.digest());
    }
    // serde_json keeps object keys sorted, so equal parameters have equal text.
    add(&Value::Object(policy.options.parameters.clone()).to_string());
    add(if policy.options.allow_wasi {
        "wasi"
    } else {
        ""
    });
    add(&format!(
        "{} {} {} {}",
        limits.guest_memory_bytes,
        limits.guest_cpu.as_millis(),
        limits.guest_host_calls,
        limits.guest_tensor_bytes
    ));
    hex::encode(hash.finalize())
}

/// An error with its causes, as one line.
pub(crate) fn one_line(error: &wasmtime::Error) -> String {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    causes.join(": ").replace('\n', " ")
}
