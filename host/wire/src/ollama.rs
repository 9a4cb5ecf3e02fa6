//! Ollama as Dify's provider `ollama` speaks to it: `POST /api/rerank`.
//!
//! ```json
//! {"model": "semantic-blend", "query": "q", "documents": ["a", "b"], "top_n": 1}
//! {"model":"semantic-blend","results":[{"index":1,"relevance_score":0.98,"document":"b"}]}
//! ```
//! A document comes back as a string, unless `return_documents` is false.

use rerankd_core::{OnFailure, RerankError, Reranked};
use serde::Serialize;

use crate::list_body::{self, Common, Item, Returned};
use crate::{Answer, Call, Decoded, Protocol, Reply, answer, asked};

/// Ollama's form.
pub struct Ollama;

impl Protocol for Ollama {
    fn name(&self) -> &'static str {
        "ollama"
    }

    fn paths(&self) -> &'static [&'static str] {
        &["/api/rerank"]
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
            reply: Box::new(OllamaReply(common)),
        })
    }

    fn encode_error(&self, error: &RerankError, _request_id: &str) -> Answer {
        list_body::encode_error(error)
    }
}

struct OllamaReply<'a>(Common<'a>);

impl Reply for OllamaReply<'_> {
    fn encode(self: Box<Self>, results: &[Reranked]) -> Result<Answer, RerankError> {
        let common = self.0;
        let (result, listing) = common.list(results)?;
        let body = Body {
            model: common.model(result),
            results: common.items(listing, Returned::Text, true),
        };
        Ok(answer::ranked(answer::to_json(&body), results))
    }
}

#[derive(Serialize)]
struct Body<'r> {
    model: &'r str,
    results: Vec<Item>,
}
