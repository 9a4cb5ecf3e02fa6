//! Runs of a shadow version: after the answer has gone out, on spare capacity only, compared and counted,
//! never shown to anybody.
//!
//! [`Shadow`] is a queue of a few jobs and one task that works them off, one at a time; the task is there
//! only while there are jobs. Nothing here ever makes a request wait: [`Shadow::offer`] drops the job
//! if the queue is full or the process has other work, and what was taken runs in a background lane of
//! the scheduler. What comes of it is kept with the shadow version's own traffic
//! ([`VersionTraffic::shadow`](rerankd_policy::VersionTraffic)).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use rerankd_core::{Judgment, Outcome, Ranking, RerankRequest, Reranked, Status};
use rerankd_inference::{Deadline, Inference};
use rerankd_policy::{
    PolicyEngine, PolicyError, PolicyVersion, VersionTraffic, invoke_in_background,
};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::admission::Admission;

/// Jobs that may wait.
pub const MAX_QUEUED_JOBS: usize = 16;

/// Requests that take more than this are left out, bytes: with the queue it bounds the memory.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;

/// One request that was answered, to be run by the shadow version too.
pub struct ShadowJob {
    /// Runs the shadow version.
    pub engine: Arc<PolicyEngine>,
    /// Its models and their queue.
    pub inference: Arc<Inference>,
    /// The shadow version.
    pub version: Arc<PolicyVersion>,
    /// The shadow version's traffic.
    pub traffic: Arc<VersionTraffic>,
    /// Digest of the version that answered.
    pub against: String,
    /// What was asked: from [`Shadow::copy`].
    pub request: RerankRequest,
    /// What was answered.
    pub live: Reranked,
    /// The request's id, for the shadow version's faults.
    pub request_id: String,
}

/// The shadow runs of one process.
#[derive(Default)]
pub struct Shadow(Arc<Queue>);

#[derive(Default)]
struct Queue(Mutex<State>);

#[derive(Default)]
struct State {
    jobs: VecDeque<ShadowJob>,
    /// The task that works jobs off, while there is one.
    worker: Option<AbortHandle>,
    stopped: bool,
}

impl Shadow {
    /// A copy of a request for the shadow version, to be made before the request is run; `None`, and
    /// counted as dropped, if it is too large or there is no room for it.
    pub fn copy(
        &self,
        traffic: &VersionTraffic,
        against: &str,
        request: &RerankRequest,
    ) -> Option<RerankRequest> {
        if !traffic.shadow.is_against(against) {
            return None;
        }
        if self.0.has_room() && request.held_bytes() <= MAX_REQUEST_BYTES {
            return Some(request.clone());
        }
        traffic.shadow.dropped(against);
        None
    }

    /// Takes a job, or drops and counts it: if the queue is full, after [`stop`](Self::stop), if ordinary
    /// work waits for a core, or if more than half of what may be admitted is. Never waits.
    ///
    /// To be called in the runtime, after the answer was made and its permit given back. Answers
    /// that are no ranking of a version, and those of a version other than the one that the shadow is
    /// compared with, are passed over.
    pub fn offer(&self, admission: &Admission, mut job: ShadowJob) {
        let ranked = matches!(job.live.status, Status::Applied | Status::Partial);
        if !ranked || !job.traffic.shadow.is_against(&job.against) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return job.dropped();
        };
        if is_busy(admission, &job) {
            return job.dropped();
        }
        job.live.ranking = without_words(&job.live.ranking);
        let mut state = self.0.lock();
        if state.stopped || state.jobs.len() >= MAX_QUEUED_JOBS {
            drop(state);
            return job.dropped();
        }
        state.jobs.push_back(job);
        // It may have ended without a word if a job panicked.
        if state.worker.as_ref().is_none_or(AbortHandle::is_finished) {
            let work = work(Arc::clone(&self.0));
            state.worker = Some(runtime.spawn(work).abort_handle());
        }
    }

    /// How many jobs wait.
    pub fn queued(&self) -> usize {
        self.0.lock().jobs.len()
    }

    /// Drops what waits and what runs, and everything from now on: the process is going down.
    pub fn stop(&self) {
        let mut state = self.0.lock();
        state.stopped = true;
        let jobs = std::mem::take(&mut state.jobs);
        if let Some(worker) = state.worker.take() {
            worker.abort();
        }
        drop(state);
        for job in jobs {
            job.dropped();
        }
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .expect("nothing panics while it holds the queue")
    }

    fn has_room(&self) -> bool {
        let state = self.lock();
        !state.stopped && state.jobs.len() < MAX_QUEUED_JOBS
    }

    /// The next job. `None` ends the task that asks.
    fn next(&self) -> Option<ShadowJob> {
        let mut state = self.lock();
        let job = state.jobs.pop_front();
        if job.is_none() {
            state.worker = None;
        }
        job
    }
}

