//! The order of a reranked page, and the scores in it.

use rerankd_core::Ranking;

use super::page::{Hit, Row};

/// The hits of an answer, top to bottom.
pub(crate) struct Order {
    /// Hits of the window: the scored ones, best first, then those without a score.
    pub(crate) window: Vec<Row>,
    /// The hits behind the window, in the engine's order.
    pub(crate) tail: Vec<Row>,
    /// The score above which none of these may be; `None` where they keep their own.
    pub(crate) ceiling: Option<f64>,
}

impl Order {
    /// Orders `hits`, of which the first `ranking.documents()` are the window. Hits that are filtered
    /// or whose new score is below `min_score` are left out; hits that follow the scored ones get the
    /// last scored hit's score where their own is higher, unless `keep_scores`.
    pub(crate) fn new(
        hits: &[Hit<'_>],
        ranking: &Ranking,
        min_score: Option<f64>,
        keep_scores: bool,
    ) -> Self {
        let mut window = Vec::with_capacity(ranking.documents());
        let (scored, unscored) = ranking.order().split_at(ranking.scored());
        let mut last_score = f64::INFINITY;
        for &hit in scored {
            let score = ranking.score(hit).unwrap_or(f64::NEG_INFINITY);
            if min_score.is_none_or(|min_score| score >= min_score) {
                window.push(Row {
                    hit,
                    score: Some(score),
                });
                last_score = score;
            }
        }
        let follower = |hit: usize| {
            let own_is_higher = hits[hit].score().is_some_and(|own| own > last_score);
            Row {
                hit,
                score: (own_is_higher && !keep_scores).then_some(last_score),
            }
        };
        window.extend(unscored.iter().copied().map(follower));
        Self {
            window,
            tail: (ranking.documents()..hits.len()).map(follower).collect(),
            ceiling: (last_score.is_finite() && !keep_scores).then_some(last_score),
        }
    }
}
