//! Bodies of the admin plane, whole: within their size, their time and, where they may be large, the room
//! that all of them have.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header, request};
use bytes::Bytes;

use super::{AdminError, Identity};
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

/// Reads a body that may be large. It counts as what it takes, until the permit is dropped. While room is
/// scarce it must come briskly.
///
/// # Errors
/// 413, 408, 400 for one that breaks off, and 429 where all such bodies together, or those of one token,
/// have no room.
pub(super) async fn whole(
    app: &App,
    request: Request,
    most: &Most,
) -> Result<(request::Parts, Bytes, Permit), AdminError> {
    let mut room = Permit::default();
    let holder = request.extensions().get::<Identity>().cloned();
    let (parts, bytes) = read(
        app,
        request,
        most,
        || app.upload_room.is_scarce(),
        |bytes| take_room(app, holder.as_ref(), &mut room, bytes),
    )
    .await?;
    Ok((parts, bytes, room))
}

/// Reads a body that is small. It needs no room: connections bound how many there are, and uploads must
/// not keep anybody from a rollback.
///
/// # Errors
/// 413, 408, and 400 for one that breaks off.
pub(super) async fn small(app: &App, request: Request, most: &Most) -> Result<Bytes, AdminError> {
    let (_, bytes) = read(app, request, most, || false, |_| Ok(())).await?;
    Ok(bytes)
}

async fn read(
    app: &App,
    request: Request,
    most: &Most,
    is_scarce: impl Fn() -> bool,
    mut take: impl FnMut(usize) -> Result<(), AdminError>,
) -> Result<(request::Parts, Bytes), AdminError> {
    let (parts, mut body) = request.into_parts();
    let expected = declared(&parts.headers);
    if expected > most.bytes {
        return Err(most.too_large.clone());
    }
    let awaited = AwaitedBody::of(&parts.extensions);
    let mut gathered = Gathered::new(expected);
    let mut pace = Pace::new(app);
    let reading = async {
        loop {
            let data = match pace.next_where(&mut body, &is_scarce).await {
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
            gathered.add(&data, &mut take)?;
        }
    };
    let read = tokio::time::timeout(most.time, reading).await;
    read.map_err(|_| late(format!("the body did not arrive within {:?}", most.time)))??;
    drop(awaited);
    Ok((parts, gathered.into_bytes()))
}

/// Room for more bytes of a token.
///
/// # Errors
/// 429.
pub(super) fn take_room(
    app: &App,
    holder: Option<&Identity>,
    room: &mut Permit,
    bytes: usize,
) -> Result<(), AdminError> {
    app.upload_room
        .admit(room, holder.map_or("", Identity::name), bytes)
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
