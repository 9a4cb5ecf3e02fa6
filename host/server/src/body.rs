//! Reads request bodies within the limits of size, time, and bytes in flight.

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::header;
use http_body_util::BodyExt;
use rerankd_core::{ErrorKind, RerankError};

use crate::admission::Permit;
use crate::app::App;

/// Reads a whole body. Bytes count as in flight once they are there: what a client announces takes
/// no room from others. They do until the permit is dropped.
///
/// # Errors
/// `UnsupportedMediaType` for a compressed body, `TooLarge`, `RequestTimeout`, `Overloaded`, and
/// `BadRequest` for one that breaks off.
pub(crate) async fn read(app: &App, request: Request) -> Result<(Bytes, Permit), RerankError> {
    let limit = app.config.limits.max_body_bytes;
    if let Some(encoding) = request.headers().get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        return Err(RerankError::new(
            ErrorKind::UnsupportedMediaType,
            "the body must not be compressed (`Content-Encoding`)",
        ));
    }
    let declared = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok());
    if let Some(size) = declared.filter(|&size| size > limit) {
        return Err(too_large(&format!("{size} bytes"), limit));
    }
    let within = app.config.limits.body_timeout;
    match tokio::time::timeout(within, collect(app, request, limit)).await {
        Ok(read) => read,
        Err(_) => Err(RerankError::new(
            ErrorKind::RequestTimeout,
            format!("the body did not arrive within {within:?}"),
        )),
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
