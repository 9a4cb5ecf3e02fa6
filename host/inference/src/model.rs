//! One loaded model: its manifest, tokenizer and session, and the digest of all that decides its
//! numbers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::backend::{Backend, Port, RunInput, Session, View};
use crate::cache::key::KeyMaker;
use crate::cost::{self, Clock, RunCost};
use crate::crew;
use crate::error::InferenceError;
use crate::manifest::{ModelFile, ModelManifest, RowIndependence};
use crate::stored::RowForm;
use crate::tensor::{ElementType, Tensor};
use crate::tokenizer::ModelTokenizer;

/// A model that can be run.
pub struct Model {
    manifest: ModelManifest,
    folder: PathBuf,
    digest: String,
    tokenizer: Arc<ModelTokenizer>,
    session: Box<dyn Session>,
    /// Sizes of each output's dimensions after the first, as one row gave them.
    output_row_dims: Vec<Vec<usize>>,
    /// How rows of outputs are kept and given out.
    row_form: RowForm,
    /// Makes the keys of rows in the cache.
    row_keys: KeyMaker,
    cost: RunCost,
    workers: usize,
    /// Token ids that it takes are below.
    vocabulary: u64,
}

impl Model {
    /// Loads the model in `folder`, runs it once, and finds out how to run it with `workers` threads.
    ///
    /// # Errors
    /// The variant of [`InferenceError`] that names the file and what is wrong with it.
    pub fn load(
        folder: &Path,
        backend: &dyn Backend,
        workers: usize,
    ) -> Result<Self, InferenceError> {
        let manifest = ModelManifest::read(folder)?;
        let graph = read_checked(folder, &manifest.files.model)?;
        let tokenizer_json = read_checked(folder, &manifest.files.tokenizer)?;
        let tokenizer = ModelTokenizer::new(
            &manifest.name,
            &tokenizer_json,
            manifest.max_tokens,
            manifest.scripts(),
        )?;
        let session = backend.open(&manifest, &folder.join(&manifest.files.model.path), &graph)?;
        let mut model = Self {
            digest: manifest.digest(),
            row_keys: row_keys(&manifest, &backend.fingerprint()),
            row_form: RowForm::new(&manifest, session.outputs(), &[]),
            manifest,
            folder: folder.to_owned(),
            tokenizer: Arc::new(tokenizer),
            session,
            output_row_dims: Vec::new(),
            cost: RunCost::default(),
            workers: 1,
            vocabulary: 0,
        };
        model.check_inputs()?;
        model.output_row_dims = model.run_window()?;
        model.row_form = RowForm::new(
            &model.manifest,
            model.session.outputs(),
            &model.output_row_dims,
        );
        model.vocabulary = model.find_vocabulary();
        model.cost = model.calibrate()?;
        model.workers = model.choose_workers(workers)?;
        Ok(model)
    }

    /// The name under which it is served.
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// What its folder says about it.
    pub fn manifest(&self) -> &ModelManifest {
        &self.manifest
    }

