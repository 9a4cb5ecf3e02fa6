//! Infinity: `POST /infinity/rerank`; its clients want `object: "rerank"` and documents as strings,
//! which others on `/rerank` refuse, so it has a path of its own.
//!
//! ```json
//! {"query": "q", "documents": ["a", "b"], "return_documents": false, "raw_scores": false,
//!  "model": "default/not-specified"}
//! {"object":"rerank","results":[{"index":0,"relevance_score":0.99}],"model":"semantic-blend",
//!  "usage":{"prompt_tokens":20,"total_tokens":20},"id":"infinity-6f-1","created":1712345678}
//! ```
//! `raw_scores` gives the policy's own scores, logits where it can. An unknown model is 400 there.

use rerankd_core::{ErrorKind, OnFailure, RerankError, Reranked};
use serde::Serialize;

use crate::list_body::{self, Common, Item, Returned, Usage};
use crate::{Answer, Call, Decoded, Protocol, Reply, Target, answer, asked, lax};

/// What its clients call the model if nobody names one.
const NO_MODEL: &str = "default/not-specified";

/// Infinity's form.
pub struct Infinity;

impl Protocol for Infinity {
    fn name(&self) -> &'static str {
        "infinity"
    }

    fn paths(&self) -> &'static [&'static str] {
        &["/infinity/rerank"]
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Error
    }

    fn decode<'a>(&self, call: &Call<'a>) -> Result<Decoded<'a>, RerankError> {
        let mut raw_scores = false;
        let mut asked = asked::read(call, &asked::USUAL, |key, place, value| {
            if key == "raw_scores" {
                raw_scores = lax::boolean(place, value)?;
            }
            Ok(key == "raw_scores")
        })?;
        asked.request.raw_scores = raw_scores;
        asked.model = asked.model.filter(|model| model != NO_MODEL);
        let target = Target::Named(asked.model.clone());
        let (request, common) = Common::of(asked, call);
        Ok(Decoded {
            target,
            requests: vec![request],
            reply: Box::new(InfinityReply(common)),
        })
    }

    fn encode_error(&self, error: &RerankError, _request_id: &str) -> Answer {
        match error.kind {
            ErrorKind::UnknownPolicy | ErrorKind::UnknownModel => {
                list_body::encode_error_with(error, 400)
            }
            _ => list_body::encode_error(error),
        }
    }
}

struct InfinityReply<'a>(Common<'a>);

impl Reply for InfinityReply<'_> {
    fn encode(self: Box<Self>, results: &[Reranked]) -> Result<Answer, RerankError> {
        let common = self.0;
        let (result, listing) = common.list(results)?;
        let body = Body {
            object: "rerank",
            results: common.items(listing, Returned::Text, false),
            model: common.model(result),
            usage: Usage::of(results),
            id: format!("infinity-{}", common.request_id),
            created: common.unix_seconds,
        };
        Ok(answer::ranked(answer::to_json(&body), results))
    }
}

#[derive(Serialize)]
struct Body<'r> {
    object: &'static str,
    results: Vec<Item>,
    model: &'r str,
    usage: Usage,
    id: String,
    created: u64,
}
