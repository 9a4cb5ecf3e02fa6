//! Routes of the data plane: one for each path of each protocol, Metarank's encoder form, and health.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use rerankd_core::{ErrorKind, RerankError};
use rerankd_inference::pairs;
use rerankd_wire::{Answer, PROTOCOLS, Protocol, metarank};

use crate::app::App;
use crate::body;
use crate::rerank::{self, Incoming};

pub(crate) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(crate) static SPLIT_KEY: HeaderName = HeaderName::from_static("rerankd-key");

/// Longest request id that is taken over from a caller.
const MAX_REQUEST_ID: usize = 128;

/// The path's parameter, if it is text.
type Target = Result<Path<String>, PathRejection>;

/// All routes.
pub fn routes(app: &Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .route(
            "/inference/encoder/{model}",
            post(encode).fallback(wrong_method),
        );
    for &protocol in PROTOCOLS {
        for path in protocol.paths() {
            let handler = move |State(app): State<Arc<App>>, target: Target, request: Request| {
                call(app, protocol, target, request)
            };
            router = router.route(path, post(handler).fallback(wrong_method));
        }
    }
    router
        .fallback(unknown_route)
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(panicked))
        .with_state(Arc::clone(app))
}

fn name(target: Target) -> Result<String, RerankError> {
    target.map(|Path(name)| name).map_err(|rejection| {
        RerankError::new(
            ErrorKind::BadRequest,
            format!("the path: {}", rejection.body_text()),
        )
    })
}

async fn call(
    app: Arc<App>,
    protocol: &'static dyn Protocol,
    target: Target,
    request: Request,
) -> Response {
    let request_id = request_id(request.headers());
    let key = split_key(request.headers());
    let read = match name(target) {
        Ok(target) => body::read(&app, request)
            .await
            .map(|(body, permit)| (target, body, permit)),
        Err(error) => Err(error),
    };
    let (target, body, _permit) = match read {
        Ok(read) => read,
        Err(error) => {
            app.telemetry.refused(protocol.name(), &error, &request_id);
            return respond(protocol.encode_error(&error, &request_id), &request_id);
        }
    };
    let incoming = Incoming {
        protocol,
        target,
        body,
        arrived: Instant::now(),
        key,
        request_id: request_id.clone(),
    };
    respond(rerank::answer(&app, incoming).await, &request_id)
}

/// Metarank's encoder form: it ranks nothing, so it is no protocol of the line.
async fn encode(State(app): State<Arc<App>>, target: Target, request: Request) -> Response {
    let request_id = request_id(request.headers());
    let answer = match name(target) {
        Ok(name) => embeddings(&app, &name, request).await,
        Err(error) => Err(error),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            app.telemetry
                .refused("metarank-encoder", &error, &request_id);
            metarank::encode_encoder_error(&error, &request_id)
        }
    };
    respond(answer, &request_id)
}

async fn embeddings(app: &App, name: &str, request: Request) -> Result<Answer, RerankError> {
    let (body, _permit) = body::read(app, request).await?;
    let arrived = Instant::now();
    let limits = &app.config.limits;
    let texts = rerank::off_the_runtime(body.len(), || metarank::decode_texts(&body, limits))?;
    let model = app.inference.model(name).ok_or_else(|| {
        let models = app.inference.models();
        let known: Vec<String> = models
            .iter()
            .map(|model| format!("`{}`", model.name()))
            .collect();
        RerankError::new(
            ErrorKind::UnknownModel,
            format!("no model `{name}`; there are: {}", known.join(", ")),
        )
    })?;
    if texts.is_empty() {
        return metarank::encode_embeddings(&[], arrived.elapsed());
    }
    let documents = texts
        .iter()
        .cloned()
        .map(rerankd_core::Document::from_text)
        .collect();
    let cost = rerankd_core::RerankRequest::new("", documents);
    let (_room, deadline) =
        app.admission
            .admit(std::slice::from_ref(&cost), arrived, &app.inference)?;
    let lane = app.inference.scheduler().open_lane(deadline);
    let late = || {
        RerankError::new(
            ErrorKind::DeadlineExceeded,
            format!("model {name}: the deadline came before every text was encoded"),
        )
    };
    let vectors = tokio::time::timeout_at(
        deadline.give_up_at().into(),
        pairs::embed(&lane, &model, texts),
    )
    .await
    .map_err(|_| late())?
    .map_err(rerank::failed)?;
    let vectors = vectors
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .ok_or_else(late)?;
    metarank::encode_embeddings(&vectors, arrived.elapsed())
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    if app.draining.is_on() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
    } else {
        "ready\n".into_response()
    }
}

async fn unknown_route(request: Request) -> Response {
    let paths: Vec<&str> = PROTOCOLS
        .iter()
        .flat_map(|protocol| protocol.paths())
        .copied()
        .collect();
    let error = RerankError::new(
        ErrorKind::UnknownRoute,
        format!(
            "no route `{} {}`; there are: POST {}, /inference/encoder/{{model}}; GET /health/live, /health/ready; metrics and models are on the admin plane (--admin-listen)",
            request.method(),
            shown(request.uri().path()),
            paths.join(", ")
        ),
    );
    plain_error(&error, request.headers())
}

async fn wrong_method(request: Request) -> Response {
    let error = RerankError::new(
        ErrorKind::MethodNotAllowed,
        format!(
            "`{}` must be called with POST, not {}",
            shown(request.uri().path()),
            request.method()
        ),
    );
    let mut response = plain_error(&error, request.headers());
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> http::Response<http_body_util::Full<Bytes>> {
    let error = RerankError::new(
        ErrorKind::Internal,
        "the host panicked; its log has the place",
    );
    let answer = rerankd_wire::native::Native.encode_error(&error, "");
    let mut response = http::Response::new(http_body_util::Full::from(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

fn plain_error(error: &RerankError, headers: &HeaderMap) -> Response {
    let request_id = request_id(headers);
    respond(
        rerankd_wire::native::Native.encode_error(error, &request_id),
        &request_id,
    )
}

/// A path as errors show it.
pub(crate) fn shown(path: &str) -> String {
    path.chars().take(200).collect()
}

fn respond(answer: Answer, request_id: &str) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(REQUEST_ID.clone(), value);
    }
    response
}

/// Who asks, as the header `Rerankd-Key` says: a canary shows one side to the same key.
fn split_key(headers: &HeaderMap) -> Option<String> {
    let key = headers.get(&SPLIT_KEY)?;
    Some(String::from_utf8_lossy(key.as_bytes()).into_owned())
}

/// The caller's request id if it is a sane one, else one of our own.
pub(crate) fn request_id(headers: &HeaderMap) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let given = headers
        .get(&REQUEST_ID)
        .and_then(|value| value.to_str().ok());
    let sane = |id: &&str| {
        (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
    };
    match given.filter(sane) {
        Some(id) => id.to_owned(),
        None => {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            format!("{:08x}-{number:x}", std::process::id())
        }
    }
}
