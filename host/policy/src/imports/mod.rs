//! What a guest may call, and the state of one call.

pub mod log;
pub mod nn;
pub mod tokenizer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rerankd_core::{Limits, TokenCount};
use rerankd_inference::{Lane, Model};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtxView, WasiView};

use self::log::GuestLog;
use crate::cpu::CpuMeter;
use crate::engine::{PolicyEngine, Ticking};
use crate::error::Fault;
use crate::limiter::GuestLimiter;
use crate::wasi::GuestWasi;

/// Most resources (tensors, encodings, streams ..) that one call may hold.
const MAX_RESOURCES: usize = 1000;

/// Calls of any kind that a policy may make for each one to a model or the tokenizer: taking a tensor's
/// data, dropping it, a line of log.
const ALL_HOST_CALLS: usize = 10;

/// Everything that one call of a policy owns on the host. Made anew for each call.
pub struct GuestState {
    pub(crate) table: ResourceTable,
    pub(crate) limiter: GuestLimiter,
    /// The version's models by slot name.
    models: Arc<BTreeMap<String, Arc<Model>>>,
    /// `None` in `describe`, which has no models.
    lane: Option<Lane>,
    /// Lets the guest be interrupted; paused while it waits for the host.
    ticking: Ticking,
    /// The request's query.
    query: String,
    pub(crate) log: GuestLog,
    pub(crate) usage: Usage,
    /// Its CPU budget.
    pub(crate) cpu: Arc<CpuMeter>,
    max_host_calls: usize,
    max_tensor_bytes: usize,
    wasi: Option<GuestWasi>,
}

/// What one call used.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// To a model or the tokenizer.
    host_calls: usize,
    /// Of any kind.
    all_host_calls: usize,
    tensor_bytes: usize,
    /// Time inside host calls.
    pub(crate) host_time: Duration,
    pub(crate) tokenize_time: Duration,
    /// Rows waiting for their turn.
    pub(crate) queue_time: Duration,
    /// Rows running.
    pub(crate) inference_time: Duration,
    /// What its rows took, all workers together.
    pub(crate) run_time: Duration,
    /// Rows that did not run in time.
    pub(crate) late_rows: usize,
    pub(crate) query_truncated: bool,
    /// What the tokenizer made of the texts.
    pub(crate) tokens: TokenCount,
    /// What a model or the tokenizer could not do, if it was the host's failure.
    pub(crate) host_failure: Option<String>,
}

impl GuestState {
    /// `lane` is `None` for `describe`.
    pub(crate) fn new(
        engine: &PolicyEngine,
        limits: &Limits,
        models: Arc<BTreeMap<String, Arc<Model>>>,
        lane: Option<Lane>,
        query: String,
        allow_wasi: bool,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        let output_bytes = limits.guest_log_lines * limits.guest_log_line_bytes;
        Self {
            table,
            limiter: GuestLimiter::new(limits.guest_memory_bytes),
            models,
            lane,
            ticking: engine.tick(),
            query,
            log: GuestLog::new(limits.guest_log_lines, limits.guest_log_line_bytes),
            usage: Usage::default(),
            // A version of an older release has the budget of its time, which charged less.
            cpu: Arc::new(CpuMeter::new(
                limits.guest_cpu.max(engine.limits().guest_cpu),
            )),
            max_host_calls: limits.guest_host_calls,
            max_tensor_bytes: limits.guest_tensor_bytes,
            wasi: allow_wasi.then(|| GuestWasi::new(output_bytes)),
        }
    }

    /// What the guest wrote to standard output and error, if it has WASI.
    pub(crate) fn wasi_output(&self) -> Option<String> {
        let wasi = self.wasi.as_ref()?;
        Some(String::from_utf8_lossy(&wasi.output.contents()).into_owned())
    }

    /// Counts a call of the host, whatever it is for, and charges what led to it, its arguments
    /// included. The first thing in everything that a guest can call.
    fn enter(&mut self) -> wasmtime::Result<()> {
        self.usage.all_host_calls += 1;
        let limit = self.max_host_calls.saturating_mul(ALL_HOST_CALLS);
        if self.usage.all_host_calls > limit {
            return Err(wasmtime::Error::new(Fault::AllHostCalls { limit }));
        }
        self.cpu.charge().map_err(wasmtime::Error::new)
    }

    /// Enters a call to a model or the tokenizer, and counts it as one.
    fn count_host_call(&mut self) -> wasmtime::Result<()> {
        self.enter()?;
        self.usage.host_calls += 1;
        if self.usage.host_calls > self.max_host_calls {
            return Err(wasmtime::Error::new(Fault::HostCalls {
                limit: self.max_host_calls,
            }));
        }
        Ok(())
    }

    /// Counts bytes that the guest's tensors take from now on.
    fn hold_tensor(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.usage.tensor_bytes += bytes;
        if self.usage.tensor_bytes > self.max_tensor_bytes {
            let limit_mib = self.max_tensor_bytes >> 20;
            return Err(wasmtime::Error::new(Fault::TensorBytes { limit_mib }));
        }
        Ok(())
    }

    fn release_tensor(&mut self, bytes: usize) {
        self.usage.tensor_bytes = self.usage.tensor_bytes.saturating_sub(bytes);
    }

    /// The model in a slot.
    fn model(&self, slot: &str) -> Result<Arc<Model>, String> {
        match self.models.get(slot) {
            Some(model) => Ok(Arc::clone(model)),
            None if self.models.is_empty() => Err(format!(
                "no model `{slot}`: the policy's manifest names none"
            )),
            None => {
                let known: Vec<String> =
                    self.models.keys().map(|name| format!("`{name}`")).collect();
                Err(format!(
                    "no model `{slot}`: the policy's manifest names {}",
                    known.join(", ")
                ))
            }
        }
    }
}

impl crate::bindings::contract::types::Host for GuestState {}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self
            .wasi
            .as_mut()
            .expect("only linked for policies that have WASI");
        WasiCtxView {
            ctx: &mut wasi.context,
            table: &mut self.table,
        }
    }
}
