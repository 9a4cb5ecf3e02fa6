//! The one answer that fits the most clients, and the protocol of all who look alike on one path:
//! Cohere v1 and v2, Jina, llama.cpp, LiteLLM's proxy, vLLM without keys of its own, and what
//! Elasticsearch's inference services and OpenSearch's ML Commons send.
//!
//! ```json
//! {"model": "semantic-blend", "query": "capital of the US?",
//!  "documents": ["Carson City", {"text": "Washington, D.C."}], "top_n": 2}
//! ```
//! `query` and `documents` must be there. A document is a string, an object with `text`, or any object
//! where `rank_fields` names its fields. `top_n` of null, 0 or above the count is all.
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

use rerankd_core::{OnFailure, RerankError, Reranked};
use serde::Serialize;

use crate::asked;
use crate::list_body::{self, Common, Item, Returned, Usage};
use crate::listing::Listing;
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
        list_body::encode_error(error)
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
