//! How many workers may run one model at the same time.
//!
//! As many as there are, for most models on most machines. Where memory is what limits a model, or where
//! its provider runs one at a time anyway, some fewer do as much, and the others are free for other
//! models and for texts. It is found when the model is loaded, unless its manifest says it.

use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Fewer workers are taken if they do this much of what more of them do.
const AS_MUCH: f64 = 0.98;

/// Each number of workers is tried until this time is up, but at most [`TRIES`] times; the best counts,
/// as what disturbs a try only makes it slower.
const TRY_FOR: Duration = Duration::from_millis(40);
const TRIES: usize = 4;

/// Runs of each worker in one try.
const RUNS: usize = 2;

/// Measures `workers`, then half of them and so on, as long as fewer do as much, and returns how many of
/// them may run at the same time. `run` is one run.
///
/// # Errors
/// That of `run`.
pub(crate) fn calibrate<E: Send>(
    workers: usize,
    run: impl Fn() -> Result<(), E> + Sync,
) -> Result<usize, E> {
    let mut most = workers.max(1);
    let mut rate = if most > 1 {
        best_rate(most, &run)?
    } else {
        0.0
    };
    while most > 1 {
        let fewer = best_rate(most / 2, &run)?;
        if fewer < AS_MUCH * rate {
            break;
        }
        (most, rate) = (most / 2, fewer.max(rate));
    }
    Ok(most)
}

/// Runs a second of so many threads, the best of some tries.
fn best_rate<E: Send>(threads: usize, run: &(impl Fn() -> Result<(), E> + Sync)) -> Result<f64, E> {
    let started = Instant::now();
    let mut best: f64 = 0.0;
    for _ in 0..TRIES {
        best = best.max(rate(threads, run)?);
        if started.elapsed() >= TRY_FOR {
            break;
        }
    }
    Ok(best)
}

fn rate<E: Send>(threads: usize, run: &(impl Fn() -> Result<(), E> + Sync)) -> Result<f64, E> {
    let together = Barrier::new(threads);
    let one = || {
        together.wait();
        let started = Instant::now();
        let outcome = (0..RUNS).try_for_each(|_| run());
        outcome.map(|()| (started, Instant::now()))
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
    let (starts, ends): (Vec<_>, Vec<_>) = times.into_iter().unzip();
    let first = starts.into_iter().min().unwrap_or_else(Instant::now);
    let last = ends.into_iter().max().unwrap_or(first);
    Ok((threads * RUNS) as f64 / (last - first).as_secs_f64().max(1e-9))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn runs_that_do_not_hinder_each_other_get_all_workers() {
        let most = calibrate(4, || {
            std::thread::sleep(Duration::from_millis(4));
            Ok::<(), Infallible>(())
        });
        assert_eq!(most, Ok(4));
    }

    #[test]
    fn runs_that_take_turns_get_one_worker() {
        let turn = Mutex::new(());
        let most = calibrate(4, || {
            let _alone = turn.lock().map_err(|_| ())?;
            std::thread::sleep(Duration::from_millis(2));
            Ok(())
        });
        assert_eq!(most, Ok::<usize, ()>(1));
    }

    #[test]
    fn a_run_that_fails_is_an_error() {
        let most = calibrate(2, || Err("no memory"));
        assert_eq!(most, Err("no memory"));
    }
}
