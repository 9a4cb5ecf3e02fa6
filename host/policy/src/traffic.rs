//! What became of a version's calls: what its author and its operator read of it without the host's
//! log.
//!
//! [`VersionTraffic`] is told of every call, once, and keeps counts, times, the last faults and the last
//! lines that the guest logged, all bounded. [`TrafficSnapshot`] is the same as JSON. [`TrafficBook`]
//! holds one for each digest, so that the numbers of a version survive its being unloaded; they do not
//! survive the process. [`probation`] says when a version must go, [`comparison`] how a shadow differs.
//!
//! What a policy says (log lines, messages of faults) may hold document data: it is only shown where
//! [`Words::Shown`] is asked for, which takes the `push` right.

pub mod comparison;
pub mod probation;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rerankd_core::{FirstStage, Reranked, Status};
use serde::Serialize;

pub use self::comparison::{ShadowComparison, ShadowSnapshot};
pub use self::probation::{Probation, ProbationRules};
use crate::compare::{FIRST_PAGE, kendall_tau, moved_in_head};
use crate::error::PolicyError;
use crate::imports::log::cut;
use crate::invoke::Invoked;

/// Faults kept of a version.
pub const KEPT_FAULTS: usize = 20;

/// Log lines kept of a version.
pub const KEPT_LOG_LINES: usize = 100;

/// Longest kept log line, and longest kept message of a fault, bytes.
pub const KEPT_TEXT_BYTES: usize = 1024;

/// Longest kept request id, bytes.
const KEPT_ID_BYTES: usize = 128;

/// Requests of more documents are not compared with the engine's order: a record shall take well
/// under a millisecond.
const MAX_COMPARED_DOCUMENTS: usize = 5_000;

/// Versions that a [`TrafficBook`] remembers beyond those that are in use.
const REMEMBERED_VERSIONS: usize = 128;

/// One version's calls since the process first saw it.
#[derive(Debug)]
pub struct VersionTraffic {
    since: SystemTime,
    /// Held for a few additions; what takes longer happens outside.
    calls: Mutex<Calls>,
    /// CPU time of its calls, nanoseconds.
    cpu_time: AtomicU64,
    /// How it does as a shadow of another version.
    pub shadow: ShadowComparison,
}

#[derive(Debug, Default)]
struct Calls {
    calls: u64,
    last_call_ms: Option<u64>,
    statuses: BTreeMap<&'static str, u64>,
    faults: BTreeMap<&'static str, u64>,
    deadline: u64,
    errors: BTreeMap<&'static str, u64>,
    last_faults: VecDeque<FaultRecord>,
    log: VecDeque<LogRecord>,
    peak_memory_bytes: usize,
    guest: Time,
    model: Time,
    change: Change,
}

#[derive(Debug, Default, Clone, Copy)]
struct Time {
    calls: u32,
    total: Duration,
    longest: Duration,
}

#[derive(Debug, Default, Clone, Copy)]
struct Change {
    compared: u64,
    moved: f64,
    with_tau: u64,
    tau: f64,
}

/// Whether a snapshot has what the policy itself said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// For who has the `push` right: log lines, and messages of faults.
    Shown,
    /// For all others: neither.
    Withheld,
}

