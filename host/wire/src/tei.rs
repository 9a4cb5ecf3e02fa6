//! Hugging Face's text-embeddings-inference: `POST /rerank` with `texts` (also `/`, `/invocations`),
//! `POST /predict` with pairs, and `GET /info`.
//!
//! ```json
//! {"query": "What is Deep Learning?", "texts": ["Deep Learning is not...", "Deep learning is..."],
//!  "raw_scores": false, "return_text": false, "truncate": true}
//! [{"index":1,"score":0.9976},{"index":0,"score":0.1234}]
//! ```
//! An array and nothing else; equal scores come with the higher index first. The server itself knows no
//! `model` in a body and no `top_n`, but clients send both, so they count. `truncate: false` asks for an
//! error where a text does not fit.
//!
//! ```json
//! {"inputs": [["What is Deep Learning?", "Deep learning is..."]]}
//! [[{"score":0.9976,"label":"LABEL_0"}]]
//! ```
//! Errors are `{"error": "..", "error_type": "Validation"}` with the server's own statuses: 422 for
//! what cannot be read, 400 for nothing to rank and for broken JSON, 424 for a policy's fault.

use http::{HeaderMap, HeaderName, HeaderValue};
use rerankd_core::{ErrorKind, Limits, OnFailure, RerankError, RerankRequest, Reranked};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::asked::{self, Documents, Form};
use crate::decode::{Place, take_common};
use crate::json::{self, Json, Kind, quoted};
use crate::listing::{self, Scale, Ties, Wish};
use crate::pairs::{PairPlaces, Pairs};
use crate::{Answer, Call, Decoded, Keys, Protocol, Reply, Target, answer};

/// The label of a model that has only one.
const LABEL: &str = "LABEL_0";

/// The rerank form.
pub struct Rerank;

impl Protocol for Rerank {
    fn name(&self) -> &'static str {
        "tei"
    }

    fn paths(&self) -> &'static [&'static str] {
        &["/", "/invocations", "/rerank", "/reranking"]
    }

    fn claims(&self, body: &Keys<'_>) -> bool {
        body.has("texts")
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Error
    }

    fn decode<'a>(&self, call: &Call<'a>) -> Result<Decoded<'a>, RerankError> {
        let mut options = Options::default();
        let form = Form {
            documents: "texts",
            texts_only: true,
        };
        let mut asked = asked::read(call, &form, |key, place, value| {
            options.take(key, place, value)
        })?;
        asked.request.raw_scores = options.raw_scores;
        let request = asked.request;
        let reply = RerankReply {
            wish: Wish {
                scale: options.scale(),
                ties: Ties::Reversed,
                top_n: request.top_n,
                min_score: request.min_score,
            },
            characters: characters(&request),
            texts: asked.documents,
            options,
        };
        Ok(Decoded {
            target: Target::Named(asked.model),
            requests: vec![request],
            reply: Box::new(reply),
        })
    }

    fn encode_error(&self, error: &RerankError, _request_id: &str) -> Answer {
        encode_error(error)
    }
}

/// The keys of both forms.
#[derive(Default)]
struct Options {
    raw_scores: bool,
    return_text: bool,
    /// Whether a text that does not fit is an error.
    whole_texts: bool,
    /// Whether texts may be cut at their start alone.
    whole_starts: bool,
}

