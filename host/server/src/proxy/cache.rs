//! Rankings of the last minute: the first page of a search that was ranked before costs no second
//! ranking, and its later pages are cut from the order that the first was.
//!
//! An engine may show different contents of one document to different callers, or no longer what it
//! showed before. So a first page takes a ranking only where everything is the same that the policy
//! saw, *and* who asked ([`Keys`]'s `same`). A later page takes the ranking of its own first page: of
//! the same caller's same search over the same hits, whose contents may have changed meanwhile
//! ([`Keys`]'s `pages`). A ranking that lacks scores serves these later pages alone: what is missing in it
//! may be there the next time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderMap;
use rerankd_core::{Field, Outcome, RerankRequest, Reranked, Status, Value};
use sha2::{Digest, Sha256};

/// How long a ranking is kept; for later pages, since their first page was last asked for.
const LIFETIME: Duration = Duration::from_secs(60);

/// How often the time of a first page that is asked for again and again is noted.
const RENEWAL: Duration = Duration::from_secs(1);

/// What all rankings that are kept may take, bytes.
const MOST_BYTES: usize = 48 << 20;

/// What a ranking takes beside its judgments, bytes.
const BYTES_OF_RANKING: usize = 512;

/// Headers that say nothing of who asks or what is shown: of the way, of the client's program, and
/// names by which a request is found again in logs and traces. All others count. In the order of
/// `docs/search-proxy.md`, which lists them.
const HARMLESS: [&str; 20] = [
    "accept-encoding",
    "content-encoding",
    "te",
    "user-agent",
    "x-elastic-client-meta",
    "x-opaque-id",
    "x-request-id",
    "x-correlation-id",
    "traceparent",
    "tracestate",
    "elastic-apm-traceparent",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "uber-trace-id",
];

/// Who asked the engine, and what: the headers that it got, but for the harmless ones, the target, and
/// the body, as of the widened search, in which all pages of a search are the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct SearchId {
    /// Headers and target: by these the engine decides what it shows.
    caller: [u8; 32],
    body: [u8; 32],
}

impl SearchId {
    /// `headers` are those that the engine gets.
    pub(super) fn new(headers: &HeaderMap, target: &str, body: &[u8]) -> Self {
        let mut names: Vec<&str> = headers
            .keys()
            .map(http::HeaderName::as_str)
            .filter(|name| !HARMLESS.contains(name))
            .collect();
        names.sort_unstable();
        let mut caller = Parts::default();
        caller.add(target.as_bytes());
        for name in names {
            for value in headers.get_all(name) {
                caller.add(name.as_bytes());
                caller.add(value.as_bytes());
            }
        }
        Self {
            caller: caller.end(),
            body: Sha256::digest(body).into(),
        }
    }

    /// The search and what is asked of the policy, whatever page and whatever hits.
    pub(super) fn pages(&self, asked: &[u8]) -> PagesId {
        let mut parts = Parts::default();
        for part in [&self.caller[..], &self.body, asked] {
            parts.add(part);
        }
        PagesId(parts.end())
    }
}

/// All pages of a search by one caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PagesId([u8; 32]);

impl PagesId {
    /// `caller` is a digest of who asks, `search` what is the same for all pages of the search alone.
    pub(super) fn new(caller: &[u8; 32], search: &[u8]) -> Self {
        let mut parts = Parts::default();
        parts.add(caller);
        parts.add(search);
        Self(parts.end())
    }
}

/// Under what a ranking is kept.
#[derive(Debug)]
pub(super) struct Keys {
    /// All that the ranking was made of, and the caller.
    same: Key,
    /// The caller, the search and its hits.
    pages: Key,
}

/// A digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key([u8; 32]);

impl Keys {
    /// `version` is the digest of the policy's version; `fingerprint` what was asked of the policy,
    /// and about which hits.
    pub(super) fn new(
        version: &str,
        request: &RerankRequest,
        fingerprint: &[u8],
        search: &SearchId,
    ) -> Self {
        let mut common = Parts::default();
        common.add(version.as_bytes());
        common.add(&[u8::from(request.explain), u8::from(request.raw_scores)]);
        common.add(request.first_stage.name().as_bytes());
        common.add(fingerprint);
        common.add(&search.caller);
        let mut pages = common.clone();
        pages.add(b"pages");
        pages.add(&search.body);
        let mut same = common;
        same.add(b"same");
        // Two lists print in the same way only if they are the same.
        same.add(format!("{:?}", request.fields).as_bytes());
        for document in &request.documents {
            same.add(document.id.as_deref().unwrap_or_default().as_bytes());
            let score = document.first_stage_score.unwrap_or(f64::NAN);
            same.add(&score.to_bits().to_le_bytes());
            same.count(document.fields.len());
            document.fields.iter().for_each(|field| same.field(field));
        }
        Self {
            same: Key(same.end()),
            pages: Key(pages.end()),
        }
    }
}

/// A digest of parts, each with its length in front, so that no two lists of parts run together.
#[derive(Clone, Default)]
struct Parts(Sha256);

impl Parts {
    fn add(&mut self, part: &[u8]) {
        self.count(part.len());
        self.0.update(part);
    }

    fn count(&mut self, count: usize) {
        self.0.update((count as u64).to_le_bytes());
    }

