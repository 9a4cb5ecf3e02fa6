//! Bodies of the admin plane, whole: within their size, their time and the room that all of them have.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header, request};
use bytes::Bytes;

use super::AdminError;
use crate::admission::Permit;
use crate::app::App;
use crate::body::{Gathered, Pace, declared};
use crate::connections::AwaitedBody;

/// What a body may be.
pub(super) struct Most {
    /// Its size.
    pub(super) bytes: usize,
    /// The time in which it must be there.
    pub(super) time: Duration,
    /// What is said if it is larger.
    pub(super) too_large: AdminError,
}

/// Reads a body. It counts as what it takes, until the permit is dropped.
///
/// # Errors
/// 413, 408, 400 for one that breaks off, and 429 where all bodies together have no room.
pub(super) async fn whole(
    app: &App,
    request: Request,
    most: &Most,
) -> Result<(request::Parts, Bytes, Permit), AdminError> {
    let (parts, mut body) = request.into_parts();
    let expected = declared(&parts.headers);
    if expected > most.bytes {
        return Err(most.too_large.clone());
    }
    let awaited = AwaitedBody::of(&parts.extensions);
    let mut room = Permit::default();
    let mut gathered = Gathered::new(expected);
    let mut pace = Pace::new(app);
    let reading = async {
        loop {
            let data = match pace.next(&mut body).await {
                Ok(Some(Ok(data))) => data,
                Ok(None) => return Ok(()),
                Ok(Some(Err(error))) => {
                    return Err(AdminError::bad_request(format!("the body: {error}")));
                }
                Err(problem) => return Err(late(problem)),
            };
            if gathered.len() + data.len() > most.bytes {
                return Err(most.too_large.clone());
            }
            gathered.add(&data, |bytes| take_room(app, &mut room, bytes))?;
        }
    };
    let read = tokio::time::timeout(most.time, reading).await;
    read.map_err(|_| late(format!("the body did not arrive within {:?}", most.time)))??;
    drop(awaited);
    Ok((parts, gathered.into_bytes(), room))
}

/// Room for more bytes.
///
/// # Errors
/// 429.
pub(super) fn take_room(app: &App, room: &mut Permit, bytes: usize) -> Result<(), AdminError> {
    app.upload_room
        .admit(room, bytes)
        .ok_or_else(too_many_uploads)
}

/// 429.
pub(super) fn too_many_uploads() -> AdminError {
    AdminError::new(
        StatusCode::TOO_MANY_REQUESTS,
        "busy",
        "other uploads are under way; try again when they are done",
    )
    .with_header(header::RETRY_AFTER, HeaderValue::from_static("5"))
}

fn late(problem: String) -> AdminError {
    AdminError::new(StatusCode::REQUEST_TIMEOUT, "timeout", problem)
}
