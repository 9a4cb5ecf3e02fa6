//! What the data plane says of itself: health, in the words of several servers, and which policies a
//! request may name.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rerankd_core::{ErrorKind, RerankError};
use rerankd_wire::models::{self, ModelName};
use rerankd_wire::native::Native;
use rerankd_wire::{Answer, DEFAULT_POLICY, Protocol, tei};

use crate::app::App;
use crate::data_plane::{request_id, respond};
use crate::fields;
use crate::rerank::{default_policy, resolve_name};

/// The paths, answered on `GET`.
pub(crate) const PATHS: &[&str] = &[
    "/health/live",
    "/health/ready",
    "/health",
    "/ping",
    "/info",
    "/v1/models",
    "/v1/models/{name}",
    "/v1/cluster/auth",
];

/// Those of [`PATHS`] that say whether the server is well, and nothing else.
pub(crate) const HEALTH: [&str; 4] = ["/health/live", "/health/ready", "/health", "/ping"];

/// Whether a request asks for health alone, which is answered where there is no room for more.
pub(crate) fn is_health(method: &Method, path: &str) -> bool {
    let asks = method == Method::GET || method == Method::HEAD;
    asks && (path == "/" || HEALTH.contains(&path))
}

/// Those of [`PATHS`] that need a key where one is asked for.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/info", get(info))
        .route("/v1/models", get(list))
        .route("/v1/models/{name}", get(one))
}

/// Those that never do, and `/metrics` where it is wanted.
pub(crate) fn open_routes(tei_metrics: bool) -> Router<Arc<App>> {
    let mut router = Router::new()
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .route("/health", get(health))
        .route("/ping", get(health))
        .route("/v1/cluster/auth", get(asks_for_keys));
    if tei_metrics {
        router = router.route("/metrics", get(metrics));
    }
    router
}

/// What goes wrong on one of [`PATHS`], or on a path that is none's: in the words of whose it is.
pub(crate) fn encode_error(path: &str, error: &RerankError, request_id: &str) -> Answer {
    match path {
        "/info" => tei::encode_get_error(error),
        "/v1/models" | "/v1/models/{name}" => models::encode_error(error),
        _ => Native.encode_error(error, request_id),
    }
}

/// Where Xinference's client looks whether it has to send its key.
async fn asks_for_keys(State(app): State<Arc<App>>) -> Response {
    axum::Json(serde_json::json!({"auth": app.api_keys.are_asked_for()})).into_response()
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    if app.draining.is_on() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
    } else {
        "ready\n".into_response()
    }
}

/// As text-embeddings-inference says it: an empty 200, or its 503.
pub(crate) async fn health(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if !app.draining.is_on() {
        return StatusCode::OK.into_response();
    }
    let error = RerankError::new(ErrorKind::ShuttingDown, "unhealthy");
    respond(tei::encode_get_error(&error), &request_id(&headers))
}

/// The default policy, as text-embeddings-inference describes its model.
async fn info(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let request_id = request_id(&headers);
    let chosen = match default_policy(&app) {
        Ok(selector) => app.releases.resolve(&selector, "").await,
        Err(error) => Err(error),
    };
    let answer = match chosen {
        Ok(chosen) => {
            let version = &chosen.placed.version;
            let windows = version.models().values();
            tei::encode_info(&tei::Info {
                policy: version.name(),
                digest: version.digest(),
                max_tokens: windows
                    .map(|model| model.tokenizer().max_tokens())
                    .min()
                    .unwrap_or(0),
                limits: &app.config.limits,
                workers: app.inference.scheduler().workers(),
                version: env!("CARGO_PKG_VERSION"),
            })
        }
        Err(error) => tei::encode_get_error(&error),
    };
    respond(answer, &request_id)
}

async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let active = app.releases.catalog().active();
    let policies = active.iter().map(|version| ModelName {
        name: version.name().to_owned(),
        policy: version.name().to_owned(),
    });
    let aliases = app.config.wire.aliases.iter();
    let aliases = aliases.map(|(alias, policy)| ModelName {
        name: alias.clone(),
        policy: policy.name.clone(),
    });
    let names: Vec<ModelName> = policies.chain(aliases).collect();
    respond(models::encode_list(&names), &request_id(&headers))
}

async fn one(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    let asked = Some(name.as_str()).filter(|&name| name != DEFAULT_POLICY);
    let answer = match resolve_name(&app, asked, "").await {
        Ok(chosen) => {
            let version = &chosen.placed.version;
            let policy = version.name().to_owned();
            let mut read = fields::of_version(version);
            // A name alone may be answered by another version.
            for field in fields::of_policy(&app, &policy).unwrap_or_default() {
                if !read.contains(&field) {
                    read.push(field);
                }
            }
            let choice = fields::choice_of_policy(&app, &policy);
            models::encode_one(&ModelName { policy, name }, &read, choice.as_ref())
        }
        Err(error) => models::encode_error(&error),
    };
    respond(answer, &request_id(&headers))
}

/// The metrics of text-embeddings-inference.
async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = app.telemetry.render_tei(&app);
    ([("content-type", "text/plain; charset=utf-8")], text).into_response()
}
