//! A search that is reranked.

use std::time::Duration;

use rerankd_core::{Limits, OnFailure, PolicySelector, RerankError, RerankRequest};

use super::behind::PageSearch;
use super::options::OwnOptions;
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
    /// Whether the widened answer holds only if the client's own search counts the same hits.
    pub(super) must_agree: bool,
    /// What the search itself says of the request.
    pub(super) own: OwnOptions,
    /// Target and body that are the same for all pages of the search.
    pub(super) identity: (String, String),
    /// Where the page comes by a search of its own.
    pub(super) page: Option<PageSearch>,
    /// The request for the policy, without documents.
    pub(super) request: RerankRequest,
    pub(super) cut: Cut,
}

/// How the client's page is cut from the widened answer.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    /// How many of the first hits are reranked.
    pub(super) window: usize,
    /// How many hits the widened search asks for.
    pub(super) wanted: usize,
    /// Whether `hits.total` counts what can be among the hits.
    pub(super) is_counted: bool,
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
    /// Whether the client's page begins with the first hit.
    pub fn is_first_page(&self) -> bool {
        self.cut.from == 0
    }

    /// Target and body that are the same for all pages of the search, and for no other search.
    pub fn identity(&self) -> (&str, &[u8]) {
        (&self.identity.0, self.identity.1.as_bytes())
    }

    /// What is asked of whom, beyond the search: the same for all its pages.
    pub fn asked(&self) -> Vec<u8> {
        let asked = (
            &self.target,
            self.window,
            self.cut.keep_scores,
            &self.request,
        );
        // Both print in the same way whenever they are the same.
        format!("{asked:?}").into_bytes()
    }

    /// Whether what is wrong with the request to the policy is what the search itself says, and not the
    /// operator's rule.
    pub fn is_callers(&self, error: &RerankError) -> bool {
        let root = error.at.as_deref().map(|at| {
            let end = at.find(['.', '[']).unwrap_or(at.len());
            &at[..end]
        });
        match root {
            Some("parameters") => self.own.parameters || self.own.fields,
            Some("fields") => self.own.fields,
            _ => self.own != OwnOptions::default(),
        }
    }

    /// Reads the engine's answer (200, JSON, not compressed) to [`widened`](Self::widened).
    ///
    /// # Errors
    /// Where the answer cannot be cut; the caller sends [`original`](Self::original).
    pub fn read<'b>(
        &'b self,
        answer: &'b [u8],
        limits: &Limits,
    ) -> Result<Found<'b>, NotUnderstood> {
        Found::read(self, answer, limits)
    }
}
