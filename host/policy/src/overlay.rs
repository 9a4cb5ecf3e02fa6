//! The parameters of one request: the operator's, overlaid by the request's, checked.
//!
//! Ordinary ones are checked where they stand, which takes microseconds. What is large, or turns out to
//! take more steps than that, goes to threads that serve nobody else ([`crate::chores`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use rerankd_core::RerankRequest;
use serde_json::{Map, Value};

use crate::chores::{self, Budget, Undone};
use crate::error::PolicyError;
use crate::parameters::{MAX_PARAMETERS_BYTES, Unchecked};
use crate::version::PolicyVersion;

/// Steps and time of a check that is done where it stands.
const STEPS_IN_PLACE: u64 = 4_000;
const TIME_IN_PLACE: Duration = Duration::from_millis(1);

/// Largest parameters that are read where they stand, bytes.
const BYTES_IN_PLACE: usize = 16 << 10;

/// What a request says of its parameters.
#[derive(Clone)]
struct Asked {
    text: Option<String>,
    raw_scores: bool,
    fields: Option<Vec<String>>,
}

/// About what it takes as JSON.
fn bytes(request: &RerankRequest) -> usize {
    let fields = request.fields.iter().flatten();
    let fields: usize = fields.map(|field| field.len() + 3).sum();
    fields + request.parameters.as_ref().map_or(0, String::len)
}

/// The parameters that a policy gets, an object. Ends at `give_up_at` at the latest.
///
/// # Errors
/// [`PolicyError::InvalidRequest`]; or the deadline came, or there is no room.
pub(crate) async fn parameters(
    version: &Arc<PolicyVersion>,
    request: &RerankRequest,
    give_up_at: Instant,
) -> Result<Value, PolicyError> {
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
    };
    if bytes <= BYTES_IN_PLACE {
        let budget = Budget::in_place(STEPS_IN_PLACE, TIME_IN_PLACE);
        match merged(version, &asked, &budget) {
            Err(Unmerged::Undone(_)) => {}
            Err(Unmerged::Refused(error)) => return Err(error),
            Ok(parameters) => return Ok(parameters),
        }
    }
    let again = Arc::clone(version);
    let work = chores::run(move |budget| merged(&again, &asked, budget));
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

fn merged(version: &PolicyVersion, asked: &Asked, budget: &Budget) -> Result<Value, Unmerged> {
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
        Ok(()) => Ok(merged),
        Err(Unchecked::Undone(undone)) => Err(Unmerged::Undone(undone)),
        Err(Unchecked::Wrong(error)) => Err(Unmerged::Refused(PolicyError::InvalidRequest {
            message: format!("policy {}: {}", version.name(), error.message),
            at: Some(error.at),
        })),
    }
}
