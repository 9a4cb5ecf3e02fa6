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
//!  "results":[{"index":1,"relevance_score":0.971,"document":{"text":"Washington, D.C."}},
//!    {"index":0,"relevance_score":0.213,"document":{"text":"Carson City"}}],
//!  "data":[{"index":1,"relevance_score":0.971},{"index":0,"relevance_score":0.213}],
//!  "usage":{"prompt_tokens":31,"completion_tokens":0,"total_tokens":31},
//!  "meta":{"api_version":{"version":"2"},"billed_units":{"search_units":1},
//!    "tokens":{"input_tokens":31,"output_tokens":0}}}
//! ```
//! `data` says again what `results` says, for readers of Voyage's answer who cannot be told from
//! others. Each result has `document`, an object with `text`, unless `return_documents` is false; `data` has
//! them only where it is true. Elasticsearch refuses any other key in a result, so explanations are under
//! `meta`.
//!
//! Broken JSON tells nobody from anybody: an error has the fields of all of them,
//! `{"message":"..","detail":"..","error":{"message":"..","type":"..","code":400}}`.

use rerankd_core::{OnFailure, RerankError, Reranked};
use serde::Serialize;

use crate::asked::{self, Form};
use crate::list_body::{self, Common, Item, Returned, Usage};
use crate::listing::Listing;
use crate::{Answer, Call, Decoded, Keys, Protocol, Reply, answer};

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

    fn speaks_where_shared(&self) -> bool {
        true
    }

    fn claims(&self, body: &Keys<'_>) -> bool {
        body.has("documents")
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Error
    }

    fn decode<'a>(&self, call: &Call<'a>) -> Result<Decoded<'a>, RerankError> {
        let form = Form {
            explains: true,
            ..asked::USUAL
        };
        let asked = asked::read(call, &form, |_, _, _| Ok(false))?;
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
        let (results_of, data) = self.both(listing);
        let body = Body {
            id: &self.common.request_id,
            object: "list",
            model: self.common.model(result),
            results: results_of,
            data,
            usage: Usage::of(results),
            meta: Meta {
                api_version: ApiVersion {
                    version: self.version,
                },
                billed_units: BilledUnits { search_units: 1 },
                tokens: Tokens {
                    input_tokens: result.tokens.total,
                    output_tokens: 0,
                },
                warnings,
                explanations,
            },
        };
        Ok(answer::ranked(answer::to_json(&body), results))
    }
}

impl SupersetReply<'_> {
    /// The results, and the same as `data`. Documents that nobody asked for are in `results` alone: who
    /// needs them reads those.
    fn both(&self, listing: Listing) -> (Vec<Item>, Vec<Item>) {
        let copy = listing.lines.clone();
        let data = Listing {
            lines: copy,
            warnings: Vec::new(),
        };
        let results = self.common.items(listing, Returned::Object, true);
        (results, self.common.items(data, Returned::Object, false))
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
    results: Vec<Item>,
    data: Vec<Item>,
    usage: Usage,
    meta: Meta<'r>,
}

#[derive(Serialize)]
struct Meta<'r> {
    api_version: ApiVersion,
    billed_units: BilledUnits,
    tokens: Tokens,
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

/// SiliconFlow's readers add them up.
#[derive(Serialize)]
struct Tokens {
    input_tokens: u64,
    output_tokens: u64,
}

#[derive(Serialize)]
struct Explanation<'r> {
    index: usize,
    explanation: &'r str,
}
