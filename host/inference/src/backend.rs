//! What runs a run: one small trait, and one file for each implementation.

use std::path::Path;

use crate::error::InferenceError;
use crate::manifest::ModelManifest;
use crate::tensor::{ElementType, Tensor};

pub mod onnx;

/// A loaded graph that any number of threads may run at the same time.
pub trait Session: Send + Sync {
    /// The graph's inputs, in the order in which [`run`](Self::run) takes them.
    fn inputs(&self) -> &[Port];

    /// The outputs that [`run`](Self::run) gives, in its order.
    fn outputs(&self) -> &[Port];

    /// Runs the graph once, on the calling thread.
    ///
    /// `inputs`: one for each of [`inputs`](Self::inputs), of fitting type and shape.
    ///
    /// # Errors
    /// The backend's own sentence.
    fn run(&self, inputs: &[RunInput<'_>]) -> Result<Vec<Tensor>, String>;
}

/// What this processor can do, as far as kernels are chosen by it.
fn processor_features() -> Vec<&'static str> {
    let mut features = Vec::new();
    macro_rules! note {
        ($detected:ident: $($feature:tt)*) => {
            $(if std::arch::$detected!($feature) { features.push($feature); })*
        };
    }
    #[cfg(target_arch = "x86_64")]
    note!(is_x86_feature_detected: "sse4.1" "avx" "avx2" "fma" "f16c" "avxvnni" "avx512f" "avx512bw"
        "avx512dq" "avx512vl" "avx512vnni" "avx512bf16" "avx512fp16");
    #[cfg(target_arch = "aarch64")]
    note!(is_aarch64_feature_detected: "neon" "dotprod" "i8mm" "bf16" "fp16" "sve" "sve2");
    features
}

/// An input or output of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name in the graph.
    pub name: String,
    /// `None` is a type that is not supported here.
    pub element_type: Option<ElementType>,
    /// The size of each dimension; `None` is any.
    pub dims: Vec<Option<usize>>,
}

impl Port {
    /// The shape for messages: `[rows, tokens]`, with sizes where they are fixed.
    pub fn shape(&self) -> String {
        let names = ["rows", "tokens"];
        let dims: Vec<String> = self
            .dims
            .iter()
            .enumerate()
            .map(|(axis, dim)| match dim {
                Some(size) => size.to_string(),
                None => (*names.get(axis).unwrap_or(&"any")).to_owned(),
            })
            .collect();
        format!("[{}]", dims.join(", "))
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.element_type {
            Some(element_type) => write!(f, "`{}` {element_type} {}", self.name, self.shape()),
            None => write!(f, "`{}` of an unsupported type", self.name),
        }
    }
}

/// One input of a run.
#[derive(Debug, Clone)]
pub struct RunInput<'a> {
    /// The size of each dimension.
    pub dims: Vec<usize>,
    /// The elements, row-major.
    pub view: View<'a>,
}

/// Borrowed elements.
#[derive(Debug, Clone, Copy)]
pub enum View<'a> {
    /// Signed 64-bit integers.
    I64(&'a [i64]),
    /// 32-bit floats.
    F32(&'a [f32]),
}

/// Opens models.
pub trait Backend: Send + Sync {
    /// Loads a graph.
    ///
    /// `graph` are the bytes of the file at `path`, whose digest was checked.
    ///
    /// # Errors
    /// The variant of [`InferenceError`] that says what is wrong with the model or the setup.
    fn open(
        &self,
        manifest: &ModelManifest,
        path: &Path,
        graph: &[u8],
    ) -> Result<Box<dyn Session>, InferenceError>;

    /// Name and version, for logs and fingerprints.
    fn version(&self) -> &str;

    /// All that may change a number beside the model: version, processor and what it can do.
    fn fingerprint(&self) -> String {
        format!(
            "{} {} {}",
            self.version(),
            std::env::consts::ARCH,
            processor_features().join(",")
        )
    }
}
