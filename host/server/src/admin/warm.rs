//! The route that fills the row cache: documents go through a policy as they would with a search, but
//! in the background, and nothing comes back but counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use rerankd_core::{PolicySelector, RerankRequest};
use rerankd_inference::{Deadline, ModelKind};
use rerankd_policy::{PolicyError, PolicyVersion, invoke};
use rerankd_wire::native::Native;
use rerankd_wire::{Call, Protocol};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::AdminError;
use super::bodies::{self, Most};
use crate::admission::Permit;
use crate::app::App;

/// The query beside the documents: a bi-encoder's rows of documents do not depend on it.
const QUERY: &str = "warm";

/// How long the rows of one call may wait for spare capacity.
const PATIENCE: Duration = Duration::from_secs(60);

/// Documents to know beforehand.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"documents": [{"fields": {"title": "Crocs Baya Clog"}}]}))]
#[serde(deny_unknown_fields)]
pub(super) struct WarmRequest {
    /// As in `POST /v1/rerank/{policy}`.
    #[schema(min_items = 1)]
    documents: Vec<Value>,
    /// As in `POST /v1/rerank/{policy}`: the fields that the policy shall look at.
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<String>>,
    /// As in `POST /v1/rerank/{policy}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Map<String, Value>>,
}

/// What became of the documents.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WarmedView {
    /// The version that looked at them.
    version: String,
    /// Documents that are known from now on.
    known: usize,
    /// Documents without a text, or that the policy could not score.
    unscored: usize,
    /// Rows for which there was no spare capacity: send the same documents again.
    late_rows: usize,
    /// The row cache after it.
    cache: CacheView,
}

/// How full the row cache is.
#[derive(Debug, Serialize, ToSchema)]
struct CacheView {
    entries: usize,
    bytes: u64,
    max_bytes: u64,
}

/// Fills the row cache with what a policy's model says of these documents, on spare capacity.
#[utoipa::path(post, path = "/v1/policies/{name}/warm", tag = "models",
    params(("name" = String, Path, description = "The policy's name", example = "semantic-blend")), request_body = WarmRequest,
    responses((status = 200, body = WarmedView), (status = "4XX", body = super::error::ErrorBody)))]
pub(super) async fn warm(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<WarmedView>, AdminError> {
    let version = warmable(&app, &name)?;
    // Who sends slowly takes no turn from others.
    let (request, _room) = read(&app, &name, request).await?;
    let Ok(_turn) = app.warming.try_acquire() else {
        return Err(busy("another call fills the cache"));
    };
    let documents = request.documents.len();
    let started = Instant::now();
    let invoked = invoke::invoke_in_background(
        &app.engine,
        &app.inference,
        &version,
        request,
        started,
        Deadline::after(started, PATIENCE),
    );
    let invoked = invoked.await.map_err(failed)?;
    let known = invoked.reranked.ranking.scored();
    Ok(Json(WarmedView {
        version: version.digest().to_owned(),
        known,
        unscored: documents - known,
        late_rows: invoked.late_rows,
        cache: row_cache(&app).ok_or_else(no_cache)?,
    }))
}

/// The version that answers, if there is anything to know before a query comes.
fn warmable(app: &App, name: &str) -> Result<Arc<PolicyVersion>, AdminError> {
    row_cache(app).ok_or_else(no_cache)?;
    let selector = PolicySelector::parse(name);
    let route = app.releases.catalog().route(name);
    let active = route.and_then(|route| route.active.clone());
    let Some(placed) = active else {
        let unknown = app.releases.catalog().unknown(&selector);
        return Err(AdminError::not_found(unknown.message));
    };
    let version = placed.version;
    let mut models = version.models().values();
    if models.any(|model| model.manifest().kind == ModelKind::BiEncoder) {
        return Ok(version);
    }
    Err(AdminError::conflict(format!(
        "policy `{name}` runs no bi-encoder: what other models say of a document depends on the query, so that nothing can be known beforehand"
    )))
}

async fn read(
    app: &App,
    name: &str,
    request: Request,
) -> Result<(RerankRequest, Permit), AdminError> {
    let limits = &app.config.limits;
    let most = limits.max_body_bytes;
    let most = Most {
        bytes: most,
        time: limits.body_timeout,
        too_large: AdminError::too_large(format!("the body: more than {most} bytes")),
    };
    let (_, bytes, room) = bodies::whole(app, request, &most).await?;
    let wanted: WarmRequest = serde_json::from_slice(&bytes)
        .map_err(|error| AdminError::bad_request(format!("the body: {error}")))?;
    if wanted.documents.is_empty() {
        return Err(AdminError::bad_request("`documents` must not be empty"));
    }
    // From here on it is a request like those of searches.
    let mut native = json!(wanted);
    native["query"] = Value::from(QUERY);
    let body = native.to_string();
    let decoded = Native.decode(&Call {
        path: "",
        target: name,
        body: body.as_bytes(),
        limits,
        request_id: "",
        unix_seconds: 0,
    });
    let mut requests = decoded
        .map_err(|error| AdminError::bad_request(error.message))?
        .requests;
    requests
        .pop()
        .map(|request| (request, room))
        .ok_or_else(|| AdminError::bad_request("`documents` must not be empty"))
}

fn row_cache(app: &App) -> Option<CacheView> {
    let caches = app.inference.caches().into_iter();
    let (_, usage) = caches.into_iter().find(|(name, _)| *name == "rows")?;
    Some(CacheView {
        entries: usage.entries,
        bytes: usage.bytes,
        max_bytes: usage.max_bytes,
    })
}

fn no_cache() -> AdminError {
    AdminError::conflict("the row cache is off (--row-cache-mib 0): there is nothing to fill")
}

fn busy(message: &str) -> AdminError {
    AdminError::new(StatusCode::TOO_MANY_REQUESTS, "busy", message)
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
}

fn failed(error: PolicyError) -> AdminError {
    match error {
        PolicyError::InvalidRequest { message, .. } => AdminError::bad_request(message),
        PolicyError::Deadline { .. }
        | PolicyError::NoInstance
        | PolicyError::NoRoom { .. }
        | PolicyError::ShuttingDown => busy("the server has no spare capacity"),
        // What a policy says may hold document data: the fault's name is enough.
        PolicyError::Fault { policy, fault, .. } => {
            AdminError::conflict(format!("policy {policy} failed: {}", fault.name()))
        }
        PolicyError::Host { .. } => {
            tracing::error!(%error, "the cache was not filled");
            AdminError::internal("the host failed; its log has the cause")
        }
    }
}
