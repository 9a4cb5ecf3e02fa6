//! Which addresses of the engine are well, and in which order a request tries them.
//!
//! An address that fails is left alone for a pause, twice as long after each further failure. When the
//! pause is over, one request tries it first, whichever address has its turn, and the others wait for
//! what comes of that, for the first pause at most: a request that takes long keeps nobody from another
//! try. A request that may be done twice and has all of its body is the one, as it loses nothing and
//! tells soon; any other is it only where the address has its turn, so that an address without better
//! requests comes back as well.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::sync::{AtomicUsize, Mutex, MutexGuard, now};

/// How long an address is left alone after its first failure, and after a try that told nothing.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest of the pauses.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The addresses.
pub(super) struct Nodes {
    health: Box<[Mutex<Health>]>,
    next: AtomicUsize,
}

#[derive(Debug, Clone, Copy)]
enum Health {
    Well,
    /// It failed so often in a row, and is asked only if no other is left.
    Out {
        failures: u32,
        until: Instant,
    },
    /// One request tries whether it is well again, and another may from `until` on.
    Tried {
        failures: u32,
        until: Instant,
    },
}

/// An address in the order of one request, which says what came of it.
pub(super) struct Turn<'n> {
    nodes: &'n Nodes,
    node: usize,
    /// Whether the address is out, and this request the one that tries it.
    tries: bool,
}

impl Nodes {
    /// `count` addresses, of which nothing bad is known.
    pub(super) fn new(count: usize) -> Self {
        Self {
            health: (0..count).map(|_| Mutex::new(Health::Well)).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// All addresses in the order in which to try them: one that is to be tried again, then those
    /// that are well, each request beginning with another, then the others. `is_good_try`: the request
    /// may be done twice, and waits for nothing more of its client.
    pub(super) fn order(&self, now: Instant, is_good_try: bool) -> Vec<Turn<'_>> {
        let count = self.health.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed) % count;
        let (mut again, mut well, mut out) = (None, Vec::with_capacity(count), Vec::new());
        for place in 0..count {
            let node = (first + place) % count;
            let mut health = self.lock(node);
            match *health {
                Health::Well => well.push(self.turn(node, false)),
                Health::Out { failures, until } | Health::Tried { failures, until }
                    if until <= now && again.is_none() && (is_good_try || place == 0) =>
                {
                    *health = Health::Tried {
                        failures,
                        until: now + FIRST_PAUSE,
                    };
                    again = Some(self.turn(node, true));
                }
                Health::Out { .. } | Health::Tried { .. } => out.push(self.turn(node, false)),
            }
        }
        again.into_iter().chain(well).chain(out).collect()
    }

    fn turn(&self, node: usize, tries: bool) -> Turn<'_> {
        Turn {
            nodes: self,
            node,
            tries,
        }
    }

    fn lock(&self, node: usize) -> MutexGuard<'_, Health> {
        let health = self.health[node].lock();
        health.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Which address it is, from 0.
    pub(super) fn node(&self) -> usize {
        self.node
    }

    /// Whether this request sees whether the address is well again.
    #[cfg(test)]
    pub(super) fn tries(&self) -> bool {
        self.tries
    }

    /// The address answered; says whether it was out before.
    pub(super) fn well(mut self) -> bool {
        self.tries = false;
        let before = std::mem::replace(&mut *self.nodes.lock(self.node), Health::Well);
        !matches!(before, Health::Well)
    }

    /// The address failed at `now`. Requests that were under way when it did count as one failure.
    pub(super) fn failed(mut self, now: Instant) {
        let mut health = self.nodes.lock(self.node);
        let failures = match *health {
            Health::Well => 0,
            Health::Out { failures, until } if until <= now => failures,
            Health::Tried { failures, .. } if self.tries => failures,
            Health::Out { .. } | Health::Tried { .. } => return,
        };
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(failures.min(16));
        *health = Health::Out {
            failures: failures.saturating_add(1),
            until: now + pause.min(LONGEST_PAUSE),
        };
        drop(health);
        self.tries = false;
    }
}

impl Drop for Turn<'_> {
    /// A try of which nothing came, as the client was gone before: another request shall see.
    fn drop(&mut self) {
        if !self.tries {
            return;
        }
        let mut health = self.nodes.lock(self.node);
        if let Health::Tried { failures, .. } = *health {
            *health = Health::Out {
                failures,
                until: now() + FIRST_PAUSE,
            };
        }
    }
}
