//! Mixedbread: `POST /v1/reranking` with `input`, which Dify's provider `mixedbread` and llama-index send.
//!
//! ```json
//! {"model": "semantic-blend", "query": "q", "input": ["a", "b"], "top_k": null, "return_input": true}
//! {"usage":{"prompt_tokens":9,"completion_tokens":0,"total_tokens":9},"model":"semantic-blend",
//!  "data":[{"index":1,"score":0.98,"input":"b","object":"rank_result"}],"object":"list","top_k":2,"return_input":true}
//! ```
//! An input may be an object, whose fields `rank_fields` names. It comes back as it was sent, where
//! `return_input` asks for it.

use rerankd_core::{OnFailure, RerankError, Reranked};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::asked::{self, Form};
use crate::list_body::{self, Common, Returned, Usage};
use crate::{Answer, Call, Decoded, Keys, Protocol, Reply, answer, lax};

/// Mixedbread's form.
pub struct Mixedbread;

impl Protocol for Mixedbread {
    fn name(&self) -> &'static str {
        "mixedbread"
    }

    fn paths(&self) -> &'static [&'static str] {
        &[]
    }

    fn speaks_where_shared(&self) -> bool {
        true
    }

    fn claims(&self, body: &Keys<'_>) -> bool {
        body.has("input") && body.has("query")
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Error
    }

    fn decode<'a>(&self, call: &Call<'a>) -> Result<Decoded<'a>, RerankError> {
        let form = Form {
            documents: "input",
            ..asked::USUAL
        };
        let mut return_input = false;
        let asked = asked::read(call, &form, |key, place, value| {
            if key == "return_input" {
                return_input = lax::boolean(place, value)?;
            }
            Ok(key == "return_input")
        })?;
        let target = asked.target();
        let (request, common) = Common::of(asked, call);
        Ok(Decoded {
            target,
            requests: vec![request],
            reply: Box::new(MixedbreadReply {
                common,
                return_input,
            }),
        })
    }

    fn encode_error(&self, error: &RerankError, _request_id: &str) -> Answer {
        list_body::encode_error(error)
    }
}

struct MixedbreadReply<'a> {
    common: Common<'a>,
    return_input: bool,
}

impl Reply for MixedbreadReply<'_> {
    fn encode(self: Box<Self>, results: &[Reranked]) -> Result<Answer, RerankError> {
        let (result, listing) = self.common.list(results)?;
        let ranked = listing.lines.into_iter().map(|line| Ranked {
            input: (self.return_input).then(|| self.common.document(line.index, Returned::AsSent)),
            index: line.index,
            score: line.score,
            object: "rank_result",
        });
        let data: Vec<Ranked> = ranked.collect();
        let body = Body {
            usage: Usage::of(results),
            model: self.common.model(result),
            top_k: data.len(),
            data,
            object: "list",
            return_input: self.return_input,
        };
        Ok(answer::ranked(answer::to_json(&body), results))
    }
}

#[derive(Serialize)]
struct Body<'r> {
    usage: Usage,
    model: &'r str,
    data: Vec<Ranked>,
    object: &'static str,
    top_k: usize,
    return_input: bool,
}

#[derive(Serialize)]
struct Ranked {
    index: usize,
    score: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Box<RawValue>>,
    object: &'static str,
}
