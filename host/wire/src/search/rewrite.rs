//! A search that is reranked.

use std::time::Duration;

use rerankd_core::{Limits, OnFailure, PolicySelector, RerankRequest};

use super::plan::MappingUse;
use super::reading::Reading;
use super::{Forward, Found, NotUnderstood};
use crate::engine::strip::Strip;

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
    /// How many of the first hits are reranked.
    pub window: usize,
    /// Whether [`Found::page`] without a ranking surely is the engine's own page. Where not (the first
    /// hits of a vector search depend on how many are asked for), a caller that needs it sends
    /// [`original`](Self::original).
    pub cut_is_exact: bool,
    /// What the plan has to do with a mapping that is not known.
    pub(super) mapping: MappingUse,
    /// The request for the policy, without documents.
    pub(super) request: RerankRequest,
    pub(super) cut: Cut,
}

/// How the client's page is cut from the widened answer.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    /// How many of the first hits are reranked.
    pub(super) window: usize,
    /// The first hit of the page, from 0.
    pub(super) from: usize,
    /// How many hits a page has.
    pub(super) size: usize,
    /// What is in the hits that the client did not ask for.
    pub(super) strip: Option<Strip>,
    /// The fields that the policy sees, where somebody named them: not what else is in the hits.
    pub(super) fields: Option<Vec<String>>,
    /// Which of them it is told to read, where nobody named them one by one.
    pub(super) reading: Option<Reading>,
    pub(super) keep_scores: bool,
}

impl Rewritten<'_> {
    /// Reads the engine's answer (200, JSON, not compressed) to [`widened`](Self::widened).
    ///
    /// # Errors
    /// Where the answer cannot be cut; the caller sends [`original`](Self::original).
    pub fn read<'b>(
        &'b self,
        answer: &'b [u8],
        limits: &Limits,
    ) -> Result<Found<'b>, NotUnderstood> {
        Found::read(&self.request, &self.cut, answer, limits)
    }
}
