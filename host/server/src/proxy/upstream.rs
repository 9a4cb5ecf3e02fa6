//! The search engine behind the proxy: its addresses, the connections to them, and which of them are
//! well.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Extensions, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rerankd_core::{ErrorKind, RerankError};

use super::body::{Activity, Outgoing, Slot};
use crate::config::UpstreamSettings;

/// How long an address is left alone after its first failure; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Idle connections kept for each address.
const MAX_IDLE: usize = 256;

/// How long a connection is kept idle: shorter than engines and what stands between do.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest head of an answer, and most of a body that is read at a time, bytes.
const MAX_BUFFER_BYTES: usize = 64 << 10;

/// How long a connection without traffic waits before the system asks whether the engine is there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// All addresses of the engine.
pub(super) struct Upstream {
    client: Client<HttpsConnector<HttpConnector>, Outgoing>,
    nodes: Box<[Node]>,
    next: AtomicUsize,
}

/// One address.
struct Node {
    scheme: Scheme,
    authority: Authority,
    failing: AtomicBool,
    health: Mutex<Health>,
}

#[derive(Default)]
struct Health {
    failures: u32,
    /// Until then it is asked only if no other is left.
    until: Option<Instant>,
}

/// A request for the engine.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) target: PathAndQuery,
    /// Without framing and `Host`.
    pub(super) headers: HeaderMap,
    pub(super) body: Payload,
    /// How the client wrote the headers' names.
    pub(super) extensions: Extensions,
    /// Whether the request may be sent to another address after a first one may have seen it.
    pub(super) repeatable: bool,
}

/// What goes along.
pub(super) enum Payload {
    /// All of it is here.
    Whole(Bytes),
    /// It comes from the client.
    Streamed(Slot),
}

impl Upstream {
    /// Nothing is connected yet.
    pub(super) fn new(settings: &UpstreamSettings) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_connect_timeout(Some(settings.connect_timeout));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(settings.tls.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE)
            .http1_preserve_header_case(true)
            .http1_max_buf_size(MAX_BUFFER_BYTES)
            .build(connector);
        let node = |uri: &Uri| Node {
            scheme: uri.scheme().cloned().unwrap_or(Scheme::HTTP),
            authority: uri
                .authority()
                .cloned()
                .expect("the configuration checked that an address has a host"),
            failing: AtomicBool::new(false),
            health: Mutex::default(),
        };
        Self {
            client,
            nodes: settings.addresses.iter().map(node).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// Sends a request, and waits for the head of its answer for as long as bytes of the request
    /// move at least once in `idle`. An address that cannot be reached is passed over; a request of
    /// which something may have been sent goes to no second one, unless it is repeatable.
    ///
    /// # Errors
    /// `UpstreamUnavailable`: no address can be reached. `UpstreamFailed`: one broke off.
    /// `UpstreamTimeout`.
    pub(super) async fn send(
        &self,
        asked: &Asked,
        activity: &Activity,
        idle: Duration,
    ) -> Result<Response<Incoming>, RerankError> {
        let mut trouble = None;
        for node in self.order() {
            let Some(request) = request(node, asked)? else {
                break;
            };
            match activity.guard(idle, self.client.request(request)).await {
                Ok(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    trouble = Some(broken(node, "it changed the protocol"));
                    break;
                }
                Ok(Ok(response)) => {
                    node.well();
                    return Ok(response);
                }
                Ok(Err(error)) => {
                    let why = root_cause(&error);
                    tracing::warn!(upstream = %node.authority, error = why, "no answer of the search engine");
                    node.failed();
                    if error.is_connect() {
                        trouble.get_or_insert_with(|| unreachable(node, &why));
                    } else {
                        trouble = Some(broken(node, &why));
                        if !asked.repeatable {
                            break;
                        }
                    }
                }
                // A search that takes long says nothing about the address.
                Err(_) => return Err(timed_out(node, idle)),
            }
        }
        Err(trouble.unwrap_or_else(|| {
            RerankError::new(
                ErrorKind::UpstreamFailed,
                "the search engine broke off before the request was sent",
            )
        }))
    }

    /// The addresses in the order in which to try them: each request begins with another; those that
    /// failed of late come last.
    fn order(&self) -> Vec<&Node> {
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.nodes.len();
        let (behind, ahead) = self.nodes.split_at(first);
        let now = Instant::now();
        let (mut well, ill): (Vec<&Node>, Vec<&Node>) = ahead
            .iter()
            .chain(behind)
            .partition(|node| node.may_be_asked(now));
        well.extend(ill);
        well
    }
}

impl Node {
    /// Whether it is well, or it is time to see whether it is: one request does, and the others
    /// wait for what comes of it.
    fn may_be_asked(&self, now: Instant) -> bool {
        if !self.failing.load(Ordering::Relaxed) {
            return true;
        }
        let mut health = self.health();
        match health.until {
            Some(until) if until > now => false,
            _ => {
                health.until = Some(now + FIRST_PAUSE);
                true
            }
        }
    }

