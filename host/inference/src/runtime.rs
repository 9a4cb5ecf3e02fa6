//! The models of one process, and the scheduler that runs them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::backend::Backend;
use crate::backend::onnx::OnnxRuntime;
use crate::error::InferenceError;
use crate::manifest::ModelManifest;
use crate::model::Model;
use crate::scheduler::Scheduler;

/// Where things are, and how many cores to use.
#[derive(Debug, Clone)]
pub struct InferenceConfig {
    /// Paths at which ONNX Runtime's library may lie; the first that exists is taken.
    pub onnxruntime: Vec<PathBuf>,
    /// Folders that hold one folder a model.
    pub model_folders: Vec<PathBuf>,
    /// The models to load, by name.
    pub models: Vec<String>,
    /// Worker threads; `None` is one a core of the process's CPU quota and affinity.
    pub workers: Option<usize>,
}

/// Loaded models and the workers that run them.
pub struct Inference {
    // The scheduler stops before the models and the backend go.
    scheduler: Scheduler,
    models: BTreeMap<String, Arc<Model>>,
    backend: Box<dyn Backend>,
}

impl Inference {
    /// Loads ONNX Runtime and the models.
    ///
    /// # Errors
    /// The first [`InferenceError`]; nothing is left half loaded.
    pub fn start(config: &InferenceConfig) -> Result<Self, InferenceError> {
        let backend = OnnxRuntime::load(&config.onnxruntime)?;
        let mut models = BTreeMap::new();
        for name in &config.models {
            let folder = config
                .model_folders
                .iter()
                .map(|folder| folder.join(name))
                .find(|folder| folder.join("manifest.toml").is_file());
            let Some(folder) = folder else {
                return Err(InferenceError::UnknownModel {
                    model: name.clone(),
                    known: available_models(&config.model_folders).join(", "),
                });
            };
            let started = Instant::now();
            let model = Model::load(&folder, &backend)?;
            tracing::info!(
                model = name,
                digest = &model.digest()[..8],
                load_ms = started.elapsed().as_millis() as u64,
                tokens_per_run = model.tokens_within(crate::scheduler::RUN_TIME),
                "model loaded"
            );
            models.insert(name.clone(), Arc::new(model));
        }
        // Follows the affinity mask and the cgroup's CPU quota, not the machine's cores.
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let workers = config.workers.unwrap_or_else(cores);
        let scheduler =
            Scheduler::start(workers).map_err(|error| InferenceError::UnusableModel {
                model: "all".to_owned(),
                problem: format!("no worker threads: {error}"),
            })?;
        Ok(Self {
            scheduler,
            models,
            backend: Box::new(backend),
        })
    }

    /// The loaded model of this name.
    pub fn model(&self, name: &str) -> Option<&Arc<Model>> {
        self.models.get(name)
    }

    /// All loaded models, by name.
    pub fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.models.values()
    }

    /// The queue.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Name and version of the backend.
    pub fn backend_version(&self) -> &str {
        self.backend.version()
    }
}

/// Names of the models in these folders, sorted; those with an unreadable manifest are left out.
pub fn available_models(folders: &[PathBuf]) -> Vec<String> {
    let mut names: Vec<String> = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| ModelManifest::read(&entry.path()).ok())
        .map(|manifest| manifest.name)
        .collect();
    names.sort();
    names.dedup();
    names
}
