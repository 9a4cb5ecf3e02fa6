//! Routes of the data plane: one for each path of the protocols, Metarank's encoder form, and what the
//! server says of itself (`about`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::post;
use rerankd_core::{ErrorKind, RerankError};
use rerankd_inference::pairs::{self, NoVector};
use rerankd_wire::native::Native;
use rerankd_wire::{Answer, Protocol, Route, metarank};

use crate::about;
use crate::admission::Permit;
use crate::app::App;
use crate::body;
use crate::config::CorsSettings;
use crate::cors;
use crate::host_names::HostNames;
use crate::rerank::{self, Incoming};

pub(crate) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(crate) static SPLIT_KEY: HeaderName = HeaderName::from_static("rerankd-key");

/// Metarank's encoder form, in metrics.
const ENCODER: &str = "metarank-encoder";

const ENCODER_PATH: &str = "/inference/encoder/{model}";

/// Longest request id that is taken over from a caller.
const MAX_REQUEST_ID: usize = 128;

/// The path's parameters, if they are text.
type Target = Result<Path<Vec<(String, String)>>, PathRejection>;

/// All routes.
pub fn routes(app: &Arc<App>) -> Router {
    let (listen, allowed) = (app.config.listen, &app.config.allow_hosts);
    let names = HostNames::new("the data plane", "--allow-host", listen, allowed);
    let mut router = about::routes().route(
        ENCODER_PATH,
        post(encode).fallback(|request| wrong_method(&Native, request)),
    );
    for route in rerankd_wire::routes() {
        let (path, fallback) = (route.path, route.fallback());
        let handler = move |State(app): State<Arc<App>>, target: Target, request: Request| {
            let route = route.clone();
            async move { call(&app, &route, target, request).await }
        };
        let mut methods = post(handler);
        if path == "/" {
            methods = methods.get(about::health);
        }
        router = router.route(
            path,
            methods.fallback(move |request| wrong_method(fallback, request)),
        );
    }
    let mut router = router
        // What is above asks for a key, what is below does not.
        .route_layer(from_fn_with_state(Arc::clone(app), require_key))
        .merge(about::open_routes(app.config.wire.tei_metrics))
        .fallback(unknown_route);
    if app.config.cors != CorsSettings::Off {
        router = router.layer(from_fn_with_state(Arc::clone(app), cors::allow));
    }
    router
        .layer(from_fn_with_state((Arc::clone(app), names), check_host))
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(panicked))
        .with_state(Arc::clone(app))
}

