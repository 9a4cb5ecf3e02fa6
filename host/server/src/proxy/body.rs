//! Bodies on their way through: never whole in memory, watched for standstill, and left where they are
//! by a try that sends nothing.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::upstream::root_cause;
use crate::body::{Gathered, Pace};
use crate::connections::Seat;

pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Nothing came for too long.
#[derive(Debug, thiserror::Error)]
#[error("nothing came for {0:?}")]
pub(super) struct Standstill(Duration);

/// What became of a client's body so far: when bytes moved last, and whose fault it is if none do.
#[derive(Debug)]
pub(super) struct Activity {
    moved: Mutex<Instant>,
    waits_for_client: AtomicBool,
    /// Whether the engine has got a part of the body, and not all of it.
    is_unfinished: AtomicBool,
    broken: OnceLock<String>,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            moved: Mutex::new(Instant::now()),
            waits_for_client: AtomicBool::new(false),
            is_unfinished: AtomicBool::new(false),
            broken: OnceLock::new(),
        })
    }

    fn touch(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the engine would take more than the client has sent.
    pub(super) fn waits_for_client(&self) -> bool {
        self.waits_for_client.load(Ordering::Relaxed)
    }

    /// Whether the engine was being sent a body, and had not got all of it.
    pub(super) fn is_unfinished(&self) -> bool {
        self.is_unfinished.load(Ordering::Relaxed)
    }

    /// Why no more of the client's body can be read, if that is so.
    pub(super) fn broken(&self) -> Option<String> {
        self.broken.get().cloned()
    }

    /// Notes what came of asking for the next piece of the client's body.
    fn note(&self, polled: &Poll<Option<Result<Frame<Bytes>, hyper::Error>>>) {
        let waits = polled.is_pending();
        self.waits_for_client.store(waits, Ordering::Relaxed);
        if let Poll::Ready(Some(Err(error))) = polled {
            self.broken.get_or_init(|| root_cause(error));
        }
    }

    /// Waits for `future` for as long as bytes move at least once in `idle`.
    pub(super) async fn guard<T>(
        &self,
        idle: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, Standstill> {
        tokio::pin!(future);
        loop {
            let until = self.last() + idle;
            match tokio::time::timeout_at(until.into(), future.as_mut()).await {
                Ok(output) => return Ok(output),
                Err(_) if self.last() + idle > Instant::now() => {}
                Err(_) => return Err(Standstill(idle)),
            }
        }
    }
}

/// A body that was read in part: what was read, then the rest.
pub(super) struct Resumed {
    read: VecDeque<Bytes>,
    rest: Incoming,
    activity: Arc<Activity>,
    seat: Option<Arc<Seat>>,
}

impl Resumed {
    /// A body nothing was read of has `read` empty. `seat`: of the client, which is waited for while
    /// nothing comes.
    pub(super) fn new(
        read: Vec<Bytes>,
        rest: Incoming,
        activity: Arc<Activity>,
        seat: Option<Arc<Seat>>,
    ) -> Self {
        Self {
            read: read.into(),
            rest,
            activity,
            seat,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.activity.touch();
        let polled = self.poll_data(context);
        let is_over = matches!(polled, Poll::Ready(None)) || self.is_end_stream();
        let is_unfinished = &self.activity.is_unfinished;
        is_unfinished.store(!is_over, Ordering::Relaxed);
        polled
    }

    fn poll_data(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(data) = self.read.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let polled = Pin::new(&mut self.rest).poll_frame(context);
        if let Some(seat) = &self.seat {
            seat.want_body(polled.is_pending());
        }
        self.activity.note(&polled);
        polled.map_err(BodyError::from)
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read: usize = self.read.iter().map(Bytes::len).sum();
        let read = read as u64;
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(read + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(read + upper);
        }
        hint
    }
}

impl Drop for Resumed {
    fn drop(&mut self) {
        if let Some(seat) = &self.seat {
            seat.want_body(false);
        }
    }
}

/// Where a body lies between two tries.
#[derive(Clone)]
pub(super) struct Slot(Arc<Mutex<Option<Resumed>>>);

impl Slot {
    pub(super) fn new(body: Resumed) -> Self {
        Self(Arc::new(Mutex::new(Some(body))))
    }

    /// Takes the body for one try; `None` where an earlier one has begun to send it.
    pub(super) fn lend(&self) -> Option<Outgoing> {
        let body = self.lock().take()?;
        Some(Outgoing::Streamed(Lent {
            body: Some(body),
            begun: false,
            slot: self.clone(),
        }))
    }

    /// Whether there is a body of no bytes in it.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().as_ref().is_some_and(Resumed::is_end_stream)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Resumed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body in one try. It goes back into its slot if nobody asked for a byte of it.
pub(super) struct Lent {
    body: Option<Resumed>,
    begun: bool,
    slot: Slot,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.begun {
            *self.slot.lock() = self.body.take();
        }
    }
}

/// What the engine is sent.
pub(super) enum Outgoing {
    /// All of it is here.
    Whole(Full<Bytes>),
    /// It comes from the client.
    Streamed(Lent),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context).map_err(BodyError::from),
            Self::Streamed(lent) => {
                lent.begun = true;
                match &mut lent.body {
                    Some(body) => body.poll(context),
                    None => Poll::Ready(None),
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Streamed(lent) => lent.body.as_ref().is_none_or(Resumed::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Streamed(lent) => match &lent.body {
                Some(body) => body.size_hint(),
                None => SizeHint::with_exact(0),
            },
        }
    }
}

/// An answer's body on its way to the client: it fails when the engine sends nothing for too long.
pub(super) struct Watched {
    body: Incoming,
    idle: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    pub(super) fn new(body: Incoming, idle: Duration) -> Self {
        Self {
            body,
            idle,
            alarm: None,
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.alarm = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)));
        }
        let idle = this.idle;
        let alarm = this
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        match alarm.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(Standstill(idle).into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What became of reading a body as a whole.
pub(super) enum Collected {
    /// It is whole.
    Whole(Bytes),
    /// It is larger than was allowed; what was read of it. The rest is still to come.
    TooLarge(Vec<Bytes>),
    /// There was no room for it; what was read of it. The rest is still to come.
    NoRoom(Vec<Bytes>),
}

/// Why a body was not read to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    /// It broke off.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// It came too slowly.
    #[error("{0}")]
    Slow(String),
}

/// Reads a body of at most `limit` bytes, into one piece. `room` is asked for what that takes. `pace` is
/// given where somebody is waited for who owes it.
///
/// # Errors
/// The body broke off, or is too slow.
pub(super) async fn collect(
    body: &mut Incoming,
    limit: usize,
    mut pace: Option<Pace>,
    mut room: impl FnMut(usize) -> bool,
) -> Result<Collected, Cut> {
    let expected = body.size_hint().lower();
    if expected > limit as u64 {
        return Ok(Collected::TooLarge(Vec::new()));
    }
    let mut gathered = Gathered::new(usize::try_from(expected).unwrap_or(0));
    loop {
        let next = match &mut pace {
            Some(pace) => pace.next(body).await.map_err(Cut::Slow)?,
            None => data(body).await,
        };
        let Some(data) = next.transpose()? else {
            return Ok(Collected::Whole(gathered.into_bytes()));
        };
        if gathered.len() + data.len() > limit {
            return Ok(Collected::TooLarge(vec![gathered.into_bytes(), data]));
        }
        let added = gathered.add(&data, |bytes| if room(bytes) { Ok(()) } else { Err(()) });
        if added.is_err() {
            return Ok(Collected::NoRoom(vec![gathered.into_bytes(), data]));
        }
    }
}

/// The next data of a body.
async fn data(body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
    use http_body_util::BodyExt;
    loop {
        match body.frame().await? {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Some(Ok(data));
                }
            }
            Err(error) => return Some(Err(error)),
        }
    }
}
