//! What the calls of policies hold on the host, in bytes: one account a call, one bound for all.
//!
//! A [`Charge`] is taken before bytes are allocated, lives beside them and gives them back when it is
//! dropped. Each call may hold [`LedgerBounds::call_bytes`]. The first
//! [`LedgerBounds::reserve_bytes`] of a call are its own; what is above them is drawn from a pool, of
//! which all calls of one policy together may have as much as is left for others (Choudhury and Hahne's
//! dynamic threshold, 1998): half of it if they are alone, half of the rest beside one that has that. So
//! no number of greedy policies leaves nothing.
//!
//! Linear memory of guests is not in here: the instance pool bounds it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// How much may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerBounds {
    /// Most bytes of one call.
    pub call_bytes: usize,
    /// Bytes of one call that no other call can take.
    pub reserve_bytes: usize,
    /// Most bytes of all calls together beyond their reserves; one policy alone may have half of them.
    pub pool_bytes: usize,
    /// Calls that have a reserve; those beyond them draw all from the pool.
    pub calls: usize,
}

impl LedgerBounds {
    /// Most bytes of all calls together.
    pub fn total_bytes(&self) -> usize {
        self.calls
            .saturating_mul(self.reserve_bytes)
            .saturating_add(self.pool_bytes)
    }
}

/// Why bytes cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The call would hold more than one call may.
    #[error("the call would hold more than {limit_bytes} bytes on the host")]
    Call {
        /// How much it may hold.
        limit_bytes: usize,
    },
    /// The calls of the policy would hold more of the pool than is left for others.
    #[error(
        "the calls of this policy may hold no more on the host than is left for others, of {pool_mib} MiB"
    )]
    Pool {
        /// How much all calls together may hold beyond their reserves.
        pool_mib: usize,
    },
}

/// The bytes of all calls of one process.
#[derive(Debug)]
pub struct Ledger {
    bounds: LedgerBounds,
    /// All that is charged.
    held: AtomicUsize,
    /// What of it is beyond reserves.
    drawn: AtomicUsize,
    /// Accounts that have a reserve.
    reserves: AtomicUsize,
    /// What of the pool each policy's calls have, by its name; as long as it has calls.
    shares: Mutex<HashMap<String, Weak<AtomicUsize>>>,
    refused_call: AtomicU64,
    refused_pool: AtomicU64,
}

/// What one call holds. Clones are the same account.
#[derive(Debug, Clone)]
pub struct Account(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ledger: Arc<Ledger>,
    share: Arc<AtomicUsize>,
    /// 0, or the ledger's reserve.
    reserve: usize,
    held: AtomicUsize,
}

/// Bytes of an account, given back at drop.
#[derive(Debug)]
#[must_use = "a charge that is dropped is given back"]
pub struct Charge {
    account: Account,
    bytes: usize,
}

impl Ledger {
    /// Nothing is held at first.
    pub fn new(bounds: LedgerBounds) -> Arc<Self> {
        Arc::new(Self {
            bounds,
            held: AtomicUsize::new(0),
            drawn: AtomicUsize::new(0),
            reserves: AtomicUsize::new(0),
            shares: Mutex::default(),
            refused_call: AtomicU64::new(0),
            refused_pool: AtomicU64::new(0),
        })
    }

    /// An account for one call of the policy of this name.
    pub fn open(self: &Arc<Self>, policy: &str) -> Account {
        let has_reserve = take(&self.reserves, 1, self.bounds.calls);
        Account(Arc::new(Inner {
            ledger: Arc::clone(self),
            share: self.share_of(policy),
            reserve: if has_reserve {
                self.bounds.reserve_bytes
            } else {
                0
            },
            held: AtomicUsize::new(0),
        }))
    }

    /// How much may be held.
    pub fn bounds(&self) -> &LedgerBounds {
        &self.bounds
    }

