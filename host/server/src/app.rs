//! Builds everything, once, and knows every type.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use futures_util::StreamExt;
use rerankd_inference::{Inference, InferenceConfig};
use rerankd_policy::compiler::{Compiler, Priority};
use rerankd_policy::error::ReleaseError;
use rerankd_policy::release::{self, Releases, Rules};
use rerankd_policy::store::Store;
use rerankd_policy::{PolicyEngine, PolicyVersion};
use tokio::sync::Semaphore;

use crate::admin::Tokens;
use crate::admin::tokens::ADMIN_TOKEN;
use crate::admission::{Admission, Room};
use crate::api_keys::ApiKeys;
use crate::checkout;
use crate::config::Config;
use crate::connections::Connections;
use crate::data_folder::DataFolder;
use crate::expected::{self, Awaited};
use crate::listener::Draining;
use crate::parts;
use crate::self_test::CaseRunner;
use crate::shadow::Shadow;
use crate::telemetry::Telemetry;

/// Uploads that may be under way at a time; each holds a component in memory.
const MAX_UPLOADS: usize = 4;

/// Files that are released at a time at start.
const DEPLOYED_AT_A_TIME: usize = 2;

/// The object graph of one process.
pub struct App {
    /// What it was built from.
    pub config: Config,
    /// Models and the row scheduler.
    pub inference: Arc<Inference>,
    /// Runs policies.
    pub engine: Arc<PolicyEngine>,
    /// Policies: who answers for which name, and how that changes.
    pub releases: Arc<Releases>,
    /// Runs beside the answers.
    pub shadow: Shadow,
    /// One permit for each upload that is whole and under way.
    pub uploads: Semaphore,
    /// Room for bodies on the admin plane, whole or not.
    pub upload_room: Room,
    /// One permit: one call at a time fills the row cache.
    pub warming: Semaphore,
    /// Who may call the data plane.
    pub api_keys: ApiKeys,
    /// How much may come in.
    pub admission: Admission,
    /// Every metric.
    pub telemetry: Telemetry,
    /// Where what outlives the process is kept.
    pub data: DataFolder,
    /// Who may do what on the admin plane.
    pub tokens: Tokens,
    /// What the configuration names and was not there yet.
    pub(crate) awaited: Awaited,
    /// Whether the process is going down.
    pub draining: Draining,
    /// Who is connected.
    pub connections: Arc<Connections>,
}

impl App {
    /// Opens the data folder, brings back what it says, and releases what the folders have.
    ///
    /// # Errors
    /// The first thing that is wrong, with the file it is wrong in.
    pub async fn build(config: Config) -> anyhow::Result<Arc<Self>> {
        parts::check(&config).map_err(anyhow::Error::msg)?;
        let data = DataFolder::open(&config.data_dir).map_err(anyhow::Error::msg)?;
        let tokens = Tokens::open(data.clone()).map_err(anyhow::Error::msg)?;
        let api_keys = ApiKeys::open(config.api_key_file.as_deref()).map_err(anyhow::Error::msg)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let engine = PolicyEngine::new(&config.limits, threads)
            .map_err(|error| anyhow::anyhow!("wasmtime cannot start: {error:#}"))?;
        let engine = Arc::new(engine);
        let inference = Arc::new(Inference::start(&InferenceConfig {
            onnxruntime: config.onnxruntime.clone(),
            openvino: config.openvino.clone(),
            model_folders: config.model_folders.clone(),
            models: config.load_models.clone(),
            // Models decide rankings as much as policies do: nobody else may write to their files.
            check_file: checkout::check_owner,
            workers: config.workers,
            caches: config.caches.clone(),
        })?);
        let releases = Arc::new(open_releases(&config, data.path(), &engine, &inference)?);
        releases.restore().await?;
        let files = components(&config)?;
        let in_files: Vec<String> = files.iter().map(|path| file_name(path)).collect();
        // Before anything is released that would not take it.
        releases.give(expected::given(&releases, &in_files, &config));
        deploy(&files, &releases, &config).await?;
        check_bindings(&files, &releases, &inference, &config)?;
        expected::check(&releases, &config).map_err(anyhow::Error::msg)?;
        let taken = releases.check_serving().await;
        taken.map_err(|faults| anyhow::Error::msg(faults.join("; ")))?;
        for version in releases.catalog().active() {
            warn_of_test_models(&version);
        }
        let connections = Arc::new(Connections::new(&config));
        let app = Arc::new(Self {
            awaited: Awaited::of(&config),
            api_keys,
            admission: Admission::new(&config.limits),
            telemetry: Telemetry::new(&inference, &releases, engine.ledger(), &connections),
            inference,
            engine,
            releases,
            shadow: Shadow::default(),
            uploads: Semaphore::new(MAX_UPLOADS),
            upload_room: Room::new(MAX_UPLOADS * crate::admin::max_upload_bytes(&config)),
            warming: Semaphore::new(1),
            data,
            tokens,
            draining: Draining::default(),
            connections,
            config,
        });
        for missing in expected::missing(&app) {
            tracing::warn!("{missing}: the server is not ready until it is released");
        }
        Ok(app)
    }

