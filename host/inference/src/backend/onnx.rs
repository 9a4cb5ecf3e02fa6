//! ONNX Runtime, loaded at run time. The only file that names `ort`.
//!
//! One session a model, run by all workers at the same time: weights are in memory once, however
//! many workers there are. Each run stays on the thread that calls it (one thread within and between
//! operators, no spinning), so that the scheduler decides how many cores a request gets.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Mutex;

use ort::AsPointer;
use ort::device::Device;
use ort::environment::Environment;
use ort::memory::DeviceType;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{DynValue, Outlet, TensorElementType, TensorRef, ValueType};

use super::{Backend, Port, RunInput, Session, View};
use crate::error::InferenceError;
use crate::manifest::{GraphOptimization, ModelManifest};
use crate::tensor::{ElementType, Tensor, TensorData};

/// The oldest minor version of ONNX Runtime 1 that is accepted: the API level that `ort` is built
/// for (feature `api-24`).
const MINIMUM_MINOR: u32 = 24;

/// What ONNX Runtime calls its own provider, and what OpenVINO's plugin calls its.
const CPU: &str = "CPUExecutionProvider";
const OPENVINO: &str = "OpenVINOExecutionProvider";

/// ONNX Runtime in this process.
pub struct OnnxRuntime {
    environment: Environment,
    version: String,
    /// Runs that may go on at the same time.
    workers: usize,
}

impl OnnxRuntime {
    /// Loads the first library that exists among `candidates`, and OpenVINO's plugin into it, for
    /// `workers` threads that run models.
    ///
    /// # Errors
    /// [`InferenceError::RuntimeMissing`] naming all of them, or
    /// [`InferenceError::RuntimeUnusable`] with what is wrong with the one that exists, or
    /// [`InferenceError::PluginUnusable`].
    pub fn load(
        candidates: &[PathBuf],
        openvino: Option<&Path>,
        workers: usize,
    ) -> Result<Self, InferenceError> {
        let Some(path) = candidates.iter().find(|path| path.is_file()) else {
            let tried: Vec<String> = candidates
                .iter()
                .map(|path| format!("`{}`", path.display()))
                .collect();
            return Err(InferenceError::RuntimeMissing {
                tried: tried.join(", "),
            });
        };
        let unusable = |problem: String| InferenceError::RuntimeUnusable {
            path: path.clone(),
            problem,
            minimum_minor: MINIMUM_MINOR,
        };
        let version = library_version(path).map_err(unusable)?;
        let environment = ort::init_from(path)
            .map_err(|error| unusable(error.to_string()))?
            .with_name("rerankd")
            .with_telemetry(false)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        let runtime = Self {
            environment,
            version: format!("ONNX Runtime {version}"),
            workers,
        };
        if let Some(plugin) = openvino {
            runtime
                .add_openvino(plugin)
                .map_err(|problem| InferenceError::PluginUnusable {
                    path: plugin.to_owned(),
                    problem,
                })?;
        }
        Ok(runtime)
    }

    fn add_openvino(&self, plugin: &Path) -> Result<(), String> {
        if !plugin.is_file() {
            return Err("there is no such file".to_owned());
        }
        // ONNX Runtime takes a relative path from its own folder, not from the current one.
        let plugin = plugin.canonicalize().map_err(|error| error.to_string())?;
        self.environment
            .register_ep_library("openvino", plugin)
            .map_err(|error| error.to_string())?;
        match self.cpu_of(OPENVINO) {
            Some(_) => Ok(()),
            None => Err(format!(
                "it offers no CPU here: OpenVINO's plugin serves processors of Intel alone (it asks \
                 for the vendor, nothing else), and {}; take `provider = \"cpu\"` instead",
                match self.cpu_vendor() {
                    Some(vendor) => format!("this one is of `{vendor}`"),
                    None => "the vendor of this one is unknown".to_owned(),
                }
            )),
        }
    }

