//! The listeners: connections in, with or without TLS, and one shutdown of all of them that lets what
//! runs finish.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::future::{BoxFuture, join_all};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::app::App;
use crate::proxy::Proxy;
use crate::tls::HANDSHAKE_TIMEOUT;

/// Pause after a failed accept, so that running out of descriptors is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One socket and what is served on it.
pub struct Plane {
    /// `data`, `admin` or `proxy`, for the log.
    pub name: &'static str,
    /// Where connections come in.
    pub socket: TcpListener,
    /// Where it is given, nothing is said in clear.
    pub tls: Option<TlsAcceptor>,
    /// Connections at one time; more wait. `None` is as many as the system allows.
    pub max_connections: Option<usize>,
    /// What answers.
    pub routes: Routes,
}

/// What answers on a plane.
#[derive(Clone)]
pub enum Routes {
    /// Routes of our own.
    Own(Router),
    /// Those of the engine.
    Proxied(Arc<Proxy>),
}

impl Service<http::Request<Incoming>> for Routes {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        match self {
            Self::Own(router) => Box::pin(router.clone().oneshot(request)),
            Self::Proxied(proxy) => {
                let proxy = Arc::clone(proxy);
                Box::pin(async move { Ok(proxy.answer(request).await) })
            }
        }
    }
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

/// SIGTERM and SIGINT, caught from the moment that this is made: before anybody is told that the
/// server is up.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Catches both. To be called in the runtime.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves until a stop signal, then drains: the sockets close, idle connections end, running requests
/// of all planes have the configured time to finish. A second signal ends it at once.
pub async fn serve(planes: Vec<Plane>, app: &Arc<App>, mut stop: StopSignals) {
    let graceful = GracefulShutdown::new();
    let accepting = planes.iter().map(|plane| accept(plane, app, &graceful));
    tokio::select! {
        _ = join_all(accepting) => {}
        () = stop.next() => {}
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
        () = stop.next() => tracing::warn!("stopped by a second signal"),
    }
}

/// Takes connections, for ever.
async fn accept(plane: &Plane, app: &Arc<App>, graceful: &GracefulShutdown) {
    let places = plane
        .max_connections
        .map(|most| Arc::new(Semaphore::new(most)));
    loop {
        let place = match &places {
            // Never an error: nobody closes it.
            Some(places) => Arc::clone(places).acquire_owned().await.ok(),
            None => None,
        };
        let stream = match plane.socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(plane = plane.name, %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Head and body leave in one packet each; waiting for more would add 40 ms.
        let _ = stream.set_nodelay(true);
        let connection = Connection {
            plane: plane.name,
            routes: plane.routes.clone(),
            idle_timeout: app.config.limits.idle_timeout,
            watcher: graceful.watcher(),
            place,
        };
        match plane.tls.clone() {
            None => drop(tokio::spawn(connection.serve(stream))),
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
async fn handshake(connection: Connection, tls: TlsAcceptor, stream: TcpStream, app: Arc<App>) {
    let within = connection.idle_timeout.min(HANDSHAKE_TIMEOUT);
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(within, tls.accept(stream)) => shaken,
        () = app.draining.begun() => return,
    };
    match shaken {
        Ok(Ok(stream)) => connection.serve(stream).await,
        Ok(Err(error)) => {
            tracing::debug!(plane = connection.plane, %error, "no TLS with a client");
        }
        Err(_) => tracing::debug!(
            plane = connection.plane,
            "a client did not finish its TLS handshake"
        ),
    }
}

struct Connection {
    plane: &'static str,
    routes: Routes,
    idle_timeout: Duration,
    watcher: Watcher,
    place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let mut server = hyper::server::conn::http1::Builder::new();
        server
            .timer(TokioTimer::new())
            // Also ends connections that are idle between two requests.
            .header_read_timeout(self.idle_timeout);
        if matches!(self.routes, Routes::Proxied(_)) {
            // An answer has the headers that the engine gave it, as the engine wrote them.
            server.auto_date_header(false).preserve_header_case(true);
        }
        let _place = self.place;
        let connection = server.serve_connection(TokioIo::new(stream), self.routes);
        if let Err(error) = self.watcher.watch(connection).await {
            tracing::debug!(plane = self.plane, %error, "connection ended");
        }
    }
}
