//! What a run of a model costs: a fixed part (reading the weights, starting each operator) and a part
//! for each token. It is found when the model is loaded, and followed while it runs. The scheduler
//! sizes runs by it.
//!
//! On the CPU all of it is time of the calling thread, which other processes do not lengthen: a
//! server that starts, or works, beside a busy engine packs as it would on a quiet machine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Row lengths of the calibration, tokens: far enough apart to tell the two parts, short enough to
/// take some milliseconds.
const SHORT_ROW: usize = 16;
pub(crate) const LONG_ROW: usize = 64;

/// Runs of each, of which the quickest counts.
const TRIES: usize = 3;

/// Bounds of the padding that may be better than another run, tokens.
const SLACK: std::ops::RangeInclusive<usize> = 4..=64;

/// The smoothed cost of a model's runs.
#[derive(Debug, Default)]
pub(crate) struct RunCost {
    clock: Clock,
    fixed_ns: u64,
    token_ns: AtomicU64,
}

/// How the time of a run is taken.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// Time that the calling thread computed: for a run that stays on it.
    #[default]
    Thread,
    /// Time that went by: for a run on a device.
    Wall,
}

impl RunCost {
    /// Measures both parts. `run` runs one row of so many tokens; `window` is the longest row.
    ///
    /// # Errors
    /// That of `run`.
    pub(crate) fn calibrate<E>(
        clock: Clock,
        window: usize,
        mut run: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Self, E> {
        let (short, long) = (SHORT_ROW.min(window / 2), LONG_ROW.min(window));
        let mut quickest = |tokens: usize| -> Result<u64, E> {
            let mut best = u64::MAX;
            for _ in 0..TRIES {
                let started = clock.now();
                run(tokens)?;
                best = best.min(nanoseconds(clock.now().saturating_sub(started)));
            }
            Ok(best)
        };
        let (one, other) = (quickest(short)?, quickest(long)?);
        let further = (long - short).max(1) as u64;
        // A device may run both in the same time: then a token is nearly free, never quite.
        let token_ns = (other.saturating_sub(one) / further).max(1);
        Ok(Self {
            clock,
            fixed_ns: one.saturating_sub(token_ns * short as u64),
            token_ns: AtomicU64::new(token_ns),
        })
    }

    /// The clock to time runs with.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Notes what a run of `tokens` tokens, padding included, took.
    pub(crate) fn observe(&self, tokens: usize, took: Duration) {
        let of_tokens = nanoseconds(took).saturating_sub(self.fixed_ns);
        let sample = of_tokens / (tokens.max(1) as u64);
        let before = self.token_ns.load(Ordering::Relaxed);
        // An exponential average over about 16 runs. Losing an update to a race costs nothing.
        let after = before - before / 16 + sample / 16;
        self.token_ns.store(after.max(1), Ordering::Relaxed);
    }

    /// Tokens of a run that lasts so long; at least 1.
    pub(crate) fn tokens_within(&self, run: Duration) -> usize {
        let of_tokens = nanoseconds(run).saturating_sub(self.fixed_ns);
        let tokens = of_tokens / self.token_ns.load(Ordering::Relaxed).max(1);
        usize::try_from(tokens).unwrap_or(usize::MAX).max(1)
    }

    /// Padding, tokens, that costs about as much as the fixed part of another run.
    pub(crate) fn slack(&self) -> usize {
        let tokens = self.fixed_ns / self.token_ns.load(Ordering::Relaxed).max(1);
        let tokens = usize::try_from(tokens).unwrap_or(usize::MAX);
        tokens.clamp(*SLACK.start(), *SLACK.end())
    }

    /// The fixed part.
    pub(crate) fn fixed(&self) -> Duration {
        Duration::from_nanos(self.fixed_ns)
    }

    /// The part for each token.
    pub(crate) fn token(&self) -> Duration {
        Duration::from_nanos(self.token_ns.load(Ordering::Relaxed))
    }
}

impl Clock {
    /// Time since a moment that is the same for the calling thread.
    pub(crate) fn now(self) -> Duration {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        match self {
            Self::Wall => START.elapsed(),
            Self::Thread => {
                let time = clock_gettime(ClockId::ThreadCPUTime);
                // Both are never negative, and nanoseconds below a second.
                Duration::new(
                    u64::try_from(time.tv_sec).unwrap_or(0),
                    u32::try_from(time.tv_nsec).unwrap_or(0),
                )
            }
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fixed: u64, token: u64) -> RunCost {
        RunCost {
            clock: Clock::Thread,
            fixed_ns: fixed,
            token_ns: AtomicU64::new(token),
        }
    }

    #[test]
    fn runs_of_one_row_do_not_make_tokens_dearer() {
        let cost = of(3_000_000, 150_000);
        let before = cost.tokens_within(Duration::from_millis(20));
        assert_eq!(before, 113);
        for _ in 0..1000 {
            cost.observe(20, Duration::from_nanos(3_000_000 + 20 * 150_000));
        }
        let after = cost.tokens_within(Duration::from_millis(20));
        assert!(
            after.abs_diff(before) <= 1,
            "{before} tokens became {after}"
        );
        assert_eq!(cost.slack(), 20);
    }

    #[test]
    fn a_model_whose_runs_are_all_fixed_cost_still_gets_runs() {
        let cost = of(40_000_000, 1);
        assert_eq!(cost.tokens_within(Duration::from_millis(20)), 1);
        assert_eq!(cost.slack(), 64);
        assert_eq!(of(0, 1000).slack(), 4);
    }

    #[test]
    fn a_thread_that_sleeps_costs_nothing() {
        let cost = RunCost::calibrate(Clock::Thread, 128, |tokens| {
            std::thread::sleep(Duration::from_millis(tokens as u64 / 8));
            Ok::<(), ()>(())
        });
        let cost = cost.expect("nothing fails");
        assert!(cost.token() < Duration::from_micros(50), "{cost:?}");
    }
}
