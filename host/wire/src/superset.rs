//! The one answer that fits the most clients, and the protocol of all who look alike on one path:
//! Cohere v1 and v2, Jina, llama.cpp, LiteLLM's proxy, vLLM without keys of its own, and what
//! Elasticsearch's inference services and OpenSearch's ML Commons send.
//!
//! ```json
//! {"model": "semantic-blend", "query": "capital of the US?",
//!  "documents": ["Carson City", {"text": "Washington, D.C."}], "top_n": 2}
//! ```
//! `query` and `documents` must be there. A document is a string, an object with `text`, or any object
//! where `rank_fields` names its fields. `top_n` (also `top_k`) of null, 0 or above the count is all.
//!
//! ```json
//! {"id":"6f-1","object":"list","model":"semantic-blend",
//!  "results":[{"index":1,"relevance_score":0.971},{"index":0,"relevance_score":0.213}],
//!  "data":[{"index":1,"relevance_score":0.971},{"index":0,"relevance_score":0.213}],
//!  "usage":{"prompt_tokens":31,"total_tokens":31},
//!  "meta":{"api_version":{"version":"2"},"billed_units":{"search_units":1}}}
//! ```
//! `data` says again what `results` says, for readers of Voyage's answer who cannot be told from
//! others. With `return_documents` each result has `document`, an object with `text`; Elasticsearch
//! refuses any other key there, so explanations are under `meta`.
//!
//! Broken JSON tells nobody from anybody: an error has the fields of all of them,
//! `{"message":"..","detail":"..","error":{"message":"..","type":"..","code":400}}`.

use rerankd_core::{OnFailure, RerankError, RerankRequest, Reranked};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::asked::{self, Asked, Documents};
use crate::listing::{self, Listing, Scale, Ties, Wish};
use crate::{Answer, Call, Decoded, Protocol, Reply, answer};

/// The form of all who look alike.
pub struct Superset;

impl Protocol for Superset {
    fn name(&self) -> &'static str {
        "superset"
    }

    fn paths(&self) -> &'static [&'static str] {
        &[
            "/v1/rerank",
            "/v2/rerank",
            "/rerank",
            "/v1/reranking",
            "/reranking",
        ]
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Error
    }

    fn decode<'a>(&self, call: &Call<'a>) -> Result<Decoded<'a>, RerankError> {
        let asked = asked::read(call, &asked::USUAL, |_, _, _| Ok(false))?;
        let target = asked.target();
        let (request, common) = Common::of(asked, call);
        let reply = SupersetReply {
            common,
            version: if call.path.starts_with("/v2/") {
                "2"
            } else {
                "1"
            },
        };
        Ok(Decoded {
            target,
            requests: vec![request],
            reply: Box::new(reply),
        })
    }

    fn encode_error(&self, error: &RerankError, _request_id: &str) -> Answer {
        encode_error(error)
    }
}

/// The error of the superset and of all protocols whose errors it has room for.
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
    pub(crate) return_documents: bool,
    wish: Wish,
    explain: bool,
}

/// How a document stands in a result.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Returned {
    /// `{"text": ".."}`.
    Object,
    /// `".."`.
    Text,
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
    /// `Internal` where the results are not of this request; and those of [`listing::list`].
    pub(crate) fn list<'r>(
        &self,
        results: &'r [Reranked],
    ) -> Result<(&'r Reranked, Listing), RerankError> {
        let result = answer::one_result(results, self.documents.len())?;
        Ok((result, listing::list(result, &self.wish)?))
    }

    /// What the answer calls the model: as the request did, or the policy's name.
    pub(crate) fn model<'m>(&'m self, result: &'m Reranked) -> &'m str {
        self.model.as_deref().unwrap_or(&result.policy)
    }

    /// The listing as results.
    pub(crate) fn items(&self, listing: Listing, returned: Returned) -> Vec<Item> {
        let document = |index| {
            let text = match returned {
                Returned::Object => self.documents.object(index),
                Returned::Text => self.documents.text(index).into_owned(),
            };
            RawValue::from_string(text).expect("a part of a JSON text is JSON")
        };
        let items = listing.lines.into_iter().map(|line| Item {
            index: line.index,
            relevance_score: line.score,
            document: self.return_documents.then(|| document(line.index)),
        });
        items.collect()
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
    total_tokens: u64,
}

impl Usage {
    /// Of all results together.
    pub(crate) fn of(results: &[Reranked]) -> Self {
        let total = results.iter().map(|result| result.tokens.total).sum();
        Self {
            prompt_tokens: total,
            total_tokens: total,
        }
    }
}

struct SupersetReply<'a> {
    common: Common<'a>,
    version: &'static str,
}

impl Reply for SupersetReply<'_> {
    fn encode(self: Box<Self>, results: &[Reranked]) -> Result<Answer, RerankError> {
        let (result, mut listing) = self.common.list(results)?;
        let warnings = std::mem::take(&mut listing.warnings);
        let explanations = self.common.explain.then(|| explanations(result, &listing));
        let items = self.common.items(listing, Returned::Object);
        let body = Body {
            id: &self.common.request_id,
            object: "list",
            model: self.common.model(result),
            results: &items,
            data: &items,
            usage: Usage::of(results),
            meta: Meta {
                api_version: ApiVersion {
                    version: self.version,
                },
                billed_units: BilledUnits { search_units: 1 },
                warnings,
                explanations,
            },
        };
        Ok(answer::ranked(answer::to_json(&body), results))
    }
}

fn explanations<'r>(result: &'r Reranked, listing: &Listing) -> Vec<Explanation<'r>> {
    let lines = listing.lines.iter();
    let explanations = lines.filter_map(|line| {
        let judgment = result.ranking.judgment(line.index);
        Some(Explanation {
            index: line.index,
            explanation: judgment.explanation.as_deref()?,
        })
    });
    explanations.collect()
}

#[derive(Serialize)]
struct Body<'r> {
    id: &'r str,
    object: &'static str,
    model: &'r str,
    results: &'r [Item],
    data: &'r [Item],
    usage: Usage,
    meta: Meta<'r>,
}

#[derive(Serialize)]
struct Meta<'r> {
    api_version: ApiVersion,
    billed_units: BilledUnits,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanations: Option<Vec<Explanation<'r>>>,
}

#[derive(Serialize)]
struct ApiVersion {
    version: &'static str,
}

#[derive(Serialize)]
struct BilledUnits {
    search_units: u32,
}

#[derive(Serialize)]
struct Explanation<'r> {
    index: usize,
    explanation: &'r str,
}
