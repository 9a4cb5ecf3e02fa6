//! Runs cases through a version, as requests of the native route would run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rerankd_core::Limits;
use rerankd_inference::{Deadline, Inference};
use rerankd_policy::{PolicyEngine, PolicyError, PolicyVersion, invoke_measured};
use serde::Serialize;

use super::read::{Case, Cases};

/// How long all cases of a set may take together, waiting included. The last one may take its own
/// deadline beyond that.
const SET_TIME: Duration = Duration::from_secs(60);

/// CPU time of all cases of a set together, as a multiple of one call's (`--guest-cpu-ms`). The last one
/// may take its own beyond that.
const SET_CPU_CALLS: u32 = 10;

/// What became of some cases.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// How many there were.
    pub total: usize,
    /// How many came out as expected.
    pub passed: usize,
    /// How many did not.
    pub failed: usize,
    /// One each, in their order.
    pub results: Vec<CaseResult>,
    /// Whether the server had no room for one: that says nothing of the policy.
    #[serde(skip)]
    pub no_room: bool,
}

/// What became of one case.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaseResult {
    /// The case's name.
    pub name: String,
    /// Whether all came out as expected.
    pub passed: bool,
    /// What was expected and what came, in one line; only if it did not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Runs the cases one after the other, each with the default deadline of `limits`. Those that are left
/// when the set has used its time, 60 s or ten times the CPU time of a call, fail without being run.
pub async fn run(
    engine: &Arc<PolicyEngine>,
    inference: &Arc<Inference>,
    version: &Arc<PolicyVersion>,
    cases: &Cases,
    limits: &Limits,
) -> Report {
    let mut results = Vec::with_capacity(cases.len());
    let started = Instant::now();
    let mut cpu_time = Duration::ZERO;
    let mut no_room = false;
    let set_cpu = limits.guest_cpu.saturating_mul(SET_CPU_CALLS);
    for case in &cases.cases {
        let spent = if started.elapsed() >= SET_TIME {
            Some(format!("{SET_TIME:?}"))
        } else if cpu_time >= set_cpu {
            Some(format!(
                "{set_cpu:?} of CPU time (ten times --guest-cpu-ms)"
            ))
        } else {
            None
        };
        if let Some(spent) = spent {
            results.push(CaseResult {
                name: case.name.clone(),
                passed: false,
                message: Some(format!(
                    "not run: the cases before it have used what all may use together, {spent}"
                )),
            });
            continue;
        }
        let (result, invoked) = run_one(engine, inference, version, case, limits).await;
        results.push(result);
        no_room |= invoked.no_room;
        cpu_time += invoked.cpu_time;
    }
    let passed = results.iter().filter(|result| result.passed).count();
    Report {
        total: results.len(),
        passed,
        failed: results.len() - passed,
        no_room,
        results,
    }
}

/// What a case's run was, apart from what was expected of it.
struct Run {
    cpu_time: Duration,
    no_room: bool,
}

async fn run_one(
    engine: &Arc<PolicyEngine>,
    inference: &Arc<Inference>,
    version: &Arc<PolicyVersion>,
    case: &Case,
    limits: &Limits,
) -> (CaseResult, Run) {
    let started = Instant::now();
    let deadline = Deadline::after(started, limits.default_timeout);
    let request = case.request.clone();
    let (invoked, cpu_time) =
        invoke_measured(engine, inference, version, request, started, deadline).await;
    let run = Run {
        cpu_time,
        no_room: matches!(
            invoked,
            Err(PolicyError::NoInstance | PolicyError::NoRoom { .. })
        ),
    };
    let message = case.expect.judge(&invoked.map(|invoked| invoked.reranked));
    let result = CaseResult {
        name: case.name.clone(),
        passed: message.is_none(),
        message: message.map(|message| one_line(&message)),
    };
    (result, run)
}

/// A policy's own words may have line breaks.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
