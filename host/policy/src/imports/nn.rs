//! `wasi:nn`: our own host of the standard interfaces (docs/decisions/0001).
//!
//! 1. `graph.load-by-name` finds a model among the policy's slots; `graph.load` is refused.
//! 2. `compute` takes the guest's tensors out of the resource table, checks them against the model,
//!    and puts the rows into the request's lane; the guest sleeps meanwhile.
//! 3. The outputs become tensors in the table. Rows that did not run are NaN.

use std::sync::Arc;
use std::time::Instant;

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

pub use crate::bindings::nn::errors::ErrorCode;

/// A tensor that the guest holds.
pub enum GuestTensor {
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
}

impl GuestTensor {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Host(tensor) => tensor.size_bytes(),
            Self::Other { data, .. } => data.len(),
        }
    }

    fn from_guest(dimensions: Vec<u32>, ty: TensorType, data: Vec<u8>) -> Result<Self, String> {
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
        text: impl Into<String>,
    ) -> wasmtime::Result<Result<T, Resource<GuestError>>> {
        Ok(Err(self.table.push(GuestError {
            code,
            text: text.into(),
        })?))
    }

    /// Takes the guest's tensors out of the table: `compute` consumes them.
    fn take_inputs(
        &mut self,
        inputs: Vec<(String, Resource<GuestTensor>)>,
    ) -> wasmtime::Result<Result<Vec<(String, Tensor)>, String>> {
        let mut tensors = Vec::with_capacity(inputs.len());
        let mut problem = None;
        for (name, handle) in inputs {
            let tensor = self.table.delete(handle)?;
            self.release_tensor(tensor.size_bytes());
            match tensor {
                GuestTensor::Host(tensor) => tensors.push((name, tensor)),
                GuestTensor::Other { ty, .. } => {
                    problem.get_or_insert(format!(
                        "input `{name}` is {}; models here take I64 and FP32",
                        type_name(ty)
                    ));
                }
            }
        }
        Ok(problem.map_or(Ok(tensors), Err))
    }
}

impl TensorHost for GuestState {}

impl HostTensor for GuestState {
    fn new(
        &mut self,
        dimensions: Vec<u32>,
        ty: TensorType,
        data: Vec<u8>,
    ) -> wasmtime::Result<Resource<GuestTensor>> {
        self.enter()?;
        self.hold_tensor(data.len())?;
        // The interface gives a constructor no way to fail but a trap.
        let tensor = GuestTensor::from_guest(dimensions, ty, data)
            .map_err(|problem| wasmtime::Error::new(Fault::BadTensor { problem }))?;
        Ok(self.table.push(tensor)?)
    }

    fn dimensions(&mut self, tensor: Resource<GuestTensor>) -> wasmtime::Result<Vec<u32>> {
        self.enter()?;
        Ok(match self.table.get(&tensor)? {
            GuestTensor::Host(tensor) => tensor
                .dims()
                .iter()
                .map(|&dim| u32::try_from(dim).unwrap_or(u32::MAX))
                .collect(),
            GuestTensor::Other { dimensions, .. } => dimensions.clone(),
        })
    }

    fn ty(&mut self, tensor: Resource<GuestTensor>) -> wasmtime::Result<TensorType> {
        self.enter()?;
        Ok(match self.table.get(&tensor)? {
            GuestTensor::Host(tensor) => match tensor.data() {
                TensorData::I64(_) => TensorType::I64,
                TensorData::F32(_) => TensorType::Fp32,
            },
            GuestTensor::Other { ty, .. } => *ty,
        })
    }

    fn data(&mut self, tensor: Resource<GuestTensor>) -> wasmtime::Result<Vec<u8>> {
        self.enter()?;
        Ok(match self.table.get(&tensor)? {
            GuestTensor::Host(tensor) => match tensor.data() {
                TensorData::I64(data) => data.iter().flat_map(|e| e.to_le_bytes()).collect(),
                TensorData::F32(data) => data.iter().flat_map(|e| e.to_le_bytes()).collect(),
            },
            GuestTensor::Other { data, .. } => data.clone(),
        })
    }

    fn drop(&mut self, tensor: Resource<GuestTensor>) -> wasmtime::Result<()> {
        self.enter()?;
        let tensor = self.table.delete(tensor)?;
        self.release_tensor(tensor.size_bytes());
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
        let tensors = match self.take_inputs(inputs)? {
            Ok(tensors) => tensors,
            Err(problem) => return self.error(ErrorCode::InvalidArgument, problem),
        };
        let batch = match RowBatch::new(&model, tensors) {
            Ok(batch) => batch,
            Err(error) => return self.error(ErrorCode::InvalidArgument, error.to_string()),
        };
        let Some(lane) = &self.lane else {
            return self.error(ErrorCode::UnsupportedOperation, "`describe` has no models");
        };
        let result = self.ticking.paused(lane.run(&model, batch)).await;
        let took = started.elapsed();
        self.usage.host_time += took;
        let output = match result {
            Ok(output) => output,
            Err(InferenceError::Run { .. }) if model.can_fail_on_checked_rows() => {
                // The runtime's own words may repeat what the guest gave it.
                tracing::warn!(
                    model = model.name(),
                    "a model failed on rows that a policy made"
                );
                let problem = format!("model `{}` failed on these rows", model.name());
                return self.error(ErrorCode::RuntimeError, problem);
            }
            Err(error) => {
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
        let mut outputs = Vec::with_capacity(output.tensors.len());
        for (name, tensor) in output.tensors {
            self.hold_tensor(tensor.size_bytes())?;
            outputs.push((name, self.table.push(GuestTensor::Host(tensor))?));
        }
        Ok(Ok(outputs))
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
        Ok(self.table.get(&error)?.text.clone())
    }

    fn drop(&mut self, error: Resource<GuestError>) -> wasmtime::Result<()> {
        self.enter()?;
        self.table.delete(error)?;
        Ok(())
    }
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
