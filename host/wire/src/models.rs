//! Who is there to rerank: `GET /v1/models` and `GET /v1/models/{name}`. Xinference's client does not
//! rerank before it has seen its model there.

use http::StatusCode;
use rerankd_core::RerankError;
use serde::Serialize;

use crate::search::FieldChoice;
use crate::{Answer, answer, list_body};

/// A name that a body may have under `model`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    /// The name, which may be an alias.
    pub name: String,
    /// The policy that answers to it.
    pub policy: String,
}

/// The answer of `GET /v1/models`.
pub fn encode_list(names: &[ModelName]) -> Answer {
    let body = List {
        object: "list",
        data: names.iter().map(Entry::of).collect(),
    };
    answer::json(StatusCode::OK, answer::to_json(&body))
}

/// The answer of `GET /v1/models/{name}`; `fields` are those that the policy reads, where `*` is all of
/// them, and `choice` says how others may be chosen, if they may.
pub fn encode_one(name: &ModelName, fields: &[String], choice: Option<&FieldChoice>) -> Answer {
    let entry = Entry {
        fields: Some(fields),
        field_choice: choice.map(|choice| Choice {
            kept: &choice.kept,
            granted: choice.grants.as_deref(),
        }),
        ..Entry::of(name)
    };
    answer::json(StatusCode::OK, answer::to_json(&entry))
}

/// The error of these routes.
pub fn encode_error(error: &RerankError) -> Answer {
    list_body::encode_error(error)
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    model_type: &'static str,
    model_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field_choice: Option<Choice<'a>>,
}

#[derive(Serialize)]
struct Choice<'a> {
    kept: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    granted: Option<&'a [String]>,
}

impl<'a> Entry<'a> {
    fn of(name: &'a ModelName) -> Self {
        Self {
            id: &name.name,
            object: "model",
            created: 0,
            owned_by: "rerankd",
            model_type: "rerank",
            model_name: &name.policy,
            fields: None,
            field_choice: None,
        }
    }
}
