//! CPU time of one call: what the thread that polls it computes, for the guest and for the host's own
//! work on its behalf. Time in which the call waits, for its rows or for a thread, is not in it.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::error::Fault;

/// The CPU budget of one call.
///
/// It is read at every epoch, at every call of the host and at the end of every poll. What lies between
/// two readings is at most one epoch of wasm, one bulk instruction on the guest's largest memory, or one
/// host call: so far a call can get beyond its budget.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    limit: Duration,
    /// Charged so far, nanoseconds. Only the thread that polls the call writes here.
    used: AtomicU64,
    /// The thread's clock at the last reading, nanoseconds.
    read_at: AtomicU64,
}

impl CpuMeter {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            used: AtomicU64::new(0),
            read_at: AtomicU64::new(thread_time()),
        }
    }

    /// What was charged so far.
    pub(crate) fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Ordering::Relaxed))
    }

    /// Charges what this thread has computed since the last reading. To be called inside of
    /// [`metered`](Self::metered).
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(crate) fn charge(&self) -> Result<(), Fault> {
        let now = thread_time();
        let ran = now.saturating_sub(self.read_at.swap(now, Ordering::Relaxed));
        self.used.fetch_add(ran, Ordering::Relaxed);
        self.check()
    }

    /// Whether what was charged is within the budget.
    ///
    /// # Errors
    /// [`Fault::CpuTime`] if it is not.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if self.used() <= self.limit {
            return Ok(());
        }
        let limit_ms = u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX);
        Err(Fault::CpuTime { limit_ms })
    }

    /// Runs a future and charges what its polls compute.
    ///
    /// # Errors
    /// [`Fault::CpuTime`] if the budget is spent before the future is ready; it is dropped then.
    pub(crate) async fn metered<F: Future>(&self, future: F) -> Result<F::Output, Fault> {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            self.read_at.store(thread_time(), Ordering::Relaxed);
            let polled = future.as_mut().poll(context);
            match (polled, self.charge()) {
                // Whether it came within the budget is asked, by `check`, where it is known what it is.
                (Poll::Ready(output), _) => Poll::Ready(Ok(output)),
                (Poll::Pending, Ok(())) => Poll::Pending,
                (Poll::Pending, Err(fault)) => Poll::Ready(Err(fault)),
            }
        })
        .await
    }
}

/// What the calling thread has computed since it began, nanoseconds.
fn thread_time() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanoseconds) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    fn compute(for_at_least: Duration) {
        let until = thread_time() + u64::try_from(for_at_least.as_nanos()).unwrap_or(u64::MAX);
        while thread_time() < until {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn waiting_is_not_charged_and_computing_is() {
        let meter = CpuMeter::new(Duration::from_secs(1));
        let waited = block_on(meter.metered(async {
            tokio::time::sleep(Duration::from_millis(60)).await;
            compute(Duration::from_millis(20));
            tokio::task::yield_now().await;
            compute(Duration::from_millis(20));
        }));
        assert_eq!(waited, Ok(()));
        let used = meter.used();
        assert!(used >= Duration::from_millis(40), "{used:?}");
        assert!(used < Duration::from_millis(60), "{used:?}");
    }

    #[test]
    fn a_poll_that_goes_beyond_the_budget_is_the_last() {
        let meter = CpuMeter::new(Duration::from_millis(10));
        let mut polls = 0;
        let result = block_on(meter.metered(async {
            loop {
                polls += 1;
                compute(Duration::from_millis(6));
                tokio::task::yield_now().await;
            }
            #[allow(unreachable_code)]
            ()
        }));
        assert_eq!(result, Err(Fault::CpuTime { limit_ms: 10 }));
        assert_eq!(polls, 2);
    }

    #[test]
    fn one_host_call_that_takes_long_is_charged_in_full() {
        let meter = CpuMeter::new(Duration::from_millis(10));
        let charged = block_on(meter.metered(async {
            compute(Duration::from_millis(15));
            meter.charge()
        }));
        assert_eq!(charged, Ok(Err(Fault::CpuTime { limit_ms: 10 })));
    }
}
