//! What a guest may call, and the state of one call.

pub mod log;
pub mod nn;
pub mod tokenizer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rerankd_core::{Account, Charge, Limits, Refused, TokenCount};
use rerankd_inference::{Lane, Model};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtxView, WasiView};

use self::log::GuestLog;
use crate::cpu::CpuMeter;
use crate::engine::{PolicyEngine, Ticking};
use crate::error::Fault;
use crate::limiter::GuestLimiter;
use crate::texts::{self, Texts};
use crate::wasi::GuestWasi;

/// Most resources (tensors, encodings, streams ..) that one call may hold.
const MAX_RESOURCES: usize = 1000;

/// What a resource takes beside what is charged for it, bytes: its place in the table, and a box.
const RESOURCE_BYTES: usize = 256;

/// Longest name of a slot that a message repeats, bytes.
const MAX_SLOT_BYTES: usize = 64;

/// Calls of any kind that a policy may make for each one to a model or the tokenizer: taking a tensor's
/// data, dropping it, a line of log.
const ALL_HOST_CALLS: usize = 10;

/// Everything that one call of a policy owns on the host. Made anew for each call.
pub struct GuestState {
    pub(crate) table: ResourceTable,
    /// What the call holds of the host's memory.
    pub(crate) account: Account,
    /// For what is bounded by itself: the table, what is told of texts, log lines, output.
    _fixed: Charge,
    /// What the last call of the host gave to the guest, which may still be copying it.
    handed_over: Option<Charge>,
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
    max_rows: usize,
    /// Most bytes that one call of the host, or the result, may pass.
    pub(crate) max_passed_bytes: usize,
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
    /// Which of them were cut, or not run.
    pub(crate) texts: Texts,
    /// Whether the host's log says already that a model failed on the call's rows.
    failure_is_logged: bool,
    /// What a model or the tokenizer could not do, if it was the host's failure.
    pub(crate) host_failure: Option<String>,
}

impl GuestState {
    /// `lane` is `None` for `describe`.
    ///
    /// # Errors
    /// If `account` has no room for what every call takes.
    pub(crate) fn new(
        engine: &PolicyEngine,
        account: Account,
        limits: &Limits,
        models: Arc<BTreeMap<String, Arc<Model>>>,
        lane: Option<Lane>,
        query: String,
        allow_wasi: bool,
    ) -> Result<Self, Refused> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        let output_bytes = limits.guest_log_lines * limits.guest_log_line_bytes;
        // Log lines and output, and both once more as they are handed to the caller.
        let fixed = MAX_RESOURCES * RESOURCE_BYTES + texts::KEPT_BYTES + 4 * output_bytes;
        Ok(Self {
            table,
            _fixed: account.charge(fixed)?,
            account,
            handed_over: None,
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
            max_rows: limits.guest_rows(),
            max_passed_bytes: limits.guest_passed_bytes(),
            wasi: allow_wasi.then(|| GuestWasi::new(output_bytes)),
        })
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

    /// Takes bytes that are about to be allocated for the guest.
    fn charge(&self, bytes: usize) -> wasmtime::Result<Charge> {
        self.account.charge(bytes).map_err(wasmtime::Error::new)
    }

    /// Takes bytes of a result for the guest, until the next one.
    fn hand_over(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.handed_over = None;
        self.handed_over = Some(self.charge(bytes)?);
        Ok(())
    }

    /// Counts the rows of one `compute`, or the texts of one `encode`.
    fn check_rows(&self, call: &'static str, rows: usize) -> wasmtime::Result<()> {
        if rows > self.max_rows {
            return Err(wasmtime::Error::new(Fault::Rows {
                call,
                rows,
                limit: self.max_rows,
            }));
        }
        Ok(())
    }

    /// Counts and takes bytes of tensors that are about to be made.
    fn hold_tensor(&mut self, bytes: usize) -> wasmtime::Result<Charge> {
        let held = self.usage.tensor_bytes.saturating_add(bytes);
        if held > self.max_tensor_bytes {
            let limit_mib = self.max_tensor_bytes >> 20;
            return Err(wasmtime::Error::new(Fault::TensorBytes { limit_mib }));
        }
        let charge = self.charge(bytes)?;
        self.usage.tensor_bytes = held;
        Ok(charge)
    }

    fn release_tensor(&mut self, bytes: usize) {
        self.usage.tensor_bytes = self.usage.tensor_bytes.saturating_sub(bytes);
    }

    /// The model in a slot.
    fn model(&self, slot: &str) -> Result<Arc<Model>, String> {
        let found = self.models.get(slot);
        let slot = log::cut(slot, MAX_SLOT_BYTES);
        match found {
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
