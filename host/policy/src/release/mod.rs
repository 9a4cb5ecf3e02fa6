//! From an uploaded component to a version that can be activated, step by step:
//!
//! 1. **inspect**: is it a component, of an allowed size, for the policy's world? ([`crate::artifact`])
//! 2. **compile**: native code, in a process of its own ([`crate::compiler`])
//! 3. **describe**: its manifest, the schema of its parameters, the fields that it asks for
//! 4. **models**: each slot gets a loaded model of the right kind
//! 5. **cases**: what it must rank, on the real host ([`SelfTest`])
//! 6. **stage**: it is written to the store
//! 7. **activate**: it takes the role, by one swap (`roles`)
//!
//! A step that fails leaves everything as it was. `restore` brings the roles back after a restart;
//! `folder` turns files into uploads, `journal` tells what happened.

mod cases;
mod clock;
mod find;
mod folder;
mod gate;
#[cfg(test)]
mod interleaving;
mod journal;
mod loading;
mod pins;
mod restore;
mod roles;
mod turns;

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, Weak};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rerankd_core::Limits;
use rerankd_inference::Inference;
use serde_json::{Map, Value};
use tokio::sync::watch;
use wasmtime::component::Component;

use self::clock::Clock;
pub use self::folder::{Deployed, components};
pub use self::gate::Given;
use self::loading::Loading;
use self::pins::Pins;
pub use self::roles::Changed;
use self::turns::Turns;
use crate::artifact::Artifact;
use crate::catalog::Catalog;
use crate::compiler::{self, Code, Compiler, Priority};
use crate::engine::PolicyEngine;
use crate::error::{ReleaseError, Step};
use crate::parameters::Counts;
use crate::selector::{VersionDigest, VersionSelector, VersionString};
use crate::store::{JournalDraft, NameRecord, Store, VersionRecord};
use crate::sync::{Mutex, MutexGuard};
use crate::traffic::{ProbationRules, TrafficBook};
use crate::version::{CompiledPolicy, PolicyOptions, PolicyVersion};

/// Who did what nobody asked for, in the journal.
const HOST: &str = "rerankd";

/// What the operator decided for all releases.
#[derive(Debug, Clone)]
pub struct Rules {
    /// By policy name: parameters, models, WASI, and the fields that it may be granted.
    pub policies: BTreeMap<String, PolicyOptions>,
    /// Limits that new versions run under.
    pub limits: Limits,
    /// Largest component, bytes.
    pub max_component_bytes: usize,
    /// When a version is taken back by itself.
    pub probation: ProbationRules,
}

/// Runs a policy's cases.
pub trait SelfTest: Send + Sync {
    /// Runs `cases`, JSON, on `version`.
    ///
    /// # Errors
    /// What is wrong with the cases themselves, or that there is no room to run them.
    fn run(&self, version: Arc<PolicyVersion>, cases: String) -> TestRun;
}

/// A running self-test.
pub type TestRun = Pin<Box<dyn Future<Output = Result<TestReport, ReleaseError>> + Send>>;

/// What became of a policy's cases.
#[derive(Debug, Clone)]
pub struct TestReport {
    /// Cases.
    pub total: usize,
    /// Cases that failed.
    pub failed: usize,
    /// The first that failed, and why.
    pub first_failure: Option<String>,
    /// All results, as they are shown.
    pub json: Value,
}

/// A component on its way in.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The name under which it is released; its manifest must say the same.
    pub name: String,
    /// The component.
    pub component: Vec<u8>,
    /// Parameters, over those of the operator's configuration.
    pub parameters: Map<String, Value>,
    /// Models by slot, over those of the operator's configuration.
    pub models: BTreeMap<String, String>,
    /// The fields that it may see; `None` is those that the configuration grants.
    pub grants: Option<Vec<String>>,
    /// Cases beside the component, JSON; they replace those that it carries.
    pub cases: Option<String>,
    /// Whether it becomes active if all goes well.
    pub activate: bool,
    /// Who did it.
    pub who: String,
    /// Where it comes from, for people.
    pub source: String,
    /// How much its compilation matters.
    pub priority: Priority,
}

/// What an upload became.
#[derive(Debug, Clone)]
pub struct Released {
    /// The version.
    pub version: VersionRecord,
    /// Whether it was not there before.
    pub created: bool,
    /// What its activation changed, if it was asked for.
    pub activated: Option<Changed>,
}