    /// The line that says where the server listens and what it serves, and the line of the admin plane.
    pub fn greeting(&self, address: SocketAddr, admin_address: SocketAddr) -> String {
        let scheme = |tls: bool| if tls { "https" } else { "http" };
        let policies: Vec<String> = self
            .releases
            .catalog()
            .active()
            .iter()
            .map(|version| version.label().to_owned())
            .collect();
        let mut models: Vec<String> = Vec::new();
        for model in self.inference.models() {
            if !models.iter().any(|name| name == model.name()) {
                models.push(model.name().to_owned());
            }
        }
        models.sort();
        format!(
            "rerankd {} listening on {}://{address} (policies: {}; models: {}; {}, {} workers)\nadmin plane on {}://{admin_address}, token in {}",
            env!("CARGO_PKG_VERSION"),
            scheme(self.config.tls.is_some()),
            policies.join(", "),
            models.join(", "),
            self.inference.backend_version(),
            self.inference.scheduler().workers(),
            scheme(self.config.admin_tls.is_some()),
            self.data.file(ADMIN_TOKEN).display(),
        )
    }
}

/// The pipeline, with its store in a folder.
///
/// # Errors
/// The store cannot be opened.
pub(crate) fn open_releases(
    config: &Config,
    folder: &Path,
    engine: &Arc<PolicyEngine>,
    inference: &Arc<Inference>,
) -> anyhow::Result<Releases> {
    let executable = Compiler::this_executable().context("the own executable cannot be found")?;
    let self_test = CaseRunner {
        engine: Arc::clone(engine),
        inference: Arc::clone(inference),
        limits: config.limits.clone(),
    };
    let rules = Rules {
        policies: config.policies.clone(),
        limits: config.limits.clone(),
        max_component_bytes: config.releases.max_component_bytes,
        probation: config.releases.probation.clone(),
    };
    Ok(Releases::new(
        Arc::clone(engine),
        Arc::clone(inference),
        Store::open(folder)?,
        Compiler::new(executable, config.releases.compile.clone(), &config.limits),
        Box::new(self_test),
        rules,
    ))
}

