//! rerankd's own form: `POST /v1/rerank/{policy}`.
//!
//! ```json
//! {"query": "crocs", "documents": [
//!    {"id": "a1", "score": 13.1, "fields": {"title": "Crocs Specialist Vent Work"}},
//!    {"id": "b2", "score": 12.4, "fields": {"title": "Crocs Kids' Baya Clog", "price": 29.9}}],
//!  "fields": ["title"], "parameters": {"weight": 0.8}, "signals": {"country": "FR"},
//!  "top_n": 10, "min_score": 0.1, "explain": false, "timeout_ms": 250,
//!  "on_failure": "first-stage", "key": "user-17", "ordered": false}
//! ```
//! `query` and `documents` must be there. A document is a string (it has one field `text` then) or
//! an object; `null` means absent everywhere; an unknown key is an error. The first stage is
//! `scored` if every document has a `score`, else `ranked` if `ordered` is true, else `none`.
//!
//! ```json
//! {"policy": "semantic-blend", "version": "3f2a91c0", "status": "applied", "score_kind": "blend",
//!  "results": [{"index": 1, "id": "b2", "score": 0.83, "first_stage_rank": 2,
//!               "first_stage_score": 12.4}],
//!  "unscored": 0,
//!  "timings_ms": {"queue": 0.1, "tokenize": 0.4, "inference": 9.8, "guest": 0.1, "total": 10.6}}
//! ```
//! `results` holds the scored documents, best first and without those below `min_score`, then those
//! that could not be scored (`"unscored": "empty"` in place of `score`), cut to `top_n`. `unscored`
//! counts all of the latter, also behind the cut; `filtered` the documents that the policy left out;
//! `query_truncated` and `query_unread` are true where a model saw only a part of the query, or could
//! not read it (a policy that asked may have scored all the same). Optional keys are absent rather than null.
//!
//! `_default` as `{policy}` is the policy that answers where nobody is named (`--default-policy`).

use std::collections::{BTreeSet, HashSet};

use rerankd_core::{
    Document, FirstStage, Limits, OnFailure, Outcome, RerankError, RerankRequest, Reranked,
};
use serde::Serialize;

use crate::decode::{Place, UnknownKeys, read_body};
use crate::json::{self, Json, Kind, quoted};
use crate::status::milliseconds;
use crate::{Answer, Call, Decoded, Protocol, Reply, Target, answer, value};

/// The native form.
pub struct Native;

impl Protocol for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn paths(&self) -> &'static [&'static str] {
        &["/v1/rerank/{policy}"]
    }

    fn ignores_content_type(&self) -> bool {
        true
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::FirstStage
    }

    fn decode<'a>(&self, call: &Call<'a>) -> Result<Decoded<'a>, RerankError> {
        let request = request(json::parse(call.body)?, call.limits)?;
        let reply = NativeReply {
            documents: request.documents.iter().map(Origin::of).collect(),
            top_n: request.top_n,
            min_score: request.min_score,
            explain: request.explain,
        };
        Ok(Decoded {
            target: Target::of_path(call.target),
            requests: vec![request],
            reply: Box::new(reply),
        })
    }

    fn encode_error(&self, error: &RerankError, request_id: &str) -> Answer {
        answer::error(error, request_id)
    }
}

const KEYS: &[&str] = &["documents", "top_n", "ordered"];

fn request(body: Json<'_>, limits: &Limits) -> Result<RerankRequest, RerankError> {
    let (mut documents, mut top_n, mut ordered) = (None, None, false);
    let mut request = read_body(body, KEYS, |key, place, value| {
        match key {
            "documents" => documents = Some(value),
            "top_n" => top_n = Some(usize::try_from(place.count(value)?).unwrap_or(usize::MAX)),
            _ => ordered = place.boolean(value)?,
        }
        Ok(())
    })?;
    request.top_n = top_n;

    let place = Place::Body.key("documents");
    let documents = documents.ok_or_else(|| place.missing("an array of documents"))?;
    let mut null_fields = HashSet::new();
    request.documents = read_documents(place, documents, limits, &mut null_fields)?;
    check_field_names(&request, &null_fields)?;

    let scored = request
        .documents
        .iter()
        .all(|document| document.first_stage_score.is_some());
    request.first_stage = match (scored, ordered) {
        (true, _) => FirstStage::Scored,
        (false, true) => FirstStage::Ranked,
        (false, false) => FirstStage::None,
    };
    if !scored {
        for document in &mut request.documents {
            document.first_stage_score = None;
        }
    }
    Ok(request)
}

