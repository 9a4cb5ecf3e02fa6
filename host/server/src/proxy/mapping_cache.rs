//! What the engine said of indices, by who asked and what was asked, for a while.
//!
//! An answer is good for [`FRESH`]; after that it serves on while it is asked for anew, up to
//! [`LIFETIME`]. That there is none is kept for [`REFUSED`]. One look-up runs for a key at a time, and all
//! who want it wait for the same.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rerankd_wire::search::{Mapping, Seen, Target};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

/// How long an answer serves without being asked for anew.
pub(super) const FRESH: Duration = Duration::from_secs(60);

/// How long it serves where nothing newer comes.
pub(super) const LIFETIME: Duration = Duration::from_secs(600);

/// How long the engine is not asked again after it gave none.
pub(super) const REFUSED: Duration = Duration::from_secs(10);

/// Most answers that are kept, and that there are none.
const MOST_ENTRIES: usize = 4096;

/// What all of them may take, bytes.
const MOST_BYTES: usize = 32 << 20;

/// What an entry takes beside its mapping, with its key and its places among the ages, bytes.
const BYTES_OF_ENTRY: usize = 512;

/// Look-ups that run at one time.
pub(super) const MOST_AT_ONCE: usize = 32;

/// Who asks and what of, each by a digest: what a client writes takes no room here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    caller: [u8; 32],
    target: [u8; 32],
}

impl Key {
    /// `caller` is a digest of the credentials.
    pub(super) fn new(caller: [u8; 32], target: &Target) -> Self {
        let mut digest = Sha256::new();
        for part in target.parts() {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        Self {
            caller,
            target: digest.finalize().into(),
        }
    }
}

/// What became of a look-up.
#[derive(Debug)]
pub(super) enum Answer {
    Mapping(Box<Mapping>),
    /// The engine does not say, to this caller, or has no such thing: what was known before is void.
    Refused,
    /// Nothing came, or nothing that is understood: what was known before serves on.
    Failed,
}

/// The answers.
#[derive(Default)]
pub(super) struct MappingCache(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    by_key: HashMap<Key, Entry>,
    /// The oldest first. Where a key was answered anew meanwhile, its earlier places mean nothing.
    ages: VecDeque<(Instant, Key)>,
    bytes: usize,
    running: HashMap<Key, watch::Receiver<()>>,
}

struct Entry {
    /// With the time of its look-up.
    mapping: Option<(Arc<Mapping>, Instant)>,
    /// When the latest look-up began that gave nothing.
    failed: Option<Instant>,
    /// When it was put into `ages`.
    since: Instant,
    bytes: usize,
}

/// A look-up that runs: whoever has it is the only one. Dropped before its end, it failed.
pub(super) struct Turn {
    cache: Arc<MappingCache>,
    key: Key,
    began: Instant,
    /// Those who wait are woken when it is dropped.
    _waiting: watch::Sender<()>,
}

impl MappingCache {
    /// What is known, and whether the engine is to be asked.
    pub(super) fn get(&self, key: &Key, now: Instant) -> (Seen, bool) {
        let kept = self.lock();
        let Some(entry) = kept.by_key.get(key) else {
            return (Seen::Cold, true);
        };
        let since = |at: Instant| now.saturating_duration_since(at);
        let is_refused = entry.failed.is_some_and(|at| since(at) < REFUSED);
        match &entry.mapping {
            Some((mapping, at)) if since(*at) < LIFETIME => {
                let wanted = since(*at) >= FRESH && !is_refused;
                (Seen::Known(Arc::clone(mapping)), wanted)
            }
            _ if is_refused => (Seen::Unknown, false),
            _ => (Seen::Cold, true),
        }
    }

