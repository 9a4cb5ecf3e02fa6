//! What the admin plane answers when it does not do what it was asked for.

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::json;

/// An error of the admin plane. As a response it is
/// `{"error": {"code", "message", "step", "request_id"}}`; keys that have no value are absent.
#[derive(Debug, Clone)]
pub struct AdminError {
    status: StatusCode,
    code: &'static str,
    message: String,
    step: Option<&'static str>,
    headers: Vec<(HeaderName, HeaderValue)>,
    refusal: Option<&'static str>,
}

/// What every error of the admin plane looks like.
#[derive(Serialize, ToSchema)]
pub(super) struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Serialize, ToSchema)]
struct ErrorDetail {
    /// For programs.
    code: &'static str,
    /// For people: where, what was wrong, what would be right.
    message: String,
    /// The step of the release pipeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'static str>,
    /// The request's id, also in the header `x-request-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

impl AdminError {
    /// `code`: one or more lower-case words, joined by `_`, for programs; `message`: a sentence for
    /// people, in lower case and without a full stop.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            step: None,
            headers: Vec::new(),
            refusal: None,
        }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 409.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// 500; the log must have the cause.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// Which step of the release pipeline it was.
    pub fn with_step(mut self, step: &'static str) -> Self {
        self.step = Some(step);
        self
    }

    /// One more header of the response.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Counts it in `rerankd_admin_refusals_total` with this reason.
    pub(super) fn counted_as(mut self, reason: &'static str) -> Self {
        self.refusal = Some(reason);
        self
    }

    /// The reason under which it is counted, if the caller was refused.
    pub(super) fn refusal(&self) -> Option<&'static str> {
        self.refusal
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its code, for programs.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// The response, with the request's id in it.
    pub(super) fn respond(&self, request_id: Option<&str>) -> Response {
        let body = ErrorBody {
            error: ErrorDetail {
                code: self.code,
                message: self.message.clone(),
                step: self.step,
                request_id: request_id.map(str::to_owned),
            },
        };
        let mut response = json(self.status, &body);
        response.headers_mut().extend(self.headers.iter().cloned());
        response
    }
}

impl std::fmt::Display for AdminError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for AdminError {}

impl IntoResponse for AdminError {
    /// The outermost layer writes it anew, with the request's id.
    fn into_response(self) -> Response {
        let mut response = self.respond(None);
        response.extensions_mut().insert(self);
        response
    }
}

/// 415 for a route that takes other types of content.
pub(super) fn wrong_content_type(given: Option<&HeaderValue>, takes: &[&str]) -> AdminError {
    let takes: Vec<String> = takes.iter().map(|media| format!("`{media}`")).collect();
    let takes = takes.join(" or ");
    let message = match given.map(HeaderValue::to_str) {
        None => format!("`Content-Type` is missing; it must be {takes}"),
        Some(Ok(given)) => {
            let given: String = given.chars().take(80).collect();
            format!("`Content-Type` is `{given}`; it must be {takes}")
        }
        Some(Err(_)) => format!("`Content-Type` is no text; it must be {takes}"),
    };
    AdminError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        message,
    )
    .counted_as("content-type")
}
