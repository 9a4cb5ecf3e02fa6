//! One request through one policy version.
//!
//! 1. The parameters are checked, and the request is turned into the contract's types: the policy
//!    sees the fields that its manifest or the request names, and no others.
//! 2. A fresh store gets its limits; the guest runs on the guests' own threads.
//! 3. What it says is checked.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rerankd_core::{
    Charge, Document, Field, FirstStage, Limits, Notes, Refused, RerankRequest, Reranked, Timings,
    Value,
};
use rerankd_inference::{Deadline, Inference, Verdict};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, UpdateDeadline};

use crate::bindings::contract::types;
use crate::check::{Checked, check, kept_bytes};
use crate::engine::PolicyEngine;
use crate::error::{Fault, PolicyError};
use crate::imports::GuestState;
use crate::imports::log::words;
use crate::overlay::{self, Parameters};
use crate::version::{PolicyVersion, one_line};

/// Longest message of a fault or a refusal that is kept, bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1024;

/// Most handles that a guest holds, of its own resources too: 16 bytes or so each, on the host.
const MAX_HANDLES: usize = 10_000;

/// A call that holds more than this part of the pool, one eighth, is what leaves no room for more: it ends
/// in a fault of its own when there is none.
const OWN_FAULT_SHARE: usize = 8;

/// What wasmtime says when a guest passes more than it may.
const PASSED_TOO_MUCH: &str = "fuel allocated for hostcalls has been exhausted";

/// A ranking, and what it cost.
#[derive(Debug)]
pub struct Invoked {
    /// The ranking; its `timings.total` counts from the `started` of the call.
    pub reranked: Reranked,
    /// The most memory that the guest had, bytes.
    pub peak_memory_bytes: usize,
    /// Rows that did not run in time.
    pub late_rows: usize,
    /// What the guest logged: for the policy's author, never for the host's log.
    pub log: Vec<String>,
    /// What the ranking takes until it is answered, given back at drop.
    pub held: Option<Charge>,
}

/// Runs a request through a version.
///
/// `started` is when the request arrived. Returns before `deadline.at`. Dropping the future ends the
/// guest and drops its rows.
///
/// # Errors
/// [`PolicyError`]: the policy's fault, the caller's mistake, the deadline, or the host's failure.
pub async fn invoke(
    engine: &Arc<PolicyEngine>,
    inference: &Arc<Inference>,
    version: &Arc<PolicyVersion>,
    request: RerankRequest,
    started: Instant,
    deadline: Deadline,
) -> Result<Invoked, PolicyError> {
    let measured = invoke_measured(engine, inference, version, request, started, deadline);
    measured.await.0
}

/// Like [`invoke()`], and says what CPU time it took, whatever came of it.
pub async fn invoke_measured(
    engine: &Arc<PolicyEngine>,
    inference: &Arc<Inference>,
    version: &Arc<PolicyVersion>,
    request: RerankRequest,
    started: Instant,
    deadline: Deadline,
) -> (Result<Invoked, PolicyError>, Duration) {
    let call = Call::new(engine, inference, version, started, deadline);
    let cpu_time = Arc::clone(&call.cpu_time);
    let result = call.spawn(request).await;
    (
        result,
        Duration::from_nanos(cpu_time.load(Ordering::Relaxed)),
    )
}

/// Like [`invoke()`], for a result that nobody waits for: its texts and rows are taken only while no
/// ordinary request has any, so that it may well be late. The guest's own computing is not held back.
///
/// # Errors
/// As [`invoke()`].
pub async fn invoke_in_background(
    engine: &Arc<PolicyEngine>,
    inference: &Arc<Inference>,
    version: &Arc<PolicyVersion>,
    request: RerankRequest,
    started: Instant,
    deadline: Deadline,
) -> Result<Invoked, PolicyError> {
    let call = Call::new(engine, inference, version, started, deadline);
    let in_background = true;
    let call = Call {
        in_background,
        ..call
    };
    call.spawn(request).await
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A store under its state's limits, whose guest yields every epoch and traps when its CPU time is
/// used up. What runs in it is to be polled by the state's meter.
pub(crate) fn bounded_store(engine: &PolicyEngine, state: GuestState) -> Store<GuestState> {
    let passed_bytes = state.max_passed_bytes;
    let mut store = Store::new(engine.engine(), state);
    store.set_hostcall_fuel(passed_bytes);
    store.set_max_component_handles(MAX_HANDLES);
    store.limiter(|state| &mut state.limiter);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|context| {
        context.data().cpu.charge().map_err(wasmtime::Error::new)?;
        Ok(UpdateDeadline::Yield(1))
    });
    store
}

