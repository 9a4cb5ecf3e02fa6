//! The engine's own answer, reordered: `POST /v1/rerank/{policy}/hits`.
//!
//! ```json
//! {"query": "crocs", "response": {"hits": {"max_score": 13.1, "hits": [ … ]}},
//!  "fields": ["title"], "window": 50, "min_score": 0.1, "keep_scores": false,
//!  "parameters": {}, "signals": {}, "explain": false, "timeout_ms": 250,
//!  "on_failure": "first-stage", "key": "user-17"}
//! ```
//! `query` and `response` must be there; `response` is what Elasticsearch or OpenSearch answered to
//! a `_search`. The answer is `response`, byte for byte, but for
//! - the order of `hits.hits`: the scored hits, best first; those that could not be scored; the tail
//!   behind the first `window` hits; the latter two in the engine's order. Hits that the policy
//!   filters and scored hits below `min_score` are left out; `hits.total` stays what it was;
//! - `_score` of each hit that has the key: the new score; for hits that follow the scored ones, the
//!   smaller of their own and the last scored hit's, so that scores never rise down the list (a
//!   `null` stays);
//! - `hits.max_score` if there is one: the first hit's new score, `null` without hits.
//!
//! With `keep_scores` the hits that follow the scored ones keep their own `_score`, and each hit gives
//! the engine's score as `fields._first_stage_score` too.
//!
//! A ranking that failed or was skipped leaves the response exactly as it was, and so does one
//! without hits. Explanations have no place in this form: `explain: true` is refused.
//!
//! A document's fields are the leaves of `_source` by their dotted paths, and the hit's `fields`
//! where `_source` lacks the name; an array of objects gives one field with all its values. The
//! first stage is `scored` if every hit of the window has a number as `_score`, else `ranked`.

use rerankd_core::{Limits, OnFailure, Ranking, RerankError, RerankRequest, Reranked, Status};

use crate::decode::{Place, read_body, refuse_explanations};
use crate::engine;
use crate::engine::order::Order;
use crate::engine::page::{Edition, Page};
use crate::json::{self, Json};
use crate::{Answer, Call, Decoded, Protocol, Reply, Target, answer};

/// The hits form.
pub struct Hits;

impl Protocol for Hits {
    fn name(&self) -> &'static str {
        "hits"
    }

    fn paths(&self) -> &'static [&'static str] {
        &["/v1/rerank/{policy}/hits"]
    }

    fn ignores_content_type(&self) -> bool {
        true
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::FirstStage
    }

    fn decode<'a>(&self, call: &Call<'a>) -> Result<Decoded<'a>, RerankError> {
        let (request, reply) = read_call(json::parse(call.body)?, call.limits)?;
        Ok(Decoded {
            target: Target::of_path(call.target),
            // Without hits there is nothing to ask of a policy.
            requests: if request.documents.is_empty() {
                Vec::new()
            } else {
                vec![request]
            },
            reply: Box::new(reply),
        })
    }

    fn encode_error(&self, error: &RerankError, request_id: &str) -> Answer {
        answer::error(error, request_id)
    }
}

const KEYS: &[&str] = &["response", "window", "keep_scores"];

fn read_call<'a>(
    body: Json<'a>,
    limits: &Limits,
) -> Result<(RerankRequest, HitsReply<'a>), RerankError> {
    let (mut response, mut window, mut keep_scores) = (None, None, false);
    let mut request = read_body(body, KEYS, |key, place, value| {
        match key {
            "response" => response = Some(value),
            "window" => window = Some(usize::try_from(place.count(value)?).unwrap_or(usize::MAX)),
            _ => keep_scores = place.boolean(value)?,
        }
        Ok(())
    })?;

    refuse_explanations(Place::Body.key("explain"), request.explain)?;
    let place = Place::Body.key("response");
    let response = response.ok_or_else(|| place.missing("the engine's answer to a `_search`"))?;
    let page = Page::read(place, response)?;
    let windowed = window.unwrap_or(usize::MAX).min(page.hits.len());
    check_window(windowed, window.is_some(), limits)?;

    (request.first_stage, request.documents) = engine::documents(&page.hits[..windowed]);
    let min_score = request.min_score;
    Ok((
        request,
        HitsReply {
            page,
            window: windowed,
            min_score,
            keep_scores,
        },
    ))
}

fn check_window(windowed: usize, named: bool, limits: &Limits) -> Result<(), RerankError> {
    let most = limits.max_documents;
    if windowed <= most {
        return Ok(());
    }
    let problem = format!("{windowed} hits are more than the limit of {most} (`--max-documents`)");
    if named {
        let problem = format!("{problem}; set it to {most} or less");
        return Err(Place::Body.key("window").too_large(problem));
    }
    let problem = format!("{problem}; set `window` to rerank only the first of them");
    Err(Place::Body
        .key("response")
        .key("hits")
        .key("hits")
        .too_large(problem))
}

struct HitsReply<'a> {
    page: Page<'a>,
    /// How many of the hits are reranked.
    window: usize,
    min_score: Option<f64>,
    keep_scores: bool,
}

impl Reply for HitsReply<'_> {
    fn encode(self: Box<Self>, results: &[Reranked]) -> Result<Answer, RerankError> {
        let unchanged = || self.page.response.text().to_owned();
        let body = if self.window == 0 && results.is_empty() {
            unchanged()
        } else {
            let result = answer::one_result(results, self.window)?;
            match result.status {
                Status::Applied | Status::Partial => self.reranked(&result.ranking),
                Status::Skipped(_) | Status::Failed(_) => unchanged(),
            }
        };
        Ok(answer::ranked(body.into_bytes(), results))
    }
}

impl HitsReply<'_> {
    fn reranked(&self, ranking: &Ranking) -> String {
        let order = Order::new(&self.page.hits, ranking, self.min_score, self.keep_scores);
        let rows: Vec<_> = order.window.into_iter().chain(order.tail).collect();
        self.page.edited(&Edition {
            max_score: Some(self.page.top_score(rows.first())),
            rows: &rows,
            keep_first_stage: self.keep_scores,
            strip: None,
        })
    }
}
