//! How long the steps of one release take, for the log.

use std::time::{Duration, Instant};

use crate::error::Step;

/// Runs from step to step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    since: Instant,
    took: [Duration; Step::Activate as usize + 1],
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            since: Instant::now(),
            took: Default::default(),
        }
    }

    /// A step has ended, and the next begins.
    pub(super) fn ended(&mut self, step: Step) {
        let now = Instant::now();
        self.took[step as usize] += now - self.since;
        self.since = now;
    }

    /// Writes it all to the log.
    pub(super) fn tell(&self, policy: &str, digest: &str) {
        let ms = |step: Step| self.took[step as usize].as_secs_f64() * 1e3;
        tracing::debug!(
            policy,
            version = crate::selector::short(digest),
            inspect_ms = ms(Step::Inspect),
            compile_ms = ms(Step::Compile),
            describe_ms = ms(Step::Describe),
            models_ms = ms(Step::Models),
            cases_ms = ms(Step::Cases),
            stage_ms = ms(Step::Stage),
            activate_ms = ms(Step::Activate),
            "released"
        );
    }
}