struct Call {
    engine: Arc<PolicyEngine>,
    inference: Arc<Inference>,
    version: Arc<PolicyVersion>,
    started: Instant,
    deadline: Deadline,
    in_background: bool,
    /// What it took, nanoseconds; written at its end.
    cpu_time: Arc<AtomicU64>,
}

impl Call {
    fn new(
        engine: &Arc<PolicyEngine>,
        inference: &Arc<Inference>,
        version: &Arc<PolicyVersion>,
        started: Instant,
        deadline: Deadline,
    ) -> Self {
        Self {
            engine: Arc::clone(engine),
            inference: Arc::clone(inference),
            version: Arc::clone(version),
            started,
            deadline,
            in_background: false,
            cpu_time: Arc::default(),
        }
    }

    /// Runs it on the guests' threads.
    async fn spawn(self, request: RerankRequest) -> Result<Invoked, PolicyError> {
        let give_up_at = self.deadline.give_up_at();
        let parameters = overlay::parameters(&self.version, &request, give_up_at).await?;
        let (engine, version) = (Arc::clone(&self.engine), Arc::clone(&self.version));
        let task = engine.guests().spawn(self.run(request, parameters));
        let _abort = AbortOnDrop(task.abort_handle());
        match task.await {
            Ok(result) => result,
            Err(error) if error.is_cancelled() => Err(PolicyError::ShuttingDown),
            Err(_) => Err(PolicyError::Host {
                policy: version.label().to_owned(),
                message: "the call panicked on the host".to_owned(),
            }),
        }
    }