    /// Begins a look-up, unless one runs; what tells that it has ended. Where as many run as may, or
    /// `most_of_caller` of this caller's, none begins and nothing is noted: it is wanted as before.
    pub(super) fn begin(
        self: &Arc<Self>,
        key: &Key,
        now: Instant,
        most_of_caller: usize,
    ) -> (Option<Turn>, Option<watch::Receiver<()>>) {
        let mut kept = self.lock();
        if let Some(running) = kept.running.get(key) {
            return (None, Some(running.clone()));
        }
        let of_caller = kept.running.keys().filter(|one| one.caller == key.caller);
        if of_caller.count() >= most_of_caller || kept.running.len() >= MOST_AT_ONCE {
            return (None, None);
        }
        let (sender, receiver) = watch::channel(());
        kept.running.insert(*key, receiver.clone());
        let turn = Turn {
            cache: Arc::clone(self),
            key: *key,
            began: now,
            _waiting: sender,
        };
        (Some(turn), Some(receiver))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Notes what came of it.
    pub(super) fn end(self, answer: Answer) {
        self.cache.lock().note(&self.key, self.began, answer);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut kept = self.cache.lock();
        if kept.running.remove(&self.key).is_some() && !kept.knows_since(&self.key, self.began) {
            kept.note(&self.key, self.began, Answer::Failed);
        }
    }
}

impl Kept {
    /// Whether something was noted that began at `began` or later.
    fn knows_since(&self, key: &Key, began: Instant) -> bool {
        self.by_key.get(key).is_some_and(|entry| {
            let answered = entry.mapping.as_ref().is_some_and(|(_, at)| *at >= began);
            answered || entry.failed.is_some_and(|at| at >= began)
        })
    }

