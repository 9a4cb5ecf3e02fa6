//! First pages that have the engine's own order since reranking failed: the pages behind them have it
//! too, so that no hit is shown twice or never.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rerankd_core::FailReason;

use super::cache::PagesId;

/// How long later pages follow a first one.
const LIFETIME: Duration = Duration::from_secs(60);

/// Most first pages that are remembered; beyond it the oldest are forgotten.
const MOST: usize = 20_000;

/// The first pages, and why they were not ranked.
#[derive(Default)]
pub(super) struct UnrankedPages(Mutex<Pages>);

#[derive(Default)]
struct Pages {
    by_id: HashMap<PagesId, (FailReason, Instant)>,
    /// The oldest first. Where a page was noted anew meanwhile, its earlier entries mean nothing.
    ages: VecDeque<(Instant, PagesId)>,
}

impl UnrankedPages {
    /// Notes what became of a first page: why it was not ranked, or `None` where it was.
    pub(super) fn note(&self, id: PagesId, failed: Option<FailReason>) {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        pages.forget(now);
        match failed {
            None => {
                pages.by_id.remove(&id);
            }
            Some(reason) => {
                pages.by_id.insert(id, (reason, now));
                pages.ages.push_back((now, id));
            }
        }
    }

    /// Why the first page of this search was not ranked, if that is so.
    pub(super) fn why(&self, id: &PagesId) -> Option<FailReason> {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.forget(Instant::now());
        pages.by_id.get(id).map(|&(reason, _)| reason)
    }
}

impl Pages {
    fn forget(&mut self, now: Instant) {
        while let Some(&(since, id)) = self.ages.front()
            && (now.duration_since(since) > LIFETIME || self.ages.len() > MOST)
        {
            self.ages.pop_front();
            if self
                .by_id
                .get(&id)
                .is_some_and(|&(_, noted)| noted == since)
            {
                self.by_id.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> PagesId {
        let headers = http::HeaderMap::new();
        super::super::cache::SearchId::new(&headers, "/", b"").pages(&number.to_le_bytes())
    }

    #[test]
    fn the_last_that_became_of_a_first_page_counts_and_memory_is_bounded() {
        let pages = UnrankedPages::default();
        pages.note(id(0), Some(FailReason::Deadline));
        pages.note(id(0), Some(FailReason::Overloaded));
        assert_eq!(pages.why(&id(0)), Some(FailReason::Overloaded));
        pages.note(id(0), None);
        assert_eq!(pages.why(&id(0)), None);
        for number in 0..MOST + 100 {
            pages.note(id(number), Some(FailReason::Deadline));
        }
        let kept = pages.0.lock().expect("nobody panicked");
        assert!(kept.by_id.len() <= MOST + 1 && kept.ages.len() <= MOST + 1);
    }
}
