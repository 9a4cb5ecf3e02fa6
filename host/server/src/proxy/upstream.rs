//! The search engine behind the proxy: its addresses, the connections to them, and which of them are
//! well.

use std::time::Duration;

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
use super::nodes::Nodes;
use crate::config::UpstreamSettings;
use crate::sync::now;

/// Idle connections kept for each address.
const MAX_IDLE: usize = 256;

/// How long a connection is kept idle: shorter than engines and what stands between do.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest head of an answer, and most of a body that is read at a time, bytes.
const MAX_BUFFER_BYTES: usize = 64 << 10;

/// How long a connection without traffic waits before the system asks whether the engine is there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Headers in an answer. Engines add a `Warning` for each thing that a request should not use any more.
const MAX_HEADERS: usize = 1024;

/// All addresses of the engine.
pub(super) struct Upstream {
    client: Client<HttpsConnector<HttpConnector>, Outgoing>,
    addresses: Box<[Address]>,
    /// In the order of `addresses`.
    nodes: Nodes,
}

/// One address.
struct Address {
    scheme: Scheme,
    authority: Authority,
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
            .http1_max_headers(MAX_HEADERS)
            .build(connector);
        let address = |uri: &Uri| Address {
            scheme: uri.scheme().cloned().unwrap_or(Scheme::HTTP),
            authority: uri
                .authority()
                .cloned()
                .expect("the configuration checked that an address has a host"),
        };
        Self {
            client,
            addresses: settings.addresses.iter().map(address).collect(),
            nodes: Nodes::new(settings.addresses.len()),
        }
    }

    /// Sends a request, and waits for the head of its answer for as long as bytes of the request
    /// move at least once in `idle`. An address that cannot be reached is passed over; a request of
    /// which something may have been sent goes to no second one, unless it is repeatable.
    ///
    /// # Errors
    /// `UpstreamUnavailable`: no address can be reached. `UpstreamFailed`: one broke off.
    /// `UpstreamTimeout`. `BadRequest` and `RequestTimeout`: the client's own body broke off, or does
    /// not come.
    pub(super) async fn send(
        &self,
        asked: &Asked,
        activity: &Activity,
        idle: Duration,
    ) -> Result<Response<Incoming>, RerankError> {
        let mut trouble = None;
        for turn in self
            .nodes
            .order(now(), asked.repeatable && asked.body.is_whole())
        {
            let address = &self.addresses[turn.node()];
            let Some(request) = request(address, asked)? else {
                break;
            };
            let answer = activity.guard(idle, self.client.request(request)).await;
            match answer {
                Ok(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    trouble = Some(broken(address, "it changed the protocol"));
                    break;
                }
                Ok(Ok(response)) => {
                    if turn.well() {
                        tracing::info!(upstream = %address.authority, "an address of the search engine answers again");
                    }
                    return Ok(response);
                }
                Ok(Err(error)) => {
                    if let Some(why) = activity.broken() {
                        return Err(body_broke_off(&why));
                    }
                    let why = root_cause(&error);
                    tracing::warn!(upstream = %address.authority, error = why, "no answer of the search engine");
                    // Who refuses a body early and closes is well, though its refusal may get lost.
                    let refused_early = activity.is_unfinished() && is_cut(&error);
                    if is_the_nodes(&error) && !refused_early {
                        turn.failed(now());
                    }
                    if error.is_connect() {
                        trouble.get_or_insert_with(|| unreachable(address, &why));
                    } else {
                        trouble = Some(broken(address, &why));
                        if !asked.repeatable {
                            break;
                        }
                    }
                }
                Err(_) if activity.waits_for_client() => return Err(body_stands_still(idle)),
                // A search that takes long says nothing about the address.
                Err(_) => return Err(timed_out(address, idle)),
            }
        }
        Err(trouble.unwrap_or_else(|| {
            RerankError::new(
                ErrorKind::UpstreamFailed,
                "the search engine broke off before the request was sent",
            )
        }))
    }
}

impl Payload {
    /// Whether nothing of it is still to come from the client.
    fn is_whole(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Streamed(slot) => slot.is_empty(),
        }
    }
}

/// Whether the other side closed the connection.
fn is_cut(error: &hyper_util::client::legacy::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return matches!(error.kind(), BrokenPipe | ConnectionReset);
        }
        cause = error.source();
    }
    false
}

/// Whether a failure says something about the address: not where this machine had no means of its own
/// left for a connection, nor where the answer's head has more in it than is read, of which the request
/// may be the cause.
fn is_the_nodes(error: &hyper_util::client::legacy::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.raw_os_error().is_some_and(is_our_lack)
        {
            return false;
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && (error.is_parse_too_large() || error.is_user())
        {
            return false;
        }
        cause = error.source();
    }
    true
}

/// Files, ports or memory that this process or machine has no more of.
fn is_our_lack(os_error: i32) -> bool {
    use rustix::io::Errno;
    let lack = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ADDRNOTAVAIL,
    ];
    lack.iter().any(|errno| errno.raw_os_error() == os_error)
}

/// The request for one address; `None` where its body was begun by an earlier try.
fn request(node: &Address, asked: &Asked) -> Result<Option<Request<Outgoing>>, RerankError> {
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

fn unreachable(node: &Address, why: &str) -> RerankError {
    let hint = match why.contains("certificate") {
        true => {
            "; --upstream-ca names its certificate, or that of who signed it, and the host must be among the certificate's names"
        }
        false => "",
    };
    RerankError::new(
        ErrorKind::UpstreamUnavailable,
        format!(
            "the search engine cannot be reached at `{}`: {why}{hint}",
            node.authority
        ),
    )
}

fn broken(node: &Address, why: &str) -> RerankError {
    RerankError::new(
        ErrorKind::UpstreamFailed,
        format!(
            "the search engine at `{}` broke off its answer: {why}",
            node.authority
        ),
    )
}

fn timed_out(node: &Address, idle: Duration) -> RerankError {
    RerankError::new(
        ErrorKind::UpstreamTimeout,
        format!(
            "the search engine at `{}` did not answer within {}",
            node.authority,
            humantime::format_duration(idle)
        ),
    )
}

/// The client's body is no body, or its connection ended within it.
pub(super) fn body_broke_off(why: &str) -> RerankError {
    RerankError::new(ErrorKind::BadRequest, format!("the body broke off: {why}"))
}

fn body_stands_still(idle: Duration) -> RerankError {
    let idle = humantime::format_duration(idle);
    let problem = format!("nothing more of the body came within {idle}");
    RerankError::new(ErrorKind::RequestTimeout, problem)
}

/// What is at the bottom of an error; the layers above say no more than that there was one.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