/// The pipeline, the store, and the roles.
pub struct Releases {
    engine: Arc<PolicyEngine>,
    inference: Arc<Inference>,
    store: Arc<Store>,
    compiler: Compiler,
    engine_key: String,
    self_test: Box<dyn SelfTest>,
    rules: Rules,
    catalog: Catalog,
    traffic: Arc<TrafficBook>,
    loaded: Mutex<Loaded>,
    loading: Loading,
    /// Held while files of an upload are written: what is left of one that fails is its own.
    staging: Arc<Mutex<()>>,
    /// Held while roles change: one change at a time, and the catalog follows the store.
    changing: Turns,
    /// Grows with every journal entry.
    journal_moved: watch::Sender<u64>,
    taken_back: AtomicU64,
    closing: AtomicBool,
    /// What the configuration gives policies, once it is known.
    given: OnceLock<Vec<Given>>,
}

/// Versions in memory.
#[derive(Default)]
struct Loaded {
    by_digest: HashMap<String, Weak<PolicyVersion>>,
    /// When a fault of a version was last written to the journal, by digest.
    faults: HashMap<String, Instant>,
    pins: Pins<PolicyVersion>,
}

/// A component that went through all steps before `stage`.
struct Prepared {
    artifact: Artifact,
    /// The code, unless the store has it.
    code: Option<Vec<u8>>,
    version: Arc<PolicyVersion>,
    /// What the store has of the same version.
    known: Option<VersionRecord>,
    report: Option<Value>,
    clock: Clock,
}

impl Releases {
    /// A pipeline without any policy yet; [`restore`](Self::restore) and
    /// [`deploy_file`](Self::deploy_file) bring them.
    pub fn new(
        engine: Arc<PolicyEngine>,
        inference: Arc<Inference>,
        store: Store,
        compiler: Compiler,
        self_test: Box<dyn SelfTest>,
        rules: Rules,
    ) -> Self {
        Self {
            engine_key: compiler::engine_key(&engine),
            engine,
            inference,
            store: Arc::new(store),
            compiler,
            self_test,
            rules,
            catalog: Catalog::default(),
            traffic: Arc::default(),
            loaded: Mutex::default(),
            loading: Loading::default(),
            staging: Arc::default(),
            changing: Turns::default(),
            journal_moved: watch::Sender::new(0),
            taken_back: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            given: OnceLock::new(),
        }
    }

    /// Who answers for which name.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// What is known of calls, by version.
    pub fn traffic(&self) -> &TrafficBook {
        &self.traffic
    }

    /// How many versions were taken back by themselves since the start.
    pub fn taken_back(&self) -> u64 {
        self.taken_back.load(Ordering::Relaxed)
    }

    /// From now on nothing changes any more.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// The whole pipeline.
    ///
    /// # Errors
    /// [`ReleaseError`], which names the step. Nothing was changed, and the journal says so. If only
    /// the activation failed, the version is staged.
    pub async fn upload(self: &Arc<Self>, mut upload: Upload) -> Result<Released, ReleaseError> {
        let outcome = self.try_upload(&mut upload).await;
        if let Err(error) = &outcome {
            self.note_refusal(&upload, error).await;
        }
        outcome
    }

