//! Several searches in one request: `_msearch`.

use rerankd_core::{Limits, RerankError, Reranked, SkipReason};

use super::{Forward, Found, NotUnderstood, Policies, Rewritten, Rules, SearchCall};

/// What to do with an `_msearch`.
#[derive(Debug)]
pub struct MultiPlan<'a> {
    /// All searches, each as it is planned.
    pub forward: Forward<'a>,
    /// One for each search, in their order. Empty where the body is not understood: then `forward` is
    /// the client's own, and the answer goes through.
    pub items: Vec<ItemPlan<'a>>,
}

/// What to do with one search of an `_msearch`.
#[derive(Debug)]
pub enum ItemPlan<'a> {
    /// Nothing is reranked.
    Pass(SkipReason),
    /// The window is fetched; only target, options and [`Rewritten::read`] matter here, and its
    /// forwards are body lines.
    Rerank(Box<Rewritten<'a>>),
}

impl<'a> MultiPlan<'a> {
    /// Whether there is anything to rerank. If not, the answer may be streamed through.
    pub fn reranks(&self) -> bool {
        self.items
            .iter()
            .any(|item| matches!(item, ItemPlan::Rerank(_)))
    }

    /// All searches, as the client meant them.
    pub fn original(&self) -> Forward<'a> {
        self.forward.clone()
    }

    /// The searches at these positions, as the client meant them.
    pub fn original_of(&self, _items: &[usize]) -> Forward<'a> {
        self.forward.clone()
    }

    /// Reads the engine's answer (200, JSON) to [`forward`](Self::forward).
    ///
    /// # Errors
    /// Where it has not an answer for each search; the caller sends [`original`](Self::original).
    pub fn read<'b>(
        &'b self,
        _answer: &'b [u8],
        _limits: &Limits,
    ) -> Result<MultiFound<'b>, NotUnderstood> {
        Err(NotUnderstood::NoHits)
    }
}

/// What the engine found for an `_msearch`.
#[derive(Debug)]
pub struct MultiFound<'b> {
    /// One for each search, in their order.
    pub items: Vec<MultiAnswer<'b>>,
    answer: &'b [u8],
}

/// The answer to one search of an `_msearch`.
#[derive(Debug)]
pub enum MultiAnswer<'b> {
    /// It was passed: goes through as it is.
    Pass(SkipReason),
    /// It was widened.
    Found(Box<Found<'b>>),
    /// It was widened, and the engine's answer is an error or not understood: to be asked again, with
    /// [`MultiPlan::original_of`].
    Again(NotUnderstood),
}

impl MultiFound<'_> {
    /// The positions of the searches that are to be asked again.
    pub fn again(&self) -> Vec<usize> {
        Vec::new()
    }

    /// The whole answer. `reranked` has one for each search (`None` where there is no ranking);
    /// `again` is the engine's answer to [`MultiPlan::original_of`] of [`again`](Self::again), where
    /// there were any.
    ///
    /// # Errors
    /// Where `again` does not hold an answer for each search that was asked again; the caller sends
    /// [`MultiPlan::original`] and passes what comes.
    pub fn page(
        &self,
        _reranked: &[Option<Reranked>],
        _again: Option<&[u8]>,
    ) -> Result<Vec<u8>, NotUnderstood> {
        Ok(self.answer.to_vec())
    }
}

/// Decides what to do with each search of an `_msearch`.
///
/// # Errors
/// `BadRequest` for options of ours that are unknown or out of bounds, with the place.
pub fn plan_multi<'a>(
    call: &SearchCall<'a>,
    rules: &Rules,
    policies: &dyn Policies,
    limits: &Limits,
) -> Result<MultiPlan<'a>, RerankError> {
    let forward = match super::plan(call, rules, policies, limits)? {
        super::Plan::Pass(pass) => pass.forward,
        super::Plan::Rerank(rewritten) => rewritten.original,
    };
    Ok(MultiPlan {
        forward,
        items: Vec::new(),
    })
}
