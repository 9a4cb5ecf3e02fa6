//! Reads request bodies within the limits of size, time, and bytes in flight, compressed or not.

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;
use rerankd_core::{ErrorKind, RerankError};

use crate::admission::Permit;
use crate::app::App;
use crate::gzip::{self, Encoding, Packed};

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
    let declared = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok());
    if let Some(size) = declared.filter(|&size| size > limit) {
        return Err(too_large(&format!("{size} bytes"), limit));
    }
    let within = app.config.limits.body_timeout;
    let read = tokio::time::timeout(within, collect(app, request, limit)).await;
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
        Ok(body) => Ok((Bytes::from(body), permit)),
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
    limit: usize,
) -> Result<(Bytes, Permit), RerankError> {
    let mut permit = Permit::default();
    let mut frames: Vec<Bytes> = Vec::new();
    let mut size = 0;
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            RerankError::new(
                ErrorKind::BadRequest,
                format!("the body broke off: {error}"),
            )
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        size += data.len();
        if size > limit {
            return Err(too_large("more bytes", limit));
        }
        app.admission.admit_bytes(&mut permit, data.len())?;
        frames.push(data);
    }
    let whole = match frames.len() {
        1 => frames.remove(0),
        _ => Bytes::from(frames.concat()),
    };
    Ok((whole, permit))
}

fn too_large(size: &str, limit: usize) -> RerankError {
    RerankError::new(
        ErrorKind::TooLarge,
        format!("the body has {size}; the limit is {limit} bytes (--max-body-bytes)"),
    )
}
