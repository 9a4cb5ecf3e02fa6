//! Connections: who gets a place, how long anybody is waited for, and who goes when there is no room.
//!
//! Each plane has a [`Gate`] of its own, so that no plane starves another. A connection has a `Seat`,
//! which knows what is waited for: the client's head, its body, that it takes its answer, or nothing, as the server
//! is at work. What waits on the client ends at a time of its own (`Times`). Where a plane is full, the
//! connection that has waited on its client longest makes room; where all are at work, a reserve takes a
//! connection for one answer, which is health's, or that there is no room.

mod answers;
pub mod descriptors;
pub(crate) mod linger;
mod peers;
mod seat;
mod stream;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) use self::answers::Counted;
pub use self::peers::TrustedPeers;
use self::peers::{Peer, peer};
pub(crate) use self::seat::{AwaitedBody, Seat};
use self::seat::{End, Kind, Wait, now};
pub(crate) use self::stream::Watched;
use crate::app::App;
use crate::config::Config;

/// Connections beyond a plane's bound that are taken for one answer each.
pub(crate) const RESERVE: usize = 32;

/// The part of a plane, and of its reserve, that one peer address may have: one in so many.
const SHARE_OF_A_PEER: usize = 4;

/// Longest time for a head on a connection of the reserve.
const HEAD_IN_RESERVE: Duration = Duration::from_secs(2);

/// Who is waited for this long makes room for others where there is none, and is no running request when
/// the process goes down, unless it reads an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The same for who reads an answer when the process goes down: what it takes out of the kernel's buffers is
/// seen in steps of a megabyte or so, which a client of some hundred KB a second needs seconds for.
const PATIENCE_WITH_READERS: Duration = Duration::from_secs(5);

/// A head, or the next request, that is younger than this does not make room: it may be on its way.
const JUST_BEGUN: Duration = Duration::from_millis(50);

/// Unfinished heads that make room at a time: looking for them costs more than ending them.
const AT_A_TIME: usize = 16;

/// Connections that were told to end and have not yet: above it nobody is taken in.
const MOST_ENDING: usize = 32;

/// How long a client is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// For a TLS handshake.
    pub(crate) handshake: Duration,
    /// For a head, from its first byte, and for the first byte on a new connection.
    pub(crate) head: Duration,
    /// For the next request.
    pub(crate) idle: Duration,
    /// Without a byte of a body, or with no room for a byte of an answer.
    pub(crate) stall: Duration,
}

/// The gates of all planes.
pub struct Connections {
    /// Of the data plane.
    pub data: Arc<Gate>,
    /// Of the admin plane.
    pub admin: Arc<Gate>,
    /// Of the search proxy, where there is one.
    pub proxy: Option<Arc<Gate>>,
}

impl Connections {
    /// Nobody is connected yet.
    pub fn new(config: &Config) -> Self {
        let settings = &config.connections;
        let times = Times {
            handshake: config
                .limits
                .idle_timeout
                .min(crate::tls::HANDSHAKE_TIMEOUT),
            head: settings.head_timeout,
            idle: config.limits.idle_timeout,
            stall: settings.stall_timeout,
        };
        let gate = |name, most| {
            let trusted = settings.trusted_peers.clone();
            Arc::new(Gate::new(
                name,
                most,
                times,
                trusted,
                settings.max_answer_bytes,
            ))
        };
        Self {
            data: gate("data", settings.max_connections),
            admin: gate("admin", settings.admin_max_connections),
            proxy: config
                .proxy
                .as_ref()
                .map(|proxy| gate("proxy", proxy.max_connections)),
        }
    }

    /// All of them.
    pub(crate) fn gates(&self) -> impl Iterator<Item = &Arc<Gate>> {
        [&self.data, &self.admin].into_iter().chain(&self.proxy)
    }
}

/// The places of one plane.
pub struct Gate {
    name: &'static str,
    most: usize,
    times: Times,
    trusted: TrustedPeers,
    most_answer_bytes: usize,
    answer_bytes: AtomicUsize,
    seats: Mutex<Seats>,
    ended: [AtomicU64; End::ALL.len()],
    refused: AtomicU64,
}

/// Who is there. Who was told to end is not, but counted until it is gone.
#[derive(Default)]
struct Seats {
    next: u64,
    taken: HashMap<u64, Arc<Seat>>,
    by_kind: [usize; 2],
    by_peer: HashMap<Peer, [usize; 2]>,
    ending: usize,
}

/// A place; given back at drop.
pub(crate) struct Entered {
    gate: Arc<Gate>,
    seat: Arc<Seat>,
}

impl Entered {
    pub(crate) fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut seats = self.gate.seats();
        if seats.remove(self.seat.number).is_none() {
            seats.ending -= 1;
        }
    }
}