/// `null_fields` receives the names of fields that are null in some document.
fn read_documents(
    place: Place<'_>,
    documents: Json<'_>,
    limits: &Limits,
    null_fields: &mut HashSet<String>,
) -> Result<Vec<Document>, RerankError> {
    place.expect(Kind::Array, documents)?;
    let (count, most) = (documents.items().count(), limits.max_documents);
    if count == 0 {
        return Err(place.error("empty; expected at least one document"));
    }
    if count > most {
        return Err(place.too_large(format_args!(
            "{count} documents are more than the limit of {most} (`--max-documents`)"
        )));
    }
    let items = documents.items().enumerate();
    items
        .map(|(index, item)| read_document(place.item(index), item, null_fields))
        .collect()
}

fn read_document(
    place: Place<'_>,
    json: Json<'_>,
    null_fields: &mut HashSet<String>,
) -> Result<Document, RerankError> {
    if let Some(text) = json.string() {
        return Ok(Document::from_text(text));
    }
    if json.kind() != Kind::Object {
        return Err(place.expected("a string or an object with `fields`", json));
    }
    let mut document = Document::default();
    let mut unknown = UnknownKeys::default();
    for (key, value) in json.members() {
        let place = place.key(&key);
        match &*key {
            "id" | "score" | "fields" if value.is_null() => {}
            "id" => {
                document.id = Some(match value.kind() {
                    Kind::String => place.string(value)?,
                    Kind::Number => value.text().to_owned(),
                    _ => return Err(place.expected("a string", value)),
                });
            }
            "score" => document.first_stage_score = Some(place.number(value)?),
            "fields" => {
                document.fields = value::fields(place, value)?;
                let nulls = value.members().filter(|(_, value)| value.is_null());
                null_fields.extend(nulls.map(|(name, _)| name.into_owned()));
            }
            key => unknown.push(key),
        }
    }
    let hint = "; what a policy shall see of the document goes under `fields`";
    unknown.finish(place, &["id", "score", "fields"], hint)?;
    Ok(document)
}

/// A field that no document has is a slip of the pen, which would otherwise show only as a bad
/// ranking. One that is null in some document is known to the caller.
fn check_field_names(
    request: &RerankRequest,
    null_fields: &HashSet<String>,
) -> Result<(), RerankError> {
    let parameters = Place::Body.key("parameters");
    let named = [
        (Place::Body.key("fields"), request.fields.clone()),
        (parameters.key("fields"), fields_parameter(request)),
    ];
    if named.iter().all(|(_, names)| names.is_none()) {
        return Ok(());
    }

    let fields = request
        .documents
        .iter()
        .flat_map(|document| &document.fields);
    let mut present: BTreeSet<&str> = fields.map(|field| field.name.as_str()).collect();
    present.extend(null_fields.iter().map(String::as_str));
    for (place, names) in named {
        for (index, name) in names.into_iter().flatten().enumerate() {
            if !present.contains(name.as_str()) {
                return Err(place.item(index).error(format_args!(
                    "no document has a field {}; {}",
                    quoted(&name),
                    listed(&present)
                )));
            }
        }
    }
    Ok(())
}

/// The parameter `fields`, which means the same in every policy that has it.
fn fields_parameter(request: &RerankRequest) -> Option<Vec<String>> {
    let parameters = json::parse(request.parameters.as_deref()?.as_bytes()).ok()?;
    let names = parameters.member("fields")?;
    names
        .items()
        .map(|name| Some(name.string()?.into_owned()))
        .collect()
}

