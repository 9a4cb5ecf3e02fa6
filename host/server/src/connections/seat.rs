//! One connection, as seen from outside of it: what is waited for, and since when.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::peers::Peer;

/// Milliseconds since the process looked first; never 0.
pub(super) fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_millis() as u64 + 1
}

/// What a client must take of its answer while there is no room for other answers, and send of its body
/// while the process goes down, bytes a second.
const BRISK: usize = 64 << 10;

/// The time over which that is measured, milliseconds.
const WINDOW: u64 = 5000;

/// Whose place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One of the plane's own.
    Plane = 0,
    /// One for a single answer.
    Reserve = 1,
}

/// What a connection does with a client that keeps to its turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Handshake = 0,
    Head = 1,
    Busy = 2,
    Idle = 3,
}

/// What the client is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Its TLS handshake.
    Handshake,
    /// The rest of a head, or the first byte ever.
    Head,
    /// The next request.
    Idle,
    /// More of a body, which whoever reads it has a time for.
    TimedBody,
    /// More of a body.
    Body,
    /// That it takes more of its answer.
    Answer,
}

impl Wait {
    pub(super) fn is_head(self) -> bool {
        matches!(self, Self::Handshake | Self::Head)
    }
}

/// Why a connection was ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// No head in time.
    Head = 0,
    /// No next request in time.
    Idle = 1,
    /// Nothing more of a body.
    Body = 2,
    /// Nothing more taken of an answer.
    Answer = 3,
    /// Another needed the place.
    Room = 4,
    /// The process goes down.
    Draining = 5,
}

impl End {
    pub(super) const ALL: [Self; 6] = [
        Self::Head,
        Self::Idle,
        Self::Body,
        Self::Answer,
        Self::Room,
        Self::Draining,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Idle => "idle",
            Self::Body => "body",
            Self::Answer => "answer",
            Self::Room => "room",
            Self::Draining => "draining",
        }
    }
}

/// The state of one connection. Times are those of [`now`]; 0 is "not".
pub(crate) struct Seat {
    pub(super) number: u64,
    is_reserve: AtomicBool,
    pub(super) peer: Option<Peer>,
    phase: AtomicU8,
    since: AtomicU64,
    read_at: AtomicU64,
    /// Since when there is no room for what is written.
    blocked_since: AtomicU64,
    /// Since when more of a body is wanted.
    body_wanted_since: AtomicU64,
    body_is_timed: AtomicBool,
    answer_bytes: AtomicUsize,
    taking: Mutex<Pace>,
    sending: Mutex<Pace>,
    ended_for_answer: AtomicBool,
    ended: Notify,
}

impl Seat {
    pub(super) fn new(number: u64, kind: Kind, peer: Option<Peer>) -> Self {
        Self {
            number,
            is_reserve: AtomicBool::new(kind == Kind::Reserve),
            peer,
            phase: AtomicU8::new(Phase::Head as u8),
            since: AtomicU64::new(now()),
            read_at: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            body_wanted_since: AtomicU64::new(0),
            body_is_timed: AtomicBool::new(false),
            answer_bytes: AtomicUsize::new(0),
            taking: Mutex::new(Pace::from(now())),
            sending: Mutex::new(Pace::from(now())),
            ended_for_answer: AtomicBool::new(false),
            ended: Notify::new(),
        }
    }

    /// Whether it is there for one answer alone.
    pub(crate) fn is_reserve(&self) -> bool {
        self.is_reserve.load(Ordering::Relaxed)
    }

    pub(super) fn kind(&self) -> Kind {
        match self.is_reserve() {
            true => Kind::Reserve,
            false => Kind::Plane,
        }
    }

    pub(super) fn leave_reserve(&self) {
        self.is_reserve.store(false, Ordering::Relaxed);
    }

    /// What the client is waited for, and for how long, milliseconds; `None` while the server is at
    /// work.
    pub(super) fn waits(&self, now: u64) -> Option<(Wait, u64)> {
        let read = |time: &AtomicU64| time.load(Ordering::Relaxed);
        let blocked = read(&self.blocked_since);
        let (wait, since) = if blocked > 0 {
            (Wait::Answer, blocked)
        } else if self.is(Phase::Handshake) {
            (Wait::Handshake, read(&self.since))
        } else if self.is(Phase::Head) {
            (Wait::Head, read(&self.since))
        } else if self.is(Phase::Idle) {
            (Wait::Idle, read(&self.since))
        } else {
            match read(&self.body_wanted_since) {
                0 => return None,
                wanted => {
                    let wait = match self.body_is_timed.load(Ordering::Relaxed) {
                        true => Wait::TimedBody,
                        false => Wait::Body,
                    };
                    (wait, wanted.max(read(&self.read_at)))
                }
            }
        };
        Some((wait, now.saturating_sub(since)))
    }

    pub(crate) fn begin_handshake(&self) {
        self.set(Phase::Handshake);
    }

    pub(crate) fn begin_head(&self) {
        self.set(Phase::Head);
    }

    pub(crate) fn begin_request(&self) {
        *self.sending() = Pace::from(now());
        self.set(Phase::Busy);
    }

    /// The answer is with the connection, all of it; what of it was not taken is known from writing.
    pub(super) fn answered(&self) {
        self.set(Phase::Idle);
    }

