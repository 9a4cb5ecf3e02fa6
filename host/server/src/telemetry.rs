//! Every metric, and what is logged about requests.

mod caches;
mod connections;
mod ledger;
mod tei;
mod versions;

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use rerankd_core::{ErrorKind, Ledger, Outcome, RerankError, Reranked};
use rerankd_inference::Inference;
use rerankd_policy::release::Releases;

use self::caches::Caches;
use self::connections::Planes;
use self::ledger::HostBytes;
use self::tei::TeiMetrics;
use self::versions::Versions;
use crate::app::App;
use crate::config::Config;
use crate::connections::Connections;
use crate::proxy::Kind;

/// Starts logging to standard error.
pub fn start_logging(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::new(&config.log);
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if config.log_json {
        logs.json().flatten_event(true).init();
    } else {
        logs.init();
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    protocol: &'static str,
    status: &'static str,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// The metrics of one process.
pub struct Telemetry {
    registry: Registry,
    tei: TeiMetrics,
    requests: Family<RequestLabels, Counter>,
    stages: Family<StageLabels, Histogram, fn() -> Histogram>,
    documents: Family<OutcomeLabels, Counter>,
    admin_refusals: Family<ReasonLabels, Counter>,
    proxied: Family<KindLabels, Counter>,
    upstream: Family<KindLabels, Histogram, fn() -> Histogram>,
    look_ups: Family<OutcomeLabels, Counter>,
    queued_tokens: Gauge,
    queued_rows: Gauge,
    admitted_bytes: Gauge,
    admitted_tokens: Gauge,
    admitted_requests: Gauge,
    upload_bytes: Gauge,
}

/// From 0.25 ms to 8 s, by factors of 2.
fn latency_buckets() -> Histogram {
    Histogram::new((0..16).map(|power| 0.000_25 * f64::from(1 << power)))
}

impl Telemetry {
    /// Registers every metric.
    pub fn new(
        inference: &Arc<Inference>,
        releases: &Arc<Releases>,
        ledger: &Arc<Ledger>,
        connections: &Arc<Connections>,
    ) -> Self {
        let mut registry = Registry::with_prefix("rerankd");
        let telemetry = Self {
            requests: Family::default(),
            stages: Family::new_with_constructor(latency_buckets),
            documents: Family::default(),
            admin_refusals: Family::default(),
            proxied: Family::default(),
            upstream: Family::new_with_constructor(latency_buckets),
            look_ups: Family::default(),
            queued_tokens: Gauge::default(),
            queued_rows: Gauge::default(),
            admitted_bytes: Gauge::default(),
            admitted_tokens: Gauge::default(),
            admitted_requests: Gauge::default(),
            upload_bytes: Gauge::default(),
            registry: Registry::default(),
            tei: TeiMetrics::new(),
        };
        let t = &telemetry;
        registry.register(
            "requests",
            "Rerank requests by protocol and by the status and reason of Rerank-Status",
            t.requests.clone(),
        );
        registry.register(
            "stage_seconds",
            "Time of answered requests by stage: queue, tokenize, inference, guest, total",
            t.stages.clone(),
        );
        registry.register("documents", "Documents by outcome", t.documents.clone());
        registry.register(
            "admin_refusals",
            "Requests that the admin plane refused by reason: host, cross-site, content-type, token-missing, token-unknown, right",
            t.admin_refusals.clone(),
        );
        registry.register(
            "proxy_requests",
            "Requests to the search proxy by kind: search, msearch, passed; rerankd_requests has what became of the searches",
            t.proxied.clone(),
        );
        registry.register(
            "upstream_seconds",
            "Time of the search engine by kind of request: to the head of an answer that is passed, to the end of one that is reranked",
            t.upstream.clone(),
        );
        registry.register(
            "lookups",
            "What the search engine was asked of names and mappings, by outcome: known, refused, failed",
            t.look_ups.clone(),
        );
        registry.register(
            "queue_tokens",
            "Tokens of rows that wait",
            t.queued_tokens.clone(),
        );
        registry.register("queue_rows", "Rows that wait", t.queued_rows.clone());
        registry.register(
            "admitted_bytes",
            "Bytes in flight",
            t.admitted_bytes.clone(),
        );
        registry.register(
            "admitted_tokens",
            "Tokens of admitted requests, estimated",
            t.admitted_tokens.clone(),
        );
        registry.register(
            "admitted_requests",
            "Requests in flight",
            t.admitted_requests.clone(),
        );
        registry.register(
            "upload_bytes",
            "Bytes of bodies on the admin plane",
            t.upload_bytes.clone(),
        );
        registry.register_collector(Box::new(Rows(Arc::clone(inference))));
        registry.register_collector(Box::new(Caches(Arc::clone(inference))));
        registry.register_collector(Box::new(Versions(Arc::clone(releases))));
        registry.register_collector(Box::new(HostBytes(Arc::clone(ledger))));
        registry.register_collector(Box::new(Planes(Arc::clone(connections))));
        Self {
            registry,
            ..telemetry
        }
    }

    /// A call was answered with rankings.
    pub(crate) fn answered(&self, protocol: &'static str, results: &[Reranked], request_id: &str) {
        self.tei.answered(results);
        if results.is_empty() {
            self.count(protocol, "skipped", "no-documents");
        }
        for result in results {
            let (status, reason) = (result.status.name(), result.status.reason().unwrap_or(""));
            self.count(protocol, status, reason);
            for judgment in result.ranking.judgments() {
                let outcome = match judgment.outcome {
                    Outcome::Scored(_) => "scored",
                    Outcome::Unscored(_) => "unscored",
                    Outcome::Filtered => "filtered",
                };
                self.documents
                    .get_or_create(&OutcomeLabels { outcome })
                    .inc();
            }
            let timings = &result.timings;
            for (stage, time) in [
                ("queue", timings.queue),
                ("tokenize", timings.tokenize),
                ("inference", timings.inference),
                ("guest", timings.guest),
                ("total", timings.total),
            ] {
                self.stages
                    .get_or_create(&StageLabels { stage })
                    .observe(time.as_secs_f64());
            }
            tracing::debug!(
                request_id,
                protocol,
                policy = result.policy,
                version = result.version,
                status,
                reason,
                documents = result.ranking.documents(),
                unscored = result.ranking.unscored(),
                total_ms = timings.total.as_secs_f64() * 1e3,
                "reranked"
            );
        }
    }

    /// A call was answered with an error.
    pub(crate) fn refused(&self, protocol: &'static str, error: &RerankError, request_id: &str) {
        self.tei.refused(error);
        self.count(protocol, "error", &error.kind.name().replace('_', "-"));
        match error.kind {
            ErrorKind::Internal => {
                tracing::error!(request_id, protocol, %error, "request failed");
            }
            ErrorKind::PolicyFault | ErrorKind::DeadlineExceeded => {
                tracing::warn!(
                    request_id,
                    protocol,
                    kind = error.kind.name(),
                    "request failed"
                );
            }
            _ => tracing::debug!(
                request_id,
                protocol,
                kind = error.kind.name(),
                "request refused"
            ),
        }
    }

    /// A request failed and was answered with the engine's own order.
    pub(crate) fn fell_back(&self, protocol: &'static str, error: &RerankError, request_id: &str) {
        match error.kind {
            ErrorKind::Internal => {
                tracing::error!(request_id, protocol, %error, "answered in first-stage order");
            }
            kind => tracing::warn!(
                request_id,
                protocol,
                kind = kind.name(),
                "answered in first-stage order"
            ),
        }
    }

    /// What the rule of an index says does not fit the policy: the operator's mistake, at this place of the
    /// request that was made of it.
    pub(crate) fn rule_does_not_fit(&self, protocol: &'static str, at: &str, request_id: &str) {
        tracing::warn!(
            request_id,
            protocol,
            at,
            "answered in first-stage order: what the [[index]] rule says does not fit the policy's version; `rerankd policy show` has its parameters and fields"
        );
    }

    /// A request came to the search proxy.
    pub(crate) fn proxied(&self, kind: Kind) {
        let kind = kind.name();
        self.proxied.get_or_create(&KindLabels { kind }).inc();
    }

    /// The search engine answered.
    pub(crate) fn upstream_answered(&self, kind: Kind, time: Duration) {
        let kind = kind.name();
        self.upstream
            .get_or_create(&KindLabels { kind })
            .observe(time.as_secs_f64());
    }

    /// The search engine was asked what a search is asked of.
    pub(crate) fn looked_up(&self, outcome: &'static str) {
        self.look_ups
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }

    /// A search was answered by the search engine alone.
    pub(crate) fn not_ranked(
        &self,
        kind: Kind,
        status: &'static str,
        reason: &'static str,
        request_id: &str,
    ) {
        self.count(kind.name(), status, reason);
        tracing::debug!(request_id, kind = kind.name(), status, reason, "passed");
    }

    /// The admin plane did not let a caller in.
    pub(crate) fn admin_refused(&self, reason: &'static str) {
        self.admin_refusals
            .get_or_create(&ReasonLabels { reason })
            .inc();
    }

    /// The metrics as OpenMetrics text.
    pub fn render(&self, app: &App) -> String {
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let (tokens, rows) = app.inference.scheduler().queued();
        self.queued_tokens.set(gauge(tokens));
        self.queued_rows.set(gauge(rows));
        let (bytes, tokens, requests) = app.admission.in_use();
        self.admitted_bytes.set(gauge(bytes));
        self.admitted_tokens.set(gauge(tokens));
        self.admitted_requests.set(gauge(requests));
        self.upload_bytes.set(gauge(app.upload_room.in_use()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a string cannot fail");
        text
    }

    /// The metrics under the names of text-embeddings-inference, as Prometheus text.
    pub(crate) fn render_tei(&self, app: &App) -> String {
        let (_, rows) = app.inference.scheduler().queued();
        self.tei.render(rows)
    }

    fn count(&self, protocol: &'static str, status: &'static str, reason: &str) {
        let labels = RequestLabels {
            protocol,
            status,
            reason: reason.to_owned(),
        };
        self.requests.get_or_create(&labels).inc();
    }
}

/// The scheduler's own counters.
struct Rows(Arc<Inference>);

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rows")
    }
}

impl Collector for Rows {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let statistics = self.0.scheduler().statistics();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, help, value) in [
            ("rows_run", "Rows that were run", read(&statistics.rows_run)),
            (
                "rows_late",
                "Rows dropped at their deadline",
                read(&statistics.rows_late),
            ),
            (
                "rows_withdrawn",
                "Rows dropped because their request was gone",
                read(&statistics.rows_withdrawn),
            ),
            ("runs", "Runs of a model", read(&statistics.runs)),
            (
                "tokens_run",
                "Tokens that were run",
                read(&statistics.tokens_run),
            ),
            (
                "tokens_padding",
                "Padding that was run beside them",
                read(&statistics.tokens_padding),
            ),
            (
                "texts_encoded",
                "Texts that were tokenized",
                read(&statistics.texts_encoded),
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        let seconds = read(&statistics.run_ns) as f64 / 1e9;
        let help = "Time in runs, all workers together";
        let metric = encoder.encode_descriptor("run_seconds", help, None, MetricType::Counter)?;
        ConstCounter::new(seconds).encode(metric)
    }
}
