//! Builds everything, once, and knows every type.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, bail};
use rerankd_inference::{Inference, InferenceConfig};
use rerankd_policy::version::CompiledPolicy;
use rerankd_policy::{Catalog, PolicyEngine, PolicyVersion};

use crate::admission::Admission;
use crate::checkout;
use crate::config::Config;
use crate::telemetry::Telemetry;

/// The object graph of one process.
pub struct App {
    /// What it was built from.
    pub config: Config,
    /// Models and the row scheduler.
    pub inference: Arc<Inference>,
    /// Runs policies.
    pub engine: Arc<PolicyEngine>,
    /// Active policies.
    pub catalog: Catalog,
    /// Who may come in.
    pub admission: Admission,
    /// Every metric.
    pub telemetry: Telemetry,
    /// Set when the process is going down.
    pub draining: AtomicBool,
}

impl App {
    /// Loads policies, then the models that they need.
    ///
    /// # Errors
    /// The first thing that is wrong, with the file it is wrong in.
    pub fn build(config: Config) -> anyhow::Result<Arc<Self>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let engine = PolicyEngine::new(&config.limits, threads)
            .map_err(|error| anyhow::anyhow!("wasmtime cannot start: {error:#}"))?;
        let compiled = compile_all(&engine, &config)?;
        let mut models: BTreeSet<String> = config.load_models.iter().cloned().collect();
        for (path, policy) in &compiled {
            let needed = policy
                .models_needed()
                .with_context(|| path.display().to_string())?;
            models.extend(needed.into_values());
        }
        check_model_owners(&config, &models)?;
        let inference = Inference::start(&InferenceConfig {
            onnxruntime: config.onnxruntime.clone(),
            model_folders: config.model_folders.clone(),
            models: models.into_iter().collect(),
            workers: config.workers,
        })?;
        let catalog = Catalog::default();
        for (path, policy) in compiled {
            let version = policy
                .bind(&config.limits, |name| inference.model(name).cloned())
                .with_context(|| path.display().to_string())?;
            warn_of_test_models(&version);
            catalog.activate(Arc::new(version));
        }
        let inference = Arc::new(inference);
        Ok(Arc::new(Self {
            admission: Admission::new(&config.limits),
            telemetry: Telemetry::new(&inference),
            inference,
            engine: Arc::new(engine),
            catalog,
            draining: AtomicBool::new(false),
            config,
        }))
    }

    /// The line that says where the server listens and what it serves.
    pub fn greeting(&self, address: std::net::SocketAddr) -> String {
        let policies: Vec<String> = self
            .catalog
            .active()
            .iter()
            .map(|version| version.label().to_owned())
            .collect();
        let models: Vec<&str> = self.inference.models().map(|model| model.name()).collect();
        format!(
            "rerankd {} listening on http://{address} (policies: {}; models: {}; {}, {} workers)",
            env!("CARGO_PKG_VERSION"),
            policies.join(", "),
            models.join(", "),
            self.inference.backend_version(),
            self.inference.scheduler().workers(),
        )
    }
}

fn compile_all(
    engine: &PolicyEngine,
    config: &Config,
) -> anyhow::Result<Vec<(PathBuf, CompiledPolicy)>> {
    let mut compiled: Vec<(PathBuf, CompiledPolicy)> = Vec::new();
    for path in components(&config.policy_folders)? {
        checkout::check_owner(&path).map_err(anyhow::Error::msg)?;
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        // The operator's options must be known before the component can be asked for its name.
        let named = file_name(&path);
        let options = config.policies.get(&named).cloned().unwrap_or_default();
        let policy = CompiledPolicy::compile(engine, &bytes, options)
            .with_context(|| path.display().to_string())?;
        let name = &policy.manifest().name;
        if *name != named {
            bail!(
                "{}: it calls itself `{name}`; its file must be {name}.wasm",
                path.display()
            );
        }
        if let Some((other, _)) = compiled
            .iter()
            .find(|(_, other)| other.manifest().name == *name)
        {
            bail!(
                "{} and {} are both called `{name}`",
                other.display(),
                path.display()
            );
        }
        compiled.push((path, policy));
    }
    for name in config.policies.keys() {
        if !compiled
            .iter()
            .any(|(_, policy)| policy.manifest().name == *name)
        {
            bail!("the configuration speaks of policy `{name}`, but there is none");
        }
    }
    Ok(compiled)
}

/// Models decide rankings as much as policies do: nobody else may write to their files.
fn check_model_owners(config: &Config, models: &BTreeSet<String>) -> anyhow::Result<()> {
    for folder in &config.model_folders {
        for name in models {
            let Ok(files) = std::fs::read_dir(folder.join(name)) else {
                continue;
            };
            for file in files {
                checkout::check_owner(&file?.path()).map_err(anyhow::Error::msg)?;
            }
        }
    }
    Ok(())
}

/// The components in some folders, in the order of their names.
fn components(folders: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in folders {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => bail!(
                "no policies at `{}` ({error}): build them with `make policies`, or name a folder with --policies",
                folder.display()
            ),
        };
        for entry in entries {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "wasm")
            {
                found.push(path);
            }
        }
    }
    if found.is_empty() {
        let folders: Vec<String> = folders
            .iter()
            .map(|f| format!("`{}`", f.display()))
            .collect();
        bail!(
            "no policies (*.wasm) in {}: build them with `make policies`",
            folders.join(", ")
        );
    }
    found.sort();
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
