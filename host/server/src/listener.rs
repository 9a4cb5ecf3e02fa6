//! The listeners: connections in, with or without TLS, and one shutdown of all of them that lets what
//! runs finish.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use futures_util::future::{BoxFuture, join_all};
use http::{HeaderMap, HeaderValue, Method, Version, header};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rerankd_core::{ErrorKind, RerankError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::app::App;
use crate::connections::{Counted, Entered, Gate, Seat, Watched, linger};
use crate::proxy::Proxy;
use crate::{about, admin, data_plane, fresh};

/// Pause after a failed accept, so that running out of descriptors is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Pause where more connections are ending than should be.
const ENDING_PAUSE: Duration = Duration::from_millis(1);

/// Largest head of a request, and most of an answer that is written at a time, bytes: what one
/// connection takes in buffers of its own.
const MAX_BUFFER_BYTES: usize = 64 << 10;

/// What a client hears that speaks HTTP where there is HTTPS.
pub(crate) const LACKS_TLS: &str =
    "this port speaks HTTPS alone, and the request came in clear: call it by https://";

/// One socket and what is served on it.
pub struct Plane {
    /// Who gets in.
    pub gate: Arc<Gate>,
    /// Where connections come in.
    pub socket: TcpListener,
    /// Where it is given, nothing is said in clear.
    pub tls: Option<TlsAcceptor>,
    /// What answers.
    pub routes: Routes,
}

/// What answers on a plane.
#[derive(Clone)]
pub enum Routes {
    /// Those of the data plane.
    Data(Router),
    /// Those of the admin plane.
    Admin(Router),
    /// Those of the engine.
    Proxied(Arc<Proxy>),
}

impl Routes {
    async fn answer(self, request: http::Request<Incoming>) -> Response {
        match self {
            Self::Data(router) | Self::Admin(router) => {
                let (request, rest) = linger::lend(request);
                let headers = request.headers().clone();
                let Ok(mut response) = router.oneshot(request).await;
                rest.read_on(&headers, &mut response);
                response
            }
            Self::Proxied(proxy) => proxy.answer(request).await,
        }
    }

    /// An error in the words of the plane.
    fn refuse(&self, error: &RerankError, headers: &HeaderMap) -> Response {
        match self {
            Self::Data(_) => data_plane::plain_error(error, headers),
            Self::Admin(_) => admin::refuse(error, headers),
            Self::Proxied(proxy) => proxy.refuse(error, headers),
        }
    }

    /// Whether it is answered where there is no room for more: health, which costs nothing, and all that
    /// an operator asks, save streams that do not end.
    fn is_urgent(&self, method: &Method, path: &str) -> bool {
        match self {
            Self::Data(_) => about::is_health(method, path),
            Self::Admin(_) => !admin::is_stream(path),
            Self::Proxied(_) => false,
        }
    }
}

/// One connection's requests.
struct Requests {
    routes: Routes,
    gate: Arc<Gate>,
    seat: Arc<Seat>,
    /// Whether they come in clear where only TLS is spoken: each is refused.
    lacks_tls: bool,
}

impl Service<http::Request<Incoming>> for Requests {
    type Response = http::Response<Counted>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        self.seat.begin_request();
        if let Routes::Data(_) = self.routes {
            data_plane::tidy_path(request.uri_mut());
        }
        let (routes, gate, seat) = (self.routes.clone(), self.gate.clone(), self.seat.clone());
        let lacks_tls = self.lacks_tls;
        request.extensions_mut().insert(Arc::clone(&seat));
        Box::pin(async move {
            let objection = match lacks_tls {
                true => Some(RerankError::new(ErrorKind::BadRequest, LACKS_TLS)),
                false => objection(&routes, &gate, &seat, &request).await,
            };
            let response = match objection {
                None => routes.answer(request).await,
                Some(error) => {
                    let mut response = routes.refuse(&error, request.headers());
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                    let (head, body) = request.into_parts();
                    linger::read_on(body, &head.headers, &mut response, seat.is_reserve());
                    response
                }
            };
            Ok(response.map(|body| Counted::new(body, gate, seat)))
        })
    }
}

/// What is wrong with a request on any plane, or why there is no room for it.
async fn objection(
    routes: &Routes,
    gate: &Gate,
    seat: &Arc<Seat>,
    request: &http::Request<Incoming>,
) -> Option<RerankError> {
    // RFC 9112, section 3.2.
    let problem = match request.headers().get_all(header::HOST).iter().count() {
        0 if request.version() == Version::HTTP_11 => "`Host` is missing, which HTTP/1.1 asks for",
        0 | 1 => "",
        _ => "`Host` is there more than once",
    };
    if !problem.is_empty() {
        return Some(RerankError::new(ErrorKind::BadRequest, problem));
    }
    if routes.is_urgent(request.method(), request.uri().path()) {
        return None;
    }
    let problem = if !gate.has_place(seat) {
        "too many connections"
    } else if gate.has_no_room_for_answers().await {
        "too many bytes of answers wait for those who asked"
    } else {
        return None;
    };
    gate.count_refused();
    let problem = format!("no room for the request: {problem}; try again");
    let error = RerankError::new(ErrorKind::Overloaded, problem);
    Some(error.with_retry_after(Duration::from_secs(1)))
}

/// Whether the process is going down.
#[derive(Default)]
pub struct Draining(watch::Sender<bool>);

