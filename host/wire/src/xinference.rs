//! Xinference: `POST /v1/rerank` with `kwargs` or `return_len`, which its client always sends.
//!
//! ```json
//! {"model": "semantic-blend", "query": "q", "documents": ["a", "b"], "top_n": null,
//!  "max_chunks_per_doc": null, "return_documents": true, "return_len": true, "kwargs": "{}"}
//! {"id":"6f-1","results":[{"index":0,"relevance_score":0.56,"document":{"text":"a"}}],
//!  "meta":{"api_version":null,"billed_units":null,"tokens":{"input_tokens":12,"output_tokens":0},"warnings":null}}
//! ```
//! Its client asks for the model first: [`models`](crate::models) has that answer.

use rerankd_core::{OnFailure, RerankError, Reranked};
use serde::Serialize;

use crate::asked;
use crate::list_body::{self, Common, Item, Returned};
use crate::{Answer, Call, Decoded, Keys, Protocol, Reply, answer, lax};

/// Xinference's form.
pub struct Xinference;

impl Protocol for Xinference {
    fn name(&self) -> &'static str {
        "xinference"
    }

    fn paths(&self) -> &'static [&'static str] {
        &[]
    }

    fn speaks_where_shared(&self) -> bool {
        true
    }

    fn claims(&self, body: &Keys<'_>) -> bool {
        body.has("kwargs") || body.has("return_len")
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Error
    }

    fn decode<'a>(&self, call: &Call<'a>) -> Result<Decoded<'a>, RerankError> {
        let mut return_len = false;
        let asked = asked::read(call, &asked::USUAL, |key, place, value| {
            if key == "return_len" {
                return_len = lax::boolean(place, value)?;
            }
            Ok(key == "return_len")
        })?;
        let target = asked.target();
        let (request, common) = Common::of(asked, call);
        Ok(Decoded {
            target,
            requests: vec![request],
            reply: Box::new(XinferenceReply { common, return_len }),
        })
    }

    fn encode_error(&self, error: &RerankError, _request_id: &str) -> Answer {
        list_body::encode_error(error)
    }
}

struct XinferenceReply<'a> {
    common: Common<'a>,
    return_len: bool,
}

impl Reply for XinferenceReply<'_> {
    fn encode(self: Box<Self>, results: &[Reranked]) -> Result<Answer, RerankError> {
        let (result, mut listing) = self.common.list(results)?;
        let warnings = std::mem::take(&mut listing.warnings);
        let tokens = self.return_len.then_some(Tokens {
            input_tokens: result.tokens.total,
            output_tokens: 0,
        });
        let body = Body {
            id: &self.common.request_id,
            model: self.common.model(result),
            results: self.common.items(listing, Returned::Object, false),
            meta: Meta {
                api_version: None,
                billed_units: None,
                tokens,
                warnings: (!warnings.is_empty()).then_some(warnings),
            },
        };
        Ok(answer::ranked(answer::to_json(&body), results))
    }
}

#[derive(Serialize)]
struct Body<'r> {
    id: &'r str,
    model: &'r str,
    results: Vec<Item>,
    meta: Meta,
}

/// Nulls stand in it: the real server prints them.
#[derive(Serialize)]
struct Meta {
    api_version: Option<&'static str>,
    billed_units: Option<u64>,
    tokens: Option<Tokens>,
    warnings: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Tokens {
    input_tokens: u64,
    output_tokens: u64,
}
