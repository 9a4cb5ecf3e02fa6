//! Voyage: `POST /v1/rerank` with `top_k`, which no other server knows, or `POST /voyage/v1/rerank`.
//!
//! ```json
//! {"query": "q", "documents": ["a", "b"], "model": "semantic-blend", "top_k": null, "truncation": true}
//! {"object":"list","data":[{"index":1,"relevance_score":0.86}],"model":"semantic-blend","usage":{"total_tokens":57}}
//! ```
//! With `return_documents` a result has `document`, a string. Errors are `{"detail": ".."}` among
//! others. `results` says again what `data` says: AstrBot's general reranker sends `top_k` and reads those.

use rerankd_core::{OnFailure, RerankError, Reranked};
use serde::Serialize;

use crate::asked;
use crate::list_body::{self, Common, Item, Returned, Usage};
use crate::{Answer, Call, Decoded, Keys, Protocol, Reply, answer};

/// Voyage's form. Its client for Python always sends `top_k`; the one for JavaScript does not unless it
/// is told to, and then nothing but the path can tell it from others.
pub struct Voyage;

impl Protocol for Voyage {
    fn name(&self) -> &'static str {
        "voyage"
    }

    fn paths(&self) -> &'static [&'static str] {
        &["/voyage/v1/rerank"]
    }

    fn speaks_where_shared(&self) -> bool {
        true
    }

    fn claims(&self, body: &Keys<'_>) -> bool {
        body.has("top_k") && !body.has("top_n")
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Error
    }

    fn decode<'a>(&self, call: &Call<'a>) -> Result<Decoded<'a>, RerankError> {
        let asked = asked::read(call, &asked::USUAL, |_, _, _| Ok(false))?;
        let target = asked.target();
        let (request, common) = Common::of(asked, call);
        Ok(Decoded {
            target,
            requests: vec![request],
            reply: Box::new(VoyageReply { common }),
        })
    }

    fn encode_error(&self, error: &RerankError, _request_id: &str) -> Answer {
        list_body::encode_error(error)
    }
}

struct VoyageReply<'a> {
    common: Common<'a>,
}

impl Reply for VoyageReply<'_> {
    fn encode(self: Box<Self>, results: &[Reranked]) -> Result<Answer, RerankError> {
        let (result, listing) = self.common.list(results)?;
        let items = self.common.items(listing, Returned::Text, false);
        let body = Body {
            object: "list",
            data: &items,
            results: &items,
            model: self.common.model(result),
            usage: Usage::of(results),
        };
        Ok(answer::ranked(answer::to_json(&body), results))
    }
}

#[derive(Serialize)]
struct Body<'r> {
    object: &'static str,
    data: &'r [Item],
    results: &'r [Item],
    model: &'r str,
    usage: Usage,
}