/// A version's traffic, as JSON: the object `traffic`.
///
/// Counts are of calls of the policy, since `since_ms`; runs as a shadow are not among them.
/// `calls` is the sum of `statuses`, `faults`, `deadline` and `errors`. Times are milliseconds;
/// `since_ms`, `last_call_ms` and `at_ms` are those since 1970 (UTC).
///
/// ```json
/// {"since_ms": 1767225600000, "last_call_ms": 1767225660000, "calls": 104,
///  "statuses": {"applied": 100, "partial": 1},
///  "faults": 1, "faults_by_kind": {"panic": 1}, "deadline": 1, "errors": {"invalid-request": 1},
///  "last_faults": [{"at_ms": 1767225650000, "kind": "panic", "request_id": "00004e24-6",
///    "message": "it panicked at src/lib.rs:14: no price", "shadow": true}],
///  "log": [{"at_ms": 1767225650000, "request_id": "00004e24-6", "line": "info 10 documents"}],
///  "peak_memory_bytes": 1114112,
///  "guest_ms": {"total": 31.2, "mean": 0.31, "max": 0.9},
///  "model_ms": {"total": 650.0, "mean": 6.5, "max": 12.1},
///  "compared": 99, "top_10_moved": 0.43, "kendall_tau": 0.61}
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrafficSnapshot {
    /// When counting began.
    pub since_ms: u64,
    /// When a call was last recorded; null if none was.
    pub last_call_ms: Option<u64>,
    /// All calls.
    pub calls: u64,
    /// Calls that gave a ranking, by the status of `Rerank-Status`.
    pub statuses: BTreeMap<&'static str, u64>,
    /// Calls that ended in the policy's own fault.
    pub faults: u64,
    /// The same by the kind of fault, as in metrics.
    pub faults_by_kind: BTreeMap<&'static str, u64>,
    /// Calls whose time was up before any document was scored.
    pub deadline: u64,
    /// Calls that failed otherwise, through no fault of the policy: `invalid-request`, `no-instance`,
    /// `no-room`, `shutting-down`, `host`.
    pub errors: BTreeMap<&'static str, u64>,
    /// The last faults, newest last, at most [`KEPT_FAULTS`].
    pub last_faults: Vec<FaultRecord>,
    /// What the guest logged last, newest last, at most [`KEPT_LOG_LINES`]. Absent where words are
    /// withheld.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<Vec<LogRecord>>,
    /// The most memory that one call had.
    pub peak_memory_bytes: usize,
    /// The guest's own computing, of calls that gave a ranking.
    pub guest_ms: TimeSnapshot,
    /// Its rows running on models, of the same calls.
    pub model_ms: TimeSnapshot,
    /// Calls whose order was compared with the engine's: those that gave a ranking of two or more
    /// documents that the engine had ordered.
    pub compared: u64,
    /// Mean share of the first 10 places that show another document than the engine's order does, 0
    /// to 1: at 0 the policy changes nothing that a searcher sees at once. Null until there is one.
    pub top_10_moved: Option<f64>,
    /// Mean Kendall's tau between the policy's order and the engine's, -1 to 1: 1 is the same order.
    /// Null until there is one.
    pub kendall_tau: Option<f64>,
}

/// Time over some calls, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TimeSnapshot {
    /// Of all of them together.
    pub total: f64,
    /// Of one, on the average; 0 if there was none.
    pub mean: f64,
    /// Of the longest.
    pub max: f64,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaultRecord {
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// Which, as in metrics.
    pub kind: &'static str,
    /// In which request.
    pub request_id: String,
    /// What was wrong; for a panic with file and line. Absent where words are withheld.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether it came in a shadow run, which nobody was answered with. Absent if not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
}

/// One line of a guest's log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogRecord {
    /// When its call ended, milliseconds since 1970.
    pub at_ms: u64,
    /// In which request.
    pub request_id: String,
    /// The level and what was said.
    pub line: String,
}

impl Default for VersionTraffic {
    fn default() -> Self {
        Self {
            since: SystemTime::now(),
            calls: Mutex::default(),
            cpu_time: AtomicU64::new(0),
            shadow: ShadowComparison::default(),
        }
    }
}

