//! `wasi:nn`: our own host of the standard interfaces (docs/decisions/0001).
//!
//! 1. `graph.load-by-name` finds a model among the policy's slots; `graph.load` is refused.
//! 2. `compute` takes the guest's tensors out of the resource table, checks them against the model,
//!    and puts the rows into the request's lane; the guest sleeps meanwhile.
//! 3. The outputs become tensors in the table. Rows that did not run are NaN.

use std::sync::Arc;
use std::time::Instant;

use rerankd_core::Charge;
use rerankd_inference::rows::RowBatch;
use rerankd_inference::{InferenceError, Model, Tensor, TensorData};
use wasmtime::component::Resource;

use crate::bindings::nn::errors::{Host as ErrorsHost, HostError};
use crate::bindings::nn::graph::{
    ExecutionTarget, GraphBuilder, GraphEncoding, Host as GraphHost, HostGraph,
};
use crate::bindings::nn::inference::{Host as InferenceHost, HostGraphExecutionContext};
use crate::bindings::nn::tensor::{Host as TensorHost, HostTensor, TensorType};
use crate::error::Fault;
use crate::imports::GuestState;
use crate::imports::log::cut;

pub use crate::bindings::nn::errors::ErrorCode;

/// Most dimensions of a tensor; models here take at most 4.
const MAX_DIMENSIONS: usize = 16;

/// Longest name of an input, bytes: what is longer is cut, and names none.
const MAX_NAME_BYTES: usize = 256;

/// Longest text of an error that the guest may read, bytes.
const MAX_ERROR_BYTES: usize = 2048;

/// A tensor that the guest holds.
pub struct GuestTensor {
    elements: Elements,
    held: Charge,
}

enum Elements {
    /// Of a type that models here take.
    Host(Tensor),
    /// Of any other type: the guest's bytes, of no use to a model.
    Other {
        /// The size of each dimension.
        dimensions: Vec<u32>,
        /// The elements' type.
        ty: TensorType,
        /// The elements, little endian.
        data: Vec<u8>,
    },
}

/// A model that the guest holds.
pub struct GuestGraph(Arc<Model>);

/// A model that the guest may run.
pub struct GuestContext(Arc<Model>);

/// An error that the guest may read.
pub struct GuestError {
    code: ErrorCode,
    text: String,
    _held: Charge,
}

impl GuestTensor {
    /// A tensor of the host's; `held` is what it is charged with.
    pub(crate) fn host(tensor: Tensor, held: Charge) -> Self {
        Self {
            elements: Elements::Host(tensor),
            held,
        }
    }
}

impl Elements {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Host(tensor) => tensor.size_bytes(),
            Self::Other { data, .. } => data.len(),
        }
    }

    fn from_guest(dimensions: Vec<u32>, ty: TensorType, data: Vec<u8>) -> Result<Self, String> {
        if dimensions.len() > MAX_DIMENSIONS {
            return Err(format!(
                "it has {} dimensions; at most {MAX_DIMENSIONS} are taken",
                dimensions.len()
            ));
        }
        let elements = match ty {
            TensorType::I64 => TensorData::I64(read_le(&data, i64::from_le_bytes)?),
            TensorType::Fp32 => TensorData::F32(read_le(&data, f32::from_le_bytes)?),
            _ => {
                return Ok(Self::Other {
                    dimensions,
                    ty,
                    data,
                });
            }
        };
        let dims = dimensions.iter().map(|&dim| dim as usize).collect();
        Tensor::new(dims, elements).map(Self::Host)
    }
}

fn read_le<T, const BYTES: usize>(
    data: &[u8],
    read: fn([u8; BYTES]) -> T,
) -> Result<Vec<T>, String> {
    let (elements, rest) = data.as_chunks::<BYTES>();
    if rest.is_empty() {
        Ok(elements.iter().map(|&bytes| read(bytes)).collect())
    } else {
        Err(format!(
            "{} bytes are no whole number of {BYTES}-byte elements",
            data.len()
        ))
    }
}

impl GuestState {
    fn error<T>(
        &mut self,
        code: ErrorCode,
        text: impl AsRef<str>,
    ) -> wasmtime::Result<Result<T, Resource<GuestError>>> {
        let text = cut(text.as_ref(), MAX_ERROR_BYTES);
        let held = self.charge(text.len())?;
        Ok(Err(self.table.push(GuestError {
            code,
            text: text.to_owned(),
            _held: held,
        })?))
    }