/// Refuses callers without a key, in the words of the protocol that is spoken on the path.
async fn require_key(
    State(app): State<Arc<App>>,
    path: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let path = path.as_str();
    let error = match app.api_keys.check(request.headers()) {
        Err(error) if !is_health(path, request.method()) => error,
        _ => return next.run(request).await,
    };
    let mut response = refusal(&app, path, &error, request.headers());
    let challenge = HeaderValue::from_static("Bearer");
    let headers = response.headers_mut();
    headers.insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// Refuses names that are not the data plane's, on every path but those of health, which probes call by
/// any name.
async fn check_host(
    State((app, names)): State<(Arc<App>, HostNames)>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let path = path.as_ref().map_or("", MatchedPath::as_str);
    if is_health(path, request.method()) {
        return next.run(request).await;
    }
    match names.check(request.version(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => refusal(&app, path, &error, request.headers()),
    }
}

/// Whether it asks only whether the server is well; `GET /` does so, too.
fn is_health(path: &str, method: &Method) -> bool {
    match path {
        "/" => method != Method::POST,
        path => about::HEALTH.contains(&path),
    }
}

/// A refusal before anything was read, in the words of the protocol that is spoken on the path.
fn refusal(app: &App, path: &str, error: &RerankError, headers: &HeaderMap) -> Response {
    let routes = rerankd_wire::routes();
    let route = routes.iter().find(|route| route.path == path);
    let request_id = request_id(headers);
    let answer = match route.map(Route::fallback) {
        Some(protocol) => {
            app.telemetry.refused(protocol.name(), error, &request_id);
            protocol.encode_error(error, &request_id)
        }
        None if path == ENCODER_PATH => {
            app.telemetry.refused(ENCODER, error, &request_id);
            metarank::encode_encoder_error(error, &request_id)
        }
        None => {
            app.telemetry.refused("about", error, &request_id);
            about::encode_error(path, error, &request_id)
        }
    };
    respond(answer, &request_id)
}

/// Makes one path of those that clients put together of a base that ends in a slash, or of a path that does:
/// `//v1/rerank/` is `/v1/rerank`.
pub(crate) fn tidy_path(uri: &mut Uri) {
    let path = uri.path();
    if !path.contains("//") && (path.len() == 1 || !path.ends_with('/')) {
        return;
    }
    let mut tidy: String = path
        .split('/')
        .filter(|part| !part.is_empty())
        .flat_map(|part| ["/", part])
        .collect();
    if tidy.is_empty() {
        tidy.push('/');
    }
    if let Some(query) = uri.query() {
        tidy.push('?');
        tidy.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = tidy.parse().ok();
    if let Ok(tidy) = Uri::from_parts(parts) {
        *uri = tidy;
    }
}

/// The path's first parameter.
fn name(target: Target) -> Result<String, RerankError> {
    let first = |parameters: Vec<(String, String)>| parameters.into_iter().next();
    let first =
        target.map(|Path(parameters)| first(parameters).map_or_else(String::new, |(_, name)| name));
    first.map_err(|rejection| {
        RerankError::new(
            ErrorKind::BadRequest,
            format!("the path: {}", rejection.body_text()),
        )
    })
}

async fn call(app: &Arc<App>, route: &Route, target: Target, request: Request) -> Response {
    let request_id = request_id(request.headers());
    let key = split_key(request.headers());
    let (target, body, _permit) = match read(app, route, target, request).await {
        Ok(read) => read,
        Err(error) => {
            let protocol = route.fallback();
            app.telemetry.refused(protocol.name(), &error, &request_id);
            return respond(protocol.encode_error(&error, &request_id), &request_id);
        }
    };
    let incoming = Incoming {
        protocol: rerank::off_the_runtime(body.len(), || route.protocol(&body)),
        path: route.path,
        target,
        body,
        arrived: Instant::now(),
        key,
        request_id: request_id.clone(),
    };
    respond(rerank::answer(app, incoming).await, &request_id)
}

/// The path's parameter, if it has one, and the whole body.
async fn read(
    app: &App,
    route: &Route,
    target: Target,
    request: Request,
) -> Result<(String, Bytes, Permit), RerankError> {
    let target = if route.path.contains('{') {
        name(target)?
    } else {
        String::new()
    };
    if !route.fallback().ignores_content_type() {
        body::check_is_json(request.headers())?;
    }
    let (body, permit) = body::read(app, request).await?;
    Ok((target, body, permit))
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
            app.telemetry.refused(ENCODER, &error, &request_id);
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
    let cost = std::slice::from_ref(&cost);
    let (_room, deadline) = app
        .admission
        .admit(model.digest(), cost, arrived, &app.inference)
        .await?;
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
    let vectors = vectors.into_iter().enumerate().map(|(index, vector)| {
        vector.map_err(|why| match why {
            NoVector::Late => late(),
            NoVector::Empty => RerankError::bad_request(
                format!("texts[{index}]"),
                format!("nothing is left of it for model {name}; expected a text"),
            ),
            NoVector::Unread => RerankError {
                kind: ErrorKind::Unread,
                ..RerankError::bad_request(
                    format!("texts[{index}]"),
                    format!(
                        "model {name} cannot read most of it, so that its vector would say nothing"
                    ),
                )
            },
        })
    });
    let vectors = vectors.collect::<Result<Vec<_>, _>>()?;
    metarank::encode_embeddings(&vectors, arrived.elapsed())
}

async fn unknown_route(request: Request) -> Response {
    let routes = rerankd_wire::routes();
    let paths: Vec<&str> = routes.iter().map(|route| route.path).collect();
    let error = RerankError::new(
        ErrorKind::UnknownRoute,
        format!(
            "no route `{} {}`; there are: POST {}, /inference/encoder/{{model}}; GET {}; metrics and models are on the admin plane (--admin-listen)",
            request.method(),
            shown(request.uri().path()),
            paths.join(", "),
            about::PATHS.join(", ")
        ),
    );
    plain_error(&error, request.headers())
}

async fn wrong_method(protocol: &'static dyn Protocol, request: Request) -> Response {
    let error = RerankError::new(
        ErrorKind::MethodNotAllowed,
        format!(
            "`{}` must be called with POST, not {}",
            shown(request.uri().path()),
            request.method()
        ),
    );
    let request_id = request_id(request.headers());
    let mut response = respond(protocol.encode_error(&error, &request_id), &request_id);
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
    let answer = Native.encode_error(&error, "");
    let mut response = http::Response::new(http_body_util::Full::from(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

/// An error of no protocol's route.
pub(crate) fn plain_error(error: &RerankError, headers: &HeaderMap) -> Response {
    let request_id = request_id(headers);
    respond(Native.encode_error(error, &request_id), &request_id)
}

/// A path as errors show it.
pub(crate) fn shown(path: &str) -> String {
    path.chars().take(200).collect()
}

pub(crate) fn respond(answer: Answer, request_id: &str) -> Response {
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
    // Asking the system each time would be one call in seven of a passed request.
    static PROCESS: LazyLock<u32> = LazyLock::new(std::process::id);
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
            format!("{:08x}-{number:x}", *PROCESS)
        }
    }
}