    fn field(&mut self, field: &Field) {
        self.add(field.name.as_bytes());
        match &field.value {
            Value::Text(text) => self.tagged(0, text.as_bytes()),
            Value::Texts(texts) => {
                self.add(&[1]);
                self.count(texts.len());
                texts.iter().for_each(|text| self.add(text.as_bytes()));
            }
            Value::Number(number) => self.tagged(2, &number.to_bits().to_le_bytes()),
            Value::Integer(integer) => self.tagged(3, &integer.to_le_bytes()),
            Value::Numbers(numbers) => {
                self.add(&[4]);
                self.count(numbers.len());
                for number in numbers {
                    self.0.update(number.to_bits().to_le_bytes());
                }
            }
            Value::Boolean(value) => self.tagged(5, &[u8::from(*value)]),
            Value::Vector(vector) => {
                self.add(&[6]);
                self.count(vector.len());
                for number in vector {
                    self.0.update(number.to_bits().to_le_bytes());
                }
            }
            Value::Json(text) => self.tagged(7, text.as_bytes()),
        }
    }

    fn tagged(&mut self, tag: u8, value: &[u8]) {
        self.add(&[tag]);
        self.add(value);
    }

    fn end(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// The rankings.
#[derive(Default)]
pub(super) struct RankingCache(Mutex<Rankings>);

#[derive(Default)]
struct Rankings {
    by_key: HashMap<Key, Kept>,
    /// The oldest first. Where a key was kept anew meanwhile, its earlier entries mean nothing.
    ages: VecDeque<(Instant, Key)>,
    bytes: usize,
}

struct Kept {
    reranked: Arc<Reranked>,
    since: Instant,
    bytes: usize,
}

impl RankingCache {
    /// A ranking that holds for this page.
    pub(super) fn get(&self, keys: &Keys, is_first_page: bool) -> Option<Arc<Reranked>> {
        let mut rankings = self.lock();
        let now = Instant::now();
        rankings.forget(now);
        if !is_first_page && let Some(reranked) = rankings.of(&keys.pages) {
            return Some(reranked);
        }
        let reranked = rankings.of(&keys.same)?;
        if is_first_page {
            rankings.keep(now, keys.pages, &reranked);
        }
        Some(reranked)
    }

    /// Keeps a ranking: a complete one for whoever asks the same, an incomplete one for the pages behind
    /// its own.
    pub(super) fn put(&self, keys: &Keys, is_first_page: bool, reranked: &Reranked) {
        let is_ranked = matches!(reranked.status, Status::Applied | Status::Partial);
        let fits = is_ranked && bytes_of(reranked) <= MOST_BYTES;
        let kept = fits.then(|| Arc::new(reranked.clone()));
        let mut rankings = self.lock();
        let now = Instant::now();
        rankings.forget(now);
        let Some(kept) = kept else {
            if is_first_page {
                // The pages that follow are not those of an earlier order.
                rankings.remove(&keys.pages);
            }
            return;
        };
        if kept.status == Status::Applied {
            rankings.keep(now, keys.same, &kept);
        }
        if is_first_page || rankings.of(&keys.pages).is_none() {
            rankings.keep(now, keys.pages, &kept);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Rankings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rankings {
    fn of(&self, key: &Key) -> Option<Arc<Reranked>> {
        let kept = self.by_key.get(key)?;
        Some(Arc::clone(&kept.reranked))
    }

    fn keep(&mut self, now: Instant, key: Key, reranked: &Arc<Reranked>) {
        if self.by_key.get(&key).is_some_and(|kept| {
            Arc::ptr_eq(&kept.reranked, reranked) && now.duration_since(kept.since) < RENEWAL
        }) {
            return;
        }
        self.remove(&key);
        let bytes = bytes_of(reranked);
        while self.bytes + bytes > MOST_BYTES && self.drop_oldest() {}
        self.bytes += bytes;
        self.ages.push_back((now, key));
        let kept = Kept {
            reranked: Arc::clone(reranked),
            since: now,
            bytes,
        };
        self.by_key.insert(key, kept);
    }

    fn forget(&mut self, now: Instant) {
        while let Some((since, _)) = self.ages.front()
            && now.duration_since(*since) > LIFETIME
        {
            self.drop_oldest();
        }
    }

    /// Whether there was one.
    fn drop_oldest(&mut self) -> bool {
        let Some((since, key)) = self.ages.pop_front() else {
            return false;
        };
        if self
            .by_key
            .get(&key)
            .is_some_and(|kept| kept.since == since)
        {
            self.remove(&key);
        }
        true
    }

    fn remove(&mut self, key: &Key) {
        if let Some(kept) = self.by_key.remove(key) {
            self.bytes -= kept.bytes;
        }
    }
}

/// What a ranking takes, at a guess from above.
fn bytes_of(reranked: &Reranked) -> usize {
    let judgments = reranked.ranking.judgments().iter().map(|judgment| {
        let reason = match &judgment.outcome {
            Outcome::Unscored(reason) => reason.len(),
            Outcome::Scored(_) | Outcome::Filtered => 0,
        };
        let explanation = judgment.explanation.as_ref().map_or(0, String::len);
        96 + reason + explanation
    });
    BYTES_OF_RANKING + judgments.sum::<usize>()
}