impl Gate {
    pub(crate) fn new(
        name: &'static str,
        most: usize,
        times: Times,
        trusted: TrustedPeers,
        most_answer_bytes: usize,
    ) -> Self {
        Self {
            name,
            most,
            times,
            trusted,
            most_answer_bytes,
            answer_bytes: AtomicUsize::new(0),
            seats: Mutex::default(),
            ended: Default::default(),
            refused: AtomicU64::new(0),
        }
    }

    /// `data`, `admin` or `proxy`.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Takes in a connection from this address: to a place of the plane, else of the reserve; `None`
    /// where its peer has more than its share of both.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Entered> {
        let peer = peer(address).filter(|_| !self.trusted.contain(address));
        let mut seats = self.seats();
        let kind = self.place(&mut seats, peer)?;
        let number = seats.next;
        seats.next += 1;
        let seat = Arc::new(Seat::new(number, kind, peer));
        seats.add(&seat);
        drop(seats);
        Some(Entered {
            gate: Arc::clone(self),
            seat,
        })
    }

    fn place(&self, seats: &mut Seats, peer: Option<Peer>) -> Option<Kind> {
        if self.has_room(seats, peer, JUST_BEGUN) {
            return Some(Kind::Plane);
        }
        let share = RESERVE / SHARE_OF_A_PEER;
        let over_share = peer.filter(|peer| seats.of_peer(peer, Kind::Reserve) >= share);
        let full = seats.by_kind[Kind::Reserve as usize] >= RESERVE;
        if over_share.is_some() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if full {
            self.make_room_in_reserve(seats);
        }
        Some(Kind::Reserve)
    }

    /// Whether the plane has a place, or somebody who was waited for longer than `youngest` made room.
    fn has_room(&self, seats: &mut Seats, peer: Option<Peer>, youngest: Duration) -> bool {
        let share = (self.most / SHARE_OF_A_PEER).max(1);
        let over_share = peer.filter(|peer| seats.of_peer(peer, Kind::Plane) >= share);
        let full = seats.by_kind[Kind::Plane as usize] >= self.most;
        over_share.is_none() && !full || self.make_room(seats, over_share, youngest)
    }

    /// Ends who is waited for longest, of `peer` where it is given: an unfinished head first, then an idle
    /// connection, then one that stands still in a body or an answer; none that is younger than
    /// `youngest`. False where all are at work.
    fn make_room(&self, seats: &mut Seats, peer: Option<Peer>, youngest: Duration) -> bool {
        let now = now();
        let mut waiting: Vec<_> = seats
            .taken
            .values()
            .filter(|seat| !seat.is_reserve() && (peer.is_none() || seat.peer == peer))
            .filter_map(|seat| {
                let (wait, waited) = seat.waits(now)?;
                let rank = rank(wait, Duration::from_millis(waited), youngest)?;
                Some((rank, Reverse(waited), seat.number))
            })
            .collect();
        let Some(&first) = waiting.iter().min() else {
            return false;
        };
        if first.0 > 0 {
            self.end(seats, first.2, End::Room);
            return true;
        }
        waiting.retain(|candidate| candidate.0 == 0);
        if waiting.len() > AT_A_TIME {
            waiting.select_nth_unstable(AT_A_TIME);
            waiting.truncate(AT_A_TIME);
        }
        for (_, _, number) in waiting {
            self.end(seats, number, End::Room);
        }
        true
    }

    /// Whether a request whose head is there has a place. One in the reserve takes that of somebody who
    /// has not sent as much, however young.
    pub(crate) fn has_place(&self, seat: &Arc<Seat>) -> bool {
        if !seat.is_reserve() {
            return true;
        }
        let mut seats = self.seats();
        if !self.has_room(&mut seats, seat.peer, Duration::ZERO) {
            return false;
        }
        if seats.remove(seat.number).is_some() {
            seat.leave_reserve();
            seats.add(seat);
        }
        true
    }

    /// The reserve's connections are for one answer each: the oldest without a head goes, else the
    /// oldest.
    fn make_room_in_reserve(&self, seats: &mut Seats) {
        let now = now();
        let reserve = seats.taken.values().filter(|seat| seat.is_reserve());
        let oldest = reserve.min_by_key(|seat| {
            let in_head = seat.waits(now).is_some_and(|(wait, _)| wait.is_head());
            (!in_head, seat.number)
        });
        if let Some(number) = oldest.map(|seat| seat.number) {
            self.end(seats, number, End::Room);
        }
    }

    /// Makes room without a new connection, where the process has run out of descriptors.
    pub(crate) fn relieve(&self) {
        self.make_room(&mut self.seats(), None, JUST_BEGUN);
    }

    /// Whether so many are ending that it is better to wait for them.
    pub(crate) fn is_behind(&self) -> bool {
        self.seats().ending > MOST_ENDING
    }

    /// Ends, for ever, what has been waited for longer than its time.
    pub(crate) async fn watch_over(self: Arc<Self>, app: Arc<App>) {
        let times = &self.times;
        let shortest = [times.handshake, times.head, times.idle, times.stall];
        let shortest = shortest.into_iter().min().unwrap_or(PATIENCE);
        let pause = (shortest / 8).clamp(Duration::from_millis(5), Duration::from_millis(250));
        loop {
            tokio::time::sleep(pause).await;
            let is_draining = app.draining.is_on();
            if self.answer_bytes.load(Ordering::Relaxed) >= self.most_answer_bytes {
                self.shed();
            }
            let now = now();
            let mut seats = self.seats();
            let due: Vec<(u64, End)> = seats
                .taken
                .values()
                .filter_map(|seat| Some((seat.number, self.due(seat, now, is_draining)?)))
                .collect();
            for (number, end) in due {
                self.end(&mut seats, number, end);
            }
        }
    }

    fn due(&self, seat: &Seat, now: u64, is_draining: bool) -> Option<End> {
        let (wait, waited) = seat.waits(now)?;
        let waited = Duration::from_millis(waited);
        let (within, end) = match wait {
            Wait::Handshake => (self.times.handshake, End::Head),
            Wait::Head if seat.is_reserve() => (self.times.head.min(HEAD_IN_RESERVE), End::Head),
            Wait::Head => (self.times.head, End::Head),
            Wait::Idle => (self.times.idle, End::Idle),
            Wait::TimedBody => (Duration::MAX, End::Body),
            Wait::Body => (self.times.stall, End::Body),
            Wait::Answer => (self.times.stall, End::Answer),
        };
        if waited >= within {
            return Some(end);
        }
        // What makes no progress is no running request.
        let patience = match wait {
            Wait::Answer => PATIENCE_WITH_READERS,
            _ => PATIENCE,
        };
        let trickles = match wait {
            Wait::TimedBody | Wait::Body => seat.sends_slowly(now),
            Wait::Answer => seat.is_slow(now),
            Wait::Handshake | Wait::Head | Wait::Idle => false,
        };
        (is_draining && (waited >= patience || trickles)).then_some(End::Draining)
    }

    fn end(&self, seats: &mut Seats, number: u64, end: End) {
        if let Some(seat) = seats.remove(number) {
            seats.ending += 1;
            self.ended[end as usize].fetch_add(1, Ordering::Relaxed);
            tracing::debug!(
                plane = self.name,
                reason = end.name(),
                "connection is ended"
            );
            seat.end(end);
        }
    }

    /// Whether answers that nobody took yet leave no room for more. Who takes nothing of its answer for a
    /// second is ended then, so that it is worth waiting a little longer than that.
    pub(crate) async fn has_no_room_for_answers(&self) -> bool {
        const TRIES: u32 = 30;
        for _ in 0..TRIES {
            if self.answer_bytes.load(Ordering::Relaxed) < self.most_answer_bytes {
                return false;
            }
            self.shed();
            tokio::time::sleep(PATIENCE / 20).await;
        }
        self.answer_bytes.load(Ordering::Relaxed) >= self.most_answer_bytes
    }

    /// Ends those that hold most, of who has taken nothing for a second or little in the last seconds,
    /// until what remains has room.
    fn shed(&self) {
        let now = now();
        let mut seats = self.seats();
        let mut stalled: Vec<(usize, u64)> = seats
            .taken
            .values()
            .filter(|seat| {
                let patience = PATIENCE.as_millis() as u64;
                matches!(seat.waits(now), Some((Wait::Answer, waited)) if waited >= patience)
                    || seat.is_slow(now)
            })
            .map(|seat| (seat.answer_bytes(), seat.number))
            .collect();
        stalled.sort_unstable_by_key(|&(bytes, _)| Reverse(bytes));
        // Who was told to end has not given back yet what it holds.
        let held: usize = seats.taken.values().map(|seat| seat.answer_bytes()).sum();
        let mut over = held.saturating_sub(self.most_answer_bytes / 2);
        for (bytes, number) in stalled {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(bytes);
            self.end(&mut seats, number, End::Answer);
        }
    }

    /// A request was told that there is no room.
    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// What is there now, and what became of those that were, for metrics.
    pub(crate) fn usage(&self) -> Usage {
        let now = now();
        let mut states = [0; Usage::STATES.len()];
        for seat in self.seats().taken.values() {
            let state = match seat.waits(now) {
                None => 0,
                Some((Wait::Handshake | Wait::Head, _)) => 1,
                Some((Wait::Idle, _)) => 2,
                Some((Wait::TimedBody | Wait::Body, _)) => 3,
                Some((Wait::Answer, _)) => 4,
            };
            states[state] += 1;
        }
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Usage {
            states,
            ended: End::ALL.map(|end| (end.name(), read(&self.ended[end as usize]))),
            refused: read(&self.refused),
            answer_bytes: self.answer_bytes.load(Ordering::Relaxed),
        }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In which order connections make room; `None` is not at all.
fn rank(wait: Wait, waited: Duration, youngest: Duration) -> Option<u8> {
    let rank = match wait {
        Wait::Handshake | Wait::Head => 0,
        Wait::Idle => 1,
        Wait::TimedBody | Wait::Body | Wait::Answer => 2,
    };
    if waited >= PATIENCE {
        Some(rank)
    } else {
        (waited >= youngest && rank < 2).then_some(rank + 3)
    }
}

/// Numbers about a plane.
pub(crate) struct Usage {
    /// Connections in each of [`STATES`](Self::STATES).
    pub(crate) states: [usize; 5],
    /// Connections that the server ended, by reason.
    pub(crate) ended: [(&'static str, u64); End::ALL.len()],
    /// Connections and requests that there was no room for.
    pub(crate) refused: u64,
    /// Bytes of answers that were not taken yet.
    pub(crate) answer_bytes: usize,
}

impl Usage {
    /// What a connection does: the server works, or the client is waited for.
    pub(crate) const STATES: [&'static str; 5] = ["busy", "head", "idle", "body", "answer"];
}

impl Seats {
    fn add(&mut self, seat: &Arc<Seat>) {
        self.by_kind[seat.kind() as usize] += 1;
        if let Some(peer) = seat.peer {
            self.by_peer.entry(peer).or_default()[seat.kind() as usize] += 1;
        }
        self.taken.insert(seat.number, Arc::clone(seat));
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Seat>> {
        let seat = self.taken.remove(&number)?;
        self.by_kind[seat.kind() as usize] -= 1;
        if let Some(peer) = seat.peer
            && let Some(counts) = self.by_peer.get_mut(&peer)
        {
            counts[seat.kind() as usize] -= 1;
            if counts.iter().all(|&count| count == 0) {
                self.by_peer.remove(&peer);
            }
        }
        Some(seat)
    }

    fn of_peer(&self, peer: &Peer, kind: Kind) -> usize {
        self.by_peer
            .get(peer)
            .map_or(0, |counts| counts[kind as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(most: usize, trusted: &str) -> Arc<Gate> {
        let second = Duration::from_secs(1);
        let times = Times {
            handshake: second,
            head: second,
            idle: second,
            stall: second,
        };
        let trusted = TrustedPeers::parse(&[trusted.to_owned()]).expect("it is a network");
        Arc::new(Gate::new("data", most, times, trusted, 1000))
    }

    fn busy(gate: &Arc<Gate>, address: &str) -> Option<Kind> {
        let entered = gate.enter(address.parse().expect("it is an address"))?;
        entered.seat().begin_request();
        let kind = entered.seat().kind();
        std::mem::forget(entered);
        Some(kind)
    }

    #[test]
    fn a_peer_has_its_share_of_plane_and_reserve_and_no_more() {
        let gate = gate(8, "10.1.0.0/16");
        let kinds: Vec<_> = (0..11).map(|_| busy(&gate, "192.0.2.1")).collect();
        let expected = [[Some(Kind::Plane); 2].as_slice(), &[Some(Kind::Reserve); 8]].concat();
        assert_eq!(kinds[..10], expected);
        assert_eq!(kinds[10], None);
        // Somebody else is not affected; addresses of one network of IPv6 are one.
        assert_eq!(busy(&gate, "192.0.2.2"), Some(Kind::Plane));
        assert_eq!(busy(&gate, "2001:db8::1"), Some(Kind::Plane));
        assert_eq!(busy(&gate, "2001:db8::2"), Some(Kind::Plane));
        assert_eq!(busy(&gate, "2001:db8::3"), Some(Kind::Reserve));
    }

    #[test]
    fn loopback_and_who_is_trusted_have_the_whole_plane() {
        for address in [
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "10.1.2.3",
            "::ffff:10.1.2.3",
        ] {
            let gate = gate(8, "10.1.0.0/16");
            for _ in 0..8 {
                assert_eq!(busy(&gate, address), Some(Kind::Plane), "{address}");
            }
            assert_eq!(busy(&gate, address), Some(Kind::Reserve), "{address}");
        }
    }

    #[test]
    fn what_was_given_back_is_counted_no_more() {
        let gate = gate(1, "10.0.0.1");
        let address = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..100 {
            let entered = gate.enter(address).expect("there is room");
            assert_eq!(entered.seat().kind(), Kind::Plane);
        }
        let seats = gate.seats();
        assert_eq!(
            (seats.taken.len(), seats.by_peer.len(), seats.ending),
            (0, 0, 0)
        );
        assert_eq!(seats.by_kind, [0, 0]);
    }
}
