//! Web pages of other origins: which may call the data plane, as `[cors]` says (off by default).
//!
//! No answer ever allows credentials that a browser adds by itself (cookies, client certificates): a page
//! has to hold a key to use one. A page that may not call gets no word about it, and so no answer from its
//! browser.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;

/// What a page may read of an answer, beside what it always may.
const EXPOSED: &str = "rerank-status, x-request-id, retry-after, x-compute-type, x-compute-time, x-compute-characters, x-compute-tokens, x-total-time, x-tokenization-time, x-queue-time, x-inference-time";

/// How long a browser need not ask again, seconds.
const MAX_AGE: &str = "600";

/// Answers what browsers ask beforehand, and says on every other answer whether the page may read it.
pub(crate) async fn allow(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let settings = &app.config.cors;
    let origin = request.headers().get(header::ORIGIN);
    let origin = origin.and_then(|origin| origin.to_str().ok());
    let allowed = origin.and_then(|origin| settings.allowed(origin));
    let allowed = allowed.and_then(|origin| HeaderValue::from_str(origin).ok());
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD);
    let is_preflight = request.method() == Method::OPTIONS && asked.is_some();
    let wanted = request
        .headers()
        .get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    let wanted = wanted.cloned();
    let mut response = match allowed.is_some() && is_preflight {
        true => StatusCode::NO_CONTENT.into_response(),
        false => next.run(request).await,
    };
    let headers = response.headers_mut();
    // Another origin gets another answer, whoever keeps them.
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        match is_preflight {
            true => answer_preflight(headers, wanted),
            false => {
                let exposed = HeaderValue::from_static(EXPOSED);
                headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
            }
        }
    }
    response
}

/// Any header may be sent: those that mean nothing here are not read.
fn answer_preflight(headers: &mut HeaderMap, wanted: Option<HeaderValue>) {
    let methods = HeaderValue::from_static("GET, POST");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    if let Some(wanted) = wanted {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted);
    }
    let max_age = HeaderValue::from_static(MAX_AGE);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, max_age);
}