    async fn run(
        self,
        request: RerankRequest,
        parameters: Parameters,
    ) -> Result<Invoked, PolicyError> {
        let version = &self.version;
        let documents = request.documents.len();
        let first_stage = request.first_stage;
        let score_kind = parameters.score_kind;
        let account = self.engine.ledger().open(version.name());
        let request_bytes = request.held_bytes();
        // The parameters are there once more, with the operator's, and the query for the tokenizer.
        let copied = request.query.len() + parameters.held_bytes();
        let _request_held = account
            .charge(request_bytes + copied)
            .map_err(|refused| self.too_large(request_bytes, refused))?;
        let guest_request = guest_request(version, request, parameters);
        let scheduler = self.inference.scheduler();
        let lane = if self.in_background {
            scheduler.open_background_lane(self.deadline)
        } else {
            scheduler.open_lane(self.deadline)
        };
        let state = GuestState::new(
            &self.engine,
            account.clone(),
            version.limits(),
            Arc::clone(version.models()),
            Some(lane),
            guest_request.query.clone(),
            version.options().allow_wasi,
        );
        let mut state = state.map_err(|refused| self.too_large(request_bytes, refused))?;
        // All of the request, to a tokenizer, and more.
        state.max_passed_bytes += request_bytes;
        let cpu = Arc::clone(&state.cpu);
        let mut store = bounded_store(&self.engine, state);
        let called_at = Instant::now();
        let called = {
            let call = async {
                let policy = version.pre.instantiate_async(&mut store).await?;
                policy
                    .rerank_policy_policy()
                    .call_rerank(&mut store, &guest_request)
                    .await
            };
            // Epochs do not interrupt host calls, so the deadline has a timer of its own.
            tokio::time::timeout_at(self.deadline.give_up_at().into(), cpu.metered(call)).await
        };
        let call_time = called_at.elapsed();
        version.traffic().add_cpu_time(cpu.used());
        self.cpu_time.store(
            u64::try_from(cpu.used().as_nanos()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        let state = store.data();
        let judgments = match called {
            Ok(Err(fault)) => return Err(self.fault(state, fault)),
            Ok(Ok(Err(error))) => return Err(self.failure(state, &error)),
            Ok(Ok(Ok(said))) => {
                // What it said may have been too much to take over within its budget.
                if let Err(fault) = cpu.check() {
                    return Err(self.fault(state, fault));
                }
                match said {
                    Ok(judgments) => judgments,
                    Err(error) => return Err(self.refusal(state, error)),
                }
            }
            Err(_) => {
                return Err(PolicyError::Deadline {
                    policy: version.label().to_owned(),
                });
            }
        };
        let log = guest_log(state);
        let log_bytes: usize = log.iter().map(String::len).sum();
        let held = account
            .charge(kept_bytes(&judgments) + log_bytes)
            .map_err(|refused| self.refused(state, refused))?;
        let usage = &state.usage;
        let checked = check(
            judgments,
            documents,
            version.manifest().filters,
            usage.late_rows,
            &usage.texts,
        );
        let (ranking, status, truncated) = match checked {
            Ok(Checked::Ranking {
                ranking,
                status,
                truncated,
            }) => (ranking, status, truncated),
            Ok(Checked::AllLate) => {
                return Err(PolicyError::Deadline {
                    policy: version.label().to_owned(),
                });
            }
            Err(fault) => return Err(self.fault(state, fault)),
        };
        let guest = call_time.saturating_sub(usage.host_time);
        let timings = Timings {
            queue: usage.queue_time,
            tokenize: usage.tokenize_time,
            inference: usage.inference_time,
            guest,
            total: self.started.elapsed(),
            worked: usage.run_time + guest,
        };
        Ok(Invoked {
            peak_memory_bytes: state.limiter.peak_bytes,
            late_rows: usage.late_rows,
            log,
            held: Some(held),
            reranked: Reranked {
                policy: version.name().to_owned(),
                version: version.short_digest().to_owned(),
                status,
                score_kind,
                unit_map: version.manifest().unit_map(score_kind),
                first_stage,
                ranking,
                query_truncated: usage.query_truncated,
                notes: Notes {
                    query_unread: usage.texts.query() == Some(Verdict::Unread),
                    truncated,
                    stand_in: version.stand_in().map(str::to_owned),
                },
                tokens: usage.tokens,
                timings,
            },
        })
    }

    fn fault(&self, state: &GuestState, fault: Fault) -> PolicyError {
        PolicyError::Fault {
            policy: self.version.label().to_owned(),
            fault,
            log: guest_log(state),
            peak_memory_bytes: state.limiter.peak_bytes,
        }
    }

    /// The request itself does not fit into what a call may hold: the caller's doing.
    fn too_large(&self, request_bytes: usize, refused: Refused) -> PolicyError {
        match refused {
            Refused::Call { limit_bytes } => PolicyError::InvalidRequest {
                at: None,
                message: format!(
                    "the request takes {request_bytes} bytes in memory; a policy call may hold {limit_bytes} (--guest-host-mib)"
                ),
            },
            Refused::Pool { .. } => self.no_room(refused),
        }
    }

    /// The guest wanted more of the host's memory than there is for it.
    fn refused(&self, state: &GuestState, refused: Refused) -> PolicyError {
        match host_bytes(state, refused) {
            Some(fault) => self.fault(state, fault),
            None => self.no_room(refused),
        }
    }

    fn no_room(&self, refused: Refused) -> PolicyError {
        PolicyError::NoRoom {
            policy: self.version.label().to_owned(),
            refused,
        }
    }

    /// The guest answered with an error of the contract.
    fn refusal(&self, state: &GuestState, error: types::Error) -> PolicyError {
        let said = |message: &str| words(message, MAX_MESSAGE_BYTES);
        match error {
            types::Error::InvalidRequest(message) => PolicyError::InvalidRequest {
                at: None,
                message: format!("policy {}: {}", self.version.name(), said(&message)),
            },
            types::Error::Model(_) if state.usage.host_failure.is_some() => PolicyError::Host {
                policy: self.version.label().to_owned(),
                message: state.usage.host_failure.clone().unwrap_or_default(),
            },
            types::Error::Model(message) => {
                let message = said(&message);
                self.fault(state, Fault::Model { message })
            }
            types::Error::Internal(message) => {
                let message = said(&message);
                self.fault(state, Fault::Internal { message })
            }
        }
    }

    /// The guest did not return.
    fn failure(&self, state: &GuestState, error: &wasmtime::Error) -> PolicyError {
        if error.is::<PoolConcurrencyLimitError>() {
            return PolicyError::NoInstance;
        }
        if let Some(&refused) = error.downcast_ref::<Refused>() {
            return self.refused(state, refused);
        }
        self.fault(state, fault_of(self.version.limits(), state, error))
    }
}

/// Whether a call failed because others have what it would need.
pub(crate) fn is_no_room(state: &GuestState, error: &wasmtime::Error) -> bool {
    let refused = error.downcast_ref::<Refused>();
    error.is::<PoolConcurrencyLimitError>()
        || refused.is_some_and(|&refused| host_bytes(state, refused).is_none())
}

/// Which fault a failed call was.
pub(crate) fn fault_of(limits: &Limits, state: &GuestState, error: &wasmtime::Error) -> Fault {
    if let Some(fault) = error.downcast_ref::<Fault>() {
        return fault.clone();
    }
    if let Some(fault) = error
        .downcast_ref()
        .and_then(|&refused| host_bytes(state, refused))
    {
        return fault;
    }
    if error
        .chain()
        .any(|cause| cause.to_string().contains(PASSED_TOO_MUCH))
    {
        return Fault::PassedBytes {
            limit_mib: state.max_passed_bytes >> 20,
        };
    }
    if error.downcast_ref::<Trap>() == Some(&Trap::StackOverflow) {
        return Fault::StackOverflow;
    }
    // A guest whose allocation failed panics or traps in its own way.
    if state.limiter.refused {
        return Fault::Memory {
            limit_mib: limits.guest_memory_bytes >> 20,
        };
    }
    if let Some(panic) = &state.log.panic {
        return Fault::Panic {
            message: panic.message.clone(),
            file: panic.file.clone(),
            line: panic.line,
        };
    }
    Fault::Trap {
        message: words(&one_line_without_backtrace(error), MAX_MESSAGE_BYTES),
    }
}

/// The fault of a call that reached its own limit, or that holds more than [`OWN_FAULT_SHARE`] of the
/// pool when its policy's calls may have no more of it; of others it is none of its doing.
fn host_bytes(state: &GuestState, refused: Refused) -> Option<Fault> {
    match refused {
        Refused::Call { limit_bytes } => Some(Fault::HostBytes {
            limit_mib: limit_bytes >> 20,
        }),
        Refused::Pool { pool_mib } => {
            let held = state.account.held_bytes();
            let most = (pool_mib << 20) / OWN_FAULT_SHARE;
            (held > most).then_some(Fault::HostShare {
                held_mib: held >> 20,
                most_mib: most >> 20,
            })
        }
    }
}

fn one_line_without_backtrace(error: &wasmtime::Error) -> String {
    match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => one_line(error),
    }
}

fn guest_log(state: &GuestState) -> Vec<String> {
    let mut lines = state.log.lines().to_vec();
    if state.log.dropped() > 0 {
        lines.push(format!("({} more lines were dropped)", state.log.dropped()));
    }
    if let Some(output) = state.wasi_output() {
        // The last lines are those that say why it failed.
        let first = lines.len();
        let output = output.lines().rev().take(state.log.max_lines());
        lines.extend(
            output.map(|line| format!("output {}", words(line, state.log.max_line_bytes()))),
        );
        lines[first..].reverse();
    }
    lines
}

/// The request in the contract's types.
fn guest_request(
    version: &PolicyVersion,
    request: RerankRequest,
    parameters: Parameters,
) -> types::Request {
    let granted = granted_fields(version, &request, parameters.fields);
    let scored = request.first_stage == FirstStage::Scored;
    types::Request {
        query: request.query,
        signals: request.signals.into_iter().map(named_value).collect(),
        parameters: parameters.text,
        first_stage: match request.first_stage {
            FirstStage::Scored => types::FirstStage::Scored,
            FirstStage::Ranked => types::FirstStage::Ranked,
            FirstStage::None => types::FirstStage::None,
        },
        documents: request
            .documents
            .into_iter()
            .map(|document| guest_document(document, scored, granted.as_ref()))
            .collect(),
        top_n: request
            .top_n
            .map(|top_n| u32::try_from(top_n).unwrap_or(u32::MAX)),
        explain: request.explain,
    }
}

/// The fields that the policy may see: those that its manifest, the parameters or the request name,
/// as far as the operator grants them. `None` is all of them.
fn granted_fields(
    version: &PolicyVersion,
    request: &RerankRequest,
    named: Vec<String>,
) -> Option<HashSet<String>> {
    let grants = version.options().grants.as_ref();
    let grants = grants.filter(|grants| !grants.iter().any(|field| field == "*"));
    let mut granted = version.manifest().fields.clone();
    if granted.iter().any(|field| field == "*") {
        return grants.map(|grants| grants.iter().cloned().collect());
    }
    granted.extend(named);
    granted.extend(request.fields.iter().flatten().cloned());
    if let Some(grants) = grants {
        let grants: HashSet<&String> = grants.iter().collect();
        granted.retain(|field| grants.contains(field));
    }
    // Looked up for each field of each document.
    Some(granted.into_iter().collect())
}

fn guest_document(
    document: Document,
    scored: bool,
    granted: Option<&HashSet<String>>,
) -> types::Document {
    let visible = |field: &Field| granted.is_none_or(|names| names.contains(&field.name));
    types::Document {
        id: document.id,
        score: document.first_stage_score.filter(|_| scored),
        fields: document
            .fields
            .into_iter()
            .filter(visible)
            .map(named_value)
            .collect(),
    }
}

fn named_value(field: Field) -> types::NamedValue {
    let value = match field.value {
        Value::Text(text) => types::Value::Text(text),
        Value::Texts(texts) => types::Value::Texts(texts),
        Value::Number(number) => types::Value::Number(number),
        Value::Integer(integer) => types::Value::Integer(integer),
        Value::Numbers(numbers) => types::Value::Numbers(numbers),
        Value::Boolean(boolean) => types::Value::Boolean(boolean),
        Value::Vector(vector) => types::Value::Vector(vector),
        Value::Json(json) => types::Value::Json(json),
    };
    types::NamedValue {
        name: field.name,
        value,
    }
}