/// Releases what the folders have, two files at a time.
async fn deploy(
    files: &[PathBuf],
    releases: &Arc<Releases>,
    config: &Config,
) -> anyhow::Result<()> {
    let mut unknown = Vec::new();
    for (name, options) in &config.policies {
        let known = releases.name(name).await?.is_some();
        if known || files.iter().any(|path| file_name(path) == *name) {
            continue;
        }
        let decides = !options.models.is_empty() || !options.parameters.is_empty();
        if decides && !config.expect.contains(name) {
            unknown.push(format!("`{name}`"));
            continue;
        }
        // It counts from the first release on: what a policy may see must be settled before.
        tracing::warn!(
            policy = name,
            "the configuration speaks of a policy that there is not yet"
        );
    }
    if !unknown.is_empty() {
        bail!(
            "the configuration gives models (--bind-model) or parameters (`policies.NAME`) to {}, but there is no such policy; what is to be released later can be named in `expect = [..]` (--expect)",
            unknown.join(", ")
        );
    }
    let deploying = files.iter().map(|path| async move {
        let deployed = match checkout::check_component(path) {
            Ok(()) => releases
                .deploy_file(path, Priority::Start)
                .await
                .map(drop)
                .map_err(anyhow::Error::from),
            Err(problem) => Err(anyhow::Error::msg(problem)),
        };
        (path, deployed)
    });
    let mut deployed = futures_util::stream::iter(deploying).buffer_unordered(DEPLOYED_AT_A_TIME);
    let (mut failed, mut untaken) = (Ok(()), Vec::new());
    while let Some((path, outcome)) = deployed.next().await {
        let Err(error) = outcome else { continue };
        let route = releases.catalog().route(&file_name(path));
        let refused = error.downcast_ref::<ReleaseError>();
        // What the operator set and cannot be had is never replaced by what served before.
        let is_asked_for = refused.is_some_and(ReleaseError::is_of_configuration);
        if !is_asked_for && route.is_some_and(|route| route.active.is_some()) {
            // What served before goes on.
            let error = refused.map_or_else(|| error.to_string(), ReleaseError::for_log);
            let file = path.display().to_string();
            let file = crate::terminal::one_line(&file);
            tracing::error!(%file, error, "a file of a policy folder was refused");
        } else if let Some(ReleaseError::Rule { place, problem }) = refused {
            untaken.push(format!("{place}: policy `{}`: {problem}", file_name(path)));
        } else if failed.is_ok() {
            failed = Err(error.context(path.display().to_string()));
        }
    }
    failed?;
    if untaken.is_empty() {
        return Ok(());
    }
    untaken.sort();
    Err(anyhow::Error::msg(untaken.join("; ")))
}

/// Models that the configuration gives to policies which lie in no folder: they count from the next release
/// on, but must be there now. Those of files were bound when these were released.
fn check_bindings(
    files: &[PathBuf],
    releases: &Releases,
    inference: &Inference,
    config: &Config,
) -> anyhow::Result<()> {
    let pushed = |name: &&String| !files.iter().any(|path| file_name(path) == **name);
    for name in config.policies.keys().filter(pushed) {
        let route = releases.catalog().route(name).unwrap_or_default();
        for (slot, model) in &config.policies[name].models {
            let of = || format!("the model for `{name}.{slot}` (--bind-model, `models`)");
            let has_slot = |version: &&Arc<PolicyVersion>| version.models().contains_key(slot);
            if let Some(version) = route.versions().next()
                && !route.versions().any(|version| has_slot(&version))
            {
                let slots: Vec<&str> = version.models().keys().map(String::as_str).collect();
                bail!(
                    "{}: the policy has no such slot; it has: {}",
                    of(),
                    slots.join(", ")
                );
            }
            inference.load(model).with_context(of)?;
        }
    }
    Ok(())
}

/// The components of all folders, each name once.
fn components(config: &Config) -> anyhow::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in &config.policy_folders {
        let files = release::components(folder).map_err(|error| {
            anyhow::anyhow!(
                "no policies at `{}` ({error}): build them with `make policies`, or name a folder with --policies",
                folder.display()
            )
        })?;
        if files.is_empty() {
            tracing::warn!(folder = %folder.display(), "a folder of policies is empty: what is put there is released");
        }
        for path in files {
            let name = file_name(&path);
            if let Some(other) = found.iter().find(|other| file_name(other) == name) {
                bail!(
                    "{} and {} are both called `{name}`",
                    other.display(),
                    path.display()
                );
            }
            found.push(path);
        }
    }
    Ok(found)
}

fn file_name(path: &Path) -> String {
    path.file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn warn_of_test_models(version: &PolicyVersion) {
    for (slot, model) in version.models().iter() {
        if model.manifest().test_only {
            tracing::warn!(
                policy = version.name(),
                slot,
                model = model.name(),
                "policy runs on a stand-in model: bind a trained one with --bind-model"
            );
        }
    }
}
