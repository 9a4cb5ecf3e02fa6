//! DashScope (Alibaba's Bailian): `POST /api/v1/services/rerank/text-rerank/text-rerank`, which its SDK for
//! Python and AstrBot call.
//!
//! ```json
//! {"model": "semantic-blend", "input": {"query": "q", "documents": ["a", "b"]},
//!  "parameters": {"return_documents": true, "top_n": 1}}
//! {"output":{"results":[{"index":1,"relevance_score":0.98,"document":{"text":"b"}}]},
//!  "usage":{"prompt_tokens":9,"completion_tokens":0,"total_tokens":9},"request_id":"6f-1"}
//! ```
//! What stands under `parameters` may stand at the top of the body, and so may `query` and `documents`:
//! AstrBot sends `qwen3-rerank` those. Errors have `code` and `message`.

use rerankd_core::{OnFailure, RerankError, Reranked};
use serde::Serialize;

use crate::decode::Place;
use crate::json::{self, Kind};
use crate::list_body::{Common, Item, Returned, Usage};
use crate::{Answer, Call, Decoded, Keys, Protocol, Reply, answer, asked};

/// DashScope's form.
pub struct DashScope;

impl Protocol for DashScope {
    fn name(&self) -> &'static str {
        "dashscope"
    }

    fn paths(&self) -> &'static [&'static str] {
        &["/api/v1/services/rerank/text-rerank/text-rerank"]
    }

    fn speaks_where_shared(&self) -> bool {
        true
    }

    fn claims(&self, body: &Keys<'_>) -> bool {
        body.has("input") && !body.has("query")
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Error
    }

    fn decode<'a>(&self, call: &Call<'a>) -> Result<Decoded<'a>, RerankError> {
        let body = json::parse(call.body)?;
        Place::Body.expect(Kind::Object, body)?;
        let input = body.member("input").filter(|input| !input.is_null());
        if let Some(input) = input {
            Place::Body.key("input").expect(Kind::Object, input)?;
        }
        let inner = input.into_iter().flat_map(json::Json::members);
        let members = body
            .members()
            .filter(|(key, _)| key != "input")
            .chain(inner);
        let asked = asked::read_members(call, &asked::USUAL, members, |_, _, _| Ok(false));
        let asked = asked.map_err(|error| match input {
            Some(input) => placed_in(input, error),
            None => error,
        })?;
        let target = asked.target();
        let (request, common) = Common::of(asked, call);
        Ok(Decoded {
            target,
            requests: vec![request],
            reply: Box::new(DashScopeReply(common)),
        })
    }

    fn encode_error(&self, error: &RerankError, request_id: &str) -> Answer {
        let body = ErrorBody {
            code: error.kind.name(),
            message: &error.message,
            request_id,
        };
        answer::failure(error, error.kind.http_status(), &body)
    }
}

/// The error with its place in `input`, if it is of a key that stands there or is missing there.
fn placed_in(input: json::Json<'_>, error: RerankError) -> RerankError {
    let Some(at) = error.at.as_deref() else {
        return error;
    };
    let key = at.split(['[', '.']).next().unwrap_or_default();
    if !["query", "documents"].contains(&key) && input.member(key).is_none() {
        return error;
    }
    let outer = format!("input.{at}");
    RerankError {
        message: error.message.replacen(at, &outer, 1),
        at: Some(outer),
        ..error
    }
}

struct DashScopeReply<'a>(Common<'a>);

impl Reply for DashScopeReply<'_> {
    fn encode(self: Box<Self>, results: &[Reranked]) -> Result<Answer, RerankError> {
        let common = self.0;
        let (_, listing) = common.list(results)?;
        let items = common.items(listing, Returned::Object, false);
        let body = Body {
            output: Output { results: &items },
            usage: Usage::of(results),
            request_id: &common.request_id,
        };
        Ok(answer::ranked(answer::to_json(&body), results))
    }
}

#[derive(Serialize)]
struct Body<'r> {
    output: Output<'r>,
    usage: Usage,
    request_id: &'r str,
}

#[derive(Serialize)]
struct Output<'r> {
    results: &'r [Item],
}

#[derive(Serialize)]
struct ErrorBody<'r> {
    code: &'static str,
    message: &'r str,
    request_id: &'r str,
}
