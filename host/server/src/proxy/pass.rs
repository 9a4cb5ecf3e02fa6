//! Requests that go through as they are, and answers that do: nothing is held, nothing is limited.

use axum::body::Body;
use http::Response;
use http::request::Parts;
use hyper::body::Incoming;
use rerankd_core::RerankError;

use super::body::{Activity, Resumed, Slot, Watched};
use super::upstream::{Asked, Payload};
use super::{Kind, Proxy, headers};

/// Passes a request that is no search, and its answer.
///
/// # Errors
/// The engine's trouble.
pub(super) async fn through(
    proxy: &Proxy,
    head: Parts,
    body: Incoming,
) -> Result<Response<Body>, RerankError> {
    resumed(proxy, Kind::Passed, head, Vec::new(), body).await
}

/// Passes a request whose body was read in part.
///
/// # Errors
/// The engine's trouble.
pub(super) async fn resumed(
    proxy: &Proxy,
    kind: Kind,
    head: Parts,
    read: Vec<bytes::Bytes>,
    rest: Incoming,
) -> Result<Response<Body>, RerankError> {
    let activity = Activity::new();
    // GET and HEAD may be sent twice, but a body that went on its way cannot.
    let repeatable = head.method == http::Method::GET || head.method == http::Method::HEAD;
    let asked = Asked {
        target: target(&head),
        method: head.method,
        headers: headers::for_engine(head.headers),
        body: Payload::Streamed(Slot::new(Resumed::new(
            read,
            rest,
            std::sync::Arc::clone(&activity),
            head.extensions.get().cloned(),
        ))),
        extensions: head.extensions,
        repeatable,
    };
    let idle = proxy.settings.upstream.idle_timeout;
    let started = std::time::Instant::now();
    let response = proxy.upstream.send(&asked, &activity, idle).await?;
    proxy
        .app
        .telemetry
        .upstream_answered(kind, started.elapsed());
    Ok(answer(proxy, response))
}

/// The request target, as it came.
pub(super) fn target(head: &Parts) -> http::uri::PathAndQuery {
    let target = head.uri.path_and_query().cloned();
    target.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"))
}

/// The engine's answer on its way to the client.
pub(super) fn answer(proxy: &Proxy, response: Response<Incoming>) -> Response<Body> {
    let idle = proxy.settings.upstream.idle_timeout;
    let mut response = response.map(|body| Body::new(Watched::new(body, idle)));
    headers::for_client(response.headers_mut());
    response
}
