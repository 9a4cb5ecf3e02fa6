//! When a version that was just activated has to go: the trigger of the automatic rollback.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::error::PolicyError;
use crate::invoke::Invoked;

/// What a version may do in its first time.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbationRules {
    /// How long a version is watched.
    pub window: Duration,
    /// Calls that must have been seen before anything follows from them.
    pub min_calls: u64,
    /// Share of calls that may end in the policy's own fault, 0 to 100; beyond it the version goes.
    /// At 100 none ever goes.
    pub max_fault_percent: f64,
}

impl Default for ProbationRules {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(3600),
            min_calls: 50,
            max_fault_percent: 5.0,
        }
    }
}

/// The first time of one version in one role, from its activation or the start of its canary.
#[derive(Debug)]
pub struct Probation {
    rules: ProbationRules,
    started: Instant,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    calls: u64,
    faults: u64,
    failed: bool,
}

impl Probation {
    /// Begins at `started`.
    pub fn new(rules: ProbationRules, started: Instant) -> Self {
        Self {
            rules,
            started,
            seen: Mutex::default(),
        }
    }

    /// Counts a call at `now`. `own_fault`: whether it ended in the policy's own fault.
    ///
    /// True exactly once: at the call with which, inside the window, at least the least number of
    /// calls was seen and the share of faults is over the limit. Whoever gets it rolls back.
    pub fn observe(&self, own_fault: bool, now: Instant) -> bool {
        if now.saturating_duration_since(self.started) >= self.rules.window {
            return false;
        }
        let mut seen = self
            .seen
            .lock()
            .expect("nothing panics while it holds the counts");
        if seen.failed {
            return false;
        }
        seen.calls += 1;
        seen.faults += u64::from(own_fault);
        let over = seen.faults as f64 * 100.0 > self.rules.max_fault_percent * seen.calls as f64;
        seen.failed = over && seen.calls >= self.rules.min_calls;
        seen.failed
    }

    /// Counts what came of a call, as [`observe`](Self::observe), if it says anything of the policy:
    /// a ranking, or its own fault. Deadlines, overload, bad requests and failures of the host are not
    /// counted at all, so that a crowd of bad requests does not hide faults either.
    pub fn observe_result(&self, result: &Result<Invoked, PolicyError>, now: Instant) -> bool {
        match result {
            Ok(_) => self.observe(false, now),
            Err(PolicyError::Fault { .. }) => self.observe(true, now),
            Err(_) => false,
        }
    }

    /// Calls seen and faults among them.
    pub fn seen(&self) -> (u64, u64) {
        let seen = self
            .seen
            .lock()
            .expect("nothing panics while it holds the counts");
        (seen.calls, seen.faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Fault;

    const NEVER: [usize; 0] = [];
    const HOUR: Duration = Duration::from_secs(3600);

    fn probation() -> (Probation, Instant) {
        let started = Instant::now();
        (Probation::new(ProbationRules::default(), started), started)
    }

    /// At which of these calls (`true`: a fault) it fires.
    fn fires_at(probation: &Probation, now: Instant, calls: &[bool]) -> Vec<usize> {
        (0..calls.len())
            .filter(|&call| probation.observe(calls[call], now))
            .collect()
    }

    #[test]
    fn a_version_that_always_faults_goes_at_the_fiftieth_call_and_only_once() {
        let (probation, started) = probation();
        assert_eq!(fires_at(&probation, started, &[true; 200]), [49]);
    }

    #[test]
    fn five_percent_of_faults_are_borne_and_more_are_not() {
        let (probation, now) = probation();
        // 5 of 100: at the limit, not over it; never more on the way.
        let bearable: Vec<bool> = (1..=100).map(|call| call % 20 == 0).collect();
        assert_eq!(fires_at(&probation, now, &bearable), NEVER);
        assert_eq!(probation.seen(), (100, 5));
        assert!(probation.observe(true, now), "6 of 101 are 5.94 %");
        assert!(!probation.observe(true, now), "it has fired");
    }

    #[test]
    fn early_faults_count_once_there_are_enough_calls() {
        let (probation, now) = probation();
        let mut calls = vec![true; 3];
        calls.extend([false; 47]);
        assert_eq!(fires_at(&probation, now, &calls), [49], "3 of 50 are 6 %");
    }

    #[test]
    fn the_window_ends() {
        let (probation, started) = probation();
        let last = started + HOUR - Duration::from_nanos(1);
        assert_eq!(fires_at(&probation, last, &[true; 49]), NEVER);
        assert_eq!(fires_at(&probation, started + HOUR, &[true; 100]), NEVER);
        assert!(probation.observe(true, last));
    }

    #[test]
    fn a_limit_of_all_bears_everything() {
        let started = Instant::now();
        let rules = ProbationRules {
            max_fault_percent: 100.0,
            ..ProbationRules::default()
        };
        let probation = Probation::new(rules, started);
        assert_eq!(fires_at(&probation, started, &[true; 500]), NEVER);
    }

    #[test]
    fn only_what_says_something_of_the_policy_is_counted() {
        let (probation, now) = probation();
        let policy = || "p@12345678".to_owned();
        let others = [
            PolicyError::Deadline { policy: policy() },
            PolicyError::NoInstance,
            PolicyError::ShuttingDown,
            PolicyError::InvalidRequest {
                at: None,
                message: "no".into(),
            },
            PolicyError::Host {
                policy: policy(),
                message: "no".into(),
            },
        ];
        for error in others.into_iter().cycle().take(1000) {
            assert!(!probation.observe_result(&Err(error), now));
        }
        assert_eq!(probation.seen(), (0, 0));
        let fault = Err(PolicyError::Fault {
            policy: policy(),
            fault: Fault::StackOverflow,
            log: Vec::new(),
            peak_memory_bytes: 0,
        });
        let fired = (0..50).filter(|_| probation.observe_result(&fault, now));
        assert_eq!(fired.count(), 1);
    }

    #[test]
    fn of_many_threads_one_is_told() {
        let (probation, now) = probation();
        let told: usize = std::thread::scope(|scope| {
            let count = || (0..100).filter(|_| probation.observe(true, now)).count();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(count)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("nothing panics"))
                .sum()
        });
        assert_eq!(told, 1);
    }
}