    /// Takes the guest's tensors out of the table, with what they are charged with: `compute` consumes
    /// them.
    fn take_inputs(
        &mut self,
        inputs: Vec<(String, Resource<GuestTensor>)>,
    ) -> wasmtime::Result<Result<Inputs, String>> {
        let mut tensors = Vec::with_capacity(inputs.len());
        let mut held = Vec::with_capacity(inputs.len());
        let mut problem = None;
        for (mut name, handle) in inputs {
            if name.len() > MAX_NAME_BYTES {
                name = format!("{}…", cut(&name, MAX_NAME_BYTES));
            }
            let tensor = self.table.delete(handle)?;
            self.release_tensor(tensor.elements.size_bytes());
            held.push(tensor.held);
            match tensor.elements {
                Elements::Host(tensor) => tensors.push((name, tensor)),
                Elements::Other { ty, .. } => {
                    problem.get_or_insert(format!(
                        "input `{name}` is {}; models here take I64 and FP32",
                        type_name(ty)
                    ));
                }
            }
        }
        Ok(problem.map_or(Ok((tensors, held)), Err))
    }

    /// Puts the outputs of a model into the table. `held` is what they are charged with.
    fn give_outputs(
        &mut self,
        outputs: Vec<(String, Tensor)>,
        mut held: Charge,
    ) -> wasmtime::Result<Vec<(String, Resource<GuestTensor>)>> {
        outputs
            .into_iter()
            .map(|(name, tensor)| {
                let held = held.split(tensor.size_bytes());
                Ok((name, self.table.push(GuestTensor::host(tensor, held))?))
            })
            .collect()
    }
}

/// The tensors of a `compute` by name, and what they are charged with.
type Inputs = (Vec<(String, Tensor)>, Vec<Charge>);

impl TensorHost for GuestState {}

impl HostTensor for GuestState {
    fn new(
        &mut self,
        dimensions: Vec<u32>,
        ty: TensorType,
        data: Vec<u8>,
    ) -> wasmtime::Result<Resource<GuestTensor>> {
        self.enter()?;
        let held = self.hold_tensor(data.len())?;
        // The interface gives a constructor no way to fail but a trap.
        let elements = Elements::from_guest(dimensions, ty, data)
            .map_err(|problem| wasmtime::Error::new(Fault::BadTensor { problem }))?;
        Ok(self.table.push(GuestTensor { elements, held })?)
    }

    fn dimensions(&mut self, tensor: Resource<GuestTensor>) -> wasmtime::Result<Vec<u32>> {
        self.enter()?;
        Ok(match &self.table.get(&tensor)?.elements {
            Elements::Host(tensor) => tensor
                .dims()
                .iter()
                .map(|&dim| u32::try_from(dim).unwrap_or(u32::MAX))
                .collect(),
            Elements::Other { dimensions, .. } => dimensions.clone(),
        })
    }

    fn ty(&mut self, tensor: Resource<GuestTensor>) -> wasmtime::Result<TensorType> {
        self.enter()?;
        Ok(match &self.table.get(&tensor)?.elements {
            Elements::Host(tensor) => match tensor.data() {
                TensorData::I64(_) => TensorType::I64,
                TensorData::F32(_) => TensorType::Fp32,
            },
            Elements::Other { ty, .. } => *ty,
        })
    }

    fn data(&mut self, tensor: Resource<GuestTensor>) -> wasmtime::Result<Vec<u8>> {
        self.enter()?;
        let bytes = self.table.get(&tensor)?.elements.size_bytes();
        self.hand_over(bytes)?;
        Ok(match &self.table.get(&tensor)?.elements {
            Elements::Host(tensor) => match tensor.data() {
                TensorData::I64(data) => data.iter().flat_map(|e| e.to_le_bytes()).collect(),
                TensorData::F32(data) => data.iter().flat_map(|e| e.to_le_bytes()).collect(),
            },
            Elements::Other { data, .. } => data.clone(),
        })
    }

    fn drop(&mut self, tensor: Resource<GuestTensor>) -> wasmtime::Result<()> {
        self.enter()?;
        let tensor = self.table.delete(tensor)?;
        self.release_tensor(tensor.elements.size_bytes());
        Ok(())
    }
}

impl GraphHost for GuestState {
    fn load(
        &mut self,
        _builder: Vec<GraphBuilder>,
        _encoding: GraphEncoding,
        _target: ExecutionTarget,
    ) -> wasmtime::Result<Result<Resource<GuestGraph>, Resource<GuestError>>> {
        self.count_host_call()?;
        self.error(
            ErrorCode::Security,
            "a policy brings no model bytes of its own: use `load-by-name` with a name of its manifest",
        )
    }

    fn load_by_name(
        &mut self,
        name: String,
    ) -> wasmtime::Result<Result<Resource<GuestGraph>, Resource<GuestError>>> {
        self.count_host_call()?;
        match self.model(&name) {
            Ok(model) => Ok(Ok(self.table.push(GuestGraph(model))?)),
            Err(problem) => self.error(ErrorCode::NotFound, problem),
        }
    }
}

