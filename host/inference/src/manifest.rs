//! `models/<name>/manifest.toml`: what a model is, where it comes from, and how it is run.

use std::path::{Path, PathBuf};

use rerankd_core::ScoreKind;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::error::InferenceError;
use crate::files;
use crate::name::check_model_name;
use crate::scripts::{Script, Scripts};

/// The file that makes a folder a model's.
pub const MANIFEST_FILE: &str = "manifest.toml";

/// A model's manifest, as it stands in its folder.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelManifest {
    /// The name under which it is served; equal to the folder's.
    pub name: String,
    /// What it computes.
    pub kind: ModelKind,
    /// One sentence for people.
    pub description: String,
    /// SPDX identifier.
    pub licence: String,
    /// Where the weights come from.
    pub source: String,
    /// Which revision of the source.
    pub revision: String,
    /// What a raw score of it is: `logit` or `cosine`.
    pub score_kind: String,
    /// The longest row, tokens, special tokens included.
    pub max_tokens: usize,
    /// The scripts that it reads, by their names in Unicode (`Latin`, `Han`); text in letters of
    /// others is unread. Without them, those of which its vocabulary has words.
    #[serde(default)]
    pub scripts: Option<Vec<String>>,
    /// Whether its rankings mean nothing: a model for tests and benchmarks.
    #[serde(default)]
    pub test_only: bool,
    /// Its files.
    pub files: Files,
    /// Names of the graph's inputs.
    pub inputs: Inputs,
    /// Names of the graph's outputs.
    pub outputs: Outputs,
    /// How a bi-encoder pools its tokens, inside the graph.
    pub pooling: Option<Pooling>,
    /// How it is run.
    pub execution: Execution,
}

/// What a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelKind {
    /// One text to one vector.
    BiEncoder,
    /// A pair of texts to one score.
    CrossEncoder,
}

impl ModelKind {
    /// The name used in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::BiEncoder => "bi-encoder",
            Self::CrossEncoder => "cross-encoder",
        }
    }
}

/// The files of a model.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// The ONNX graph with its weights.
    pub model: ModelFile,
    /// `tokenizer.json` in the format of the `tokenizers` library.
    pub tokenizer: ModelFile,
}

/// One file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// Its path, relative to the manifest's folder and inside it.
    pub path: PathBuf,
    /// SHA-256 of its content, hex.
    pub sha256: String,
}

/// Names of the graph's inputs, each `I64` `[rows, tokens]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// Token ids.
    pub ids: String,
    /// 1 for a token, 0 for padding.
    pub mask: String,
    /// 0 for the first text of a pair, 1 for the second.
    pub type_ids: Option<String>,
}

/// Names of the graph's outputs, each `FP32` with one row a text.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outputs {
    /// A cross-encoder's score, `[rows, 1]`.
    pub score: Option<String>,
    /// A bi-encoder's vector of length 1, `[rows, dimensions]`.
    pub embedding: Option<String>,
    /// A bi-encoder's vector before normalization, `[rows, dimensions]`.
    pub pooled: Option<String>,
}

impl Outputs {
    /// The names, in the order in which policies receive them.
    pub fn names(&self) -> Vec<String> {
        [&self.score, &self.embedding, &self.pooled]
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }
}

/// How a bi-encoder pools its tokens, inside the graph.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pooling {
    /// `mean` or `cls`.
    pub method: String,
    /// Whether `outputs.embedding` has length 1.
    pub normalized: bool,
    /// Elements of the vector.
    pub dimensions: usize,
}

/// How a model is run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Execution {
    /// Which rows may share a run.
    pub row_independence: RowIndependence,
    /// ONNX Runtime's execution provider: `cpu`, `cuda` or `openvino`.
    pub provider: String,
    /// `all`, `extended`, `basic` or `none`.
    pub graph_optimization: GraphOptimization,
    /// `int8` or `fp32`: says what the file is, changes nothing. With `openvino` the file is fp32, and
    /// this is what it is computed in: `fp32` or `bf16`.
    pub precision: String,
    /// Most tokens of one run, padding included, for rows that may share a run; a calibration at load
    /// decides where there is none.
    #[serde(default)]
    pub run_tokens: Option<usize>,
    /// Most workers that run it at the same time; a calibration at load decides where there is none.
    #[serde(default)]
    pub workers: Option<usize>,
    /// To what outputs are rounded before anybody sees them.
    #[serde(default)]
    pub output_precision: OutputPrecision,
}

/// To what a model's outputs are rounded, whether they are kept in a cache or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputPrecision {
    /// They are what the model computes.
    #[default]
    Fp32,
    /// Vectors of length 1 are rounded to half precision: half the memory in the row cache.
    Fp16,
}

/// Which rows may share a run without changing a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowIndependence {
    /// Rows of like length may share a run: floating point, and an attention mask.
    Packed,
    /// One row a run: dynamic quantization takes its scale from all that is in the run.
    Alone,
    /// The batch runs as it came: rows depend on each other, or there is no mask.
    None,
}

/// ONNX Runtime's graph optimization level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names are ONNX Runtime's own")]
pub enum GraphOptimization {
    All,
    Extended,
    Basic,
    None,
}

