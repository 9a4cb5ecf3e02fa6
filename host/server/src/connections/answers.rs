//! Answers on their way out: what the client has not taken is counted, to the byte, until it has.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::{Gate, Seat};

/// An answer's body whose bytes count until they were written.
pub(crate) struct Counted {
    body: Body,
    gate: Arc<Gate>,
    seat: Arc<Seat>,
}

impl Counted {
    pub(crate) fn new(body: Body, gate: Arc<Gate>, seat: Arc<Seat>) -> Self {
        Self { body, gate, seat }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.seat.answered();
    }
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        polled.map_ok(|frame| {
            frame.map_data(|data| Waiting::count(data, Arc::clone(&self.gate), &self.seat))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes that wait to be written. They go when the last part of them was.
struct Waiting {
    data: Bytes,
    gate: Arc<Gate>,
    seat: Arc<Seat>,
}

impl Waiting {
    fn count(data: Bytes, gate: Arc<Gate>, seat: &Arc<Seat>) -> Bytes {
        gate.answer_bytes.fetch_add(data.len(), Ordering::Relaxed);
        seat.add_answer_bytes(data.len());
        Bytes::from_owner(Self {
            data,
            gate,
            seat: Arc::clone(seat),
        })
    }
}

impl AsRef<[u8]> for Waiting {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let bytes = self.data.len();
        self.gate.answer_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.seat.sub_answer_bytes(bytes);
    }
}