impl VersionTraffic {
    /// CPU time of all calls that have ended, cases and shadow runs included: of the guest and of the
    /// host's own work for it, without tokenizer and models.
    pub fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.cpu_time.load(Ordering::Relaxed))
    }

    pub(crate) fn add_cpu_time(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.cpu_time.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Records one call: what came of it, and the first stage that the request had.
    pub fn record(
        &self,
        first_stage: FirstStage,
        result: &Result<Invoked, PolicyError>,
        request_id: &str,
    ) {
        let words = said(result, request_id, false);
        let changed = match result {
            Ok(invoked) => change(first_stage, &invoked.reranked),
            Err(_) => None,
        };
        let mut calls = self.lock();
        calls.calls += 1;
        calls.last_call_ms = Some(words.at_ms);
        match result {
            Ok(invoked) => {
                let timings = invoked.reranked.timings;
                calls.guest.add(timings.guest);
                calls.model.add(timings.inference);
                count(&mut calls.statuses, invoked.reranked.status.name());
            }
            Err(PolicyError::Fault { fault, .. }) => count(&mut calls.faults, fault.name()),
            Err(PolicyError::Deadline { .. }) => calls.deadline += 1,
            Err(PolicyError::InvalidRequest { .. }) => count(&mut calls.errors, "invalid-request"),
            Err(PolicyError::NoInstance) => count(&mut calls.errors, "no-instance"),
            Err(PolicyError::NoRoom { .. }) => count(&mut calls.errors, "no-room"),
            Err(PolicyError::ShuttingDown) => count(&mut calls.errors, "shutting-down"),
            Err(PolicyError::Host { .. }) => count(&mut calls.errors, "host"),
        }
        if let Some((moved, tau)) = changed {
            calls.change.add(moved, tau);
        }
        calls.keep(words);
    }

    /// Keeps what a shadow run said, its fault and its peak memory. It was no call of a client's, so
    /// it is not counted here but in [`shadow`](Self::shadow).
    pub fn record_shadow(&self, result: &Result<Invoked, PolicyError>, request_id: &str) {
        let words = said(result, request_id, true);
        self.lock().keep(words);
    }

    /// The numbers, and the policy's words if they may be shown.
    pub fn snapshot(&self, words: Words) -> TrafficSnapshot {
        let shown = words == Words::Shown;
        let calls = self.lock();
        let record = |fault: &FaultRecord| FaultRecord {
            message: fault.message.clone().filter(|_| shown),
            ..fault.clone()
        };
        let mean = |sum: f64, count: u64| (count > 0).then(|| sum / count as f64);
        let change = calls.change;
        TrafficSnapshot {
            since_ms: ms_since_1970(self.since),
            last_call_ms: calls.last_call_ms,
            calls: calls.calls,
            statuses: calls.statuses.clone(),
            faults: calls.faults.values().sum(),
            faults_by_kind: calls.faults.clone(),
            deadline: calls.deadline,
            errors: calls.errors.clone(),
            last_faults: calls.last_faults.iter().map(record).collect(),
            log: shown.then(|| calls.log.iter().cloned().collect()),
            peak_memory_bytes: calls.peak_memory_bytes,
            guest_ms: calls.guest.snapshot(),
            model_ms: calls.model.snapshot(),
            compared: change.compared,
            top_10_moved: mean(change.moved, change.compared),
            kendall_tau: mean(change.tau, change.with_tau),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls
            .lock()
            .expect("nothing panics while it holds the counts")
    }
}

/// What a call leaves behind beside numbers, cut to what is kept.
struct Said {
    at_ms: u64,
    fault: Option<FaultRecord>,
    log: Vec<LogRecord>,
    peak_memory_bytes: usize,
}

fn said(result: &Result<Invoked, PolicyError>, request_id: &str, shadow: bool) -> Said {
    let at_ms = ms_since_1970(SystemTime::now());
    let request_id = cut(request_id, KEPT_ID_BYTES);
    let (lines, peak_memory_bytes, fault) = match result {
        Ok(invoked) => (&invoked.log[..], invoked.peak_memory_bytes, None),
        Err(PolicyError::Fault {
            fault,
            log,
            peak_memory_bytes,
            ..
        }) => (&log[..], *peak_memory_bytes, Some(fault)),
        Err(_) => (&[][..], 0, None),
    };
    let kept = &lines[lines.len().saturating_sub(KEPT_LOG_LINES)..];
    Said {
        at_ms,
        fault: fault.map(|fault| FaultRecord {
            at_ms,
            kind: fault.name(),
            request_id: request_id.to_owned(),
            message: Some(cut(&fault.to_string(), KEPT_TEXT_BYTES).to_owned()),
            shadow,
        }),
        log: kept
            .iter()
            .map(|line| LogRecord {
                at_ms,
                request_id: request_id.to_owned(),
                line: cut(line, KEPT_TEXT_BYTES).to_owned(),
            })
            .collect(),
        peak_memory_bytes,
    }
}

/// The share of the first page that moved and Kendall's tau to the engine's order, which is that of the
/// request; `None` where there was no such order, or nothing to order.
fn change(first_stage: FirstStage, reranked: &Reranked) -> Option<(f64, Option<f64>)> {
    let documents = reranked.ranking.documents();
    let has_an_order = first_stage != FirstStage::None
        && matches!(reranked.status, Status::Applied | Status::Partial)
        && (2..=MAX_COMPARED_DOCUMENTS).contains(&documents);
    has_an_order.then(|| {
        let engine: Vec<usize> = (0..documents).collect();
        let order = reranked.ranking.order();
        (
            moved_in_head(FIRST_PAGE, &engine, order),
            kendall_tau(&engine, order),
        )
    })
}

impl Calls {
    fn keep(&mut self, said: Said) {
        self.peak_memory_bytes = self.peak_memory_bytes.max(said.peak_memory_bytes);
        self.last_faults.extend(said.fault);
        keep_last(&mut self.last_faults, KEPT_FAULTS);
        self.log.extend(said.log);
        keep_last(&mut self.log, KEPT_LOG_LINES);
    }
}

impl Time {
    fn add(&mut self, time: Duration) {
        self.calls = self.calls.saturating_add(1);
        self.total = self.total.saturating_add(time);
        self.longest = self.longest.max(time);
    }

    fn snapshot(self) -> TimeSnapshot {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        TimeSnapshot {
            total: ms(self.total),
            mean: ms(self.total) / f64::from(self.calls.max(1)),
            max: ms(self.longest),
        }
    }
}

impl Change {
    fn add(&mut self, moved: f64, tau: Option<f64>) {
        self.compared += 1;
        self.moved += moved;
        if let Some(tau) = tau {
            self.with_tau += 1;
            self.tau += tau;
        }
    }
}

fn count(counts: &mut BTreeMap<&'static str, u64>, name: &'static str) {
    *counts.entry(name).or_default() += 1;
}

fn keep_last<T>(records: &mut VecDeque<T>, kept: usize) {
    records.drain(..records.len().saturating_sub(kept));
}

fn ms_since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The traffic of every version by its digest, for the life of the process.
///
/// Bounded: beyond 128 versions, those that nobody holds are forgotten, the one that was asked for
/// longest ago first.
#[derive(Debug, Default)]
pub struct TrafficBook {
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    by_digest: HashMap<String, Page>,
    asked: u64,
}

#[derive(Debug)]
struct Page {
    policy: String,
    traffic: Arc<VersionTraffic>,
    last_asked: u64,
}

impl TrafficBook {
    /// The traffic of a policy's version with this digest; empty if there was none. To be held with
    /// the version, not asked for at each request.
    pub fn of(&self, policy: &str, digest: &str) -> Arc<VersionTraffic> {
        let mut pages = self.lock();
        pages.asked += 1;
        let asked = pages.asked;
        if let Some(page) = pages.by_digest.get_mut(digest) {
            page.last_asked = asked;
            return Arc::clone(&page.traffic);
        }
        pages.make_room();
        let traffic = Arc::<VersionTraffic>::default();
        let page = Page {
            policy: policy.to_owned(),
            traffic: Arc::clone(&traffic),
            last_asked: asked,
        };
        pages.by_digest.insert(digest.to_owned(), page);
        traffic
    }

    /// The traffic of a version that is known.
    pub fn known(&self, digest: &str) -> Option<Arc<VersionTraffic>> {
        let pages = self.lock();
        let page = pages.by_digest.get(digest)?;
        Some(Arc::clone(&page.traffic))
    }

    /// Everything: policy, digest, traffic.
    pub fn all(&self) -> Vec<(String, String, Arc<VersionTraffic>)> {
        let pages = self.lock();
        let page = |(digest, page): (&String, &Page)| {
            (
                page.policy.clone(),
                digest.clone(),
                Arc::clone(&page.traffic),
            )
        };
        pages.by_digest.iter().map(page).collect()
    }

    /// Forgets a version that was deleted.
    pub fn forget(&self, digest: &str) {
        self.lock().by_digest.remove(digest);
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.pages
            .lock()
            .expect("nothing panics while it holds the book")
    }
}

impl Pages {
    fn make_room(&mut self) {
        while self.by_digest.len() >= REMEMBERED_VERSIONS {
            let unused = self
                .by_digest
                .iter()
                .filter(|(_, page)| Arc::strong_count(&page.traffic) == 1)
                .min_by_key(|(_, page)| page.last_asked)
                .map(|(digest, _)| digest.clone());
            let Some(digest) = unused else {
                return;
            };
            self.by_digest.remove(&digest);
        }
    }
}

#[cfg(test)]
mod tests;