impl HostGraph for GuestState {
    fn init_execution_context(
        &mut self,
        graph: Resource<GuestGraph>,
    ) -> wasmtime::Result<Result<Resource<GuestContext>, Resource<GuestError>>> {
        self.enter()?;
        let model = Arc::clone(&self.table.get(&graph)?.0);
        Ok(Ok(self.table.push(GuestContext(model))?))
    }

    fn drop(&mut self, graph: Resource<GuestGraph>) -> wasmtime::Result<()> {
        self.enter()?;
        self.table.delete(graph)?;
        Ok(())
    }
}

impl InferenceHost for GuestState {}

impl HostGraphExecutionContext for GuestState {
    async fn compute(
        &mut self,
        context: Resource<GuestContext>,
        inputs: Vec<(String, Resource<GuestTensor>)>,
    ) -> wasmtime::Result<Result<Vec<(String, Resource<GuestTensor>)>, Resource<GuestError>>> {
        self.count_host_call()?;
        let started = Instant::now();
        let model = Arc::clone(&self.table.get(&context)?.0);
        let (tensors, mut inputs_held) = match self.take_inputs(inputs)? {
            Ok(inputs) => inputs,
            Err(problem) => return self.error(ErrorCode::InvalidArgument, problem),
        };
        let rows = rows_of(&tensors);
        self.check_rows("compute", rows)?;
        inputs_held.push(self.charge(RowBatch::bookkeeping_bytes(&model, rows))?);
        let batch = match RowBatch::new(&model, tensors) {
            Ok(batch) => batch,
            Err(error) => return self.error(ErrorCode::InvalidArgument, error.to_string()),
        };
        let output_bytes = model.output_bytes(rows);
        let batch = batch.holding(inputs_held, self.hold_tensor(output_bytes)?);
        let Some(lane) = &self.lane else {
            return self.error(ErrorCode::UnsupportedOperation, "`describe` has no models");
        };
        let result = self.ticking.paused(lane.run(&model, batch)).await;
        let took = started.elapsed();
        self.usage.host_time += took;
        let output = match result {
            Ok(output) => output,
            Err(InferenceError::Run { .. }) if model.can_fail_on_checked_rows() => {
                self.release_tensor(output_bytes);
                // Once a call: the guest may have it fail as often as it likes. The runtime's own words
                // may repeat what the guest gave it.
                if !std::mem::replace(&mut self.usage.failure_is_logged, true) {
                    tracing::warn!(
                        model = model.name(),
                        "a model failed on rows that a policy made"
                    );
                }
                let problem = format!("model `{}` failed on these rows", model.name());
                return self.error(ErrorCode::RuntimeError, problem);
            }
            Err(error) => {
                self.release_tensor(output_bytes);
                self.usage.host_failure = Some(error.to_string());
                let code = match error {
                    InferenceError::ShuttingDown => ErrorCode::Timeout,
                    _ => ErrorCode::RuntimeError,
                };
                return self.error(code, error.to_string());
            }
        };
        let waited = output
            .first_start
            .map_or(took, |at| at.duration_since(started));
        self.usage.queue_time += waited;
        self.usage.inference_time += took.saturating_sub(waited);
        self.usage.run_time += output.run_time;
        self.usage.late_rows += output.late_rows;
        let held = output.held.expect("the batch was given it");
        Ok(Ok(self.give_outputs(output.tensors, held)?))
    }

    fn drop(&mut self, context: Resource<GuestContext>) -> wasmtime::Result<()> {
        self.enter()?;
        self.table.delete(context)?;
        Ok(())
    }
}

impl ErrorsHost for GuestState {}

impl HostError for GuestState {
    fn code(&mut self, error: Resource<GuestError>) -> wasmtime::Result<ErrorCode> {
        self.enter()?;
        Ok(self.table.get(&error)?.code)
    }

    fn data(&mut self, error: Resource<GuestError>) -> wasmtime::Result<String> {
        self.enter()?;
        let bytes = self.table.get(&error)?.text.len();
        self.hand_over(bytes)?;
        Ok(self.table.get(&error)?.text.clone())
    }

    fn drop(&mut self, error: Resource<GuestError>) -> wasmtime::Result<()> {
        self.enter()?;
        self.table.delete(error)?;
        Ok(())
    }
}

/// The most rows that one of the tensors says that it has.
fn rows_of(tensors: &[(String, Tensor)]) -> usize {
    let rows = tensors
        .iter()
        .filter_map(|(_, tensor)| tensor.dims().first());
    rows.copied().max().unwrap_or(0)
}

fn type_name(ty: TensorType) -> &'static str {
    match ty {
        TensorType::Fp16 => "FP16",
        TensorType::Fp32 => "FP32",
        TensorType::Fp64 => "FP64",
        TensorType::Bf16 => "BF16",
        TensorType::U8 => "U8",
        TensorType::I32 => "I32",
        TensorType::I64 => "I64",
    }
}