impl Options {
    fn take(&mut self, key: &str, place: Place<'_>, value: Json<'_>) -> Result<bool, RerankError> {
        match key {
            "raw_scores" => self.raw_scores = place.boolean(value)?,
            "return_text" => self.return_text = place.boolean(value)?,
            "truncate" => self.whole_texts = !place.boolean(value)?,
            "truncation_direction" => self.whole_starts = !cuts_the_end(place, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Texts are cut at their end; who wants anything else is told when one was cut.
    fn check_cuts(&self, results: &[Reranked]) -> Result<(), RerankError> {
        if self.whole_texts {
            answer::refuse_cut_texts(results)?;
        }
        if self.whole_starts
            && results
                .iter()
                .any(|result| result.tokens.longest_cut.is_some())
        {
            return Err(RerankError::new(
                ErrorKind::TooLong,
                "a text is longer than the model's window, and `truncation_direction` is `left`: \
                 texts can be cut at their end only (`right`)",
            ));
        }
        Ok(())
    }

    fn scale(&self) -> Scale {
        if self.raw_scores {
            Scale::Raw
        } else {
            Scale::Unit
        }
    }
}

/// Whether texts may be cut at their end.
fn cuts_the_end(place: Place<'_>, value: Json<'_>) -> Result<bool, RerankError> {
    const WANTED: &str = "`left` or `right`";
    match value.string().as_deref() {
        Some("Right" | "right") => Ok(true),
        Some("Left" | "left") => Ok(false),
        Some(other) => Err(place.error(format_args!("expected {WANTED}, got {}", quoted(other)))),
        None => Err(place.expected(WANTED, value)),
    }
}

/// As the header `x-compute-characters` counts them.
fn characters(request: &RerankRequest) -> usize {
    let count = |text: &str| text.chars().count();
    let texts = request.documents.iter().flat_map(|text| &text.fields);
    let texts = texts.map(|field| match &field.value {
        rerankd_core::Value::Text(text) => count(text),
        _ => 0,
    });
    count(&request.query) * request.documents.len() + texts.sum::<usize>()
}

struct RerankReply<'a> {
    wish: Wish,
    options: Options,
    texts: Documents<'a>,
    characters: usize,
}

impl Reply for RerankReply<'_> {
    fn encode(self: Box<Self>, results: &[Reranked]) -> Result<Answer, RerankError> {
        self.options.check_cuts(results)?;
        let result = answer::one_result(results, self.texts.len())?;
        let lines = listing::list(result, &self.wish)?.lines.into_iter();
        let ranks: Vec<Rank> = lines
            .map(|line| {
                let text = || self.texts.text(line.index).into_owned();
                let text = self.options.return_text.then(text);
                Rank {
                    index: line.index,
                    text: text.map(|text| {
                        RawValue::from_string(text).expect("a part of a JSON text is JSON")
                    }),
                    score: line.score,
                }
            })
            .collect();
        let mut answer = answer::ranked(answer::to_json(&ranks), results);
        add_headers(&mut answer.headers, results, self.characters);
        Ok(answer)
    }
}

#[derive(Serialize)]
struct Rank {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Box<RawValue>>,
    score: Box<RawValue>,
}

/// What the server says of its work, in headers.
fn add_headers(headers: &mut HeaderMap, results: &[Reranked], characters: usize) {
    let longest = |part: fn(&Reranked) -> std::time::Duration| {
        results
            .iter()
            .map(part)
            .max()
            .unwrap_or_default()
            .as_millis()
    };
    let tokens: u64 = results.iter().map(|result| result.tokens.total).sum();
    let total = longest(|result| result.timings.total);
    let numbers = [
        ("x-compute-time", total),
        ("x-compute-characters", characters as u128),
        ("x-compute-tokens", u128::from(tokens)),
        ("x-total-time", total),
        (
            "x-tokenization-time",
            longest(|result| result.timings.tokenize),
        ),
        ("x-queue-time", longest(|result| result.timings.queue)),
        (
            "x-inference-time",
            longest(|result| result.timings.inference),
        ),
    ];
    for (name, number) in numbers {
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        headers.insert(HeaderName::from_static(name), HeaderValue::from(number));
    }
    headers.insert(
        HeaderName::from_static("x-compute-type"),
        HeaderValue::from_static("rerankd"),
    );
}

/// The predict form, for pairs of a query and a text.
pub struct Predict;

impl Protocol for Predict {
    fn name(&self) -> &'static str {
        "tei-predict"
    }

    fn paths(&self) -> &'static [&'static str] {
        &["/predict"]
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Error
    }

    fn decode<'a>(&self, call: &Call<'a>) -> Result<Decoded<'a>, RerankError> {
        let body = json::parse(call.body)?;
        Place::Body.expect(Kind::Object, body)?;
        let mut template = RerankRequest::new("", Vec::new());
        let mut options = Options::default();
        let mut inputs = None;
        for (key, value) in body.members().filter(|(_, value)| !value.is_null()) {
            let place = Place::Body.key(&key);
            match &*key {
                "inputs" => inputs = Some(value),
                // Hugging Face's clients send an object of their own under this name, mostly empty.
                "parameters" if value.members().next().is_none() => {}
                key if options.take(key, place, value)? => {}
                "min_score" => {}
                key if asked::OWN_OPTIONS.contains(&key) => {
                    take_common(&mut template, key, Place::Body.key(key), value)?;
                }
                _ => {}
            }
        }
        template.raw_scores = options.raw_scores;
        let place = Place::Body.key("inputs");
        let inputs = inputs.ok_or_else(|| place.missing(PAIRS))?;
        place
            .expect(Kind::Array, inputs)
            .map_err(|_| place.expected(PAIRS, inputs))?;
        let is_one_pair = inputs.items().all(|item| item.kind() == Kind::String);
        let mut pairs = Pairs::new(template);
        if is_one_pair {
            let (query, text) = pair(place, inputs)?;
            pairs.push(query, text);
        } else {
            asked::check_count(place, inputs.items().count(), call)?;
            for (index, item) in inputs.items().enumerate() {
                let (query, text) = pair(place.item(index), item)?;
                pairs.push(query, text);
            }
        }
        let (requests, places) = pairs.finish(call.body)?;
        Ok(Decoded {
            target: Target::NamedForPairs(None),
            reply: Box::new(PredictReply {
                characters: requests.iter().map(characters).sum(),
                places,
                is_one_pair,
                options,
            }),
            requests,
        })
    }

    fn encode_error(&self, error: &RerankError, _request_id: &str) -> Answer {
        encode_error(error)
    }
}

