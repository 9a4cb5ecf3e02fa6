//! What is left of a request that was answered before all of it was there.
//!
//! Most clients send a whole body before they look for an answer. Where the connection closes under them, the
//! system throws away the answer together with what was not read: they see a reset, and not what was wrong.
//! So the rest is read and forgotten, for a bounded time and amount.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, timeout, timeout_at};

/// Most that is read on, bytes.
const MOST_BYTES: u64 = 128 << 20;

/// Longest time of reading on.
const MOST_TIME: Duration = Duration::from_secs(5);

/// Longest time on a connection that is there for one answer.
const MOST_TIME_IN_RESERVE: Duration = Duration::from_secs(1);

/// Longest time between two parts.
const MOST_GAP: Duration = Duration::from_secs(2);

/// A request's body whose rest comes back when it is dropped.
pub(crate) struct Lent {
    body: Option<Incoming>,
    has_ended: bool,
    rest: Rest,
}

/// The rest of a body, if there is one.
#[derive(Clone, Default)]
pub(crate) struct Rest(Arc<Mutex<Option<Incoming>>>);

/// Lends the body of a request to whoever answers it.
pub(crate) fn lend(request: http::Request<Incoming>) -> (http::Request<Lent>, Rest) {
    let rest = Rest::default();
    let lent = request.map(|body| Lent {
        body: Some(body),
        has_ended: false,
        rest: rest.clone(),
    });
    (lent, rest)
}

impl Rest {
    /// Reads on behind the answer to a request with these headers.
    pub(crate) fn read_on(self, request: &HeaderMap, answer: &mut Response) {
        let rest = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(body) = rest {
            read_on(body, request, answer, false);
        }
    }
}

/// The same for a body that nobody has begun to read.
pub(crate) fn read_on(
    body: Incoming,
    request: &HeaderMap,
    answer: &mut Response,
    in_reserve: bool,
) {
    // Who asked whether to send it is told by the answer.
    if body.is_end_stream() || request.contains_key(header::EXPECT) {
        return;
    }
    if body
        .size_hint()
        .exact()
        .is_some_and(|bytes| bytes > MOST_BYTES)
    {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
    let most_time = match in_reserve {
        true => MOST_TIME_IN_RESERVE,
        false => MOST_TIME,
    };
    tokio::spawn(discard(body, Instant::now() + most_time));
}

/// Ends early where the connection does.
async fn discard(mut body: Incoming, until: Instant) {
    let mut came = 0;
    while came <= MOST_BYTES {
        match timeout_at(until, timeout(MOST_GAP, body.frame())).await {
            Ok(Ok(Some(Ok(frame)))) => came += frame.data_ref().map_or(0, |data| data.len() as u64),
            _ => return,
        }
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(context);
        self.has_ended |= matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::default, Incoming::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let rest = self
            .body
            .take()
            .filter(|body| !self.has_ended && !body.is_end_stream());
        if let Some(rest) = rest {
            *self.rest.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
        }
    }
}