fn listed(names: &BTreeSet<&str>) -> String {
    const MOST: usize = 20;
    if names.is_empty() {
        return "they have none at all".to_owned();
    }
    let shown: Vec<String> = names.iter().take(MOST).map(|name| quoted(name)).collect();
    let more = if names.len() > MOST { " …" } else { "" };
    format!("there are {}{more}", shown.join(", "))
}

/// What the answer repeats of a document.
struct Origin {
    id: Option<String>,
    score: Option<f64>,
}

impl Origin {
    fn of(document: &Document) -> Self {
        Self {
            id: document.id.clone(),
            score: document.first_stage_score,
        }
    }
}

struct NativeReply {
    documents: Vec<Origin>,
    top_n: Option<usize>,
    min_score: Option<f64>,
    explain: bool,
}

impl Reply for NativeReply {
    fn encode(self: Box<Self>, results: &[Reranked]) -> Result<Answer, RerankError> {
        let result = answer::one_result(results, self.documents.len())?;
        let ranking = &result.ranking;
        let shown = ranking.order().iter().copied().filter(|&index| {
            match (ranking.score(index), self.min_score) {
                (Some(score), Some(min_score)) => score >= min_score,
                _ => true,
            }
        });
        let timings = &result.timings;
        let body = Body {
            policy: &result.policy,
            version: &result.version,
            status: result.status.name(),
            reason: result.status.reason(),
            score_kind: result.score_kind.name(),
            results: shown
                .take(self.top_n.unwrap_or(usize::MAX))
                .map(|index| self.entry(result, index))
                .collect(),
            unscored: ranking.unscored(),
            filtered: ranking.documents() - ranking.order().len(),
            query_truncated: result.query_truncated,
            query_unread: result.notes.query_unread,
            timings_ms: TimingsMs {
                queue: milliseconds(timings.queue),
                tokenize: milliseconds(timings.tokenize),
                inference: milliseconds(timings.inference),
                guest: milliseconds(timings.guest),
                total: milliseconds(timings.total),
            },
        };
        Ok(answer::ranked(answer::to_json(&body), results))
    }
}

impl NativeReply {
    fn entry<'r>(&'r self, result: &'r Reranked, index: usize) -> Entry<'r> {
        let judgment = result.ranking.judgment(index);
        let origin = &self.documents[index];
        Entry {
            index,
            id: origin.id.as_deref(),
            score: result.ranking.score(index),
            unscored: match &judgment.outcome {
                Outcome::Unscored(reason) => Some(reason),
                Outcome::Scored(_) | Outcome::Filtered => None,
            },
            first_stage_rank: (result.first_stage != FirstStage::None).then_some(index + 1),
            first_stage_score: origin
                .score
                .filter(|_| result.first_stage == FirstStage::Scored),
            truncated: judgment.truncated,
            explanation: judgment.explanation.as_deref().filter(|_| self.explain),
        }
    }
}

#[derive(Serialize)]
struct Body<'r> {
    policy: &'r str,
    version: &'r str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    score_kind: &'static str,
    results: Vec<Entry<'r>>,
    unscored: usize,
    #[serde(skip_serializing_if = "is_zero")]
    filtered: usize,
    #[serde(skip_serializing_if = "is_false")]
    query_truncated: bool,
    #[serde(skip_serializing_if = "is_false")]
    query_unread: bool,
    timings_ms: TimingsMs,
}

#[derive(Serialize)]
struct Entry<'r> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unscored: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_stage_rank: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_stage_score: Option<f64>,
    #[serde(skip_serializing_if = "is_false")]
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<&'r str>,
}

#[derive(Serialize)]
struct TimingsMs {
    queue: f64,
    tokenize: f64,
    inference: f64,
    guest: f64,
    total: f64,
}

/// The signature is serde's.
fn is_zero(value: &usize) -> bool {
    *value == 0
}

/// The signature is serde's.
fn is_false(value: &bool) -> bool {
    !value
}