    fn note(&mut self, key: &Key, began: Instant, answer: Answer) {
        let before = self.remove(key).and_then(|entry| entry.mapping);
        let (mapping, failed) = match answer {
            Answer::Mapping(mapping) => (Some((Arc::from(mapping), began)), None),
            Answer::Refused => (None, Some(began)),
            Answer::Failed => (before, Some(began)),
        };
        let held = mapping
            .as_ref()
            .map_or(0, |(mapping, _)| mapping.held_bytes());
        let bytes = BYTES_OF_ENTRY + held;
        if bytes > MOST_BYTES {
            return;
        }
        while (self.bytes + bytes > MOST_BYTES || self.by_key.len() >= MOST_ENTRIES)
            && self.drop_oldest()
        {}
        self.bytes += bytes;
        self.ages.push_back((began, *key));
        let entry = Entry {
            mapping,
            failed,
            since: began,
            bytes,
        };
        self.by_key.insert(*key, entry);
        // What was answered again and again has left places behind.
        if self.ages.len() > 2 * MOST_ENTRIES {
            let by_key = &self.by_key;
            self.ages
                .retain(|(at, key)| by_key.get(key).is_some_and(|entry| entry.since == *at));
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
            .is_some_and(|entry| entry.since == since)
        {
            self.remove(&key);
        }
        true
    }

    fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.by_key.remove(key)?;
        self.bytes -= entry.bytes;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

    use rerankd_wire::search::Rules;

    use super::*;

    fn key(name: &str) -> Key {
        Key::new([0; 32], &Target::of_indices(name))
    }

    fn mapping(fields: usize) -> Answer {
        let fields: Vec<String> = (0..fields)
            .map(|n| format!(r#""field-{n}":{{"text":{{}}}}"#))
            .collect();
        let answer = format!(r#"{{"indices":["a"],"fields":{{{}}}}}"#, fields.join(","));
        let target = Target::of_indices("a");
        let read = Mapping::read(&target, &Rules::default(), answer.as_bytes(), None, None);
        Answer::Mapping(Box::new(read.unwrap()))
    }

    fn answer(cache: &Arc<MappingCache>, key: &Key, now: Instant, answer: Answer) {
        let (turn, _) = cache.begin(key, now, MOST_AT_ONCE);
        turn.unwrap().end(answer);
    }

    fn state(cache: &MappingCache, key: &Key, now: Instant) -> (&'static str, bool) {
        let (seen, wanted) = cache.get(key, now);
        let seen = match seen {
            Seen::Off => "off",
            Seen::Known(_) => "known",
            Seen::Unknown => "unknown",
            Seen::Cold => "cold",
        };
        (seen, wanted)
    }

    #[test]
    fn an_answer_serves_while_it_is_asked_for_anew() {
        let cache = Arc::new(MappingCache::default());
        let (key, start) = (key("a"), Instant::now());
        assert_eq!(state(&cache, &key, start), ("cold", true));
        answer(&cache, &key, start, mapping(1));
        assert_eq!(state(&cache, &key, start), ("known", false));
        assert_eq!(state(&cache, &key, start + FRESH), ("known", true));
        // The engine is down: what is known serves on, and is asked for from time to time.
        answer(&cache, &key, start + FRESH, Answer::Failed);
        assert_eq!(state(&cache, &key, start + FRESH), ("known", false));
        assert_eq!(
            state(&cache, &key, start + FRESH + REFUSED),
            ("known", true)
        );
        assert_eq!(state(&cache, &key, start + LIFETIME), ("cold", true));
    }

    #[test]
    fn a_refusal_ends_what_was_known_and_is_not_asked_for_again_at_once() {
        let cache = Arc::new(MappingCache::default());
        let (key, start) = (key("a"), Instant::now());
        answer(&cache, &key, start, mapping(1));
        answer(&cache, &key, start + FRESH, Answer::Refused);
        assert_eq!(state(&cache, &key, start + FRESH), ("unknown", false));
        assert_eq!(state(&cache, &key, start + FRESH + REFUSED), ("cold", true));
    }

    #[test]
    fn one_look_up_runs_at_a_time_and_one_that_is_dropped_has_failed() {
        let cache = Arc::new(MappingCache::default());
        let (key, start) = (key("a"), Instant::now());
        let (turn, _) = cache.begin(&key, start, 1);
        let (second, waiting) = cache.begin(&key, start, 1);
        let mut waiting = waiting.unwrap();
        assert!(second.is_none());
        assert!(waiting.has_changed().is_ok(), "it has not ended yet");
        drop(turn);
        assert!(waiting.has_changed().is_err(), "it has ended");
        waiting.mark_unchanged();
        assert_eq!(state(&cache, &key, start), ("unknown", false));
        assert!(cache.begin(&key, start, 1).0.is_some());
    }

    #[test]
    fn a_caller_leaves_places_to_others_and_what_finds_none_is_wanted_as_before() {
        let cache = Arc::new(MappingCache::default());
        let start = Instant::now();
        let of = |caller: u8, n: usize| Key::new([caller; 32], &Target::of_indices(&n.to_string()));
        let begin = |caller: u8| -> Vec<Turn> {
            let most = MOST_AT_ONCE / 2;
            let begun = (0..64).map(|n| cache.begin(&of(caller, n), start, most).0);
            begun.flatten().collect()
        };
        let first = begin(1);
        assert_eq!(first.len(), MOST_AT_ONCE / 2);
        assert_eq!(state(&cache, &of(1, 63), start), ("cold", true));
        let second = begin(2);
        assert_eq!(second.len(), MOST_AT_ONCE / 2);
        assert!(begin(3).is_empty());
        drop(first);
        assert_eq!(begin(3).len(), MOST_AT_ONCE / 2);
    }

    #[test]
    fn callers_do_not_see_what_another_was_told() {
        let cache = Arc::new(MappingCache::default());
        let start = Instant::now();
        answer(&cache, &key("a"), start, mapping(1));
        let other = Key::new([1; 32], &Target::of_indices("a"));
        assert_eq!(state(&cache, &other, start), ("cold", true));
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_go_first() {
        let cache = Arc::new(MappingCache::default());
        let start = Instant::now();
        for n in 0..MOST_ENTRIES + 10 {
            answer(&cache, &key(&n.to_string()), start, Answer::Refused);
        }
        assert_eq!(cache.lock().by_key.len(), MOST_ENTRIES);
        assert_eq!(state(&cache, &key("9"), start), ("cold", true));
        assert_eq!(state(&cache, &key("10"), start), ("unknown", false));
        for n in 0..200 {
            answer(&cache, &key(&format!("large-{n}")), start, mapping(5_000));
        }
        let kept = cache.lock();
        assert!(kept.bytes <= MOST_BYTES, "{}", kept.bytes);
        let sum: usize = kept.by_key.values().map(|entry| entry.bytes).sum();
        assert_eq!(kept.bytes, sum);
        drop(kept);
        // Whatever is written of it, and however often it is answered.
        let long = key(&"name".repeat(100_000));
        for n in 0..3 * MOST_ENTRIES {
            let now = start + REFUSED * n as u32;
            answer(&cache, &long, now, Answer::Refused);
        }
        let kept = cache.lock();
        assert!(kept.ages.len() <= 2 * MOST_ENTRIES, "{}", kept.ages.len());
        assert_eq!(kept.by_key[&long].bytes, BYTES_OF_ENTRY);
    }
}
