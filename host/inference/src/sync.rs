//! What the queue, its workers and those who wait for them share state by, and how they tell time.
//!
//! In this crate's own tests it is shuttle's, which tries the orders in which threads may run
//! (`interleaving.rs`): outside of such a run these types cannot be used there.

pub(crate) use threads::*;

#[cfg(not(test))]
mod threads {
    use std::time::Instant;

    pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize};
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::thread;

    pub(crate) fn now() -> Instant {
        Instant::now()
    }

    pub(crate) fn sleep_until(at: Instant) -> tokio::time::Sleep {
        tokio::time::sleep_until(at.into())
    }

    pub(crate) fn timeout_at<F: Future>(at: Instant, future: F) -> tokio::time::Timeout<F> {
        tokio::time::timeout_at(at.into(), future)
    }
}

#[cfg(test)]
mod threads {
    use std::cell::Cell;
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicUsize};
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use shuttle::thread;

    thread_local! {
        /// Looks at the clock in this run: each moves it by a millisecond.
        static LOOKS: Cell<u32> = const { Cell::new(0) };
    }

    /// When all runs begin.
    pub(crate) fn beginning() -> Instant {
        static BEGINNING: OnceLock<Instant> = OnceLock::new();
        *BEGINNING.get_or_init(Instant::now)
    }

    /// Begins a run.
    pub(crate) fn reset_clock() {
        LOOKS.set(0);
    }

    pub(crate) fn now() -> Instant {
        LOOKS.set(LOOKS.get() + 1);
        beginning() + Duration::from_millis(LOOKS.get().into())
    }

    /// Never ends for what is an hour or more away.
    pub(crate) async fn sleep_until(at: Instant) {
        if at >= beginning() + Duration::from_secs(3600) {
            return std::future::pending().await;
        }
        while now() < at {
            shuttle::future::yield_now().await;
        }
    }

    pub(crate) async fn timeout_at<F: Future>(at: Instant, future: F) -> Result<F::Output, ()> {
        tokio::select! {
            biased;
            output = future => Ok(output),
            () = sleep_until(at) => Err(()),
        }
    }
}