const PAIRS: &str = "a pair of strings (a query and a text) or an array of pairs";

fn pair(place: Place<'_>, json: Json<'_>) -> Result<(String, String), RerankError> {
    let items: Vec<Json<'_>> = json.items().collect();
    let [query, text] = items.as_slice() else {
        return Err(
            place.error("expected two strings: a query and a text, since a pair is what is scored")
        );
    };
    let query = asked::text_of_query(place.item(0), *query)?;
    Ok((query, place.item(1).string(*text)?))
}

struct PredictReply {
    places: PairPlaces,
    is_one_pair: bool,
    options: Options,
    characters: usize,
}

impl Reply for PredictReply {
    fn encode(self: Box<Self>, results: &[Reranked]) -> Result<Answer, RerankError> {
        self.options.check_cuts(results)?;
        let scores = self.places.scores(results, |index| {
            let place = Place::Body.key("inputs");
            if self.is_one_pair {
                place.item(1).to_string()
            } else {
                place.item(index).item(1).to_string()
            }
        })?;
        let scale = self.options.scale();
        let predictions = scores.into_iter().map(|(score, result)| {
            Ok([Prediction {
                score: listing::score(score, result, scale)?,
                label: LABEL,
            }])
        });
        let predictions: Vec<[Prediction; 1]> = predictions.collect::<Result<_, RerankError>>()?;
        let body = match predictions.as_slice() {
            [one] if self.is_one_pair => answer::to_json(one),
            all => answer::to_json(&all),
        };
        let mut answer = answer::ranked(body, results);
        add_headers(&mut answer.headers, results, self.characters);
        Ok(answer)
    }
}

#[derive(Serialize)]
struct Prediction {
    score: Box<RawValue>,
    label: &'static str,
}

/// The error of both forms.
fn encode_error(error: &RerankError) -> Answer {
    let (status, error_type) = match error.kind {
        ErrorKind::Empty => (400, "Empty"),
        // Without a place, the body is no JSON at all, or too many bytes.
        ErrorKind::BadRequest if error.at.is_none() => (400, "Validation"),
        ErrorKind::TooLarge if error.at.is_none() => (413, "Validation"),
        ErrorKind::BadRequest | ErrorKind::TooLarge | ErrorKind::TooLong => (422, "Validation"),
        ErrorKind::Overloaded => (429, "Overloaded"),
        ErrorKind::ShuttingDown => (503, "Unhealthy"),
        ErrorKind::UnknownPolicy | ErrorKind::UnknownModel => (404, "Backend"),
        ErrorKind::PolicyFault | ErrorKind::Unread | ErrorKind::DeadlineExceeded => {
            (424, "Backend")
        }
        ErrorKind::Internal => (500, "Backend"),
        // The search proxy's, which speaks otherwise.
        ErrorKind::UpstreamFailed | ErrorKind::UpstreamUnavailable | ErrorKind::UpstreamTimeout => {
            (error.kind.http_status(), "Backend")
        }
        // Its own server says nothing at all then.
        ErrorKind::Unauthorized => (401, "Validation"),
        ErrorKind::HostNotAllowed
        | ErrorKind::UnknownRoute
        | ErrorKind::MethodNotAllowed
        | ErrorKind::RequestTimeout
        | ErrorKind::UnsupportedMediaType => (error.kind.http_status(), "Validation"),
    };
    let body = ErrorBody {
        error: &error.message,
        error_type,
    };
    answer::failure(error, status, &body)
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    error_type: &'static str,
}

/// What `GET /info` says.
#[derive(Debug, Clone)]
pub struct Info<'a> {
    /// The policy that answers.
    pub policy: &'a str,
    /// The digest of its version.
    pub digest: &'a str,
    /// Tokens of a row of its models, at most; 0 if it has none.
    pub max_tokens: usize,
    /// What one request may use.
    pub limits: &'a Limits,
    /// Threads that tokenize and run models.
    pub workers: usize,
    /// The server's version.
    pub version: &'a str,
}

/// The answer of `GET /info`.
pub fn encode_info(info: &Info<'_>) -> Answer {
    let body = serde_json::json!({
        "model_id": info.policy,
        "model_sha": info.digest,
        "model_dtype": "float32",
        "served_model_name": info.policy,
        "model_type": {"reranker": {"id2label": {"0": LABEL}, "label2id": {LABEL: 0}}},
        "max_concurrent_requests": info.limits.max_instances,
        "max_input_length": info.max_tokens,
        "max_batch_tokens": info.limits.max_queued_tokens,
        "max_batch_requests": null,
        "max_client_batch_size": info.limits.max_documents,
        "auto_truncate": true,
        "tokenization_workers": info.workers,
        "version": info.version,
        "sha": null,
        "docker_label": null,
    });
    answer::json(http::StatusCode::OK, answer::to_json(&body))
}

/// The error of the `GET` routes beside the forms.
pub fn encode_get_error(error: &RerankError) -> Answer {
    encode_error(error)
}
