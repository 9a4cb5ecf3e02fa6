//! The admin plane: its routes, each with the right that it needs ([`guard`]), and what all of their
//! answers have in common. [`tokens`] says who may do what ([`rights`]), [`error`] what goes wrong.

pub mod error;
mod events;
pub mod guard;
mod openapi;
mod policies;
pub mod rights;
pub mod tokens;
mod views;
mod warm;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use rerankd_inference::Model;
use serde::Serialize;
use utoipa::ToSchema;

pub use error::AdminError;
use guard::{Hosts, JSON, MULTIPART, WASM, needs};
pub use tokens::{Identity, Right, Tokens};

use crate::app::App;
use crate::data_plane::{REQUEST_ID, request_id, shown};

/// All routes, on the address at which the plane listens.
pub fn routes(app: &Arc<App>, address: SocketAddr) -> Router {
    let tls = app.config.admin_tls.is_some();
    let hosts = Arc::new(Hosts::new(address, tls, &app.config.admin_allow_hosts));
    let (read, push) = (needs(Right::Read), needs(Right::Push));
    let all_metrics = needs(Right::Metrics).everywhere();
    let role = |methods| needs(Right::Activate).taking(&[JSON]).guard(methods);
    let upload_bytes = policies::max_upload_bytes(app);
    Router::new()
        .route("/metrics", all_metrics.guard(get(metrics)))
        .route("/v1/models", read.guard(get(models)))
        .route("/v1/openapi.json", read.guard(get(policies::openapi)))
        .route("/v1/events", read.guard(get(events::events)))
        .route("/v1/policies", read.guard(get(policies::list)))
        .route(
            "/v1/policies/{name}",
            read.guard(get(policies::detail))
                .merge(push.taking(&[WASM, MULTIPART]).guard(put(policies::put)))
                .layer(DefaultBodyLimit::max(upload_bytes)),
        )
        .route(
            "/v1/policies/{name}/versions/{digest}",
            push.guard(delete(policies::delete)),
        )
        .route(
            "/v1/policies/{name}/activate",
            role(post(policies::activate)),
        )
        .route(
            "/v1/policies/{name}/rollback",
            role(post(policies::rollback)),
        )
        .route("/v1/policies/{name}/canary", role(post(policies::canary)))
        .route("/v1/policies/{name}/shadow", role(post(policies::shadow)))
        .route("/v1/policies/{name}/warm", role(post(warm::warm)))
        .fallback(unknown_route)
        // The last one is the first that a request meets.
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(Arc::clone(app), guard::identify))
        .layer(from_fn_with_state(hosts, guard::check))
        .layer(from_fn_with_state(Arc::clone(app), finish))
        .with_state(Arc::clone(app))
}

/// A response of JSON.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, guard::JSON)], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// What every answer gets: the request's id, an error's body, and headers for browsers.
async fn finish(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let request_id = request_id(request.headers());
    let (method, path) = (request.method().clone(), shown(request.uri().path()));
    let mut response = next.run(request).await;
    let mut error = response.extensions_mut().remove::<AdminError>();
    // The router's own; it adds `Allow` later.
    if error.is_none() && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        error = Some(AdminError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            format!(
                "`{path}` must not be called with {method}; the header `Allow` has those that it may"
            ),
        ));
    }
    if let Some(error) = error {
        if let Some(reason) = error.refusal() {
            app.telemetry.admin_refused(reason);
        }
        // Not the error itself: it may repeat what a policy said.
        let (status, code) = (error.status().as_u16(), error.code());
        tracing::debug!(request_id, %method, path, status, code, "admin request failed");
        response = error.respond(Some(&request_id));
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        headers.insert(REQUEST_ID.clone(), value);
    }
    response
}

/// All metrics, as OpenMetrics.
#[utoipa::path(get, path = "/metrics", tag = "about",
    responses((status = 200, content_type = "application/openmetrics-text", body = String),
        (status = "4XX", body = error::ErrorBody)))]
async fn metrics(State(app): State<Arc<App>>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [(header::CONTENT_TYPE, content_type)],
        app.telemetry.render(&app),
    )
        .into_response()
}

/// The loaded models.
#[derive(Serialize, ToSchema)]
struct ModelList {
    models: Vec<ModelSummary>,
}

/// One model.
#[derive(Serialize, ToSchema)]
struct ModelSummary {
    name: String,
    digest: String,
    kind: &'static str,
    max_tokens: usize,
    precision: String,
    provider: String,
    score_kind: &'static str,
    test_only: bool,
}

impl From<&Model> for ModelSummary {
    fn from(model: &Model) -> Self {
        let manifest = model.manifest();
        Self {
            name: model.name().to_owned(),
            digest: model.digest().to_owned(),
            kind: manifest.kind.name(),
            max_tokens: manifest.max_tokens,
            precision: manifest.execution.precision.clone(),
            provider: manifest.execution.provider.clone(),
            score_kind: manifest.score_kind().name(),
            test_only: manifest.test_only,
        }
    }
}

/// The loaded models.
#[utoipa::path(get, path = "/v1/models", tag = "models",
    responses((status = 200, body = ModelList), (status = "4XX", body = error::ErrorBody)))]
async fn models(State(app): State<Arc<App>>) -> Response {
    let models = app.inference.models();
    let models = models.iter().map(|model| (&**model).into()).collect();
    json(StatusCode::OK, &ModelList { models })
}

async fn unknown_route(request: Request) -> AdminError {
    AdminError::not_found(format!(
        "no route `{} {}`; GET /v1/openapi.json says which there are",
        request.method(),
        shown(request.uri().path())
    ))
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> http::Response<Body> {
    AdminError::internal("the host panicked; its log has the place").into_response()
}
