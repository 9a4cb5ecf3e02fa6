//! Rankings of the last minute, so that the pages of a search agree with each other even where a later
//! one would have failed, and cost one ranking.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rerankd_core::{RerankRequest, Reranked, Status};
use rerankd_policy::PolicyVersion;
use sha2::{Digest, Sha256};

/// How long a ranking is kept.
const LIFETIME: Duration = Duration::from_secs(60);

/// Documents in all rankings that are kept: about 64 bytes each.
const MOST_DOCUMENTS: usize = 200_000;

/// All that a ranking depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// `fingerprint` is what the window and the request are.
    pub(super) fn new(
        version: &PolicyVersion,
        request: &RerankRequest,
        fingerprint: &[u8],
    ) -> Self {
        let mut hash = Sha256::new();
        // Of fixed length both, so that nothing runs into the fingerprint.
        hash.update(Sha256::digest(version.digest()));
        hash.update([u8::from(request.explain)]);
        hash.update(fingerprint);
        Self(hash.finalize().into())
    }
}

/// The rankings.
#[derive(Default)]
pub(super) struct RankingCache(Mutex<Rankings>);

#[derive(Default)]
struct Rankings {
    by_key: HashMap<Key, Reranked>,
    /// The oldest first; a key stands here once for as long as it is in the map.
    ages: VecDeque<(Instant, Key)>,
    documents: usize,
}

impl RankingCache {
    /// A ranking that was made within [`LIFETIME`].
    pub(super) fn get(&self, key: &Key) -> Option<Reranked> {
        let mut rankings = self.lock();
        rankings.forget(Instant::now());
        rankings.by_key.get(key).cloned()
    }

    /// Keeps a ranking if it is complete: what is missing in another may be there the next time.
    pub(super) fn put(&self, key: Key, reranked: &Reranked) {
        let documents = reranked.ranking.documents();
        if reranked.status != Status::Applied || documents > MOST_DOCUMENTS {
            return;
        }
        let kept = reranked.clone();
        let mut rankings = self.lock();
        let now = Instant::now();
        rankings.forget(now);
        if rankings.by_key.contains_key(&key) {
            return;
        }
        while rankings.documents + documents > MOST_DOCUMENTS {
            rankings.drop_oldest();
        }
        rankings.by_key.insert(key, kept);
        rankings.ages.push_back((now, key));
        rankings.documents += documents;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Rankings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rankings {
    fn forget(&mut self, now: Instant) {
        while let Some((made, _)) = self.ages.front()
            && now.duration_since(*made) > LIFETIME
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((_, key)) = self.ages.pop_front() else {
            return;
        };
        if let Some(reranked) = self.by_key.remove(&key) {
            self.documents -= reranked.ranking.documents();
        }
    }
}