impl ModelManifest {
    /// Reads and checks `folder/manifest.toml`.
    ///
    /// # Errors
    /// [`InferenceError::Manifest`] naming the file and the problem.
    pub fn read(folder: &Path) -> Result<Self, InferenceError> {
        let path = folder.join(MANIFEST_FILE);
        let fail = |problem: String| InferenceError::Manifest {
            path: path.clone(),
            problem,
        };
        let text = files::read_to_string(&path).map_err(|error| fail(error.to_string()))?;
        // Without the line itself, which `Display` shows: whoever names a model may read this.
        let manifest: Self = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map(|before| 1 + before.matches('\n').count());
            let line = line.map_or(String::new(), |line| format!("line {line}: "));
            fail(format!("{line}{}", error.message()))
        })?;
        manifest.check().map_err(fail)?;
        let folder = folder.file_name().map(|name| name.to_string_lossy());
        if folder.as_deref() != Some(manifest.name.as_str()) {
            return Err(fail(format!(
                "it calls itself `{}`; its folder, `{}`, must have the same name",
                manifest.name,
                folder.unwrap_or_default()
            )));
        }
        Ok(manifest)
    }

    /// What a raw score of the model is.
    pub fn score_kind(&self) -> ScoreKind {
        ScoreKind::from_name(&self.score_kind).expect("`check` allows known kinds only")
    }

    /// SHA-256, hex, of its files and of the settings that decide its numbers.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let window = self.max_tokens.to_string();
        for part in [
            self.files.model.sha256.as_str(),
            self.files.tokenizer.sha256.as_str(),
            window.as_str(),
            self.execution.provider.as_str(),
        ] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        if self.execution.output_precision == OutputPrecision::Fp16 {
            hash.update(b"output fp16");
        }
        if self.execution.provider == "openvino" {
            hash.update(&self.execution.precision);
        }
        if let Some(scripts) = self.scripts() {
            hash.update(b"scripts ");
            hash.update(scripts.names().join(" "));
        }
        hex::encode(hash.finalize())
    }

    /// The scripts that it reads, if it says so.
    pub fn scripts(&self) -> Option<Scripts> {
        let names = self.scripts.as_ref()?;
        Some(
            names
                .iter()
                .filter_map(|name| Script::from_name(name))
                .collect(),
        )
    }

    /// Every file that makes the model, relative to its folder: what a copy of it needs.
    pub fn file_names(&self) -> Vec<PathBuf> {
        let mut names = vec![
            PathBuf::from(MANIFEST_FILE),
            self.files.model.path.clone(),
            self.files.tokenizer.path.clone(),
        ];
        names.dedup();
        names
    }

    /// The graph's inputs, in the order in which the tokenizer fills them.
    pub fn input_names(&self) -> Vec<String> {
        let inputs = &self.inputs;
        [
            Some(&inputs.ids),
            Some(&inputs.mask),
            inputs.type_ids.as_ref(),
        ]
        .into_iter()
        .flatten()
        .cloned()
        .collect()
    }

    fn check(&self) -> Result<(), String> {
        check_model_name("`name`", &self.name)?;
        if self.max_tokens < 8 {
            return Err(format!(
                "`max_tokens` must be at least 8, got {}",
                self.max_tokens
            ));
        }
        if self.execution.run_tokens == Some(0) {
            return Err("`execution.run_tokens` must be at least 1, got 0".to_owned());
        }
        if self.execution.workers == Some(0) {
            return Err("`execution.workers` must be at least 1, got 0".to_owned());
        }
        self.check_scripts()?;
        if ScoreKind::from_name(&self.score_kind).is_none() {
            return Err(format!(
                "`score_kind` must be `logit` or `cosine`, got `{}`",
                self.score_kind
            ));
        }
        for file in [&self.files.model, &self.files.tokenizer] {
            let inside = file
                .path
                .components()
                .all(|c| matches!(c, std::path::Component::Normal(_)));
            if !inside {
                return Err(format!(
                    "`{}` must lie in the model's own folder",
                    file.path.display()
                ));
            }
        }
        match (
            self.execution.provider.as_str(),
            self.execution.precision.as_str(),
        ) {
            ("openvino", "fp32" | "bf16") => {}
            ("openvino", other) => {
                return Err(format!(
                    "with `provider = \"openvino\"` the `precision` must be `fp32` or `bf16`, got `{other}`"
                ));
            }
            (provider, "bf16") => {
                return Err(format!(
                    "`precision = \"bf16\"` needs `provider = \"openvino\"`, got `{provider}`"
                ));
            }
            _ => {}
        }
        match self.kind {
            ModelKind::CrossEncoder if self.outputs.score.is_none() => {
                Err("a cross-encoder needs `outputs.score`".to_owned())
            }
            ModelKind::BiEncoder if self.outputs.embedding.is_none() => {
                Err("a bi-encoder needs `outputs.embedding`".to_owned())
            }
            ModelKind::BiEncoder if self.pooling.is_none() => {
                Err("a bi-encoder needs `[pooling]`".to_owned())
            }
            _ if self.execution.output_precision == OutputPrecision::Fp16
                && !self.pooling.as_ref().is_some_and(|pooling| pooling.normalized) =>
            {
                Err("`output_precision = \"fp16\"` is for vectors of length 1: `pooling.normalized` must be true".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn check_scripts(&self) -> Result<(), String> {
        let known = || {
            let names = Script::ALL.iter().map(|script| script.name());
            names.collect::<Vec<_>>().join(", ")
        };
        let Some(names) = &self.scripts else {
            return Ok(());
        };
        if names.is_empty() {
            return Err(format!(
                "`scripts` is empty: name those that the model reads, or leave it out; there are: {}",
                known()
            ));
        }
        match names.iter().find(|name| Script::from_name(name).is_none()) {
            None => Ok(()),
            Some(unknown) => Err(format!(
                "`scripts` has `{unknown}`, which is no script that is told apart; there are: {}",
                known()
            )),
        }
    }
}
