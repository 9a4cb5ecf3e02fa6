//! What a guest may call, and the state of one call.

pub mod log;
pub mod nn;
pub mod tokenizer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rerankd_core::{Limits, TokenCount};
use rerankd_inference::{Lane, Model};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtxView, WasiView};

use self::log::GuestLog;
use crate::engine::{EPOCH, PolicyEngine, Ticking};
use crate::error::Fault;
use crate::limiter::GuestLimiter;
use crate::wasi::GuestWasi;

/// Most resources (tensors, encodings, streams ..) that one call may hold.
const MAX_RESOURCES: usize = 1000;

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
    max_host_calls: usize,
    max_tensor_bytes: usize,
    wasi: Option<GuestWasi>,
}

/// What one call used.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    host_calls: usize,
    tensor_bytes: usize,
    /// Time in which the guest itself ran.
    pub(crate) cpu_time: Duration,
    /// When `cpu_time` was last added to, and `host_time` then.
    pub(crate) charged: Option<(Instant, Duration)>,
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

impl Usage {
    /// Charges what the guest ran since the last charge, without the time in host calls. Called at
    /// every epoch in which it runs, so a longer time was spent waiting for a thread and counts as
    /// one epoch.
    pub(crate) fn charge_cpu_time(&mut self) {
        let now = Instant::now();
        let ran = self.charged.map_or(EPOCH, |(then, host_time)| {
            (now - then).saturating_sub(self.host_time.saturating_sub(host_time))
        });
        self.cpu_time += ran.min(EPOCH);
        self.charged = Some((now, self.host_time));
    }
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

    /// Counts one call to a model or the tokenizer.
    fn count_host_call(&mut self) -> wasmtime::Result<()> {
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
