//! A policy version: a compiled component with its models and parameters, immutable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rerankd_core::{Limits, Refused};
use rerankd_inference::{InferenceError, Model};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use crate::artifact::Artifact;
use crate::bindings::{Reranker, RerankerPre};
use crate::chores::{self, Budget, Undone, Whose};
use crate::engine::PolicyEngine;
use crate::error::{Fault, ReleaseError, Step};
use crate::imports::GuestState;
use crate::manifest::PolicyManifest;
use crate::parameters::{Counts, MAX_PARAMETERS_BYTES, ParameterSchema, Unchecked};
use crate::selector::short;
use crate::traffic::{TrafficBook, VersionTraffic};

/// The contract that this host serves; part of a version's digest.
pub const CONTRACT: &str = "rerank:policy@0.1.0";

/// How long `describe` may take.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest name that a message repeats, bytes.
const MAX_QUOTED_BYTES: usize = 100;

/// Whose account `describe` has: no policy can have this name.
const DESCRIBE_ACCOUNT: &str = "(describe)";

/// What the operator decides about a policy.
#[derive(Debug, Clone, Default)]
pub struct PolicyOptions {
    /// Values for parameters, overlaid by a request's.
    pub parameters: Map<String, Value>,
    /// Models by slot name, where the manifest's default shall not be taken.
    pub models: BTreeMap<String, String>,
    /// Links WASI 0.2 with fixed clocks and seeded randomness.
    pub allow_wasi: bool,
    /// The fields that the policy may see; `None` is those that its manifest and the callers name.
    pub grants: Option<Vec<String>>,
}

/// A component that was checked, compiled and asked for its manifest.
pub struct CompiledPolicy {
    pre: RerankerPre<GuestState>,
    manifest: PolicyManifest,
    manifest_json: String,
    schema: ParameterSchema,
    /// SHA-256 of the component, hex.
    component: String,
    options: PolicyOptions,
    parameter_bytes: usize,
    limits: Limits,
}

/// A policy that can be called.
pub struct PolicyVersion {
    pub(crate) pre: RerankerPre<GuestState>,
    manifest: PolicyManifest,
    manifest_json: String,
    schema: ParameterSchema,
    /// SHA-256 of the component, hex.
    component: String,
    models: Arc<BTreeMap<String, Arc<Model>>>,
    options: PolicyOptions,
    parameter_bytes: usize,
    limits: Limits,
    traffic: Arc<VersionTraffic>,
    digest: String,
    label: String,
}

impl CompiledPolicy {
    /// Compiles a component in this process, for tools and benches: nothing can interrupt it.
    ///
    /// # Errors
    /// The [`ReleaseError`] of the first check that failed.
    pub fn compile_here(
        engine: &PolicyEngine,
        artifact: &Artifact,
        options: PolicyOptions,
        limits: &Limits,
    ) -> Result<Self, ReleaseError> {
        artifact.check_world(options.allow_wasi)?;
        let component = Component::new(engine.engine(), artifact.bytes())
            .map_err(|error| ReleaseError::Compile(said(&one_line(&error))))?;
        let sha256 = artifact.sha256();
        let describing =
            Self::describe(engine, component, sha256, options, limits, Counts::Bounded);
        engine.guests().block_on(describing)
    }