    /// Bytes came.
    pub(super) fn read(&self, bytes: usize) {
        let now = now();
        self.read_at.store(now, Ordering::Relaxed);
        if self.is(Phase::Busy) {
            self.sending().moved(bytes, now);
        }
        if self.is(Phase::Idle) {
            self.set(Phase::Head);
        }
    }

    /// Whether less of the request came than [`BRISK`] in the last window.
    pub(super) fn sends_slowly(&self, now: u64) -> bool {
        self.sending().is_slow(now)
    }

    fn sending(&self) -> MutexGuard<'_, Pace> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is no room for a byte of what is written.
    pub(super) fn blocked(&self) {
        if !self.is_blocked() {
            self.blocked_since.store(now(), Ordering::Relaxed);
        }
    }

    /// Bytes went.
    pub(super) fn wrote(&self, bytes: usize) {
        if self.answer_bytes() > 0 {
            self.taking().moved(bytes, now());
        }
    }

    /// There is room again.
    pub(super) fn unblocked(&self) {
        if self.is_blocked() {
            self.blocked_since.store(0, Ordering::Relaxed);
        }
    }

    fn is_blocked(&self) -> bool {
        self.blocked_since.load(Ordering::Relaxed) > 0
    }

    /// More of a body is wanted, or no more.
    pub(crate) fn want_body(&self, wanted: bool) {
        let is_wanted = self.body_wanted_since.load(Ordering::Relaxed) > 0;
        if wanted != is_wanted {
            let since = if wanted { now() } else { 0 };
            self.body_wanted_since.store(since, Ordering::Relaxed);
        }
    }

    pub(super) fn answer_bytes(&self) -> usize {
        self.answer_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn add_answer_bytes(&self, bytes: usize) {
        if self.answer_bytes.fetch_add(bytes, Ordering::Relaxed) == 0 {
            *self.taking() = Pace::from(now());
        }
    }

    /// Whether something of an answer is there for the client, and it takes that slower than
    /// [`BRISK`].
    pub(super) fn is_slow(&self, now: u64) -> bool {
        self.answer_bytes() > 0 && self.taking().is_slow(now)
    }

    fn taking(&self) -> MutexGuard<'_, Pace> {
        self.taking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sub_answer_bytes(&self, bytes: usize) {
        self.answer_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn end(&self, end: End) {
        let of_answer = end == End::Answer || self.is_blocked();
        self.ended_for_answer.store(of_answer, Ordering::Relaxed);
        self.ended.notify_one();
    }

    /// Waits until the connection must end.
    pub(crate) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Whether it ended as its client takes nothing: what the system still holds for it can go.
    pub(super) fn leaves_nothing(&self) -> bool {
        self.ended_for_answer.load(Ordering::Relaxed)
    }

    fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }

    fn set(&self, phase: Phase) {
        self.since.store(now(), Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }
}

/// How fast a client takes what is there for it, or sends what is wanted of it, over the last window.
#[derive(Debug)]
struct Pace {
    since: u64,
    bytes: usize,
    /// What the window before said.
    was_slow: bool,
}

impl Pace {
    /// Nothing is known at first, and so nobody slow.
    fn from(now: u64) -> Self {
        Self {
            since: now,
            bytes: 0,
            was_slow: false,
        }
    }

    fn moved(&mut self, bytes: usize, now: u64) {
        self.turn(now);
        self.bytes += bytes;
    }

    fn is_slow(&mut self, now: u64) -> bool {
        self.turn(now);
        self.was_slow
    }

    fn turn(&mut self, now: u64) {
        let window = now.saturating_sub(self.since);
        if window >= WINDOW {
            let brisk = u128::from(window) * BRISK as u128 / 1000;
            *self = Self {
                was_slow: (self.bytes as u128) < brisk,
                ..Self::from(now)
            };
        }
    }
}

/// While it lives, a body is wanted, by somebody who has a time for it.
pub(crate) struct AwaitedBody(Option<Arc<Seat>>);

impl AwaitedBody {
    /// Of the connection that a request came on, if it came on one.
    pub(crate) fn of(extensions: &http::Extensions) -> Self {
        let seat = extensions.get::<Arc<Seat>>().cloned();
        if let Some(seat) = &seat {
            seat.body_is_timed.store(true, Ordering::Relaxed);
            seat.want_body(true);
        }
        Self(seat)
    }
}

impl Drop for AwaitedBody {
    fn drop(&mut self) {
        if let Some(seat) = &self.0 {
            seat.want_body(false);
            seat.body_is_timed.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_moves_little_is_slow_and_who_moves_enough_is_not() {
        for (bytes, slow) in [
            (0, true),
            (BRISK / 2, true),
            (2 * BRISK, false),
            (4 * BRISK, false),
        ] {
            let mut pace = Pace::from(1);
            assert!(!pace.is_slow(WINDOW), "nobody is before a window is over");
            // From second to second, for two windows.
            for second in 1..=10 {
                pace.moved(bytes, 1000 * second);
            }
            assert_eq!(pace.is_slow(2 * WINDOW + 1), slow, "{bytes} bytes a second");
        }
    }

    #[test]
    fn who_was_slow_and_is_not_any_more_is_not() {
        let mut pace = Pace::from(1);
        assert!(pace.is_slow(WINDOW + 1));
        pace.moved(10 * BRISK, WINDOW + 2);
        assert!(pace.is_slow(WINDOW + 2), "the window goes on");
        assert!(!pace.is_slow(2 * WINDOW + 1));
    }
}