    /// All steps up to the cases, without a trace; gives the version and what became of its cases.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub async fn check(
        self: &Arc<Self>,
        mut upload: Upload,
    ) -> Result<(Arc<PolicyVersion>, Option<Value>), ReleaseError> {
        let prepared = self.prepare(&mut upload).await?;
        Ok((prepared.version, prepared.report))
    }

    async fn try_upload(self: &Arc<Self>, upload: &mut Upload) -> Result<Released, ReleaseError> {
        self.check_open()?;
        let prepared = self.prepare(upload).await?;
        if upload.activate {
            // Before anything is kept of it.
            self.check_given(&prepared.version).await?;
        }
        // Held, so that it is not unloaded before it has its role.
        let (_version, mut clock) = (Arc::clone(&prepared.version), prepared.clock);
        let staged = self.stage(upload, prepared).await?;
        clock.ended(Step::Stage);
        let activated = match upload.activate {
            true => {
                let digest = VersionDigest::known(staged.0.digest.as_str());
                let selector = VersionSelector::Digest(digest);
                Some(self.activate(&upload.name, &selector, &upload.who).await?)
            }
            false => None,
        };
        clock.ended(Step::Activate);
        clock.tell(&upload.name, &staged.0.digest);
        Ok(Released {
            version: staged.0,
            created: staged.1,
            activated,
        })
    }

    /// All steps before `stage`. Takes the component out of the upload.
    async fn prepare(self: &Arc<Self>, upload: &mut Upload) -> Result<Prepared, ReleaseError> {
        let mut clock = Clock::start();
        let options = self.options(upload)?;
        let bytes = std::mem::take(&mut upload.component);
        let most = self.rules.max_component_bytes;
        let artifact = blocking(move || Artifact::inspect(bytes, most)).await??;
        artifact.check_world(options.allow_wasi)?;
        clock.ended(Step::Inspect);

        let mut code = None;
        let component = match self.kept_code(artifact.sha256()).await {
            Some(component) => component,
            None => {
                let compiling = self.compiler.compile(artifact.bytes(), upload.priority);
                let (made, component) = self.loaded_code(compiling.await?).await?;
                code = Some(made);
                component
            }
        };
        clock.ended(Step::Compile);
        let compiled = CompiledPolicy::describe(
            &self.engine,
            component.clone(),
            artifact.sha256(),
            options,
            &self.rules.limits,
            Counts::Bounded,
        )
        .await?;
        if compiled.manifest().name != upload.name {
            return Err(ReleaseError::Name {
                found: compiled.manifest().name.clone(),
                wanted: upload.name.clone(),
            });
        }
        clock.ended(Step::Describe);
        let mut version = self.bind(compiled, None).await?;
        clock.ended(Step::Models);
        let mut known = self.known(&version).await?;
        if let Some(record) = known.take_if(|known| known.digest != version.digest()) {
            // The one that the store has goes on; where it cannot be loaded any more, this one is new.
            match self.load(&record, upload.priority).await {
                Ok(same) => (version, known) = (same, Some(record)),
                Err(error) => {
                    let error = error.for_log();
                    tracing::warn!(policy = upload.name, error, "a version is made anew");
                }
            }
        }
        if known.is_none() {
            // What an older rerankd stored goes on as it is.
            VersionString::new(&version.manifest().version).map_err(ReleaseError::Manifest)?;
        }
        let report = self
            .run_cases(upload, &artifact, component, &version, known.as_ref())
            .await?;
        clock.ended(Step::Cases);
        Ok(Prepared {
            artifact,
            code,
            version,
            known,
            report,
            clock,
        })
    }

    /// The operator's options under the upload's.
    fn options(&self, upload: &Upload) -> Result<PolicyOptions, ReleaseError> {
        let mut options = self
            .rules
            .policies
            .get(&upload.name)
            .cloned()
            .unwrap_or_default();
        options.parameters.extend(upload.parameters.clone());
        options.models.extend(upload.models.clone());
        if let Some(asked) = &upload.grants {
            if let Some(ceiling) = options
                .grants
                .as_ref()
                .filter(|most| !most.contains(&"*".to_owned()))
            {
                let beyond: Vec<String> = asked
                    .iter()
                    .filter(|field| !ceiling.contains(field))
                    .map(|field| format!("`{field}`"))
                    .collect();
                if !beyond.is_empty() {
                    return Err(ReleaseError::Grants {
                        missing: beyond.join(", "),
                        granted: format!("{} (by the configuration)", ceiling.join(", ")),
                    });
                }
            }
            // Their order and number must not make another version.
            let mut asked = asked.clone();
            asked.sort();
            asked.dedup();
            options.grants = Some(asked);
        }
        Ok(options)
    }

    /// A component's code from the store; `None`, and a line in the log, if it cannot be used.
    async fn kept_code(&self, sha256: &str) -> Option<Component> {
        let (engine, store) = (Arc::clone(&self.engine), Arc::clone(&self.store));
        let (engine_key, sha256) = (self.engine_key.clone(), sha256.to_owned());
        let loaded = blocking(move || {
            let path = store.compiled(&engine_key, &sha256)?;
            let loaded = compiler::load(&engine, &Code::File(&path));
            loaded
                .inspect_err(|error| tracing::warn!(%error, "compiled code is made anew"))
                .ok()
        });
        loaded.await.ok().flatten()
    }

    /// Code that was just made, and the component that it is.
    async fn loaded_code(&self, code: Vec<u8>) -> Result<(Vec<u8>, Component), ReleaseError> {
        let engine = Arc::clone(&self.engine);
        blocking(move || {
            let component = compiler::load(&engine, &Code::Bytes(&code))?;
            Ok((code, component))
        })
        .await?
    }

    /// Gives a policy its models: those that `recorded` names by digest, else those in the model
    /// folders. The version is one that is loaded already, if there is one.
    async fn bind(
        &self,
        compiled: CompiledPolicy,
        recorded: Option<&VersionRecord>,
    ) -> Result<Arc<PolicyVersion>, ReleaseError> {
        let (inference, store) = (Arc::clone(&self.inference), Arc::clone(&self.store));
        let models = recorded.map(|record| record.models.clone());
        let bind = move |book: &TrafficBook| {
            compiled.bind(book, |slot, name| {
                let kept = models.as_ref().and_then(|models| models.get(slot));
                match kept {
                    Some(kept) => find::kept_model(&store, &inference, kept),
                    None => inference.load(name),
                }
            })
        };
        let book = Arc::clone(&self.traffic);
        let version = Arc::new(blocking(move || bind(&book)).await??);
        let mut loaded = self.loaded();
        loaded
            .by_digest
            .retain(|_, version| version.strong_count() > 0);
        if let Some(same) = loaded
            .by_digest
            .get(version.digest())
            .and_then(Weak::upgrade)
        {
            return Ok(same);
        }
        let digest = version.digest().to_owned();
        loaded.by_digest.insert(digest, Arc::downgrade(&version));
        Ok(version)
    }

    /// Files first, then the record that names them.
    async fn stage(
        &self,
        upload: &Upload,
        prepared: Prepared,
    ) -> Result<(VersionRecord, bool), ReleaseError> {
        self.check_open()?;
        if let Some(known) = prepared.known {
            return Ok((known, false));
        }
        let record = restore::record(upload, &prepared);
        let draft = JournalDraft {
            digest: Some(record.digest.clone()),
            version: Some(record.version.clone()),
            message: Some(format!("from {}", upload.source)),
            ..draft("staged", &upload.name, &upload.who)
        };
        let (store, engine_key) = (Arc::clone(&self.store), self.engine_key.clone());
        let staging = Arc::clone(&self.staging);
        let staged = blocking(move || -> Result<_, ReleaseError> {
            let _alone = staging.lock().unwrap_or_else(PoisonError::into_inner);
            let put = || {
                store.check_new(&record)?;
                store.put_component(&record.component, prepared.artifact.bytes())?;
                if let Some(code) = &prepared.code {
                    store.put_compiled(&engine_key, &record.component, code)?;
                }
                for model in prepared.version.models().values() {
                    let files = model.manifest().file_names();
                    store.keep_model(model.folder(), &files, model.name(), model.digest())?;
                }
                store.stage(&record, draft)
            };
            let staged = put().inspect_err(|_| store.abandon_unstaged())?;
            Ok((record, staged.created))
        })
        .await??;
        self.moved();
        Ok(staged)
    }

    /// Every name that the store knows.
    ///
    /// # Errors
    /// [`ReleaseError::Store`].
    pub async fn names(&self) -> Result<Vec<NameRecord>, ReleaseError> {
        let store = Arc::clone(&self.store);
        Ok(blocking(move || store.names()).await??)
    }

    /// One name.
    ///
    /// # Errors
    /// [`ReleaseError::Store`].
    pub async fn name(&self, name: &str) -> Result<Option<NameRecord>, ReleaseError> {
        let (store, name) = (Arc::clone(&self.store), name.to_owned());
        Ok(blocking(move || store.name(&name)).await??)
    }

    /// The versions of a name, oldest first.
    ///
    /// # Errors
    /// [`ReleaseError::Store`].
    pub async fn versions(&self, name: &str) -> Result<Vec<VersionRecord>, ReleaseError> {
        let (store, name) = (Arc::clone(&self.store), name.to_owned());
        Ok(blocking(move || store.versions(&name)).await??)
    }

    fn check_open(&self) -> Result<(), ReleaseError> {
        if self.closing.load(Ordering::Acquire) {
            return Err(ReleaseError::ShuttingDown);
        }
        Ok(())
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs work that waits for a disk or a model where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ReleaseError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| match error.is_cancelled() {
            true => ReleaseError::ShuttingDown,
            false => ReleaseError::Host("a step panicked".to_owned()),
        })
}

/// A journal entry of now.
pub fn draft(kind: &str, policy: &str, who: &str) -> JournalDraft {
    JournalDraft {
        at_ms: now_ms(),
        kind: kind.to_owned(),
        policy: policy.to_owned(),
        who: who.to_owned(),
        ..JournalDraft::default()
    }
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
