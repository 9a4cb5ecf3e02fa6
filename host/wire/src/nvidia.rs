//! NVIDIA's ranking form, `POST /v1/ranking`, which Elasticsearch's service `nvidia` speaks, and
//! `POST /v1/retrieval/{vendor}/reranking`, with or without a model behind the vendor, which its hosted API has.
//!
//! ```json
//! {"model": "semantic-blend", "query": {"text": "q"}, "passages": [{"text": "a"}, {"text": "b"}]}
//! {"rankings":[{"index":1,"logit":3.25},{"index":0,"logit":-1.5}],"usage":{"prompt_tokens":9,"total_tokens":9}}
//! ```
//! As its name says, `logit` is the raw score: the policy's logit, where it can give one.
//! Elasticsearch refuses any other key in an entry.

use rerankd_core::{OnFailure, RerankError, Reranked};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::asked::{self, Form};
use crate::cuts::Cuts;
use crate::list_body::{self, Usage};
use crate::listing::{self, Scale, Ties, Wish};
use crate::{Answer, Call, Decoded, Keys, Protocol, Reply, answer};

/// NVIDIA's form.
pub struct Nvidia;

impl Protocol for Nvidia {
    fn name(&self) -> &'static str {
        "nvidia"
    }

    fn paths(&self) -> &'static [&'static str] {
        &[
            "/v1/ranking",
            "/v1/retrieval/{vendor}/reranking",
            "/v1/retrieval/{vendor}/{model}/reranking",
        ]
    }

    fn speaks_where_shared(&self) -> bool {
        true
    }

    fn claims(&self, body: &Keys<'_>) -> bool {
        body.has("passages")
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Error
    }

    fn decode<'a>(&self, call: &Call<'a>) -> Result<Decoded<'a>, RerankError> {
        let form = Form {
            documents: "passages",
            ..asked::USUAL
        };
        let mut asked = asked::read(call, &form, |_, _, _| Ok(false))?;
        asked.request.raw_scores = true;
        let reply = NvidiaReply {
            passages: asked.documents.len(),
            cuts: asked.cuts.clone(),
            wish: Wish {
                scale: Scale::Raw,
                ties: Ties::InOrder,
                top_n: asked.request.top_n,
                min_score: asked.request.min_score,
            },
        };
        Ok(Decoded {
            target: asked.target(),
            requests: vec![asked.request],
            reply: Box::new(reply),
        })
    }

    fn encode_error(&self, error: &RerankError, _request_id: &str) -> Answer {
        list_body::encode_error(error)
    }
}

struct NvidiaReply {
    passages: usize,
    cuts: Cuts,
    wish: Wish,
}

impl Reply for NvidiaReply {
    fn encode(self: Box<Self>, results: &[Reranked]) -> Result<Answer, RerankError> {
        let result = answer::one_result(results, self.passages)?;
        self.cuts.check(results)?;
        let listing = listing::list(result, &self.wish)?;
        let entries = listing.lines.into_iter().map(|line| Entry {
            index: line.index,
            logit: line.score,
        });
        let body = Body {
            rankings: entries.collect(),
            usage: Usage::of(results),
        };
        Ok(answer::ranked(answer::to_json(&body), results))
    }
}

#[derive(Serialize)]
struct Body {
    rankings: Vec<Entry>,
    usage: Usage,
}

#[derive(Serialize)]
struct Entry {
    index: usize,
    logit: Box<RawValue>,
}