    fn well(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            *self.health() = Health::default();
            tracing::info!(upstream = %self.authority, "an address of the search engine answers again");
        }
    }

    fn failed(&self) {
        let mut health = self.health();
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(health.failures.min(16));
        health.failures = health.failures.saturating_add(1);
        health.until = Some(Instant::now() + pause.min(LONGEST_PAUSE));
        self.failing.store(true, Ordering::Relaxed);
    }

    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The request for one address; `None` where its body was begun by an earlier try.
fn request(node: &Node, asked: &Asked) -> Result<Option<Request<Outgoing>>, RerankError> {
    let body = match &asked.body {
        Payload::Whole(bytes) => Outgoing::Whole(Full::new(bytes.clone())),
        Payload::Streamed(slot) => match slot.lend() {
            Some(body) => body,
            None => return Ok(None),
        },
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(node.scheme.clone());
    parts.authority = Some(node.authority.clone());
    parts.path_and_query = Some(asked.target.clone());
    let uri = Uri::from_parts(parts)
        .map_err(|error| RerankError::new(ErrorKind::BadRequest, format!("the path: {error}")))?;
    let mut headers = asked.headers.clone();
    // Framed anew: by length where it is known, else in chunks, and never both ways.
    match body.size_hint().exact() {
        Some(0) if body.is_end_stream() && !expects_a_body(&asked.method) => {}
        Some(length) => drop(headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length))),
        None => drop(headers.insert(
            header::TRANSFER_ENCODING,
            HeaderValue::from_static("chunked"),
        )),
    }
    let mut request = Request::new(body);
    *request.method_mut() = asked.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    *request.extensions_mut() = asked.extensions.clone();
    Ok(Some(request))
}

/// Whether a request without a body says so (RFC 9110, section 8.6).
fn expects_a_body(method: &Method) -> bool {
    method == Method::POST || method == Method::PUT || method == Method::PATCH
}

fn unreachable(node: &Node, why: &str) -> RerankError {
    RerankError::new(
        ErrorKind::UpstreamUnavailable,
        format!(
            "the search engine cannot be reached at `{}`: {why}",
            node.authority
        ),
    )
}

fn broken(node: &Node, why: &str) -> RerankError {
    RerankError::new(
        ErrorKind::UpstreamFailed,
        format!(
            "the search engine at `{}` broke off its answer: {why}",
            node.authority
        ),
    )
}

fn timed_out(node: &Node, idle: Duration) -> RerankError {
    RerankError::new(
        ErrorKind::UpstreamTimeout,
        format!(
            "the search engine at `{}` did not answer within {}",
            node.authority,
            humantime::format_duration(idle)
        ),
    )
}

/// What is at the bottom of an error; the layers above say no more than that there was one.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
