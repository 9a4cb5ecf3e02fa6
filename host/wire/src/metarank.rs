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

use std::collections::HashMap;
use std::time::Duration;

use rerankd_core::{
    Document, ErrorKind, FailReason, Limits, OnFailure, Outcome, PolicySelector, RerankError,
    RerankRequest, Reranked, SkipReason, Status,
};

use crate::decode::Place;
use crate::json::{self, Json, Kind, quoted};
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

    fn on_failure(&self) -> OnFailure {
        OnFailure::Error
    }

    fn decode<'a>(&self, call: &Call<'a>) -> Result<Decoded<'a>, RerankError> {
        let items = read_list(call.body, "input", call.limits)?;
        let mut requests: Vec<RerankRequest> = Vec::new();
        let mut by_query = HashMap::new();
        let mut reply = CrossReply {
            places: Vec::with_capacity(items.len()),
        };
        let input = Place::Body.key("input");
        for (index, item) in items.into_iter().enumerate() {
            let (query, text) = read_pair(input.item(index), item)?;
            let request = *by_query.entry(query).or_insert_with_key(|query| {
                requests.push(RerankRequest::new(query, Vec::new()));
                requests.len() - 1
            });
            let documents = &mut requests[request].documents;
            reply.places.push((request, documents.len()));
            documents.push(Document::from_text(text));
        }
        Ok(Decoded {
            target: Target::PolicyOrModel(PolicySelector::parse(call.target)),
            requests,
            reply: Box::new(reply),
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
    /// For each input, the position of its request and of its document therein.
    places: Vec<(usize, usize)>,
}

impl Reply for CrossReply {
    fn encode(self: Box<Self>, results: &[Reranked]) -> Result<Answer, RerankError> {
        let mut scores = Vec::with_capacity(self.places.len());
        for (index, &(request, document)) in self.places.iter().enumerate() {
            let result = results.get(request).ok_or_else(answer::misfit)?;
            let judgments = result.ranking.judgments();
            let judgment = judgments.get(document).ok_or_else(answer::misfit)?;
            match &judgment.outcome {
                Outcome::Scored(score) => scores.push(number_f64(*score)),
                outcome => return Err(no_score(index, outcome, result.status)),
            }
        }
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

/// Why the call has no answer: what became of `input[index]`.
fn no_score(index: usize, outcome: &Outcome, status: Status) -> RerankError {
    let input = Place::Body.key("input");
    let item = input.item(index);
    let text = item.key("text");
    let (kind, problem) = match (status, outcome) {
        (Status::Failed(FailReason::Deadline), _) => (
            ErrorKind::DeadlineExceeded,
            "was not scored before the deadline".to_owned(),
        ),
        (Status::Failed(FailReason::Overloaded), _) => (
            ErrorKind::Overloaded,
            "was not scored: the server is overloaded".to_owned(),
        ),
        (Status::Failed(FailReason::Internal), _) => (
            ErrorKind::Internal,
            "was not scored: the server failed".to_owned(),
        ),
        (Status::Skipped(SkipReason::NoText), _) => (ErrorKind::BadRequest, NO_TEXT.to_owned()),
        (_, Outcome::Unscored(reason)) => match reason.as_str() {
            "empty" => (ErrorKind::BadRequest, NO_TEXT.to_owned()),
            "late" => (
                ErrorKind::DeadlineExceeded,
                "was not scored before the deadline".to_owned(),
            ),
            reason => (
                ErrorKind::PolicyFault,
                format!(
                    "was not scored ({}), which this route cannot say",
                    quoted(reason)
                ),
            ),
        },
        _ => (
            ErrorKind::PolicyFault,
            "was filtered by the policy, which this route cannot say".to_owned(),
        ),
    };
    RerankError {
        kind,
        ..text.error(problem)
    }
}

const NO_TEXT: &str = "has no text to score";

/// A compact JSON array of numbers or arrays that are printed already.
fn list(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().collect();
    format!("[{}]", items.join(","))
}

/// A model's score is an f32 on its way through f64, and prints as the shortest text that reads back
/// as that f32; a policy's prints as the shortest that reads back as the f64.
fn number_f64(number: f64) -> String {
    let single = number as f32;
    if f64::from(single) == number {
        number_f32(single)
    } else {
        with_point(&number)
    }
}

fn number_f32(number: f32) -> String {
    with_point(&number)
}

/// The number with a decimal point in any case, as typed clients (Java, Scala) expect of a float.
fn with_point(number: &impl serde::Serialize) -> String {
    let text = String::from_utf8_lossy(&answer::to_json(number)).into_owned();
    match text.find('e') {
        Some(at) if !text.contains('.') => format!("{}.0{}", &text[..at], &text[at..]),
        _ => text,
    }
}
