//! How many of the versions that requests ask for by version are loaded at a time. Nobody is admitted
//! before, and each reads a file, maps its code and runs its `describe`.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Versions that are loaded at a time.
const AT_A_TIME: usize = 2;

/// Requests that may wait for that.
const MOST_WAITING: usize = 64;

/// The places.
pub(super) struct Loading {
    waits: Arc<Semaphore>,
    loads: Arc<Semaphore>,
}

/// Held while a version is loaded.
pub(super) struct Place {
    _waits: OwnedSemaphorePermit,
    _loads: OwnedSemaphorePermit,
}

impl Default for Loading {
    fn default() -> Self {
        Self {
            waits: Arc::new(Semaphore::new(AT_A_TIME + MOST_WAITING)),
            loads: Arc::new(Semaphore::new(AT_A_TIME)),
        }
    }
}

impl Loading {
    /// Waits for a place; `None` if too many wait already.
    pub(super) async fn place(&self) -> Option<Place> {
        let waits = Arc::clone(&self.waits).try_acquire_owned().ok()?;
        let loads = Arc::clone(&self.loads).acquire_owned().await.ok()?;
        Some(Place {
            _waits: waits,
            _loads: loads,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Asked<'a> = Pin<Box<dyn Future<Output = Option<Place>> + 'a>>;

    /// The place, or that there is none, unless it is waited for.
    fn now(asked: &mut Asked<'_>) -> Option<Option<Place>> {
        match asked.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => Some(place),
            Poll::Pending => None,
        }
    }

    #[test]
    fn few_are_loaded_at_a_time_some_wait_and_the_others_are_told_so() {
        let loading = Loading::default();
        let ask = || -> Asked<'_> { Box::pin(loading.place()) };
        let loads: Vec<Place> = (0..AT_A_TIME)
            .map(|_| now(&mut ask()).flatten().expect("it is free"))
            .collect();
        let mut waiting: Vec<_> = (0..MOST_WAITING).map(|_| ask()).collect();
        assert!(waiting.iter_mut().all(|asked| now(asked).is_none()));
        let refused = now(&mut ask()).expect("it does not wait");
        assert!(refused.is_none(), "too many wait");
        drop(loads);
        let places: Vec<Place> = waiting.iter_mut().filter_map(now).flatten().collect();
        assert_eq!(places.len(), AT_A_TIME);
        // Those who wait no longer leave their places to others.
        drop((waiting, places));
        assert!(now(&mut ask()).flatten().is_some());
    }
}
