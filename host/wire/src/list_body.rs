//! What rerank APIs share in writing: results with documents, token counts, and the one error body
//! that has room for all of them.

use rerankd_core::{RerankError, RerankRequest, Reranked};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::asked::{Asked, Documents};
use crate::cuts::Cuts;
use crate::listing::{self, Listing, Scale, Ties, Wish};
use crate::{Answer, Call, answer};

/// The error of all protocols whose clients find there what they look for.
pub(crate) fn encode_error(error: &RerankError) -> Answer {
    encode_error_with(error, error.kind.http_status())
}

/// The same with a status of the protocol's own.
pub(crate) fn encode_error_with(error: &RerankError, code: u16) -> Answer {
    let body = ErrorBody {
        message: &error.message,
        detail: &error.message,
        error: ErrorDetail {
            message: &error.message,
            r#type: error.kind.name(),
            param: error.at.as_deref(),
            code,
        },
    };
    answer::failure(error, code, &body)
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    message: &'a str,
    detail: &'a str,
    error: ErrorDetail<'a>,
}

#[derive(Serialize)]
struct ErrorDetail<'a> {
    message: &'a str,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<&'a str>,
    code: u16,
}

/// What it takes to write an answer, in the protocols that list documents by score.
pub(crate) struct Common<'a> {
    pub(crate) request_id: String,
    pub(crate) unix_seconds: u64,
    model: Option<String>,
    documents: Documents<'a>,
    /// What the body says of it.
    pub(crate) return_documents: Option<bool>,
    cuts: Cuts,
    wish: Wish,
    pub(crate) explain: bool,
}

/// How a document stands in a result.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Returned {
    /// `{"text": ".."}`.
    Object,
    /// `".."`.
    Text,
    /// Whatever it was.
    AsSent,
}

impl<'a> Common<'a> {
    /// Splits what was read into what to rerank and what to answer.
    pub(crate) fn of(asked: Asked<'a>, call: &Call<'a>) -> (RerankRequest, Self) {
        let request = asked.request;
        let common = Self {
            request_id: call.request_id.to_owned(),
            unix_seconds: call.unix_seconds,
            model: asked.model,
            documents: asked.documents,
            return_documents: asked.return_documents,
            cuts: asked.cuts,
            wish: Wish {
                scale: if request.raw_scores {
                    Scale::Raw
                } else {
                    Scale::Unit
                },
                ties: Ties::InOrder,
                top_n: request.top_n,
                min_score: request.min_score,
            },
            explain: request.explain,
        };
        (request, common)
    }

    /// The one result and its listing.
    ///
    /// # Errors
    /// `Internal` where the results are not of this request, `TooLong` where a text was cut otherwise than
    /// the caller allows; and those of [`listing::list`].
    pub(crate) fn list<'r>(
        &self,
        results: &'r [Reranked],
    ) -> Result<(&'r Reranked, Listing), RerankError> {
        let result = answer::one_result(results, self.documents.len())?;
        self.cuts.check(results)?;
        let listing = listing::list(result, &self.wish)?;
        Ok((result, listing))
    }

    /// What the answer calls the model: as the request did, or the policy's name.
    pub(crate) fn model<'m>(&'m self, result: &'m Reranked) -> &'m str {
        self.model.as_deref().unwrap_or(&result.policy)
    }

    /// The listing as results, with documents where the body wants them; where it does not say,
    /// `by_default` does.
    pub(crate) fn items(
        &self,
        listing: Listing,
        returned: Returned,
        by_default: bool,
    ) -> Vec<Item> {
        let wanted = self.return_documents.unwrap_or(by_default);
        let items = listing.lines.into_iter().map(|line| Item {
            document: wanted.then(|| self.document(line.index, returned)),
            index: line.index,
            relevance_score: line.score,
        });
        items.collect()
    }

    /// A document as a part of an answer.
    pub(crate) fn document(&self, index: usize, returned: Returned) -> Box<RawValue> {
        let text = match returned {
            Returned::Object => self.documents.object(index),
            Returned::Text => self.documents.text(index).into_owned(),
            Returned::AsSent => self.documents.sent(index).to_owned(),
        };
        RawValue::from_string(text).expect("a part of a JSON text is JSON")
    }
}

/// A result.
#[derive(Serialize)]
pub(crate) struct Item {
    index: usize,
    relevance_score: Box<RawValue>,
    // Null in its place fails in LiteLLM.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Box<RawValue>>,
}

/// What was tokenized.
#[derive(Serialize)]
pub(crate) struct Usage {
    prompt_tokens: u64,
    /// Nothing is generated; Together's schema wants the key.
    completion_tokens: u64,
    total_tokens: u64,
}

impl Usage {
    /// Of all results together.
    pub(crate) fn of(results: &[Reranked]) -> Self {
        let total = results.iter().map(|result| result.tokens.total).sum();
        Self {
            prompt_tokens: total,
            completion_tokens: 0,
            total_tokens: total,
        }
    }
}