async fn work(queue: Arc<Queue>) {
    while let Some(job) = queue.next() {
        job.run().await;
    }
}

impl ShadowJob {
    async fn run(self) {
        let started = Instant::now();
        let timeout = self.engine.limits().default_timeout;
        let result = invoke_in_background(
            &self.engine,
            &self.inference,
            &self.version,
            self.request,
            started,
            Deadline::after(started, timeout),
        )
        .await;
        self.traffic.record_shadow(&result, &self.request_id);
        let comparison = &self.traffic.shadow;
        match &result {
            // Rows that had no turn say nothing of the version.
            Ok(invoked) if invoked.late_rows > 0 => comparison.dropped(&self.against),
            Ok(invoked) => comparison.compared(&self.against, &self.live, &invoked.reranked),
            Err(
                PolicyError::Deadline { .. }
                | PolicyError::NoInstance
                | PolicyError::NoRoom { .. }
                | PolicyError::ShuttingDown,
            ) => comparison.dropped(&self.against),
            Err(
                PolicyError::Fault { .. }
                | PolicyError::InvalidRequest { .. }
                | PolicyError::Host { .. },
            ) => comparison.failed(&self.against),
        }
    }

    fn dropped(&self) {
        self.traffic.shadow.dropped(&self.against);
    }
}

/// Whether requests of clients want what a shadow run would use.
fn is_busy(admission: &Admission, job: &ShadowJob) -> bool {
    let limits = job.engine.limits();
    let (bytes, tokens, requests) = admission.in_use();
    let over_half = |used: usize, limit: usize| used > limit / 2;
    !job.inference.scheduler().expected_wait().is_zero()
        || over_half(bytes, limits.max_bytes_in_flight)
        || over_half(tokens, limits.max_queued_tokens)
        || over_half(requests, limits.max_instances)
}

/// The same order and scores, without what is said about documents: it is not compared, and may be long.
fn without_words(ranking: &Ranking) -> Ranking {
    let bare = |judgment: &Judgment| Judgment {
        outcome: match &judgment.outcome {
            Outcome::Unscored(_) => Outcome::Unscored(String::new()),
            outcome => outcome.clone(),
        },
        truncated: false,
        explanation: None,
    };
    Ranking::new(ranking.judgments().iter().map(bare).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_about_documents_are_dropped_and_the_order_stays() {
        let judge = |outcome, explanation: &str| Judgment {
            outcome,
            truncated: true,
            explanation: Some(explanation.into()),
        };
        let ranking = Ranking::new(vec![
            judge(Outcome::Unscored("late".into()), "secret"),
            judge(Outcome::Scored(1.0), "secret"),
            judge(Outcome::Filtered, "secret"),
            judge(Outcome::Scored(2.0), "secret"),
        ]);
        let bare = without_words(&ranking);
        assert_eq!(bare.order(), ranking.order());
        assert_eq!((bare.score(3), bare.score(0)), (Some(2.0), None));
        assert!(!format!("{bare:?}").contains("secret"));
    }
}