    /// The CPU as a provider sees it.
    fn cpu_of(&self, provider: &str) -> Option<Device<'_>> {
        self.environment.devices().find(|device| {
            device.ep().is_ok_and(|name| name == provider)
                && device.hardware_device().ty() == DeviceType::CPU
        })
    }

    /// Who made the processor, as ONNX Runtime knows it.
    fn cpu_vendor(&self) -> Option<String> {
        let device = self.cpu_of(CPU)?;
        let vendor = device.hardware_device().vendor().ok()?;
        Some(vendor.to_owned())
    }

    fn providers(&self) -> Vec<String> {
        let plugin = self.cpu_of(OPENVINO).map(|_| OPENVINO.to_owned());
        Self::built_in().into_iter().chain(plugin).collect()
    }

    fn built_in() -> Vec<String> {
        let mut names = std::ptr::null_mut();
        let mut count = 0;
        // SAFETY: both pointers are valid for writes; on success ONNX Runtime has written an array
        // of `count` C strings, which is read and then released once, by its own function.
        unsafe {
            let status = (ort::api().GetAvailableProviders)(&raw mut names, &raw mut count);
            if ort::Error::result_from_status(status).is_err() || names.is_null() {
                return Vec::new();
            }
            let length = usize::try_from(count).unwrap_or(0);
            let read = std::slice::from_raw_parts(names, length)
                .iter()
                .map(|&name| {
                    std::ffi::CStr::from_ptr(name)
                        .to_string_lossy()
                        .into_owned()
                })
                .collect();
            let _ = ort::Error::result_from_status((ort::api().ReleaseAvailableProviders)(
                names, count,
            ));
            read
        }
    }
}

/// Asks the library for its version without initializing it, so that one that is too old is a
/// sentence and not a panic.
fn library_version(path: &Path) -> Result<String, String> {
    type ApiBase = unsafe extern "C" fn() -> *const ort::sys::OrtApiBase;
    // SAFETY: running a library's initializers is what loading ONNX Runtime means; the operator
    // named the file. `OrtGetApiBase` has had this signature since version 1.0, and returns a static.
    let version = unsafe {
        let library = libloading::Library::new(path).map_err(|error| error.to_string())?;
        let base: libloading::Symbol<'_, ApiBase> = library
            .get(b"OrtGetApiBase")
            .map_err(|_| "it is not ONNX Runtime (no `OrtGetApiBase`)".to_owned())?;
        let base = base();
        if base.is_null() {
            return Err("it gave no API".to_owned());
        }
        std::ffi::CStr::from_ptr(((*base).GetVersionString)())
            .to_string_lossy()
            .into_owned()
    };
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(1)), Some(Ok(minor))) if minor >= MINIMUM_MINOR => Ok(version),
        _ => Err(format!("it is version {version}")),
    }
}