impl Draining {
    /// Whether it is.
    pub fn is_on(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for it. What never ends by itself (a stream of events) must end then, or the process
    /// waits for it until the drain time is up.
    pub async fn begun(&self) {
        // Never an error: the sender is `self`.
        let _ = self.0.subscribe().wait_for(|on| *on).await;
    }

    fn begin(&self) {
        self.0.send_replace(true);
    }
}

/// SIGTERM, SIGINT and SIGHUP, caught from the moment that this is made: before anybody is told that
/// the server is up.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Catches all. To be called in the runtime.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one that ends the process. SIGHUP does not: files that may be replaced
    /// are read anew.
    async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    fresh::read_all_anew();
                    tracing::info!("keys of callers and certificates are read anew when they are next used (SIGHUP); tokens always are");
                }
            }
        }
    }
}

/// Serves until a stop signal, then drains: the sockets close, idle connections end, running requests
/// of all planes have the configured time to finish. A client that is waited for is no running request.
/// A second signal ends it at once.
pub async fn serve(planes: Vec<Plane>, app: &Arc<App>, mut signals: Signals) {
    let graceful = GracefulShutdown::new();
    for plane in &planes {
        tokio::spawn(Arc::clone(&plane.gate).watch_over(Arc::clone(app)));
    }
    let accepting = planes.iter().map(|plane| accept(plane, app, &graceful));
    tokio::select! {
        _ = join_all(accepting) => {}
        () = signals.stop() => {}
    }
    drop(planes);
    app.releases.close();
    app.shadow.stop();
    app.draining.begin();
    tracing::info!("draining");
    tokio::select! {
        () = graceful.shutdown() => tracing::info!("drained"),
        () = tokio::time::sleep(app.config.drain) => {
            tracing::warn!("requests were still running when the drain time was up");
        }
        () = signals.stop() => tracing::warn!("stopped by a second signal"),
    }
}

/// Takes connections, for ever.
async fn accept(plane: &Plane, app: &Arc<App>, graceful: &GracefulShutdown) {
    let gate = &plane.gate;
    loop {
        while gate.is_behind() {
            tokio::time::sleep(ENDING_PAUSE).await;
        }
        let (stream, address) = match plane.socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(plane = gate.name(), %error, "cannot accept a connection");
                gate.relieve();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(entered) = gate.enter(address.ip()) else {
            continue;
        };
        // Head and body leave in one packet each; waiting for more would add 40 ms.
        let _ = stream.set_nodelay(true);
        let connection = Connection {
            gate: Arc::clone(gate),
            routes: plane.routes.clone(),
            watcher: graceful.watcher(),
            entered,
            lacks_tls: false,
        };
        match plane.tls.clone() {
            None => drop(tokio::spawn(connection.serve_clear(stream))),
            Some(tls) => drop(tokio::spawn(handshake(
                connection,
                tls,
                stream,
                Arc::clone(app),
            ))),
        }
    }
}

/// A client that does not finish its handshake holds a socket for some seconds, and no shutdown.
async fn handshake(mut connection: Connection, tls: TlsAcceptor, stream: TcpStream, app: Arc<App>) {
    let seat = Arc::clone(connection.entered.seat());
    seat.begin_handshake();
    let mut first = [0];
    let peeked = tokio::select! {
        peeked = stream.peek(&mut first) => peeked,
        () = seat.ended() => return,
        () = app.draining.begun() => return,
    };
    // A method's first letter; no record of TLS begins like that.
    if matches!(peeked, Ok(1)) && first[0].is_ascii_uppercase() {
        connection.lacks_tls = true;
        seat.begin_head();
        connection.serve_clear(stream).await;
        return;
    }
    let stream = Watched::new(stream, Arc::clone(&seat));
    let shaken = tokio::select! {
        shaken = tls.accept(stream) => shaken,
        () = seat.ended() => return,
        () = app.draining.begun() => return,
    };
    match shaken {
        Ok(stream) => {
            seat.begin_head();
            connection.serve(stream).await;
        }
        Err(error) => {
            tracing::debug!(plane = connection.gate.name(), %error, "no TLS with a client");
        }
    }
}

struct Connection {
    gate: Arc<Gate>,
    routes: Routes,
    watcher: Watcher,
    entered: Entered,
    lacks_tls: bool,
}

impl Connection {
    async fn serve_clear(self, stream: TcpStream) {
        let stream = Watched::new(stream, Arc::clone(self.entered.seat()));
        self.serve(stream).await;
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let seat = self.entered.seat();
        let mut server = hyper::server::conn::http1::Builder::new();
        server
            // Times are kept by the gate, which can tell a head from an idle connection.
            .header_read_timeout(None)
            .keep_alive(!seat.is_reserve())
            .max_buf_size(MAX_BUFFER_BYTES);
        if matches!(self.routes, Routes::Proxied(_)) {
            // An answer has the headers that the engine gave it, as the engine wrote them.
            server.auto_date_header(false).preserve_header_case(true);
        }
        let requests = Requests {
            routes: self.routes,
            gate: Arc::clone(&self.gate),
            seat: Arc::clone(seat),
            lacks_tls: self.lacks_tls,
        };
        let connection = server.serve_connection(TokioIo::new(stream), requests);
        tokio::select! {
            served = self.watcher.watch(connection) => {
                if let Err(error) = served {
                    tracing::debug!(plane = self.gate.name(), %error, "connection ended");
                }
            }
            () = seat.ended() => {}
        }
    }
}
