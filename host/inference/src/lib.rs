//! Rows in, numbers out: models, their tokenizers, the row scheduler, and ONNX Runtime.
//!
//! No wasmtime and no HTTP here. One call of a policy passes through these modules in this order:
//!
//! 1. [`tokenizer`]: texts become token rows, as tasks of the scheduler;
//! 2. [`rows`]: the input tensors of one `compute` are split into rows by their true length;
//! 3. [`scheduler`]: the rows of all requests wait in one weighted fair queue, and are packed into
//!    runs of like length;
//! 4. `worker`: a few threads take runs and put their outputs back in the caller's order;
//! 5. [`backend`]: what runs a run; `backend/onnx.rs` is the only file that names ONNX Runtime.
//!
//! What was tokenized or run before is in [`cache`]; [`stored`] is the form in which rows are kept, and
//! given out.
//!
//! [`model`] holds a loaded model, `cost` what its runs take, [`manifest`] what its folder says about
//! it, and [`runtime`] the models of one process. [`name`] says what a model's name may be, and
//! [`files`] opens what lies in a folder that somebody named.

pub mod backend;
pub mod cache;
mod cost;
mod crew;
pub mod error;
pub mod files;
#[cfg(test)]
mod interleaving;
mod job;
pub mod manifest;
pub mod model;
pub mod name;
pub mod pairs;
pub mod reading;
pub mod rows;
pub mod runtime;
pub mod scheduler;
pub mod scripts;
pub mod stored;
mod sync;
pub mod template;
pub mod tensor;
pub mod tokenizer;
mod worker;

pub use cache::{CacheSettings, CacheUsage};
pub use error::InferenceError;
pub use manifest::{ModelKind, ModelManifest, RowIndependence};
pub use model::Model;
pub use reading::{Reading, Verdict};
pub use runtime::{Inference, InferenceConfig};
pub use scheduler::{Deadline, Lane, RunOutput, Statistics};
pub use tensor::{ElementType, Tensor, TensorData};
pub use tokenizer::{Encoding, ModelTokenizer};
