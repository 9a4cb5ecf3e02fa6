//! What can go wrong between texts and numbers.

use std::path::PathBuf;

use crate::tensor::ElementType;

/// A failure of a model, its files, its inputs, or ONNX Runtime itself.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(
    missing_docs,
    reason = "each variant's message says what its fields are"
)]
pub enum InferenceError {
    #[error(
        "ONNX Runtime is missing: no library at {tried}; `make runtime` fetches it, or name one with --onnxruntime or ORT_DYLIB_PATH"
    )]
    RuntimeMissing { tried: String },

    #[error(
        "ONNX Runtime at `{path}` cannot be used: {problem}; 1.{minimum_minor} or newer is needed: `make runtime` fetches one, or name one with --onnxruntime or ORT_DYLIB_PATH", path = .path.display()
    )]
    RuntimeUnusable {
        path: PathBuf,
        problem: String,
        minimum_minor: u32,
    },

    #[error(
        "model `{model}`: execution provider `{wanted}` is not there; this ONNX Runtime has: {available} (--openvino names the plugin for `openvino`)"
    )]
    ProviderMissing {
        model: String,
        wanted: String,
        available: String,
    },

    #[error("OpenVINO's plugin at `{path}` (--openvino) cannot be used: {problem}", path = .path.display())]
    PluginUnusable { path: PathBuf, problem: String },

    #[error("`{path}`: {problem}", path = .path.display())]
    Manifest { path: PathBuf, problem: String },

    #[error("`{path}`: {problem}", path = .path.display())]
    ModelFile { path: PathBuf, problem: String },

    #[error("cache file `{path}` (--cache-file): {problem}", path = .path.display())]
    CacheFile { path: PathBuf, problem: String },

    #[error("model `{model}` cannot be used: {problem}")]
    UnusableModel { model: String, problem: String },

    #[error("no model `{model}`; there are: {known}")]
    UnknownModel { model: String, known: String },

    #[error("model `{model}` has no input `{input}`; its inputs are: {expected}")]
    UnknownInput {
        model: String,
        input: String,
        expected: String,
    },

    #[error("model `{model}`: input `{input}` is missing; its inputs are: {expected}")]
    MissingInput {
        model: String,
        input: String,
        expected: String,
    },

    #[error("model `{model}`: input `{input}` is given twice")]
    RepeatedInput { model: String, input: String },

    #[error("model `{model}`: input `{input}` must be {expected}, got {got}")]
    WrongType {
        model: String,
        input: String,
        expected: ElementType,
        got: ElementType,
    },

    #[error("model `{model}`: input `{input}` {problem}, got {got:?}")]
    WrongShape {
        model: String,
        input: String,
        problem: String,
        got: Vec<usize>,
    },

    #[error("model `{model}`: input `{input}` must hold numbers from 0 to {most}, got {got}")]
    WrongValue {
        model: String,
        input: String,
        most: u64,
        got: i64,
    },

    #[error("tokenizer of model `{model}` failed: {problem}")]
    Tokenizer { model: String, problem: String },

    #[error("model `{model}` failed: {problem}")]
    Run { model: String, problem: String },

    #[error("the server is shutting down")]
    ShuttingDown,
}
