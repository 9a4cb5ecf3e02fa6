//! Runs cases through a version, as requests of the native route would run.

use std::sync::Arc;
use std::time::Instant;

use rerankd_core::Limits;
use rerankd_inference::{Deadline, Inference};
use rerankd_policy::{PolicyEngine, PolicyVersion, invoke};
use serde::Serialize;

use super::read::{Case, Cases};

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

/// Runs the cases one after the other, each with the default deadline of `limits`.
pub async fn run(
    engine: &Arc<PolicyEngine>,
    inference: &Arc<Inference>,
    version: &Arc<PolicyVersion>,
    cases: &Cases,
    limits: &Limits,
) -> Report {
    let mut results = Vec::with_capacity(cases.len());
    for case in &cases.cases {
        results.push(run_one(engine, inference, version, case, limits).await);
    }
    let passed = results.iter().filter(|result| result.passed).count();
    Report {
        total: results.len(),
        passed,
        failed: results.len() - passed,
        results,
    }
}

async fn run_one(
    engine: &Arc<PolicyEngine>,
    inference: &Arc<Inference>,
    version: &Arc<PolicyVersion>,
    case: &Case,
    limits: &Limits,
) -> CaseResult {
    let started = Instant::now();
    let deadline = Deadline::after(started, limits.default_timeout);
    let request = case.request.clone();
    let invoked = invoke(engine, inference, version, request, started, deadline).await;
    let message = case.expect.judge(&invoked.map(|invoked| invoked.reranked));
    CaseResult {
        name: case.name.clone(),
        passed: message.is_none(),
        message: message.map(|message| one_line(&message)),
    }
}

/// A policy's own words may have line breaks.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
