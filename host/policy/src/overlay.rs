//! The parameters of one request: the operator's, overlaid by the request's, checked.
//!
//! Ordinary ones are checked where they stand, which takes microseconds. What is large, or turns out to
//! take more steps than that, goes to threads that serve nobody else ([`crate::chores`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use rerankd_core::{FirstStage, RerankRequest, ScoreKind};
use serde_json::{Map, Value};

use crate::chores::{self, Budget, Undone, Whose};
use crate::error::PolicyError;
use crate::parameters::{MAX_PARAMETERS_BYTES, Unchecked};
use crate::version::PolicyVersion;

/// Steps and time of a check that is done where it stands.
const STEPS_IN_PLACE: u64 = 4_000;
const TIME_IN_PLACE: Duration = Duration::from_millis(1);

/// Largest parameters that are read where they stand, the operator's included, bytes of JSON. As a tree
/// they are up to a hundred times as large.
const BYTES_IN_PLACE: usize = 16 << 10;

/// What a call needs of its parameters. The tree that they were checked as is gone: it may be a hundred
/// times as large as its text, and is held by no more calls than there are threads that check.
pub(crate) struct Parameters {
    /// A JSON object, for the policy.
    pub(crate) text: String,
    /// What `fields` of them names.
    pub(crate) fields: Vec<String>,
    /// What the scores will be.
    pub(crate) score_kind: ScoreKind,
}

impl Parameters {
    /// What they take on the host, with the set that is made of the fields.
    pub(crate) fn held_bytes(&self) -> usize {
        let field = |field: &String| 4 * size_of::<String>() + 2 * field.len();
        self.text.len() + self.fields.iter().map(field).sum::<usize>()
    }
}

/// What a request says of its parameters.
#[derive(Clone)]
struct Asked {
    text: Option<String>,
    raw_scores: bool,
    fields: Option<Vec<String>>,
    first_stage: FirstStage,
}

/// About what it takes as JSON.
fn bytes(request: &RerankRequest) -> usize {
    let fields = request.fields.iter().flatten();
    let fields: usize = fields.map(|field| field.len() + 3).sum();
    fields + request.parameters.as_ref().map_or(0, String::len)
}

/// The parameters that a policy gets, checked. Ends at `give_up_at` at the latest.
///
/// # Errors
/// [`PolicyError::InvalidRequest`]; or the deadline came, or there is no room.
pub(crate) async fn parameters(
    version: &Arc<PolicyVersion>,
    request: &RerankRequest,
    give_up_at: Instant,
) -> Result<Parameters, PolicyError> {
    let bytes = bytes(request);
    if bytes > MAX_PARAMETERS_BYTES {
        return Err(PolicyError::InvalidRequest {
            at: Some("parameters".to_owned()),
            message: format!(
                "`parameters` and `fields`: {bytes} bytes; at most {MAX_PARAMETERS_BYTES} are taken"
            ),
        });
    }
    let asked = Asked {
        text: request.parameters.clone(),
        raw_scores: request.raw_scores,
        fields: request.fields.clone(),
        first_stage: request.first_stage,
    };
    if bytes + version.parameter_bytes() <= BYTES_IN_PLACE {
        let budget = Budget::in_place(STEPS_IN_PLACE, TIME_IN_PLACE);
        match merged(version, &asked, &budget) {
            Err(Unmerged::Undone(_)) => {}
            Err(Unmerged::Refused(error)) => return Err(error),
            Ok(parameters) => return Ok(parameters),
        }
    }
    let again = Arc::clone(version);
    let whose = Whose::Request(version.name());
    let work = chores::run(whose, move |budget| merged(&again, &asked, budget));
    let Ok(done) = tokio::time::timeout_at(give_up_at.into(), work).await else {
        return Err(PolicyError::Deadline {
            policy: version.label().to_owned(),
        });
    };
    match done {
        Ok(Ok(parameters)) => Ok(parameters),
        Ok(Err(Unmerged::Refused(error))) => Err(error),
        Ok(Err(Unmerged::Undone(undone))) | Err(undone @ Undone::Exhausted) => {
            Err(PolicyError::InvalidRequest {
                at: Some("parameters".to_owned()),
                message: format!(
                    "policy {}: to check `parameters` against its schema {undone}",
                    version.name()
                ),
            })
        }
        Err(Undone::Busy) => Err(PolicyError::NoInstance),
        Err(undone @ Undone::Panicked) => Err(PolicyError::Host {
            policy: version.label().to_owned(),
            message: format!("its parameters: {undone}"),
        }),
    }
}

enum Unmerged {
    Refused(PolicyError),
    Undone(Undone),
}

fn merged(version: &PolicyVersion, asked: &Asked, budget: &Budget) -> Result<Parameters, Unmerged> {
    let mut merged = version.options().parameters.clone();
    if asked.raw_scores
        && let Some((name, value)) = version.manifest().raw_scores_parameter()
    {
        merged.insert(name.to_owned(), value.clone());
    }
    if let Some(text) = &asked.text {
        let own: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
            Unmerged::Refused(PolicyError::InvalidRequest {
                at: Some("parameters".to_owned()),
                message: format!("`parameters`: {error}"),
            })
        })?;
        merged.extend(own);
    }
    if let Some(fields) = &asked.fields
        && version.schema().knows("fields")
    {
        merged.insert("fields".to_owned(), Value::from(fields.clone()));
    }
    let merged = Value::Object(merged);
    match version.schema().check(&merged, budget) {
        Ok(()) => {
            let fields = merged.get("fields").and_then(Value::as_array);
            let fields = fields.into_iter().flatten().filter_map(Value::as_str);
            Ok(Parameters {
                text: merged.to_string(),
                fields: fields.map(str::to_owned).collect(),
                score_kind: version.manifest().score_kind(asked.first_stage, &merged),
            })
        }
        Err(Unchecked::Undone(undone)) => Err(Unmerged::Undone(undone)),
        Err(Unchecked::Wrong(error)) => Err(Unmerged::Refused(PolicyError::InvalidRequest {
            message: format!("policy {}: {}", version.name(), error.message),
            at: Some(error.at),
        })),
    }
}
