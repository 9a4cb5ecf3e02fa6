//! Metrics under the names of text-embeddings-inference, for dashboards and autoscalers that were made
//! for it. They count what the data plane answers, in whatever protocol.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use rerankd_core::{ErrorKind, RerankError, Reranked};

use super::latency_buckets;

/// The values of the label `err`.
const FAILURES: [&str; 4] = ["batch_size", "validation", "overloaded", "inference"];

/// The metrics.
pub(super) struct TeiMetrics {
    registry: Registry,
    answered: AtomicU64,
    failed: [AtomicU64; FAILURES.len()],
    texts: AtomicU64,
    scored: AtomicU64,
    durations: [Histogram; 4],
    queue_size: Gauge,
}

impl TeiMetrics {
    pub(super) fn new() -> Self {
        let metrics = Self {
            registry: Registry::default(),
            answered: AtomicU64::new(0),
            failed: [const { AtomicU64::new(0) }; FAILURES.len()],
            texts: AtomicU64::new(0),
            scored: AtomicU64::new(0),
            durations: std::array::from_fn(|_| latency_buckets()),
            queue_size: Gauge::default(),
        };
        let mut registry = Registry::default();
        for (name, help, histogram) in [
            (
                "te_request_duration",
                "Whole requests, seconds",
                &metrics.durations[0],
            ),
            (
                "te_request_tokenization_duration",
                "Tokenizing, seconds",
                &metrics.durations[1],
            ),
            (
                "te_request_queue_duration",
                "Waiting, seconds",
                &metrics.durations[2],
            ),
            (
                "te_request_inference_duration",
                "Models running, seconds",
                &metrics.durations[3],
            ),
        ] {
            registry.register(name, help, histogram.clone());
        }
        registry.register(
            "te_queue_size",
            "Rows that wait",
            metrics.queue_size.clone(),
        );
        Self {
            registry,
            ..metrics
        }
    }

    pub(super) fn answered(&self, results: &[Reranked]) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        for result in results {
            let ranking = &result.ranking;
            self.texts
                .fetch_add(ranking.documents() as u64, Ordering::Relaxed);
            self.scored
                .fetch_add(ranking.scored() as u64, Ordering::Relaxed);
            let timings = &result.timings;
            let parts = [
                timings.total,
                timings.tokenize,
                timings.queue,
                timings.inference,
            ];
            for (histogram, part) in self.durations.iter().zip(parts) {
                histogram.observe(part.as_secs_f64());
            }
        }
    }

    pub(super) fn refused(&self, error: &RerankError) {
        let failure = match error.kind {
            ErrorKind::TooLarge => "batch_size",
            ErrorKind::Overloaded | ErrorKind::ShuttingDown => "overloaded",
            ErrorKind::PolicyFault
            | ErrorKind::Unread
            | ErrorKind::DeadlineExceeded
            | ErrorKind::Internal => "inference",
            _ => "validation",
        };
        for (name, count) in FAILURES.iter().zip(&self.failed) {
            if *name == failure {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Prometheus text. The counters are written here, since that server's have no `_total`.
    pub(super) fn render(&self, queued_rows: usize) -> String {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let failed: u64 = self.failed.iter().map(read).sum();
        let (answered, texts, scored) =
            (read(&self.answered), read(&self.texts), read(&self.scored));
        let mut text = format!(
            "# TYPE te_request_count counter\nte_request_count{{method=\"batch\"}} {}\n\
             # TYPE te_request_success counter\nte_request_success{{method=\"batch\"}} {answered}\n\
             # TYPE te_predict_count counter\nte_predict_count {texts}\n\
             # TYPE te_predict_success counter\nte_predict_success {scored}\n\
             # TYPE te_request_failure counter\n",
            answered + failed
        );
        for (name, count) in FAILURES.iter().zip(&self.failed) {
            let _ = writeln!(text, "te_request_failure{{err=\"{name}\"}} {}", read(count));
        }
        self.queue_size
            .set(i64::try_from(queued_rows).unwrap_or(i64::MAX));
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a string cannot fail");
        text
    }
}
