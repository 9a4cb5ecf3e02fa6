//! Reads request bodies within the limits of size, time, and bytes in flight, compressed or not.

use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::Body;
use rerankd_core::{ErrorKind, RerankError};

use crate::admission::Permit;
use crate::app::App;
use crate::connections::AwaitedBody;
use crate::gzip::{self, Encoding, Packed};

/// A body that is read must bring [`LEAST`] bytes in this time.
const WINDOW: Duration = Duration::from_secs(5);

/// What a body must bring in [`WINDOW`], bytes.
const LEAST: usize = 1 << 10;

/// What a body must bring where its room is scarce, bytes a second.
const BRISK: f64 = 65_536.0;

/// The first allocation for a body, bytes.
const FIRST: usize = 1 << 10;

/// Bytes in one piece that grows, of which every byte that it takes in memory was asked for before.
pub(crate) struct Gathered {
    bytes: Vec<u8>,
    expected: usize,
}

impl Gathered {
    /// `expected`: how many bytes there will be, as somebody said; 0 if nobody did. They are not allocated
    /// until they come.
    pub(crate) fn new(expected: usize) -> Self {
        Self {
            bytes: Vec::new(),
            expected,
        }
    }

    /// Bytes that are there.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds bytes. `room` is asked for what the memory grows by.
    ///
    /// # Errors
    /// That of `room`; nothing was added then.
    pub(crate) fn add<E>(
        &mut self,
        data: &[u8],
        room: impl FnOnce(usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let needed = self.bytes.len() + data.len();
        let capacity = self.bytes.capacity();
        if needed > capacity {
            let mut grown = (capacity + capacity / 2).max(FIRST);
            if self.expected >= needed {
                grown = grown.min(self.expected);
            }
            let grown = grown.max(needed);
            room(grown - capacity)?;
            self.bytes.reserve_exact(grown - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    /// All of them.
    pub(crate) fn into_bytes(self) -> Bytes {
        Bytes::from(self.bytes)
    }
}

/// Whether a body comes fast enough to be waited for.
pub(crate) struct Pace {
    window: Duration,
    since: Instant,
    came: usize,
}

impl Pace {
    /// From now on.
    pub(crate) fn new(app: &App) -> Self {
        Self {
            window: WINDOW.min(app.config.connections.stall_timeout),
            since: Instant::now(),
            came: 0,
        }
    }

    /// Waits for the next part of a body, and says what is wrong if it comes too slowly.
    pub(crate) async fn next<B: Body<Data = Bytes> + Unpin>(
        &mut self,
        body: &mut B,
    ) -> Result<Option<Result<Bytes, B::Error>>, String> {
        self.next_where(body, || false).await
    }

    /// The same, with a pace of [`BRISK`] for as long as `others_wait` says so.
    pub(crate) async fn next_where<B: Body<Data = Bytes> + Unpin>(
        &mut self,
        body: &mut B,
        others_wait: impl Fn() -> bool,
    ) -> Result<Option<Result<Bytes, B::Error>>, String> {
        loop {
            let until = self.since + self.window;
            let frame = match tokio::time::timeout_at(until.into(), body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Ok(Some(Err(error))),
                Ok(Some(Ok(frame))) => frame.into_data().ok(),
                Err(_) => None,
            };
            self.came += frame.as_ref().map_or(0, Bytes::len);
            if self.since.elapsed() >= self.window {
                let (came, window) = (self.came, self.window);
                if came < LEAST {
                    return Err(format!("{came} bytes of the body came within {window:?}"));
                }
                if (came as f64) < BRISK * window.as_secs_f64() && others_wait() {
                    return Err(format!(
                        "{came} bytes of the body came within {window:?}, too few while there is little room for others"
                    ));
                }
                self.since = Instant::now();
                self.came = 0;
            }
            if let Some(data) = frame {
                return Ok(Some(Ok(data)));
            }
        }
    }
}

/// What a head says of the length of its body; 0 if nothing.
pub(crate) fn declared(headers: &HeaderMap) -> usize {
    headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse().ok())
        .unwrap_or(0)
}

/// Makes sure that a body is called JSON, or nothing.
///
/// # Errors
/// `UnsupportedMediaType`.
pub(crate) fn check_is_json(headers: &HeaderMap) -> Result<(), RerankError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let essence = text.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    let is_json = match essence.split_once('/') {
        None => essence.is_empty(),
        Some(("application", kind)) => kind == "json" || kind.ends_with("+json"),
        Some(_) => essence == "text/json",
    };
    if is_json {
        return Ok(());
    }
    Err(RerankError::new(
        ErrorKind::UnsupportedMediaType,
        format!(
            "the body must be JSON (`Content-Type: application/json`), not `{}`",
            essence.chars().take(80).collect::<String>()
        ),
    ))
}

/// Reads a whole body. Bytes count as in flight once they are there: what a client announces takes
/// no room from others. They do until the permit is dropped.
///
/// # Errors
/// `UnsupportedMediaType` for a body compressed otherwise than with gzip, `TooLarge`, `RequestTimeout`, `Overloaded`, and
/// `BadRequest` for one that breaks off.
pub(crate) async fn read(app: &App, request: Request) -> Result<(Bytes, Permit), RerankError> {
    let limit = app.config.limits.max_body_bytes;
    let is_packed = is_packed(request.headers())?;
    let declared = declared(request.headers());
    if declared > limit {
        return Err(too_large(&format!("{declared} bytes"), limit));
    }
    let within = app.config.limits.body_timeout;
    let awaited = AwaitedBody::of(request.extensions());
    let read = tokio::time::timeout(within, collect(app, request, declared, limit)).await;
    drop(awaited);
    let (body, permit) = read.map_err(|_| {
        RerankError::new(
            ErrorKind::RequestTimeout,
            format!("the body did not arrive within {within:?}"),
        )
    })??;
    if is_packed {
        // However small it is, it may be large inside.
        return tokio::task::block_in_place(|| unpack(app, &body, permit, limit));
    }
    Ok((body, permit))
}

/// Whether the body is compressed with gzip.
fn is_packed(headers: &HeaderMap) -> Result<bool, RerankError> {
    match gzip::encoding(headers) {
        Encoding::Identity => Ok(false),
        Encoding::Gzip => Ok(true),
        Encoding::Other => Err(RerankError::new(
            ErrorKind::UnsupportedMediaType,
            "a body may be compressed with `gzip` or not at all (`Content-Encoding`)",
        )),
    }
}

/// Both the packed body and what was in it count as in flight.
fn unpack(
    app: &App,
    packed: &[u8],
    mut permit: Permit,
    limit: usize,
) -> Result<(Bytes, Permit), RerankError> {
    let room = |size| app.admission.admit_bytes(&mut permit, size);
    match gzip::unpack(packed, limit, room) {
        Ok(body) => Ok((body, permit)),
        Err(Packed::Broken(error)) => Err(RerankError::new(
            ErrorKind::BadRequest,
            format!("the body is not gzip, as its `Content-Encoding` says: {error}"),
        )),
        Err(Packed::TooLarge) => Err(too_large("more bytes when it is unpacked", limit)),
        Err(Packed::NoRoom(error)) => Err(error),
    }
}

async fn collect(
    app: &App,
    request: Request,
    declared: usize,
    limit: usize,
) -> Result<(Bytes, Permit), RerankError> {
    let mut permit = Permit::default();
    let mut gathered = Gathered::new(declared);
    let mut pace = Pace::new(app);
    let mut body = request.into_body();
    loop {
        let data = match pace.next(&mut body).await {
            Ok(Some(Ok(data))) => data,
            Ok(None) => return Ok((gathered.into_bytes(), permit)),
            Ok(Some(Err(error))) => {
                let problem = format!("the body broke off: {error}");
                return Err(RerankError::new(ErrorKind::BadRequest, problem));
            }
            Err(problem) => return Err(RerankError::new(ErrorKind::RequestTimeout, problem)),
        };
        if gathered.len() + data.len() > limit {
            return Err(too_large("more bytes", limit));
        }
        gathered.add(&data, |bytes| app.admission.admit_bytes(&mut permit, bytes))?;
    }
}

fn too_large(size: &str, limit: usize) -> RerankError {
    RerankError::new(
        ErrorKind::TooLarge,
        format!("the body has {size}; the limit is {limit} bytes (--max-body-bytes)"),
    )
}
