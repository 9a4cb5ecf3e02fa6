//! The release pipeline's cases, run as requests of the native route would run.

use std::sync::Arc;

use rerankd_core::Limits;
use rerankd_inference::Inference;
use rerankd_policy::chores::{self, Undone, Whose};
use rerankd_policy::error::{ReleaseError, Step};
use rerankd_policy::release::{SelfTest, TestReport, TestRun};
use rerankd_policy::{PolicyEngine, PolicyVersion};

use crate::cases::{self, Cases};

/// Failures that the pipeline's message repeats.
const SHOWN_FAILURES: usize = 3;

/// Runs a policy's cases on the host that will serve it.
pub(crate) struct CaseRunner {
    /// Runs policies.
    pub(crate) engine: Arc<PolicyEngine>,
    /// Their models.
    pub(crate) inference: Arc<Inference>,
    /// The data plane's limits.
    pub(crate) limits: Limits,
}

impl SelfTest for CaseRunner {
    fn run(&self, version: Arc<PolicyVersion>, text: String) -> TestRun {
        let (engine, inference) = (Arc::clone(&self.engine), Arc::clone(&self.inference));
        let limits = self.limits.clone();
        Box::pin(async move {
            // Made by whoever pushes: read by threads that serve nobody else.
            let parsed = chores::run(Whose::Release, move |_| Cases::parse(&text)).await;
            let cases = parsed
                .map_err(|undone| match undone {
                    Undone::Busy => ReleaseError::Busy(Step::Cases),
                    _ => ReleaseError::Cases(format!("to read them {undone}")),
                })?
                .map_err(ReleaseError::Cases)?;
            let report = cases::run(&engine, &inference, &version, &cases, &limits).await;
            if report.failed > 0 && report.no_room {
                return Err(ReleaseError::Busy(Step::Cases));
            }
            let failures: Vec<String> = report
                .results
                .iter()
                .filter(|result| !result.passed)
                .take(SHOWN_FAILURES)
                .map(|result| {
                    let message = result.message.as_deref().unwrap_or("it failed");
                    format!("`{}`: {message}", result.name)
                })
                .collect();
            Ok(TestReport {
                total: report.total,
                failed: report.failed,
                first_failure: (!failures.is_empty()).then(|| failures.join("; ")),
                json: serde_json::to_value(&report)
                    .map_err(|error| ReleaseError::Host(error.to_string()))?,
            })
        })
    }
}
