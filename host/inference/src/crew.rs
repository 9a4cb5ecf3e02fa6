//! How many workers may run one model at the same time.
//!
//! As many as there are, for most models on most machines. Where memory is what limits a model, or where
//! its provider runs one at a time anyway, some fewer do as much, and the others are free for other
//! models and for texts. It is found when the model is loaded, unless its manifest says it.

use std::sync::Barrier;
use std::time::Duration;

use crate::cost::Clock;

/// Fewer workers are taken if they do this much of what more of them do.
const AS_MUCH: f64 = 0.98;

/// How often each number of workers is tried. The best counts, as what disturbs a try only makes it slower.
const TRIES: usize = 3;

/// About how long one try lasts, and how many runs of each worker it has.
const TRY: Duration = Duration::from_millis(5);
const RUNS: std::ops::RangeInclusive<u128> = 2..=64;

/// Tries `workers` at the same time, then half of them and so on, as long as fewer do as much, and returns how many of
/// them may run at the same time. `run` is one run, and `expected` what it takes by this clock.
///
/// On the CPU it is time that the workers compute, as for [the cost](crate::cost) of a run: a server that
/// starts beside a busy engine has no core of its own in that moment, and needs all workers later.
///
/// # Errors
/// That of `run`.
pub(crate) fn calibrate<E: Send>(
    workers: usize,
    clock: Clock,
    expected: Duration,
    run: impl Fn() -> Result<(), E> + Sync,
) -> Result<usize, E> {
    let runs = TRY.as_nanos() / expected.as_nanos().max(1);
    let runs = runs.clamp(*RUNS.start(), *RUNS.end()) as usize;
    let best_rate = |threads: usize| {
        (0..TRIES).try_fold(0.0, |best: f64, _| {
            rate(threads, runs, clock, &run).map(|rate| best.max(rate))
        })
    };
    let mut most = workers.max(1);
    if most == 1 {
        return Ok(1);
    }
    let mut rate = best_rate(most)?;
    while most > 1 {
        let fewer = best_rate(most / 2)?;
        if fewer < AS_MUCH * rate {
            break;
        }
        (most, rate) = (most / 2, fewer.max(rate));
    }
    Ok(most)
}

/// Runs a second of so many threads at the same time; the slowest of them counts.
fn rate<E: Send>(
    threads: usize,
    runs: usize,
    clock: Clock,
    run: &(impl Fn() -> Result<(), E> + Sync),
) -> Result<f64, E> {
    let together = Barrier::new(threads);
    let one = || {
        together.wait();
        let started = clock.now();
        let outcome = (0..runs).try_for_each(|_| run());
        outcome.map(|()| clock.now().saturating_sub(started))
    };
    let times = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(one)).collect();
        let mut outcomes = vec![one()];
        for other in others {
            outcomes.push(match other.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            });
        }
        outcomes.into_iter().collect::<Result<Vec<_>, E>>()
    })?;
    let slowest = times.into_iter().max().unwrap_or_default();
    Ok((threads * runs) as f64 / slowest.as_secs_f64().max(1e-9))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const RUN: Duration = Duration::from_millis(2);

    #[test]
    fn runs_that_do_not_hinder_each_other_get_all_workers() {
        let most = calibrate(4, Clock::Wall, RUN, || {
            std::thread::sleep(RUN);
            Ok::<(), Infallible>(())
        });
        assert_eq!(most, Ok(4));
    }

    #[test]
    fn runs_that_hinder_each_other_get_one_worker() {
        let running = AtomicU32::new(0);
        let most = calibrate(4, Clock::Wall, RUN, || {
            let together = running.fetch_add(1, Ordering::SeqCst) + 1;
            std::thread::sleep(RUN * together.pow(2));
            running.fetch_sub(1, Ordering::SeqCst);
            Ok::<(), Infallible>(())
        });
        assert_eq!(most, Ok(1));
    }

    #[test]
    fn workers_that_find_no_core_free_are_wanted_all_the_same() {
        let compute = |time: Duration| {
            let started = Clock::Thread.now();
            while Clock::Thread.now() - started < time {
                std::hint::spin_loop();
            }
        };
        // More of them than cores: they take turns, as beside other busy processes.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let most = calibrate(4 * cores, Clock::Thread, RUN, || {
            compute(RUN);
            Ok::<(), Infallible>(())
        });
        assert_eq!(most, Ok(4 * cores));
    }

    #[test]
    fn a_run_that_fails_is_an_error() {
        let most = calibrate(2, Clock::Wall, RUN, || Err("no memory"));
        assert_eq!(most, Err("no memory"));
    }
}
