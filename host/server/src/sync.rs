//! What requests share the state of the engine's addresses by, and how they tell time. In this crate's
//! own tests it is shuttle's, which tries the orders in which they may run (`proxy/interleaving.rs`):
//! outside of such a run these types cannot be used there.

pub(crate) use threads::*;

#[cfg(not(test))]
mod threads {
    pub(crate) use std::sync::atomic::AtomicUsize;
    pub(crate) use std::sync::{Mutex, MutexGuard};

    pub(crate) fn now() -> std::time::Instant {
        std::time::Instant::now()
    }
}

#[cfg(test)]
mod threads {
    use std::cell::Cell;
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    pub(crate) use shuttle::sync::atomic::AtomicUsize;
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};

    thread_local! {
        static SINCE_BEGINNING: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// When time begins.
    pub(crate) fn beginning() -> Instant {
        static BEGINNING: OnceLock<Instant> = OnceLock::new();
        *BEGINNING.get_or_init(Instant::now)
    }

    /// A clock that stands, but for [`pass`].
    pub(crate) fn now() -> Instant {
        beginning() + SINCE_BEGINNING.get()
    }

    /// Has time pass.
    pub(crate) fn pass(time: Duration) {
        SINCE_BEGINNING.set(SINCE_BEGINNING.get() + time);
    }
}
