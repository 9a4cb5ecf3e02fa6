//! What the protocols share in writing an answer.

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use rerankd_core::{ErrorKind, RerankError, Reranked};
use serde::Serialize;

use crate::Answer;
use crate::status::{RERANK_STATUS, error_status_header, status_header};

/// A 200 with a JSON body, and the status of what it was made of.
pub(crate) fn ranked(body: Vec<u8>, results: &[Reranked]) -> Answer {
    let mut answer = json(StatusCode::OK, body);
    answer
        .headers
        .insert(&RERANK_STATUS, status_header(results));
    answer
}

/// A response with a JSON body.
pub(crate) fn json(status: StatusCode, body: Vec<u8>) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Answer {
        status,
        headers,
        body,
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    status: &'static str,
    error: ErrorDetail<'a>,
}

#[derive(Serialize)]
struct ErrorDetail<'a> {
    r#type: &'static str,
    code: u16,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<&'a str>,
    request_id: &'a str,
}

/// The error body of rerankd's own, which protocols use that have none.
pub(crate) fn error(error: &RerankError, request_id: &str) -> Answer {
    let code = error.kind.http_status();
    let body = ErrorBody {
        status: "error",
        error: ErrorDetail {
            r#type: error.kind.name(),
            code,
            message: &error.message,
            at: error.at.as_deref(),
            request_id,
        },
    };
    failure(error, code, &body)
}

/// The answer for a failure, with a status and a body of the protocol's own.
pub(crate) fn failure(error: &RerankError, code: u16, body: &impl Serialize) -> Answer {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json(status, to_json(body));
    answer
        .headers
        .insert(&RERANK_STATUS, error_status_header(error));
    if let Some(retry_after) = error.retry_after {
        // Rounded up: a client that comes back too early is refused again.
        let seconds = retry_after.as_millis().div_ceil(1000).max(1);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        answer
            .headers
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// Compact JSON of a type whose maps have string keys; floats are printed as the shortest text that
/// reads back as the same.
pub(crate) fn to_json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("plain structs and numbers always serialize")
}

/// The one result of a protocol with one request, which had `documents` documents.
///
/// # Errors
/// `Internal` where there is another number of either.
pub(crate) fn one_result(results: &[Reranked], documents: usize) -> Result<&Reranked, RerankError> {
    match results {
        [result] if result.ranking.documents() == documents => Ok(result),
        _ => Err(misfit()),
    }
}

/// The results are not those of the requests.
pub(crate) fn misfit() -> RerankError {
    RerankError::new(ErrorKind::Internal, "the ranking does not fit the request")
}
