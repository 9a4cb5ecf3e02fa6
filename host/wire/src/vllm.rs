//! vLLM: its rerank form, where a body has keys of its own, and its score form.
//!
//! ```json
//! {"model": "semantic-blend", "query": "q", "documents": ["a", "b"], "top_n": 0, "use_activation": true}
//! {"id":"rerank-6f-1","model":"semantic-blend","usage":{"prompt_tokens":56,"total_tokens":56},
//!  "results":[{"index":1,"relevance_score":0.9985,"document":{"text":"b"}}]}
//! ```
//! The document always comes back. `use_activation: false` gives the policy's own scores, logits where
//! it can. Query and documents may be given in parts (`{"content": [..]}`), of which text alone can be
//! ranked.
//!
//! ```json
//! {"model": "semantic-blend", "queries": "q", "documents": ["a", "b"]}
//! {"id":"score-6f-1","object":"list","created":1700000000,"model":"semantic-blend",
//!  "data":[{"index":0,"object":"score","score":0.98}],"usage":{"prompt_tokens":9,"total_tokens":9}}
//! ```
//! Scores come in the order of the input: one query for all texts, or as many of each. This form
//! cannot say that a text has no score: that is an error of the whole call.

use rerankd_core::{OnFailure, RerankError, RerankRequest, Reranked};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::cuts::Cuts;
use crate::decode::Place;
use crate::json::{self, Json, Kind};
use crate::list_body::{self, Common, Item, Returned, Usage};
use crate::listing::{self, Scale};
use crate::own::Options;
use crate::pairs::{PairPlaces, Pairs};
use crate::{Answer, Call, Decoded, Keys, Protocol, Reply, Target, answer, asked, lax};

/// Keys of a rerank request that nobody else has.
const OWN_KEYS: &[&str] = &[
    "use_activation",
    "truncate_prompt_tokens",
    "truncation_side",
    "request_id",
];

/// vLLM's rerank form.
pub struct Rerank;

impl Protocol for Rerank {
    fn name(&self) -> &'static str {
        "vllm"
    }

    fn paths(&self) -> &'static [&'static str] {
        &[]
    }

    fn speaks_where_shared(&self) -> bool {
        true
    }

    fn claims(&self, body: &Keys<'_>) -> bool {
        OWN_KEYS.iter().any(|key| body.has(key))
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Error
    }

    fn decode<'a>(&self, call: &Call<'a>) -> Result<Decoded<'a>, RerankError> {
        let mut raw_scores = false;
        let mut asked = asked::read(call, &asked::USUAL, |key, place, value| {
            if key == "use_activation" {
                raw_scores = !lax::boolean(place, value)?;
            }
            Ok(key == "use_activation")
        })?;
        asked.request.raw_scores = raw_scores;
        asked.return_documents = Some(true);
        let target = asked.target();
        let (request, common) = Common::of(asked, call);
        Ok(Decoded {
            target,
            requests: vec![request],
            reply: Box::new(RerankReply(common)),
        })
    }

    fn encode_error(&self, error: &RerankError, _request_id: &str) -> Answer {
        list_body::encode_error(error)
    }
}

struct RerankReply<'a>(Common<'a>);

impl Reply for RerankReply<'_> {
    fn encode(self: Box<Self>, results: &[Reranked]) -> Result<Answer, RerankError> {
        let common = self.0;
        let (result, listing) = common.list(results)?;
        let body = RerankBody {
            id: format!("rerank-{}", common.request_id),
            model: common.model(result),
            usage: Usage::of(results),
            results: common.items(listing, Returned::Object, true),
        };
        Ok(answer::ranked(answer::to_json(&body), results))
    }
}

#[derive(Serialize)]
struct RerankBody<'r> {
    id: String,
    model: &'r str,
    usage: Usage,
    results: Vec<Item>,
}

/// vLLM's score form.
pub struct Score;