    /// Where it was loaded from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// SHA-256, hex, of its files and of the settings that decide its numbers.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Arc<ModelTokenizer> {
        &self.tokenizer
    }

    /// Its graph.
    pub fn session(&self) -> &dyn Session {
        self.session.as_ref()
    }

    /// For each output of the session, the sizes of the dimensions after the first.
    pub fn output_row_dims(&self) -> &[Vec<usize>] {
        &self.output_row_dims
    }

    /// What the outputs of so many rows take, bytes.
    pub fn output_bytes(&self, rows: usize) -> usize {
        let elements = self
            .output_row_dims
            .iter()
            .map(|dims| -> usize { dims.iter().product() });
        rows.saturating_mul(elements.sum::<usize>().saturating_mul(size_of::<f32>()))
    }

    /// How rows of its outputs are kept and given out.
    pub fn row_form(&self) -> &RowForm {
        &self.row_form
    }

    /// Makes keys of its rows.
    pub(crate) fn row_keys(&self) -> &KeyMaker {
        &self.row_keys
    }

    /// What its runs cost.
    pub(crate) fn cost(&self) -> &RunCost {
        &self.cost
    }

    /// Values of an input are from 0 to below this, if it is one that the tokenizer fills: ids are those
    /// of the vocabulary that the graph takes, mask and type ids are 0 or 1.
    pub fn value_bound(&self, input: &str) -> Option<u64> {
        let inputs = &self.manifest.inputs;
        if input == inputs.ids {
            return Some(self.vocabulary);
        }
        (input == inputs.mask || Some(input) == inputs.type_ids.as_deref()).then_some(2)
    }

    /// Whether rows that passed all checks can make a run fail all the same: the graph has inputs of
    /// which nobody knows what they may hold, or takes a batch of any size as one run.
    pub fn can_fail_on_checked_rows(&self) -> bool {
        let free = |port: &Port| self.value_bound(&port.name).is_none();
        self.manifest.execution.row_independence == RowIndependence::None
            || self.session.inputs().iter().any(free)
    }

    /// Most workers that run it at the same time, at least one.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Tokens of one run, padding included: what the manifest says, else what `run` is enough for by
    /// the cost of recent runs.
    pub fn tokens_within(&self, run: Duration) -> usize {
        let fixed = self.manifest.execution.run_tokens;
        fixed.unwrap_or_else(|| self.cost.tokens_within(run))
    }

    fn unusable(&self, problem: String) -> InferenceError {
        InferenceError::UnusableModel {
            model: self.name().to_owned(),
            problem,
        }
    }

    /// Every input must be one that the tokenizer fills or that a policy can.
    fn check_inputs(&self) -> Result<(), InferenceError> {
        for name in self.manifest.input_names() {
            let Some(port) = self.session.inputs().iter().find(|port| port.name == name) else {
                return Err(self.unusable(format!("the graph has no input `{name}`")));
            };
            if port.element_type != Some(ElementType::I64) || port.dims.len() != 2 {
                return Err(self.unusable(format!("input {port} must be I64 [rows, tokens]")));
            }
        }
        match self
            .session
            .inputs()
            .iter()
            .find(|port| port.element_type.is_none() || port.dims.is_empty() || port.dims.len() > 4)
        {
            Some(port) => Err(self.unusable(format!("input {port} is not supported"))),
            None => Ok(()),
        }
    }

    /// Runs a row that fills the window, so that what is wrong shows at start, and the first request is
    /// not the slowest. Returns the shape of an output's row.
    fn run_window(&self) -> Result<Vec<Vec<usize>>, InferenceError> {
        let window = self.manifest.max_tokens;
        let outputs = self.run_row(window).map_err(|problem| {
            self.unusable(format!(
                "a row of {window} tokens (`max_tokens`): {problem}"
            ))
        })?;
        self.check_outputs(&outputs)?;
        Ok(outputs
            .iter()
            .map(|tensor| tensor.dims()[1..].to_vec())
            .collect())
    }

    /// How many token ids the graph takes: those of the tokenizer, unless its table of embeddings is
    /// shorter.
    fn find_vocabulary(&self) -> u64 {
        let known = self.tokenizer.vocabulary();
        let takes = |id: u64| {
            self.run_row_of(1, i64::try_from(id).unwrap_or(i64::MAX))
                .is_ok()
        };
        if known == 0 || takes(known - 1) {
            return known;
        }
        // Rows of ones have run.
        let (mut taken, mut refused) = (1, known - 1);
        while refused - taken > 1 {
            let middle = taken + (refused - taken) / 2;
            if takes(middle) {
                taken = middle;
            } else {
                refused = middle;
            }
        }
        tracing::warn!(
            model = self.name(),
            tokenizer = known,
            graph = refused,
            "the tokenizer has more ids than the graph takes: texts with the others cannot be run"
        );
        refused
    }

    /// Finds out what its runs cost.
    fn calibrate(&self) -> Result<RunCost, InferenceError> {
        let clock = match self.manifest.execution.provider.as_str() {
            "cpu" => Clock::Thread,
            _ => Clock::Wall,
        };
        let run = |tokens| self.run_row(tokens).map(drop);
        RunCost::calibrate(clock, self.manifest.max_tokens, run)
            .map_err(|problem| self.unusable(problem))
    }

    /// Finds out how many workers are of use.
    fn choose_workers(&self, workers: usize) -> Result<usize, InferenceError> {
        if let Some(fixed) = self.manifest.execution.workers {
            return Ok(fixed.min(workers).max(1));
        }
        let tokens = cost::LONG_ROW.min(self.manifest.max_tokens);
        let expected = self.cost.fixed() + self.cost.token() * tokens as u32;
        let run = || self.run_row(tokens).map(drop);
        crew::calibrate(workers, self.cost.clock(), expected, run)
            .map_err(|problem| self.unusable(problem))
    }

    /// Runs one row of this many tokens, all the same.
    fn run_row(&self, tokens: usize) -> Result<Vec<Tensor>, String> {
        self.run_row_of(tokens, 1)
    }

    /// Runs one row of this many tokens, all with this id.
    fn run_row_of(&self, tokens: usize, id: i64) -> Result<Vec<Tensor>, String> {
        let ports = self.session.inputs();
        let dims = |port: &Port| -> Vec<usize> {
            let mut dims: Vec<usize> = port.dims.iter().map(|dim| dim.unwrap_or(1)).collect();
            dims[0] = 1;
            if dims.len() == 2 && port.dims[1].is_none() {
                dims[1] = tokens;
            }
            dims
        };
        let most = ports
            .iter()
            .map(|port| dims(port).iter().product::<usize>());
        let most = most.max().unwrap_or(0);
        let (ids, ones) = (vec![id; most], vec![1_i64; most]);
        let zeros = vec![0.0_f32; most];
        let inputs: Vec<RunInput<'_>> = ports
            .iter()
            .map(|port| {
                let dims = dims(port);
                let elements = dims.iter().product();
                let view = match port.element_type {
                    Some(ElementType::F32) => View::F32(&zeros[..elements]),
                    _ if port.name == self.manifest.inputs.ids => View::I64(&ids[..elements]),
                    _ => View::I64(&ones[..elements]),
                };
                RunInput { dims, view }
            })
            .collect();
        self.session.run(&inputs)
    }

    fn check_outputs(&self, outputs: &[Tensor]) -> Result<(), InferenceError> {
        for (port, tensor) in self.session.outputs().iter().zip(outputs) {
            if tensor.dims().first() != Some(&1) {
                return Err(self.unusable(format!(
                    "output `{}` of one row has the shape {:?}, not one row",
                    port.name,
                    tensor.dims()
                )));
            }
        }
        let expected = self
            .manifest
            .pooling
            .as_ref()
            .map_or(1, |pooling| pooling.dimensions);
        match outputs.first() {
            Some(tensor) if tensor.data().len() == expected => Ok(()),
            Some(tensor) => Err(self.unusable(format!(
                "its first output has {} elements a row, the manifest says {expected}",
                tensor.data().len()
            ))),
            None => Err(self.unusable("the manifest names no output".to_owned())),
        }
    }
}

/// What the keys of a model's rows have in common. Its digest stands for graph, tokenizer, provider
/// and output precision.
fn row_keys(manifest: &ModelManifest, fingerprint: &str) -> KeyMaker {
    let optimization = format!("{:?}", manifest.execution.graph_optimization);
    let mut parts = vec!["rows 1".to_owned(), fingerprint.to_owned()];
    parts.extend([manifest.digest(), optimization]);
    parts.extend(manifest.input_names());
    parts.extend(manifest.outputs.names());
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    KeyMaker::new(&parts)
}

fn read_checked(folder: &Path, file: &ModelFile) -> Result<Vec<u8>, InferenceError> {
    let path = folder.join(&file.path);
    let fail = |problem: String| InferenceError::ModelFile {
        path: path.clone(),
        problem,
    };
    let bytes = crate::files::read(&path).map_err(|error| fail(error.to_string()))?;
    let digest = hex::encode(Sha256::digest(&bytes));
    if digest.eq_ignore_ascii_case(&file.sha256) {
        Ok(bytes)
    } else {
        Err(fail(format!(
            "its sha256 is {digest}, the manifest says {}",
            file.sha256
        )))
    }
}
