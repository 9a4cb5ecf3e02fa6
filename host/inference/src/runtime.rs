//! The models of one process, and the scheduler that runs them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use crate::backend::Backend;
use crate::backend::onnx::OnnxRuntime;
use crate::cache::{CacheSettings, CacheUsage, Caches};
use crate::error::InferenceError;
use crate::manifest::{MANIFEST_FILE, ModelManifest};
use crate::model::Model;
use crate::name::check_model_name;
use crate::scheduler::Scheduler;

/// Where things are, and how many cores to use.
#[derive(Debug, Clone)]
pub struct InferenceConfig {
    /// Paths at which ONNX Runtime's library may lie; the first that exists is taken.
    pub onnxruntime: Vec<PathBuf>,
    /// OpenVINO's execution-provider plugin, for models whose manifest says `openvino`.
    pub openvino: Option<PathBuf>,
    /// Folders that hold one folder a model.
    pub model_folders: Vec<PathBuf>,
    /// Models that stay loaded, by name.
    pub models: Vec<String>,
    /// Says whether a model's file may be loaded from where it lies, or why not.
    pub check_file: fn(&Path) -> Result<(), String>,
    /// Worker threads; `None` is one a core of the process's CPU quota and affinity.
    pub workers: Option<usize>,
    /// How much of what was computed is kept.
    pub caches: CacheSettings,
}

/// Loaded models and the workers that run them.
pub struct Inference {
    // The scheduler stops before the models and the backend go.
    scheduler: Scheduler,
    /// Those that were asked for at start: they stay.
    pinned: Vec<Arc<Model>>,
    /// Every model that somebody holds, oldest first.
    loaded: Mutex<Vec<Weak<Model>>>,
    /// Held while a model loads, so that nobody loads the same one beside it.
    loading: Mutex<()>,
    folders: Vec<PathBuf>,
    check_file: fn(&Path) -> Result<(), String>,
    backend: Box<dyn Backend>,
}

impl Inference {
    /// Loads ONNX Runtime and the models that stay.
    ///
    /// # Errors
    /// The first [`InferenceError`]; nothing is left half loaded.
    pub fn start(config: &InferenceConfig) -> Result<Self, InferenceError> {
        // Follows the affinity mask and the cgroup's CPU quota, not the machine's cores.
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let workers = config.workers.unwrap_or_else(cores);
        let backend = OnnxRuntime::load(&config.onnxruntime, config.openvino.as_deref(), workers)?;
        if let Some(path) = config.caches.file.as_ref().filter(|path| path.exists()) {
            // Its rows decide rankings as the models' files do.
            (config.check_file)(path).map_err(|problem| InferenceError::CacheFile {
                path: path.clone(),
                problem,
            })?;
        }
        let caches = Caches::open(&config.caches, &backend.fingerprint())?;
        let scheduler =
            Scheduler::start(workers, caches).map_err(|error| InferenceError::UnusableModel {
                model: "all".to_owned(),
                problem: format!("no worker threads: {error}"),
            })?;
        let mut inference = Self {
            scheduler,
            pinned: Vec::new(),
            loaded: Mutex::default(),
            loading: Mutex::default(),
            folders: config.model_folders.clone(),
            check_file: config.check_file,
            backend: Box::new(backend),
        };
        for name in &config.models {
            let model = inference.load(name)?;
            inference.pinned.push(model);
        }
        Ok(inference)
    }

    /// The folder of a model by its name: the first of the model folders that has one.
    ///
    /// # Errors
    /// [`InferenceError::BadName`]; [`InferenceError::UnknownModel`], naming those that there are.
    pub fn folder_of(&self, name: &str) -> Result<PathBuf, InferenceError> {
        // Whoever gave it checked it, too; here it becomes a path.
        check_model_name("a model's name", name)
            .map_err(|problem| InferenceError::BadName { problem })?;
        self.folders
            .iter()
            .map(|folder| folder.join(name))
            // What is no file is refused by name when it is read.
            .find(|folder| folder.join(MANIFEST_FILE).exists())
            .ok_or_else(|| InferenceError::UnknownModel {
                model: name.to_owned(),
                known: available_models(&self.folders).join(", "),
            })
    }

    /// The model of this name in the model folders, loaded unless it is. It is unloaded when the
    /// last holder drops it. May take a second: not for a thread that serves requests.
    ///
    /// # Errors
    /// [`InferenceError`]: unknown, or what is wrong with its files.
    pub fn load(&self, name: &str) -> Result<Arc<Model>, InferenceError> {
        self.load_from(&self.folder_of(name)?)
    }

    /// As [`load`](Self::load), from a folder of the caller's choice.
    ///
    /// # Errors
    /// [`InferenceError`]: what is wrong with its files.
    pub fn load_from(&self, folder: &Path) -> Result<Arc<Model>, InferenceError> {
        let _alone = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let check = |path: PathBuf| {
            (self.check_file)(&path).map_err(|problem| InferenceError::ModelFile { path, problem })
        };
        // First of all: the folder may be a link to a place where somebody else can put a manifest.
        check(folder.to_owned())?;
        let manifest = ModelManifest::read(folder)?;
        let digest = manifest.digest();
        let known = self.models();
        // By name, too: a version is bound to both, whatever else is loaded.
        let same = |model: &&Arc<Model>| model.digest() == digest && model.name() == manifest.name;
        if let Some(model) = known.iter().find(same) {
            return Ok(Arc::clone(model));
        }
        for name in manifest.file_names() {
            check(folder.join(name))?;
        }
        let started = Instant::now();
        let model = Arc::new(Model::load(
            folder,
            self.backend.as_ref(),
            self.scheduler.workers(),
        )?);
        tracing::info!(
            model = model.name(),
            digest = &model.digest()[..8],
            load_ms = started.elapsed().as_millis() as u64,
            run_us = model.cost().fixed().as_micros() as u64,
            token_us = model.cost().token().as_nanos() as f64 / 1e3,
            tokens_per_run = model.tokens_within(crate::scheduler::RUN_TIME),
            padding_per_run = model.cost().slack(),
            workers = model.workers(),
            scripts = model.tokenizer().scripts().names().join(" "),
            "model loaded"
        );
        let mut loaded = self.loaded();
        loaded.retain(|model| model.strong_count() > 0);
        loaded.push(Arc::downgrade(&model));
        Ok(model)
    }

    /// The loaded model of this name; if there are several, the one that was loaded last.
    pub fn model(&self, name: &str) -> Option<Arc<Model>> {
        self.models()
            .into_iter()
            .rfind(|model| model.name() == name)
    }

    /// All loaded models, by name; those of one name in the order in which they were loaded.
    pub fn models(&self) -> Vec<Arc<Model>> {
        let mut models: Vec<_> = self.loaded().iter().filter_map(Weak::upgrade).collect();
        models.sort_by(|one, other| one.name().cmp(other.name()));
        models
    }

    /// The queue.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// What became of each cache, by its name in metrics; those that are off are left out.
    pub fn caches(&self) -> Vec<(&'static str, CacheUsage)> {
        self.scheduler.caches().usage()
    }

    /// Name and version of the backend.
    pub fn backend_version(&self) -> &str {
        self.backend.version()
    }

    fn loaded(&self) -> MutexGuard<'_, Vec<Weak<Model>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
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
