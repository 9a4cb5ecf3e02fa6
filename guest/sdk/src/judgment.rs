//! Short ways to write a verdict.

use crate::{Judgment, Outcome};

impl Judgment {
    /// The document at `index` has this score, higher is better. A score that is not finite counts
    /// as `unscored("not-finite")`.
    pub fn scored(index: u32, score: f64) -> Self {
        Self::new(index, Outcome::Scored(score))
    }

    /// The document at `index` could not be scored. `reason` is one word: `empty` (no text), `late`
    /// (its row did not run in time), `not-finite`, `failed`, or the policy's own.
    pub fn unscored(index: u32, reason: &str) -> Self {
        Self::new(index, Outcome::Unscored(reason.to_owned()))
    }

    /// The document at `index` must not be shown. Needs `"filters": true` in the manifest.
    pub fn filtered(index: u32) -> Self {
        Self::new(index, Outcome::Filtered)
    }

    /// Says whether the model saw only a part of the document's text.
    #[must_use]
    pub fn with_truncated(self, truncated: bool) -> Self {
        Self { truncated, ..self }
    }

    /// Says why, in a sentence for people. Worth making only if the request has `explain`.
    #[must_use]
    pub fn with_explanation(self, explanation: impl Into<String>) -> Self {
        Self {
            explanation: Some(explanation.into()),
            ..self
        }
    }

    fn new(index: u32, outcome: Outcome) -> Self {
        Self {
            index,
            outcome,
            truncated: false,
            explanation: None,
        }
    }
}
