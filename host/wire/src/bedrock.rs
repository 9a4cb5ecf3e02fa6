//! Amazon Bedrock's rerank form, `POST /bedrock/rerank`, for OpenSearch's ML Commons connectors with
//! Bedrock's functions.
//!
//! ```json
//! {"queries": [{"type": "TEXT", "textQuery": {"text": "q"}}],
//!  "sources": [{"type": "INLINE", "inlineDocumentSource": {"type": "TEXT", "textDocument": {"text": "a"}}}],
//!  "rerankingConfiguration": {"type": "BEDROCK_RERANKING_MODEL", "bedrockRerankingConfiguration":
//!    {"numberOfResults": 1, "modelConfiguration": {"modelArn": "semantic-blend"}}}}
//! {"results":[{"index":0,"relevanceScore":0.93}]}
//! ```
//! A source may also be a JSON document (`"type": "JSON"`, `jsonDocument`), whose members are its
//! fields. `modelArn` is the model's name here; an ARN needs an alias.

use rerankd_core::{Document, OnFailure, RerankError, RerankRequest, Reranked};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::cuts::Cuts;
use crate::decode::Place;
use crate::json::{self, Json, Kind};
use crate::listing::{self, Scale, Ties, Wish};
use crate::own::Options;
use crate::{Answer, Call, Decoded, Protocol, Reply, Target, answer, asked, list_body, value};

/// Bedrock's form.
pub struct Bedrock;

impl Protocol for Bedrock {
    fn name(&self) -> &'static str {
        "bedrock"
    }

    fn paths(&self) -> &'static [&'static str] {
        &["/bedrock/rerank"]
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Error
    }

    fn decode<'a>(&self, call: &Call<'a>) -> Result<Decoded<'a>, RerankError> {
        let body = json::parse(call.body)?;
        Place::Body.expect(Kind::Object, body)?;
        let mut request = RerankRequest::new("", Vec::new());
        let (mut model, mut sources) = (None, None);
        let (mut own, mut cuts) = (Options::default(), Cuts::default());
        for (key, value) in body.members().filter(|(_, value)| !value.is_null()) {
            let place = Place::Body.key(&key);
            match &*key {
                "queries" => request.query = query(place, value)?,
                "sources" => sources = Some(value),
                "rerankingConfiguration" => {
                    model = configuration(place, value, &mut request, &mut cuts)?;
                }
                key if own.take(key, value) || cuts.take(key, place, value)? => {}
                _ => {}
            }
        }
        if let Some(parameters) = own.finish(&mut request, false)? {
            cuts.take_all(Place::Body.key("parameters"), parameters)?;
        }
        if request.query.is_empty() {
            let place = Place::Body.key("queries");
            return Err(place.missing("an array of one query"));
        }
        let place = Place::Body.key("sources");
        let sources = sources.ok_or_else(|| place.missing("an array of sources"))?;
        place.expect(Kind::Array, sources)?;
        asked::check_count(place, sources.items().count(), call)?;
        let documents = sources.items().enumerate();
        let documents = documents.map(|(index, item)| source(place.item(index), item));
        request.documents = documents.collect::<Result<_, _>>()?;
        let reply = BedrockReply {
            sources: request.documents.len(),
            cuts,
            wish: Wish {
                scale: Scale::Unit,
                ties: Ties::InOrder,
                top_n: request.top_n,
                min_score: request.min_score,
            },
        };
        Ok(Decoded {
            target: Target::Named(model),
            requests: vec![request],
            reply: Box::new(reply),
        })
    }

    fn encode_error(&self, error: &RerankError, _request_id: &str) -> Answer {
        list_body::encode_error(error)
    }
}

fn query(place: Place<'_>, json: Json<'_>) -> Result<String, RerankError> {
    place.expect(Kind::Array, json)?;
    let mut queries = json.items();
    let (Some(query), None) = (queries.next(), queries.next()) else {
        return Err(place.error("expected exactly one query"));
    };
    let item = place.item(0);
    let place = item.key("textQuery");
    let text = query
        .member("textQuery")
        .ok_or_else(|| place.missing("an object with `text`"))?;
    place.expect(Kind::Object, text)?;
    asked::text_of_query(place, text)
}

fn source(place: Place<'_>, json: Json<'_>) -> Result<Document, RerankError> {
    let place = place.key("inlineDocumentSource");
    let inline = json
        .member("inlineDocumentSource")
        .ok_or_else(|| place.missing("an object with `textDocument` or `jsonDocument`"))?;
    if let Some(fields) = inline.member("jsonDocument").filter(|json| !json.is_null()) {
        return Ok(Document {
            fields: value::fields(place.key("jsonDocument"), fields)?,
            ..Document::default()
        });
    }
    let text = place.key("textDocument");
    let document = inline
        .member("textDocument")
        .ok_or_else(|| text.missing("an object with `text`"))?;
    let place = text.key("text");
    let text = document
        .member("text")
        .ok_or_else(|| place.missing("a string"))?;
    place.string(text).map(Document::from_text)
}

/// The model's name; the number of results goes into the request, what a model is told of cutting into
/// `cuts`.
fn configuration(
    place: Place<'_>,
    json: Json<'_>,
    request: &mut RerankRequest,
    cuts: &mut Cuts,
) -> Result<Option<String>, RerankError> {
    let place = place.key("bedrockRerankingConfiguration");
    let Some(inner) = json.member("bedrockRerankingConfiguration") else {
        return Ok(None);
    };
    if let Some(count) = inner
        .member("numberOfResults")
        .filter(|json| !json.is_null())
    {
        request.top_n = asked::top(place.key("numberOfResults"), count)?;
    }
    let place = place.key("modelConfiguration");
    let model = inner.member("modelConfiguration");
    let more = model.and_then(|model| model.member("additionalModelRequestFields"));
    if let Some(more) = more.filter(|more| !more.is_null()) {
        cuts.take_all(place.key("additionalModelRequestFields"), more)?;
    }
    match model.and_then(|model| model.member("modelArn")) {
        Some(name) if !name.is_null() => asked::name(place.key("modelArn"), name),
        _ => Ok(None),
    }
}

struct BedrockReply {
    sources: usize,
    cuts: Cuts,
    wish: Wish,
}

impl Reply for BedrockReply {
    fn encode(self: Box<Self>, results: &[Reranked]) -> Result<Answer, RerankError> {
        let result = answer::one_result(results, self.sources)?;
        self.cuts.check(results)?;
        let listing = listing::list(result, &self.wish)?;
        let results_of = listing.lines.into_iter().map(|line| Item {
            index: line.index,
            relevance_score: line.score,
        });
        let body = Body {
            results: results_of.collect(),
        };
        Ok(answer::ranked(answer::to_json(&body), results))
    }
}

#[derive(Serialize)]
struct Body {
    results: Vec<Item>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    index: usize,
    relevance_score: Box<RawValue>,
}