impl Backend for OnnxRuntime {
    fn open(
        &self,
        manifest: &ModelManifest,
        path: &Path,
        graph: &[u8],
    ) -> Result<Box<dyn Session>, InferenceError> {
        let fail = |error: &dyn std::fmt::Display| InferenceError::ModelFile {
            path: path.to_owned(),
            problem: error.to_string(),
        };
        let provider = manifest.execution.provider.as_str();
        let wanted = match provider {
            "cpu" => Some(CPU),
            "cuda" => Some("CUDAExecutionProvider"),
            "openvino" => Some(OPENVINO),
            _ => None,
        };
        let available = self.providers();
        if !wanted.is_some_and(|wanted| available.iter().any(|name| name == wanted)) {
            return Err(InferenceError::ProviderMissing {
                model: manifest.name.clone(),
                wanted: provider.to_owned(),
                available: available.join(", "),
            });
        }
        let level = match manifest.execution.graph_optimization {
            GraphOptimization::All => GraphOptimizationLevel::All,
            GraphOptimization::Extended => GraphOptimizationLevel::Level2,
            GraphOptimization::Basic => GraphOptimizationLevel::Level1,
            GraphOptimization::None => GraphOptimizationLevel::Disable,
        };
        let build = || -> Result<ort::session::Session, ort::Error> {
            let mut builder = ort::session::Session::builder(&self.environment)?
                .with_optimization_level(level)?
                .with_intra_threads(1)?
                .with_inter_threads(1)?
                .with_intra_op_spinning(false)?
                .with_inter_op_spinning(false)?
                // What fails comes back as an error; its own line on standard error would be another.
                .with_log_level(ort::logging::LogLevel::Fatal)?
                // A run takes its memory in one piece instead of some hundred: workers that share a
                // session would else wait for each other in its allocator (measured: int8 rows took
                // 1.2 to 1.4 times as long). A pattern of a few KiB is kept for each shape.
                .with_memory_pattern(true)?;
            builder = match provider {
                "cuda" => builder.with_execution_providers([ort::ep::CUDA::default()
                    .build()
                    .error_on_failure()])?,
                "openvino" => builder
                    .with_devices(
                        self.cpu_of(OPENVINO),
                        Some(&openvino_options(manifest, self.workers)),
                    )?
                    // What the provider cannot run would else run elsewhere, without a word.
                    .with_disable_cpu_fallback()?,
                // Named, too: `ort` else lets ONNX Runtime choose, which takes a plugin for every model.
                _ => builder.with_devices(self.cpu_of(CPU), None)?,
            };
            builder.commit_from_memory(graph)
        };
        if provider == "openvino" && manifest.execution.precision == "bf16" {
            let can = self.cpu_of(OPENVINO).and_then(|cpu| capabilities(&cpu));
            if !can.is_some_and(|can| can.split(' ').any(|one| one == "BF16")) {
                return Err(fail(
                    &"the manifest asks for bf16, but this CPU has no instructions for it",
                ));
            }
        }
        let session = build().map_err(|error| fail(&error))?;
        let wanted_outputs = manifest.outputs.names();
        let outputs = wanted_outputs
            .iter()
            .map(|name| {
                session
                    .outputs()
                    .iter()
                    .find(|outlet| outlet.name() == name)
            })
            .map(|outlet| outlet.map(port))
            .collect::<Option<Vec<Port>>>();
        let Some(outputs) = outputs else {
            let there: Vec<&str> = session.outputs().iter().map(Outlet::name).collect();
            return Err(fail(&format!(
                "the manifest names the outputs {}, but the graph has {}",
                wanted_outputs.join(", "),
                there.join(", ")
            )));
        };
        let inputs: Vec<Port> = session.inputs().iter().map(port).collect();
        let names = |ports: &[Port]| {
            ports
                .iter()
                .map(|port| CString::new(port.name.as_str()))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| fail(&"a name in the graph holds a zero byte"))
        };
        Ok(Box::new(OnnxSession {
            input_names: names(&inputs)?,
            output_names: names(&outputs)?,
            inputs,
            outputs,
            // The CPU provider's kernels are documented to be safe to run at the same time, and a plugin
            // says itself whether it is: if not, ONNX Runtime makes its runs take turns.
            one_at_a_time: (provider == "cuda").then(|| Mutex::new(())),
            session,
        }))
    }

    fn version(&self) -> &str {
        &self.version
    }
}

/// One thread a run, as many runs at a time as there are workers, on whatever cores are free.
fn openvino_options(manifest: &ModelManifest, workers: usize) -> [(String, String); 1] {
    let precision = match manifest.execution.precision.as_str() {
        "bf16" => "bf16",
        _ => "f32",
    };
    let settings = format!(
        r#"{{"CPU": {{"INFERENCE_PRECISION_HINT": "{precision}", "INFERENCE_NUM_THREADS": {workers}, "NUM_STREAMS": "{workers}", "ENABLE_CPU_PINNING": "NO"}}}}"#
    );
    [(format!("{OPENVINO}.load_config"), settings)]
}

/// What OpenVINO says that the device can compute in, names with spaces between them.
fn capabilities(device: &Device<'_>) -> Option<String> {
    // SAFETY: the device lives as long as its environment; what it says of itself lives as long as it,
    // and is copied here. The key is a C string.
    unsafe {
        let pairs = (ort::api().EpDevice_EpMetadata)(device.ptr());
        let value = (ort::api().GetKeyValue)(pairs, c"OPTIMIZATION_CAPABILITIES".as_ptr());
        (!value.is_null()).then(|| {
            std::ffi::CStr::from_ptr(value)
                .to_string_lossy()
                .into_owned()
        })
    }
}