impl Protocol for Score {
    fn name(&self) -> &'static str {
        "vllm-score"
    }

    fn paths(&self) -> &'static [&'static str] {
        &["/score", "/v1/score"]
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Error
    }

    fn decode<'a>(&self, call: &Call<'a>) -> Result<Decoded<'a>, RerankError> {
        let mut template = RerankRequest::new("", Vec::new());
        let (mut queries, mut texts, mut model) = (None, None, None);
        let (mut own, mut cuts) = (Options::default(), Cuts::default());
        let body = json::parse(call.body)?;
        Place::Body.expect(Kind::Object, body)?;
        for (key, value) in body.members().filter(|(_, value)| !value.is_null()) {
            let place = Place::Body.key(&key);
            match &*key {
                "queries" | "query" | "text_1" | "data_1" => queries = Some((key, value)),
                "documents" | "text_2" | "data_2" | "items" => texts = Some((key, value)),
                "model" => model = asked::name(place, value)?,
                "use_activation" => template.raw_scores = !lax::boolean(place, value)?,
                key if own.take(key, value) || cuts.take(key, place, value)? => {}
                _ => {}
            }
        }
        if let Some(parameters) = own.finish(&mut template, false)? {
            cuts.take_all(Place::Body.key("parameters"), parameters)?;
        }
        // Each text has its score: there is nothing to leave out.
        template.min_score = None;
        let raw_scores = template.raw_scores;
        let missing = |key: &str| {
            Place::Body
                .key(key)
                .missing("a string or an array of strings")
        };
        let (queries_key, queries) = queries.ok_or_else(|| missing("queries"))?;
        let (texts_key, texts) = texts.ok_or_else(|| missing("documents"))?;
        let texts_place = Place::Body.key(&texts_key);
        let queries_place = Place::Body.key(&queries_key);
        let texts = strings(texts_place, texts, call, asked::text)?;
        let queries = strings(queries_place, queries, call, asked::text_of_query)?;
        if queries.len() != 1 && queries.len() != texts.len() {
            return Err(texts_place.error(format_args!(
                "{} texts for {} queries; expected one query, or one for each text",
                texts.len(),
                queries.len()
            )));
        }
        let mut pairs = Pairs::new(template);
        let mut queries = queries.into_iter();
        for text in texts {
            match queries.next() {
                Some(query) => pairs.push(query, text),
                None => pairs.push_text(text),
            }
        }
        let (requests, places) = pairs.finish(call.body)?;
        Ok(Decoded {
            target: Target::NamedForPairs(model.clone()),
            requests,
            reply: Box::new(ScoreReply {
                places,
                cuts,
                texts_key: texts_key.into_owned(),
                model,
                scale: if raw_scores { Scale::Raw } else { Scale::Unit },
                id: format!("score-{}", call.request_id),
                created: call.unix_seconds,
            }),
        })
    }

    fn encode_error(&self, error: &RerankError, _request_id: &str) -> Answer {
        list_body::encode_error(error)
    }
}

/// One text or several.
fn strings(
    place: Place<'_>,
    json: Json<'_>,
    call: &Call<'_>,
    read: fn(Place<'_>, Json<'_>) -> Result<String, RerankError>,
) -> Result<Vec<String>, RerankError> {
    if json.kind() != Kind::Array {
        return Ok(vec![read(place, json)?]);
    }
    asked::check_count(place, json.items().count(), call)?;
    let items = json.items().enumerate();
    items
        .map(|(index, item)| read(place.item(index), item))
        .collect()
}

struct ScoreReply {
    places: PairPlaces,
    cuts: Cuts,
    /// Where in the body the texts stand.
    texts_key: String,
    model: Option<String>,
    scale: Scale,
    id: String,
    created: u64,
}

impl Reply for ScoreReply {
    fn encode(self: Box<Self>, results: &[Reranked]) -> Result<Answer, RerankError> {
        self.cuts.check(results)?;
        let scores = self.places.scores(results, |index| {
            Place::Body.key(&self.texts_key).item(index).to_string()
        })?;
        let data = scores
            .into_iter()
            .enumerate()
            .map(|(index, (score, result))| {
                Ok(ScoreItem {
                    index,
                    object: "score",
                    score: listing::score(score, result, self.scale)?,
                })
            });
        let policy = results.first().map_or("", |result| &result.policy);
        let body = ScoreBody {
            id: &self.id,
            object: "list",
            created: self.created,
            model: self.model.as_deref().unwrap_or(policy),
            data: data.collect::<Result<_, RerankError>>()?,
            usage: Usage::of(results),
        };
        Ok(answer::ranked(answer::to_json(&body), results))
    }
}

#[derive(Serialize)]
struct ScoreBody<'r> {
    id: &'r str,
    object: &'static str,
    created: u64,
    model: &'r str,
    data: Vec<ScoreItem>,
    usage: Usage,
}

#[derive(Serialize)]
struct ScoreItem {
    index: usize,
    object: &'static str,
    score: Box<RawValue>,
}
