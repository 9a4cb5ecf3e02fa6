//! Whether a request would be done in time, reckoned before any of it is done.
//!
//! Admitted requests share the workers evenly (`rerankd_inference::scheduler`). While more come than the
//! machine can do, taking them all would make all of them late: nobody would get an answer. So a
//! request comes in only if the share that is left for it is enough.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Weight of one request in the smoothed pace: one part in so many.
const SMOOTHING: u64 = 8;

/// What requests take, by who ranks them.
#[derive(Debug, Default)]
pub(super) struct Paces(Mutex<HashMap<String, Arc<Pace>>>);

/// Worker time of one estimated token, picoseconds; 0 while nothing is known. A policy without a model
/// takes next to nothing, and so does one whose rows are remembered.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU64);

impl Paces {
    /// That of a version of a policy, or of a model, by its digest.
    pub(super) fn of(&self, ranker: &str) -> Arc<Pace> {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = paces.get(ranker) {
            return Arc::clone(pace);
        }
        let pace = Arc::<Pace>::default();
        paces.insert(ranker.to_owned(), Arc::clone(&pace));
        pace
    }
}

impl Pace {
    /// Worker time that so many estimated tokens will take.
    pub(super) fn expect(&self, tokens: usize) -> Duration {
        let picoseconds = self.0.load(Ordering::Relaxed).saturating_mul(tokens as u64);
        Duration::from_nanos(picoseconds / 1000)
    }

    /// Notes what a request took.
    pub(super) fn learn(&self, tokens: usize, worked: Duration) {
        let nanoseconds = u64::try_from(worked.as_nanos()).unwrap_or(u64::MAX / 1000);
        let sample = nanoseconds.saturating_mul(1000) / (tokens.max(1) as u64);
        let before = self.0.load(Ordering::Relaxed);
        let after = match before {
            0 => sample,
            // Losing an update to a race costs nothing.
            _ => before - before / SMOOTHING + sample / SMOOTHING,
        };
        self.0.store(after.max(1), Ordering::Relaxed);
    }
}

/// What is in already.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Worker time of all admitted requests.
    pub(super) work: Duration,
    /// How many they are.
    pub(super) requests: usize,
    /// Workers that share it.
    pub(super) workers: usize,
}

impl Load {
    /// How long a request of so much worker time takes alone, and beside the others.
    ///
    /// While it runs each other request takes as much as it does, and the next one takes the place of
    /// one that ends; but all of them together no more than they have.
    pub(super) fn forecast(self, own: Duration) -> (Duration, Duration) {
        let workers = u32::try_from(self.workers.max(1)).unwrap_or(u32::MAX);
        let others = u32::try_from(self.requests).unwrap_or(u32::MAX);
        let shared = own.saturating_mul(others).min(self.work);
        (own / workers, (own + shared) / workers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn equal_requests_share_evenly() {
        let load = Load {
            work: 500 * MS,
            requests: 5,
            workers: 2,
        };
        assert_eq!(load.forecast(100 * MS), (50 * MS, 300 * MS));
    }

    #[test]
    fn a_small_request_does_not_wait_for_a_large_one() {
        let load = Load {
            work: 10_000 * MS,
            requests: 1,
            workers: 1,
        };
        assert_eq!(load.forecast(10 * MS), (10 * MS, 20 * MS));
    }

    #[test]
    fn a_large_request_waits_for_small_ones_no_longer_than_they_are() {
        let load = Load {
            work: 50 * MS,
            requests: 10,
            workers: 1,
        };
        assert_eq!(load.forecast(1000 * MS), (1000 * MS, 1050 * MS));
    }

    #[test]
    fn the_pace_follows_what_requests_take() {
        let pace = Pace::default();
        assert_eq!(pace.expect(1000), Duration::ZERO);
        pace.learn(1000, 20 * MS);
        assert_eq!(pace.expect(500), 10 * MS);
        for _ in 0..100 {
            pace.learn(1000, 2 * MS);
        }
        let now = pace.expect(1000);
        assert!(now < 3 * MS, "{now:?}");
    }
}
