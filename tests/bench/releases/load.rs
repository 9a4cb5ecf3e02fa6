//! Constant load from several clients, with a look at every answer.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::Result;
use crate::measure::Samples;
use crate::server::{Answer, Client, Server};

/// Clients at a time.
pub(crate) const CLIENTS: usize = 16;

/// Scores of one version may differ by this much: by nothing but how they are printed.
const SAME: f64 = 1e-9;

/// Requests of all clients in this share of what one client gets that never waits.
const SHARE: f64 = 0.5;

/// Clients that send when it is time, whatever became of the request before: each after 0.5 to 1.5
/// times its mean gap, at random, so that requests meet as they do in life.
pub(crate) struct Load {
    clients: Vec<Client>,
    bodies: Vec<Vec<u8>>,
    /// By version and body: the scores that are right.
    expected: BTreeMap<String, Vec<Vec<f64>>>,
    /// Between two requests of one client.
    gap: Duration,
}

/// What became of the requests of some time.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// From when a request was to be sent until its answer was read, milliseconds.
    pub(crate) latency: Samples,
    /// Requests that had no answer, or not all of it.
    pub(crate) lost: usize,
    /// Answers with a score that is not that of the version that they name.
    pub(crate) mixed: usize,
    /// Answers by version.
    pub(crate) versions: BTreeMap<String, usize>,
    /// The first that went wrong.
    pub(crate) problem: Option<String>,
}

impl Load {
    /// For a policy whose versions have these digests, which must be there. Takes some seconds to see
    /// how much a client gets.
    pub(crate) fn new(
        server: &Server,
        policy: &str,
        digests: &[String],
        bodies: Vec<Vec<u8>>,
    ) -> Result<Self> {
        let mut expected = BTreeMap::new();
        for digest in digests {
            let client = server.client(&format!("{policy}@{digest}"));
            let scores = |body: &Vec<u8>| client.rerank(body)?.1.scores();
            let scores = bodies.iter().map(scores).collect::<Result<Vec<_>>>()?;
            expected.insert(digest[..8].to_owned(), scores);
        }
        let client = server.client(policy);
        let started = Instant::now();
        let mut sent: usize = 0;
        while started.elapsed() < Duration::from_secs(3) {
            client.rerank(&bodies[sent % bodies.len()])?;
            sent += 1;
        }
        let alone = started.elapsed() / u32::try_from(sent)?;
        Ok(Self {
            clients: (0..CLIENTS).map(|_| server.client(policy)).collect(),
            bodies,
            expected,
            gap: alone.mul_f64(CLIENTS as f64 / SHARE),
        })
    }

    /// Requests of all clients, a second.
    pub(crate) fn rate(&self) -> f64 {
        CLIENTS as f64 / self.gap.as_secs_f64()
    }

    /// In how many of all documents the versions' scores differ, so that a mixed answer shows.
    pub(crate) fn telling(&self) -> (usize, usize) {
        let mut versions = self.expected.values().map(|scores| scores.concat());
        let first = versions.next().unwrap_or_default();
        let others: Vec<Vec<f64>> = versions.collect();
        let differs = |at: &usize| others.iter().any(|o| (o[*at] - first[*at]).abs() > SAME);
        ((0..first.len()).filter(differs).count(), first.len())
    }

    /// Sends requests for as long as `goes_on` says so, in an order that `seed` decides.
    pub(crate) fn run(&self, seed: u64, goes_on: impl Fn() -> bool + Sync) -> Result<Outcome> {
        let all = Mutex::new(Outcome::default());
        std::thread::scope(|scope| {
            for (number, client) in self.clients.iter().enumerate() {
                let (all, goes_on) = (&all, &goes_on);
                scope.spawn(move || {
                    let own = self.client(client, seed * CLIENTS as u64 + number as u64, goes_on);
                    if let Ok(mut all) = all.lock() {
                        all.add(own);
                    }
                });
            }
        });
        Ok(all.into_inner().map_err(|_| "a client panicked")?)
    }

    fn client(&self, client: &Client, seed: u64, goes_on: &impl Fn() -> bool) -> Outcome {
        let mut outcome = Outcome::default();
        let mut random = Random(seed);
        let mut due = Instant::now() + self.gap.mul_f64(random.next());
        while goes_on() {
            let wait = due.saturating_duration_since(Instant::now());
            std::thread::sleep(wait);
            // Who was late already has waited since the request was due.
            let from = if wait.is_zero() { due } else { Instant::now() };
            let body = (random.next() * self.bodies.len() as f64) as usize;
            match client.rerank(&self.bodies[body]) {
                Ok((_, answer)) => {
                    outcome.latency.push_time(from.elapsed());
                    let problem = self.problem(body, &answer);
                    outcome.mixed += usize::from(problem.is_some());
                    outcome.problem = outcome.problem.or(problem);
                    *outcome
                        .versions
                        .entry(answer.version().to_owned())
                        .or_default() += 1;
                }
                Err(error) => {
                    outcome.lost += 1;
                    outcome.problem.get_or_insert(error.to_string());
                }
            }
            due += self.gap.mul_f64(0.5 + random.next());
        }
        outcome
    }

    /// Why an answer is not wholly that of the version that it names.
    fn problem(&self, body: usize, answer: &Answer) -> Option<String> {
        let version = answer.version();
        let Some(expected) = self.expected.get(version) else {
            return Some(format!("an answer of `{version}`, which is neither"));
        };
        let scores = answer.scores().unwrap_or_default();
        let same = |(own, right): (&f64, &f64)| (own - right).abs() <= SAME;
        let all = scores.iter().zip(&expected[body]).all(same);
        let right = scores.len() == expected[body].len() && all;
        (!right).then(|| format!("an answer of `{version}` with other scores: {scores:?}"))
    }
}

impl Outcome {
    /// Adds what became of other requests.
    pub(crate) fn add(&mut self, other: Self) {
        self.latency.extend(other.latency);
        self.lost += other.lost;
        self.mixed += other.mixed;
        for (version, count) in other.versions {
            *self.versions.entry(version).or_default() += count;
        }
        self.problem = self.problem.take().or(other.problem);
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// At least 0, less than 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
