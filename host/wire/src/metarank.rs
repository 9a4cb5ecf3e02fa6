//! Metarank's inference routes: `POST /inference/cross/{model}` (a protocol) and the functions for
//! `POST /inference/encoder/{model}` (which ranks nothing).
//!
//! ```json
//! {"input": [{"query": "cat", "text": "my cat is fast"}, {"query": "cat", "text": "it has a V8"}]}
//! {"scores":[7.51,-10.2],"took":5}
//! ```
//! `{model}` may be a model, for its raw pair score, or a policy. Scores come in the order of the
//! input; queries may differ, and each distinct one is a request of its own. Unknown keys are
//! ignored. This form cannot say that a document has no score: that is an error of the whole call.
//! Real Metarank answers every failure with an empty 500; this one says what was wrong, in rerankd's
//! own error body.
//!
//! ```json
//! {"texts": ["Berlin is a capital city", "My cat is fast"]}
//! {"embeddings":[[0.1,0.2],[0.3,0.4]],"took":5}
//! ```

use std::time::Duration;

use rerankd_core::{
    ErrorKind, Limits, OnFailure, PolicySelector, RerankError, RerankRequest, Reranked,
};

use crate::decode::Place;
use crate::json::{self, Json, Kind};
use crate::numbers::{number_f32, number_f64};
use crate::pairs::{PairPlaces, Pairs};
use crate::{Answer, Call, Decoded, Protocol, Reply, Target, answer};

/// The cross-encoder form.
pub struct Cross;

impl Protocol for Cross {
    fn name(&self) -> &'static str {
        "metarank"
    }

    fn paths(&self) -> &'static [&'static str] {
        &["/inference/cross/{model}"]
    }

    fn ignores_content_type(&self) -> bool {
        true
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Error
    }

    fn decode<'a>(&self, call: &Call<'a>) -> Result<Decoded<'a>, RerankError> {
        let items = read_list(call.body, "input", call.limits)?;
        let mut pairs = Pairs::new(RerankRequest::new("", Vec::new()));
        let input = Place::Body.key("input");
        for (index, item) in items.into_iter().enumerate() {
            let (query, text) = read_pair(input.item(index), item)?;
            pairs.push(query, text);
        }
        let (requests, places) = pairs.finish(call.body)?;
        Ok(Decoded {
            target: Target::PolicyOrModel(PolicySelector::parse(call.target)),
            requests,
            reply: Box::new(CrossReply { places }),
        })
    }

    fn encode_error(&self, error: &RerankError, request_id: &str) -> Answer {
        answer::error(error, request_id)
    }
}

/// Reads a call of the encoder form: its texts, which may be none.
///
/// # Errors
/// `BadRequest`, and `TooLarge` for more texts than [`Limits::max_documents`].
pub fn decode_texts(body: &[u8], limits: &Limits) -> Result<Vec<String>, RerankError> {
    let place = Place::Body.key("texts");
    let items = read_list(body, "texts", limits)?.into_iter().enumerate();
    items
        .map(|(index, item)| place.item(index).string(item))
        .collect()
}

/// The answer of the encoder form: `embeddings`, one a text, in the order of the texts, and how long
/// they took. It has no `Rerank-Status`, since nothing was ranked.
///
/// # Errors
/// `Internal` where a number is not finite, since JSON has no way to say so.
pub fn encode_embeddings(embeddings: &[Vec<f32>], took: Duration) -> Result<Answer, RerankError> {
    if let Some(index) = embeddings
        .iter()
        .position(|row| !row.iter().all(|x| x.is_finite()))
    {
        let problem = format!("the embedding of `texts[{index}]` is not finite");
        return Err(RerankError::new(ErrorKind::Internal, problem));
    }
    let numbers = embeddings
        .iter()
        .map(|row| list(row.iter().copied().map(number_f32)));
    let body = format!(
        r#"{{"embeddings":{},"took":{}}}"#,
        list(numbers),
        took.as_millis()
    );
    Ok(answer::json(http::StatusCode::OK, body.into_bytes()))
}

/// The error body of the encoder form, which is the cross form's.
pub fn encode_encoder_error(error: &RerankError, request_id: &str) -> Answer {
    answer::error(error, request_id)
}

/// The items of the array under the key `name` of the body.
fn read_list<'a>(
    body: &'a [u8],
    name: &str,
    limits: &Limits,
) -> Result<Vec<Json<'a>>, RerankError> {
    let body = json::parse(body)?;
    Place::Body.expect(Kind::Object, body)?;
    let place = Place::Body.key(name);
    let items = body.member(name).ok_or_else(|| place.missing("an array"))?;
    place.expect(Kind::Array, items)?;
    let (count, most) = (items.items().count(), limits.max_documents);
    if count > most {
        return Err(place.too_large(format_args!(
            "{count} texts are more than the limit of {most} (`--max-documents`)"
        )));
    }
    Ok(items.items().collect())
}

fn read_pair(place: Place<'_>, item: Json<'_>) -> Result<(String, String), RerankError> {
    place.expect(Kind::Object, item)?;
    let (query_place, text_place) = (place.key("query"), place.key("text"));
    let query = item
        .member("query")
        .ok_or_else(|| query_place.missing("a string"))?;
    let text = item
        .member("text")
        .ok_or_else(|| text_place.missing("a string"))?;
    Ok((query_place.query(query)?, text_place.string(text)?))
}

struct CrossReply {
    places: PairPlaces,
}

impl Reply for CrossReply {
    fn encode(self: Box<Self>, results: &[Reranked]) -> Result<Answer, RerankError> {
        let scores = self.places.scores(results, |index| {
            Place::Body.key("input").item(index).key("text").to_string()
        })?;
        let scores = scores.into_iter().map(|(score, _)| number_f64(score));
        // Each total counts from the arrival of the whole call.
        let took = results
            .iter()
            .map(|result| result.timings.total)
            .max()
            .unwrap_or_default();
        let body = format!(
            r#"{{"scores":{},"took":{}}}"#,
            list(scores),
            took.as_millis()
        );
        Ok(answer::ranked(body.into_bytes(), results))
    }
}

/// A compact JSON array of numbers or arrays that are printed already.
fn list(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().collect();
    format!("[{}]", items.join(","))
}
