//! How a shadow version's rankings differ from those that were answered, over all that were compared.

use std::sync::Mutex;

use rerankd_core::Reranked;
use serde::Serialize;

use crate::compare::{FIRST_PAGE, kendall_tau, overlap_at, running_mean, score_shift};

/// Counts and means of the comparisons of one shadow version with one other.
#[derive(Debug, Default)]
pub struct ShadowComparison {
    state: Mutex<Option<State>>,
}

#[derive(Debug, Default, Clone)]
struct State {
    against: String,
    compared: u64,
    dropped: u64,
    failed: u64,
    kendall_tau: Mean,
    overlap: Mean,
    score_shift: Mean,
    score_shift_absolute: Mean,
}

#[derive(Debug, Default, Clone, Copy)]
struct Mean {
    count: usize,
    value: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.value = running_mean(self.value, value, self.count);
    }

    fn get(self) -> Option<f64> {
        (self.count > 0).then_some(self.value)
    }
}

/// What a comparison has come to: in JSON the object `shadow_comparison`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShadowSnapshot {
    /// Digest of the version whose answers were compared with.
    pub against: String,
    /// Requests whose two rankings were compared.
    pub compared: u64,
    /// Requests that were not tried, or not in time: there was no spare capacity.
    pub dropped: u64,
    /// Requests that the shadow version failed on: its own fault, or a request that it refused.
    pub failed: u64,
    /// Mean Kendall's tau between the two orders, -1 to 1; null until there is one.
    pub kendall_tau: Option<f64>,
    /// Mean share of documents that both show among their first 10, 0 to 1.
    pub overlap_at_10: Option<f64>,
    /// Mean distance between a document's two scores, of those that both scored; null if the two
    /// versions' scores are not of one kind.
    pub score_shift: Option<f64>,
    /// Mean of the differences, the shadow's score less the answered one: which way scores went.
    pub score_shift_signed: Option<f64>,
}

impl ShadowComparison {
    /// Begins anew, against the version with this digest: a version becomes the shadow, or another
    /// one becomes active beside it. What is recorded against others from now on is left out.
    pub fn begin(&self, against: &str) {
        *self.lock() = Some(State {
            against: against.to_owned(),
            ..State::default()
        });
    }

    /// Whether answers of the version with this digest are compared with.
    pub fn is_against(&self, digest: &str) -> bool {
        let state = self.lock();
        state.as_ref().is_some_and(|state| state.against == digest)
    }

    /// Compares the ranking that was answered, by the version `against`, with the shadow's.
    pub fn compared(&self, against: &str, live: &Reranked, shadow: &Reranked) {
        let (orders, shadows) = (live.ranking.order(), shadow.ranking.order());
        let tau = kendall_tau(orders, shadows);
        let overlap = overlap_at(FIRST_PAGE, orders, shadows);
        let shift = (live.score_kind == shadow.score_kind)
            .then(|| score_shift(&live.ranking, &shadow.ranking))
            .flatten();
        self.update(against, |state| {
            state.compared += 1;
            if let Some(tau) = tau {
                state.kendall_tau.add(tau);
            }
            state.overlap.add(overlap);
            if let Some(shift) = shift {
                state.score_shift.add(shift.mean);
                state.score_shift_absolute.add(shift.mean_absolute);
            }
        });
    }

    /// Counts a request that there was no room for.
    pub fn dropped(&self, against: &str) {
        self.update(against, |state| state.dropped += 1);
    }

    /// Counts a request that the shadow version failed on.
    pub fn failed(&self, against: &str) {
        self.update(against, |state| state.failed += 1);
    }

    /// What came of it so far; `None` if it never began.
    pub fn snapshot(&self) -> Option<ShadowSnapshot> {
        let state = self.lock().clone()?;
        Some(ShadowSnapshot {
            against: state.against,
            compared: state.compared,
            dropped: state.dropped,
            failed: state.failed,
            kendall_tau: state.kendall_tau.get(),
            overlap_at_10: state.overlap.get(),
            score_shift: state.score_shift_absolute.get(),
            score_shift_signed: state.score_shift.get(),
        })
    }

    fn update(&self, against: &str, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        if let Some(state) = state.as_mut().filter(|state| state.against == against) {
            change(state);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<State>> {
        self.state
            .lock()
            .expect("nothing panics while it holds the counts")
    }
}

#[cfg(test)]
mod tests {
    use rerankd_core::{
        FirstStage, Judgment, Notes, Outcome, Ranking, ScoreKind, Status, Timings, TokenCount,
    };
    use serde_json::json;

    use super::*;

    fn reranked(score_kind: ScoreKind, scores: &[f64]) -> Reranked {
        let judge = |&score: &f64| Judgment {
            outcome: Outcome::Scored(score),
            truncated: false,
            explanation: None,
        };
        Reranked {
            policy: "p".into(),
            version: "12345678".into(),
            status: Status::Applied,
            score_kind,
            unit_map: score_kind.unit_map(),
            first_stage: FirstStage::None,
            ranking: Ranking::new(scores.iter().map(judge).collect()),
            query_truncated: false,
            notes: Notes::default(),
            tokens: TokenCount::default(),
            timings: Timings::default(),
        }
    }

    #[test]
    fn rankings_are_compared_and_counted() {
        let comparison = ShadowComparison::default();
        assert_eq!(comparison.snapshot(), None);
        comparison.begin("aa");
        let live = reranked(ScoreKind::Logit, &[3.0, 2.0, 1.0]);
        comparison.compared("aa", &live, &live);
        let reverse = reranked(ScoreKind::Logit, &[1.0, 2.0, 3.0]);
        comparison.compared("aa", &live, &reverse);
        comparison.dropped("aa");
        comparison.failed("aa");
        let snapshot = serde_json::to_value(comparison.snapshot()).expect("it is plain data");
        let third = snapshot["score_shift"].as_f64().expect("a number");
        assert!((third - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(
            snapshot,
            json!({
                "against": "aa", "compared": 2, "dropped": 1, "failed": 1, "kendall_tau": 0.0,
                "overlap_at_10": 1.0, "score_shift": third, "score_shift_signed": 0.0,
            })
        );
    }

    #[test]
    fn scores_of_two_kinds_have_no_shift() {
        let comparison = ShadowComparison::default();
        comparison.begin("aa");
        let live = reranked(ScoreKind::Logit, &[3.0, 2.0]);
        comparison.compared("aa", &live, &reranked(ScoreKind::Cosine, &[0.1, 0.2]));
        let snapshot = comparison.snapshot().expect("it began");
        assert_eq!(
            (snapshot.kendall_tau, snapshot.score_shift),
            (Some(-1.0), None)
        );
    }

    #[test]
    fn answers_of_another_version_are_left_out() {
        let comparison = ShadowComparison::default();
        comparison.dropped("aa");
        assert_eq!(comparison.snapshot(), None);
        comparison.begin("aa");
        comparison.failed("bb");
        assert!(comparison.is_against("aa") && !comparison.is_against("bb"));
        assert_eq!(comparison.snapshot().map(|s| s.failed), Some(0));
        comparison.failed("aa");
        comparison.begin("bb");
        assert_eq!(comparison.snapshot().map(|s| s.failed), Some(0));
    }
}