struct OnnxSession {
    session: ort::session::Session,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    input_names: Vec<CString>,
    output_names: Vec<CString>,
    one_at_a_time: Option<Mutex<()>>,
}

impl Session for OnnxSession {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn run(&self, inputs: &[RunInput<'_>]) -> Result<Vec<Tensor>, String> {
        let values = inputs.iter().map(to_value).collect::<Result<Vec<_>, _>>()?;
        let input_pointers: Vec<_> = values.iter().map(|value| value.ptr()).collect();
        let input_names: Vec<_> = self.input_names.iter().map(|name| name.as_ptr()).collect();
        let output_names: Vec<_> = self.output_names.iter().map(|name| name.as_ptr()).collect();
        let mut output_pointers = vec![std::ptr::null_mut(); output_names.len()];
        if input_pointers.len() != input_names.len() {
            return Err(format!(
                "{} inputs for {}",
                input_pointers.len(),
                input_names.len()
            ));
        }
        let turn = self.one_at_a_time.as_ref().map(Mutex::lock);
        // SAFETY: all arrays have the lengths that are passed with them, names are zero-terminated,
        // and `values` and the buffers that they view outlive the call. The session pointer is valid
        // as long as `self.session` lives. ONNX Runtime takes it as `*mut`, and `ort` asks for `&mut
        // Session`, since some execution providers are not safe to run from several threads;
        // `InferenceSession::Run` itself is documented to be ("Multiple threads can invoke the Run()
        // method on the same inference session object",
        // https://onnxruntime.ai/docs/api/c/struct_ort_api.html and onnxruntime/core/session/
        // inference_session.h), which the CPU provider keeps: kernels are const, the arena allocator
        // locks. Other providers take turns by `one_at_a_time`. No `&mut Session` exists after
        // `open`, so no aliasing rule of Rust is broken.
        let status = unsafe {
            (ort::api().Run)(
                self.session.ptr().cast_mut(),
                std::ptr::null(),
                input_names.as_ptr(),
                input_pointers.as_ptr(),
                input_pointers.len(),
                output_names.as_ptr(),
                output_names.len(),
                output_pointers.as_mut_ptr(),
            )
        };
        drop(turn);
        // SAFETY: `status` comes from the call above and is consumed once.
        unsafe { ort::Error::result_from_status(status) }.map_err(|error| error.to_string())?;
        let mut outputs = Vec::with_capacity(output_pointers.len());
        for pointer in output_pointers {
            let pointer = NonNull::new(pointer).ok_or("an output is missing")?;
            // SAFETY: a successful run fills each pointer with a value that the caller owns;
            // `DynValue` releases it.
            let value: DynValue =
                unsafe { DynValue::from_ptr(pointer, Some(self.session.allocator())) };
            outputs.push(to_tensor(&value)?);
        }
        Ok(outputs)
    }
}

fn to_value<'a>(input: &'a RunInput<'_>) -> Result<ort::value::DynValueRef<'a>, String> {
    let dims = input.dims.clone();
    match input.view {
        View::I64(data) => TensorRef::from_array_view((dims, data)).map(TensorRef::into_dyn),
        View::F32(data) => TensorRef::from_array_view((dims, data)).map(TensorRef::into_dyn),
    }
    .map_err(|error| error.to_string())
}

fn to_tensor(value: &DynValue) -> Result<Tensor, String> {
    let (shape, data) = value
        .try_extract_tensor::<f32>()
        .map_err(|error| error.to_string())?;
    let dims = shape
        .iter()
        .map(|&dim| usize::try_from(dim).unwrap_or(0))
        .collect();
    Tensor::new(dims, TensorData::F32(data.to_vec()))
}

fn port(outlet: &Outlet) -> Port {
    let (element_type, dims) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => (
            match ty {
                TensorElementType::Int64 => Some(ElementType::I64),
                TensorElementType::Float32 => Some(ElementType::F32),
                _ => None,
            },
            shape.iter().map(|&dim| usize::try_from(dim).ok()).collect(),
        ),
        _ => (None, Vec::new()),
    };
    Port {
        name: outlet.name().to_owned(),
        element_type,
        dims,
    }
}
