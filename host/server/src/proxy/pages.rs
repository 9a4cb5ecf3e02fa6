//! What the pages of a search take over from its first one, so that no hit is shown twice or never: the
//! engine's own order, where reranking failed, and that the mapping was not known.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::cache::PagesId;

/// How long later pages follow a first one.
const LIFETIME: Duration = Duration::from_secs(60);

/// Most first pages that are remembered; beyond it the oldest are forgotten.
const MOST: usize = 20_000;

/// First pages with something that later ones take over.
pub(super) struct FirstPages<T>(Mutex<Pages<T>>);

struct Pages<T> {
    by_id: HashMap<PagesId, (T, Instant)>,
    /// The oldest first. Where a page was noted anew meanwhile, its earlier entries mean nothing.
    ages: VecDeque<(Instant, PagesId)>,
}

impl<T> Default for FirstPages<T> {
    fn default() -> Self {
        Self(Mutex::new(Pages {
            by_id: HashMap::new(),
            ages: VecDeque::new(),
        }))
    }
}

impl<T: Copy> FirstPages<T> {
    /// Notes what later pages take over from a first one, or that it is nothing.
    pub(super) fn note(&self, id: PagesId, what: Option<T>) {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        pages.forget(now);
        match what {
            None => {
                pages.by_id.remove(&id);
            }
            Some(what) => {
                pages.by_id.insert(id, (what, now));
                pages.ages.push_back((now, id));
            }
        }
    }

    /// What is taken over from the first page of this search, if anything is.
    pub(super) fn of(&self, id: &PagesId) -> Option<T> {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.forget(Instant::now());
        pages.by_id.get(id).map(|&(what, _)| what)
    }

    /// Whether nothing is taken over from any page.
    pub(super) fn is_empty(&self) -> bool {
        let pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.by_id.is_empty()
    }
}

impl<T> Pages<T> {
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
    use rerankd_core::FailReason;

    use super::*;

    fn id(number: usize) -> PagesId {
        let headers = http::HeaderMap::new();
        super::super::cache::SearchId::new(&headers, "/", b"").pages(&number.to_le_bytes())
    }

    #[test]
    fn the_last_that_became_of_a_first_page_counts_and_memory_is_bounded() {
        let pages = FirstPages::default();
        pages.note(id(0), Some(FailReason::Deadline));
        pages.note(id(0), Some(FailReason::Overloaded));
        assert_eq!(pages.of(&id(0)), Some(FailReason::Overloaded));
        pages.note(id(0), None);
        assert_eq!(pages.of(&id(0)), None);
        for number in 0..MOST + 100 {
            pages.note(id(number), Some(FailReason::Deadline));
        }
        let kept = pages.0.lock().expect("nobody panicked");
        assert!(kept.by_id.len() <= MOST + 1 && kept.ages.len() <= MOST + 1);
    }
}