    /// Bytes that are held now.
    pub fn held_bytes(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// How often bytes were refused, by the bound that was reached: `call` or `pool`.
    pub fn refusals(&self) -> [(&'static str, u64); 2] {
        [
            ("call", self.refused_call.load(Ordering::Relaxed)),
            ("pool", self.refused_pool.load(Ordering::Relaxed)),
        ]
    }

    fn share_of(&self, policy: &str) -> Arc<AtomicUsize> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(policy).and_then(Weak::upgrade) {
            return share;
        }
        // Names come and go with releases: those without a call are forgotten.
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::default();
        shares.insert(policy.to_owned(), Arc::downgrade(&share));
        share
    }

    fn refuse(&self, refused: Refused) -> Refused {
        let counter = match refused {
            Refused::Call { .. } => &self.refused_call,
            Refused::Pool { .. } => &self.refused_pool,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        refused
    }
}

impl Account {
    /// Takes bytes that are about to be allocated.
    ///
    /// # Errors
    /// [`Refused`]: nothing was taken then.
    pub fn charge(&self, bytes: usize) -> Result<Charge, Refused> {
        self.0.take(bytes)?;
        Ok(Charge {
            account: self.clone(),
            bytes,
        })
    }

    /// Bytes that the call holds now.
    pub fn held_bytes(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }
}

impl Inner {
    /// What of so many bytes is drawn from the pool.
    fn beyond(&self, held: usize) -> usize {
        held.saturating_sub(self.reserve)
    }

    /// Every change of `held` from one number to another moves the pool by the difference of what is
    /// beyond the reserve, so that the pool is exact whoever else charges at the same time.
    fn take(&self, bytes: usize) -> Result<(), Refused> {
        let ledger = &*self.ledger;
        let limit_bytes = ledger.bounds.call_bytes;
        let mut before = self.held.load(Ordering::Acquire);
        loop {
            let after = before
                .checked_add(bytes)
                .filter(|&after| after <= limit_bytes)
                .ok_or_else(|| ledger.refuse(Refused::Call { limit_bytes }))?;
            let more = self.beyond(after) - self.beyond(before);
            self.draw(more).map_err(|refused| ledger.refuse(refused))?;
            let swapped =
                self.held
                    .compare_exchange_weak(before, after, Ordering::AcqRel, Ordering::Acquire);
            match swapped {
                Ok(_) => break,
                Err(now) => {
                    self.put_back(more);
                    before = now;
                }
            }
        }
        ledger.held.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        let before = self.held.fetch_sub(bytes, Ordering::AcqRel);
        self.put_back(self.beyond(before) - self.beyond(before - bytes));
        self.ledger.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn draw(&self, bytes: usize) -> Result<(), Refused> {
        let pool = self.ledger.bounds.pool_bytes;
        let refused = Refused::Pool {
            pool_mib: pool >> 20,
        };
        if bytes == 0 {
            return Ok(());
        }
        if !take(&self.ledger.drawn, bytes, pool) {
            return Err(refused);
        }
        let share = self.share.fetch_add(bytes, Ordering::AcqRel) + bytes;
        if share > pool - self.ledger.drawn.load(Ordering::Acquire) {
            self.put_back(bytes);
            return Err(refused);
        }
        Ok(())
    }

    fn put_back(&self, bytes: usize) {
        if bytes > 0 {
            self.share.fetch_sub(bytes, Ordering::AcqRel);
            self.ledger.drawn.fetch_sub(bytes, Ordering::AcqRel);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.reserve > 0 {
            self.ledger.reserves.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Charge {
    /// How many bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what is more than `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        drop(self.split(self.bytes.saturating_sub(bytes)));
    }

    /// Takes at most `bytes` of it, as a charge of its own.
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self {
            account: self.account.clone(),
            bytes,
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.account.0.give_back(self.bytes);
        }
    }
}

/// Adds `amount` if it stays within `bound`.
fn take(counter: &AtomicUsize, amount: usize, bound: usize) -> bool {
    let add = |now: usize| now.checked_add(amount).filter(|&sum| sum <= bound);
    counter
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, add)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: LedgerBounds = LedgerBounds {
        call_bytes: 50,
        reserve_bytes: 10,
        pool_bytes: 100,
        calls: 4,
    };

    #[test]
    fn a_call_holds_what_it_may_and_gives_it_back() {
        let ledger = Ledger::new(BOUNDS);
        let account = ledger.open("p");
        let mut charge = account.charge(50).expect("it is within the limit");
        assert_eq!(
            account.charge(1).err(),
            Some(Refused::Call { limit_bytes: 50 })
        );
        assert_eq!(
            account.charge(usize::MAX).err(),
            Some(Refused::Call { limit_bytes: 50 })
        );
        let part = charge.split(20);
        charge.shrink_to(5);
        assert_eq!((charge.bytes(), part.bytes()), (5, 20));
        assert_eq!((account.held_bytes(), ledger.held_bytes()), (25, 25));
        assert_eq!(ledger.drawn.load(Ordering::Relaxed), 15);
        drop((charge, part));
        assert_eq!(ledger.held_bytes(), 0);
        assert_eq!(ledger.drawn.load(Ordering::Relaxed), 0);
        assert_eq!(ledger.refusals(), [("call", 2), ("pool", 0)]);
    }

    #[test]
    fn however_many_are_greedy_something_is_left_and_nobodys_reserve_is_taken() {
        let ledger = Ledger::new(BOUNDS);
        let full = Some(Refused::Pool { pool_mib: 0 });
        let greedy = [ledger.open("greedy"), ledger.open("greedy")];
        let all = greedy[0].charge(50).expect("40 of the pool");
        let rest = greedy[1]
            .charge(20)
            .expect("its reserve and 10 of the pool");
        assert_eq!(greedy[1].charge(1).err(), full, "it has half of the pool");
        let neighbour = ledger.open("neighbour");
        let its_own = neighbour.charge(35).expect("half of what is left");
        assert_eq!(neighbour.charge(1).err(), full);
        let third = ledger.open("third").charge(22).expect("half of the rest");
        assert_eq!(ledger.drawn.load(Ordering::Relaxed), 50 + 25 + 12);
        // Accounts beyond the number of calls have no reserve.
        let late = ledger.open("fourth");
        assert_eq!(late.charge(7).err(), full);
        drop(late.charge(6).expect("6 of 13"));
        // What is given back is there for all.
        drop((all, rest));
        drop(neighbour.charge(10).expect("there is room again"));
        drop((its_own, third));
        assert_eq!(ledger.held_bytes(), 0);
    }

    #[test]
    fn names_without_calls_are_forgotten() {
        let ledger = Ledger::new(BOUNDS);
        for name in 0..100 {
            drop(ledger.open(&name.to_string()));
        }
        let kept = ledger.shares.lock().expect("nobody panicked").len();
        assert_eq!(kept, 1);
        assert_eq!(ledger.reserves.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn it_is_exact_and_never_over_its_bounds_whoever_charges_at_the_same_time() {
        let ledger = Ledger::new(BOUNDS);
        let accounts: Vec<Account> = ["a", "a", "b"].map(|name| ledger.open(name)).into();
        std::thread::scope(|scope| {
            for thread in 0..6_usize {
                let (ledger, account) = (&ledger, &accounts[thread % 3]);
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for round in 0..20_000_usize {
                        kept.extend(account.charge((round * 7 + thread) % 23).ok());
                        assert!(account.held_bytes() <= 50);
                        assert!(ledger.drawn.load(Ordering::Relaxed) <= 100);
                        if kept.len() > round % 5 {
                            drop(kept.remove(0));
                        }
                    }
                });
            }
        });
        assert_eq!(ledger.held_bytes(), 0);
        assert_eq!(ledger.drawn.load(Ordering::Relaxed), 0);
        assert!(ledger.refusals().iter().any(|(_, count)| *count > 0));
    }
}