    /// Links a compiled component and calls its `describe`, on the guests' threads. The parameters
    /// and grants of `options` are checked against what it says.
    ///
    /// # Errors
    /// The [`ReleaseError`] of the first check that failed.
    pub(crate) async fn describe(
        engine: &PolicyEngine,
        component: Component,
        sha256: &str,
        options: PolicyOptions,
        limits: &Limits,
        counts: Counts,
    ) -> Result<Self, ReleaseError> {
        let pre = engine
            .linker(options.allow_wasi)
            .instantiate_pre(&component)
            .and_then(RerankerPre::new)
            .map_err(|error| ReleaseError::Contract(said(&one_line(&error))))?;
        let json = ask(engine, &pre, options.allow_wasi, limits).await?;
        let parameters = Value::Object(options.parameters.clone());
        let read = chores::run(Whose::Release, move |budget| {
            read(json, &parameters, counts, budget)
        })
        .await;
        let parameter_bytes = Value::Object(options.parameters.clone()).to_string().len();
        let (json, manifest, schema) = read.map_err(|undone| match undone {
            Undone::Exhausted => ReleaseError::Manifest(undone.to_string()),
            Undone::Busy => ReleaseError::Busy(Step::Describe),
            Undone::Panicked => ReleaseError::Host(format!("its manifest: {undone}")),
        })??;
        check_grants(&manifest, options.grants.as_deref())?;
        Ok(Self {
            pre,
            manifest,
            manifest_json: json,
            schema,
            component: sha256.to_owned(),
            options,
            parameter_bytes,
            limits: limits.clone(),
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

    /// Binds models to the slots, which completes the version. `find_model` gets a slot and the name
    /// of the model for it.
    ///
    /// # Errors
    /// If a model is missing or of the wrong kind.
    pub fn bind(
        self,
        traffic: &TrafficBook,
        find_model: impl Fn(&str, &str) -> Result<Arc<Model>, InferenceError>,
    ) -> Result<PolicyVersion, ReleaseError> {
        let mut models = BTreeMap::new();
        let needed = self.models_needed()?;
        for slot in &self.manifest.models {
            let name = &needed[&slot.name];
            let fail = |problem| ReleaseError::Model {
                slot: slot.name.clone(),
                problem,
            };
            let model = find_model(&slot.name, name).map_err(|error| {
                let name = quoted(name);
                fail(said(&format!("needs the model `{name}`: {error}")))
            })?;
            if model.manifest().kind != slot.kind {
                return Err(fail(format!(
                    "needs a {}, but `{}` is a {}",
                    slot.kind.name(),
                    quoted(name),
                    model.manifest().kind.name()
                )));
            }
            models.insert(slot.name.clone(), model);
        }
        let digest = digest(&self, &models);
        let label = format!("{}@{}", self.manifest.name, short(&digest));
        let traffic = traffic.of(&self.manifest.name, &digest);
        Ok(PolicyVersion {
            pre: self.pre,
            manifest: self.manifest,
            manifest_json: self.manifest_json,
            schema: self.schema,
            component: self.component,
            models: Arc::new(models),
            options: self.options,
            parameter_bytes: self.parameter_bytes,
            limits: self.limits,
            traffic,
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
    /// operator's parameters, the granted fields, and the limits.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The digest's first 8 digits.
    pub fn short_digest(&self) -> &str {
        short(&self.digest)
    }

    /// `name@digest`, for messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Its models by slot.
    pub fn models(&self) -> &Arc<BTreeMap<String, Arc<Model>>> {
        &self.models
    }

    /// The model among its own that stands in for a trained one, if there is one: it is for tests, and
    /// its scores mean nothing.
    pub fn stand_in(&self) -> Option<&str> {
        let mut models = self.models.values();
        let stand_in = models.find(|model| model.manifest().test_only);
        stand_in.map(|model| model.name())
    }

    pub(crate) fn schema(&self) -> &ParameterSchema {
        &self.schema
    }

    /// What the operator decided about it.
    pub fn options(&self) -> &PolicyOptions {
        &self.options
    }

    /// The operator's parameters, bytes of JSON.
    pub(crate) fn parameter_bytes(&self) -> usize {
        self.parameter_bytes
    }

    /// The limits that its calls run under: those of its release.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// SHA-256 of its component, hex.
    pub fn component(&self) -> &str {
        &self.component
    }

    /// The manifest as the policy wrote it.
    pub fn manifest_json(&self) -> &str {
        &self.manifest_json
    }

    /// What is known of its calls.
    pub fn traffic(&self) -> &Arc<VersionTraffic> {
        &self.traffic
    }
}

/// The limits that decide a ranking, by name, as they are part of a version.
pub fn guest_limits(limits: &Limits) -> BTreeMap<String, u64> {
    let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    let cpu_ms = u64::try_from(limits.guest_cpu.as_millis()).unwrap_or(u64::MAX);
    BTreeMap::from([
        ("memory_bytes".to_owned(), count(limits.guest_memory_bytes)),
        ("cpu_ms".to_owned(), cpu_ms),
        ("host_calls".to_owned(), count(limits.guest_host_calls)),
        ("tensor_bytes".to_owned(), count(limits.guest_tensor_bytes)),
    ])
}

/// `limits` with what [`guest_limits`] gave, as far as this host's pool has room.
pub(crate) fn with_guest_limits(limits: &Limits, recorded: &BTreeMap<String, u64>) -> Limits {
    let count = |name: &str, now: usize| {
        recorded
            .get(name)
            .map_or(now, |&value| usize::try_from(value).unwrap_or(usize::MAX))
    };
    Limits {
        guest_memory_bytes: count("memory_bytes", limits.guest_memory_bytes)
            .min(limits.guest_memory_bytes),
        guest_cpu: recorded
            .get("cpu_ms")
            .map_or(limits.guest_cpu, |&ms| Duration::from_millis(ms)),
        guest_host_calls: count("host_calls", limits.guest_host_calls),
        guest_tensor_bytes: count("tensor_bytes", limits.guest_tensor_bytes),
        ..limits.clone()
    }
}

/// Reads what a policy says of itself, and checks the operator's parameters against it.
fn read(
    json: String,
    parameters: &Value,
    counts: Counts,
    budget: &Budget,
) -> Result<(String, PolicyManifest, ParameterSchema), ReleaseError> {
    let size = parameters.to_string().len();
    if size > MAX_PARAMETERS_BYTES && counts == Counts::Bounded {
        return Err(ReleaseError::Parameters(format!(
            "{size} bytes of JSON; at most {MAX_PARAMETERS_BYTES} are taken"
        )));
    }
    let manifest = PolicyManifest::parse_with(&json, counts)
        .map_err(|problem| ReleaseError::Manifest(said(&problem)))?;
    let late = |undone: Undone| format!("to read it {undone}");
    let schema = ParameterSchema::compile_with(manifest.parameters.as_ref(), counts, budget)
        .map_err(|refused| ReleaseError::Schema(said(&refused.unwrap_or_else(late))))?;
    schema
        .check_partial(parameters, budget)
        .map_err(|unchecked| {
            ReleaseError::Parameters(match unchecked {
                Unchecked::Wrong(error) => said(&error.message),
                Unchecked::Undone(undone) => format!("to check them {undone}"),
            })
        })?;
    Ok((json, manifest, schema))
}

fn check_grants(manifest: &PolicyManifest, grants: Option<&[String]>) -> Result<(), ReleaseError> {
    let Some(grants) = grants else {
        return Ok(());
    };
    if grants.iter().any(|field| field == "*") {
        return Ok(());
    }
    let listed = |fields: &mut dyn Iterator<Item = &String>| -> String {
        let fields: Vec<String> = fields.map(|field| format!("`{}`", quoted(field))).collect();
        said(&fields.join(", "))
    };
    let missing = listed(
        &mut manifest
            .fields
            .iter()
            .filter(|field| !grants.contains(field)),
    );
    if missing.is_empty() {
        return Ok(());
    }
    Err(ReleaseError::Grants {
        missing,
        granted: if grants.is_empty() {
            "none".to_owned()
        } else {
            listed(&mut grants.iter())
        },
    })
}

async fn ask(
    engine: &PolicyEngine,
    pre: &RerankerPre<GuestState>,
    allow_wasi: bool,
    limits: &Limits,
) -> Result<String, ReleaseError> {
    let state = GuestState::new(
        engine,
        engine.ledger().open(DESCRIBE_ACCOUNT),
        limits,
        Arc::default(),
        None,
        String::new(),
        allow_wasi,
    )
    .map_err(|refused| match refused {
        Refused::Call { .. } => ReleaseError::Describe(refused.to_string()),
        Refused::Pool { .. } => ReleaseError::Busy(Step::Describe),
    })?;
    let cpu = Arc::clone(&state.cpu);
    let mut store = crate::invoke::bounded_store(engine, state);
    let pre = pre.clone();
    let limits = limits.clone();
    let call = async move {
        let describing = async {
            let policy: Reranker = pre.instantiate_async(&mut store).await?;
            policy
                .rerank_policy_policy()
                .call_describe(&mut store)
                .await
        };
        let called = tokio::time::timeout(DESCRIBE_TIMEOUT, cpu.metered(describing)).await;
        let failed = |fault: Fault| ReleaseError::Describe(fault.to_string());
        match called {
            Ok(Ok(Ok(json))) => {
                cpu.check().map_err(failed)?;
                // Before it waits for anybody to read it.
                PolicyManifest::check_size(&json).map_err(ReleaseError::Manifest)?;
                Ok(json)
            }
            Ok(Ok(Err(error))) if crate::invoke::is_no_room(store.data(), &error) => {
                Err(ReleaseError::Busy(Step::Describe))
            }
            Ok(Ok(Err(error))) => Err(failed(crate::invoke::fault_of(
                &limits,
                store.data(),
                &error,
            ))),
            Ok(Err(fault)) => Err(failed(fault)),
            Err(_) => Err(ReleaseError::Describe(format!(
                "it took over {DESCRIBE_TIMEOUT:?}"
            ))),
        }
    };
    match engine.guests().spawn(call).await {
        Ok(json) => json,
        Err(_) => Err(ReleaseError::ShuttingDown),
    }
}

fn digest(policy: &CompiledPolicy, models: &BTreeMap<String, Arc<Model>>) -> String {
    let mut hash = Sha256::new();
    let mut add = |part: &str| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    };
    add(CONTRACT);
    add(&policy.component);
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
    if let Some(grants) = &policy.options.grants {
        add(&Value::from(grants.clone()).to_string());
    }
    for (name, value) in guest_limits(&policy.limits) {
        add(&format!("{name} {value}"));
    }
    hex::encode(hash.finalize())
}

/// A problem that may be in the policy's own words, as long as it is shown.
pub(crate) fn said(problem: &str) -> String {
    crate::imports::log::words(problem, crate::invoke::MAX_MESSAGE_BYTES)
}

/// A name in a policy's own words, as long as it is shown among others.
fn quoted(name: &str) -> String {
    crate::imports::log::words(name, MAX_QUOTED_BYTES)
}

/// An error with its causes, as one line.
pub(crate) fn one_line(error: &wasmtime::Error) -> String {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    causes.join(": ").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(fields: usize, models: usize, parameters: &Value) -> String {
        let models = (0..models)
            .map(|n| json!({"name": format!("m{n}"), "kind": "cross-encoder", "default": "m"}));
        let manifest = json!({
            "manifest_version": 1, "name": "p", "version": "1.0.0", "description": "",
            "score_kind": "blend", "fields": vec!["f"; fields],
            "models": models.collect::<Vec<_>>(), "parameters": parameters,
        });
        manifest.to_string()
    }

    fn problem(json: &str, parameters: &Value, counts: Counts) -> Option<String> {
        let read = chores::run(Whose::Release, {
            let (json, parameters) = (json.to_owned(), parameters.clone());
            move |budget| read(json, &parameters, counts, budget)
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let read = runtime.expect("the system gives one").block_on(read);
        read.expect("there is room")
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn what_an_older_release_took_is_read_whatever_there_is_of_it() {
        let none = json!({});
        let patterns: Vec<Value> = (0..200)
            .map(|n| json!({"pattern": format!("^{n:0>100}$")}))
            .collect();
        let mut one_large: Vec<Value> = (0..40)
            .map(|n| json!({"pattern": format!("^{n}$")}))
            .collect();
        one_large.push(json!({"pattern": r"^[\w ]{1,40}$"}));
        let filler = json!({"a": "x".repeat(300_000)});
        for (manifest, parameters, says) in [
            (manifest(1025, 0, &none), &none, "at most 1024"),
            (manifest(1, 65, &none), &none, "at most 64"),
            (manifest(1, 0, &none), &filler, "at most 262144"),
            (
                manifest(1, 0, &json!({"pattern": "a".repeat(2000)})),
                &none,
                "at most 1024",
            ),
            (
                manifest(1, 0, &json!({"anyOf": patterns})),
                &none,
                "at most 16384",
            ),
        ] {
            let refused = problem(&manifest, parameters, Counts::Bounded);
            let refused = refused.expect("it is above a bound");
            assert!(refused.contains(says), "{refused}");
            assert_eq!(problem(&manifest, parameters, Counts::AsRecorded), None);
        }
        let large = manifest(1, 0, &json!({"anyOf": one_large}));
        assert_eq!(problem(&large, &none, Counts::Bounded), None);
    }

    #[test]
    fn what_a_policy_asks_for_is_shown_in_part() {
        let mut manifest = PolicyManifest::parse(
            r#"{"manifest_version":1,"name":"p","version":"1","description":"d","fields":[],
                "score_kind":"blend"}"#,
        )
        .expect("it is right");
        manifest.fields = vec!["\u{1b}[2J".to_owned(), "long".repeat(100_000)];
        let problem = check_grants(&manifest, Some(&[])).expect_err("it is granted none");
        let problem = problem.to_string();
        assert!(problem.len() < 400, "{} bytes", problem.len());
        assert!(problem.contains("`\u{fffd}[2J`, `longlong"), "{problem}");
        manifest.fields = vec!["many".to_owned(); 1024];
        let problem = check_grants(&manifest, Some(&[])).expect_err("it is granted none");
        assert!(problem.to_string().len() < 1200);
    }
}
